"""Measure what stored turns cost: `uv run benchmarks/state.py`. Writes `benchmarks/results/state.md` and `state.json`.

Needs Linux (CPU affinity, CPU clocks of other processes). Starts a PostgreSQL of its own, as the tests do, but one that
keeps what it has confirmed; `AFHOST_TEST_DATABASE_URL` names another one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

# A script sees its own folder, not the repository, and the processes it spawns import this file's neighbours too.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report, servers
from benchmarks.endurance import UNSTORED, Unstored, fill, prune
from benchmarks.servers import Server
from benchmarks.stored_bytes import Contents, DatabaseServer, sync_seconds
from benchmarks.stored_figures import Growth, Marks, Measured, figures, spread
from benchmarks.stored_hosts import (
    AGENTS,
    CONSTANT,
    MEMORY,
    POSTGRESQL,
    REMEMBERING,
    SQLITE,
    STORES,
    AgentName,
    BareSession,
    Place,
    StoreName,
    start_bare_session,
    start_stored_host,
)
from benchmarks.stored_layout import LAYOUT
from benchmarks.stored_turns import CHAINS, WORKS, Beside, Chain, ChainKind, Client, connected, do_work, grow
from postgres import PostgresServer, postgres_server

_OUTPUT = Path(__file__).parent / "results" / "state.md"

# What takes long to import, once for all hosts.
_PRELOADED = ("agent_framework_hosting.sql.prepare", "agent_framework_hosting_responses.channel", "psycopg", "uvicorn")


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured."""

    rounds: int
    turns: int
    chain_rounds: int
    chain_turns: int
    window: int
    many: int
    many_window: int
    patience: float


_FULL = Amount(
    rounds=24, turns=128, chain_rounds=4, chain_turns=300, window=50, many=10_000, many_window=500, patience=120.0
)
_QUICK = Amount(rounds=1, turns=16, chain_rounds=1, chain_turns=12, window=4, many=120, many_window=30, patience=5.0)


class Bench:
    """The places of the hosts that are measured, and the core they run on."""

    def __init__(self, home: Path, postgres: PostgresServer, core: int | None) -> None:
        self.core = core
        self.database = DatabaseServer(postgres.url)
        self._home = home
        self._postgres = postgres
        self._directories = 0

    def place(self, store: StoreName) -> Place:
        """Return a new, empty place."""
        if store == SQLITE:
            self._directories += 1
            return Place(store, directory=self._home / f"state-{self._directories}")
        return Place(store, url=self._postgres.create()) if store == POSTGRESQL else Place(store)

    @contextmanager
    def hosts(
        self, places: Mapping[StoreName, Place], agent: AgentName
    ) -> Generator[dict[StoreName, Server], None, None]:
        """Serve the agent from every place."""
        with ExitStack() as running:
            yield {
                store: running.enter_context(start_stored_host(place, agent, self.core))
                for store, place in places.items()
            }


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description="Measure what stored turns cost in memory, SQLite and PostgreSQL.")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, not how fast")
    parser.add_argument("--unpinned", action="store_true", help="let the operating system choose cores")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="Markdown file; the JSON is written beside it")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    is_pinned = len(cores) > 1 and not options.unpinned
    if is_pinned:
        os.sched_setaffinity(0, set(cores[1:]))
    amount = _QUICK if options.quick else _FULL
    servers.start_method = "forkserver"
    multiprocessing.set_forkserver_preload(list(_PRELOADED))
    home = Path(tempfile.mkdtemp(prefix="afhost-bench-"))
    try:
        with postgres_server(is_durable=True) as postgres:
            bench = Bench(home, postgres, cores[0] if is_pinned else None)
            measured = measure(bench, amount)
            more = _more_facts(bench, home, amount, measured)
    finally:
        shutil.rmtree(home)
    switches = [switch for switch in ("quick", "unpinned") if getattr(options, switch)]
    about = report.facts(
        command=" ".join(["uv run benchmarks/state.py", *(f"--{switch}" for switch in switches)]),
        rounds=f"{amount.rounds} of {amount.turns} turns a measurement",
        is_pinned=is_pinned,
        more=more,
    )
    print(report.write(LAYOUT, figures(measured), about, options.output))


def _more_facts(bench: Bench, home: Path, amount: Amount, measured: Measured) -> dict[str, str]:
    return {
        "chains": f"{amount.chain_rounds} of {amount.chain_turns} turns; first and last {amount.window}",
        "noise": (
            f"one-shot turns/s in memory differ by {spread(measured):.0%} of their median between rounds; load average "
            f"{os.getloadavg()[0]:.1f} at the end"
        ),
        "scheduling": "real time: other processes wait" if os.sched_getscheduler(0) else "as other processes",
        "a sync of this disk": f"{sync_seconds(home) * 1e3:.2f} ms",
        "postgresql": bench.database.settings(),
    }


