"""Items of calls: arguments, free text input, and the server's own calls when they are shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, Content

FUNCTION = {"client_tools": frozenset({"f"})}
CUSTOM = {"custom_tools": frozenset({"f"})}


def call(arguments: Any = None, **fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_function_call("c1", "f", arguments=arguments, **fields)])


def result(**fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_function_result("c1", **fields)], role="tool")


@pytest.mark.behaviour("B3")
def test_a_call_has_the_life_of_the_contract(encode: Any) -> None:
    encoded = encode(call('{"a"'), call(":1}"), **FUNCTION)

    assert encoded.kinds[2:-1] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert encoded.events[2]["item"] == {
        "id": "fc_1",
        "type": "function_call",
        "status": "in_progress",
        "call_id": "c1",
        "name": "f",
        "arguments": "",
    }
    assert encoded.output == [{**encoded.events[2]["item"], "status": "completed", "arguments": '{"a":1}'}]


@pytest.mark.parametrize("arguments", [None, ""])
def test_no_arguments_are_an_empty_object(arguments: Any, encode: Any) -> None:
    encoded = encode(call(arguments), **FUNCTION)

    assert encoded.output[0]["arguments"] == "{}"
    assert encoded.deltas("function_call_arguments") == ["{}"]


def test_arguments_given_as_an_object_become_json_text(encode: Any) -> None:
    encoded = encode(call({"city": "Köln", "n": [1, 2]}), **FUNCTION)

    assert json.loads(encoded.output[0]["arguments"]) == {"city": "Köln", "n": [1, 2]}


def test_whole_arguments_close_the_call_at_once(encode: Any, say: Any) -> None:
    encoded = encode(call({"a": 1}), say("text"), **FUNCTION)

    assert encoded.kinds.index("output_item.done") < encoded.kinds.index("content_part.added")


@pytest.mark.parametrize(
    ("chunks", "text", "deltas"),
    [
        (["print(", "1)"], "print(1)", ["print(", "1)"]),
        (['{"inp', 'ut":"print(1)"}'], "print(1)", ["print(1)"]),
        (['{"a":1}'], '{"a":1}', ['{"a":1}']),
        (["{not json"], "{not json", ["{not json"]),
        ([" ", "x"], " x", None),
        ([], "", []),
    ],
    ids=["text", "wrapped", "an object", "a brace", "blank first", "nothing"],
)
def test_the_input_of_a_custom_tool_is_text(
    chunks: list[str], text: str, deltas: list[str] | None, encode: Any
) -> None:
    encoded = encode(call(), *[call(chunk) for chunk in chunks], **CUSTOM)

    assert encoded.output[0]["type"] == "custom_tool_call"
    assert encoded.output[0]["input"] == text
    if deltas is not None:
        assert encoded.deltas("custom_tool_call_input") == deltas


def test_a_shown_server_call_is_a_call_and_its_output(encode: Any) -> None:
    encoded = encode(call('{"a":1}'), result(result="sunny"), server_calls="function_call")

    assert encoded.output[0]["arguments"] == '{"a":1}'
    assert encoded.output[1] == {
        "id": "fco_1",
        "type": "function_call_output",
        "status": "completed",
        "call_id": "c1",
        "output": "sunny",
    }


def test_a_server_call_may_be_shown_as_an_mcp_call(encode: Any) -> None:
    encoded = encode(call('{"a":1}'), result(result="sunny"), server_calls="mcp_call", server_label="me")

    assert encoded.output == [
        {
            "id": "mcp_1",
            "type": "mcp_call",
            "status": "completed",
            "approval_request_id": None,
            "arguments": '{"a":1}',
            "error": None,
            "name": "f",
            "output": "sunny",
            "server_label": "me",
        }
    ]


@pytest.mark.behaviour("C3")
@pytest.mark.parametrize("form", ["hide", "function_call", "mcp_call"])
def test_a_failed_tool_says_no_more_than_that(form: str, encode: Any) -> None:
    encoded = encode(call("{}"), result(result="Error: secret", exception="ValueError: secret"), server_calls=form)

    assert "secret" not in str(encoded.events)
    if form != "hide":
        assert "The tool call failed." in str(encoded.output)


def test_a_result_with_more_than_text_is_shown_as_parts(encode: Any) -> None:
    parts = [Content.from_text("see"), Content.from_uri("https://a.b/c.png", media_type="image/png")]

    encoded = encode(call("{}"), result(result=parts), server_calls="function_call")

    assert [part["type"] for part in encoded.output[1]["output"]] == ["input_text", "input_image"]


def test_a_clients_call_that_the_server_answered_after_all_keeps_its_item(encode: Any) -> None:
    hidden = encode(call('{"a"'), result(result="x"), **FUNCTION)
    shown = encode(call("{}"), result(result="x"), server_calls="function_call", **FUNCTION)

    assert [item["type"] for item in hidden.output] == ["function_call"]
    assert [item["type"] for item in shown.output] == ["function_call", "function_call_output"]


def test_the_providers_own_custom_call_passes_through(encode: Any) -> None:
    raw = {"type": "custom_tool_call", "id": "ctc_up", "call_id": "c1", "name": "f", "input": "x", "namespace": None}

    encoded = encode(call("x", informational_only=True, hosted=True, raw_representation=raw))

    assert encoded.output == [{"type": "custom_tool_call", "id": "ctc_up", "call_id": "c1", "name": "f", "input": "x"}]


@pytest.mark.parametrize("ending", ["stop", "length"])
def test_a_call_of_a_custom_tool_has_no_status(ending: Any, encode: Any) -> None:
    call = Content.from_function_call("c1", "custom", arguments="free")

    encoded = encode(AgentResponseUpdate(contents=[call], finish_reason=ending), custom_tools=frozenset({"custom"}))

    assert encoded.output == [
        {"id": "ctc_1", "type": "custom_tool_call", "call_id": "c1", "name": "custom", "input": "free"}
    ]
