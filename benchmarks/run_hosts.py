"""Processes that accept and execute background runs: servers on every store, and workers on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.connection import Connection
from typing import Any, Final

import sqlalchemy as sa
import uvloop
from benchmarks.agent import UPDATES, CountingAgent
from benchmarks.servers import Server, start_process, start_server
from benchmarks.stored_hosts import POSTGRESQL, Place, wait_until_ready
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.lifecycle import Phase
from agent_framework_hosting.serve import tune_collector
from agent_framework_hosting.state import RUN_CONCURRENCY
from agent_framework_hosting_responses import ResponsesChannel

STATEMENTS_PATH: Final = "/-/statements"

HOLD: Final = "hold"
BEGAN: Final = "began"
CANCELLED: Final = "cancelled"

_SECONDS: Final = 60.0


class RunAgent(CountingAgent):
    """Says 200 updates if it is told `"200"`, some 10 milliseconds apart if it is told `"200 10"`.

    Told `"hold"` and a name it says nothing, and stops when it is cancelled; `pipe` hears of both, and when they happened
    (`time.monotonic_ns`).
    """

    def __init__(self, pipe: Connection | None = None) -> None:
        super().__init__()
        self._pipe = pipe

    def run(self, messages: Any = None, **kwargs: Any) -> Any:
        words = messages[-1].text.split()
        if words[0] == HOLD:
            return self._hold(words[1])
        return _paced(int(words[0]), int(words[1]) / 1e3) if len(words) > 1 else super().run(messages, **kwargs)

    async def _hold(self, name: str) -> AsyncGenerator[Any, None]:
        assert self._pipe is not None, "only workers hold runs"
        yield UPDATES[0]
        self._pipe.send((BEGAN, name, time.monotonic_ns()))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._pipe.send((CANCELLED, name, time.monotonic_ns()))
            raise


async def _paced(count: int, seconds: float) -> AsyncGenerator[Any, None]:
    for update in islice(cycle(UPDATES), count):
        yield update
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Worker:
    """A started worker process."""

    pipe: Connection
    pid: int

    def hears(self, what: str) -> tuple[str, int]:
        """Wait until a held run `what`; return its name, and when that was."""
        if not self.pipe.poll(_SECONDS):
            raise RuntimeError(f"No run {what}.")
        said, name, moment = self.pipe.recv()
        if said != what:
            raise RuntimeError(f"The run {name} {said}.")
        return name, moment

    def kill(self) -> None:
        """End the process without a word."""
        os.kill(self.pid, signal.SIGKILL)


@contextmanager
def start_run_server(place: Place, *, concurrency: int = RUN_CONCURRENCY) -> Generator[Server, None, None]:
    """Serve the agent with its state in `place`; with `concurrency=0` others have to execute its background runs."""
    with start_server(_app, None, place, concurrency) as server:
        wait_until_ready(server.port)
        yield server


@contextmanager
def start_workers(url: str, count: int, *, concurrency: int = RUN_CONCURRENCY) -> Generator[list[Worker], None, None]:
    """Start processes that execute the runs of a PostgreSQL database, as `afhost worker` does."""
    with ExitStack() as running:
        workers = [Worker(*running.enter_context(start_process(_work, None, url, concurrency))) for _ in range(count)]
        for worker in workers:
            if not worker.pipe.poll(_SECONDS):
                raise RuntimeError("A worker did not start.")
            worker.pipe.recv()
        yield workers


def _host(place: Place, concurrency: int, agent: RunAgent) -> AgentFrameworkHost:
    return AgentFrameworkHost(
        agent,
        channels=[ResponsesChannel()],
        state_dir=place.directory,
        database_url=place.url,
        run_concurrency=concurrency,
    )


def _app(place: Place, concurrency: int) -> Any:
    app = CountedApp(_host(place, concurrency, RunAgent()).app)
    tune_collector()
    return app


def _work(pipe: Connection, url: str, concurrency: int) -> None:
    host = _host(Place(POSTGRESQL, url=url), concurrency, RunAgent(pipe))

    async def work() -> None:
        working = asyncio.create_task(host.work(asyncio.Event()))
        while host.app.lifecycle.phase is not Phase.READY:  # noqa: ASYNC110  nobody is told
            await asyncio.sleep(0.01)
        tune_collector()
        pipe.send("ready")
        await working

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


class CountedApp:
    """The host, and how many SQL statements this process has sent so far (`STATEMENTS_PATH`)."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._statements = 0
        self._lock = threading.Lock()
        sa.event.listen(sa.Engine, "before_cursor_execute", self._count)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and Request(scope).url.path == STATEMENTS_PATH:
            await JSONResponse({"statements": self._statements})(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _count(self, *_: object) -> None:
        with self._lock:  # every connection has a thread
            self._statements += 1
