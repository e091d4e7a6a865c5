"""Which processes are alive, so that what a dead one left can be ended by the others.

A process writes down from time to time that it is there. It counts as dead when it has not for `lease` seconds. A paused
process may wake up after that: the attempt number in every write keeps it from writing, and it is told by `on_lost`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import sqlalchemy as sa

from ..errors import StoreUnavailable
from .database import Database
from .tables import processes

logger = logging.getLogger(__name__)

BEAT: Final = 5.0
"""Seconds between two signs of life."""

LEASE: Final = 20.0
"""Seconds after its last sign of life for which a process counts as alive."""

Watcher = Callable[[], Awaitable[object]]


class Presence:
    """This process among those that share a database. `start` it before anything is written as `owner`.

    A SQLite file belongs to one process: all others are dead. On PostgreSQL the database's clock counts, so that the
    clocks of the machines need not agree. `on_lost` is called once, when no sign of life could be written for `lease`
    seconds: others may have taken over by then.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str | None = None,
        beat: float = BEAT,
        lease: float = LEASE,
        on_lost: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.owner = owner or f"proc_{uuid.uuid4().hex}"
        self._database = database
        self._beat = beat
        self._lease = lease
        self._on_lost = on_lost
        self._clock = clock
        self._watchers: list[Watcher] = []
        self._task: asyncio.Task[None] | None = None
        self._seen_at = clock()
        self._is_lost = False

    def watch(self, watcher: Watcher) -> None:
        """Have `watcher` called after every sign of life: the moment to look after the dead."""
        self._watchers.append(watcher)

    async def start(self) -> None:
        """Write the first sign of life, and more from now on.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        await self.sign()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="presence")

    async def stop(self) -> None:
        """Give up the place among the living."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        with contextlib.suppress(StoreUnavailable):  # the others will notice by themselves
            await self._database.run(
                lambda connection: connection.execute(sa.delete(processes).where(processes.c.owner == self.owner))
            )

    async def sign(self) -> None:
        """Write a sign of life.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        await self._database.run(self._write)
        self._seen_at, self._is_lost = self._clock(), False

    async def dead_owners(self, candidates: Iterable[str]) -> set[str]:
        """Return those of the candidates that are not alive.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        others = set(candidates) - {self.owner}
        if self._database.is_sqlite or not others:
            return others

        def living(connection: sa.Connection) -> set[str]:
            rows = connection.execute(
                sa.select(processes.c.owner).where(
                    processes.c.owner.in_(others), processes.c.seen_at > self._now() - self._lease
                )
            )
            return set(rows.scalars())

        return others - await self._database.run(living)

    async def round(self) -> None:
        """Write a sign of life and call the watchers; what fails is logged, and tried again with the next round."""
        try:
            await self.sign()
        except StoreUnavailable:
            logger.warning("The database is away; no sign of life could be written", extra={"owner": self.owner})
            if self._clock() - self._seen_at > self._lease and not self._is_lost:
                self._is_lost = True
                if self._on_lost is not None:
                    self._on_lost()
            return
        for watcher in self._watchers:
            try:
                await watcher()
            except Exception:  # the boundary of the task: the next sign of life must be written whatever a watcher does
                logger.exception("Looking after dead processes failed, it is tried again")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._beat)
            await self.round()

    def _write(self, connection: sa.Connection) -> None:
        insert = self._database.insert(processes).values(owner=self.owner, seen_at=self._now())
        connection.execute(
            insert.on_conflict_do_update(index_elements=[processes.c.owner], set_={"seen_at": insert.excluded.seen_at})
        )
        # The dead are kept for a while, so that one that was paused finds itself among them.
        connection.execute(sa.delete(processes).where(processes.c.seen_at < self._now() - 100 * self._lease))

    def _now(self) -> sa.ColumnElement[float] | float:
        if self._database.is_sqlite:
            return time.time()
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Float)
