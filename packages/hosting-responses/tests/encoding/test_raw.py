"""Items of the provider's own stream, passed through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, ChatResponseUpdate, Content
from openai.types.responses.response_output_item import McpListTools

LIST = {"type": "mcp_list_tools", "id": "mcpl_up", "server_label": "s", "tools": [{"name": "t", "input_schema": {}}]}


def event(kind: str, **fields: Any) -> AgentResponseUpdate:
    """What the framework makes of an event it has no content for: an empty update around the event."""
    inner = ChatResponseUpdate(raw_representation=SimpleNamespace(type=f"response.{kind}", **fields))
    return AgentResponseUpdate(raw_representation=inner)


@pytest.mark.behaviour("B4")
@pytest.mark.parametrize("as_object", [False, True])
def test_an_item_without_a_content_passes_through(as_object: bool, encode: Any) -> None:
    item = McpListTools.model_validate(LIST) if as_object else LIST

    encoded = encode(event("output_item.added", item=item), event("output_item.done", item=item))

    assert encoded.output == [LIST]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "x"},
        {"type": "program", "id": "prog_1", "call_id": "c", "code": "1", "fingerprint": "f"},
        {
            "type": "tool_search_output",
            "id": "ts_1",
            "call_id": "c",
            "tools": [],
            "execution": "server",
            "status": "completed",
        },
        {
            "type": "apply_patch_call",
            "id": "ap_1",
            "call_id": "c",
            "status": "completed",
            "operation": {"type": "delete_file", "path": "p"},
        },
    ],
    ids=lambda item: item["type"],
)
def test_a_kind_without_progress_is_announced_and_finished(item: Any, encode: Any) -> None:
    encoded = encode(event("output_item.added", item=item), event("output_item.done", item=item))

    assert encoded.kinds[2:-1] == ["output_item.added", "output_item.done"]
    assert encoded.output == [item]


@pytest.mark.behaviour("B14")
def test_a_kind_that_the_api_does_not_know_is_not_invented(encode: Any) -> None:
    item = {"type": "azure_ai_search_call_output", "id": "x"}

    assert encode(event("output_item.done", item=item)).output == []


def test_the_same_item_is_told_once(encode: Any) -> None:
    done = event("output_item.done", item=LIST)

    assert len(encode(done, done).output) == 1


@pytest.mark.behaviour("B2")
def test_the_providers_messages_are_messages(encode: Any, say: Any) -> None:
    first = SimpleNamespace(type="message", phase="commentary", status="completed")
    second = SimpleNamespace(type="message", phase="final_answer", status="completed")

    encoded = encode(
        event("output_item.added", item=first),
        say("hm"),
        event("output_item.done", item=first),
        event("output_item.added", item=second),
        say("yes"),
        event("output_item.done", item=second),
    )

    assert [(item["phase"], item["content"][0]["text"]) for item in encoded.output] == [
        ("commentary", "hm"),
        ("final_answer", "yes"),
    ]


@pytest.mark.behaviour("B7")
def test_the_provider_says_which_message_was_cut(encode: Any, say: Any) -> None:
    cut = SimpleNamespace(type="message", status="incomplete")

    encoded = encode(say("half"), event("output_item.done", item=cut), say("", finish_reason="length"))

    assert encoded.output[0]["status"] == "incomplete"


def test_reasoning_ends_where_the_provider_ends_it(encode: Any, send: Any) -> None:
    encoded = encode(
        send(Content.from_text_reasoning(text="a")),
        event("output_item.done", item=SimpleNamespace(type="reasoning")),
        send(Content.from_text_reasoning(text="b")),
    )

    assert [item["summary"][0]["text"] for item in encoded.output] == ["a", "b"]


@pytest.mark.parametrize(
    "raw",
    [
        {"type": ["object", "null"]},
        {"type": "response.output_item.added", "item": {"type": ["object"]}},
        {"type": "response.output_item.done", "item": {"type": {}}},
    ],
)
def test_raw_objects_of_other_apis_say_nothing(raw: Any, encode: Any, say: Any) -> None:
    encoded = encode(say("a", raw_representation=raw), AgentResponseUpdate(raw_representation=raw), say("b"))

    assert encoded.text == "ab"
    assert len(encoded.output) == 1
