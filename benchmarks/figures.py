"""From measurements to figures: medians over the rounds, of costs and of the ratios within one round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final, TypeAlias

from benchmarks.load import Load
from benchmarks.scenarios import CONNECTIONS, GROWTH, LONG, LONGEST, ONE_SHOT, SCENARIOS, SHORT, STREAMS, Scenario
from benchmarks.servers import Recording

HOST: Final = "host"
STARLETTE: Final = "starlette"
AGENT: Final = "agent"
SERVERS: Final = (HOST, STARLETTE, AGENT)

OVERHEAD_AIM: Final = 1.5
THROUGHPUT_AIM: Final = 0.5
BYTES_AIM: Final = 300
GROWTH_AIM: Final = 1.1

Figure: TypeAlias = float | int | str | bool
Row: TypeAlias = dict[str, Figure]
Measurements: TypeAlias = Mapping[tuple[str, Scenario], Sequence[Load]]
"""Server and scenario → what was measured, one entry a round."""


def figures(measured: Measurements, recordings: Mapping[str, Recording]) -> dict[str, list[Row]]:
    """Return the tables of the report, by name."""
    ratios = [_ratios(measured, scenario) for scenario in SCENARIOS]
    further = [_further(measured, SHORT, LONG, connections) for connections in CONNECTIONS]
    late = _further(measured, LONG, LONGEST, GROWTH.connections)
    sizes = [_sizes(deltas, recordings[Scenario(deltas, 1).kind]) for deltas in (SHORT, LONG, LONGEST)]
    growth = _growth(measured)
    return {
        "aims": _aims(ratios, further, sizes, growth),
        "ratios": ratios,
        "further_deltas": [*further, late],
        "sizes": sizes,
        "absolute": [_absolute(measured, server, scenario, recordings) for scenario in SCENARIOS for server in SERVERS],
    }


def _aims(ratios: Sequence[Row], further: Sequence[Row], sizes: Sequence[Row], growth: float) -> list[Row]:
    one_shot = [row for row in ratios if row["answer"] == ONE_SHOT[0].kind]
    streams = [row for row in ratios if row["answer"] in {scenario.kind for scenario in STREAMS}]
    return [
        _aim("host overhead of a further delta / Starlette's whole cost of one, worst", _worst(further), OVERHEAD_AIM),
        _aim("host overhead of a whole stream / Starlette's whole cost of one, worst", _worst(streams), OVERHEAD_AIM),
        _aim(
            "one-shot requests/s, host / Starlette, worst",
            min(float(row["throughput"]) for row in one_shot),
            THROUGHPUT_AIM,
            is_floor=True,
        ),
        _aim("bytes of a text delta, largest", max(int(row["largest"]) for row in sizes), BYTES_AIM),
        _aim(
            f"bytes of a text delta, mean of {LONGEST} / mean of {SHORT}",
            float(sizes[-1]["mean"]) / float(sizes[0]["mean"]),
            GROWTH_AIM,
        ),
        _aim(f"CPU of the deltas {LONG}-{LONGEST} / of the deltas {SHORT}-{LONG}, host", growth, GROWTH_AIM),
    ]


def _aim(name: str, value: float, aim: float, *, is_floor: bool = False) -> Row:
    holds = value >= aim if is_floor else value <= aim
    return {"what": name, "aim": f"{'≥' if is_floor else '≤'} {aim:g}", "measured": value, "holds": holds}


def _worst(rows: Sequence[Row]) -> float:
    return max(float(row["overhead"]) for row in rows)


def _ratios(measured: Measurements, scenario: Scenario) -> Row:
    def throughput(load: Load) -> float:
        return load.answers / load.seconds

    host, starlette, agent = (_rounds(measured, server, scenario, _cpu_per_answer) for server in SERVERS)
    rates, bare_rates = (_rounds(measured, server, scenario, throughput) for server in (HOST, STARLETTE))
    return {
        "answer": scenario.kind,
        "connections": scenario.connections,
        "throughput": median(a / b for a, b in zip(rates, bare_rates, strict=True)),
        "cpu": median(a / b for a, b in zip(host, starlette, strict=True)),
        "overhead": median((a - c) / b for a, b, c in zip(host, starlette, agent, strict=True)),
    }


def _further(measured: Measurements, short: int, long: int, connections: int) -> Row:
    """Return the cost of one delta more in microseconds, without what a stream costs before its first delta."""
    host, starlette, agent = (_slopes(measured, server, short, long, connections) for server in SERVERS)
    return {
        "deltas": f"{short}-{long}",
        "connections": connections,
        "overhead": median((a - c) / b for a, b, c in zip(host, starlette, agent, strict=True)),
        "host_us": median(host),
        "agent_us": median(agent),
        "starlette_us": median(starlette),
    }


def _slopes(measured: Measurements, server: str, short: int, long: int, connections: int) -> list[float]:
    less = _rounds(measured, server, Scenario(short, connections), _cpu_per_answer)
    more = _rounds(measured, server, Scenario(long, connections), _cpu_per_answer)
    return [(b - a) / (long - short) for a, b in zip(less, more, strict=True)]


def _growth(measured: Measurements) -> float:
    late = _slopes(measured, HOST, LONG, LONGEST, GROWTH.connections)
    early = _slopes(measured, HOST, SHORT, LONG, GROWTH.connections)
    return median(a / b for a, b in zip(late, early, strict=True))


def _sizes(deltas: int, recording: Recording) -> Row:
    sizes = [len(frame) for frame in recording.frames if frame.startswith(b"event: response.output_text.delta\n")]
    return {
        "deltas": deltas,
        "text_deltas": len(sizes),
        "mean": sum(sizes) / len(sizes),
        "largest": max(sizes),
        "stream": len(recording.body),
    }


def _absolute(measured: Measurements, server: str, scenario: Scenario, recordings: Mapping[str, Recording]) -> Row:
    loads = measured[server, scenario]
    cpu = median(map(_cpu_per_answer, loads))
    row: Row = {
        "server": server,
        "answer": scenario.kind,
        "connections": scenario.connections,
        "answers_per_s": median(load.answers / load.seconds for load in loads),
        "cpu_us_per_answer": cpu,
    }
    if scenario.stream:
        events = scenario.deltas if server == AGENT else len(recordings[scenario.kind].frames)
        row["events_per_s"] = median(load.events / load.seconds for load in loads)
        row["cpu_us_per_event"] = cpu / events
        if server != AGENT:
            row["events_per_write"] = median(load.events / load.writes for load in loads)
    return row


def _rounds(measured: Measurements, server: str, scenario: Scenario, figure: Callable[[Load], float]) -> list[float]:
    return [figure(load) for load in measured[server, scenario]]


def _cpu_per_answer(load: Load) -> float:
    return load.cpu_seconds / load.answers * 1e6
