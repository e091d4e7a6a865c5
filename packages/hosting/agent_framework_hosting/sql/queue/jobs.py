"""The jobs of runs: what is asked of Procrastinate's tables, in transactions.

A run that waits or runs has one job, and never two: the index `afhost_jobs_run` sees to that. What Procrastinate has a query for is
done by that query; each function here is the work of one transaction, or a part of one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

import sqlalchemy as sa
from procrastinate import sql
from procrastinate.jobs import Job, Status
from procrastinate.types import JobToDefer, JSONDict
from psycopg.types.json import Jsonb

from ...isolation import Partition
from ...runs.base import QueueDepth, RunId, RunKey

TASK: Final = "afhost.run"
"""The name of Procrastinate's task, which all runs share."""

MAX_OPERATION: Final = 32
"""Characters of an operation's name: PostgreSQL notifies in channels of 63 bytes, and Procrastinate needs some."""

Rows = list[dict[str, Any]]


class Found(NamedTuple):
    """A job that waits or runs; `worker_id` says which worker has it."""

    job_id: int
    is_running: bool
    worker_id: int | None


class JobState(NamedTuple):
    """A job as an operator sees it.

    `status` is Procrastinate's: `todo` waits, `doing` runs, `failed` was given up. `attempts` counts what was tried before.
    `worker_silence`: seconds since the last sign of life of the worker that has it.
    """

    job_id: int
    status: str
    attempts: int
    worker_id: int | None
    worker_silence: float | None
    is_cancelled: bool


def ask(connection: sa.Connection, query: str, arguments: Mapping[str, Any] | None = None) -> Rows:
    """Return the rows of a query in the driver's own style (`%(name)s`)."""
    result = connection.exec_driver_sql(query, dict(arguments or {}))
    return [dict(row) for row in result.mappings()] if result.returns_rows else []


def queue_of(operation: str) -> str:
    """Return the queue of such runs: workers look into those of the operations that they know."""
    return f"afhost:{operation}"


def lock_of(key: RunKey) -> str:
    """Return the text that only jobs of this run have."""
    return hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()


def key_of(job: Job) -> RunKey:
    """Return whose run it is, and which."""
    return RunKey(Partition(str(job.task_kwargs["partition"])), RunId(str(job.task_kwargs["run_id"])))


def add(connection: sa.Connection, operation: str, key: RunKey) -> None:
    """Queue the run unless it waits or runs already. Workers hear of it with the commit.

    Raises:
        IntegrityError: somebody else did so at the same moment.
    """
    # Looked up first, because a refused insert leaves an error in the server's log.
    if find(connection, key) is not None:
        return
    # JSON in the form that the driver takes.
    arguments = cast(
        "JSONDict",
        Jsonb(
            {
                "operation": operation,
                "partition": key.partition,
                "run_id": key.run_id,
                "queued_at": time.time(),
            }
        ),
    )
    job = JobToDefer(
        queue_name=queue_of(operation),
        task_name=TASK,
        priority=0,
        lock=None,
        queueing_lock=lock_of(key),
        args=arguments,
        scheduled_at=None,
    )
    ask(connection, sql.queries["defer_jobs"], {"jobs": [job]})


def find(connection: sa.Connection, key: RunKey) -> Found | None:
    """Return the job of the run, `None` if it neither waits nor runs."""
    rows = ask(
        connection,
        "SELECT id, status, worker_id FROM procrastinate_jobs WHERE queueing_lock = %(lock)s AND "
        "task_name = 'afhost.run' AND status IN ('todo', 'doing')",
        {"lock": lock_of(key)},
    )
    return Found(rows[0]["id"], rows[0]["status"] == "doing", rows[0]["worker_id"]) if rows else None


