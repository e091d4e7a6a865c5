"""The record of a response."""

from __future__ import annotations

from typing import Any

import pytest

from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus
from agent_framework_hosting_responses.stores.base import ResponseRecord, ResponseStore
from agent_framework_hosting_responses.stores.context import Context
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore


def record(**fields: Any) -> ResponseRecord:
    key = RunKey(SHARED, RunId("resp_1"))
    return ResponseRecord(key=key, status=RunStatus.COMPLETED, created_at=1, body=b"{}", **fields)


def test_the_context_of_a_continuation_is_context_then_input_then_output() -> None:
    stored = record(input=({"id": "msg_2"}, {"id": "msg_3"}), output=({"id": "msg_4"},))

    after = stored.context_after(Context(({"id": "msg_1"},)))

    assert [item["id"] for item in after.all_items()] == ["msg_1", "msg_2", "msg_3", "msg_4"]
    assert after.length == 4


def test_a_record_is_a_snapshot_that_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        record().status = RunStatus.FAILED  # type: ignore[misc]


def test_a_new_record_is_a_stored_foreground_one_that_nobody_has_begun() -> None:
    stored = record()

    assert (stored.attempt, stored.is_background, stored.is_stored, stored.has_session) == (0, False, True, False)
    assert stored.context_after(None).all_items() == ()


def test_the_store_in_memory_is_a_response_store() -> None:
    store: ResponseStore = MemoryResponseStore()

    assert store is not None
