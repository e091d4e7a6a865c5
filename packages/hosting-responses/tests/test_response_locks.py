"""The suite for responses in conversations fails for a store that breaks its rules; `test_response_stores.py` runs it."""

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
from agent_framework_hosting_responses.testing.response_locks import ResponseLocksSuite


class NeverLocks(MemoryResponseStore):
    async def create(
        self, record: ResponseRecord, context: Context | None = None, participants: Sequence[Participant] = ()
    ) -> ResponseRecord | None:
        return await super().create(replace(record, conversation_id=None), context, participants)


class AppendsAll(MemoryResponseStore):
    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        if record.status is RunStatus.FAILED:
            await self._locks.finish(replace(record, status=RunStatus.COMPLETED))
        await super().save(attempt, record)


class AppendsFirst(MemoryResponseStore):
    """Appends before it has looked whether it may write."""

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        await self._locks.finish(record)
        await super().save(attempt, record)


class KeepsTheLock(MemoryResponseStore):
    async def delete(self, key: RunKey) -> bool:
        return self._running.pop(key, None) is not None or self._terminal.pop(key) is not None


@pytest.mark.parametrize(
    ("broken", "test", "arguments"),
    [
        (NeverLocks, "test_a_response_has_its_conversation_until_it_ends", {}),
        (NeverLocks, "test_of_concurrent_responses_in_a_conversation_one_runs", {}),
        (NeverLocks, "test_the_lock_of_the_conversation_store_holds_for_responses", {}),
        (
            AppendsAll,
            "test_the_end_frees_the_conversation_and_appends_what_is_finished",
            {"status": RunStatus.FAILED, "is_one_shot": False},
        ),
        (AppendsFirst, "test_a_stale_end_appends_nothing", {}),
        (KeepsTheLock, "test_a_response_deleted_while_it_runs_gives_the_conversation_back", {}),
    ],
)
async def test_a_store_that_breaks_a_rule_fails(
    broken: type[MemoryResponseStore], test: str, arguments: dict[str, Any]
) -> None:
    run: Any = getattr(ResponseLocksSuite(), test)
    conversations = MemoryConversationStore()

    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        await run(broken(conversations=conversations), conversations, **arguments)

    assert not isinstance(caught.value, (TypeError, AttributeError))
