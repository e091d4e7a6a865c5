"""What is accepted for a log: written in few transactions, once, in order, whatever happens to the database meanwhile."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator

import pytest
import sqlalchemy as sa

from agent_framework_hosting.errors import StaleWrite, StoreError, StoreUnavailable
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs import log_writer
from agent_framework_hosting.runs.base import Attempt, LogEntry, RunId, RunKey
from agent_framework_hosting.runs.log_writer import BACKLOG, BATCH
from agent_framework_hosting.runs.sql_log import SqlRunLog
from agent_framework_hosting.sql.database import Database, ResultT, Work

KEY = RunKey(SHARED, RunId("run"))
FIRST, SECOND, THIRD = (Attempt(KEY, number) for number in (1, 2, 3))
SECONDS = 60.0


class Unreliable(Database):
    """A database that is away, or loses the connection in a commit, when the test says so."""

    is_away = False
    loses_commits = 0
    breaks = False
    transactions = 0

    def __init__(self, url: sa.URL) -> None:
        super().__init__(url)
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, work: Work[ResultT], *, erases: bool = False) -> ResultT:
        self.transactions += 1
        await self.gate.wait()
        if self.is_away:
            raise StoreUnavailable("away")
        if self.breaks:
            raise sa.exc.DataError("statement", None, ValueError("mine"))
        result = await super().run(work, erases=erases)
        if self.loses_commits:
            self.loses_commits -= 1
            raise StoreUnavailable("lost in the commit")
        return result


@pytest.fixture
async def unreliable(sql_url: sa.URL) -> AsyncGenerator[Unreliable]:
    database = Unreliable(sql_url)
    database.open()
    yield database
    await database.close()


@pytest.fixture
async def log(unreliable: Unreliable) -> AsyncGenerator[SqlRunLog]:
    log = SqlRunLog(unreliable)
    yield log
    await log.stop()


@pytest.fixture
async def other(unreliable: Unreliable) -> AsyncGenerator[SqlRunLog]:
    """The log as another process has it; its database is always there."""
    database = Database(unreliable.url)
    database.open()
    log = SqlRunLog(database)
    yield log
    await log.stop()
    await database.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(log_writer, "RETRIES", (0.001, 0.001))
    monkeypatch.setattr(log_writer, "RETRY", 0.005)


def delta(number: int) -> LogEntry:
    return "text.delta", b"%d" % number


def item(number: int) -> LogEntry:
    return "item", b"%d" % number


async def numbers(log: SqlRunLog) -> list[int]:
    return [int(data) for _, data in await log.entries(KEY)]


async def until_written(log: SqlRunLog, count: int) -> list[int]:
    async with asyncio.timeout(SECONDS):
        while len(found := await numbers(log)) < count:  # noqa: ASYNC110  another process has no event to wait for
            await asyncio.sleep(0.001)
    return found


# --- Few transactions


async def test_hundreds_of_deltas_are_few_transactions(log: SqlRunLog, unreliable: Unreliable) -> None:
    await log.append(FIRST, [item(0)])
    before = unreliable.transactions

    for number in range(1, 301):
        await log.append(FIRST, [delta(number)])
        if number % 3 == 0:
            await asyncio.sleep(0)
    await log.append(FIRST, [item(301)])

    assert unreliable.transactions - before <= 1 + 300 / BATCH + 1
    assert await numbers(log) == list(range(302))


async def test_deltas_wait_for_those_that_come_soon_but_the_first_after_a_silence_does_not(
    log: SqlRunLog, unreliable: Unreliable, other: SqlRunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "DELAY", (3_600.0, 3_600.0))
    before = unreliable.transactions
    await log.append(FIRST, [delta(0)])
    assert await until_written(other, 1) == [0]

    await log.append(FIRST, [delta(1)])
    for _ in range(10):
        await asyncio.sleep(0)
    assert unreliable.transactions == before + 1

    monkeypatch.setattr(log_writer, "DELAY", (0.0, 0.0))
    await log.append(FIRST, [item(2)])
    await log.append(FIRST, [delta(3)])
    assert await until_written(other, 4) == [0, 1, 2, 3]


async def test_the_longer_a_transaction_takes_the_longer_deltas_wait_for_the_next(
    log: SqlRunLog, unreliable: Unreliable, other: SqlRunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "DELAY", (0.0, 3_600.0))
    monkeypatch.setattr(log_writer, "REST", 1e9)  # a microsecond counts as a quarter of an hour
    await log.append(FIRST, [item(0)])
    before = unreliable.transactions

    await log.append(FIRST, [delta(1)])
    for _ in range(10):
        await asyncio.sleep(0)
    assert unreliable.transactions == before

    monkeypatch.setattr(log_writer, "REST", 0)
    await log.append(FIRST, [item(2)])
    await log.append(FIRST, [delta(3)])
    assert await until_written(other, 4) == [0, 1, 2, 3]


async def test_deltas_are_written_after_a_while_though_nothing_follows(log: SqlRunLog, other: SqlRunLog) -> None:
    await log.append(FIRST, [delta(0)])
    await log.append(FIRST, [delta(1)])
    await asyncio.sleep(0)
    await log.append(FIRST, [delta(2)])

    assert await until_written(other, 3) == [0, 1, 2]


async def test_what_is_no_delta_is_written_when_append_returns(log: SqlRunLog, other: SqlRunLog) -> None:
    await log.append(FIRST, [delta(0)])
    await log.append(FIRST, [delta(1), item(2)])

    assert await numbers(other) == [0, 1, 2]


async def test_whoever_appends_faster_than_can_be_written_waits(log: SqlRunLog, unreliable: Unreliable) -> None:
    await log.append(FIRST, [item(0)])
    unreliable.gate.clear()

    async def write() -> None:
        for number in range(1, 2 * BACKLOG):
            await log.append(FIRST, [delta(number)])

    writing = asyncio.create_task(write())
    for _ in range(20):
        await asyncio.sleep(0)
    assert log._writers[KEY].backlog == BACKLOG + 1
    unreliable.gate.set()
    await asyncio.wait_for(writing, SECONDS)
    await log.append(FIRST, [], closes=True)

    assert await numbers(log) == list(range(2 * BACKLOG))


async def test_nothing_is_kept_of_a_run_that_is_written(log: SqlRunLog) -> None:
    for number in range(5):
        attempt = Attempt(RunKey(SHARED, RunId(str(number))), 1)
        await log.append(attempt, [delta(0)])
        await log.append(attempt, [item(1)], closes=number > 2)

    assert not log._writers
    assert len(log._rested) == 5


# --- A database that is away


@pytest.mark.behaviour("D6")
async def test_a_short_absence_of_the_database_is_not_noticed(log: SqlRunLog, unreliable: Unreliable) -> None:
    await log.append(FIRST, [item(0)])
    unreliable.is_away = True
    waiting = asyncio.create_task(log.append(FIRST, [delta(1), item(2)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    unreliable.is_away = False
    await log.append(FIRST, [delta(3)])
    await waiting
    await log.append(FIRST, [item(4)], closes=True)

    assert await numbers(log) == [0, 1, 2, 3, 4]


async def test_a_longer_absence_is_reported_and_what_was_appended_is_written_afterwards(
    log: SqlRunLog, unreliable: Unreliable, other: SqlRunLog, caplog: pytest.LogCaptureFixture
) -> None:
    await log.append(FIRST, [item(0)])
    unreliable.is_away = True
    await log.append(FIRST, [delta(1)])
    with pytest.raises(StoreUnavailable, match="away") as first:
        await log.append(FIRST, [item(2)])
    with pytest.raises(StoreUnavailable, match="away") as second:
        await log.append(FIRST, [delta(3)])
    with pytest.raises(StoreUnavailable):
        await log.append(FIRST, [item(4)], closes=True)
    assert first.value is not second.value
    assert await numbers(other) == [0]
    assert [record.getMessage() for record in caplog.records] == ["Events wait for the database"]

    unreliable.is_away = False

    assert await until_written(other, 5) == [0, 1, 2, 3, 4]
    with pytest.raises(StaleWrite):
        await other.append(SECOND, [item(5)])


async def test_a_closing_may_be_repeated_until_it_is_written(log: SqlRunLog, unreliable: Unreliable) -> None:
    await log.append(FIRST, [item(0)])
    unreliable.is_away = True
    with pytest.raises(StoreUnavailable):
        await log.append(FIRST, [item(1)], closes=True)
    with pytest.raises(StaleWrite):
        await log.append(FIRST, [item(2)])
    unreliable.gate.clear()
    unreliable.is_away = False
    again = asyncio.create_task(log.append(SECOND, [], closes=True))
    await asyncio.sleep(0)
    unreliable.gate.set()
    await asyncio.wait_for(again, SECONDS)

    assert await numbers(log) == [0, 1]
    with pytest.raises(StaleWrite):
        await log.append(SECOND, [], closes=True)


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("entries", [[], [item(1)], [delta(1), item(2)]])
async def test_what_was_committed_though_the_connection_was_lost_is_not_written_twice(
    log: SqlRunLog, unreliable: Unreliable, entries: list[LogEntry], closes: bool
) -> None:
    await log.append(FIRST, [item(0)])
    unreliable.loses_commits = 2

    await log.append(FIRST, entries, closes=closes)

    if not closes:
        await log.append(FIRST, [item(1 + len(entries))], closes=True)
    assert await numbers(log) == list(range(1 + len(entries) + (not closes)))
    with pytest.raises(StaleWrite):
        await log.append(SECOND, [])


async def test_the_first_batch_of_a_log_is_not_written_twice_either(log: SqlRunLog, unreliable: Unreliable) -> None:
    unreliable.loses_commits = 1

    await log.append(FIRST, [item(0), item(1)])

    assert await numbers(log) == [0, 1]


async def test_what_cannot_be_stored_is_refused_and_told_to_the_operator(
    log: SqlRunLog, unreliable: Unreliable, caplog: pytest.LogCaptureFixture
) -> None:
    await log.append(FIRST, [item(0)])
    unreliable.breaks = True
    with pytest.raises(StoreError, match="cannot be stored") as caught:
        await log.append(FIRST, [item(1)])
    unreliable.breaks = False
    with pytest.raises(StoreError, match="cannot be stored"):
        await log.append(FIRST, [delta(2)])

    assert isinstance(caught.value.__cause__, sa.exc.DataError)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    # A later attempt begins where the log stands.
    await log.append(SECOND, [item(1)], closes=True)
    assert await numbers(log) == [0, 1]


# --- The fence


@pytest.mark.behaviour("D11")
async def test_a_process_that_was_overtaken_writes_nothing_of_what_it_still_has(
    log: SqlRunLog, unreliable: Unreliable, other: SqlRunLog
) -> None:
    await log.append(FIRST, [item(0)])
    unreliable.gate.clear()  # it stands still
    await log.append(FIRST, [delta(1)])
    waiting = asyncio.create_task(log.append(FIRST, [item(2)]))
    await asyncio.sleep(0)
    await other.append(SECOND, [])
    assert await numbers(other) == [0]
    unreliable.gate.set()

    with pytest.raises(StaleWrite, match="later attempt"):
        await waiting
    before = unreliable.transactions
    for entries in ([delta(3)], [item(3)], []):
        with pytest.raises(StaleWrite, match="later attempt"):
            await log.append(FIRST, entries)
    assert unreliable.transactions == before
    await other.append(SECOND, [item(1)], closes=True)
    assert await numbers(other) == [0, 1]


@pytest.mark.behaviour("D11")
async def test_a_process_that_only_writes_deltas_hears_with_the_next_one_that_it_was_overtaken(
    log: SqlRunLog, other: SqlRunLog
) -> None:
    await log.append(FIRST, [item(0)])
    await other.append(SECOND, [item(1)])

    async def write_on() -> None:
        while True:
            await log.append(FIRST, [delta(9)])
            await asyncio.sleep(0.001)

    with pytest.raises(StaleWrite):
        await asyncio.wait_for(write_on(), SECONDS)

    assert await numbers(other) == [0, 1]


async def test_attempts_of_one_process_around_one_of_another_do_not_mix(
    log: SqlRunLog, unreliable: Unreliable, other: SqlRunLog
) -> None:
    await log.append(FIRST, [item(0)])
    unreliable.gate.clear()
    await log.append(FIRST, [delta(90)])
    closing = asyncio.create_task(log.append(FIRST, [item(91)], closes=True))
    await asyncio.sleep(0)
    await other.append(SECOND, [item(1)])
    unreliable.gate.set()
    with pytest.raises(StaleWrite):
        await closing

    await log.append(THIRD, [delta(2), item(3)], closes=True)

    assert await numbers(other) == [0, 1, 2, 3]


async def test_a_later_attempt_in_the_same_process_goes_on_behind_what_was_appended(
    log: SqlRunLog, unreliable: Unreliable
) -> None:
    await log.append(FIRST, [item(0)])
    unreliable.gate.clear()
    await log.append(FIRST, [delta(1)])
    await asyncio.sleep(0)
    await log.append(FIRST, [delta(2)])
    later = asyncio.create_task(log.append(SECOND, [delta(3), item(4)]))
    await asyncio.sleep(0)
    with pytest.raises(StaleWrite):
        await log.append(FIRST, [delta(9)])
    unreliable.gate.set()
    await later

    assert await numbers(log) == [0, 1, 2, 3, 4]


async def test_two_processes_cannot_write_with_the_same_attempt(log: SqlRunLog, other: SqlRunLog) -> None:
    await log.append(FIRST, [item(0)])
    await other.append(FIRST, [item(1)])

    with pytest.raises(StaleWrite):
        await log.append(FIRST, [item(9)])

    assert await numbers(other) == [0, 1]


async def test_a_log_that_another_process_has_dropped_does_not_come_back(log: SqlRunLog, other: SqlRunLog) -> None:
    await log.append(FIRST, [item(0)])
    await log.append(FIRST, [delta(1)])
    await other.drop(KEY)

    with pytest.raises(StaleWrite):
        await log.append(FIRST, [item(2)])

    assert not await other.exists(KEY)


async def test_a_log_that_was_dropped_here_does_not_come_back(log: SqlRunLog) -> None:
    await log.append(FIRST, [item(0)])
    await log.append(FIRST, [delta(1)])
    await log.drop(KEY)

    with pytest.raises(StaleWrite, match="dropped"):
        await log.append(FIRST, [delta(2)])

    assert not await log.exists(KEY)


async def test_a_drop_waits_for_the_transaction_that_goes_on(log: SqlRunLog, unreliable: Unreliable) -> None:
    await log.append(FIRST, [item(0)])
    unreliable.gate.clear()
    waiting = asyncio.create_task(log.append(FIRST, [item(1)]))
    for _ in range(3):
        await asyncio.sleep(0)
    dropping = asyncio.create_task(log.drop(KEY))
    with pytest.raises(StaleWrite, match="dropped"):
        await waiting
    unreliable.gate.set()
    await dropping

    assert not await log.exists(KEY)


# --- The end


async def test_stopping_writes_what_was_appended(log: SqlRunLog, other: SqlRunLog) -> None:
    await log.append(FIRST, [item(0)])
    await log.append(FIRST, [delta(1)])
    await log.append(FIRST, [delta(2)])

    await log.stop()

    assert await numbers(other) == [0, 1, 2]


async def test_stopping_without_a_database_says_what_is_lost(
    log: SqlRunLog, unreliable: Unreliable, other: SqlRunLog, caplog: pytest.LogCaptureFixture
) -> None:
    await log.append(FIRST, [item(0)])
    unreliable.is_away = True
    await log.append(FIRST, [delta(1)])

    await asyncio.wait_for(log.stop(), SECONDS)

    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert caplog.records[-1].__dict__["events"] == 1
    assert await numbers(other) == [0]
    gc.collect()
