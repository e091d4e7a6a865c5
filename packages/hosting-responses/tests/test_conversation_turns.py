"""The helpers of the suites notice a store that contradicts itself."""

from __future__ import annotations

import pytest

from agent_framework_hosting_responses.stores.base import ConversationHead, ConversationKey
from agent_framework_hosting_responses.stores.context import EMPTY
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore
from agent_framework_hosting_responses.testing.conversation_turns import (
    check_nothing_is_there,
    conversation_of,
    items_of,
    message_of,
    take_turn,
)


async def test_a_turn_is_a_question_and_its_answer_in_the_conversation() -> None:
    store = MemoryConversationStore()
    record = conversation_of(a="1")
    await store.create(record, [message_of("msg_1")])

    turn = await take_turn(store, record, "resp_1")

    assert await items_of(store, record) == [message_of("msg_1"), *turn.input, *turn.output]
    assert turn.conversation_key == record.key


async def test_a_head_that_differs_from_the_pages_is_noticed() -> None:
    class Forgetful(MemoryConversationStore):
        async def head(self, key: ConversationKey) -> ConversationHead | None:
            return ConversationHead(context=EMPTY, position=0)

    store, record = Forgetful(), conversation_of()
    await store.create(record, [message_of("msg_1")])

    with pytest.raises(AssertionError):
        await items_of(store, record)


async def test_a_conversation_that_is_there_is_noticed() -> None:
    store, record = MemoryConversationStore(), conversation_of()
    await store.create(record, [])

    with pytest.raises(AssertionError):
        await check_nothing_is_there(store, record)
