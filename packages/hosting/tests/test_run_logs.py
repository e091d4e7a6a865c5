"""The suite for logs of runs, run on every kind of log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest

from agent_framework_hosting.runs.base import Attempt, LogEntry, RunKey
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