def states(connection: sa.Connection, keys: Iterable[RunKey]) -> dict[RunKey, JobState]:
    """Return how the queue sees the runs, those of which it knows a job; the latest job counts."""
    asked = {lock_of(key): key for key in keys}
    rows = ask(
        connection,
        "SELECT DISTINCT ON (queueing_lock) queueing_lock, job.id AS job_id, job.status::text AS status, attempts, "
        "worker_id, abort_requested AS is_cancelled, "
        "extract(epoch FROM clock_timestamp() - last_heartbeat)::float AS worker_silence "
        "FROM procrastinate_jobs AS job LEFT JOIN procrastinate_workers AS worker ON worker.id = worker_id "
        "WHERE queueing_lock = ANY(%(locks)s) AND task_name = 'afhost.run' ORDER BY queueing_lock, job.id DESC",
        {"locks": list(asked)},
    )
    return {asked[row.pop("queueing_lock")]: JobState(**row) for row in rows}


def missing(connection: sa.Connection, keys: Iterable[RunKey]) -> set[RunKey]:
    """Return those of the runs that neither wait nor run."""
    asked = {lock_of(key): key for key in keys}
    rows = ask(
        connection,
        "SELECT queueing_lock FROM procrastinate_jobs WHERE queueing_lock = ANY(%(locks)s) AND "
        "task_name = 'afhost.run' AND status IN ('todo', 'doing')",
        {"locks": list(asked)},
    )
    return {asked[lock] for lock in asked.keys() - {row["queueing_lock"] for row in rows}}


def cancel(connection: sa.Connection, key: RunKey, *, except_of: int | None) -> bool:
    """Remove the run from the queue, or have its worker cancel it; return whether another worker has it.

    The worker `except_of` is told nothing: it is the caller's.
    """
    found = find(connection, key)
    if found is None or (found.is_running and found.worker_id == except_of):
        return False
    ask(connection, sql.queries["cancel_job"], {"job_id": found.job_id, "abort": True, "delete_job": True})
    # The query is one statement: it may have found running what was waiting before.
    return find(connection, key) is not None


def finish(connection: sa.Connection, job: Job, status: Status, *, delete_job: bool) -> bool:
    """Mark the job as finished, unless another worker has it by now; return whether it was done."""
    if not _is_held(connection, job):
        return False
    ask(connection, sql.queries["finish_job"], {"job_id": job.id, "status": status.value, "delete_job": delete_job})
    return True


def put_back(connection: sa.Connection, job: Job, *, retry_at: object = None) -> bool:
    """Put the job back into the queue, unless another worker has it by now; return whether it was done."""
    if not _is_held(connection, job):
        return False
    assert job.id is not None  # noqa: S101  it is held, so it is in the database
    _retry(connection, job.id, retry_at=retry_at)
    return True


def put_back_lost(connection: sa.Connection, worker_id: int, job_ids: Collection[int]) -> None:
    """Put back jobs that are the worker's, but which it knows nothing of."""
    rows = ask(
        connection,
        "SELECT id FROM procrastinate_jobs WHERE task_name = 'afhost.run' AND status = 'doing' AND worker_id = %(worker)s AND id = ANY(%(ids)s) "
        "FOR UPDATE",
        {"worker": worker_id, "ids": list(job_ids)},
    )
    for row in rows:
        _retry(connection, row["id"])


def held_by(connection: sa.Connection, worker_id: int) -> set[int]:
    """Return the jobs that the worker has, as the database sees it."""
    rows = ask(
        connection,
        "SELECT id FROM procrastinate_jobs WHERE task_name = 'afhost.run' AND status = 'doing' AND worker_id = %(worker)s",
        {"worker": worker_id},
    )
    return {row["id"] for row in rows}


def silence(connection: sa.Connection, worker_id: int) -> float | None:
    """Return the seconds since the worker's last sign of life, `None` if it was forgotten; keep it so until the end.

    The end is that of the transaction.
    """
    rows = ask(
        connection,
        "SELECT extract(epoch FROM clock_timestamp() - last_heartbeat)::float AS age FROM procrastinate_workers "
        "WHERE id = %(worker)s FOR UPDATE",
        {"worker": worker_id},
    )
    return float(rows[0]["age"]) if rows else None


