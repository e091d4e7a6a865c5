"""What this process has accepted for a log and not written yet.

Rules. Entries are accepted in one step, without an await, and written in the order in which they were accepted, those of
one append always in one transaction. One transaction per log at a time. What cannot be written now stays accepted, and is
tried again until it is written, a later attempt is found to have written, or the log is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from ..errors import StaleWrite, StoreError, StoreUnavailable
from .base import LogEntry, RunKey
from .log_table import LogStatements, WriteBatch

logger = logging.getLogger(__name__)

DELAY: Final = (0.015, 0.025)
"""Seconds from the beginning of one transaction to that of the next, while there are only deltas: at least, and at most.

Half of it is what a delta waits. In between it is `REST` times what the transaction took: the busier the database, or this
process, the fewer there are.
"""

REST: Final = 4
"""A log's own transactions take one part in so many of the time, at most, unless the delay is at its longest."""

BATCH: Final = 32
"""Deltas that are written without waiting for more."""

BACKLOG: Final = 1_000
"""Entries that wait to be written; whoever appends more waits, too."""

RETRIES: Final = (0.25, 0.75)
"""Seconds until a transaction is tried again before appenders hear of it."""

RETRY: Final = 1.0
"""Seconds until a transaction is tried again after that, and again."""

# How the kinds end of entries that may wait for others, and nobody for them.
_DELTA: Final = "delta"


class Destination(Protocol):
    """Where a writer writes to: the log it is part of."""

    statements: LogStatements

    async def write(self, batch: WriteBatch) -> int:
        """Run the transaction; return the position of its first entry."""
        ...

    def written(self, batch: WriteBatch, base: int) -> None:
        """Take notice of a batch that can be read now, from position `base` on."""
        ...

    def rested(self, writer: LogWriter) -> None:
        """Take notice that the writer has nothing left to write."""
        ...


class _Pending:
    """A batch that is not written, and who waits for it."""

    __slots__ = ("batch", "is_sealed", "waiters")

    def __init__(self, batch: WriteBatch) -> None:
        self.batch = batch
        # No more entries: a transaction has begun to write it, and may have done so even if it failed.
        self.is_sealed = False
        self.waiters: list[asyncio.Future[None]] = []

    def tell(self, error: StoreError | None) -> None:
        for waiter in self.waiters:
            if waiter.done():  # cancelled
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(_again(error))
        self.waiters.clear()


