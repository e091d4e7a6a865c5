"""What every store of conversations must do, as tests to inherit.

```python
class TestMyStore(ConversationStoreSuite):
    @pytest.fixture
    async def store(self) -> AsyncIterator[MyStore]: ...
```

The tests need pytest-asyncio in its mode `auto`. Rules that depend on time (how long what is kept) are the store's own.
"""
# ruff: noqa: D102  the tests are named as sentences
# ruff: noqa: S101  they are tests

from __future__ import annotations

import asyncio
from itertools import product

import pytest
from msgspec.structs import replace

from agent_framework_hosting.errors import AlreadyExists

from ..protocol.json import JsonObject
from ..protocol.query import ListQuery, page
from ..stores.base import Conversations
from .conversation_locks import ConversationLocksSuite
from .conversation_turns import (
    ADA,
    check_nothing_is_there,
    conversation_of,
    head_of,
    ids_of,
    items_of,
    message_of,
    session_of,
    take_turn,
)


class ConversationsSuite:
    """`ConversationStore`: what becomes of conversations."""

    async def test_a_conversation_comes_back_as_it_was_stored(self, store: Conversations) -> None:
        record = conversation_of(b="2", a="1", empty="", hard="a\x00\ud800\u2028é👩\u200d👧")
        await store.create(record, [message_of("msg_2"), message_of("msg_1")])

        found = await store.get(record.key)

        assert found == record
        assert list(found.metadata) == ["b", "a", "empty", "hard"]
        assert await ids_of(store, record) == ["msg_2", "msg_1"]

    async def test_an_id_is_taken_once_in_each_partition(self, store: Conversations) -> None:
        record = conversation_of(mine="yes")
        await store.create(record, [message_of("msg_1")])

        with pytest.raises(AlreadyExists):
            await store.create(conversation_of(mine="no"), [message_of("msg_2")])
        await store.create(conversation_of(partition=ADA), [message_of("msg_1", "of Ada")])

        assert await store.get(record.key) == record
        assert await items_of(store, record) == [message_of("msg_1")]

    async def test_a_conversation_with_two_items_of_one_id_is_not_stored(self, store: Conversations) -> None:
        record = conversation_of()

        with pytest.raises(AlreadyExists):
            await store.create(record, [message_of("msg_1"), message_of("msg_2"), message_of("msg_1")])

        assert await store.get(record.key) is None
        await store.create(record, [message_of("msg_1")])
        assert await ids_of(store, record) == ["msg_1"]

    async def test_an_update_replaces_the_metadata_and_nothing_else(self, store: Conversations) -> None:
        record = conversation_of(a="1", b="2")
        await store.create(record, [message_of("msg_1")])

        updated = await store.update(record.key, {"b": "3"})

        assert updated == replace(record, metadata={"b": "3"})
        assert await store.get(record.key) == updated
        assert await ids_of(store, record) == ["msg_1"]

    async def test_an_unknown_conversation_has_nothing_and_takes_nothing(self, store: Conversations) -> None:
        record = conversation_of()

        await check_nothing_is_there(store, record)

    async def test_a_deleted_conversation_is_gone_with_its_items(self, store: Conversations) -> None:
        record, other = conversation_of(), conversation_of("conv_2")
        await store.create(record, [message_of("msg_1")])
        await store.create(other, [message_of("msg_1")])
        await take_turn(store, record, "resp_1")

        assert await store.delete(record.key)

        await check_nothing_is_there(store, record)
        assert await ids_of(store, other) == ["msg_1"]

    async def test_another_partition_sees_and_changes_nothing(self, store: Conversations) -> None:
        record, foreign = conversation_of(a="1"), conversation_of(partition=ADA)
        await store.create(record, [message_of("msg_1")])

        await check_nothing_is_there(store, foreign)

        assert await store.get(record.key) == record
        assert await ids_of(store, record) == ["msg_1"]

    async def test_a_new_head_knows_no_session(self, store: Conversations) -> None:
        empty, full = conversation_of(), conversation_of("conv_2")
        await store.create(empty, [])
        await store.create(full, [message_of("msg_1"), message_of("msg_2")])

        heads = [await head_of(store, empty), await head_of(store, full)]

        assert [head.context.length for head in heads] == [0, 2]
        assert [session_of(head) for head in heads] == [(None, 0), (None, 2)]
        assert heads[0].position < heads[1].position

    async def test_a_head_that_somebody_has_never_changes(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [message_of("msg_1")])
        before = await head_of(store, record)

        await take_turn(store, record, "resp_1")
        await store.append(record.key, [message_of("msg_2")])
        await store.remove(record.key, "msg_1")

        assert before.context.all_items() == (message_of("msg_1"),)


