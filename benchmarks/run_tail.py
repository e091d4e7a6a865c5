"""How long an event is on its way: appended to a log, read by another process, or by the same one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import uvloop
from benchmarks.servers import start_process
from benchmarks.stored_hosts import Place

from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import Attempt, RunId, RunKey, RunLog
from agent_framework_hosting.runs.memory import MemoryRunLog
from agent_framework_hosting.runs.sql_log import SqlRunLog
from agent_framework_hosting.serve import tune_collector
from agent_framework_hosting.sql.database import Database, postgres_url, sqlite_url

_DELTA: Final = "response.output_text.delta"

# As long as the event of a delta is.
_PADDING: Final = b" " * 180


@dataclass(frozen=True, slots=True)
class Said:
    """One run: so many deltas, so far apart on average, in seconds; the clock that says when is `time.monotonic_ns`."""

    name: str
    deltas: int
    pace: float


@dataclass(frozen=True, slots=True)
class LogProcess:
    """A process with a log."""

    pipe: Connection

    def tail(self, said: Said) -> list[float]:
        """Write and read one log; return the seconds that each delta was on its way."""
        self.pipe.send(("both", said))
        return _seconds(self.pipe)

    def tail_of(self, writer: LogProcess, said: Said) -> list[float]:
        """Read what another process writes; return the seconds that each delta was on its way."""
        writer.pipe.send(("write", said))
        _receive(writer.pipe)  # there is a log
        self.pipe.send(("read", said))
        _receive(self.pipe)  # it is followed
        writer.pipe.send("go on")
        return _seconds(self.pipe)


@contextmanager
def start_log(place: Place) -> Generator[LogProcess, None, None]:
    """Start a process that writes and reads logs in `place`, whose database has its tables."""
    with start_process(_run, None, place) as (pipe, _):
        yield LogProcess(pipe)


def _receive(pipe: Connection) -> Any:
    if not pipe.poll(60):
        raise RuntimeError("A process with a log does not answer.")
    return pipe.recv()


def _seconds(pipe: Connection) -> list[float]:
    seconds = _receive(pipe)
    assert isinstance(seconds, list)
    return seconds


# --- In the process


def _run(pipe: Connection, place: Place) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_obey(pipe, place))


async def _obey(pipe: Connection, place: Place) -> None:
    async with _log(place) as log:
        tune_collector()
        while True:
            order, said = await asyncio.to_thread(pipe.recv)
            key = RunKey(Partition(""), RunId(said.name))
            match order:
                case "both":
                    await _open(log, key)
                    followed = asyncio.Event()
                    reader = asyncio.create_task(_read(log, key, followed))
                    await followed.wait()
                    await _write(log, key, said)
                    pipe.send(await reader)
                case "write":
                    await _open(log, key)
                    pipe.send("open")
                    await asyncio.to_thread(pipe.recv)
                    await _write(log, key, said)
                case "read":
                    followed = asyncio.Event()
                    reader = asyncio.create_task(_read(log, key, followed))
                    await followed.wait()
                    pipe.send("followed")
                    pipe.send(await reader)


@asynccontextmanager
async def _log(place: Place) -> AsyncGenerator[RunLog, None]:
    url = place.url and postgres_url(place.url)
    if place.file is not None:
        url = sqlite_url(str(place.file))
    if not url:
        yield MemoryRunLog()
        return
    database = Database(url)
    database.open()
    log = SqlRunLog(database)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()
        await database.close()


async def _open(log: RunLog, key: RunKey) -> None:
    await log.append(Attempt(key, 1), [("response.created", b"{}")])


async def _write(log: RunLog, key: RunKey, said: Said) -> None:
    attempt = Attempt(key, 1)
    # As irregular as a model, but the same in every run: what comes at even distances falls into step with the log.
    chance = random.Random(said.name)
    for _ in range(said.deltas):
        await asyncio.sleep(chance.uniform(0.5, 1.5) * said.pace)
        await log.append(attempt, [(_DELTA, b"%d" % time.monotonic_ns() + _PADDING)])
    await log.append(attempt, [("response.completed", b"{}")], closes=True)


async def _read(log: RunLog, key: RunKey, followed: asyncio.Event) -> list[float]:
    seconds = []
    async with aclosing(log.follow(key)) as batches:
        async for batch in batches:
            followed.set()
            now = time.monotonic_ns()
            seconds += [(now - int(data)) / 1e9 for kind, data in batch if kind == _DELTA]
    return seconds
