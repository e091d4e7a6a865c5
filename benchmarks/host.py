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

_LAYOUT = report.Layout(
    title="What the host costs",
    sections={
        "aims": ("Aims", ""),
        "ratios": (
            "Ratios, host to bare Starlette",
            (
                "`throughput` is answers/s of the host by those of Starlette, `cpu` the same for CPU time an answer. "
                "`overhead` is the host's CPU time without the agent's, by all of Starlette's: (host - agent) / starlette."
            ),
        ),
        "further_deltas": (
            "One delta more",
            (
                "What a delta costs in a stream that runs, from the difference of two lengths; `overhead` as above. The last "
                "row shows whether a delta costs more late in a long answer."
            ),
        ),
        "sizes": (
            "Bytes of a text delta, on the stream",
            ("Frames as sent, in bytes: `event:` and `data:` lines. `stream` is the whole stream."),
        ),
        "absolute": (
            "Absolute numbers of this machine",
            (
                "CPU time is that of the server's process, in microseconds. `events_per_write` near 1 says that every delta "
                "was sent by itself. `agent` is the agent iterated by as many tasks, without a server."
            ),
        ),
    },
    method=(
        "Three processes share one core: the host with an agent that yields prebuilt updates, each in a turn of the "
        "event loop of its own; a bare Starlette app that sends the bytes recorded from the host, each event in a turn "
        "of its own too; and the agent iterated with no server. Both servers run on uvicorn with uvloop and httptools; "
        "the garbage collector of the host's process is set as `host.serve()` sets it. The load comes from raw sockets "
        "on another core, which never sleeps, so that no server pays for waking it. Servers are measured in turn, round "
        "after round; every figure is the median over the rounds, every ratio the median of the ratios within one round."
    ),
)


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
    about = report.facts(command=command, rounds=f"{rounds} of {seconds:g} s a measurement", is_pinned=is_pinned)
    print(report.write(_LAYOUT, tables, about, options.output))


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
