"""testing/engines.py: both engines pass the suites, and the suites can fail."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from agent_framework_hosting.runs.base import RunEngine
from agent_framework_hosting.runs.memory import MemoryRunEngine
from agent_framework_hosting.runs.procrastinate import ProcrastinateRunEngine
from agent_framework_hosting.sql import database
from agent_framework_hosting.testing.engines import RunEngineSuite, SharedRunEngineSuite

BEAT = 0.2
STALLED_AFTER = 1.0

PROGRAM = f"""
import asyncio, sys
from agent_framework_hosting.runs.procrastinate import ProcrastinateRunEngine
from agent_framework_hosting.sql.database import postgres_url
from agent_framework_hosting.testing.engines import serve_engine

async def main():
    await serve_engine(ProcrastinateRunEngine(postgres_url(sys.argv[1]), beat={BEAT}, stalled_after={STALLED_AFTER}))

asyncio.run(main())
"""


class TestMemoryRunEngine(RunEngineSuite):
    @pytest.fixture
    async def engine(self) -> AsyncGenerator[RunEngine, None]:
        engine = MemoryRunEngine()
        yield engine
        await engine.drain(5)


class TestProcrastinateRunEngine(SharedRunEngineSuite):
    @pytest.fixture
    async def new_engine(self, postgres_url: str) -> AsyncGenerator[Callable[[], RunEngine], None]:
        made: list[ProcrastinateRunEngine] = []

        def make() -> RunEngine:
            made.append(
                ProcrastinateRunEngine(database.postgres_url(postgres_url), beat=BEAT, stalled_after=STALLED_AFTER)
            )
            return made[-1]

        yield make
        for engine in made:
            await engine.close()

    @pytest.fixture
    def program(self, postgres_url: str) -> Sequence[str]:
        return [sys.executable, "-c", PROGRAM, postgres_url]
