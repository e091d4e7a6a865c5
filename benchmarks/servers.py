"""What is loaded: the host, a bare Starlette app that sends the same bytes, and the agent alone. A process each."""

from __future__ import annotations

import asyncio
import http.client
import multiprocessing
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

import uvicorn
import uvloop
from agent_framework import Message
from benchmarks.agent import CountingAgent
from benchmarks.load import Load, put_load
from benchmarks.scenarios import Scenario
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.serve import tune_collector
from agent_framework_hosting_responses import ResponsesChannel

# Headers that the ASGI server writes itself.
_SERVER_HEADERS = frozenset({"connection", "content-length", "date", "server", "transfer-encoding"})
_START_SECONDS = 60.0

start_method: Literal["spawn", "forkserver"] = "spawn"
"""How processes are started: `spawn`, or `forkserver`, which is faster where many are."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One answer of the host. `body` is without the framing of HTTP."""

    headers: Mapping[str, str]
    body: bytes
    frames: tuple[bytes, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Server:
    """A started server: where it listens, and whose CPU time it uses."""

    port: int
    pid: int

    def record(self, scenario: Scenario) -> Recording:
        """Return the answer to `scenario`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/responses", scenario.body, {"content-type": "application/json"})
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"The host answered {response.status}: {body[:300]!r}")
        headers = {name: value for name, value in response.getheaders() if name.lower() not in _SERVER_HEADERS}
        if not scenario.stream:
            return Recording(headers, body)
        frames = tuple(frame + b"\n\n" for frame in body.removesuffix(b"\n\n").split(b"\n\n"))
        if not frames[-1].startswith(b"event: response.completed"):
            raise RuntimeError(f"The stream ended with {frames[-1][:300]!r}")
        return Recording(headers, body, frames)

    def load(self, path: str, scenario: Scenario, *, seconds: float, events: int) -> Load:
        """Load the server. See `put_load`."""
        return put_load(self.port, path, scenario=scenario, seconds=seconds, read_cpu=self.cpu, events=events)

    def cpu(self) -> int:
        """Return the CPU time that the process has used so far, in nanoseconds."""
        # The CPU clock of another process, as clock_getcpuclockid(3) computes it: nanoseconds, where psutil has 10 ms.
        return time.clock_gettime_ns((~self.pid << 3) | 2)


@dataclass(frozen=True, slots=True)
class BareAgent:
    """The agent in a process of its own, iterated and nothing else."""

    pipe: Connection

    def load(self, scenario: Scenario, *, seconds: float) -> Load:
        """Have `scenario.connections` tasks iterate runs of the agent."""
        self.pipe.send((scenario, seconds))
        result = self.pipe.recv()
        assert isinstance(result, Load)
        return result


@contextmanager
def start_host(core: int | None) -> Generator[Server, None, None]:
    """Serve the agent through the host, pinned to `core`."""
    with start_server(_host_app, core) as server:
        yield server


@contextmanager
def start_starlette(recordings: Mapping[str, Recording], core: int | None) -> Generator[Server, None, None]:
    """Serve the recorded answers by a bare Starlette app, each under `/` and the kind of its scenario."""
    with start_server(_starlette_app, core, recordings) as server:
        yield server


@contextmanager
def start_bare_agent(core: int | None) -> Generator[BareAgent, None, None]:
    """Start the process that iterates the agent, pinned to `core`."""
    with start_process(_iterate_agent, core) as (pipe, _):
        yield BareAgent(pipe)


def _host_app() -> Any:
    app = AgentFrameworkHost(CountingAgent(), channels=[ResponsesChannel()]).app
    # As `host.serve()` does.
    tune_collector()
    return app


def _starlette_app(recordings: Mapping[str, Recording]) -> Any:
    return Starlette(routes=[_route(kind, recording) for kind, recording in recordings.items()])


def _route(kind: str, recording: Recording) -> Route:
    async def answer(request: Request) -> Response:
        await request.body()
        return Response(recording.body, headers=recording.headers)

    async def stream(request: Request) -> Response:
        await request.body()
        return StreamingResponse(_frames(recording.frames), headers=recording.headers)

    return Route(f"/{kind}", stream if recording.frames else answer, methods=["POST"])


async def _frames(frames: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for frame in frames:
        yield frame
        # As the agent does.
        await asyncio.sleep(0)


@contextmanager
def start_server(build: Callable[..., Any], core: int | None, *arguments: object) -> Generator[Server, None, None]:
    """Serve the app that `build(*arguments)` returns in a process of its own, pinned to `core`."""
    with start_process(_serve, core, build, *arguments) as (pipe, pid):
        if not pipe.poll(_START_SECONDS):
            raise RuntimeError("The server did not start.")
        yield Server(pipe.recv(), pid)


@contextmanager
def start_process(
    work: Callable[..., None], core: int | None, *arguments: object
) -> Generator[tuple[Connection, int], None, None]:
    """Call `work(pipe, *arguments)` in a process of its own, pinned to `core`; return the pipe's end and the process id."""
    is_spawned = start_method == "spawn"
    context = multiprocessing.get_context("spawn") if is_spawned else multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_pinned, args=(work, core, theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        assert process.pid is not None
        yield ours, process.pid
    finally:
        process.terminate()
        process.join(10)
        ours.close()


def _pinned(work: Callable[..., None], core: int | None, pipe: Connection, *arguments: object) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    work(pipe, *arguments)


def _serve(pipe: Connection, build: Callable[..., Any], *arguments: object) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        config = uvicorn.Config(
            build(*arguments), loop="uvloop", http="httptools", log_level="warning", access_log=False, lifespan="on"
        )
        pipe.send(listener.getsockname()[1])
        uvicorn.Server(config).run([listener])


def _iterate_agent(pipe: Connection) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while True:
            scenario, seconds = pipe.recv()
            pipe.send(runner.run(_iterate(scenario, seconds)))


async def _iterate(scenario: Scenario, seconds: float) -> Load:
    agent = CountingAgent()
    messages = [Message("user", [str(scenario.deltas)])]

    async def iterate(deadline: float) -> int:
        runs = 0
        while True:
            async for _ in agent.run(messages, stream=True, session=agent.create_session()):
                pass
            runs += 1
            if time.perf_counter() >= deadline:
                return runs

    cpu = time.process_time_ns()
    started = time.perf_counter()
    runs = sum(await asyncio.gather(*(iterate(started + seconds) for _ in range(scenario.connections))))
    elapsed = time.perf_counter() - started
    cpu = time.process_time_ns() - cpu
    return Load(runs, runs * scenario.deltas, 0, elapsed, cpu / 1e9)
