"""Runs: one execution of a target each, its status, its log of encoded events, and the engine that executes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, NewType, Protocol, TypeAlias

from ..isolation import Partition

if TYPE_CHECKING:  # an optional dependency
    import sqlalchemy as sa

RunId = NewType("RunId", str)
"""Which run inside a partition. For the Responses channel this is the response id."""


class RunKey(NamedTuple):
    """Name a run: whose it is and which."""

    partition: Partition
    run_id: RunId


class Attempt(NamedTuple):
    """One try to execute a run. `number` (from 1) is the fence: a store refuses writes of any but the latest."""

    key: RunKey
    number: int


class RunStatus(StrEnum):
    """Where a run stands. Terminal states never change."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended."""
        return not TRANSITIONS[self]


TRANSITIONS: Final[dict[RunStatus, frozenset[RunStatus]]] = {
    RunStatus.QUEUED: frozenset(
        {RunStatus.IN_PROGRESS, RunStatus.COMPLETED, RunStatus.INCOMPLETE, RunStatus.FAILED, RunStatus.CANCELLED}
    ),
    RunStatus.IN_PROGRESS: frozenset(
        {RunStatus.COMPLETED, RunStatus.INCOMPLETE, RunStatus.FAILED, RunStatus.CANCELLED}
    ),
    RunStatus.COMPLETED: frozenset(),
    RunStatus.INCOMPLETE: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
}
"""Status → the statuses it may change to (contract §2.2)."""


class QueueDepth(NamedTuple):
    """How much there is to do: runs that wait, runs that run, and seconds for which the oldest has waited by now."""

    queued: int
    running: int
    oldest_wait_seconds: float


LogEntry: TypeAlias = tuple[str, bytes]
"""An encoded event: its kind and its payload, one line. Its position in the log is its sequence number."""


@dataclass(slots=True, kw_only=True)
class Participant:
    """A write that goes with the one that stores a new run, so that there is never one without the other.

    A store that keeps its rows in the database at `url` calls `write` in its own transaction. Whoever has a run stored
    calls `finish` afterwards: `alone` does what no store has done.
    """

    alone: Callable[[], Awaitable[None]]
    within: Callable[[sa.Connection], object] | None = None
    committed: Callable[[], None] | None = None
    url: sa.URL | None = None
    _is_written: bool = field(default=False, init=False)

    def write(self, connection: sa.Connection, url: sa.URL) -> None:
        """Write in a transaction on the database at `url`, if that is the one; it may be called again for a repeated one."""
        if self.within is not None and self.url == url:
            self.within(connection)
            self._is_written = True

    async def finish(self) -> None:
        """Do what is left when the run is stored.

        Raises:
            RunError: see `RunEngine.start`.
            StoreUnavailable: the log or the engine has a database, which cannot be reached.
        """
        if not self._is_written:
            await self.alone()
        elif self.committed is not None:
            self.committed()


class RunLog(Protocol):
    """The events of runs, in order, while anybody may still want to read them.

    Positions are dense from 0. The entry that closes a log is its last; a closed log never changes.
    """

    async def append(self, attempt: Attempt, entries: Sequence[LogEntry], *, closes: bool = False) -> None:
        """Append `entries` at the next positions; `closes` says that the last one is the run's terminal event.

        No entries at all are a fence: an earlier attempt cannot write any more when this returns.

        Raises:
            StaleWrite: the log is closed, or a later attempt has written to it.
            StoreUnavailable: the log cannot be reached.
        """
        ...

    def opening(self, key: RunKey, entries: Sequence[LogEntry]) -> Participant:
        """Return what opens the log of a new run with `entries`. They are no attempt's: the first one goes on from them."""
        ...

    def follow(
        self, key: RunKey, *, after: int = -1, idle: float | None = None
    ) -> AsyncGenerator[Sequence[LogEntry], None]:
        """Yield what comes after position `after`, in batches, until the log closes or is dropped.

        An empty batch says that nothing came for `idle` seconds. Close the generator when you leave (`aclosing`). Any
        number of readers may follow the same run.
        """
        ...

    async def entries(self, key: RunKey) -> Sequence[LogEntry]:
        """Return everything in the log so far, from position 0; nothing if there is no log."""
        ...

    async def exists(self, key: RunKey) -> bool:
        """Whether the run has a log that can still be read from its start."""
        ...

    async def drop(self, key: RunKey) -> None:
        """Forget the log; readers still following it end."""
        ...


RunHandler: TypeAlias = Callable[[RunKey], Awaitable[None]]
"""Executes a run. Called at least once; may be cancelled at any await."""


class RunEngine(Protocol):
    """Executes runs. Knows nothing of what they do; the truth about a run is in its channel's store.

    `is_shared` says that another process may execute a run that was started here. `is_draining` says that this process
    is to begin none: when the engine is shared, a run that is cancelled now and was not given up is executed by another.
    """

    is_shared: bool
    is_draining: bool

    def register(self, operation: str, handler: RunHandler) -> None:
        """Say who executes runs of `operation`; once each, before the engine recovers or starts anything.

        Raises:
            ConfigurationError: the operation has a handler already.
        """
        ...

    async def start(self, operation: str, key: RunKey) -> None:
        """Have the handler of `operation` called with `key`, at least once, as soon as possible.

        Does nothing for a run that waits or runs already.

        Raises:
            RunError: the engine is draining and takes no new runs.
            StoreUnavailable: the engine has a database, which cannot be reached.
        """
        ...

    def starting(self, operation: str, key: RunKey) -> Participant:
        """Return what starts a new run. See `start`."""
        ...

    async def cancel(self, key: RunKey, *, grace: float) -> bool:
        """Cancel the run and wait until its handler ended, at most `grace` seconds; `True` if it has ended.

        A run whose handler has not been called yet may never be: the caller sees to it that the run is ended.

        Raises:
            StoreUnavailable: the engine has a database, which cannot be reached.
        """
        ...

    async def missing(self, keys: Iterable[RunKey]) -> set[RunKey]:
        """Return those of the runs that no process executes or will execute, unless they are started again.

        Raises:
            StoreUnavailable: the engine has a database, which cannot be reached.
        """
        ...

    async def recover(self) -> None:
        """Take care of runs that a dead process left behind. Called once, when the host starts."""
        ...

    async def drain(self, grace: float) -> None:
        """Take no new runs, wait at most `grace` seconds for the running ones, then cancel what is left and wait.

        A shared engine has another process execute what it cancelled, unless the handler returns all the same. May be
        cancelled, and called again with less grace.
        """
        ...

    async def close(self) -> None:
        """Let go of what the engine has opened, after a drain; it may recover again."""
        ...
