"""The suite for answered questions fails for a store that breaks its rules; it is run on good ones beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import Participant, RunKey
from agent_framework_hosting_responses.stores.base import AnsweredAlready, QuestionKey
from agent_framework_hosting_responses.stores.memory_settlements import MemorySettlements
from agent_framework_hosting_responses.testing.settlements import SettlementsSuite


class SettlesAll(MemorySettlements):
    def settling(self, questions: Collection[QuestionKey], *, by: RunKey, owner: str = "") -> Participant:
        return super().settling([], by=by, owner=owner)


class OnePartition(MemorySettlements):
    def settling(self, questions: Collection[QuestionKey], *, by: RunKey, owner: str = "") -> Participant:
        shared = Partition("")
        return super().settling([each._replace(partition=shared) for each in questions], by=by, owner=owner)


class OneByOne(MemorySettlements):
    def settling(self, questions: Collection[QuestionKey], *, by: RunKey, owner: str = "") -> Participant:
        each = [super(OneByOne, self).settling([question], by=by, owner=owner) for question in questions]

        async def settle() -> None:
            for participant in each:
                await participant.finish()

        return Participant(alone=settle)


class LooksThenWrites(MemorySettlements):
    """Two who look at the same moment both find nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[QuestionKey] = set()

    def settling(self, questions: Collection[QuestionKey], *, by: RunKey, owner: str = "") -> Participant:
        del by, owner

        async def settle() -> None:
            taken = self.seen.intersection(questions)
            await asyncio.sleep(0)
            if taken:
                raise AnsweredAlready(taken.pop())
            self.seen.update(questions)

        return Participant(alone=settle)


class NeverOpen(MemorySettlements):
    async def reopen(self, by: RunKey) -> None:
        pass


class ConfirmForgets(MemorySettlements):
    async def confirm(self, questions: Collection[QuestionKey], *, by: RunKey) -> None:
        del questions
        await self.reopen(by)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (SettlesAll, "test_a_question_is_settled_once"),
        (OnePartition, "test_a_question_is_settled_once"),
        (OneByOne, "test_all_are_settled_or_none"),
        (NeverOpen, "test_what_is_opened_again_can_be_settled_again"),
        (ConfirmForgets, "test_what_is_not_stored_settles_as_well"),
        (LooksThenWrites, "test_one_of_many_settles"),
    ],
)
async def test_a_store_that_breaks_a_rule_fails(broken: type[MemorySettlements], test: str) -> None:
    run: Any = getattr(SettlementsSuite(), test)

    with pytest.raises((AssertionError, AnsweredAlready, pytest.fail.Exception)):
        await run(broken())
