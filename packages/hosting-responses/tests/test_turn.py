"""What a turn says of itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_framework_hosting.isolation import SHARED, IsolationKeys
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus
from agent_framework_hosting.runs.memory import MemoryRunEngine, MemoryRunLog
from agent_framework_hosting.types import ChannelRequest
from agent_framework_hosting_responses.protocol.encoder import ResponseEncoder
from agent_framework_hosting_responses.stores.base import ResponseRecord
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore
from agent_framework_hosting_responses.turn import Turn


def turn_of(**record: Any) -> Turn:
    return Turn(
        record=ResponseRecord(
            key=RunKey(SHARED, RunId("resp_1")), status=RunStatus.IN_PROGRESS, created_at=1, body=b"{}", **record
        ),
        request=ChannelRequest(channel="responses", operation="responses.create", input=""),
        isolation=IsolationKeys(),
        encoder=ResponseEncoder({"status": "in_progress"}),
        store=MemoryResponseStore(conversations=MemoryConversationStore()),
        log=MemoryRunLog(),
        engine=MemoryRunEngine(),
    )


@pytest.mark.parametrize(
    ("mode", "is_observed"),
    [({}, False), ({"is_streamed": True}, True), ({"is_background": True}, True)],
)
async def test_a_run_is_observed_if_somebody_can_read_its_events(mode: dict[str, bool], *, is_observed: bool) -> None:
    turn = turn_of(**mode)

    assert turn.is_observed is is_observed
    assert turn.key == RunKey(SHARED, RunId("resp_1"))


async def test_of_a_response_that_is_not_stored_only_its_process_knows() -> None:
    assert turn_of(is_stored=False, owner="here").only_owner == "here"
    assert turn_of(owner="here").only_owner == ""


async def test_turns_share_nothing() -> None:
    one, other = turn_of(), turn_of()

    async with one.ending:
        await asyncio.wait_for(other.ending.acquire(), 60)
    one.opened.set()
    assert not other.opened.is_set()
    assert one.untold is not other.untold