def beat(connection: sa.Connection, worker_id: int) -> float | None:
    """Write a sign of life; return what `silence` was until then."""
    age = silence(connection, worker_id)
    # Procrastinate's own query does nothing for a worker that was forgotten, which then could not fetch a job any more.
    ask(
        connection,
        "INSERT INTO procrastinate_workers (id, last_heartbeat) OVERRIDING SYSTEM VALUE VALUES (%(worker)s, now()) "
        "ON CONFLICT (id) DO UPDATE SET last_heartbeat = now()",
        {"worker": worker_id},
    )
    return age


def take_over(connection: sa.Connection, stalled_after: float) -> list[int]:
    """Put back the jobs of workers that gave no sign of life for `stalled_after` seconds; return their ids."""
    candidates = ask(
        connection,
        "SELECT id FROM procrastinate_jobs AS job WHERE task_name = 'afhost.run' AND status = 'doing' AND NOT EXISTS (SELECT FROM "
        "procrastinate_workers AS worker WHERE worker.id = job.worker_id AND worker.last_heartbeat >= now() - "
        "%(seconds)s * interval '1 second') FOR UPDATE SKIP LOCKED",
        {"seconds": stalled_after},
    )
    if not candidates:
        return []
    # Asked again, now that nobody else can move them: another worker may have put them back, and a third may have
    # fetched them, between the moment in which the query above saw them and the one in which it locked them.
    stalled = ask(
        connection,
        sql.queries["select_stalled_jobs_by_heartbeat"],
        {"queue": None, "task_name": TASK, "seconds_since_heartbeat": stalled_after},
    )
    taken = sorted({row["id"] for row in stalled} & {row["id"] for row in candidates})
    for job_id in taken:
        _retry(connection, job_id)
    return taken


def clean(connection: sa.Connection, *, keep_hours: int, keep_workers: float) -> None:
    """Forget jobs that ended more than `keep_hours` ago, and workers silent for `keep_workers` seconds."""
    ended = [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.ABORTED]
    ask(
        connection,
        sql.queries["delete_old_jobs"],
        {"nb_hours": keep_hours, "queue": None, "statuses": [status.value for status in ended]},
    )
    ask(connection, sql.queries["prune_stalled_workers"], {"seconds_since_heartbeat": keep_workers})


def depth(connection: sa.Connection) -> QueueDepth:
    """Return how much there is to do."""
    (counts,) = ask(
        connection,
        "SELECT count(*) FILTER (WHERE status = 'todo') AS queued, count(*) FILTER (WHERE status = 'doing') AS running "
        "FROM procrastinate_jobs WHERE "
        "task_name = 'afhost.run' AND status IN ('todo', 'doing')",
    )
    (waits,) = ask(
        connection,
        # Since a job was queued, or put back; not those that are to wait a while before they are tried again.
        "SELECT extract(epoch FROM now() - min(waiting.since))::float AS oldest FROM (SELECT max(event.at) AS since "
        "FROM procrastinate_jobs AS job JOIN procrastinate_events AS event ON event.job_id = job.id "
        "WHERE task_name = 'afhost.run' AND status = 'todo' AND (scheduled_at IS NULL OR scheduled_at <= now()) "
        "AND event.type IN ('deferred', 'deferred_for_retry') GROUP BY job.id) AS waiting",
    )
    return QueueDepth(counts["queued"], counts["running"], max(0.0, waits["oldest"] or 0.0))


def _is_held(connection: sa.Connection, job: Job) -> bool:
    """Return whether the job is still this worker's, and keep it so until the transaction ends.

    Procrastinate's own queries look at the status only: a worker that stood still, and goes on, would end a job that
    another worker has by now.
    """
    return bool(
        ask(
            connection,
            "SELECT id FROM procrastinate_jobs WHERE task_name = 'afhost.run' AND status = 'doing' AND id = %(job)s AND worker_id = %(worker)s "
            "FOR UPDATE",
            {"job": job.id, "worker": job.worker_id},
        )
    )


def _retry(connection: sa.Connection, job_id: int, *, retry_at: object = None) -> None:
    ask(
        connection,
        sql.queries["retry_job"],
        {"job_id": job_id, "retry_at": retry_at, "new_priority": None, "new_queue_name": None, "new_lock": None},
    )
