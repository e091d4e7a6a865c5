"""The load: raw sockets that send one prepared request again and again, and count frames without parsing them.

HTTP clients cost more than the servers measured here, so that they would measure themselves.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import uvloop
from benchmarks.scenarios import Scenario

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did while it was loaded. `writes` counts the chunks in which the events of streams arrived."""

    answers: int
    events: int
    writes: int
    seconds: float
    cpu_seconds: float


class Caller(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, *, is_stream: bool) -> None:
        self.events = 0
        self.writes = 0
        self._is_stream = is_stream
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[None] | None = None
        self._tail = b""
        self._missing: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionError("The server closed the connection."))

    def ask(self, request: bytes) -> asyncio.Future[None]:
        """Send a request that `post` has made; the future is done when its answer has arrived."""
        assert self._transport is not None
        self._tail = b""
        self._missing = None
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._answered is None or self._answered.done():
            return
        if not self._tail and not data.startswith(b"HTTP/1.1 200"):
            self._answered.set_exception(RuntimeError(f"The server answered {data[:300]!r}"))
        elif self._is_stream:
            self._count(data)
        else:
            self._measure(data)

    def _count(self, data: bytes) -> None:
        # Marks may be cut in two by the network; what was counted before lies outside of the piece that is looked at.
        self.events += (self._tail[-1:] + data).count(b"\n\n")
        self.writes += (self._tail[-3:] + data).count(b"\n\n\r\n")
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        if self._tail == _LAST_CHUNK:
            self._finish()

    def _measure(self, data: bytes) -> None:
        if self._missing is None:
            data = self._tail + data
            head = data.find(b"\r\n\r\n")
            if head < 0:
                self._tail = data
                return
            length = _LENGTH.search(data, 0, head + 2)
            assert length is not None, "an answer that is no stream has a length"
            self._missing = int(length[1])
            data = data[head + 4 :]
            self._tail = b"head"
        self._missing -= len(data)
        if self._missing == 0:
            self._finish()

    def _finish(self) -> None:
        if self._answered is not None:
            self._answered.set_result(None)


def post(path: str, body: bytes) -> bytes:
    """Return a request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def get(path: str) -> bytes:
    """Return a request as it goes over the wire."""
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


async def connect(port: int, count: int, *, is_stream: bool) -> list[Caller]:
    """Return as many connections to a server of this machine."""
    loop = asyncio.get_running_loop()
    return [
        (await loop.create_connection(lambda: Caller(is_stream=is_stream), "127.0.0.1", port))[1] for _ in range(count)
    ]


def put_load(
    port: int, path: str, *, scenario: Scenario, seconds: float, read_cpu: Callable[[], int], events: int
) -> Load:
    """Load a server for at least `seconds`, until the answers that were asked for by then have ended.

    `read_cpu` returns the CPU time that the server has used so far, in nanoseconds; `events` are those of one answer.

    Raises:
        RuntimeError: the server answered with an error, or with another number of events.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_put_load(port, path, scenario=scenario, seconds=seconds, read_cpu=read_cpu, events=events))


async def _put_load(
    port: int, path: str, *, scenario: Scenario, seconds: float, read_cpu: Callable[[], int], events: int
) -> Load:
    request = post(path, scenario.body)
    callers = await connect(port, scenario.connections, is_stream=scenario.stream)
    # A client that sleeps must be woken, and on one machine the server's write pays for that: dearly in a virtual one,
    # and only when the server is too slow to keep the client busy. A real client is elsewhere; so this one never sleeps.
    stay_awake = asyncio.create_task(_stay_awake())
    cpu = read_cpu()
    started = time.perf_counter()
    answers = sum(await asyncio.gather(*(_ask_until(started + seconds, caller, request) for caller in callers)))
    elapsed = time.perf_counter() - started
    cpu = read_cpu() - cpu
    stay_awake.cancel()
    for caller in callers:
        caller.close()
    received = sum(caller.events for caller in callers)
    if received != answers * events:
        raise RuntimeError(f"{answers} answers of {events} events each were asked for, and {received} events came.")
    return Load(answers, received, sum(caller.writes for caller in callers), elapsed, cpu / 1e9)


async def _stay_awake() -> None:
    while True:  # noqa: ASYNC110  not to wait is the point
        await asyncio.sleep(0)


async def _ask_until(deadline: float, caller: Caller, request: bytes) -> int:
    answers = 0
    while True:
        await caller.ask(request)
        answers += 1
        if time.perf_counter() >= deadline:
            return answers
