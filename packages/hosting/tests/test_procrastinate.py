"""runs/procrastinate.py: what is the engine's own, beside the suites that `test_engines.py` runs over it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest
import sqlalchemy as sa
import uvloop
from postgres import PostgresServer

from agent_framework_hosting.errors import ConfigurationError, StoreUnavailable
from agent_framework_hosting.isolation import SHARED, IsolationKeys
from agent_framework_hosting.runs import procrastinate
from agent_framework_hosting.runs.base import QueueDepth, RunId, RunKey
from agent_framework_hosting.runs.procrastinate import ProcrastinateRunEngine
from agent_framework_hosting.sql import database
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.queue import jobs
from agent_framework_hosting.testing.engines import KEY, OTHER, PATIENCE, Workshop, soon

BEAT = 0.2
STALLED_AFTER = 1.0

PROGRAM = """
import asyncio, sys
from agent_framework_hosting.runs.procrastinate import ProcrastinateRunEngine
from agent_framework_hosting.sql.database import postgres_url
from agent_framework_hosting.testing.engines import serve_engine

async def main():
    await serve_engine(ProcrastinateRunEngine(postgres_url(sys.argv[1])))

asyncio.run(main())
"""

Made = Callable[..., ProcrastinateRunEngine]


class Table:
    """What an operator sees in the database, and can do to it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self._url, autocommit=True, application_name="operator") as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def statuses(self) -> list[str]:
        return [str(status) for (status,) in self.ask("SELECT status FROM procrastinate_jobs ORDER BY id")]

    async def becomes(self, query: str, *rows: tuple[object, ...]) -> None:
        """Wait until the query has these rows."""
        async with asyncio.timeout(PATIENCE):
            while self.ask(query) != list(rows):  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.02)

    async def is_empty(self) -> None:
        """Wait until there is no job."""
        await self.becomes("SELECT status FROM procrastinate_jobs")


@pytest.fixture
def table(postgres_url: str) -> Table:
    return Table(postgres_url)


@pytest.fixture
def url(postgres_url: str) -> sa.URL:
    return database.postgres_url(postgres_url)


@pytest.fixture
def shop() -> Workshop:
    return Workshop()


@pytest.fixture
async def make(url: sa.URL, shop: Workshop) -> AsyncGenerator[Made, None]:
    """Make engines whose runs the workshop executes; they are closed."""
    made: list[ProcrastinateRunEngine] = []

    def make(*, works: bool = True, concurrency: int = 10) -> ProcrastinateRunEngine:
        engine = ProcrastinateRunEngine(
            url, works=works, concurrency=concurrency, beat=BEAT, stalled_after=STALLED_AFTER
        )
        shop.register(engine)
        made.append(engine)
        return engine

    yield make
    shop.finish.set()
    for engine in made:
        await engine.close()


@pytest.fixture
def everything_logged() -> Generator[None, None, None]:
    before = logging.root.level
    logging.root.setLevel(logging.DEBUG)
    yield
    logging.root.setLevel(before)


# --- The database goes away


async def test_a_run_survives_an_outage_and_is_called_once(
    make: Made, shop: Workshop, postgres: PostgresServer, postgres_url: str
) -> None:
    engines = [make(), make()]
    for engine in engines:
        await engine.recover()
    await engines[0].start("hold", KEY)
    await soon(shop.begun)

    with postgres.outage(postgres_url):
        await asyncio.sleep(3 * STALLED_AFTER)
    await engines[0].start("hold", OTHER)

    assert await soon(shop.begun) == OTHER
    # Longer than anybody waits before taking over.
    await asyncio.sleep(3 * STALLED_AFTER)
    assert shop.begun.empty()
    shop.finish.set()
    assert {await soon(shop.ended), await soon(shop.ended)} == {(KEY, "finished"), (OTHER, "finished")}


async def test_a_run_that_ends_during_an_outage_is_done_with_afterwards(
    make: Made, shop: Workshop, postgres: PostgresServer, postgres_url: str, table: Table
) -> None:
    engine = make()
    await engine.recover()
    await engine.start("hold", KEY)
    await soon(shop.begun)

    with postgres.outage(postgres_url):
        shop.finish.set()
        await soon(shop.ended)

    await table.is_empty()
    assert shop.begun.empty()


async def test_the_worker_listens_again_after_its_connection_was_cut(
    make: Made, shop: Workshop, postgres: PostgresServer, postgres_url: str, table: Table
) -> None:
    listens = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    engine = make()
    await engine.recover()
    await table.becomes(listens, (1,))
    heard = engine._connector.notices

    postgres.disconnect(postgres_url)

    await table.becomes(listens, (1,))
    await engine.start("hold", KEY)
    await soon(shop.begun)
    async with asyncio.timeout(PATIENCE):
        while engine._connector.notices == heard:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)


