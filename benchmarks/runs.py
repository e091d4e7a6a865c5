"""Measure what background runs cost: `uv run benchmarks/runs.py`. Writes `benchmarks/results/runs.md` and `runs.json`.

Needs Linux (CPU clocks of other processes). Starts a PostgreSQL of its own, as the tests do, but one that keeps what it
has confirmed; `AFHOST_TEST_DATABASE_URL` names another one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# A script sees its own folder, not the repository, and the processes it spawns import this file's neighbours too.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report, servers
from benchmarks.run_faults import cancel, take_over
from benchmarks.run_figures import (
    ELSEWHERE,
    ONE_WORKER,
    PACES,
    TWO_WORKERS,
    Measured,
    figures,
    said,
    spread,
)
from benchmarks.run_hosts import start_run_server, start_workers
from benchmarks.run_layout import LAYOUT
from benchmarks.run_tail import start_log
from benchmarks.run_work import accept_some, cost_of_run, execute_many
from benchmarks.servers import Server
from benchmarks.stored_bytes import DatabaseServer, sync_seconds
from benchmarks.stored_hosts import MEMORY, POSTGRESQL, SQLITE, STORES, Place, StoreName
from postgres import PostgresServer, postgres_server

_OUTPUT = Path(__file__).parent / "results" / "runs.md"

# What takes long to import, once for all processes.
_PRELOADED = (
    "agent_framework_hosting.runs.procrastinate",
    "agent_framework_hosting.sql.prepare",
    "agent_framework_hosting_responses.channel",
    "psycopg",
    "uvicorn",
)


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured."""

    rounds: int
    runs: int
    accepted: int
    cost_rounds: int
    cost_runs: int
    cost_deltas: int
    tail_rounds: int
    tail_deltas: int
    kill_rounds: int
    kills: int
    cancels: int


_FULL = Amount(
    rounds=10,
    runs=128,
    accepted=24,
    cost_rounds=4,
    cost_runs=8,
    cost_deltas=200,
    tail_rounds=4,
    tail_deltas=200,
    kill_rounds=2,
    kills=8,
    cancels=100,
)
_QUICK = Amount(
    rounds=1,
    runs=16,
    accepted=3,
    cost_rounds=1,
    cost_runs=2,
    cost_deltas=30,
    tail_rounds=1,
    tail_deltas=20,
    kill_rounds=1,
    kills=2,
    cancels=3,
)


class Bench:
    """Where hosts that are measured have their state."""

    def __init__(self, home: Path, postgres: PostgresServer) -> None:
        self.database = DatabaseServer(postgres.url)
        self.create = postgres.create
        self._home = home

    def place(self, store: StoreName) -> Place:
        """Return the place of a store: always the same for SQLite, a new one for PostgreSQL."""
        if store == SQLITE:
            return Place(store, directory=self._home / "state")
        return Place(store, url=self.create()) if store == POSTGRESQL else Place(store)


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description="Measure background runs in memory, SQLite and PostgreSQL.")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, not how fast")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="Markdown file; the JSON is written beside it")
    options = parser.parse_args()
    amount = _QUICK if options.quick else _FULL
    servers.start_method = "forkserver"
    multiprocessing.set_forkserver_preload(list(_PRELOADED))
    home = Path(tempfile.mkdtemp(prefix="afhost-bench-"))
    try:
        with postgres_server(is_durable=True) as postgres:
            bench = Bench(home, postgres)
            measured = measure(bench, amount)
            more = _more_facts(bench, home, amount, measured)
    finally:
        shutil.rmtree(home)
    about = report.facts(
        command="uv run benchmarks/runs.py" + (" --quick" if options.quick else ""),
        rounds=f"{amount.rounds} of {amount.runs} runs a measurement",
        is_pinned=False,
        more=more,
    )
    print(report.write(LAYOUT, figures(measured), about, options.output))


def _more_facts(bench: Bench, home: Path, amount: Amount, measured: Measured) -> dict[str, str]:
    return {
        "costs": f"{amount.cost_rounds} rounds of {amount.cost_runs} runs side by side",
        "tails": f"{amount.tail_rounds} rounds",
        "noise": (
            f"runs/s in memory differ by {spread(measured):.0%} of their median between rounds; load average "
            f"{os.getloadavg()[0]:.1f} at the end"
        ),
        "scheduling": "real time: other processes wait" if os.sched_getscheduler(0) else "as other processes",
        "a sync of this disk": f"{sync_seconds(home) * 1e3:.2f} ms",
        "postgresql": bench.database.settings(),
    }


