"""What a store of answered questions must do, as tests to inherit."""
# ruff: noqa: D102  the tests are named as sentences
# ruff: noqa: S101  they are tests

from __future__ import annotations

import asyncio

import pytest

from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import RunId, RunKey

from ..stores.base import AnsweredAlready, QuestionKey, Settlements

ADA, BOB = Partition("ada"), Partition("bob")
FIRST, SECOND = QuestionKey(ADA, "resp_1", "mcpr_1"), QuestionKey(ADA, "resp_1", "mcpr_2")
WAITS = QuestionKey(ADA, "resp_1")


def by(number: int, partition: Partition = ADA) -> RunKey:
    """Return the name of a response that answers."""
    return RunKey(partition, RunId(f"resp_by_{number}"))


class SettlementsSuite:
    """`Settlements`: who answers first has answered. Give it a fixture `settlements`, empty for every test."""

    async def test_a_question_is_settled_once(self, settlements: Settlements) -> None:
        assert not await settlements.is_settled(FIRST)
        await settlements.settling([FIRST], by=by(1)).finish()
        assert await settlements.is_settled(FIRST)
        assert not await settlements.is_settled(SECOND)
        assert not await settlements.is_settled(FIRST._replace(partition=BOB))

        with pytest.raises(AnsweredAlready) as again:
            await settlements.settling([FIRST], by=by(2)).finish()
        assert again.value.question == FIRST
        await settlements.settling([SECOND], by=by(2)).finish()
        await settlements.settling([WAITS], by=by(2)).finish()
        await settlements.settling([FIRST._replace(partition=BOB)], by=by(2, BOB)).finish()

    async def test_all_are_settled_or_none(self, settlements: Settlements) -> None:
        await settlements.settling([SECOND], by=by(1)).finish()

        with pytest.raises(AnsweredAlready):
            await settlements.settling([FIRST, SECOND], by=by(2)).finish()
        await settlements.settling([FIRST], by=by(3)).finish()

    async def test_what_is_opened_again_can_be_settled_again(self, settlements: Settlements) -> None:
        await settlements.settling([WAITS], by=by(1)).finish()
        await settlements.settling([FIRST], by=by(2)).finish()
        await settlements.reopen(by(1, BOB))
        with pytest.raises(AnsweredAlready):
            await settlements.settling([WAITS], by=by(3)).finish()

        assert await settlements.is_settled(WAITS)
        await settlements.reopen(by(1))
        await settlements.reopen(by(1))
        assert not await settlements.is_settled(WAITS)

        await settlements.settling([WAITS], by=by(3)).finish()
        with pytest.raises(AnsweredAlready):
            await settlements.settling([FIRST], by=by(3)).finish()

    async def test_what_is_not_stored_settles_as_well(self, settlements: Settlements) -> None:
        await settlements.settling([WAITS], by=by(1), owner="here").finish()
        with pytest.raises(AnsweredAlready):
            await settlements.settling([WAITS], by=by(2)).finish()

        await settlements.reopen(by(1))
        await settlements.settling([WAITS], by=by(2), owner="here").finish()
        await settlements.confirm([WAITS], by=by(2))

        with pytest.raises(AnsweredAlready):
            await settlements.settling([WAITS], by=by(3)).finish()

    async def test_one_of_many_settles(self, settlements: Settlements) -> None:
        def settle(number: int) -> asyncio.Future[None]:
            questions = [FIRST, SECOND] if number % 2 else [SECOND, FIRST]
            return asyncio.ensure_future(settlements.settling(questions, by=by(number)).finish())

        results = await asyncio.gather(*(settle(number) for number in range(8)), return_exceptions=True)

        assert sorted(isinstance(result, AnsweredAlready) for result in results) == [False] + [True] * 7
