"""What readers of logs share in one process: one window of new events per log, filled by whoever hears of them first.

Rules. A feed only ever holds events that can be read from the database. This process's own batches are pushed into it once
they are written; those of other processes are fetched when a notification or the poll says that there are more, for all
feeds together. A reader that is behind the window reads from the database until it has caught up.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Final

from ..errors import StoreUnavailable
from ..sql.database import Database, ResultT, Work
from .base import LogEntry, RunKey
from .log_table import LogState, Page, read_page, read_pages, read_states

logger = logging.getLogger(__name__)

POLL: Final = 1.0
"""Seconds between two looks at all followed logs: how late news come that no notification brings."""

WINDOW: Final = 512
"""Events that a feed keeps for its readers."""

_FETCHED_AT_ONCE: Final = 64


def name_of(key: RunKey) -> str:
    """Return a short name for a log, which tells nothing about whose it is to those who listen."""
    return hashlib.blake2b(f"{key.partition}\0{key.run_id}".encode(), digest_size=12).hexdigest()


class Feed:
    """The newest events of one followed log."""

    __slots__ = ("_waiters", "base", "entries", "head", "is_ended", "is_loaded", "is_missing_some", "key", "readers")

    def __init__(self, key: RunKey) -> None:
        self.key = key
        self.readers = 0
        # Until the first reader has read the log, nobody knows where it stands.
        self.is_loaded = False
        self.is_missing_some = False
        self.is_ended = False
        self.base = 0
        self.head = 0
        self.entries: list[LogEntry] = []
        # A set that keeps its order: thousands may follow one log, and each leaves by itself.
        self._waiters: dict[asyncio.Future[bool], None] = {}

    def load(self, state: LogState) -> None:
        """Begin where the log stands; readers that are behind read from the database."""
        self.is_loaded = True
        self.base = self.head = state.next_position
        self.is_ended |= state.closed_at is not None

    def extend(self, base: int, entries: Sequence[LogEntry], *, ends: bool) -> bool:
        """Take events from position `base` on; return whether they fit to what is there."""
        if not self.is_loaded or base > self.head:
            self.is_missing_some = True
            return False
        new = entries[self.head - base :] if base < self.head else entries
        self.entries.extend(new)
        self.head += len(new)
        if len(self.entries) > 2 * WINDOW:
            surplus = len(self.entries) - WINDOW
            del self.entries[:surplus]
            self.base += surplus
        self.is_ended |= ends
        if new or ends:
            self.wake()
        return True

    def end(self) -> None:
        """Take notice that there is no such log any more."""
        self.is_ended = True
        self.wake()

    def after(self, position: int) -> Sequence[LogEntry] | None:
        """Return the events from `position` on, `None` if they are older than what is kept."""
        return None if position < self.base else self.entries[position - self.base :]

    async def more(self, idle: float | None) -> bool:
        """Wait until something has changed; `False` if nothing has for `idle` seconds."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters[waiter] = None
        timer = None if idle is None else loop.call_later(idle, _tell, waiter, False)
        try:
            return await waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._waiters.pop(waiter, None)

    def wake(self) -> None:
        """Have all readers look again."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            _tell(waiter, True)


def _tell(waiter: asyncio.Future[bool], has_changed: bool) -> None:  # noqa: FBT001  also called by timers
    if not waiter.done():
        waiter.set_result(has_changed)


class LogFeeds:
    """The feeds of one process. `is_readable` says whether a log in that state may be read from its start."""

    def __init__(self, database: Database, *, is_readable: Callable[[LogState], bool], poll: float = POLL) -> None:
        self._database = database
        self._is_readable = is_readable
        self._poll_seconds = poll
        self._feeds: dict[RunKey, Feed] = {}
        self._names: dict[str, Feed] = {}
        self._wanted: dict[RunKey, Feed] = {}
        self._fetcher: asyncio.Task[None] | None = None
        self._poller: asyncio.Task[None] | None = None
        self._is_failing = False
        self._is_stopped = False

    async def follow(self, key: RunKey, *, after: int, idle: float | None) -> AsyncGenerator[Sequence[LogEntry], None]:
        """Yield what comes after position `after`, in batches. See `RunLog.follow`."""
        feed = self._join(key)
        try:
            position = max(after, -1) + 1
            page = await self._read(key, position)
            if page is None or not self._is_readable(page.state):
                return
            self._load(feed, page.state)
            entries: Sequence[LogEntry] | None = page.entries or await self._next(feed, position, idle)
            while entries is not None:
                yield entries
                position += len(entries)
                entries = await self._next(feed, position, idle)
        finally:
            self._leave(feed)

    def extend(self, key: RunKey, base: int, entries: Sequence[LogEntry], *, ends: bool) -> None:
        """Give events that this process has written to those who follow them here."""
        feed = self._feeds.get(key)
        if feed is not None and not feed.extend(base, entries, ends=ends) and feed.is_loaded:
            self.fetch(feed)

    def end(self, key: RunKey) -> None:
        """Take notice that a log was dropped."""
        feed = self._feeds.get(key)
        if feed is not None:
            feed.end()

    def fetch(self, feed: Feed) -> None:
        """Have what is new in a log read from the database."""
        if not feed.is_loaded:
            feed.is_missing_some = True
            return
        if feed.is_ended or self._is_stopped:
            return
        self._wanted[feed.key] = feed
        if self._fetcher is None:
            self._fetcher = asyncio.create_task(self._fetch_wanted(), name="fetch events of runs")

    def hear(self, name: str, head: int | None) -> None:
        """Take notice that a log has events up to position `head`, or has ended, in some process."""
        feed = self._names.get(name)
        if feed is not None and (head is None or head > feed.head or not feed.is_loaded):
            self.fetch(feed)

    def fetch_all(self) -> None:
        """Have what is new in every followed log read: nobody knows what was missed."""
        for feed in self._feeds.values():
            self.fetch(feed)

    async def look(self) -> None:
        """Compare all followed logs with the database, and fetch what is new."""
        keys = [key for key, feed in self._feeds.items() if feed.is_loaded and not feed.is_ended]
        states = await self._ask(partial(read_states, keys=keys)) if keys else None
        if states is None:
            return
        for key in keys:
            feed, state = self._feeds.get(key), states.get(key)
            if feed is None:
                continue
            if state is None or state.next_position > feed.head or state.closed_at is not None:
                self.fetch(feed)

    def start(self) -> None:
        """Fetch again after a `stop`."""
        self._is_stopped = False

    async def stop(self) -> None:
        """Fetch nothing more; readers that wait for more get `StoreUnavailable`."""
        self._is_stopped = True
        tasks = {task for task in (self._fetcher, self._poller) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._wanted.clear()
        for feed in self._feeds.values():
            feed.wake()

    async def _next(self, feed: Feed, position: int, idle: float | None) -> Sequence[LogEntry] | None:
        """Return what comes at `position`, nothing after `idle` silent seconds, `None` at the end."""
        while True:
            # Before every wait: the feed may have grown while something older was on its way from the database.
            found = feed.after(position)
            if found is None:
                page = await self._read(feed.key, position)
                return None if page is None else page.entries or None  # erased meanwhile
            if found:
                return found
            if feed.is_ended:
                return None
            if self._is_stopped:
                raise StoreUnavailable("This process follows no logs any more.")
            if not await feed.more(idle):
                return ()

    def _join(self, key: RunKey) -> Feed:
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = self._names[name_of(key)] = Feed(key)
        feed.readers += 1
        if self._poller is None and not self._is_stopped:
            self._poller = asyncio.create_task(self._poll(), name="poll events of runs")
        return feed

    def _leave(self, feed: Feed) -> None:
        feed.readers -= 1
        if not feed.readers and self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key], self._names[name_of(feed.key)]

    def _load(self, feed: Feed, state: LogState) -> None:
        if not feed.is_loaded:
            feed.load(state)
        if feed.is_missing_some:
            self.fetch(feed)

    async def _read(self, key: RunKey, position: int) -> Page | None:
        return await self._database.run(partial(read_page, key=key, position=position))

    async def _fetch_wanted(self) -> None:
        """Read news of many logs in one transaction; what is wanted meanwhile comes with the next one."""
        try:
            while self._wanted:
                feeds = [self._wanted.pop(key) for key in list(self._wanted)[:_FETCHED_AT_ONCE]]
                wanted = [(feed.key, feed.head) for feed in feeds]
                pages = await self._ask(partial(read_pages, wanted=wanted))
                if pages is None:  # the poll tries again
                    self._wanted.clear()
                    return
                for feed, (_, head), page in zip(feeds, wanted, pages, strict=True):
                    self._take(feed, head, page)
        finally:
            self._fetcher = None

    async def _ask(self, work: Work[ResultT]) -> ResultT | None:
        """Return what `work` reads, `None` if that is not possible now."""
        try:
            result = await self._database.run(work)
        except StoreUnavailable:
            if not self._is_failing:
                logger.warning("Readers of runs wait for the database")
            self._is_failing = True
        except Exception:  # the boundary of both tasks: other readers, and the next poll, must not suffer
            logger.exception("Events of runs could not be read, it is tried again")
        else:
            self._is_failing = False
            return result
        return None

    def _take(self, feed: Feed, head: int, page: Page | None) -> None:
        if page is None:
            feed.end()
            return
        reached = head + len(page.entries)
        is_whole = reached >= page.state.next_position
        feed.is_missing_some = False
        feed.extend(head, page.entries, ends=is_whole and page.state.closed_at is not None)
        if not is_whole:
            self.fetch(feed)

    async def _poll(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._poll_seconds)
                if not self._feeds:
                    return
                await self.look()
        finally:
            self._poller = None
