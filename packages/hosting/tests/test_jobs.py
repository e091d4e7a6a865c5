"""sql/queue/jobs.py: what is asked of Procrastinate's tables, by several processes at once."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import pytest
import sqlalchemy as sa
from procrastinate import sql
from procrastinate.jobs import Job, Status

from agent_framework_hosting.isolation import SHARED, IsolationKeys
from agent_framework_hosting.runs.base import RunId, RunKey
from agent_framework_hosting.sql import database
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.queue import jobs

KEY = RunKey(SHARED, RunId("run_1"))
ADAS = RunKey(IsolationKeys("ada").partition, RunId("run_1"))
STALLED_AFTER = 10.0


@dataclass
class Queue:
    """The queue, and workers by their ids."""

    engine: sa.Engine
    connection: sa.Connection

    def worker(self, *, silent_for: float = 0.0) -> int:
        (row,) = jobs.ask(self.connection, sql.queries["register_worker"])
        worker = int(row["worker_id"])
        self.silence(worker, silent_for)
        return worker

    def silence(self, worker: int, seconds: float) -> None:
        jobs.ask(
            self.connection,
            "UPDATE procrastinate_workers SET last_heartbeat = now() - %(age)s * interval '1 second' WHERE id = %(id)s",
            {"age": seconds, "id": worker},
        )
        self.connection.commit()

    def fetch(self, worker: int) -> Job | None:
        (row,) = jobs.ask(
            self.connection, sql.queries["fetch_job"], {"queues": [jobs.queue_of("hold")], "worker_id": worker}
        )
        self.connection.commit()
        return None if row["id"] is None else Job.from_row(row)

    def take(self, worker: int) -> Job:
        """Fetch a job that is there."""
        job = self.fetch(worker)
        assert job is not None
        return job

    def status(self, job: Job) -> tuple[str, int | None] | None:
        rows = jobs.ask(
            self.connection, "SELECT status::text, worker_id FROM procrastinate_jobs WHERE id = %(id)s", {"id": job.id}
        )
        self.connection.commit()
        return (rows[0]["status"], rows[0]["worker_id"]) if rows else None


@pytest.fixture
def queue(postgres_url: str) -> Generator[Queue, None, None]:
    opened = Database(database.postgres_url(postgres_url))
    opened.open()
    with opened.engine.connect() as connection:
        yield Queue(opened.engine, connection)
    opened.close_now()


def start(queue: Queue, key: RunKey = KEY) -> None:
    jobs.add(queue.connection, "hold", key)
    queue.connection.commit()


def test_a_job_says_whose_run_it_is(queue: Queue) -> None:
    start(queue, ADAS)

    job = queue.take(queue.worker())

    assert jobs.key_of(job) == ADAS
    assert job.task_kwargs["operation"] == "hold"


def test_runs_of_different_partitions_do_not_share_a_lock() -> None:
    assert len({jobs.lock_of(RunKey(partition, KEY.run_id)) for partition in (SHARED, ADAS.partition)}) == 2


def test_a_run_that_waits_or_runs_is_not_queued_again_and_one_that_ended_is(queue: Queue) -> None:
    worker = queue.worker()
    start(queue)
    start(queue)
    job = queue.take(worker)
    start(queue)
    assert queue.fetch(worker) is None

    jobs.finish(queue.connection, job, Status.SUCCEEDED, delete_job=True)
    start(queue)

    assert queue.fetch(worker) is not None


def test_only_the_worker_that_has_a_job_ends_it(queue: Queue) -> None:
    first, second = queue.worker(), queue.worker()
    start(queue)
    lost = queue.take(first)
    jobs.put_back(queue.connection, lost)

    # It waits: the worker that had it does not have it any more.
    assert not jobs.finish(queue.connection, lost, Status.SUCCEEDED, delete_job=True)
    had = queue.take(second)
    assert not jobs.finish(queue.connection, lost, Status.SUCCEEDED, delete_job=True)
    assert not jobs.put_back(queue.connection, lost)
    assert queue.status(had) == ("doing", second)

    assert jobs.finish(queue.connection, had, Status.SUCCEEDED, delete_job=True)
    assert queue.status(had) is None


def test_jobs_of_silent_workers_are_put_back_and_no_others(queue: Queue) -> None:
    dead, alive = queue.worker(), queue.worker()
    start(queue)
    start(queue, ADAS)
    left, kept = queue.take(dead), queue.take(alive)
    queue.silence(dead, STALLED_AFTER + 1)

    assert jobs.take_over(queue.connection, STALLED_AFTER) == [left.id]

    assert queue.status(left) == ("todo", dead)
    assert queue.status(kept) == ("doing", alive)
    assert jobs.take_over(queue.connection, STALLED_AFTER) == []


def test_jobs_of_forgotten_workers_are_put_back(queue: Queue) -> None:
    start(queue)
    left = queue.take(queue.worker(silent_for=7200))
    jobs.clean(queue.connection, keep_hours=1, keep_workers=3600)

    assert jobs.take_over(queue.connection, STALLED_AFTER) == [left.id]


def test_a_job_that_two_take_over_at_once_is_not_taken_from_its_new_worker(queue: Queue) -> None:
    dead, alive = queue.worker(silent_for=60), queue.worker()
    start(queue)
    left = queue.take(dead)

    with queue.engine.connect() as other:
        assert jobs.take_over(queue.connection, STALLED_AFTER) == [left.id]
        assert jobs.take_over(other, STALLED_AFTER) == []  # the first has not committed yet
        queue.connection.commit()
        assert queue.take(alive).id == left.id
        assert jobs.take_over(other, STALLED_AFTER) == []

    assert queue.status(left) == ("doing", alive)


def test_a_sign_of_life_says_how_old_the_last_one_is(queue: Queue) -> None:
    worker = queue.worker(silent_for=60)

    age = jobs.beat(queue.connection, worker)
    queue.connection.commit()

    assert age is not None
    assert 60 <= age < 120
    again = jobs.beat(queue.connection, worker)
    assert again is not None
    assert 0 <= again < 60


def test_a_sign_of_life_brings_a_forgotten_worker_back(queue: Queue) -> None:
    worker = queue.worker(silent_for=7200)
    jobs.clean(queue.connection, keep_hours=1, keep_workers=3600)
    start(queue)

    assert jobs.beat(queue.connection, worker) is None

    queue.connection.commit()
    assert queue.take(worker).worker_id == worker


def test_a_run_that_waits_is_removed_and_one_that_runs_is_told(queue: Queue) -> None:
    start(queue)
    assert not jobs.cancel(queue.connection, KEY, except_of=None)
    assert jobs.find(queue.connection, KEY) is None
    start(queue)
    worker = queue.worker()
    job = queue.take(worker)

    assert not jobs.cancel(queue.connection, KEY, except_of=worker)
    assert jobs.ask(queue.connection, sql.queries["list_jobs_to_abort"], {"queue_name": None}) == []
    assert jobs.cancel(queue.connection, KEY, except_of=None)

    assert jobs.ask(queue.connection, sql.queries["list_jobs_to_abort"], {"queue_name": None}) == [{"id": job.id}]


def test_jobs_that_failed_are_forgotten_after_a_while(queue: Queue) -> None:
    worker = queue.worker()
    ended = {}
    for age, run_id in ((3, "old"), (1, "new")):
        start(queue, RunKey(SHARED, RunId(run_id)))
        job = ended[run_id] = queue.take(worker)
        jobs.finish(queue.connection, job, Status.FAILED, delete_job=False)
        jobs.ask(
            queue.connection,
            "UPDATE procrastinate_events SET at = now() - %(age)s * interval '1 hour' WHERE job_id = %(id)s",
            {"age": age, "id": job.id},
        )
    start(queue)

    jobs.clean(queue.connection, keep_hours=2, keep_workers=3600)

    assert queue.status(ended["old"]) is None
    assert queue.status(ended["new"]) == ("failed", worker)
    assert jobs.depth(queue.connection).queued == 1


def test_a_job_that_is_to_wait_a_while_does_not_count_as_waiting_long(queue: Queue) -> None:
    start(queue)
    job = queue.take(queue.worker())
    jobs.ask(queue.connection, "UPDATE procrastinate_events SET at = at - interval '1 hour'")

    jobs.put_back(queue.connection, job, retry_at="2100-01-01T00:00:00Z")

    assert jobs.depth(queue.connection) == (1, 0, 0.0)


def test_lost_jobs_of_a_worker_are_put_back_if_it_still_has_them(queue: Queue) -> None:
    worker, other = queue.worker(), queue.worker()
    for run_id in ("lost", "kept", "others"):
        start(queue, RunKey(SHARED, RunId(run_id)))
    lost, kept, others = queue.take(worker), queue.take(worker), queue.take(other)
    assert jobs.held_by(queue.connection, worker) == {lost.id, kept.id}
    assert lost.id is not None
    assert others.id is not None

    jobs.put_back_lost(queue.connection, worker, {lost.id, others.id})

    assert queue.status(lost) == ("todo", worker)
    assert queue.status(kept) == ("doing", worker)
    assert queue.status(others) == ("doing", other)


def test_the_lookup_of_a_run_uses_the_index(queue: Queue) -> None:
    jobs.ask(queue.connection, "SET LOCAL enable_seqscan = off")

    plan = jobs.ask(
        queue.connection,
        "EXPLAIN SELECT id FROM procrastinate_jobs WHERE queueing_lock = 'x' AND task_name = 'afhost.run' "
        "AND status IN ('todo', 'doing')",
    )

    assert any("afhost_jobs_run" in str(row) for row in plan)
