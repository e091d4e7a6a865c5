"""Web and file searches."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, Content

PROGRESS = ["in_progress", "searching", "completed"]


def opened(tool: str, **fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_search_tool_call("s1", tool_name=tool, **fields)])


def ended(tool: str, **fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_search_tool_result("s1", tool_name=tool, **fields)])


@pytest.mark.behaviour("B4")
@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        ({"query": "q"}, {"type": "search", "query": "q"}),
        ('{"query":"q"}', {"type": "search", "query": "q"}),
        ("plain words", {"type": "search", "query": "plain words"}),
        ({"queries": ["a", "b"]}, {"type": "search", "query": "a", "queries": ["a", "b"]}),
        ({"type": "open_page", "url": "https://a.b"}, {"type": "open_page", "url": "https://a.b"}),
        ({"type": "find_in_page", "url": "u", "pattern": "p"}, {"type": "find_in_page", "pattern": "p", "url": "u"}),
        (None, {"type": "search", "query": ""}),
    ],
)
def test_a_web_search_tells_its_action_at_the_end(arguments: Any, action: Any, encode: Any) -> None:
    encoded = encode(opened("web_search", arguments=arguments), ended("web_search"))

    names = [f"web_search_call.{name}" for name in PROGRESS]
    assert encoded.kinds[2:-1] == ["output_item.added", *names, "output_item.done"]
    assert encoded.events[2]["item"] == {"id": "ws_1", "type": "web_search_call", "status": "in_progress"}
    assert encoded.output[0]["action"] == action


def test_a_web_search_known_by_its_result_only_is_a_whole_item(encode: Any) -> None:
    encoded = encode(ended("web_search", result={"action": {"type": "search", "query": "q"}}))

    assert encoded.output[0]["action"] == {"type": "search", "query": "q"}


@pytest.mark.behaviour("B4")
def test_a_file_search_tells_results_only_when_included(encode: Any) -> None:
    found = {"file_id": "f", "filename": "n", "score": 0.5, "text": "t", "attributes": {"k": 1}, "other": 1}
    run = [opened("file_search", arguments={"queries": ["q"]}), ended("file_search", result={"results": [found]})]

    hidden = encode(*run)
    included = encode(*run, include=frozenset({"file_search_call.results"}))

    assert hidden.output[0]["queries"] == ["q"]
    assert hidden.output[0]["results"] is None
    assert included.output[0]["results"] == [{name: found[name] for name in found if name != "other"}]


@pytest.mark.parametrize("tool", ["web_search", "file_search"])
def test_a_failed_search_is_failed(tool: str, encode: Any) -> None:
    encoded = encode(opened(tool), ended(tool, status="failed"))

    assert encoded.output[0]["status"] == "failed"
    assert f"{tool}_call.completed" not in encoded.kinds


@pytest.mark.parametrize("tool", ["web_search", "file_search"])
def test_a_search_that_never_ended_is_incomplete(tool: str, encode: Any) -> None:
    assert encode(opened(tool)).output[0]["status"] == "incomplete"


def test_the_providers_sources_are_told_only_when_included(encode: Any) -> None:
    action = {"type": "search", "query": "q", "queries": None, "sources": [{"type": "url", "url": "u"}]}
    raw = {"type": "web_search_call", "id": "ws_up", "status": "completed", "action": action}
    run = [ended("web_search", raw_representation=raw)]

    hidden = encode(*run)
    included = encode(*run, include=frozenset({"web_search_call.action.sources"}))

    assert hidden.output[0]["action"] == {"type": "search", "query": "q"}
    assert included.output[0]["action"]["sources"] == [{"type": "url", "url": "u"}]
