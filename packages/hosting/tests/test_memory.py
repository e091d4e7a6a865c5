"""Both memory modules: stores/memory.py and runs/memory.py."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextlib import aclosing

import pytest
from agent_framework import AgentSession, Message

from agent_framework_hosting import ConfigurationError, RunError, StaleWrite, StoreError
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import Attempt, LogEntry, RunId, RunKey
from agent_framework_hosting.runs.memory import MemoryRunEngine, MemoryRunLog
from agent_framework_hosting.stores.base import SessionKey
from agent_framework_hosting.stores.memory import BoundedDict, MemorySessionStore
from agent_framework_hosting.stores.snapshots import Snapshot

KEY = RunKey(SHARED, RunId("run"))
FIRST = Attempt(KEY, 1)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def entries(*kinds: str) -> list[LogEntry]:
    return [(kind, kind.encode()) for kind in kinds]


async def read(log: MemoryRunLog, *, after: int = -1) -> list[str]:
    kinds: list[str] = []
    async with asyncio.timeout(60), aclosing(log.follow(KEY, after=after)) as batches:
        async for batch in batches:
            kinds += [kind for kind, _ in batch]
    return kinds


# --- BoundedDict


def test_the_oldest_entries_beyond_the_limit_are_forgotten() -> None:
    evicted: list[tuple[str, int]] = []
    bounded = BoundedDict[str, int](
        max_entries=2, max_age=100, clock=Clock(), on_evict=lambda key, value: evicted.append((key, value))
    )

    for number, key in enumerate("abc"):
        bounded.set(key, number)

    assert bounded.get("a") is None
    assert bounded.get("c") == 2
    assert len(bounded) == 2
    assert evicted == [("a", 0)]


def test_entries_age_from_their_last_set_whoever_reads_them() -> None:
    clock = Clock()
    bounded = BoundedDict[str, int](max_entries=10, max_age=10, clock=clock)
    bounded.set("old", 1)
    bounded.set("renewed", 1)
    clock.now = 6
    bounded.set("renewed", 2)
    assert bounded.get("old") == 1
    clock.now = 11

    assert bounded.get("old") is None
    assert bounded.get("renewed") == 2


def test_a_popped_entry_is_not_reported_as_evicted() -> None:
    evicted: list[str] = []
    bounded = BoundedDict[str, int](max_entries=1, max_age=10, on_evict=lambda key, _: evicted.append(key))
    bounded.set("a", 1)

    assert bounded.pop("a") == 1
    assert bounded.pop("a") is None
    assert evicted == []


# --- MemorySessionStore


async def test_a_loaded_session_is_a_private_copy_all_the_way_down() -> None:
    store = MemorySessionStore()
    session = AgentSession()
    session.state["messages"] = [Message("user", ["hello"])]
    await store.put(SHARED, SessionKey("k"), session)

    one = await store.get(SHARED, SessionKey("k"))
    assert one is not None
    one.state["messages"][0].additional_properties["mark"] = True
    two = await store.get(SHARED, SessionKey("k"))

    assert two is not None
    assert two.state["messages"][0].additional_properties == {}


class Copyable:
    """No state type, but can be copied."""

    def __init__(self) -> None:
        self.values = [1]


class Kept(AgentSession):
    """Cannot be a snapshot."""


async def test_the_first_reader_gets_the_session_itself_and_nobody_else_does() -> None:
    store, session = MemorySessionStore(), AgentSession()
    await store.put(SHARED, SessionKey("k"), session)

    first, second = await store.get(SHARED, SessionKey("k")), await store.get(SHARED, SessionKey("k"))

    assert first is session
    assert second is not None
    assert second is not session
    assert second.session_id == session.session_id


async def test_what_cannot_be_a_snapshot_is_copied() -> None:
    store, session = MemorySessionStore(), Kept()
    session.state["a"] = Copyable()
    await store.put(SHARED, SessionKey("k"), session)

    found = [await store.get(SHARED, SessionKey("k")) for _ in range(2)]
    for one in found:
        assert type(one) is Kept
        one.state["a"].values.append(2)

    assert [one.state["a"].values for one in found if one is not None] == [[1, 2], [1, 2]]


async def test_what_can_be_neither_a_snapshot_nor_copied_is_refused_by_its_place() -> None:
    store, session = MemorySessionStore(), AgentSession()
    session.state["locks"] = [threading.Lock()]
    await store.put(SHARED, SessionKey("k"), session)

    with pytest.raises(StoreError, match=r"state\.locks\[0\]"):
        await store.get(SHARED, SessionKey("k"))


@pytest.mark.behaviour("A11")
async def test_the_sessions_of_a_chain_share_what_they_have_in_common() -> None:
    store, session = MemorySessionStore(), AgentSession()
    session.state["messages"] = []

    for turn in range(30):
        session.state["messages"] = [*session.state["messages"], Message("user", [f"message {turn}"])]
        await store.put(SHARED, SessionKey(f"{turn}"), session)
        found = await store.get(SHARED, SessionKey(f"{turn}"))
        assert found is not None
        session = found

    kept = [stored.content for _, stored in store._sessions._entries.values()]
    snapshots = [content for content in kept if isinstance(content, Snapshot)]
    elements = [element for snapshot in snapshots for elements in snapshot.lists.values() for element in elements]
    assert len(snapshots) == 30
    assert len(elements) == 30 * 31 / 2
    assert len({id(element) for element in elements}) == 30


async def test_a_session_that_nobody_continues_is_not_encoded() -> None:
    store = MemorySessionStore()
    session = AgentSession()
    await store.put(SHARED, SessionKey("k"), session)

    assert [stored.content for _, stored in store._sessions._entries.values()] == [session]


@pytest.mark.behaviour("D8")
async def test_sessions_are_bounded_by_count_and_age() -> None:
    clock = Clock()
    store = MemorySessionStore(max_entries=3, max_age=60, clock=clock)

    for number in range(10):
        await store.put(SHARED, SessionKey(str(number)), AgentSession())
    known = [number for number in range(10) if await store.get(SHARED, SessionKey(str(number)))]
    clock.now = 61

    assert known == [7, 8, 9]
    assert await store.get(SHARED, SessionKey("9")) is None


# --- MemoryRunLog


async def test_a_reader_gets_everything_from_the_start_and_ends_when_the_log_closes() -> None:
    log = MemoryRunLog()
    await log.append(FIRST, entries("created", "delta"))
    await log.append(FIRST, entries("completed"), closes=True)

    assert await read(log) == ["created", "delta", "completed"]


@pytest.mark.behaviour("D3")
async def test_readers_continue_behind_any_position_also_past_the_end() -> None:
    log = MemoryRunLog()
    await log.append(FIRST, entries("a", "b", "c"), closes=True)

    assert await read(log, after=0) == ["b", "c"]
    assert await read(log, after=2) == []
    assert await read(log, after=99) == []


@pytest.mark.behaviour("D3")
async def test_several_live_readers_see_the_same_entries() -> None:
    log = MemoryRunLog()
    await log.append(FIRST, entries("a"))
    readers = [asyncio.create_task(read(log, after=after)) for after in (-1, -1, 0)]
    await asyncio.sleep(0)
    await log.append(FIRST, entries("b"))
    await asyncio.sleep(0)
    await log.append(FIRST, entries("c"), closes=True)

    assert await asyncio.gather(*readers) == [["a", "b", "c"], ["a", "b", "c"], ["b", "c"]]


async def test_an_idle_log_yields_an_empty_batch() -> None:
    log = MemoryRunLog()
    await log.append(FIRST, entries("a"))
    batches: list[Sequence[LogEntry]] = []

    async with asyncio.timeout(60), aclosing(log.follow(KEY, idle=0.001)) as following:
        async for batch in following:
            batches.append(batch)
            if len(batches) == 3:
                break

    assert batches == [entries("a"), (), ()]


async def test_nothing_can_be_written_to_a_closed_log() -> None:
    log = MemoryRunLog()
    await log.append(FIRST, entries("completed"), closes=True)

    with pytest.raises(StaleWrite):
        await log.append(FIRST, entries("more"))

    assert await read(log) == ["completed"]


async def test_an_attempt_that_was_overtaken_can_write_nothing() -> None:
    log = MemoryRunLog()
    await log.append(FIRST, entries("a"))
    await log.append(Attempt(KEY, 2), entries("b"))

    with pytest.raises(StaleWrite):
        await log.append(FIRST, entries("late"))

    await log.append(Attempt(KEY, 2), entries("c"), closes=True)
    assert await read(log) == ["a", "b", "c"]


async def test_dropping_a_log_ends_its_readers() -> None:
    log = MemoryRunLog()
    await log.append(FIRST, entries("a"))
    reader = asyncio.create_task(read(log))
    await asyncio.sleep(0)

    assert await log.exists(KEY)
    await log.drop(KEY)

    assert await reader == ["a"]
    assert not await log.exists(KEY)
    await log.drop(KEY)


async def test_an_unknown_log_has_nothing_to_read() -> None:
    assert await read(MemoryRunLog()) == []


@pytest.mark.behaviour("D8")
async def test_closed_logs_are_bounded_by_count_and_age_and_open_ones_kept() -> None:
    clock = Clock()
    log = MemoryRunLog(max_closed=2, max_age=600, clock=clock)
    await log.append(FIRST, entries("open"))
    keys = [RunKey(SHARED, RunId(str(number))) for number in range(4)]

    for key in keys:
        await log.append(Attempt(key, 1), entries("completed"), closes=True)

    assert [await log.exists(key) for key in keys] == [False, False, True, True]
    clock.now = 601
    assert not await log.exists(keys[-1])
    assert await log.exists(KEY)


# --- MemoryRunEngine


async def test_a_started_run_calls_the_handler_of_its_operation() -> None:
    engine = MemoryRunEngine()
    called: list[RunKey] = []
    done = asyncio.Event()

    async def handler(key: RunKey) -> None:
        called.append(key)
        done.set()

    engine.register("create", handler)
    await engine.start("create", KEY)
    await asyncio.wait_for(done.wait(), 60)

    assert called == [KEY]


async def test_two_channels_cannot_have_the_same_operation() -> None:
    engine = MemoryRunEngine()

    async def handler(key: RunKey) -> None: ...

    engine.register("create", handler)
    with pytest.raises(ConfigurationError, match="'create'"):
        engine.register("create", handler)


async def test_a_run_that_is_going_on_is_not_started_twice() -> None:
    engine = MemoryRunEngine()
    gate, calls = asyncio.Event(), []

    async def handler(key: RunKey) -> None:
        calls.append(key)
        await gate.wait()

    engine.register("create", handler)
    await engine.start("create", KEY)
    await engine.start("create", KEY)
    gate.set()
    await engine.drain(5)

    assert calls == [KEY]


@pytest.mark.behaviour("D4")
async def test_cancel_waits_until_the_handler_has_written_down_its_end() -> None:
    engine = MemoryRunEngine()
    started = asyncio.Event()
    ends: list[str] = []

    async def handler(key: RunKey) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ends.append("cancelled")
            raise

    engine.register("create", handler)
    await engine.start("create", KEY)
    await started.wait()

    assert await engine.cancel(KEY, grace=5)
    assert ends == ["cancelled"]
    assert await engine.cancel(KEY, grace=5)


async def test_cancel_says_when_a_run_does_not_end_in_time() -> None:
    engine = MemoryRunEngine()
    started, gate = asyncio.Event(), asyncio.Event()

    async def stubborn(key: RunKey) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await gate.wait()

    engine.register("create", stubborn)
    await engine.start("create", KEY)
    await started.wait()

    assert not await engine.cancel(KEY, grace=0.01)
    gate.set()
    await engine.drain(5)


@pytest.mark.behaviour("G2")
async def test_a_drain_lets_runs_finish_and_takes_no_new_ones() -> None:
    engine = MemoryRunEngine()
    gate = asyncio.Event()
    finished: list[RunKey] = []

    async def handler(key: RunKey) -> None:
        await gate.wait()
        finished.append(key)

    engine.register("create", handler)
    await engine.start("create", KEY)
    drain = asyncio.create_task(engine.drain(30))
    await asyncio.sleep(0)
    with pytest.raises(RunError):
        await engine.start("create", RunKey(SHARED, RunId("late")))
    gate.set()
    await asyncio.wait_for(drain, 60)

    assert finished == [KEY]


@pytest.mark.behaviour("G2")
async def test_a_drain_cancels_what_the_grace_period_left_over() -> None:
    engine = MemoryRunEngine()
    started = asyncio.Event()
    ends: list[str] = []

    async def handler(key: RunKey) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cleaned up")

    engine.register("create", handler)
    await engine.start("create", KEY)
    await started.wait()
    await asyncio.wait_for(engine.drain(0), 60)

    assert ends == ["cleaned up"]


async def test_a_handler_that_breaks_is_logged_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    engine = MemoryRunEngine()

    async def broken(key: RunKey) -> None:
        raise ValueError("a bug")

    engine.register("create", broken)
    with caplog.at_level(logging.ERROR):
        await engine.start("create", KEY)
        await engine.drain(5)

    [record] = caplog.records
    assert record.exc_info is not None
    assert record.__dict__["run_id"] == "run"


@pytest.mark.parametrize("is_drained", [False, True])
async def test_a_run_that_is_stopped_in_the_moment_it_starts_has_still_called_its_handler(is_drained: bool) -> None:
    called: list[RunKey] = []

    async def handler(key: RunKey) -> None:
        called.append(key)
        await asyncio.Event().wait()

    engine = MemoryRunEngine()
    engine.register("test", handler)
    key = RunKey(SHARED, RunId("run_1"))

    await engine.start("test", key)
    if is_drained:
        await engine.drain(0)
    else:
        assert await engine.cancel(key, grace=5)

    assert called == [key]
