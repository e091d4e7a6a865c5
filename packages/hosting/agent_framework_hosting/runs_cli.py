"""The commands on the runs in a host's database: `afhost runs list`, `show`, `cancel` and `retry`.

Like those of `db` they need no application: what runs there are is told by the installed packages (`StoredRuns`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .commands import Refused, add_place, age, count, opened, said, say
from .errors import ConfigurationError
from .host import new_context
from .isolation import Partition
from .runs.base import RunId, RunKey, RunStatus
from .runs.stored import RunQuery, StoredRun, StoredRuns, installed_runs
from .state import HostState, choose_state
from .targets.absent import AbsentTarget
from .targets.served import ServedTarget, ServedTargets

if TYPE_CHECKING:  # optional dependencies
    from .sql.database import Database
    from .sql.queue.jobs import JobState

LIMIT: Final = 50
"""How many runs are listed if nobody says otherwise."""

_RUNNING: Final = frozenset(status for status in RunStatus if not status.is_terminal)
_ALL: Final = "all"
_NOBODY: Final = ServedTargets([ServedTarget("", AbsentTarget())])


@dataclass(frozen=True, slots=True)
class Seen:
    """A run, what tells of it, and what is known of it beside: is its owner alive, has the queue a job for it.

    `owner_is_alive` is `None` where nobody writes that down: SQLite has one process at a time.
    """

    run: StoredRun
    source: StoredRuns
    owner_is_alive: bool | None
    job: JobState | None

    def facts(self, now: float) -> dict[str, Any]:
        """Return everything, for JSON."""
        run = self.run
        return {
            "id": run.key.run_id,
            "partition": run.key.partition,
            "model": run.target or None,
            "status": run.status.value,
            "attempt": run.attempt,
            "is_background": run.is_background,
            "age": now - run.created_at,
            "since": now - run.changed_at,
            "owner": run.owner,
            "owner_is_alive": self.owner_is_alive,
            "job": None if self.job is None else self.job._asdict(),
        }


Work: TypeAlias = "Callable[[Database, Sequence[StoredRuns]], Awaitable[Any]]"


def add_actions(runs: argparse.ArgumentParser) -> None:
    """Give the command `runs` its actions."""
    actions = runs.add_subparsers(required=True, metavar="action")
    for name, command, text in (
        ("list", _list, "print the runs that have not ended, or those with a status"),
        ("show", _show, "print what is known of one run"),
        ("cancel", _cancel, "stop a background run, whichever process has it"),
        ("retry", _retry, "have a run that is stuck taken over by the next process that looks"),
    ):
        action = actions.add_parser(name, help=text)
        add_place(action)
        action.set_defaults(command=command)
        action.add_argument("--partition", help="whose runs; default: everybody's")
        if name == "list":
            action.add_argument(
                "--status",
                action="append",
                choices=[*(status.value for status in RunStatus), _ALL],
                help="may be repeated",
            )
            action.add_argument("--older-than", type=age, metavar="AGE", help="accepted so long ago: 90m, 12h, 30d")
            action.add_argument("--limit", type=count, metavar="N", default=LIMIT, help="default: %(default)s")
        else:
            action.add_argument("id", metavar="ID", help="the id of the run: that of its response")
        if name in {"list", "show"}:
            action.add_argument("--json", action="store_true", help="print JSON")


def _list(options: argparse.Namespace) -> None:
    now = time.time()
    query = RunQuery(
        statuses=_statuses(options.status or ()),
        created_before=None if options.older_than is None else now - options.older_than,
        partition=_partition(options),
        limit=options.limit + 1,
    )
    found = _with_runs(options, lambda database, sources: _find(database, sources, query))
    shown, has_more = found[: options.limit], len(found) > options.limit
    if options.json:
        say(json.dumps({"runs": [seen.facts(now) for seen in shown], "has_more": has_more}, indent=2))
        return
    say(
        f"{'run':<40} {'status':<11} {'attempt':>7} {'age':>8} {'since':>8}  {'owner':<16} {'job':<22} {'model':<16} partition"
    )
    for seen in shown:
        run = seen.run
        say(
            f"{_plain(run.key.run_id):<40} {run.status:<11} {run.attempt:>7} {said(now - run.created_at):>8} "
            f"{said(now - run.changed_at):>8}  {_owner(seen):<16} {_job(seen):<22} {_plain(run.target) or '-':<16} "
            f"{_plain(run.key.partition)}".rstrip()
        )
    if has_more:
        say(f"There are more than {options.limit}: --limit shows more, --status, --older-than and --partition fewer.")


def _show(options: argparse.Namespace) -> None:
    now = time.time()

    async def look(database: Database, sources: Sequence[StoredRuns]) -> tuple[Seen, dict[str, Any] | None]:
        from .runs.log_table import read_state  # noqa: PLC0415  optional dependency

        seen = await _one(database, sources, options)
        log = await database.run(lambda connection: read_state(connection, key=seen.run.key))
        return seen, None if log is None else {"events": log.next_position, "is_closed": log.closed_at is not None}

    seen, log = _with_runs(options, look)
    run = seen.run
    if options.json:
        say(json.dumps({**seen.facts(now), "log": log, "error": run.error}, indent=2))
        return
    told = "none" if log is None else f"{log['events']}, {'ended' if log['is_closed'] else 'going on'}"
    for name, value in (
        ("run", _plain(run.key.run_id)),
        ("partition", _plain(run.key.partition) or "- (nobody's keys)"),
        ("model", _plain(run.target) or "- (the only one)"),
        ("status", f"{run.status} for {said(now - run.changed_at)}"),
        ("accepted", f"{said(now - run.created_at)} ago, {'in the background' if run.is_background else 'foreground'}"),
        ("attempt", run.attempt),
        ("owner", f"{run.owner or '-'} {_aliveness(seen)}".rstrip()),
        ("job", _job(seen)),
        ("events told", told),
        ("error", "-" if run.error is None else _plain(run.error)),
    ):
        say(f"{name:<12} {value}")


def _cancel(options: argparse.Namespace) -> None:
    async def look(database: Database, sources: Sequence[StoredRuns]) -> tuple[StoredRun, dict[str, Any]]:
        return _changeable(await _one(database, sources, options)).run, _place_of(database)

    run, place = _with_runs(options, look)
    status = asyncio.run(_cancel_in(place, run.key))
    if status is not RunStatus.CANCELLED:
        raise Refused(f"{_plain(options.id)} has ended meanwhile: {status or 'it was deleted'}.")
    say(f"{_plain(options.id)} cancelled")


async def _cancel_in(place: dict[str, Any], key: RunKey) -> RunStatus | None:
    """Cancel the run as a process of its own among those of the database; return the status it has then."""
    state = choose_state(**place, run_concurrency=0)
    query = RunQuery(partition=key.partition, run_id=key.run_id, limit=1)
    try:
        await _open(state, key)
        assert state.database is not None  # noqa: S101  the place is one
        for source in installed_runs(state.database):
            if await source.find(query):
                await source.cancel(key, new_context(_NOBODY, state))
                return next((run.status for run in await source.find(query)), None)
        return None
    finally:
        await state.close()


async def _open(state: HostState, key: RunKey) -> None:
    try:
        await state.open()
    except ConfigurationError:
        if state.kind != "sqlite":
            raise
        # The schema has been checked: what is in the way is the server.
        raise Refused(
            f"A server uses the database, and {_plain(key.run_id)} is that server's: cancel it there (Responses API: "
            "POST /responses/ID/cancel), or stop the server first."
        ) from None


def _retry(options: argparse.Namespace) -> None:
    async def retry(database: Database, sources: Sequence[StoredRuns]) -> str:
        from .sql.presence import Presence  # noqa: PLC0415  optional dependency

        seen = _changeable(await _one(database, sources, options))
        if not database.is_sqlite:
            await _free_job(database, seen)
        if not await seen.source.release(seen.run):
            raise Refused(f"{_plain(options.id)} was taken over or has ended at this moment.")
        if database.is_sqlite:
            return "by the server that uses the database, or that is started next"
        is_anybody_there = bool(await Presence(database).living())
        return (
            "by one of the processes that are alive" if is_anybody_there else "when a process is started: none is alive"
        )

    who = _with_runs(options, retry)
    say(f"{_plain(options.id)} will be taken over {who}")


async def _free_job(database: Database, seen: Seen) -> None:
    """See to it that a job of the run is nobody's; a job that was given up, or none, needs nothing.

    Raises:
        Refused: the run waits for a worker, or a living worker has it.
    """
    from .runs.procrastinate import STALLED_AFTER  # noqa: PLC0415  optional dependency
    from .sql.queue import jobs  # noqa: PLC0415

    job, name = seen.job, _plain(seen.run.key.run_id)
    if job is None or job.status not in {"todo", "doing"}:
        return
    if job.status == "todo":
        raise Refused(f"{name} is in the queue already: it waits for a worker that has time for it.")
    if job.worker_silence is not None and job.worker_silence <= STALLED_AFTER:
        raise Refused(f"{name} is executed by worker {job.worker_id}, which is alive: cancel it if it must not go on.")
    worker_id, job_ids = job.worker_id or 0, {job.job_id}
    await database.run(lambda connection: jobs.put_back_lost(connection, worker_id, job_ids))


def _changeable(seen: Seen) -> Seen:
    """Return the run if something can still be done to it.

    Raises:
        Refused: it has ended, or its caller waits for it.
    """
    name, status = _plain(seen.run.key.run_id), seen.run.status
    if status.is_terminal:
        raise Refused(f"{name} has ended: {status}. What has ended never changes; send the request again.")
    if not seen.run.is_background:
        raise Refused(f"{name} is no background run: it ends when its caller leaves, or its process stops.")
    return seen


def _with_runs(options: argparse.Namespace, work: Work) -> Any:
    """Return what `work` returns for the runs of every installed package."""
    with opened(options) as database:
        from .sql import prepare, schema  # noqa: PLC0415  optional dependency

        prepare.check(database, schema.installed_parts())

        async def run() -> Any:
            return await work(database, installed_runs(database))

        return asyncio.run(run())


async def _one(database: Database, sources: Sequence[StoredRuns], options: argparse.Namespace) -> Seen:
    """Return the run that the options name.

    Raises:
        Refused: there is none, or there are several.
    """
    query = RunQuery(partition=_partition(options), run_id=RunId(options.id), limit=2)
    found = await _find(database, sources, query)
    if not found:
        raise Refused(f"There is no run {_plain(options.id)}.")
    if len(found) > 1:
        partitions = ", ".join(repr(str(seen.run.key.partition)) for seen in found)
        raise Refused(
            f"Several users have a run {_plain(options.id)}: say whose with --partition, one of {partitions}."
        )
    return found[0]


async def _find(database: Database, sources: Sequence[StoredRuns], query: RunQuery) -> list[Seen]:
    found = [(run, source) for source in sources for run in await source.find(query)]
    found.sort(key=lambda entry: entry[0].changed_at, reverse=True)
    del found[query.limit :]
    if database.is_sqlite:
        return [Seen(run, source, owner_is_alive=None, job=None) for run, source in found]
    from .sql.presence import Presence  # noqa: PLC0415  optional dependency
    from .sql.queue import jobs  # noqa: PLC0415

    living = await Presence(database).living()
    keys = [run.key for run, _ in found]
    states = await database.run(lambda connection: jobs.states(connection, keys))
    return [Seen(run, source, owner_is_alive=run.owner in living, job=states.get(run.key)) for run, source in found]


def _statuses(names: Collection[str]) -> frozenset[RunStatus] | None:
    if _ALL in names:
        return None
    return frozenset(RunStatus(name) for name in names) or _RUNNING


def _partition(options: argparse.Namespace) -> Partition | None:
    return None if options.partition is None else Partition(options.partition)


def _place_of(database: Database) -> dict[str, Any]:
    """Return the options of a host on the database."""
    if database.is_sqlite:
        return {"state_dir": {"sessions": Path(str(database.url.database)).parent}}
    return {"database_url": database.url.set(drivername="postgresql").render_as_string(hide_password=False)}


def _owner(seen: Seen) -> str:
    mark = {True: "", False: " dead", None: ""}[seen.owner_is_alive]
    return f"{seen.run.owner[:11] or '-'}{mark if seen.run.owner and not seen.run.status.is_terminal else ''}"


def _aliveness(seen: Seen) -> str:
    if seen.owner_is_alive is None or not seen.run.owner:
        return ""
    return "(alive)" if seen.owner_is_alive else "(dead)"


def _job(seen: Seen) -> str:
    """Say what the queue does with the run."""
    job = seen.job
    if job is None:
        return "-"
    if job.status == "doing":
        silence = "forgotten" if job.worker_silence is None else f"seen {said(job.worker_silence)} ago"
        return f"worker {job.worker_id}, {silence}"
    return {"todo": "waits", "failed": "given up"}.get(job.status, job.status)


def _plain(text: str) -> str:
    """Return the text without what would control the terminal."""
    return text if text.isprintable() else ascii(text)[1:-1]
