"""From measurements of stored turns to figures: medians over the rounds, and whether the aims were held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from benchmarks.endurance import UNSTORED, Filled, Pruned, Unstored
from benchmarks.figures import Row
from benchmarks.stored_hosts import AGENTS, CONSTANT, MEMORY, REMEMBERING, SQLITE, STORES, AgentName, StoreName
from benchmarks.stored_turns import CALLERS, CHAINS, WORKS, ChainKind, Work, WorkDone

THROUGHPUT_AIM: Final = 0.5
BYTES_AIM: Final = 1.1
LATENCY_AIM: Final = 1.2
MEMORY_AIM: Final = 64.0
DISK_AIM: Final = 0.2

_MB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Marks:
    """What a database holds after some turns: bytes in rows, and of SQLite's file."""

    rows: int
    file: int | None


@dataclass(frozen=True, slots=True)
class Growth:
    """One chain: seconds of each turn, and what was stored at turn 0, after the first window, before the last, at the end."""

    seconds: Sequence[float]
    marks: Sequence[Marks] = ()


@dataclass(slots=True)
class Measured:
    """All measurements; lists have an entry for each round. `window` turns are the first and the last of a chain."""

    window: int
    work: dict[tuple[StoreName, Work], list[WorkDone]] = field(default_factory=dict)
    database_cpu: dict[Work, list[float]] = field(default_factory=dict)
    chains: dict[tuple[AgentName, ChainKind, StoreName], list[Growth]] = field(default_factory=dict)
    unstored: dict[tuple[AgentName, ChainKind], list[Growth]] = field(default_factory=dict)
    bare: dict[ChainKind, list[Growth]] = field(default_factory=dict)
    filled: dict[StoreName | Unstored, Filled] = field(default_factory=dict)
    fill_window: int = 500
    pruned: dict[StoreName, Pruned] = field(default_factory=dict)


def figures(measured: Measured) -> dict[str, list[Row]]:
    """Return the tables of the report, by name."""
    throughput = [_throughput(measured, work, store) for work in WORKS for store in STORES]
    chains = [(agent, kind, store) for agent in AGENTS for kind in CHAINS for store in STORES]
    sizes = [_sizes(measured, *chain) for chain in chains if chain[2] != MEMORY]
    latency = [_latency(measured, *chain) for chain in chains]
    many = [_many(measured, store) for store in (*STORES, UNSTORED)]
    retention = [_retention(store, pruned) for store, pruned in measured.pruned.items()]
    return {
        "aims": [*_aims_of_turns(throughput, sizes, latency), *_aims_of_many(measured, many)],
        "throughput": throughput,
        "bytes": sizes,
        "latency": latency,
        "many": many,
        "retention": retention,
    }


def spread(measured: Measured) -> float:
    """Return by how much the rounds of one measurement differ: (largest - smallest) / median of turns/s, in memory."""
    rates = [done.turns / done.seconds for done in measured.work[MEMORY, Work("one-shot", CALLERS[-1])]]
    return (max(rates) - min(rates)) / median(rates)


def _aims_of_turns(throughput: Sequence[Row], sizes: Sequence[Row], latency: Sequence[Row]) -> list[Row]:
    def worst(rows: Iterable[Row], column: str) -> float:
        return max(float(row[column]) for row in rows)

    one_shots = [row for row in throughput if row["store"] == SQLITE and row["turn"] == "one-shot"]
    aims = [
        judged(
            "one-shot turns/s, SQLite / memory, worst",
            min(float(row["ratio"]) for row in one_shots),
            THROUGHPUT_AIM,
            is_floor=True,
        ),
        judged(
            "bytes stored per turn, last / first turns of a chain or conversation, furthest from 1",
            max(max(float(row["ratio"]), 1 / float(row["ratio"])) for row in sizes),
            BYTES_AIM,
        ),
    ]
    for kind in CHAINS:
        rows = [row for row in latency if row["kind"] == kind]
        constant = [row for row in rows if row["agent"] == CONSTANT]
        remembering = [row for row in rows if row["agent"] == REMEMBERING]
        aims += [
            judged(
                f"latency, last / first turns of a {kind}, constant agent, by that of unstored ones, worst",
                worst(constant, "to_unstored"),
                LATENCY_AIM,
            ),
            judged(
                f"the host's part of it, last / first turns of a {kind}, the framework's agent, worst",
                worst(remembering, "host_ratio"),
                LATENCY_AIM,
            ),
        ]
    return aims


def _aims_of_many(measured: Measured, many: Sequence[Row]) -> list[Row]:
    count = len(measured.filled[SQLITE].seconds)
    file = measured.pruned[SQLITE].file
    assert file is not None
    stored = [row for row in many if row["store"] != UNSTORED]
    return [
        judged(
            f"latency, last / first {measured.fill_window} of {count} responses, by that of unstored ones, worst",
            max(float(row["to_unstored"]) for row in stored),
            LATENCY_AIM,
        ),
        judged(
            f"MB of memory that the second half of {count} responses added, worst",
            max(float(row["rss_end_mb"]) - float(row["rss_half_mb"]) for row in stored),
            MEMORY_AIM,
        ),
        judged("SQLite's file after retention left a tenth / before", file[1] / file[0], DISK_AIM),
    ]


