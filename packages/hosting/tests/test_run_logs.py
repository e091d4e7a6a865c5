"""The suite for logs of runs, run on every kind of log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import pytest

from agent_framework_hosting.runs.base import Attempt, LogEntry, RunKey, RunLog
from agent_framework_hosting.runs.memory import MemoryRunLog
from agent_framework_hosting.runs.sql_log import SqlRunLog
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.testing.run_logs import RunLogSuite


@pytest.mark.behaviour("D3", "D11")
class TestMemoryRunLog(RunLogSuite):
    @pytest.fixture
    def log(self) -> MemoryRunLog:
        return MemoryRunLog()


@pytest.mark.behaviour("D3", "D11")
class TestSqlRunLog(RunLogSuite):
    @pytest.fixture
    async def log(self, database: Database) -> AsyncGenerator[SqlRunLog]:
        log = SqlRunLog(database)
        yield log
        await log.stop()


class TwoProcesses:
    """A log as two processes see it: what one has written is read by the other."""

    def __init__(self, writer: SqlRunLog, reader: SqlRunLog) -> None:
        self._writer = writer
        self._reader = reader

    async def append(self, attempt: Attempt, entries: Sequence[LogEntry], *, closes: bool = False) -> None:
        await self._writer.append(attempt, entries, closes=closes)

    def follow(
        self, key: RunKey, *, after: int = -1, idle: float | None = None
    ) -> AsyncGenerator[Sequence[LogEntry], None]:
        return self._reader.follow(key, after=after, idle=idle)

    async def exists(self, key: RunKey) -> bool:
        return await self._reader.exists(key)

    async def drop(self, key: RunKey) -> None:
        await self._writer.drop(key)


@pytest.mark.behaviour("D3", "D11")
class TestSqlRunLogsOfTwoProcesses(RunLogSuite):
    @pytest.fixture
    async def log(self, database: Database) -> AsyncGenerator[TwoProcesses]:
        other = Database(database.url)
        other.open()
        writer, reader = SqlRunLog(database), SqlRunLog(other, poll=0.01 if database.is_sqlite else 1.0)
        yield TwoProcesses(writer, reader)
        await writer.stop()
        await reader.stop()
        await other.close()


class Attempts:
    """A log whose every attempt is another process: the later one overtakes, and knows nothing of the earlier one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._logs: dict[int, SqlRunLog] = {}

    def of(self, number: int) -> SqlRunLog:
        if number not in self._logs:
            self._logs[number] = SqlRunLog(self._database, poll=0.01)
        return self._logs[number]

    async def append(self, attempt: Attempt, entries: Sequence[LogEntry], *, closes: bool = False) -> None:
        await self.of(attempt.number).append(attempt, entries, closes=closes)

    def follow(
        self, key: RunKey, *, after: int = -1, idle: float | None = None
    ) -> AsyncGenerator[Sequence[LogEntry], None]:
        return self.of(0).follow(key, after=after, idle=idle)

    async def exists(self, key: RunKey) -> bool:
        return await self.of(0).exists(key)

    async def drop(self, key: RunKey) -> None:
        await self.of(1).drop(key)

    async def stop(self) -> None:
        for log in self._logs.values():
            await log.stop()


class TestSqlRunLogsOfManyProcesses(RunLogSuite):
    @pytest.fixture
    async def log(self, database: Database) -> AsyncGenerator[Attempts]:
        log = Attempts(database)
        yield log
        await log.stop()


class Unfenced(MemoryRunLog):
    """Breaks a rule: every attempt writes."""

    async def append(self, attempt: Attempt, entries: Sequence[LogEntry], *, closes: bool = False) -> None:
        await super().append(Attempt(attempt.key, 1), entries, closes=closes)


class Halving(MemoryRunLog):
    """Breaks a rule: a cancelled append leaves half of what it was to append."""

    async def append(self, attempt: Attempt, entries: Sequence[LogEntry], *, closes: bool = False) -> None:
        for number, entry in enumerate(entries):
            await super().append(attempt, [entry], closes=closes and number == len(entries) - 1)
            await asyncio.sleep(0)


class Retrying(MemoryRunLog):
    """Breaks a rule: the entries of a cancelled append come twice."""

    async def append(self, attempt: Attempt, entries: Sequence[LogEntry], *, closes: bool = False) -> None:
        await super().append(attempt, entries, closes=closes)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            await super().append(attempt, entries)
            raise


class Forgetful(MemoryRunLog):
    """Breaks a rule: a reader that comes late misses what was before."""

    async def follow(
        self, key: RunKey, *, after: int = -1, idle: float | None = None
    ) -> AsyncGenerator[Sequence[LogEntry], None]:
        skipped = False
        async with aclosing(super().follow(key, after=after, idle=idle)) as batches:
            async for batch in batches:
                yield batch if skipped else batch[-1:]
                skipped = True


@pytest.mark.parametrize(
    ("log", "test"),
    [
        (Unfenced(), RunLogSuite().test_an_attempt_that_was_overtaken_can_write_nothing),
        (Unfenced(), RunLogSuite().test_an_attempt_that_appends_nothing_has_begun),
        (Unfenced(), RunLogSuite().test_two_attempts_at_the_same_time_leave_no_gap_and_the_later_one_ends_the_log),
        (Halving(), RunLogSuite().test_an_append_that_is_cancelled_at_any_moment_is_there_whole_or_not_at_all),
        (Retrying(), RunLogSuite().test_an_append_that_is_cancelled_at_any_moment_is_there_whole_or_not_at_all),
        (Forgetful(), RunLogSuite().test_readers_that_come_at_any_moment_see_the_same_entries),
        (Forgetful(), RunLogSuite().test_a_reader_continues_behind_every_position_and_past_the_end),
    ],
)
async def test_the_suite_finds_what_a_log_does_wrong(log: RunLog, test: Callable[[RunLog], Awaitable[None]]) -> None:
    with pytest.raises(AssertionError):
        await test(log)
