"""Which raw objects are output items, and what of them is visible."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from openai.types.responses import ResponseFunctionWebSearch, ResponseReasoningItem

from agent_framework_hosting_responses.protocol.items.source import member, responses_item, visible


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "text",
        7,
        {},
        {"type": 7},
        {"type": "novel"},
        SimpleNamespace(type="message"),
        [],
        [{"type": "novel"}],
        {"type": "message", "id": 7},
    ],
)
def test_what_is_no_output_item_is_none(raw: Any) -> None:
    assert responses_item(raw) is None


def test_optional_nulls_are_left_out_and_the_others_are_there() -> None:
    assert responses_item({"type": "reasoning", "id": "rs", "summary": [], "status": None}) == {
        "type": "reasoning",
        "id": "rs",
        "summary": [],
    }
    assert responses_item({"type": "mcp_call", "id": "m"}) == {
        "type": "mcp_call",
        "id": "m",
        "output": None,
        "error": None,
        "approval_request_id": None,
    }


@pytest.mark.parametrize(
    "kind", ["compaction", "custom_tool_call", "mcp_approval_request", "mcp_list_tools", "reasoning"]
)
def test_items_without_a_status_lose_the_one_that_a_provider_gave_them(kind: str) -> None:
    assert responses_item({"type": kind, "id": "x", "status": "completed"}) == {"type": kind, "id": "x"}


def test_an_object_of_the_official_client_is_what_was_on_the_wire() -> None:
    raw = ResponseReasoningItem.model_validate({"type": "reasoning", "id": "rs", "summary": []})

    assert responses_item(raw) == {"type": "reasoning", "id": "rs", "summary": []}


def test_an_action_has_no_nulls_either() -> None:
    raw = ResponseFunctionWebSearch.model_validate(
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "open_page", "url": None}}
    )

    assert (responses_item(raw) or {})["action"] == {"type": "open_page"}


def test_of_merged_raw_objects_the_last_item_counts() -> None:
    first, last = {"type": "compaction", "id": "1"}, {"type": "compaction", "id": "2"}

    assert responses_item([first, last, {"type": "event"}]) == last


@pytest.mark.parametrize(
    ("item", "hidden", "include"),
    [
        (
            {"type": "file_search_call", "results": [1]},
            {"type": "file_search_call", "results": None},
            "file_search_call.results",
        ),
        (
            {"type": "code_interpreter_call", "outputs": [1]},
            {"type": "code_interpreter_call", "outputs": None},
            "code_interpreter_call.outputs",
        ),
        (
            {"type": "web_search_call", "action": {"type": "search", "sources": [1]}},
            {"type": "web_search_call", "action": {"type": "search"}},
            "web_search_call.action.sources",
        ),
    ],
)
def test_what_is_not_included_is_not_visible(item: Any, hidden: Any, include: str) -> None:
    assert visible(item, frozenset()) == hidden
    assert visible(item, frozenset({include})) == item


def test_a_member_is_read_from_mappings_and_objects() -> None:
    assert member({"a": 1}, "a") == member(SimpleNamespace(a=1), "a") == 1
    assert member(None, "a") is None
