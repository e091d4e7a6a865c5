"""Which processes are alive, so that what a dead one left can be ended by the others.

A process writes down from time to time that it is there. Once it has not for `lease` seconds, its row may be removed by
whoever asks, and it is dead. One that only stood still, or could not reach the database, must stop what it runs when its
lease ends: it is no longer its own. The attempt number in every write of a run keeps it from writing anyway.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ..errors import StoreUnavailable
from .database import Database
from .tables import processes

logger = logging.getLogger(__name__)

BEAT: Final = 5.0
"""Seconds between two signs of life."""

LEASE: Final = 20.0
"""Seconds after its last sign of life for which a process counts as alive."""

Watcher = Callable[[], Awaitable[object]]
Fence = Callable[[], None]


class Presence:
    """This process among those that share a database. `start` it before anything is written as `owner`.

    `exclusive` says that no other process can be alive, because the database is this one's alone: then no sign of life is
    written, and every other owner is dead. By default it is so with SQLite. PostgreSQL's clock counts, so that those of
    the machines need not agree.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str | None = None,
        beat: float = BEAT,
        lease: float = LEASE,
        exclusive: bool | None = None,
    ) -> None:
        self.owner: Final = owner or f"proc_{uuid.uuid4().hex}"
        self.is_lost = False
        self._database = database
        self._beat = beat
        self._lease = lease
        self._is_exclusive = database.is_sqlite if exclusive is None else exclusive
        self._watchers: list[Watcher] = []
        self._fences: list[Fence] = []
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, watcher: Watcher) -> None:
        """Have `watcher` called after a sign of life, the moment to look after the dead; once at a time."""
        self._watchers.append(watcher)

    def when_lost(self, fence: Fence) -> None:
        """Have `fence` called in the event loop when others may take this process for dead, until it is alive again."""
        self._fences.append(fence)

    async def start(self) -> None:
        """Write the first sign of life, and more from now on.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        if self._task is not None:
            return
        self.is_lost = True  # nothing of an earlier start is still ours: no reason to stop it
        await self.sign()
        self._task = asyncio.create_task(self._run(), name="presence")

    async def stop(self) -> None:
        """Give up the place among the living, so that nobody waits for the lease to run out."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_exclusive:
            with suppress(StoreUnavailable):  # the others will notice by themselves
                await self._database.run(self._remove)

    async def sign(self) -> None:
        """Write a sign of life.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        if self._is_exclusive:
            return
        # The time before the write: the lease must never end earlier for others than for this process.
        started = asyncio.get_running_loop().time()
        if not await self._database.run(self._write):
            self._lose()  # somebody has taken it for dead
        self.is_lost = False
        # A timer, not a check in `round`: a sign of life that hangs must not put off the end of the lease.
        if self._timer is not None:
            self._timer.cancel()
        due = started + self._lease
        self._timer = asyncio.get_running_loop().call_at(due, self._expire, due)

    async def dead_owners(self, candidates: Iterable[str]) -> set[str]:
        """Return those of the candidates that are not alive, never this process.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        others = set(candidates) - {self.owner}
        if self._is_exclusive or not others:
            return others
        return others - await self.living()

    async def living(self) -> set[str]:
        """Return the processes that are alive, as far as they write it down.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        return await self._database.run(self._living)

    async def round(self) -> None:
        """Write a sign of life and call the watchers; what fails is logged, and tried again with the next round."""
        if await self._has_signed():
            await self._look()

    async def _has_signed(self) -> bool:
        try:
            await self.sign()
        except (StoreUnavailable, DBAPIError):
            logger.warning("No sign of life could be written, it is tried again", exc_info=True)
            return False
        return True

    async def _look(self) -> None:
        for watcher in self._watchers:
            try:
                await watcher()
            except Exception:  # the boundary of the task: the other watchers, and the next look, must not suffer
                logger.exception("Looking after dead processes failed, it is tried again")

    async def _run(self) -> None:
        # On its own: looking after many dead may take longer than the lease, and must not put off a sign of life.
        looking: asyncio.Task[None] | None = None
        try:
            while True:
                await asyncio.sleep(self._beat)
                if await self._has_signed() and (looking is None or looking.done()):
                    looking = asyncio.create_task(self._look(), name="look after dead processes")
        finally:
            if looking is not None:
                looking.cancel()
                await asyncio.wait({looking})

    def _expire(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - due > self._beat:
            # This process stood still: it has a beat's time to ask whether anybody has noticed.
            self._timer = loop.call_later(self._beat, self._lose)
        else:
            self._lose()

    def _lose(self) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        logger.error("Other processes may take this one for dead", extra={"owner": self.owner})
        for fence in self._fences:
            fence()

    def _write(self, connection: sa.Connection) -> bool:
        """Return whether the process was still alive."""
        renewal = sa.update(processes).where(processes.c.owner == self.owner).values(seen_at=self._now())
        if connection.execute(renewal).rowcount:
            return True
        self._remove_dead(connection)
        connection.execute(sa.insert(processes).values(owner=self.owner, seen_at=self._now()))
        return False

    def _remove(self, connection: sa.Connection) -> None:
        connection.execute(sa.delete(processes).where(processes.c.owner == self.owner))

    def _living(self, connection: sa.Connection) -> set[str]:
        self._remove_dead(connection)
        return set(connection.execute(sa.select(processes.c.owner)).scalars())

    def _remove_dead(self, connection: sa.Connection) -> None:
        # In the transaction that finds them dead: a sign of life that comes later does not bring them back unnoticed.
        connection.execute(sa.delete(processes).where(processes.c.seen_at < self._now() - self._lease))

    def _now(self) -> sa.ColumnElement[float]:
        if self._database.is_sqlite:
            return sa.literal(time.time())
        return sa.extract("epoch", sa.func.clock_timestamp()).cast(sa.Float)
