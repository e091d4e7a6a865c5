"""What transactions of responses do to conversations; the stores' own tests cover the rest."""

from __future__ import annotations

from functools import partial

import pytest

from agent_framework_hosting.sql.database import Database
from agent_framework_hosting_responses.stores import sql_turns
from agent_framework_hosting_responses.stores.base import (
    ConversationId,
    ConversationKey,
    ConversationLocked,
    UnknownConversation,
)
from agent_framework_hosting_responses.stores.sql_conversations import SqlConversationStore
from agent_framework_hosting_responses.testing.conversation_turns import (
    ADA,
    conversation_of,
    head_of,
    ids_of,
    message_of,
    take_turn,
    turn_of,
)


async def test_the_items_before_a_position_are_those_of_that_time(database: Database) -> None:
    store, record = SqlConversationStore(database), conversation_of()
    await store.create(record, [message_of("msg_1"), message_of("msg_2")])
    positions = [(await head_of(store, record)).position]
    await take_turn(store, record, "resp_1", call_ids={"call_1": "own"})
    await store.remove(record.key, "msg_1")
    positions.append((await head_of(store, record)).position)
    await store.append(record.key, [message_of("msg_3")])

    found = [
        await database.run(partial(sql_turns.items_before, key=record.key, position=position)) for position in positions
    ]

    assert [[item["id"] for item in context.all_items()] for context in found] == [
        ["msg_2"],
        ["msg_2", "msg_resp_1_question", "msg_resp_1_answer"],
    ]
    assert [node.response_id for node in found[1].nodes()] == ["resp_1", None]


async def test_a_conversation_is_given_back_by_its_runner_alone(database: Database) -> None:
    store, record = SqlConversationStore(database), conversation_of()
    await store.create(record, [])
    first = turn_of(record, "resp_1", await head_of(store, record))
    second = turn_of(record, "resp_2", await head_of(store, record))
    names = {"p": record.key.partition, "c": record.key.conversation_id}
    await store.lock(first)

    for wrong in ({**names, "response": "resp_2"}, {**names, "p": ADA, "response": "resp_1"}):
        await database.run(partial(sql_turns.unlock, record_names=wrong))
        with pytest.raises(ConversationLocked):
            await store.lock(second)
    await database.run(partial(sql_turns.unlock, record_names={**names, "response": "resp_1"}))
    await store.lock(second)

    assert await ids_of(store, record) == []


@pytest.mark.parametrize("key", [None, ConversationKey(ADA, ConversationId("\0"))])
def test_what_no_column_holds_names_nothing(key: ConversationKey | None) -> None:
    with pytest.raises(UnknownConversation):
        sql_turns.names_of(key)
