"""Retention in the background: has stores that do not forget by themselves forget, a little at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from .stores.base import Prunable

logger = logging.getLogger(__name__)

PRUNE_INTERVAL: Final = 60.0
"""Seconds between two rounds of pruning."""

FIRST_ROUND: Final = 1.0
"""Seconds after the start of the host until the first round: whoever starts often must not keep everything for ever."""

BATCH: Final = 50
"""Entries that a store erases at once. Measured on SQLite: requests wait for 30 ms of work, 50 ms with a hundred."""


class Pruner:
    """Prunes the stores that were added, from `start` to `stop`; it may be started again.

    A store that fails is logged and tried again in the next round. `afterwards` is called at the end of every round.
    """

    def __init__(
        self,
        *,
        interval: float = PRUNE_INTERVAL,
        first: float = FIRST_ROUND,
        batch: int = BATCH,
        afterwards: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._interval = interval
        self._first = first
        self._batch = batch
        self._afterwards = afterwards
        self._stores: list[Prunable] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, store: Prunable) -> None:
        """Have the store pruned from the next round on."""
        if store not in self._stores:
            self._stores.append(store)

    def start(self) -> None:
        """Prune from time to time, in a task of its own."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="prune stores")

    async def stop(self) -> None:
        """End the task; a batch that has begun is written or not, never half."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        await asyncio.sleep(self._first)
        while True:
            # Channels add theirs after the host's: what belongs to their entries is found as long as the sessions are there.
            for store in reversed(self._stores):
                await self._attempt(prune_all(store, batch=self._batch), type(store).__name__)
            if self._afterwards is not None:
                await self._attempt(self._afterwards(), "space")
            await asyncio.sleep(self._interval)

    @staticmethod
    async def _attempt(work: Awaitable[object], what: str) -> None:
        try:
            await work
        except Exception:
            # The boundary of the task: one store's trouble is not the others', nor the next round's.
            logger.exception("A store could not be pruned, it is tried again later", extra={"store": what})


async def prune_all(store: Prunable, *, batch: int = BATCH) -> int:
    """Erase everything that the store's retention no longer covers, `batch` by `batch`; return how many entries."""
    total = 0
    while True:
        started = time.perf_counter()
        erased = await store.prune(limit=batch)
        total += erased
        if erased < batch:
            return total
        # As long as the batch took: requests have at least half of the store's time.
        await asyncio.sleep(time.perf_counter() - started)
