"""Conversations in memory: what is forgotten when, and that a turn costs what is new."""

from __future__ import annotations

import pytest

from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import RunStatus
from agent_framework_hosting_responses.stores.base import (
    ConversationId,
    ConversationItems,
    ConversationKey,
    ConversationLocks,
    ConversationStore,
)
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore
from agent_framework_hosting_responses.testing.conversation_turns import (
    conversation_of,
    head_of,
    ids_of,
    message_of,
    take_turn,
    turn_of,
)


class Clock:
    """A clock that stands still until a test moves it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def kept(store: MemoryConversationStore, *names: str) -> list[str]:
    return [name for name in names if await store.get(ConversationKey(SHARED, ConversationId(name))) is not None]


def test_the_store_is_all_that_a_store_of_conversations_can_be() -> None:
    store = MemoryConversationStore()
    conversations: ConversationStore = store
    items: ConversationItems = store
    locks: ConversationLocks = store

    assert len({id(view) for view in (conversations, items, locks)}) == 1


async def test_the_conversation_that_was_changed_least_lately_is_forgotten_first() -> None:
    store = MemoryConversationStore(max_entries=4)
    for name in ("read", "appended", "updated", "removed"):
        await store.create(conversation_of(name), [message_of("msg_1")])

    await store.append(conversation_of("appended").key, [message_of("msg_2")])
    await store.update(conversation_of("updated").key, {})
    await store.remove(conversation_of("removed").key, "msg_1")
    await store.get(conversation_of("read").key)
    await store.create(conversation_of("new"), [])

    assert await kept(store, "read", "appended", "updated", "removed", "new") == [
        "appended",
        "updated",
        "removed",
        "new",
    ]
    assert len(store) == 4


async def test_a_conversation_is_forgotten_after_its_age() -> None:
    clock = Clock()
    store = MemoryConversationStore(max_age=10, clock=clock)
    await store.create(conversation_of("old"), [])
    await store.create(conversation_of("alive"), [])
    clock.now = 8
    await take_turn(store, conversation_of("alive"), "resp_1")
    clock.now = 11

    assert await kept(store, "old", "alive") == ["alive"]
    clock.now = 19
    assert await kept(store, "alive") == []


@pytest.mark.parametrize("status", [RunStatus.COMPLETED, RunStatus.FAILED])
async def test_a_conversation_in_which_a_response_runs_is_never_forgotten(status: RunStatus) -> None:
    clock = Clock()
    store = MemoryConversationStore(max_entries=1, max_age=10, clock=clock)
    record = conversation_of("running")
    await store.create(record, [message_of("msg_1")])
    turn = turn_of(record, "resp_1", await head_of(store, record), status=status)
    await store.lock(turn)
    await store.append(record.key, [message_of("msg_2")])
    clock.now = 100
    for name in "abc":
        await store.create(conversation_of(name), [])

    assert await kept(store, "running", "a", "b", "c") == ["running", "c"]
    await store.finish(turn)
    assert len(await ids_of(store, record)) == (4 if status is RunStatus.COMPLETED else 2)
    clock.now = 111
    assert await kept(store, "running") == []
    assert len(store) == 0


async def test_a_deleted_conversation_leaves_nothing_behind() -> None:
    store = MemoryConversationStore()
    running, idle = conversation_of("running"), conversation_of("idle")
    for record in (running, idle):
        await store.create(record, [message_of("msg_1")])
    await store.lock(turn_of(running, "resp_1", await head_of(store, running)))

    assert await store.delete(running.key)
    assert await store.delete(idle.key)

    assert len(store) == 0


async def test_the_same_response_may_take_the_conversation_again() -> None:
    store = MemoryConversationStore()
    record = conversation_of()
    await store.create(record, [])
    turn = turn_of(record, "resp_1", await head_of(store, record))

    await store.lock(turn)
    await store.lock(turn)
    await store.finish(turn)

    assert len(await ids_of(store, record)) == 2


async def test_a_turn_shares_the_context_before_it() -> None:
    store = MemoryConversationStore()
    record = conversation_of()
    await store.create(record, [message_of("msg_1")])
    before = (await head_of(store, record)).context

    await take_turn(store, record, "resp_1")
    turn = (await head_of(store, record)).context
    await store.append(record.key, [message_of("msg_2")])
    appended = (await head_of(store, record)).context

    assert turn.parent is before
    assert appended.parent is turn


async def test_a_removal_shares_what_is_before_the_item_and_trusts_no_session_after_it() -> None:
    store = MemoryConversationStore()
    record = conversation_of()
    await store.create(record, [])
    for name in ("resp_1", "resp_2", "resp_3"):
        await take_turn(store, record, name)
    before = list((await head_of(store, record)).context.nodes())

    await store.remove(record.key, "msg_resp_2_question")
    after = list((await head_of(store, record)).context.nodes())

    assert [(node.response_id, node.has_session) for node in after[:3]] == [
        ("resp_3", False),
        ("resp_2", False),
        ("resp_1", True),
    ]
    assert after[2] is before[2]


async def test_items_that_come_and_go_leave_no_trace_in_the_context() -> None:
    store = MemoryConversationStore()
    record = conversation_of()
    await store.create(record, [])
    for _ in range(100):
        await store.append(record.key, [message_of("msg_1")])
        await store.remove(record.key, "msg_1")

    assert len(list((await head_of(store, record)).context.nodes())) == 1
