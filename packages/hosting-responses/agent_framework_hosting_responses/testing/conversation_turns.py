"""What the suites for stores of conversations are written with: conversations, items, turns, and what is there."""
# ruff: noqa: S101  helpers of tests

from __future__ import annotations

from typing import Any, Final

import pytest
from msgspec.structs import replace

from agent_framework_hosting.isolation import SHARED, IsolationKeys, Partition
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus

from ..protocol.json import JsonObject
from ..protocol.query import ListQuery
from ..stores.base import (
    ConversationHead,
    ConversationId,
    ConversationKey,
    ConversationRecord,
    Conversations,
    ResponseRecord,
    UnknownConversation,
)

ADA: Final = IsolationKeys(user_key="ada").partition
"""The partition of another user."""


def conversation_of(name: str = "conv_1", *, partition: Partition = SHARED, **metadata: str) -> ConversationRecord:
    """Return a conversation without items."""
    return ConversationRecord(
        key=ConversationKey(partition, ConversationId(name)), created_at=1_700_000_000, metadata=metadata
    )


def message_of(name: str, text: str = "hello", *, role: str = "user") -> JsonObject:
    """Return a message item in stored form."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {
        "id": name,
        "type": "message",
        "status": "completed",
        "role": role,
        "content": [{"type": kind, "text": text}],
    }


def turn_of(record: ConversationRecord, name: str, head: ConversationHead, **fields: Any) -> ResponseRecord:
    """Return a response that started from `head` and is completed, with a session, one question and one answer."""
    turn = ResponseRecord(
        key=RunKey(record.key.partition, RunId(name)),
        status=RunStatus.COMPLETED,
        created_at=1_700_000_000,
        body=b"{}",
        conversation_id=record.key.conversation_id,
        conversation_position=head.position,
        input=(message_of(f"msg_{name}_question"),),
        output=(message_of(f"msg_{name}_answer", role="assistant"),),
        has_session=True,
    )
    return replace(turn, **fields)


async def head_of(store: Conversations, record: ConversationRecord) -> ConversationHead:
    """Return the head of a conversation that is there."""
    head = await store.head(record.key)
    assert head is not None
    return head


def session_of(head: ConversationHead) -> tuple[str | None, int]:
    """Return the response whose session is continued next in the conversation, and how many items that does not know."""
    unknown = 0
    for node in head.context.nodes():
        if node.has_session:
            return node.response_id, unknown
        unknown += len(node.items)
    return None, unknown


async def take_turn(store: Conversations, record: ConversationRecord, name: str, **fields: Any) -> ResponseRecord:
    """Have a response run in the conversation, from its head to its end, and return it."""
    turn = turn_of(record, name, await head_of(store, record), **fields)
    await store.lock(turn)
    await store.finish(turn)
    return turn


async def items_of(store: Conversations, record: ConversationRecord) -> list[JsonObject]:
    """Return all items of the conversation, after checking that the pages and the head agree on them."""
    found: list[JsonObject] = []
    has_more = True
    while has_more:
        after = str(found[-1]["id"]) if found else None
        listed = await store.page(record.key, ListQuery(limit=100, order="asc", after=after))
        assert listed is not None
        found += listed[0]
        has_more = listed[1]
    assert list((await head_of(store, record)).context.all_items()) == found
    return found


async def ids_of(store: Conversations, record: ConversationRecord) -> list[str]:
    """Return the ids of all items of the conversation."""
    return [str(item["id"]) for item in await items_of(store, record)]


async def check_nothing_is_there(store: Conversations, record: ConversationRecord) -> None:
    """Check that the store knows no such conversation, whatever it is asked."""
    assert await store.get(record.key) is None
    assert await store.head(record.key) is None
    assert await store.update(record.key, {"a": "1"}) is None
    assert await store.item(record.key, "msg_1") is None
    assert not await store.remove(record.key, "msg_1")
    assert not await store.delete(record.key)
    with pytest.raises(UnknownConversation):
        await store.append(record.key, [message_of("msg_new")])
    listed = await store.page(record.key, ListQuery())
    assert listed is None or not listed[0]
    assert await store.get(record.key) is None
