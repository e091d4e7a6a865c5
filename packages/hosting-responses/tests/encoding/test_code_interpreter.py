"""Code interpreter calls of any provider."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, Content

OUTPUTS = frozenset({"code_interpreter_call.outputs"})


def code(text: str, **fields: Any) -> AgentResponseUpdate:
    inputs = [Content.from_text(text)]
    return AgentResponseUpdate(
        contents=[Content.from_code_interpreter_tool_call(call_id="i1", inputs=inputs, **fields)]
    )


def ran(*outputs: Content, **fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(
        contents=[Content.from_code_interpreter_tool_result(call_id="i1", outputs=outputs, **fields)]
    )


@pytest.mark.behaviour("B4")
def test_code_streams_and_then_runs(encode: Any) -> None:
    encoded = encode(
        code("print("),
        code("1)"),
        code("print(1)", merge_mode="replace"),
        ran(Content.from_text("1\n"), Content.from_uri("data:image/png;base64,AAAA")),
        include=OUTPUTS,
    )

    assert encoded.kinds[2:-1] == [
        "output_item.added",
        "code_interpreter_call.in_progress",
        "code_interpreter_call_code.delta",
        "code_interpreter_call_code.delta",
        "code_interpreter_call_code.done",
        "code_interpreter_call.interpreting",
        "code_interpreter_call.completed",
        "output_item.done",
    ]
    assert encoded.output[0]["code"] == "print(1)"
    assert encoded.output[0]["outputs"] == [
        {"type": "logs", "logs": "1\n"},
        {"type": "image", "url": "data:image/png;base64,AAAA"},
    ]


def test_outputs_are_null_unless_included(encode: Any) -> None:
    encoded = encode(code("1"), ran(Content.from_text("1")))

    assert encoded.events[2]["item"]["outputs"] is None
    assert encoded.output[0]["outputs"] is None


@pytest.mark.behaviour("C3")
def test_code_that_failed_says_no_more_than_that(encode: Any) -> None:
    encoded = encode(code("1"), ran(Content.from_text("secret"), status="failed"), include=OUTPUTS)

    assert encoded.output[0]["status"] == "failed"
    assert encoded.output[0]["outputs"] == [{"type": "logs", "logs": "The tool call failed."}]


def test_outputs_without_code_are_a_whole_item(encode: Any) -> None:
    assert encode(ran(Content.from_text("1"))).output[0]["status"] == "completed"


@pytest.mark.behaviour("B8")
def test_code_that_never_ran_is_incomplete_and_its_text_is_closed(encode: Any) -> None:
    encoded = encode(code("print("), ending="fail")

    assert encoded.output[0]["status"] == "incomplete"
    assert encoded.output[0]["code"] == "print("
