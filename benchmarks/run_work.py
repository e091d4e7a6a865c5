"""Background runs: many at once to measure how many end in a second, and a few to measure what one costs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import uvloop
from benchmarks.load import Caller, connect, get, post
from benchmarks.run_hosts import STATEMENTS_PATH
from benchmarks.servers import Server
from benchmarks.stored_bytes import DatabaseServer
from benchmarks.stored_turns import Client, connected

CALLERS: Final = 16

PACE_MS: Final = 10
"""Milliseconds between two deltas of a run whose cost is measured: a fast model."""

EVENTS: Final = 10
"""Events of a background run with one delta: its own three, the delta, and what opens and closes item and part."""

_PATH: Final = "/v1/responses"
_PAUSE_SECONDS: Final = 0.005
_PATIENCE: Final = 60.0
_RUNNING: Final = frozenset({"queued", "in_progress"})


@dataclass(frozen=True, slots=True)
class RunsDone:
    """So many runs, from the first request until the last one's terminal event was read."""

    runs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RunCost:
    """What one run cost, its share of what the process does besides included. CPU times are in seconds."""

    statements: float
    cpu_seconds: float
    database_cpu_seconds: float


def body(text: str, *, is_streamed: bool = False) -> bytes:
    """Return the body of a request for a background run."""
    return json.dumps({"model": "runs", "input": text, "background": True, "stream": is_streamed}).encode()


def accept(client: Client, text: str) -> tuple[str, float]:
    """Have a background run accepted; return its id, and the seconds it took."""
    accepted, seconds = client.send(post(_PATH, body(text)))
    return str(accepted["id"]), seconds


def look(client: Client, response_id: str) -> Any:
    """Return the response if it is terminal."""
    response, _ = client.send(get(f"{_PATH}/{response_id}"))
    return None if response["status"] in _RUNNING else response


def until_ended(client: Client, response_id: str) -> Any:
    """Return the response as soon as it is terminal.

    Raises:
        TimeoutError: it never is.
    """
    deadline = time.monotonic() + _PATIENCE
    while (response := look(client, response_id)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"The run {response_id} does not end.")
        time.sleep(_PAUSE_SECONDS)
    return response


def _require_completed(response: Any) -> None:
    if response["status"] != "completed":
        raise RuntimeError(f"A run ended otherwise: {response!r}"[:500])


def execute_many(server: Server, *, runs: int) -> RunsDone:
    """Have `runs` runs with one delta each executed, or a few more so that every caller has as many.

    Raises:
        RuntimeError: the server answered with an error, or with another number of events.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_execute_many(server, runs=runs))


async def _execute_many(server: Server, *, runs: int) -> RunsDone:
    request = post(_PATH, body("1", is_streamed=True))
    callers = await connect(server.port, CALLERS, is_stream=True)
    each = -(-runs // CALLERS)
    started = time.perf_counter()
    async with asyncio.timeout(_PATIENCE):
        await asyncio.gather(*(_ask(caller, request, each) for caller in callers))
    seconds = time.perf_counter() - started
    for caller in callers:
        caller.close()
    events = sum(caller.events for caller in callers)
    if events != each * CALLERS * EVENTS:
        raise RuntimeError(f"{each * CALLERS} runs of {EVENTS} events were asked for, and {events} events came.")
    return RunsDone(each * CALLERS, seconds)


async def _ask(caller: Caller, request: bytes, times: int) -> None:
    for _ in range(times):
        await caller.ask(request)


def accept_some(server: Server, *, runs: int) -> Sequence[float]:
    """Return the seconds in which each of some runs was accepted, while nothing else goes on."""
    seconds = []
    with connected(server.port) as client:
        for _ in range(runs):
            response_id, took = accept(client, "1")
            _require_completed(until_ended(client, response_id))
            seconds.append(took)
    return seconds


def cost_of_run(server: Server, database: DatabaseServer, *, runs: int, deltas: int) -> RunCost:
    """Return what a run of so many deltas costs; `runs` of them are executed side by side."""
    with connected(server.port) as client:
        statements, cpu, database_cpu = _statements(client), server.cpu(), database.cpu_seconds()
        ids = [accept(client, f"{deltas} {PACE_MS}")[0] for _ in range(runs)]
        # Before that none of them has ended: whoever asks meanwhile is measured, too.
        time.sleep(deltas * PACE_MS / 1e3)
        ended = [until_ended(client, response_id) for response_id in ids]
        cost = RunCost(
            (_statements(client) - statements) / runs,
            (server.cpu() - cpu) / 1e9 / runs,
            (database.cpu_seconds() - database_cpu) / runs,
        )
    for response in ended:
        _require_completed(response)
    return cost


def _statements(client: Client) -> int:
    return int(client.send(get(STATEMENTS_PATH))[0]["statements"])
