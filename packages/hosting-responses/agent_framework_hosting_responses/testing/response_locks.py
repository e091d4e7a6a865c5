"""What a store of responses must do for responses that run in conversations, as tests to inherit."""
# ruff: noqa: D102  the tests are named as sentences
# ruff: noqa: S101  they are tests

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from agent_framework_hosting.errors import AlreadyExists, StaleWrite
from agent_framework_hosting.runs.base import Attempt, RunStatus

from ..stores.base import (
    ConversationLocked,
    ConversationRecord,
    Conversations,
    ResponseRecord,
    ResponseStore,
    UnknownConversation,
)
from .conversation_turns import conversation_of, head_of, ids_of, message_of, session_of
from .response_turns import ADA, TERMINAL, check_nothing_is_there, ended, key_of, run, running_of


async def started_in(conversations: Conversations, record: ConversationRecord, name: str) -> ResponseRecord:
    """Return a response that starts from the head of the conversation."""
    head = await head_of(conversations, record)
    partition, conversation_id = record.key
    return running_of(name, partition=partition, conversation_id=conversation_id, conversation_position=head.position)


class ResponseLocksSuite:
    """`ResponseStore`: one response at a time in a conversation, and what it leaves there."""

    async def test_a_response_has_its_conversation_until_it_ends(
        self, store: ResponseStore, conversations: Conversations
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [])
        first = await started_in(conversations, record, "resp_1")
        attempt = await run(store, first)

        for other in (running_of("resp_2"), ended(running_of("resp_2"))):
            with pytest.raises(ConversationLocked):
                await store.create(replace(other, conversation_id=first.conversation_id))
        with pytest.raises(ConversationLocked):
            await conversations.lock(replace(first, key=key_of("resp_2")))
        await store.save(attempt, first)
        with pytest.raises(ConversationLocked):
            await store.create(replace(first, key=key_of("resp_2")))
        await check_nothing_is_there(store, key_of("resp_2"))
        assert await ids_of(conversations, record) == []
        await store.save(attempt, ended(first))

        second = await started_in(conversations, record, "resp_2")
        await store.save(await run(store, second), ended(second))
        assert await ids_of(conversations, record) == [
            "msg_resp_1_question",
            "msg_resp_1_answer",
            "msg_resp_2_question",
            "msg_resp_2_answer",
        ]

    async def test_the_lock_of_the_conversation_store_holds_for_responses(
        self, store: ResponseStore, conversations: Conversations
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [])
        first = await started_in(conversations, record, "resp_1")
        await conversations.lock(first)

        with pytest.raises(ConversationLocked):
            await store.create(replace(first, key=key_of("resp_2")))
        await conversations.finish(ended(first))

        assert await store.create(await started_in(conversations, record, "resp_2")) is None

    @pytest.mark.parametrize("end", [lambda record: record, ended])
    async def test_a_response_that_was_prepared_before_another_ended_is_refused(
        self, store: ResponseStore, conversations: Conversations, end: Callable[[ResponseRecord], ResponseRecord]
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [])
        late = await started_in(conversations, record, "resp_2")
        await store.create(ended(await started_in(conversations, record, "resp_1")))

        with pytest.raises(ConversationLocked):
            await store.create(end(late))

        await check_nothing_is_there(store, late.key)
        assert await ids_of(conversations, record) == ["msg_resp_1_question", "msg_resp_1_answer"]

    @pytest.mark.parametrize("status", TERMINAL)
    @pytest.mark.parametrize("is_one_shot", [True, False])
    async def test_the_end_frees_the_conversation_and_appends_what_is_finished(
        self, store: ResponseStore, conversations: Conversations, status: RunStatus, *, is_one_shot: bool
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [message_of("msg_1")])
        running = await started_in(conversations, record, "resp_1")

        if is_one_shot:
            await store.create(ended(running, status))
        else:
            await store.save(await run(store, running), ended(running, status))

        is_appended = status in {RunStatus.COMPLETED, RunStatus.INCOMPLETE}
        new = ["msg_resp_1_question", "msg_resp_1_answer"] if is_appended else []
        assert await ids_of(conversations, record) == ["msg_1", *new]
        head = await head_of(conversations, record)
        assert session_of(head) == (("resp_1", 0) if is_appended else (None, 1))
        assert await store.create(await started_in(conversations, record, "resp_2")) is None

    async def test_of_concurrent_responses_in_a_conversation_one_runs(
        self, store: ResponseStore, conversations: Conversations
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [])
        first = await started_in(conversations, record, "resp")
        keys = [key_of(f"resp_{number}") for number in range(12)]

        results = await asyncio.gather(*(store.create(replace(first, key=key)) for key in keys), return_exceptions=True)

        (winner,) = [key for key, result in zip(keys, results, strict=True) if result is None]
        assert all(isinstance(result, ConversationLocked) for result in results if result is not None)
        assert [key for key in keys if await store.get(key)] == [winner]

    async def test_conversations_of_a_name_in_two_partitions_have_locks_of_their_own(
        self, store: ResponseStore, conversations: Conversations
    ) -> None:
        record, foreign = conversation_of(), conversation_of(partition=ADA)
        for each in (record, foreign):
            await conversations.create(each, [])
            running = await started_in(conversations, each, "resp_1")
            attempt = await run(store, running)
        await store.save(attempt, ended(running))

        assert await ids_of(conversations, record) == []
        assert len(await ids_of(conversations, foreign)) == 2

    @pytest.mark.parametrize("end", [lambda record: record, ended])
    async def test_nothing_is_stored_without_the_conversation(
        self, store: ResponseStore, conversations: Conversations, end: Callable[[ResponseRecord], ResponseRecord]
    ) -> None:
        await conversations.create(conversation_of(partition=ADA), [])

        for name in (conversation_of().key.conversation_id, "", "\x00", "\ud800"):
            running = running_of("resp_1", conversation_id=name, idempotency_key="key")
            with pytest.raises(UnknownConversation):
                await store.create(end(running))
            await check_nothing_is_there(store, running.key)

        assert await store.create(running_of("resp_2", idempotency_key="key")) is None

    async def test_a_taken_id_takes_no_conversation(self, store: ResponseStore, conversations: Conversations) -> None:
        record = conversation_of()
        await conversations.create(record, [])
        running = await started_in(conversations, record, "resp_1")
        await store.create(running_of("resp_1"))

        for other in (running, ended(running)):
            with pytest.raises(AlreadyExists):
                await store.create(other)

        assert await ids_of(conversations, record) == []
        assert await store.create(replace(running, key=key_of("resp_2"))) is None

    async def test_a_known_idempotency_key_comes_before_the_lock(
        self, store: ResponseStore, conversations: Conversations
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [])
        running = replace(await started_in(conversations, record, "resp_1"), idempotency_key="key")
        await store.create(running)

        assert await store.create(replace(running, key=key_of("resp_2"))) == running
        await store.save(await _begun(store, running), ended(running))
        assert await store.create(replace(ended(running), key=key_of("resp_2"))) == ended(running, attempt=1)

        assert len(await ids_of(conversations, record)) == 2

    async def test_a_response_deleted_while_it_runs_gives_the_conversation_back(
        self, store: ResponseStore, conversations: Conversations
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [])
        running = await started_in(conversations, record, "resp_1")
        attempt = await run(store, running)

        assert await store.delete(running.key)
        assert await store.create(replace(running, key=key_of("resp_2"))) is None
        with pytest.raises(StaleWrite):
            await store.save(attempt, ended(running))

        assert await ids_of(conversations, record) == []

    async def test_a_deleted_response_leaves_its_items_in_the_conversation(
        self, store: ResponseStore, conversations: Conversations
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [])
        done = ended(await started_in(conversations, record, "resp_1"))
        await store.create(done)
        running = await started_in(conversations, record, "resp_2")
        await store.create(running)

        assert await store.delete(done.key)

        assert await ids_of(conversations, record) == ["msg_resp_1_question", "msg_resp_1_answer"]
        with pytest.raises(ConversationLocked):
            await store.create(replace(running, key=key_of("resp_3")))

    async def test_a_stale_end_appends_nothing(self, store: ResponseStore, conversations: Conversations) -> None:
        record = conversation_of()
        await conversations.create(record, [])
        running = await started_in(conversations, record, "resp_1")
        stale = await run(store, running)
        attempt = await _begun(store, running)

        with pytest.raises(StaleWrite):
            await store.save(stale, ended(running))
        assert await ids_of(conversations, record) == []
        await store.save(attempt, ended(running))
        for late in (stale, attempt):
            with pytest.raises(StaleWrite):
                await store.save(late, ended(running))

        assert await ids_of(conversations, record) == ["msg_resp_1_question", "msg_resp_1_answer"]

    async def test_a_response_outlives_its_conversation(
        self, store: ResponseStore, conversations: Conversations
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [])
        running = await started_in(conversations, record, "resp_1")
        attempt = await run(store, running)
        await conversations.delete(record.key)

        await store.save(attempt, ended(running))

        assert await store.get(running.key) == ended(running, attempt=1)
        assert await conversations.get(record.key) is None


async def _begun(store: ResponseStore, record: ResponseRecord) -> Attempt:
    attempt = await store.begin(record.key)
    assert attempt is not None
    return attempt