def judged(name: str, value: float, aim: float, *, is_floor: bool = False) -> Row:
    """Return a row that says whether an aim was held."""
    holds = value >= aim if is_floor else value <= aim
    sign = "≥" if is_floor else "≤"
    return {"what": name, "aim": f"{sign} {aim:g}", "measured": value, "verdict": "held" if holds else "missed"}


def _throughput(measured: Measured, work: Work, store: StoreName) -> Row:
    def rate(done: WorkDone) -> float:
        return done.turns / done.seconds

    def cpu(done: WorkDone) -> float:
        return done.cpu_seconds / done.turns * 1e6

    def ratio(figure: Callable[[WorkDone], float]) -> float:
        pairs = zip(measured.work[store, work], measured.work[MEMORY, work], strict=True)
        return median(figure(own) / figure(memory) for own, memory in pairs)

    rounds = measured.work[store, work]
    row: Row = {
        "turn": work.kind,
        "callers": work.callers,
        "store": store,
        "turns_per_s": median(map(rate, rounds)),
        "ratio": ratio(rate),
        "cpu_us": median(map(cpu, rounds)),
        "cpu_ratio": ratio(cpu),
    }
    if store not in {MEMORY, SQLITE}:
        row["database_cpu_us"] = median(
            seconds / done.turns * 1e6 for seconds, done in zip(measured.database_cpu[work], rounds, strict=True)
        )
    return row


def _sizes(measured: Measured, agent: AgentName, kind: ChainKind, store: StoreName) -> Row:
    # The same in every round: what is said is.
    begin, early, late, end = measured.chains[agent, kind, store][0].marks
    first, last = (early.rows - begin.rows) / measured.window, (end.rows - late.rows) / measured.window
    row: Row = {"agent": agent, "kind": kind, "store": store, "first": first, "last": last, "ratio": last / first}
    if begin.file is not None and early.file is not None and late.file is not None and end.file is not None:
        row["file_first"] = (early.file - begin.file) / measured.window
        row["file_last"] = (end.file - late.file) / measured.window
    return row


def _latency(measured: Measured, agent: AgentName, kind: ChainKind, store: StoreName) -> Row:
    window = measured.window
    first, last = _ends(measured.chains[agent, kind, store], window)
    unstored = _ends(measured.unstored[agent, kind], window)
    ratios = [b / a for a, b in zip(first, last, strict=True)]
    row: Row = {
        "agent": agent,
        "kind": kind,
        "store": store,
        "first_ms": median(first),
        "last_ms": median(last),
        "ratio": median(ratios),
        "to_unstored": median(ratio / (b / a) for ratio, a, b in zip(ratios, *unstored, strict=True)),
    }
    if agent == REMEMBERING:
        bare_first, bare_last = _ends(measured.bare[kind], window)
        before = [a - b for a, b in zip(first, bare_first, strict=True)]
        after = [a - b for a, b in zip(last, bare_last, strict=True)]
        row |= {
            "bare_first_ms": median(bare_first),
            "bare_last_ms": median(bare_last),
            "host_first_ms": median(before),
            "host_last_ms": median(after),
            "host_ratio": median(b / a for a, b in zip(before, after, strict=True)),
        }
    return row


def _ends(rounds: Sequence[Growth], window: int) -> tuple[list[float], list[float]]:
    """Return the median milliseconds of the first and of the last turns, for each round."""
    return (
        [median(growth.seconds[:window]) * 1e3 for growth in rounds],
        [median(growth.seconds[-window:]) * 1e3 for growth in rounds],
    )


def _many(measured: Measured, store: StoreName | Unstored) -> Row:
    def ends(taken: Sequence[float]) -> tuple[float, float]:
        window = measured.fill_window
        return median(taken[:window]) * 1e3, median(taken[-window:]) * 1e3

    filled = measured.filled[store]
    first, last = ends(filled.seconds)
    unstored_first, unstored_last = ends(measured.filled[UNSTORED].seconds)
    row: Row = {
        "store": store,
        "responses": len(filled.seconds),
        "first_ms": first,
        "last_ms": last,
        "ratio": last / first,
        "to_unstored": (last / first) / (unstored_last / unstored_first),
        "slowest_ms": max(filled.seconds) * 1e3,
    }
    if filled.resident is not None:
        start, half, end = (size / _MB for size in filled.resident)
        row |= {"rss_start_mb": start, "rss_half_mb": half, "rss_end_mb": end}
    return row


def _retention(store: StoreName, pruned: Pruned) -> Row:
    ordered = sorted(pruned.meanwhile)
    row: Row = {
        "store": store,
        "responses_before": pruned.responses[0],
        "responses_after": pruned.responses[1],
        "rows_before_mb": pruned.rows[0] / _MB,
        "rows_after_mb": pruned.rows[1] / _MB,
    }
    if pruned.file is not None:
        row |= {"file_before_mb": pruned.file[0] / _MB, "file_after_mb": pruned.file[1] / _MB}
    return row | {
        "seconds": pruned.took,
        "turns_meanwhile": len(ordered),
        "turn_ms": median(ordered) * 1e3,
        "slowest_percent_ms": ordered[int(len(ordered) * 0.99)] * 1e3,
    }