def measure(bench: Bench, amount: Amount) -> Measured:
    """Return what was measured."""
    measured = Measured(deltas=amount.cost_deltas)
    _measure_runs(bench, amount, measured)
    _measure_tails(bench, amount, measured)
    _measure_faults(bench, amount, measured)
    return measured


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _measure_runs(bench: Bench, amount: Amount, measured: Measured) -> None:
    # A process opens up to 23 connections, and PostgreSQL takes 100: not everything is there at once. Memory is, for what
    # else the machine does meets it as well.
    with start_run_server(bench.place(MEMORY)) as memory:
        with (
            start_run_server(bench.place(SQLITE)) as sqlite,
            start_run_server(bench.place(POSTGRESQL)) as postgresql,
        ):
            hosts: dict[str, Server] = {MEMORY: memory, SQLITE: sqlite, POSTGRESQL: postgresql}
            _take_turns(hosts, amount, measured)
            _measure_single_runs(bench, hosts, amount, measured)
        place = bench.place(POSTGRESQL)
        assert place.url is not None
        with start_run_server(place, concurrency=0) as server, start_workers(place.url, 1):
            _take_turns({MEMORY: memory, ONE_WORKER: server}, amount, measured)
            with start_workers(place.url, 1):
                _take_turns({MEMORY: memory, TWO_WORKERS: server}, amount, measured)


def _take_turns(hosts: Mapping[str, Server], amount: Amount, measured: Measured) -> None:
    setups = (*hosts,)
    for number in range(amount.rounds + 1):
        _say(f"runs, {', '.join(setups)}, round {number} of {amount.rounds}")
        # Whoever comes first pays for what the one before has left behind.
        first = number % len(setups)
        done = {setup: execute_many(hosts[setup], runs=amount.runs) for setup in (*setups[first:], *setups[:first])}
        if number:  # the first ones warm up
            measured.note(done)


def _measure_single_runs(bench: Bench, hosts: Mapping[str, Server], amount: Amount, measured: Measured) -> None:
    for number in range(amount.rounds):
        _say(f"accepting, round {number + 1} of {amount.rounds}")
        for store in STORES:
            accepted = accept_some(hosts[store], runs=amount.accepted)
            measured.accepted.setdefault(store, []).append(accepted)
    for number in range(amount.cost_rounds):
        _say(f"costs, round {number + 1} of {amount.cost_rounds}")
        for store in STORES:
            cost = cost_of_run(hosts[store], bench.database, runs=amount.cost_runs, deltas=amount.cost_deltas)
            measured.cost.setdefault(store, []).append(cost)


def _measure_tails(bench: Bench, amount: Amount, measured: Measured) -> None:
    with ExitStack() as running:
        shared = bench.place(POSTGRESQL)
        logs = {
            store: running.enter_context(start_log(shared if store == POSTGRESQL else bench.place(store)))
            for store in STORES
        }
        elsewhere = running.enter_context(start_log(shared))
        tails = {store: log.tail for store, log in logs.items()} | {
            ELSEWHERE: partial(elsewhere.tail_of, logs[POSTGRESQL])
        }
        for number in range(amount.tail_rounds + 1):
            _say(f"tails, round {number} of {amount.tail_rounds}")
            for pace in PACES:
                for reader, tail in tails.items():
                    seconds = tail(said(f"{number}-{pace}-{reader}", pace, amount.tail_deltas if number else 10))
                    if number:  # the first ones warm up
                        measured.tail.setdefault((reader, pace), []).append(seconds)


def _measure_faults(bench: Bench, amount: Amount, measured: Measured) -> None:
    place = bench.place(POSTGRESQL)
    assert place.url is not None
    with start_run_server(place, concurrency=0) as server:
        for number in range(amount.kill_rounds):
            _say(f"takeover, round {number + 1} of {amount.kill_rounds}")
            measured.taken_over += take_over(server, place.url, kills=amount.kills)
        _say("cancel elsewhere")
        measured.cancelled += cancel(server, place.url, runs=amount.cancels)


if __name__ == "__main__":
    main()