def measure(bench: Bench, amount: Amount) -> Measured:
    """Return what was measured."""
    measured = Measured(window=amount.window, fill_window=amount.many_window)
    _measure_work(bench, amount, measured)
    for agent in AGENTS:
        _measure_chains(bench, amount, agent, measured)
    _measure_many(bench, amount, measured)
    return measured


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _measure_work(bench: Bench, amount: Amount, measured: Measured) -> None:
    with bench.hosts({store: bench.place(store) for store in STORES}, CONSTANT) as hosts:
        for number in range(amount.rounds + 1):
            _say(f"throughput, round {number} of {amount.rounds}")
            for work in WORKS:
                # Whoever comes first pays for what the one before has left behind.
                for store in (*STORES[number % 3 :], *STORES[: number % 3]):
                    server = hosts[store]
                    before = bench.database.cpu_seconds()
                    done = do_work(server, work, turns=amount.turns)
                    if number == 0:  # to warm up
                        continue
                    measured.work.setdefault((store, work), []).append(done)
                    if store == POSTGRESQL:
                        measured.database_cpu.setdefault(work, []).append(bench.database.cpu_seconds() - before)


def _measure_chains(bench: Bench, amount: Amount, agent: AgentName, measured: Measured) -> None:
    places = {store: bench.place(store) for store in STORES}
    with ExitStack() as running:
        hosts = running.enter_context(bench.hosts(places, agent))
        bare = running.enter_context(start_bare_session(bench.core)) if agent == REMEMBERING else None
        contents = {store: Contents(place) for store, place in places.items() if store != MEMORY}
        for number in range(amount.chain_rounds + 1):
            for kind in CHAINS:
                _say(f"{kind} with the agent {agent}, round {number} of {amount.chain_rounds}")
                # The first ones warm up.
                turns = amount.chain_turns if number else 2 * amount.window
                found, beside = _one_round(hosts, contents, bare, kind, turns=turns, window=amount.window)
                if number == 0:
                    continue
                for store, growth in found.items():
                    measured.chains.setdefault((agent, kind, store), []).append(growth)
                measured.unstored.setdefault((agent, kind), []).append(Growth(beside.unstored))
                if bare is not None:
                    measured.bare.setdefault(kind, []).append(Growth(beside.bare))


def _one_round(
    hosts: Mapping[StoreName, Server],
    contents: Mapping[StoreName, Contents],
    bare: BareSession | None,
    kind: ChainKind,
    *,
    turns: int,
    window: int,
) -> tuple[dict[StoreName, Growth], Beside]:
    """Make one chain in every store; return them, and the turns beside them."""
    marks: dict[StoreName, list[Marks]] = {store: [] for store in contents}
    if bare is not None:
        bare.restart()
    with ExitStack() as open_clients:
        chains = {
            store: Chain(open_clients.enter_context(connected(server.port)), kind) for store, server in hosts.items()
        }
        for chain in chains.values():
            chain.begin()
        beside = Beside(open_clients.enter_context(connected(hosts[MEMORY].port)), bare)
        for part in (0, window, turns - 2 * window, window):
            grow(chains, beside, turns=part)
            for store, rows in contents.items():
                marks[store].append(Marks(rows.size(), rows.pages()))
    return {store: Growth(chain.seconds, marks.get(store, ())) for store, chain in chains.items()}, beside


def _measure_many(bench: Bench, amount: Amount, measured: Measured) -> None:
    places = {store: bench.place(store) for store in STORES}
    with bench.hosts(places, CONSTANT) as hosts, ExitStack() as open_clients:
        clients: dict[StoreName | Unstored, Client] = {
            store: open_clients.enter_context(connected(server.port)) for store, server in hosts.items()
        }
        clients[UNSTORED] = open_clients.enter_context(connected(hosts[MEMORY].port))
        # Warm, but with nothing stored.
        fill(hosts, clients, count=amount.many_window, is_stored=False)
        _say(f"{amount.many} responses")
        measured.filled.update(fill(hosts, clients, count=amount.many))
    for store in (SQLITE, POSTGRESQL):
        _say(f"retention in {store}")
        measured.pruned[store] = prune(places[store], bench.core, keeps=amount.many // 10, patience=amount.patience)


if __name__ == "__main__":
    main()
