"""From measurements of background runs to figures: medians over the rounds, and whether the aims were held."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, TypeVar

from benchmarks.figures import Row
from benchmarks.run_tail import Said
from benchmarks.run_work import RunCost, RunsDone
from benchmarks.stored_figures import judged
from benchmarks.stored_hosts import MEMORY, POSTGRESQL, SQLITE, StoreName

TAIL_AIM: Final = 20.0
TAKE_OVER_AIM: Final = 15.0
CANCEL_AIM: Final = 1.0

ONE_WORKER: Final = "postgresql, 1 worker"
TWO_WORKERS: Final = "postgresql, 2 workers"

SETUPS: Final = (MEMORY, SQLITE, POSTGRESQL, ONE_WORKER, TWO_WORKERS)
"""Who executes runs: the process that serves, or others on its database."""

ELSEWHERE: Final = "postgresql, another process"
READERS: Final = (MEMORY, SQLITE, POSTGRESQL, ELSEWHERE)
"""Who reads: the process that writes, unless it is said otherwise."""

FAST: Final = 0.01
SLOW: Final = 0.05
PACES: Final = (FAST, SLOW)
"""Seconds between two deltas, on average."""

MeasurementT = TypeVar("MeasurementT")


@dataclass(slots=True)
class Measured:
    """All measurements; lists have an entry for each round, but those of `taken_over` and `cancelled` for each run.

    `beside` is what memory did in the same rounds.
    """

    deltas: int
    done: dict[str, list[RunsDone]] = field(default_factory=dict)
    beside: dict[str, list[RunsDone]] = field(default_factory=dict)
    accepted: dict[StoreName, list[Sequence[float]]] = field(default_factory=dict)
    cost: dict[StoreName, list[RunCost]] = field(default_factory=dict)
    tail: dict[tuple[str, float], list[Sequence[float]]] = field(default_factory=dict)
    taken_over: list[float] = field(default_factory=list)
    cancelled: list[float] = field(default_factory=list)

    def note(self, done: Mapping[str, RunsDone]) -> None:
        """Add a round of some setups, one of which is memory: what the others are compared to."""
        for setup, runs in done.items():
            self.done.setdefault(setup, []).append(runs)
            self.beside.setdefault(setup, []).append(done[MEMORY])


def figures(measured: Measured) -> dict[str, list[Row]]:
    """Return the tables of the report, by name."""
    tail = [_tail(measured, reader, pace) for pace in PACES for reader in READERS]
    faults = [_fault("takeover after SIGKILL", measured.taken_over), _fault("cancel elsewhere", measured.cancelled)]
    return {
        "aims": _aims(tail, *faults),
        "throughput": [_throughput(measured, setup) for setup in SETUPS],
        "accept": [_accept(measured, store) for store in measured.accepted],
        "cost": [_cost(measured, store) for store in measured.cost],
        "tail": tail,
        "faults": faults,
    }


def spread(measured: Measured) -> float:
    """Return by how much the rounds of one measurement differ: (largest - smallest) / median of runs/s, in memory."""
    rates = [_rate(done) for done in measured.done[MEMORY]]
    return (max(rates) - min(rates)) / median(rates)


def _aims(tail: Sequence[Row], take_over: Row, cancel: Row) -> list[Row]:
    worst = max(float(row["p50_ms"]) for row in tail if row["read_by"] == ELSEWHERE)
    return [
        judged("ms from append until another process has it, PostgreSQL, p50, worst pace", worst, TAIL_AIM),
        judged(
            "seconds until a killed process's run is terminal, longest", float(take_over["longest_s"]), TAKE_OVER_AIM
        ),
        judged("seconds until a run elsewhere knows it is cancelled, p95", float(cancel["p95_s"]), CANCEL_AIM),
    ]


def _rate(done: RunsDone) -> float:
    return done.runs / done.seconds


def _ratio(
    rounds: Sequence[MeasurementT], memory: Sequence[MeasurementT], figure: Callable[[MeasurementT], float]
) -> float:
    return median(figure(own) / figure(base) for own, base in zip(rounds, memory, strict=True))


def _throughput(measured: Measured, setup: str) -> Row:
    rounds = measured.done[setup]
    return {
        "executed_by": setup,
        "runs_per_s": median(map(_rate, rounds)),
        "ratio": _ratio(rounds, measured.beside[setup], _rate),
    }


def _accept(measured: Measured, store: StoreName) -> Row:
    rounds = measured.accepted[store]
    return {
        "store": store,
        "p50_ms": median(map(median, rounds)) * 1e3,
        "p95_ms": _percentile([seconds for taken in rounds for seconds in taken], 0.95) * 1e3,
        "ratio": _ratio(rounds, measured.accepted[MEMORY], median),
    }


def _cost(measured: Measured, store: StoreName) -> Row:
    rounds = measured.cost[store]

    def cpu(cost: RunCost) -> float:
        return cost.cpu_seconds

    row: Row = {
        "store": store,
        "deltas": measured.deltas,
        "statements": median(cost.statements for cost in rounds),
        "cpu_ms": median(map(cpu, rounds)) * 1e3,
        "cpu_ratio": _ratio(rounds, measured.cost[MEMORY], cpu),
    }
    if store == POSTGRESQL:
        row["database_cpu_ms"] = median(cost.database_cpu_seconds for cost in rounds) * 1e3
    return row


def _tail(measured: Measured, reader: str, pace: float) -> Row:
    rounds = measured.tail[reader, pace]
    return {
        "pace_ms": round(pace * 1e3),
        "read_by": reader,
        "p50_ms": median(map(median, rounds)) * 1e3,
        "p95_ms": median(_percentile(seconds, 0.95) for seconds in rounds) * 1e3,
    }


def _fault(what: str, seconds: Sequence[float]) -> Row:
    return {
        "what": what,
        "times": len(seconds),
        "p50_s": median(seconds),
        "p95_s": _percentile(seconds, 0.95),
        "longest_s": max(seconds),
    }


def _percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[int(len(values) * part)]


def said(name: str, pace: float, deltas: int) -> Said:
    """Return what is written to measure how long it is on its way: fewer deltas if they are far apart."""
    return Said(name, max(10, round(deltas * FAST / pace)), pace)