class LogWriter:
    """The writer of one log in this process, whatever the attempt."""

    __slots__ = (
        "_attempt",
        "_backlog",
        "_destination",
        "_failure",
        "_is_closing",
        "_is_due",
        "_loop",
        "_next_at",
        "_pause",
        "_pending",
        "_position",
        "_position_attempt",
        "_refusal",
        "_refused_below",
        "_task",
        "_timer",
        "key",
    )

    def __init__(self, destination: Destination, key: RunKey) -> None:
        self.key = key
        self._destination = destination
        self._loop = asyncio.get_running_loop()
        self._attempt = 0
        self._pending: deque[_Pending] = deque()
        self._backlog = 0
        # Where our last transaction has left the log, and under which attempt.
        self._position = 0
        self._position_attempt = -1
        self._refusal: StoreError | None = None
        self._refused_below = 0
        self._failure: StoreUnavailable | None = None
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pause: asyncio.Future[None] | None = None
        self._next_at = 0.0
        self._is_due = False

    def check(self, attempt: int, entries: Sequence[LogEntry]) -> None:
        """Check that the attempt may append.

        Raises:
            StaleWrite: it may not: see `SqlRunLog.append`.
        """
        if attempt < self._attempt:
            raise StaleWrite("A later attempt writes to the log of this run.")
        if self._refusal is not None and attempt < self._refused_below:
            raise _again(self._refusal)
        # Without entries it may be closed again, by whoever wants to know that it is written.
        if self._is_closing and (entries or not self._pending):
            raise StaleWrite("The log of this run is closed.")

    async def append(self, attempt: int, entries: Sequence[LogEntry], *, closes: bool) -> None:
        """Accept the entries, which were checked; wait until they are written unless they are deltas."""
        self._attempt = attempt
        pending = self._accept(attempt, entries, closes=closes)
        if closes or self._backlog > BACKLOG or not _are_deltas(entries):
            await self._until_written(pending)
        elif self._failure is not None:
            raise _again(self._failure)
        elif self._task is None:
            self._schedule()

    async def settle(self) -> bool:
        """Write now what is accepted; return whether all of it is written."""
        while self._pending:
            try:
                await self._until_written(self._pending[-1])
            except StaleWrite:
                continue
            except StoreError:
                return False
        return True

    async def discard(self) -> None:
        """Forget what is accepted, and accept no more of these attempts; no transaction goes on when this returns."""
        self._refuse(StaleWrite("The log of this run was dropped."), below=self._attempt + 1)
        # A later attempt may begin another log.
        self._position, self._position_attempt = 0, -1
        self._cancel_timer()
        task = self._task
        if task is not None:
            # The database does not begin what was cancelled, and waits for the end of what goes on.
            task.cancel()
            await asyncio.wait({task})

    @property
    def backlog(self) -> int:
        """How many entries are accepted and not written."""
        return self._backlog

    def _accept(self, attempt: int, entries: Sequence[LogEntry], *, closes: bool) -> _Pending:
        pending = self._pending[-1] if self._pending else None
        if pending is not None and self._is_closing:
            return pending
        if pending is None or pending.is_sealed or pending.batch.attempt != attempt:
            batch = WriteBatch(
                statements=self._destination.statements, key=self.key, attempt=attempt, entries=list(entries)
            )
            pending = _Pending(batch)
            self._pending.append(pending)
        else:
            pending.batch.entries.extend(entries)
        self._backlog += len(entries)
        if closes:
            pending.batch.closes = self._is_closing = True
        return pending

    async def _until_written(self, pending: _Pending) -> None:
        waiter = self._loop.create_future()
        pending.waiters.append(waiter)
        self._is_due = True
        if self._task is None:
            self._start()
        elif self._pause is not None and self._failure is not None:
            _end_pause(self._pause)
        await waiter

    def _schedule(self) -> None:
        """Have deltas written with those that come soon, but the first ones after a silence at once."""
        if len(self._pending[-1].batch.entries) >= BATCH or self._loop.time() >= self._next_at:
            self._start()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._next_at, self._start)

    def _start(self) -> None:
        self._cancel_timer()
        if self._task is None and self._pending:
            self._is_due = True
            self._task = self._loop.create_task(self._write(), name=f"write log of {self.key.run_id}")

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _write(self) -> None:
        """Write batch after batch until nothing is due."""
        failures = 0
        try:
            while self._pending and (self._is_due or len(self._pending[0].batch.entries) >= BATCH):
                failure = await self._write_first()
                if failure is None:
                    failures = 0
                    continue
                self._is_due = True
                failures += 1
                if failures > len(RETRIES):
                    self._report(failure)
                    await self._pause_for(RETRY)
                else:
                    await self._pause_for(RETRIES[failures - 1])
        finally:
            self._task = None
        if self._pending:
            self._schedule()
        else:
            self._destination.rested(self)

    async def _write_first(self) -> StoreUnavailable | None:
        """Write the first batch, or find out that it must not be; return what made both impossible."""
        pending = self._pending[0]
        batch = pending.batch
        pending.is_sealed = True
        batch.least = self._position
        batch.expected = self._position if self._position_attempt == batch.attempt else None
        began = self._loop.time()
        self._is_due = len(self._pending) > 1
        try:
            base = await self._destination.write(batch)
        except StoreUnavailable as error:
            return error
        except StaleWrite as error:
            self._refuse(error, below=batch.attempt + 1)
        except Exception as error:  # the boundary of the task: whoever appends gets it
            logger.exception("Events cannot be stored", extra={"run_id": self.key.run_id})
            refusal = StoreError("The events of this run cannot be stored.")
            refusal.__cause__ = error
            self._refuse(refusal, below=batch.attempt + 1)
        else:
            self._take_notice(pending, base)
        finally:
            least, most = DELAY
            self._next_at = began + min(most, max(least, REST * (self._loop.time() - began)))
        return None

    def _take_notice(self, pending: _Pending, base: int) -> None:
        batch = pending.batch
        self._failure = None
        self._position, self._position_attempt = base + len(batch.entries), batch.attempt
        # Nothing if the log was dropped meanwhile.
        if self._pending and self._pending[0] is pending:
            self._pending.popleft()
            self._backlog -= len(batch.entries)
            self._destination.written(batch, base)
            pending.tell(None)

    def _report(self, failure: StoreUnavailable) -> None:
        """Tell everybody who waits, and whoever appends from now on."""
        if self._failure is None:
            logger.warning("Events wait for the database", extra={"run_id": self.key.run_id})
        self._failure = failure
        for pending in self._pending:
            pending.tell(failure)

    def _refuse(self, refusal: StoreError, *, below: int) -> None:
        """Forget what attempts lower than `below` have appended, and accept no more of them."""
        self._refusal = refusal
        self._refused_below = max(below, self._refused_below)
        refused = [pending for pending in self._pending if pending.batch.attempt < below]
        # Attempts only rise, so these are the first ones.
        for pending in refused:
            self._pending.popleft()
            self._backlog -= len(pending.batch.entries)
            pending.tell(refusal)
        self._is_closing = any(pending.batch.closes for pending in self._pending)
        self._failure = None

    async def _pause_for(self, seconds: float) -> None:
        self._pause = self._loop.create_future()
        timer = self._loop.call_later(seconds, _end_pause, self._pause)
        try:
            await self._pause
        finally:
            timer.cancel()
            self._pause = None


def _end_pause(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)


def _are_deltas(entries: Sequence[LogEntry]) -> bool:
    # Nothing at all is a writer's way of asking whether it may still write.
    return bool(entries) and all(kind.endswith(_DELTA) for kind, _ in entries)


def _again(error: StoreError) -> StoreError:
    """Return the same error once more: a raised exception belongs to whoever it is raised in."""
    again = type(error)(*error.args)
    again.__cause__ = error.__cause__
    return again
