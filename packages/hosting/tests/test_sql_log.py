"""Logs of runs in the host's database: how long they are kept, and how processes see each other's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from postgres import PostgresServer

from agent_framework_hosting.errors import StaleWrite
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import Attempt, LogEntry, RunId, RunKey
from agent_framework_hosting.runs.sql_log import MAX_AGE, SqlRunLog
from agent_framework_hosting.sql import database as database_module  # its `postgres_url` is a fixture's name here
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.stores.base import Prunable, StoreStats
from agent_framework_hosting.testing.run_logs import FIRST, KEY, SECOND, Reader, deltas, entry, read

SECONDS = 60.0
NEVER = 3_600.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def log(database: Database, clock: Clock) -> AsyncGenerator[SqlRunLog]:
    log = SqlRunLog(database, clock=clock)
    yield log
    await log.stop()


# --- Retention


@pytest.mark.behaviour("D8")
async def test_a_later_attempt_begins_a_log_anew_that_was_dropped(log: SqlRunLog) -> None:
    first, second = [("a", b"1"), ("b", b"2")], [("c", b"3")]
    await log.append(Attempt(KEY, 1), first)
    await log.drop(KEY)

    with pytest.raises(StaleWrite):
        await log.append(Attempt(KEY, 1), first)
    await log.append(Attempt(KEY, 2), second)

    assert await log.entries(KEY) == second


async def test_a_log_can_be_read_for_some_time_after_it_was_closed(log: SqlRunLog, clock: Clock) -> None:
    await log.append(FIRST, [entry(0, "created")])
    clock.now += 10 * MAX_AGE
    assert await log.exists(KEY)
    await log.append(FIRST, [entry(1, "completed")], closes=True)

    clock.now += MAX_AGE
    assert await log.exists(KEY)
    assert len(await read(log)) == 2

    clock.now += 1
    assert not await log.exists(KEY)
    assert await read(log) == []


@pytest.mark.behaviour("D8")
async def test_pruning_erases_what_can_no_longer_be_read_and_leaves_open_logs(log: SqlRunLog, clock: Clock) -> None:
    assert isinstance(log, Prunable)
    keys = [RunKey(SHARED, RunId(str(number))) for number in range(5)]
    await log.append(FIRST, [entry(0, "created")])
    for key in keys:
        await log.append(Attempt(key, 1), [entry(0, "completed")], closes=True)
        clock.now += 100
    clock.now += MAX_AGE - 250

    assert await log.prune(limit=2) == 2
    assert await log.prune(limit=2) == 1
    assert await log.prune(limit=2) == 0

    assert [await log.exists(key) for key in keys] == [False, False, False, True, True]
    assert [len(await log.entries(key)) for key in keys] == [0, 0, 0, 1, 1]
    assert await log.exists(KEY)


async def test_the_stats_tell_what_the_logs_hold(log: SqlRunLog, clock: Clock) -> None:
    assert await log.stats() == StoreStats(name="run logs", entries=0, bytes=0, oldest=None)
    await log.append(FIRST, [("item", b"12345")])
    clock.now += 7
    await log.append(Attempt(RunKey(SHARED, RunId("other")), 1), [("item", b"123")], closes=True)

    assert await log.stats() == StoreStats(name="run logs", entries=2, bytes=8, oldest=7.0)


async def test_the_entries_are_there_for_who_goes_on_from_them_whatever_their_age(log: SqlRunLog, clock: Clock) -> None:
    assert await log.entries(KEY) == []
    await log.append(FIRST, [entry(0, "created"), *deltas(1, 700)])
    await log.append(SECOND, [])
    assert [int(data) for _, data in await log.entries(KEY)] == list(range(700))

    await log.append(SECOND, [entry(700, "completed")], closes=True)
    clock.now += 2 * MAX_AGE

    assert len(await log.entries(KEY)) == 701


# --- Readers that are cut


@pytest.mark.behaviour("D3")
async def test_a_reader_that_is_cut_anywhere_resumes_in_any_process_with_the_same_entries(database: Database) -> None:
    other = Database(database.url)
    other.open()
    processes = [SqlRunLog(database), SqlRunLog(other, poll=0.01 if database.is_sqlite else NEVER)]

    async def cut_at(position: int) -> list[LogEntry]:
        """Follow up to a position, live, and from there in the other process."""
        found: list[LogEntry] = []
        async with aclosing(processes[position % 2].follow(KEY)) as batches:
            async for batch in batches:
                found += batch
                if len(found) > position:
                    break
        del found[position + 1 :]
        return found + await read(processes[1 - position % 2], after=position)

    await processes[0].append(FIRST, [entry(0, "created")])
    cuts = [asyncio.create_task(cut_at(position)) for position in range(40)]
    for number in range(1, 39):
        await processes[0].append(FIRST, [entry(number, "item" if number % 6 == 0 else "text.delta")])
        await asyncio.sleep(0.002)
    await processes[0].append(FIRST, [entry(39, "completed")], closes=True)
    async with asyncio.timeout(SECONDS):
        found = await asyncio.gather(*cuts)

    assert [int(data) for _, data in found[0]] == list(range(40))
    assert all(one == found[0] for one in found)
    for process in processes:
        await process.stop()
    await other.close()


# --- Two processes on PostgreSQL


class Elsewhere:
    """Another process as far as logs can tell: an event loop in a thread of its own, with a database of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.log = asyncio.run_coroutine_threadsafe(self._open(), self.loop).result(SECONDS)

    async def _open(self) -> SqlRunLog:
        self._database = Database(database_module.postgres_url(self._url))
        self._database.open()
        return SqlRunLog(self._database, poll=NEVER)

    async def _close(self) -> None:
        await self.log.stop()
        await self._database.close()

    async def append(self, entries: list[LogEntry], *, closes: bool = False) -> None:
        appending = self.log.append(FIRST, entries, closes=closes)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(appending, self.loop))

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
async def elsewhere(postgres_url: str) -> AsyncGenerator[Elsewhere]:
    elsewhere = Elsewhere(postgres_url)
    yield elsewhere
    await asyncio.to_thread(elsewhere.stop)


