"""Runs in one process: a log in memory and asyncio tasks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from functools import partial

from .. import telemetry
from ..errors import ConfigurationError, RunError, StaleWrite
from ..stores.memory import BoundedDict
from .base import Attempt, LogEntry, Participant, QueueDepth, RunHandler, RunKey

logger = logging.getLogger(__name__)


class _Log:
    """The entries of one run, and its readers."""

    __slots__ = ("attempt", "closed", "entries", "readers")

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.closed = False
        self.attempt = 0
        self.readers: list[_Reader] = []

    def wake(self) -> None:
        for reader in self.readers:
            waiter = reader.waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(True)


class MemoryRunLog:
    """Logs of one process. Open logs are kept; closed ones at most `max_closed`, for at most `max_age` seconds.

    The service keeps a stream resumable for about five minutes after its end (contract §5, point 6).
    """

    def __init__(
        self, *, max_closed: int = 1_000, max_age: float = 600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open: dict[RunKey, _Log] = {}
        self._closed: BoundedDict[RunKey, _Log] = BoundedDict(max_entries=max_closed, max_age=max_age, clock=clock)

    async def append(self, attempt: Attempt, entries: Sequence[LogEntry], *, closes: bool = False) -> None:
        """Append `entries` at the next positions. See `RunLog.append`."""
        key = attempt.key
        log = self._open.get(key)
        if log is None:
            if self._closed.get(key) is not None:
                raise StaleWrite("The log of this run is closed.")
            log = self._open[key] = _Log()
        if attempt.number < log.attempt:
            raise StaleWrite("A later attempt writes to the log of this run.")
        log.attempt = attempt.number
        # Plain tuples of strings and bytes are none of the garbage collector's business; subclasses of tuple are.
        for kind, data in entries:
            log.entries.append((kind, data))
        if closes:
            log.closed = True
            del self._open[key]
            self._closed.set(key, log)
        log.wake()

    def opening(self, key: RunKey, entries: Sequence[LogEntry]) -> Participant:
        """Return what opens the log of a new run. See `RunLog.opening`."""
        return Participant(alone=partial(self.append, Attempt(key, 0), entries))

    async def follow(
        self, key: RunKey, *, after: int = -1, idle: float | None = None
    ) -> AsyncGenerator[Sequence[LogEntry], None]:
        """Yield what comes after position `after`, in batches. See `RunLog.follow`."""
        log = self._find(key)
        if log is None:
            return
        position = max(after, -1) + 1
        reader = _Reader(log, idle)
        try:
            while True:
                if len(log.entries) > position:
                    batch = log.entries[position:]
                    position += len(batch)
                    yield batch
                elif log.closed or self._find(key) is not log:
                    return
                elif not await reader.more():
                    yield ()
        finally:
            reader.close()

    async def entries(self, key: RunKey) -> Sequence[LogEntry]:
        """Return everything in the log so far. See `RunLog.entries`."""
        log = self._find(key)
        return () if log is None else tuple(log.entries)

    async def exists(self, key: RunKey) -> bool:
        """Whether the run has a log that can still be read from its start."""
        return self._find(key) is not None

    async def drop(self, key: RunKey) -> None:
        """Forget the log; readers still following it end."""
        log = self._open.pop(key, None)
        self._closed.pop(key)
        if log is not None:
            log.wake()

    def _find(self, key: RunKey) -> _Log | None:
        return self._open.get(key) or self._closed.get(key)


class _Reader:
    """Waits for a log to grow. One slow timer serves all waits: a stream of deltas must not pay for one each."""

    __slots__ = ("_log", "_loop", "_seen", "_silent_ticks", "_tick_seconds", "_timer", "waiter")

    # A silence is noticed this many ticks after the last entry, so at most one tick late.
    _TICKS = 4

    def __init__(self, log: _Log, idle: float | None) -> None:
        self.waiter: asyncio.Future[bool] | None = None
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._seen = 0
        self._silent_ticks = 0
        self._tick_seconds = 0.0 if idle is None else idle / self._TICKS
        self._timer = None if idle is None else self._loop.call_later(self._tick_seconds, self._tick)
        log.readers.append(self)

    def more(self) -> asyncio.Future[bool]:
        """Return what becomes `True` with the next append, and `False` when the log has been silent for too long."""
        self.waiter = self._loop.create_future()
        return self.waiter

    def close(self) -> None:
        """Leave the log."""
        self._log.readers.remove(self)
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        length = len(self._log.entries)
        self._silent_ticks = self._silent_ticks + 1 if length == self._seen else 0
        self._seen = length
        if self._silent_ticks >= self._TICKS and self.waiter is not None and not self.waiter.done():
            self._silent_ticks = 0
            self.waiter.set_result(False)
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)


class MemoryRunEngine:
    """Executes runs as tasks of this process; what dies with the process leaves nothing behind to recover."""

    is_shared = False
    kind = "process"

    def __init__(self) -> None:
        self._handlers: dict[str, RunHandler] = {}
        self._tasks: dict[RunKey, asyncio.Task[None]] = {}
        self.is_draining = False
        telemetry.observe(self)

    def seen_depth(self) -> QueueDepth:
        """Return how many runs there are; none waits. See `telemetry.Observed`."""
        return QueueDepth(0, len(self._tasks), 0.0)

    def register(self, operation: str, handler: RunHandler) -> None:
        """Say who executes runs of `operation`. See `RunEngine.register`."""
        if operation in self._handlers:
            raise ConfigurationError(f"Runs of {operation!r} have a handler already: give each channel its own name.")
        self._handlers[operation] = handler

    async def start(self, operation: str, key: RunKey) -> None:
        """Have the handler called in a task of its own."""
        if self.is_draining:
            raise RunError("The host is shutting down and takes no new runs.")
        if key in self._tasks:
            return
        task = asyncio.create_task(self._execute(operation, key), name=f"run {key.run_id}")
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def starting(self, operation: str, key: RunKey) -> Participant:
        """Return what starts a new run. See `RunEngine.starting`."""
        return Participant(alone=partial(self.start, operation, key))

    async def cancel(self, key: RunKey, *, grace: float) -> bool:
        """Cancel the run and wait until its handler ended, at most `grace` seconds."""
        task = self._tasks.get(key)
        if task is None:
            return True
        await _let_start()
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=grace)
        return bool(done)

    async def missing(self, keys: Iterable[RunKey]) -> set[RunKey]:
        """Return those of the runs that are not executed here. See `RunEngine.missing`."""
        return set(keys) - self._tasks.keys()

    async def recover(self) -> None:
        """Take new runs again after a drain; there is nothing else to recover, runs in memory die with their process."""
        self.is_draining = False

    async def drain(self, grace: float) -> None:
        """Take no new runs, wait for the running ones, then cancel what is left and wait for it to end."""
        self.is_draining = True
        if self._tasks and grace > 0:
            await asyncio.wait(set(self._tasks.values()), timeout=grace)
        await _let_start()
        left = set(self._tasks.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def close(self) -> None:
        """Do nothing: tasks are all there is."""

    async def _execute(self, operation: str, key: RunKey) -> None:
        began = time.perf_counter()
        telemetry.waited(self, operation, 0.0)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # asked for; the handler has recorded it
                await self._handlers[operation](key)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # The run boundary: handlers record failures themselves, so what arrives here is a broken store, our bug, or
            # an agent's idea of an exit, which must not be that of the host.
            logger.exception("A run handler failed", extra={"run_id": key.run_id})
        finally:
            telemetry.lasted(self, operation, time.perf_counter() - began)


async def _let_start() -> None:
    """Let every task that was created before get to its first line.

    Cancelled sooner it would never call its handler, and nobody would end the run.
    """
    await asyncio.sleep(0)
