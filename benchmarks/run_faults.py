"""What takes long when something is wrong: to take over the runs of killed processes, and to cancel one elsewhere."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Final

from benchmarks.load import post
from benchmarks.run_hosts import BEGAN, CANCELLED, HOLD, Worker, start_workers
from benchmarks.run_work import accept, look
from benchmarks.servers import Server
from benchmarks.stored_turns import Client, connected

# All are killed before the first of them counts as dead: one process is left to notice, as where there are two.
_KILLED_WITHIN: Final = 4.0

_PAUSE_SECONDS: Final = 0.02
_PATIENCE: Final = 60.0


def take_over(server: Server, url: str, *, kills: int) -> Sequence[float]:
    """Kill as many workers, each with one run, at any moments; return after how many seconds each run was terminal.

    Another worker is there, and the server, which executes nothing. All settings are the defaults.
    """
    with start_workers(url, kills, concurrency=1) as victims:
        # The server closes connections that are not used for some seconds.
        with connected(server.port) as client:
            names = {f"run-{number}": accept(client, f"{HOLD} run-{number}")[0] for number in range(kills)}
        held = [(victim, names[victim.hears(BEGAN)[0]]) for victim in victims]
        with start_workers(url, 1):
            killed = _kill(held)
            with connected(server.port) as client:
                return _until_failed(client, killed)


def _kill(held: Sequence[tuple[Worker, str]]) -> dict[str, float]:
    """Kill workers; return which run ended when."""
    chance = random.Random(len(held))
    killed: dict[str, float] = {}
    for victim, response_id in held:
        time.sleep(chance.uniform(0, 2) * _KILLED_WITHIN / len(held))
        killed[response_id] = time.monotonic()
        victim.kill()
    return killed


def _until_failed(client: Client, killed: dict[str, float]) -> list[float]:
    seconds = []
    while killed:
        time.sleep(_PAUSE_SECONDS)
        for response_id, since in tuple(killed.items()):
            response = look(client, response_id)
            if response is not None:
                seconds.append(time.monotonic() - since)
                del killed[response_id]
                if response["status"] != "failed":
                    raise RuntimeError(f"A killed run ended otherwise: {response!r}"[:500])
            elif time.monotonic() > since + _PATIENCE:
                raise TimeoutError("Nobody takes over the run of a killed worker.")
    return seconds


def cancel(server: Server, url: str, *, runs: int) -> Sequence[float]:
    """Cancel runs of a worker through the server, which executes nothing; return after how many seconds each coroutine knew."""
    seconds = []
    with start_workers(url, 1) as (worker,), connected(server.port) as client:
        for number in range(runs):
            response_id, _ = accept(client, f"{HOLD} run-{number}")
            worker.hears(BEGAN)
            asked = time.monotonic_ns()
            response, _ = client.send(post(f"/v1/responses/{response_id}/cancel", b""))
            _, known = worker.hears(CANCELLED)
            seconds.append((known - asked) / 1e9)
            if response["status"] != "cancelled":
                raise RuntimeError(f"A cancelled run ended otherwise: {response!r}"[:500])
    return seconds
