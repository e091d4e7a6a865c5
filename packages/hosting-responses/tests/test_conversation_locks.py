"""The suite for locks fails for a store that breaks its rules; it is run on good ones in `test_conversation_stores.py`."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from agent_framework_hosting.runs.base import RunStatus
from agent_framework_hosting_responses.protocol.json import JsonObject
from agent_framework_hosting_responses.stores.base import ConversationKey, ResponseRecord
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore
from agent_framework_hosting_responses.testing.conversation_locks import ConversationLocksSuite


class Unlocked(MemoryConversationStore):
    async def lock(self, record: ResponseRecord) -> None:
        pass


class AppendsAll(MemoryConversationStore):
    async def finish(self, record: ResponseRecord) -> None:
        await super().finish(replace(record, status=RunStatus.COMPLETED))


class TrustsEverySession(MemoryConversationStore):
    async def finish(self, record: ResponseRecord) -> None:
        head = await self.head(record.conversation_key) if record.conversation_key else None
        await super().finish(replace(record, conversation_position=head.position) if head else record)


class LetsLateOnesIn(MemoryConversationStore):
    async def lock(self, record: ResponseRecord) -> None:
        head = await self.head(record.conversation_key) if record.conversation_key else None
        await super().lock(replace(record, conversation_position=head.position) if head else record)


class ForgetsNoSession(MemoryConversationStore):
    async def remove(self, key: ConversationKey, item_id: str) -> bool:
        conversation: Any = self._find(key)
        known = {node.response_id for node in conversation.context.nodes() if node.has_session}
        is_removed = await super().remove(key, item_id)
        for node in conversation.context.nodes():
            node.has_session = node.response_id in known
        return is_removed


class ForgetsNotes(MemoryConversationStore):
    async def finish(self, record: ResponseRecord) -> None:
        await super().finish(replace(record, approvals={}, call_ids={}))


class RefusesWhatComesAgain(MemoryConversationStore):
    async def finish(self, record: ResponseRecord) -> None:
        key = record.conversation_key
        items: list[JsonObject] = [*record.input, *record.output]
        if key is None or not [item for item in items if await self.item(key, str(item["id"]))]:
            await super().finish(record)


@pytest.mark.parametrize(
    ("broken", "test", "arguments"),
    [
        (Unlocked, "test_one_response_runs_at_a_time", {}),
        (Unlocked, "test_of_concurrent_responses_one_runs", {}),
        (
            AppendsAll,
            "test_the_end_of_a_response_frees_the_conversation_and_appends_what_is_finished",
            {"status": RunStatus.FAILED},
        ),
        (TrustsEverySession, "test_a_session_that_missed_an_item_is_not_continued", {}),
        (LetsLateOnesIn, "test_a_response_that_was_prepared_before_another_ended_is_refused", {}),
        (ForgetsNoSession, "test_no_session_that_knows_a_removed_item_is_continued", {}),
        (ForgetsNotes, "test_what_the_answer_to_an_approval_needs_stays_with_the_request", {}),
        (ForgetsNotes, "test_call_ids_of_the_target_stay_with_the_calls", {}),
        (RefusesWhatComesAgain, "test_an_item_that_a_response_brings_again_gets_a_new_id", {}),
    ],
)
async def test_a_store_that_breaks_a_rule_fails(
    broken: type[MemoryConversationStore], test: str, arguments: dict[str, Any]
) -> None:
    run: Any = getattr(ConversationLocksSuite(), test)

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await run(broken(), **arguments)
