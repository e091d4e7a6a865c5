"""Metrics of runs for OpenTelemetry: how many wait and run, for how long, and how long they take.

They cost nothing until the process has a meter provider. Nobody asks a database when metrics are collected, which happens
in a thread of the SDK: engines look from time to time, and only once somebody has collected.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final, Protocol
from weakref import WeakSet

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from .runs.base import QueueDepth

ENGINE: Final = "afhost.engine"
"""Attribute: `process` for runs of this process alone, `shared` for those of all processes on a database."""

OPERATION: Final = "afhost.operation"
"""Attribute: whose runs these are; the name of a channel."""


class Observed(Protocol):
    """An engine as metrics see it."""

    kind: str

    def seen_depth(self) -> QueueDepth | None:
        """Return what there was to do when the engine last looked; called in any thread, and waits for nothing."""
        ...


_engines: Final[WeakSet[Observed]] = WeakSet()
_lock: Final = threading.Lock()


def observe(engine: Observed) -> None:
    """Have the engine measured as long as it is there."""
    with _lock:
        _engines.add(engine)


def waited(engine: Observed, operation: str, seconds: float) -> None:
    """Say for how long a run has waited for its handler."""
    _waits.record(max(0.0, seconds), {ENGINE: engine.kind, OPERATION: operation})


def lasted(engine: Observed, operation: str, seconds: float) -> None:
    """Say for how long a handler has run."""
    _durations.record(seconds, {ENGINE: engine.kind, OPERATION: operation})


def _gauge(read: Callable[[QueueDepth], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observations(_options: CallbackOptions) -> Iterable[Observation]:
        with _lock:
            engines = tuple(_engines)
        depths = ((engine.kind, engine.seen_depth()) for engine in engines)
        return [Observation(read(depth), {ENGINE: kind}) for kind, depth in depths if depth is not None]

    return observations


_meter: Final = metrics.get_meter("agent_framework_hosting")
_waits: Final = _meter.create_histogram(
    "afhost.run.wait", unit="s", description="From the moment at which a run is queued until it is first begun."
)
_durations: Final = _meter.create_histogram(
    "afhost.run.duration", unit="s", description="How long a process executes a run, from its begin to whatever end."
)
_meter.create_observable_gauge(
    "afhost.runs.queued", [_gauge(lambda depth: depth.queued)], unit="{run}", description="Runs that wait."
)
_meter.create_observable_gauge(
    "afhost.runs.running", [_gauge(lambda depth: depth.running)], unit="{run}", description="Runs that are executed."
)
_meter.create_observable_gauge(
    "afhost.runs.oldest_wait",
    [_gauge(lambda depth: depth.oldest_wait_seconds)],
    unit="s",
    description="For how long the oldest of the runs that wait has waited.",
)
