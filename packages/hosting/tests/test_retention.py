"""Pruning in the background, with stores that say when they were asked."""

import asyncio
import logging
from collections.abc import Iterable

import pytest

from agent_framework_hosting.retention import BATCH, Pruner, prune_all
from agent_framework_hosting.stores.base import Prunable, StoreStats

SECONDS = 60.0


class Outdated:
    """A store with that many outdated entries; `answers` are told or raised first."""

    def __init__(self, entries: int = 0, answers: Iterable[Exception] = ()) -> None:
        self.entries = entries
        self.limits: list[int] = []
        self.is_asked = asyncio.Event()
        self.is_empty = asyncio.Event()
        self._answers = list(answers)

    async def prune(self, *, limit: int) -> int:
        self.limits.append(limit)
        self.is_asked.set()
        if self._answers:
            raise self._answers.pop(0)
        erased = min(limit, self.entries)
        self.entries -= erased
        if not self.entries:
            self.is_empty.set()
        return erased

    async def stats(self) -> StoreStats:
        return StoreStats(name="outdated", entries=self.entries, bytes=0, oldest=None)


def new_pruner(**options: object) -> Pruner:
    return Pruner(first=0.0, interval=0.0, **options)  # type: ignore[arg-type]


async def test_everything_outdated_is_erased_batch_by_batch() -> None:
    store = Outdated(10 * BATCH + 1)

    erased = await prune_all(store)

    assert erased == 10 * BATCH + 1
    # The last batch was not full: nothing is asked for in vain.
    assert store.limits == [BATCH] * 11


async def test_requests_get_their_turn_between_batches() -> None:
    turns: list[str] = []

    class Noted(Outdated):
        async def prune(self, *, limit: int) -> int:
            turns.append("batch")
            return await super().prune(limit=limit)

    async def request() -> None:
        for _ in range(3):
            turns.append("request")
            await asyncio.sleep(0)

    await asyncio.gather(prune_all(Noted(3 * BATCH)), request())

    assert turns[:4] == ["batch", "request", "batch", "request"] or turns.index("request") < 2
    assert turns.count("batch") == 4


async def test_every_store_is_pruned_again_and_again() -> None:
    stores = [Outdated(250), Outdated(1)]
    pruner = new_pruner()
    for store in stores:
        pruner.add(store)

    pruner.start()
    async with asyncio.timeout(SECONDS):
        for store in stores:
            await store.is_empty.wait()
            store.is_asked.clear()
            await store.is_asked.wait()
    await pruner.stop()

    assert [store.entries for store in stores] == [0, 0]


async def test_a_store_that_fails_is_logged_and_tried_again_and_keeps_nobody_from_forgetting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing, other = Outdated(5, [ValueError("no disk")]), Outdated(5)
    pruner = new_pruner()
    pruner.add(failing)
    pruner.add(other)

    pruner.start()
    async with asyncio.timeout(SECONDS):
        await other.is_empty.wait()
        await failing.is_empty.wait()
    await pruner.stop()

    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "tried again later" in record.getMessage()
    assert record.__dict__["store"] == "Outdated"


async def test_at_the_end_of_a_round_space_is_given_back() -> None:
    store, is_called = Outdated(5), asyncio.Event()
    left: list[int] = []

    async def give_back() -> None:
        left.append(store.entries)
        is_called.set()

    pruner = new_pruner(afterwards=give_back)
    pruner.add(store)

    pruner.start()
    async with asyncio.timeout(SECONDS):
        await is_called.wait()
    await pruner.stop()

    assert left[0] == 0


async def test_nothing_is_pruned_after_the_stop_and_again_after_a_second_start() -> None:
    store = Outdated()
    pruner = new_pruner()
    pruner.add(store)

    pruner.start()
    async with asyncio.timeout(SECONDS):
        await store.is_asked.wait()
    await pruner.stop()
    asked = len(store.limits)
    store.is_asked.clear()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "prune stores"]
    assert len(store.limits) == asked

    pruner.start()
    async with asyncio.timeout(SECONDS):
        await store.is_asked.wait()
    await pruner.stop()


async def test_a_stop_ends_a_batch_that_takes_long() -> None:
    class Slow(Outdated):
        async def prune(self, *, limit: int) -> int:
            self.is_asked.set()
            return int(await asyncio.Event().wait())

    store = Slow()
    pruner = new_pruner()
    pruner.add(store)
    pruner.start()

    async with asyncio.timeout(SECONDS):
        await store.is_asked.wait()
        await pruner.stop()


async def test_a_stop_without_a_start_does_nothing() -> None:
    await Pruner().stop()


async def test_a_store_that_is_added_twice_is_pruned_once() -> None:
    store = Outdated()
    pruner = Pruner(first=0.0)
    pruner.add(store)
    pruner.add(store)
    done = asyncio.Event()
    last = Outdated()
    pruner.add(last)

    pruner.start()
    async with asyncio.timeout(SECONDS):
        await last.is_asked.wait()
    await pruner.stop()

    assert len(store.limits) == 1
    assert not done.is_set()


def test_a_store_in_the_tests_is_what_the_host_takes_for_one() -> None:
    assert isinstance(Outdated(), Prunable)