class ConversationItemsSuite:
    """`ConversationItems`: what becomes of items."""

    async def test_an_item_comes_back_as_it_was_stored(self, store: Conversations) -> None:
        record = conversation_of()
        hard = message_of("msg_1", "a\x00\ud83d \udc00\u2028é👩\u200d👧")
        call: JsonObject = {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_\x00\ud800",
            "name": "f",
            "arguments": '{"a": 1e999}',
            "vendor": {"deep": [None, True, 1.5, 2**53, {"": []}]},
        }
        await store.create(record, [hard])
        await store.append(record.key, [call])

        assert await store.item(record.key, "msg_1") == hard
        assert await store.item(record.key, "fc_1") == call
        assert await items_of(store, record) == [hard, call]

    async def test_items_stay_in_the_order_in_which_they_came(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [message_of("msg_9"), message_of("msg_1")])

        await store.append(record.key, [message_of("msg_5"), message_of("msg_0")])
        await store.append(record.key, [])
        await take_turn(store, record, "resp_1")
        await store.append(record.key, [message_of("msg_3")])

        expected = ["msg_9", "msg_1", "msg_5", "msg_0", "msg_resp_1_question", "msg_resp_1_answer", "msg_3"]
        assert await ids_of(store, record) == expected

    async def test_all_items_are_appended_or_none(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [message_of("msg_1")])
        before = await head_of(store, record)

        for names in (["msg_2", "msg_1"], ["msg_2", "msg_3", "msg_2"]):
            with pytest.raises(AlreadyExists):
                await store.append(record.key, [message_of(name, "other") for name in names])

        assert await items_of(store, record) == [message_of("msg_1")]
        assert (await head_of(store, record)).position == before.position
        await store.append(record.key, [message_of("msg_2")])
        assert await ids_of(store, record) == ["msg_1", "msg_2"]

    async def test_two_conversations_may_have_an_item_of_one_id(self, store: Conversations) -> None:
        record, other = conversation_of(), conversation_of("conv_2")
        await store.create(record, [message_of("msg_1", "one"), message_of("msg_2")])
        await store.create(other, [message_of("msg_1", "other")])

        assert await store.remove(record.key, "msg_1")

        assert await store.item(record.key, "msg_1") is None
        assert await store.item(other.key, "msg_1") == message_of("msg_1", "other")
        assert await store.item(other.key, "msg_2") is None

    async def test_a_removed_item_is_gone_and_its_id_is_free(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [message_of(f"msg_{number}") for number in range(3)])

        assert await store.remove(record.key, "msg_1")
        assert not await store.remove(record.key, "msg_1")

        assert await store.item(record.key, "msg_1") is None
        assert await ids_of(store, record) == ["msg_0", "msg_2"]
        assert await store.page(record.key, ListQuery(after="msg_1")) is None
        await store.append(record.key, [message_of("msg_1", "again")])
        assert await ids_of(store, record) == ["msg_0", "msg_2", "msg_1"]

    async def test_every_item_can_be_removed(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [message_of("msg_1")])
        await take_turn(store, record, "resp_1")
        await store.append(record.key, [message_of("msg_2")])

        for name in ("msg_resp_1_answer", "msg_2", "msg_1", "msg_resp_1_question"):
            assert await store.remove(record.key, name)

        assert await items_of(store, record) == []
        await take_turn(store, record, "resp_2")
        assert len(await items_of(store, record)) == 2

    async def test_a_page_is_what_its_query_says(self, store: Conversations) -> None:
        record = conversation_of()
        items = [message_of(f"msg_{number}") for number in range(6)]
        await store.create(record, [*items[:2], message_of("msg_x")])
        await store.append(record.key, items[2:])
        await store.remove(record.key, "msg_x")
        cursors = [None, *(str(item["id"]) for item in items)]

        for order, limit, after, before in product(("asc", "desc"), (1, 3, 6, 7), cursors, cursors):
            query = ListQuery(limit=limit, order=order, after=after, before=before)  # type: ignore[arg-type]
            expected = page(items, query)
            found = await store.page(record.key, query)
            assert found is not None
            assert (list(found[0]), found[1]) == (expected["data"], expected["has_more"]), query

    async def test_a_page_of_an_empty_conversation_is_empty(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])

        found = await store.page(record.key, ListQuery())

        assert found is not None
        assert (list(found[0]), found[1]) == ([], False)

    @pytest.mark.parametrize("cursor", ["after", "before"])
    async def test_there_is_no_page_at_an_item_that_is_not_in_the_conversation(
        self, store: Conversations, cursor: str
    ) -> None:
        record, other = conversation_of(), conversation_of("conv_2")
        await store.create(record, [message_of("msg_1")])
        await store.create(other, [message_of("msg_2")])

        for name in ("msg_2", "msg_", "MSG_1", "msg_1 ", "%"):
            assert await store.page(record.key, ListQuery(**{cursor: name})) is None  # type: ignore[arg-type]

    async def test_many_items_are_kept(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])
        names = [f"msg_{number}" for number in range(230)]
        for start in range(0, len(names), 20):
            await store.append(record.key, [message_of(name) for name in names[start : start + 20]])

        assert await ids_of(store, record) == names

    async def test_concurrent_appends_lose_nothing(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])

        await asyncio.gather(
            *(
                store.append(record.key, [message_of(f"msg_{number}_a"), message_of(f"msg_{number}_b")])
                for number in range(20)
            )
        )

        found = await ids_of(store, record)
        assert len(found) == 40
        # What came together stays together.
        pairs = [(first[:-2], second[:-2]) for first, second in zip(found[::2], found[1::2], strict=True)]
        assert all(first == second for first, second in pairs)

    async def test_of_concurrent_items_with_one_id_one_is_kept(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])

        results = await asyncio.gather(
            *(store.append(record.key, [message_of("msg_1", str(number))]) for number in range(10)),
            return_exceptions=True,
        )

        assert [result for result in results if not isinstance(result, AlreadyExists)] == [None]
        assert await ids_of(store, record) == ["msg_1"]


class ConversationStoreSuite(ConversationsSuite, ConversationItemsSuite, ConversationLocksSuite):
    """What a store of conversations must do. Inherit, and define a fixture `store` with an empty `Conversations`."""
