"""The helpers of the suites for stores of responses say what the suites take them to say."""

from __future__ import annotations

import msgspec
import pytest

from agent_framework_hosting.runs.base import RunStatus
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore
from agent_framework_hosting_responses.testing.response_turns import (
    RUNNING,
    TERMINAL,
    check_nothing_is_there,
    ended_of,
    key_of,
    take_turn,
    turns_of,
)


def test_every_status_is_of_one_kind() -> None:
    assert sorted([*RUNNING, *TERMINAL]) == sorted(RunStatus)


def test_a_body_has_the_output_of_its_record() -> None:
    record = ended_of("resp_1")

    assert msgspec.json.decode(record.body)["output"] == list(record.output)


async def test_what_is_there_is_noticed() -> None:
    store = MemoryResponseStore()
    await take_turn(store, "resp_1")
    await take_turn(store, "resp_2", "resp_1")

    assert await turns_of(store, "resp_2") == ["resp_1", "resp_2"]
    with pytest.raises(AssertionError):
        await check_nothing_is_there(store, key_of("resp_1"))
