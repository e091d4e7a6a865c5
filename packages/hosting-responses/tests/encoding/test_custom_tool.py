"""Custom tool calls of the agent's own model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from agent_framework import AgentResponseUpdate

ITEM = {"type": "custom_tool_call", "id": "ctc_up", "call_id": "c1", "name": "f", "input": ""}


def event(kind: str, **fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(raw_representation=SimpleNamespace(type=f"response.{kind}", **fields))


def added() -> AgentResponseUpdate:
    return event("output_item.added", item=ITEM)


def delta(text: str) -> AgentResponseUpdate:
    return event("custom_tool_call_input.delta", item_id="ctc_up", delta=text)


@pytest.mark.behaviour("B4", "B15")
def test_input_streams_as_it_comes(encode: Any) -> None:
    encoded = encode(
        added(), delta("print("), delta("1)"), event("output_item.done", item={**ITEM, "input": "print(1)"})
    )

    assert encoded.deltas("custom_tool_call_input") == ["print(", "1)"]
    assert encoded.output == [{**ITEM, "input": "print(1)"}]


def test_input_known_at_the_end_is_one_delta(encode: Any) -> None:
    encoded = encode(event("output_item.done", item={**ITEM, "input": "x"}))

    assert encoded.deltas("custom_tool_call_input") == ["x"]


def test_a_broken_call_keeps_what_was_written(encode: Any) -> None:
    assert encode(added(), delta("pri"), delta(""), ending="fail").output == [{**ITEM, "input": "pri"}]


def test_a_delta_of_no_call_is_nothing(encode: Any) -> None:
    assert encode(delta("x")).output == []
