"""The suite for stores of responses, run on the store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from agent_framework_hosting.runs.base import Attempt, Participant, RunKey, RunStatus
from agent_framework_hosting_responses.stores.base import ResponseRecord
from agent_framework_hosting_responses.stores.context import Context
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore
from agent_framework_hosting_responses.testing.response_stores import ResponseStoreSuite


class TestMemoryResponseStore(ResponseStoreSuite):
    @pytest.fixture
    def conversations(self) -> MemoryConversationStore:
        return MemoryConversationStore()

    @pytest.fixture
    def store(self, conversations: MemoryConversationStore) -> MemoryResponseStore:
        return MemoryResponseStore(conversations=conversations)


class Overwrites(MemoryResponseStore):
    async def create(
        self, record: ResponseRecord, context: Context | None = None, participants: Sequence[Participant] = ()
    ) -> ResponseRecord | None:
        await self.delete(record.key)
        return await super().create(record, context, participants)


class Unfenced(MemoryResponseStore):
    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        entry = self._running.get(attempt.key)
        number = attempt.number if entry is None else entry.record.attempt
        await super().save(Attempt(attempt.key, number), record)


class ForgetsTheOwner(MemoryResponseStore):
    async def begin(self, key: RunKey, *, owner: str = "") -> Attempt | None:
        return await super().begin(key)


class KnowsNoKeys(MemoryResponseStore):
    async def create(
        self, record: ResponseRecord, context: Context | None = None, participants: Sequence[Participant] = ()
    ) -> ResponseRecord | None:
        return await super().create(replace(record, idempotency_key=None), context, participants)


@pytest.mark.parametrize(
    ("broken", "test", "arguments"),
    [
        (Overwrites, "test_an_id_is_taken_once_in_each_partition", {"status": RunStatus.COMPLETED}),
        (Overwrites, "test_of_concurrent_responses_with_one_id_one_is_stored", {}),
        (Unfenced, "test_the_latest_attempt_alone_may_write", {}),
        (ForgetsTheOwner, "test_whoever_begins_an_attempt_owns_the_response", {}),
        (KnowsNoKeys, "test_a_response_comes_back_as_it_was_stored", {"status": RunStatus.COMPLETED}),
        (
            KnowsNoKeys,
            "test_a_key_names_the_response_that_was_made_with_it_first",
            {"status": RunStatus.COMPLETED},
        ),
        (KnowsNoKeys, "test_of_concurrent_responses_with_one_key_one_is_stored", {}),
    ],
)
async def test_a_store_that_breaks_a_rule_fails(
    broken: type[MemoryResponseStore], test: str, arguments: dict[str, Any]
) -> None:
    run: Any = getattr(ResponseStoreSuite(), test)

    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        await run(broken(), **arguments)
