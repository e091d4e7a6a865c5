"""Answered questions in memory."""

from __future__ import annotations

import pytest

from agent_framework_hosting_responses.stores.memory_settlements import MemorySettlements
from agent_framework_hosting_responses.testing.settlements import FIRST, SECOND, SettlementsSuite, by


class TestMemorySettlements(SettlementsSuite):
    """In one process."""

    @pytest.fixture
    def settlements(self) -> MemorySettlements:
        return MemorySettlements()


async def test_the_oldest_are_forgotten() -> None:
    now = 0.0
    settlements = MemorySettlements(max_age=10, clock=lambda: now)
    await settlements.settling([FIRST], by=by(1)).finish()

    now = 11.0

    await settlements.settling([FIRST, SECOND], by=by(2)).finish()