async def test_while_the_database_is_away_a_run_here_can_be_cancelled_and_no_other(
    make: Made, shop: Workshop, postgres: PostgresServer, postgres_url: str
) -> None:
    engine = make()
    await engine.recover()
    await engine.start("hold", KEY)
    await soon(shop.begun)

    with postgres.outage(postgres_url):
        assert await engine.cancel(KEY, grace=PATIENCE)
        with pytest.raises(StoreUnavailable):
            await engine.cancel(OTHER, grace=PATIENCE)
        with pytest.raises(StoreUnavailable):
            await engine.start("hold", OTHER)
        with pytest.raises(StoreUnavailable):
            await engine.depth()

    assert shop.ended.get_nowait() == (KEY, "cancelled")


async def test_an_engine_can_be_drained_and_closed_while_the_database_is_away(
    make: Made, shop: Workshop, postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procrastinate, "CLOSE_SECONDS", 0.3)
    engine = make()
    await engine.recover()
    await engine.start("hold", KEY)
    await soon(shop.begun)

    with postgres.outage(postgres_url):
        async with asyncio.timeout(PATIENCE):
            await engine.drain(0)
            await engine.close()
    assert shop.ended.get_nowait() == (KEY, "cancelled")
    await make().recover()

    assert await soon(shop.begun) == KEY


async def test_late_signs_of_everybody_are_nobodys_death(make: Made, shop: Workshop, table: Table) -> None:
    for engine in (make(), make()):
        await engine.recover()
    await make().start("hold", KEY)
    await soon(shop.begun)
    await asyncio.sleep(3 * BEAT)  # both are past the quiet at their start

    table.ask("UPDATE procrastinate_workers SET last_heartbeat = last_heartbeat - interval '1 hour'")

    await table.becomes(
        "SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > now() - interval '1 minute'", (2,)
    )
    await asyncio.sleep(2 * STALLED_AFTER)
    assert shop.begun.empty()


# --- What must not be lost, and not be done twice


async def test_a_run_that_is_delivered_again_where_it_runs_is_not_called_again(
    make: Made, shop: Workshop, table: Table
) -> None:
    engine = make()
    await engine.recover()
    await engine.start("hold", KEY)
    await soon(shop.begun)

    # As a process does that takes this one for dead.
    table.ask("SELECT procrastinate_retry_job_v2(id, NULL, NULL, NULL, NULL) FROM procrastinate_jobs")
    started = "SELECT count(*) FROM procrastinate_events WHERE type = 'started'"
    await table.becomes(started, (2,))
    # Fetched, and delivered too.
    worker = engine._worker
    assert worker is not None
    async with asyncio.timeout(PATIENCE):
        while len(worker._running_jobs) < 2:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)

    shop.finish.set()
    assert await soon(shop.ended) == (KEY, "finished")
    await table.is_empty()
    assert shop.begun.empty()


async def test_a_job_that_was_lost_when_it_was_fetched_is_delivered(make: Made, shop: Workshop, table: Table) -> None:
    engine = make()
    await engine.recover()
    await table.becomes("SELECT count(*) FROM procrastinate_workers", (1,))
    lost = Database(engine._database.url)
    lost.open()

    # What is left of a fetch whose answer never came: the worker has the job, and does not know.
    def fetch(connection: sa.Connection) -> None:
        jobs.add(connection, "hold", KEY)
        connection.exec_driver_sql(
            "UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT id FROM procrastinate_workers)"
        )

    await lost.run(fetch)
    await lost.close()

    assert await soon(shop.begun) == KEY


async def test_a_worker_that_was_forgotten_goes_on(make: Made, shop: Workshop, table: Table) -> None:
    engine = make()
    await engine.recover()
    await table.becomes("SELECT count(*) FROM procrastinate_workers", (1,))

    table.ask("DELETE FROM procrastinate_workers")
    await engine.start("hold", KEY)

    assert await soon(shop.begun) == KEY


async def test_a_worker_that_fails_is_replaced(
    make: Made, shop: Workshop, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make()
    await engine.recover()
    await table.becomes("SELECT count(*) FROM procrastinate_workers", (1,))

    table.ask("ALTER FUNCTION procrastinate_fetch_job_v2 RENAME TO away")
    async with asyncio.timeout(PATIENCE):
        while "The worker failed" not in caplog.text:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)
    table.ask("ALTER FUNCTION away RENAME TO procrastinate_fetch_job_v2")
    await engine.start("hold", KEY)

    assert await soon(shop.begun) == KEY


