"""Logs of runs in the host's database: they outlive the process, and every process that shares the database reads them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from ..sql.database import Database
from ..stores.base import StoreStats
from ..stores.memory import BoundedDict
from . import log_table
from .base import Attempt, LogEntry, Participant, RunKey
from .log_feed import POLL, LogFeeds, name_of
from .log_table import LogState, LogStatements, WriteBatch
from .log_writer import LogWriter

if TYPE_CHECKING:  # at run time only with PostgreSQL
    from ..sql.notify import Notifier

logger = logging.getLogger(__name__)

MAX_AGE: Final = 600.0
"""Seconds after its end for which a log can be read: the service keeps streams for about five minutes (contract §5)."""

CHANNEL: Final = "afhost_run_logs"
"""PostgreSQL's channel on which processes tell each other of new events."""

# Writers with nothing to write are kept for what they know: where the log stood, and who may not write any more.
_MOST_RESTED: Final = 4_096
_LONGEST_REST: Final = 3_600.0

# Told instead of a position.
_HAS_ENDED: Final = "end"


class SqlRunLog:
    """Logs in a SQL database, readable until `max_age` seconds after they were closed, by `clock` (Unix seconds).

    What can be read is committed. Deltas (entries whose kind ends in `delta`) are written together, up to 25 ms after they
    came; whoever appends anything else waits until it is written, and all that was appended before.

    Used by one event loop, from the first call to `stop`; `stop` it before the database is closed. `poll` is how late, in
    seconds, other processes' events may be if no notification comes (PostgreSQL notifies, SQLite does not).
    """

    def __init__(
        self,
        database: Database,
        *,
        max_age: float = MAX_AGE,
        poll: float = POLL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.statements = LogStatements(database)
        self._database = database
        self._max_age = max_age
        self._clock = clock
        self._writers: dict[RunKey, LogWriter] = {}
        self._rested: BoundedDict[RunKey, LogWriter] = BoundedDict(max_entries=_MOST_RESTED, max_age=_LONGEST_REST)
        self._feeds = LogFeeds(database, is_readable=self._is_readable, poll=poll)
        self._notifier: Notifier | None = None

    async def start(self) -> None:
        """Begin to listen to other processes, as the first reader does; needed only after a `stop`."""
        self._feeds.start()
        self._listen()

    async def stop(self) -> None:
        """Write what was appended, if that is possible now; readers whose log goes on get `StoreUnavailable`."""
        await asyncio.gather(*(self._settle(writer) for writer in tuple(self._writers.values())))
        self._writers.clear()
        # They belong to this event loop.
        self._rested = BoundedDict(max_entries=_MOST_RESTED, max_age=_LONGEST_REST)
        await self._feeds.stop()
        notifier, self._notifier = self._notifier, None
        if notifier is not None:
            await notifier.stop()

    async def append(self, attempt: Attempt, entries: Sequence[LogEntry], *, closes: bool = False) -> None:
        """Append `entries` at the next positions. See `RunLog.append`.

        They are taken before anything is waited for. A caller who is cancelled, or gets `StoreUnavailable`, must not append
        them again: they will be written when that is possible, before all that comes later.

        To append nothing waits as well, and keeps lower attempts from writing: an attempt that goes on from what is there
        does so before it reads `entries`. Closing without entries may be repeated until it is known to be written.

        Raises:
            StaleWrite: the log is closed or dropped, or a later attempt has written to it; what this attempt has appended
                since it last waited may be lost.
            StoreUnavailable: nothing could be written for a second.
        """
        key = attempt.key
        writer = self._writers.get(key) or self._rested.get(key) or LogWriter(self, key)
        writer.check(attempt.number, entries)
        self._writers[key] = writer
        await writer.append(attempt.number, entries, closes=closes)

    def opening(self, key: RunKey, entries: Sequence[LogEntry]) -> Participant:
        """Return what opens the log of a new run. See `RunLog.opening`."""
        batch = WriteBatch(
            statements=self.statements, key=key, attempt=0, entries=list(entries), stored_at=self._clock()
        )
        return Participant(
            alone=partial(self.append, Attempt(key, 0), entries),
            within=batch,
            committed=partial(self.written, batch, 0),
            url=self._database.url,
        )

    def follow(
        self, key: RunKey, *, after: int = -1, idle: float | None = None
    ) -> AsyncGenerator[Sequence[LogEntry], None]:
        """Yield what comes after position `after`, in batches. See `RunLog.follow`.

        Raises:
            StoreUnavailable: the database cannot be read now, or the log was stopped. A reader that has caught up does not
                notice that the database is away for a while.
        """
        self._listen()
        return self._feeds.follow(key, after=after, idle=idle)

    async def entries(self, key: RunKey) -> list[LogEntry]:
        """Return everything that is written in the log, however long ago it was closed."""
        return await self._database.run(partial(log_table.read_all, key=key))

    async def exists(self, key: RunKey) -> bool:
        """Whether the run has a log that can still be read from its start."""
        state = await self._database.run(partial(log_table.read_state, key=key))
        return state is not None and self._is_readable(state)

    async def drop(self, key: RunKey) -> None:
        """Erase the log; readers still following it end, and nobody who wrote to it here writes again."""
        writer = self._writers.pop(key, None) or self._rested.get(key)
        if writer is not None:
            await writer.discard()
            self._rested.set(key, writer)
        await self._database.run(partial(log_table.forget, key=key), erases=True)
        self._feeds.end(key)
        self._tell(key, _HAS_ENDED)

    async def prune(self, *, limit: int) -> int:
        """Erase logs that can no longer be read, at most `limit`; open ones are their channel's to end."""
        find = partial(log_table.find_closed, before=self._clock() - self._max_age, limit=limit)
        keys = await self._database.run(find)
        if keys:
            await self._database.run(partial(log_table.forget_all, keys=keys), erases=True)
        return len(keys)

    async def silent(self, *, seconds: float, limit: int) -> list[RunKey]:
        """Return open logs, at most `limit`, to which nobody has written for so long: their runs may have ended without."""
        find = partial(log_table.find_open, before=self._clock() - seconds, limit=limit)
        return await self._database.run(find)

    async def stats(self) -> StoreStats:
        """Return what the logs hold; `entries` counts the logs."""
        entries, size, oldest = await self._database.run(log_table.count)
        age = None if oldest is None else max(0.0, self._clock() - oldest)
        return StoreStats(name="run logs", entries=entries, bytes=size, oldest=age)

    # --- What writers need

    async def write(self, batch: WriteBatch) -> int:
        """Run the transaction of a writer."""
        batch.stored_at = self._clock()
        return await self._database.run(batch)

    def written(self, batch: WriteBatch, base: int) -> None:
        """Tell readers, here and elsewhere, of what was written."""
        self._feeds.extend(batch.key, base, batch.entries, ends=batch.closes)
        self._tell(batch.key, _HAS_ENDED if batch.closes else str(base + len(batch.entries)))

    def rested(self, writer: LogWriter) -> None:
        """Keep a writer that has nothing left to write, but not for ever."""
        if self._writers.pop(writer.key, None) is not None:
            self._rested.set(writer.key, writer)

    async def _settle(self, writer: LogWriter) -> None:
        if not await writer.settle():
            extra = {"run_id": writer.key.run_id, "events": writer.backlog}
            logger.error("Events of a run are lost: the database cannot be used", extra=extra)
            await writer.discard()

    def _is_readable(self, state: LogState) -> bool:
        return state.closed_at is None or state.closed_at >= self._clock() - self._max_age

    def _tell(self, key: RunKey, what: str) -> None:
        if not self._database.is_sqlite:
            self._connected().send(name_of(key), what)

    def _listen(self) -> None:
        if not self._database.is_sqlite:
            self._connected().listen()

    def _connected(self) -> Notifier:
        if self._notifier is None:
            from ..sql.notify import Notifier  # noqa: PLC0415  optional dependency

            self._notifier = Notifier(self._database, CHANNEL, on_news=self._hear, on_connect=self._feeds.fetch_all)
        return self._notifier

    def _hear(self, name: str, what: str) -> None:
        self._feeds.hear(name, int(what) if what.isdecimal() else None)
