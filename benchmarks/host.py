"""Measure what the host costs: `uv run benchmarks/host.py`. Writes `benchmarks/results/host.md` and `host.json`.

Needs Linux (CPU affinity, CPU clocks of other processes).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# A script sees its own folder, not the repository, and the processes it spawns import this file's neighbours too.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from benchmarks.figures import AGENT, HOST, STARLETTE, figures
from benchmarks.load import Load
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.servers import BareAgent, Recording, Server, start_bare_agent, start_host, start_starlette

_OUTPUT = Path(__file__).parent / "results" / "host.md"
_WARM_UP_SECONDS = 0.3


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description="Measure what the host costs, beside a bare Starlette app.")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, not how fast")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of load a measurement (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the median counts (default 5)")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="Markdown file; the JSON is written beside it")
    options = parser.parse_args()
    rounds, seconds = (1, 0.02) if options.quick else (options.rounds, options.seconds)
    cores = sorted(os.sched_getaffinity(0))
    is_pinned = len(cores) > 1
    if is_pinned:
        os.sched_setaffinity(0, set(cores[1:]))
    tables = figures(*measure(cores[0] if is_pinned else None, rounds=rounds, seconds=seconds))
    command = "uv run benchmarks/host.py --quick" if options.quick else "uv run benchmarks/host.py"
    print(
        report.write(
            tables,
            report.facts(command=command, rounds=rounds, seconds=seconds, is_pinned=is_pinned),
            options.output,
        )
    )


def measure(
    core: int | None, *, rounds: int, seconds: float
) -> tuple[dict[tuple[str, Scenario], list[Load]], dict[str, Recording]]:
    """Return what was measured, and one answer of the host for each kind of scenario; several rounds get a warm-up."""
    measured: dict[tuple[str, Scenario], list[Load]] = {}
    with start_host(core) as host, start_bare_agent(core) as agent:
        recordings = {scenario.kind: host.record(scenario) for scenario in SCENARIOS}
        with start_starlette(recordings, core) as starlette:
            servers: dict[str, Server | BareAgent] = {HOST: host, STARLETTE: starlette, AGENT: agent}
            if rounds > 1:
                _round(servers, recordings, {}, seconds=_WARM_UP_SECONDS)
            for number in range(rounds):
                print(f"round {number + 1} of {rounds}", file=sys.stderr)
                _round(servers, recordings, measured, seconds=seconds)
    return measured, recordings


def _round(
    servers: dict[str, Server | BareAgent],
    recordings: dict[str, Recording],
    measured: dict[tuple[str, Scenario], list[Load]],
    *,
    seconds: float,
) -> None:
    for scenario in SCENARIOS:
        for name, server in servers.items():
            if isinstance(server, BareAgent):
                load = server.load(scenario, seconds=seconds)
            else:
                path = "/responses" if name == HOST else f"/{scenario.kind}"
                load = server.load(path, scenario, seconds=seconds, events=len(recordings[scenario.kind].frames))
            measured.setdefault((name, scenario), []).append(load)


if __name__ == "__main__":
    main()
