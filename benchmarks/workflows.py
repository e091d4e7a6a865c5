"""Measure whether runs of one workflow wait for each other: `uv run benchmarks/workflows.py`. Writes `benchmarks/results/workflows.md`.

Starts a PostgreSQL of its own, as the tests do, but one that keeps what it has confirmed.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from agent_framework import Executor, Workflow, WorkflowBuilder, WorkflowContext, handler, step, workflow

# A script sees its own folder, not the repository, and the processes it spawns import this file's neighbours too.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from benchmarks.figures import Row
from benchmarks.report import Layout
from benchmarks.servers import Server, start_server
from benchmarks.stored_bytes import sync_seconds
from benchmarks.stored_figures import judged
from benchmarks.stored_hosts import POSTGRESQL, SQLITE, STORES, Place, wait_until_ready
from postgres import PostgresServer, postgres_server

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.serve import tune_collector
from agent_framework_hosting_responses import ResponsesChannel

_OUTPUT: Final = Path(__file__).parent / "results" / "workflows.md"

RATIO_AIM: Final = 1.3
SECONDS: Final = 3.0
_ROUNDS: Final = 2

INSTANCE: Final = "instance"
FUNCTION: Final = "function"
FUNCTIONAL: Final = "functional"


@dataclass(frozen=True, slots=True)
class Way:
    """How a workflow is given to the host, and how it is asked for."""

    model: str
    background: bool = False

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"{self.model}, background" if self.background else self.model


WAYS: Final = (Way(INSTANCE), Way(FUNCTION), Way(FUNCTIONAL), Way(FUNCTION, background=True))

_LAYOUT: Final = Layout(
    title="Whether runs of one workflow wait for each other",
    sections={
        "aims": ("Aims", ""),
        "ratios": (
            "Three runs at once",
            (
                "A workflow of two steps, which sleep. `one_s` is the time of one run, `three_s` that of three which are asked for at "
                "the same time, until the last has answered: three times as long if they wait for each other. `ratio` is the "
                "median of the rounds, `worst` the largest."
            ),
        ),
    },
    method=(
        "A server for each store, all three at the same time, for runs only sleep. Callers are HTTP clients; in the background they "
        "read the stream to the terminal event. Every answer is checked to be that of its own run."
    ),
)


class _Sleep(Executor):
    """Sleeps as many seconds as it is told before a word, and hands both on."""

    @handler
    async def sleep(self, text: str, ctx: WorkflowContext[str]) -> None:
        await asyncio.sleep(float(text.split(maxsplit=1)[0]))
        await ctx.send_message(text)


class _Say(Executor):
    """Sleeps, too, and says the word."""

    @handler
    async def say(self, text: str, ctx: WorkflowContext[Any, str]) -> None:
        seconds, word = text.split()
        await asyncio.sleep(float(seconds))
        await ctx.yield_output(word)


@step
async def _wait(text: str) -> str:
    seconds, word = text.split()
    await asyncio.sleep(float(seconds))
    return word


@workflow
async def _functional(text: str) -> str:
    await _wait(text)
    return await _wait(text)


def _graph() -> Workflow:
    first, last = _Sleep(id="first"), _Say(id="last")
    return WorkflowBuilder(start_executor=first, output_from=[last]).add_edge(first, last).build()


def _app(place: Place) -> Any:
    app = AgentFrameworkHost(
        {INSTANCE: _graph(), FUNCTION: _graph, FUNCTIONAL: _functional},
        channels=[ResponsesChannel()],
        state_dir=place.directory,
        database_url=place.url,
    ).app
    tune_collector()
    return app


def _ask(server: Server, body: Mapping[str, object]) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("POST", "/responses", json.dumps(body), {"content-type": "application/json"})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _seconds_of(server: Server, way: Way, words: Sequence[str], seconds: float) -> float:
    """Return how long runs take that are started at the same time, until the last has answered."""
    bodies = [
        {"model": way.model, "input": f"{seconds / 2} {word}", "background": way.background, "stream": way.background}
        for word in words
    ]
    started = time.perf_counter()
    with ThreadPoolExecutor(len(words)) as callers:
        answers = list(callers.map(lambda body: _ask(server, body), bodies))
    elapsed = time.perf_counter() - started
    for word, answer in zip(words, answers, strict=True):
        if f'"text":"{word}"' not in answer:
            raise RuntimeError(f"The run of {word} answered {answer[:300]}")
    return elapsed


def _measure(server: Server, way: Way, *, seconds: float, rounds: int) -> Row:
    single: list[float] = []
    several: list[float] = []
    _seconds_of(server, way, ["warm"], 0)  # what is loaded at first use is not a run's
    for number in range(rounds):
        words = [f"word{number}{letter}" for letter in "abc"]
        single.append(_seconds_of(server, way, words[:1], seconds))
        several.append(_seconds_of(server, way, words, seconds))
    ratios = [many / one for one, many in zip(single, several, strict=True)]
    return {"one_s": median(single), "three_s": median(several), "ratio": median(ratios), "worst": max(ratios)}


def measure(home: Path, postgres: PostgresServer, *, seconds: float, rounds: int) -> list[Row]:
    """Return a row for each store and way; the stores are measured at the same time."""
    places = [
        Place(
            store,
            directory=home / "state" if store == SQLITE else None,
            url=postgres.create() if store == POSTGRESQL else None,
        )
        for store in STORES
    ]

    def measured(server: Server, place: Place) -> list[Row]:
        wait_until_ready(server.port)
        return [
            {"store": place.store, "workflow": way.name, **_measure(server, way, seconds=seconds, rounds=rounds)}
            for way in WAYS
        ]

    with ExitStack() as running, ThreadPoolExecutor(len(places)) as stores:
        servers = [running.enter_context(start_server(_app, None, place)) for place in places]
        return [row for rows in stores.map(measured, servers, places) for row in rows]


def tables(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the tables of the report, by name."""
    worst = max(float(row["worst"]) for row in rows)
    return {"aims": [judged("time of three runs at once / time of one, worst", worst, RATIO_AIM)], "ratios": list(rows)}


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description="Measure whether runs of one workflow wait for each other.")
    parser.add_argument("--quick", action="store_true", help="one round of short runs: shows that it works")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="Markdown file; the JSON is written beside it")
    options = parser.parse_args()
    seconds, rounds = (0.5, 1) if options.quick else (SECONDS, _ROUNDS)
    home = Path(tempfile.mkdtemp(prefix="afhost-bench-"))
    try:
        with postgres_server(is_durable=True) as postgres:
            rows = measure(home, postgres, seconds=seconds, rounds=rounds)
        sync = sync_seconds(home)
    finally:
        shutil.rmtree(home)
    about = report.facts(
        command="uv run benchmarks/workflows.py" + (" --quick" if options.quick else ""),
        rounds=f"{rounds} of runs that sleep {seconds:g} s",
        is_pinned=False,
        more={"a sync of this disk": f"{sync * 1e3:.2f} ms", "load average at the end": f"{os.getloadavg()[0]:.1f}"},
    )
    print(report.write(_LAYOUT, tables(rows), about, options.output))


if __name__ == "__main__":
    main()