@pytest.mark.timeout(300)
async def test_with_default_settings_a_killed_process_is_taken_over_within_15_seconds(
    url: sa.URL, postgres_url: str, shop: Workshop
) -> None:
    starter, other = ProcrastinateRunEngine(url, works=False), ProcrastinateRunEngine(url)
    shop.register(other)
    async with _program(postgres_url) as process:
        await starter.start("hold", KEY)
        assert process.stdout is not None
        while await process.stdout.readline() != b"begun run_1\n":
            pass
        await other.recover()
        # A process that starts is quiet for two beats; this is not what is measured.
        await asyncio.sleep(5)

        process.kill()
        killed = time.monotonic()
        assert await soon(shop.begun) == KEY
        taken = time.monotonic() - killed

    shop.finish.set()
    await soon(shop.ended)
    for engine in (starter, other):
        await engine.close()
    assert 8 <= taken <= 15


@asynccontextmanager
async def _program(url: str) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, url, stdin=pipe, stdout=pipe)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


# --- Queueing


async def test_a_run_is_queued_with_the_transaction_that_accepts_it(
    make: Made, shop: Workshop, url: sa.URL, table: Table
) -> None:
    engine = make()
    store = Database(url)
    store.open()

    def refused(connection: sa.Connection) -> None:
        engine.starting("hold", KEY).write(connection, url)
        raise LookupError("no such conversation")

    with pytest.raises(LookupError):
        await store.run(refused)
    assert table.statuses() == []
    starting = engine.starting("hold", KEY)
    await store.run(lambda connection: starting.write(connection, url))
    assert table.statuses() == ["todo"]
    # Nothing is left to do, nor for those who are late.
    await starting.finish()
    await asyncio.gather(*(engine.start("hold", KEY) for _ in range(5)))
    await store.close()

    assert table.statuses() == ["todo"]
    await engine.recover()
    assert await soon(shop.begun) == KEY


async def test_a_run_is_queued_by_itself_when_the_transaction_that_accepts_it_is_on_another_database(
    make: Made, url: sa.URL, table: Table
) -> None:
    starting = make().starting("hold", KEY)
    store = Database(url)
    store.open()

    await store.run(lambda connection: starting.write(connection, url.set(database="other")))
    assert table.statuses() == []
    await starting.finish()
    await store.close()

    assert table.statuses() == ["todo"]


async def test_missing_are_the_runs_that_neither_wait_nor_run(make: Made, shop: Workshop) -> None:
    engine = make(concurrency=1)
    waits, gone = RunKey(SHARED, RunId("waits")), RunKey(IsolationKeys("ada").partition, RunId("waits"))
    await engine.start("hold", KEY)
    await engine.recover()
    await soon(shop.begun)
    await engine.start("hold", waits)

    assert await engine.missing([KEY, waits, OTHER, gone]) == {OTHER, gone}
    assert await engine.missing([]) == set()


async def test_the_depth_tells_what_waits_and_runs_and_for_how_long(make: Made, shop: Workshop, table: Table) -> None:
    engine = make(concurrency=1)
    assert await engine.depth() == QueueDepth(0, 0, 0.0)
    await engine.start("hold", KEY)
    await engine.recover()
    await soon(shop.begun)
    for number in range(3):
        await engine.start("hold", RunKey(SHARED, RunId(f"waits_{number}")))
    table.ask(
        "UPDATE procrastinate_events SET at = at - interval '1 minute' "
        "WHERE job_id = (SELECT max(id) FROM procrastinate_jobs)"
    )

    depth = await engine.depth()

    assert (depth.queued, depth.running) == (3, 1)
    assert 60 <= depth.oldest_wait_seconds < 120


async def test_a_process_that_does_not_work_executes_nothing(make: Made, shop: Workshop, table: Table) -> None:
    serves = make(works=False)
    await serves.recover()

    await serves.start("hold", KEY)

    assert table.statuses() == ["todo"]
    await asyncio.sleep(1.5 * procrastinate.POLL)
    assert shop.begun.empty()
    assert table.ask("SELECT * FROM procrastinate_workers") == []


async def test_no_more_runs_than_the_concurrency_go_on_at_once(make: Made, shop: Workshop) -> None:
    engine = make(concurrency=2)
    await engine.recover()
    for number in range(3):
        await engine.start("hold", RunKey(SHARED, RunId(f"run_{number}")))
    await soon(shop.begun)
    await soon(shop.begun)

    depth = await engine.depth()

    assert (depth.queued, depth.running) == (1, 2)
    shop.finish.set()
    await soon(shop.begun)