@pytest.fixture
async def here(postgres_url: str) -> AsyncGenerator[SqlRunLog]:
    """A log that learns of the other process's events by notifications alone."""
    database = Database(database_module.postgres_url(postgres_url))
    database.open()
    log = SqlRunLog(database, poll=NEVER)
    yield log
    await log.stop()
    await database.close()


async def listening(log: SqlRunLog, elsewhere: Elsewhere, reader: Reader) -> None:
    """Return once what is appended elsewhere comes here; `reader` has read the first entry."""
    await reader.has(1)
    await elsewhere.append([entry(1, "item")])
    await reader.has(2)


def connects(log: SqlRunLog) -> bool:
    return log._notifier is not None


@pytest.mark.behaviour("D3")
async def test_events_of_another_process_come_by_notification(here: SqlRunLog, elsewhere: Elsewhere) -> None:
    await elsewhere.append([entry(0, "created")])
    readers = [Reader(here), Reader(here), Reader(here, after=1)]
    await listening(here, elsewhere, readers[0])

    for number in range(2, 100):
        await elsewhere.append([entry(number, "item" if number % 10 == 0 else "text.delta")])
    await elsewhere.append([entry(100, "completed")], closes=True)

    assert [int(data) for _, data in await readers[0].end()] == list(range(101))
    assert await readers[1].end() == readers[0].found
    assert await readers[2].end() == readers[0].found[2:]


async def test_a_log_that_is_dropped_elsewhere_ends_its_readers(here: SqlRunLog, elsewhere: Elsewhere) -> None:
    await elsewhere.append([entry(0, "created")])
    reader = Reader(here)
    await listening(here, elsewhere, reader)

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(elsewhere.log.drop(KEY), elsewhere.loop))

    assert len(await reader.end()) == 2


async def test_followers_survive_that_the_server_cuts_all_connections(
    here: SqlRunLog, elsewhere: Elsewhere, postgres: PostgresServer, postgres_url: str
) -> None:
    await elsewhere.append([entry(0, "created")])
    reader = Reader(here)
    await listening(here, elsewhere, reader)

    postgres.disconnect(postgres_url)
    # The notification of this one may get lost: the reader looks again as soon as it listens again.
    await elsewhere.append([entry(2, "item")])
    assert len(await reader.has(3)) == 3
    postgres.disconnect(postgres_url)
    await elsewhere.append([entry(number) for number in range(3, 20)])
    await elsewhere.append([entry(20, "completed")], closes=True)

    assert [int(data) for _, data in await reader.end()] == list(range(21))


async def test_a_listening_connection_is_made_for_the_first_reader_and_closed_at_the_end(here: SqlRunLog) -> None:
    assert not connects(here)
    assert await read(here) == []
    assert connects(here)

    await here.stop()

    assert not connects(here)
    assert {task.get_name() for task in asyncio.all_tasks()} & {
        "listen for notifications",
        "send notifications",
    } == set()


async def test_sqlite_needs_no_connections_of_its_own(log: SqlRunLog, database: Database) -> None:
    await log.start()
    await log.append(FIRST, [entry(0, "completed")], closes=True)

    assert connects(log) is not database.is_sqlite
