"""Readers of logs: many of them cost little more than one, and each gets everything, whatever the others do."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
import sqlalchemy as sa

from agent_framework_hosting.errors import StoreUnavailable
from agent_framework_hosting.isolation import SHARED, IsolationKeys
from agent_framework_hosting.runs.base import Attempt, LogEntry, RunId, RunKey
from agent_framework_hosting.runs.log_feed import WINDOW, Feed, name_of
from agent_framework_hosting.runs.log_table import PAGE
from agent_framework_hosting.runs.sql_log import SqlRunLog
from agent_framework_hosting.sql.database import Database, ResultT, Work
from agent_framework_hosting.testing.run_logs import FIRST, KEY, Reader, entry, read

SECONDS = 60.0


class Counting(Database):
    """A database that counts transactions, and is away when the test says so."""

    is_away = False
    transactions = 0
    # Set: the outcome of the next transaction is kept back until the second event.
    delay: tuple[asyncio.Event, asyncio.Event] | None = None

    async def run(self, work: Work[ResultT], *, erases: bool = False) -> ResultT:
        self.transactions += 1
        if self.is_away:
            raise StoreUnavailable("away")
        delay, self.delay = self.delay, None
        result = await super().run(work, erases=erases)
        if delay is not None:
            delay[0].set()
            await delay[1].wait()
        return result


@pytest.fixture
async def here(sql_url: sa.URL) -> AsyncGenerator[Counting]:
    database = Counting(sql_url)
    database.open()
    yield database
    await database.close()


@pytest.fixture
async def there(sql_url: sa.URL) -> AsyncGenerator[Counting]:
    database = Counting(sql_url)
    database.open()
    yield database
    await database.close()


@pytest.fixture
async def log(here: Counting) -> AsyncGenerator[SqlRunLog]:
    log = SqlRunLog(here, poll=3_600.0)
    yield log
    await log.stop()


@pytest.fixture
async def polling(there: Counting) -> AsyncGenerator[SqlRunLog]:
    """The log in another process, to which no notification comes."""
    log = SqlRunLog(there, poll=0.02)
    log._listen = lambda: None  # type: ignore[method-assign]
    yield log
    await log.stop()


async def test_readers_in_the_same_process_ask_the_database_once_each(log: SqlRunLog, here: Counting) -> None:
    await log.append(FIRST, [entry(0, "created")])
    readers = [Reader(log) for _ in range(10)]
    for reader in readers:
        await reader.has(1)
    before = here.transactions

    for number in range(1, 51):
        await log.append(FIRST, [entry(number, "item")])
    await log.append(FIRST, [entry(51, "completed")], closes=True)
    found = [await reader.end() for reader in readers]

    # And once more, when the process begins to listen (PostgreSQL).
    assert here.transactions - before <= 52
    assert [[int(data) for _, data in one] for one in found] == [list(range(52))] * 10


async def test_readers_of_many_logs_in_another_process_share_a_poll_and_what_it_finds(
    log: SqlRunLog, polling: SqlRunLog, there: Counting
) -> None:
    keys = [RunKey(SHARED, RunId(f"run {number}")) for number in range(30)]
    for key in keys:
        await log.append(Attempt(key, 1), [entry(0, "created")])
    readers = [Reader(polling, key) for key in keys for _ in range(3)]
    for reader in readers:
        await reader.has(1)
    there.is_away = True  # nobody looks while all of them grow
    for key in keys:
        await log.append(Attempt(key, 1), [entry(1, "item"), entry(2, "item")])
    there.is_away = False
    before = there.transactions

    for reader in readers:
        assert [int(data) for _, data in await reader.has(3)] == [0, 1, 2]

    # A few polls on a busy machine, but not a question per log, let alone per reader.
    assert there.transactions - before < len(keys)
    for reader in readers:
        await reader.leave()


async def test_a_silent_log_costs_a_poll_and_no_more_for_more_readers(
    log: SqlRunLog, polling: SqlRunLog, there: Counting
) -> None:
    await log.append(FIRST, [entry(0, "created")])
    readers = [Reader(polling) for _ in range(20)]
    for reader in readers:
        await reader.has(1)
    before, started = there.transactions, asyncio.get_running_loop().time()

    async with asyncio.timeout(SECONDS):
        while there.transactions < before + 3:  # noqa: ASYNC110  a database has no event for it
            await asyncio.sleep(0.005)

    assert asyncio.get_running_loop().time() - started >= 2 * 0.02
    for reader in readers:
        await reader.leave()


async def test_a_reader_that_falls_behind_gets_everything(log: SqlRunLog) -> None:
    await log.append(FIRST, [entry(0, "created")])
    slow: list[LogEntry] = []
    async with aclosing(log.follow(KEY)) as batches:
        slow += await anext(batches)
        fast = Reader(log)
        for number in range(1, 4 * WINDOW, 3):
            await log.append(FIRST, [entry(number + more) for more in range(3)])
            await asyncio.sleep(0)
        await log.append(FIRST, [], closes=True)
        async for batch in batches:
            assert len(batch) <= max(PAGE, 2 * WINDOW + 3)
            slow += batch

    assert slow == await fast.end()
    assert [int(data) for _, data in slow] == list(range(len(slow)))
    assert len(slow) > 4 * WINDOW


@pytest.mark.parametrize("is_followed", [True, False], ids=["followed", "first reader"])
async def test_what_is_written_while_a_reader_begins_is_not_missed(
    log: SqlRunLog, here: Counting, is_followed: bool
) -> None:
    await log.append(FIRST, [entry(0, "created")])
    other = Reader(log) if is_followed else None
    if other is not None:
        await other.has(1)
    has_read, may_go_on = here.delay = asyncio.Event(), asyncio.Event()
    reader = Reader(log, after=0)
    await has_read.wait()

    await log.append(FIRST, [entry(1, "completed")], closes=True)
    may_go_on.set()

    assert await reader.end() == [entry(1, "completed")]
    assert other is None or len(await other.end()) == 2


async def test_a_reader_does_not_notice_that_the_database_is_away_for_a_while(
    log: SqlRunLog, polling: SqlRunLog, there: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    await log.append(FIRST, [entry(0, "created")])
    reader = Reader(polling)
    await reader.has(1)

    there.is_away = True
    await log.append(FIRST, [entry(1, "item")])
    before = there.transactions
    async with asyncio.timeout(SECONDS):
        while there.transactions < before + 3:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.005)
    assert len(reader.found) == 1
    there.is_away = False
    await reader.has(2)
    await log.append(FIRST, [entry(2, "completed")], closes=True)

    assert [int(data) for _, data in await reader.end()] == [0, 1, 2]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "Readers of runs wait for the database")
    ]


async def test_a_reader_that_begins_without_a_database_is_told(log: SqlRunLog, here: Counting) -> None:
    here.is_away = True

    with pytest.raises(StoreUnavailable):
        await read(log)

    assert not log._feeds._feeds


async def test_what_goes_wrong_in_a_fetch_is_logged_and_does_not_end_the_readers(
    log: SqlRunLog, polling: SqlRunLog, caplog: pytest.LogCaptureFixture
) -> None:
    await log.append(FIRST, [entry(0, "created")])
    reader = Reader(polling)
    await reader.has(1)

    def fail(_connection: sa.Connection) -> Sequence[None]:
        raise LookupError("mine")

    assert await polling._feeds._ask(fail) is None
    await log.append(FIRST, [entry(1, "completed")], closes=True)

    assert len(await reader.end()) == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_stopping_ends_the_readers_of_logs_that_go_on(log: SqlRunLog, polling: SqlRunLog) -> None:
    await log.append(FIRST, [entry(0, "created")])
    reader = Reader(polling)
    await reader.has(1)

    await polling.stop()

    with pytest.raises(StoreUnavailable):
        await reader.end()
    await log.append(FIRST, [entry(1, "completed")], closes=True)
    assert len(await read(polling)) == 2

    await polling.start()
    other = Attempt(RunKey(SHARED, RunId("other")), 1)
    await log.append(other, [entry(0, "created")])
    again = Reader(polling, other.key)
    await again.has(1)
    await log.append(other, [entry(1, "completed")], closes=True)
    assert len(await again.end()) == 2


async def test_a_log_that_is_erased_under_its_reader_ends_it(log: SqlRunLog, polling: SqlRunLog) -> None:
    await log.append(FIRST, [entry(number, "item") for number in range(3 * PAGE)], closes=True)
    found: list[LogEntry] = []

    async with asyncio.timeout(SECONDS), aclosing(polling.follow(KEY)) as batches:
        async for batch in batches:
            found += batch
            await log.drop(KEY)

    assert [int(data) for _, data in found] == list(range(PAGE))


async def test_nothing_is_left_when_the_last_reader_has_gone(log: SqlRunLog, polling: SqlRunLog) -> None:
    await log.append(FIRST, [entry(0, "created")])
    readers = [Reader(polling) for _ in range(3)]
    for reader in readers:
        await reader.has(1)
        await reader.leave()
    feeds = polling._feeds

    assert not feeds._feeds
    assert not feeds._names
    async with asyncio.timeout(SECONDS):
        while feeds._poller is not None:  # noqa: ASYNC110  it goes at its next round
            await asyncio.sleep(0.005)


async def test_readers_that_leave_cost_the_same_however_many_there_are() -> None:
    async def cost(readers: int) -> float:
        feed = Feed(KEY)
        waiting = [asyncio.ensure_future(feed.more(None)) for _ in range(readers)]
        await asyncio.sleep(0)
        started = time.thread_time()
        for waiter in reversed(waiting):
            waiter.cancel()
        await asyncio.wait(waiting)
        return time.thread_time() - started

    async def least(readers: int) -> float:
        return min([await cost(readers) for _ in range(5)])

    gc.collect()
    gc.disable()  # a full collection costs what all the other tests have left, which is not asked here
    try:
        few, many = await least(1_000), await least(8_000)
    finally:
        gc.enable()

    assert many < 24 * few  # it was 64 times as much


def test_names_are_short_and_tell_nothing() -> None:
    keys = [
        RunKey(partition, RunId(run))
        for partition in (SHARED, IsolationKeys("ada").partition)
        for run in ("resp_1", "resp_2")
    ]
    names = [name_of(key) for key in keys]

    assert len(set(names)) == 4
    for name in names:
        assert len(name) == 24
        assert "ada" not in name
        assert "resp" not in name
