"""The suite for contexts fails for a store that breaks its rules; it is run on good ones in `test_response_stores.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agent_framework_hosting.runs.base import Participant, RunId, RunKey, RunStatus
from agent_framework_hosting_responses.stores.base import ResponseRecord
from agent_framework_hosting_responses.stores.context import Context
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore
from agent_framework_hosting_responses.testing.response_contexts import ResponseContextsSuite


class ForgetsNotes(MemoryResponseStore):
    async def context(self, key: RunKey) -> Context | None:
        context = await super().context(key)
        return None if context is None else Context(context.items, parent=context.parent, response_id=key.run_id)


class LooksUpParents(MemoryResponseStore):
    """Loses what deleted responses have left."""

    async def context(self, key: RunKey) -> Context | None:
        record = await self.get(key)
        if record is None:
            return None
        previous = record.previous_response_id
        parent = None if previous is None else await self.context(RunKey(key.partition, RunId(previous)))
        return record.context_after(parent)


class IgnoresPartitions(LooksUpParents):
    """Looks for parents in every partition, in its own last."""

    async def context(self, key: RunKey) -> Context | None:
        others = {other.partition for other in (*self._running, *self._terminal._entries)} - {key.partition}
        for partition in (*others, key.partition):
            if found := await super().context(RunKey(partition, key.run_id)):
                return found
        return None


class SkipsFailed(MemoryResponseStore):
    async def create(
        self, record: ResponseRecord, context: Context | None = None, participants: Sequence[Participant] = ()
    ) -> ResponseRecord | None:
        previous = record.previous_response_id
        known = None if previous is None else await self.get(RunKey(record.key.partition, RunId(previous)))
        is_failed = known is not None and known.status is RunStatus.FAILED
        return await super().create(record, context.parent if context and is_failed else context, participants)


@pytest.mark.parametrize(
    ("broken", "test", "arguments"),
    [
        (
            ForgetsNotes,
            "test_the_context_after_a_response_is_what_it_was_asked_and_answered",
            {"is_one_shot": True},
        ),
        (LooksUpParents, "test_a_response_may_be_deleted_while_another_one_continues_it", {}),
        (LooksUpParents, "test_a_branch_outlives_the_other", {}),
        (
            LooksUpParents,
            "test_what_a_deleted_response_left_stays_with_those_that_continue_it",
            {"gone": ["a"]},
        ),
        (
            LooksUpParents,
            "test_a_response_that_was_deleted_before_the_next_one_was_stored_is_not_missing_in_it",
            {"is_one_shot": False},
        ),
        (IgnoresPartitions, "test_chains_of_two_partitions_with_the_same_ids_do_not_touch", {}),
        (SkipsFailed, "test_every_end_leaves_a_context", {"status": RunStatus.FAILED}),
    ],
)
async def test_a_store_that_breaks_a_rule_fails(
    broken: type[MemoryResponseStore], test: str, arguments: dict[str, Any]
) -> None:
    run: Any = getattr(ResponseContextsSuite(), test)

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await run(broken(), **arguments)