async def test_nothing_is_left_of_runs_that_ended(make: Made, shop: Workshop, table: Table) -> None:
    engine = make()
    await engine.recover()
    cancelled = RunKey(SHARED, RunId("cancelled"))
    await engine.start("hold", cancelled)
    await soon(shop.begun)
    await engine.cancel(cancelled, grace=PATIENCE)
    shop.finish.set()
    await engine.start("hold", KEY)
    await soon(shop.begun)

    await table.is_empty()

    assert table.ask("SELECT * FROM procrastinate_events") == []


async def test_a_handler_that_raises_is_called_a_number_of_times_and_then_left_to_an_operator(
    make: Made, shop: Workshop, table: Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(procrastinate, "MOST_FAILURES", 1)
    engine = make()
    await engine.recover()
    await engine.start("fail", KEY)

    await soon(shop.begun)
    await soon(shop.begun)
    await table.becomes("SELECT status::text FROM procrastinate_jobs", ("failed",))

    assert await engine.missing([KEY]) == {KEY}
    logged = [record for record in caplog.records if record.message == "A run handler failed"]
    assert [record.__dict__["run_id"] for record in logged] == ["run_1", "run_1"]


@pytest.mark.usefixtures("everything_logged")
async def test_the_log_does_not_say_whose_runs_they_are(
    make: Made, shop: Workshop, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    key = RunKey(IsolationKeys("ada lovelace").partition, RunId("secret"))
    shop.finish.set()
    engine = make()
    await engine.recover()

    await engine.start("hold", key)
    await engine.start("fail", RunKey(key.partition, RunId("fails")))
    await soon(shop.ended)
    await soon(shop.begun)
    await engine.drain(PATIENCE)

    told = "\n".join(str(record.__dict__) for record in caplog.records)
    assert "afhost.run[1]" in told
    assert "lovelace" not in told


# --- Beginning and ending


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_an_engine_leaves_nothing_behind_and_no_signal_handlers(
    factory: Callable[[], asyncio.AbstractEventLoop], url: sa.URL, table: Table
) -> None:
    connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

    def signals() -> list[object]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def live() -> set[str]:
        before, shop = signals(), Workshop()
        engine = ProcrastinateRunEngine(url)
        shop.register(engine)
        for _ in range(2):
            await engine.recover()
            await engine.start("hold", KEY)
            await soon(shop.begun)
            assert signals() == before
            shop.finish.set()
            await engine.drain(PATIENCE)
            await engine.close()
            await engine.close()
        return {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(live()) == set()
        runner.run(table.becomes(connections, (0,)))

    assert not [thread.name for thread in threading.enumerate() if "afhost" in thread.name]


async def test_a_run_that_ignores_its_cancellation_does_not_keep_an_engine_open(
    make: Made, shop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(procrastinate, "CLOSE_SECONDS", 0.2)
    engine = make()
    await engine.recover()
    await engine.start("stubborn", KEY)
    await soon(shop.begun)

    async with asyncio.timeout(PATIENCE):
        await engine.close()

    assert "Runs did not end after their cancellation" in caplog.text
    shop.finish.set()
    _, pending = await asyncio.wait(_workers(), timeout=PATIENCE)
    assert not pending


async def test_after_such_a_run_an_engine_works_again(
    make: Made, shop: Workshop, monkeypatch: pytest.MonkeyPatch, table: Table
) -> None:
    monkeypatch.setattr(procrastinate, "CLOSE_SECONDS", 0.2)
    engine = make()
    await engine.recover()
    await engine.start("stubborn", KEY)
    await soon(shop.begun)
    await engine.close()

    await engine.recover()
    await engine.start("hold", OTHER)

    assert await soon(shop.begun) == OTHER
    shop.finish.set()
    await table.is_empty()
    async with asyncio.timeout(PATIENCE):  # the worker of the first start ends with the run
        while len(_workers()) > 1:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)


def _workers() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task.get_name() == "queue worker"}


async def test_an_engine_that_never_recovered_can_be_drained_and_closed(url: sa.URL) -> None:
    engine = ProcrastinateRunEngine(url)

    await engine.drain(PATIENCE)
    await engine.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beat": 4.0}, "three times the beat"),
        ({"beat": 0.0}, "three times the beat"),
        ({"concurrency": 0}, "concurrency must be 1 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ProcrastinateRunEngine(database.postgres_url("postgresql://nowhere/nothing"), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("operation", ["o" * (jobs.MAX_OPERATION + 1), "é"])
def test_an_operation_that_is_no_name_of_a_queue_is_refused(operation: str, shop: Workshop) -> None:
    engine = ProcrastinateRunEngine(database.postgres_url("postgresql://nowhere/nothing"))

    with pytest.raises(ConfigurationError, match="no name for runs in a queue"):
        engine.register(operation, shop.hold)
