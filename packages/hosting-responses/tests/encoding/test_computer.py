"""Computer calls, which end the response, and their screenshots."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, Content

ACTION = {"type": "click", "button": "left", "x": 1, "y": 2}


def experimental(make: Any, **fields: Any) -> AgentResponseUpdate:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AgentResponseUpdate(contents=[make(**fields)])


@pytest.mark.behaviour("B4", "C2")
def test_a_call_is_the_clients_to_run(encode: Any) -> None:
    checks = [{"id": "sc_1", "code": "c", "message": None}]
    update = experimental(
        Content.from_computer_tool_call, id="cu_1", call_id="c1", actions=[ACTION], pending_safety_checks=checks
    )

    assert encode(update).output == [
        {
            "id": "cu_1",
            "type": "computer_call",
            "status": "completed",
            "call_id": "c1",
            "pending_safety_checks": [{"id": "sc_1", "code": "c"}],
            "actions": [ACTION],
        }
    ]


@pytest.mark.behaviour("C2")
@pytest.mark.parametrize(
    ("screenshot", "output"),
    [
        (Content.from_uri("https://a.b/c.png", media_type="image/png"), {"image_url": "https://a.b/c.png"}),
        (Content.from_hosted_file("file_1"), {"file_id": "file_1"}),
    ],
)
def test_a_screenshot_is_an_output_item(screenshot: Content, output: Any, encode: Any) -> None:
    update = experimental(Content.from_computer_tool_result, call_id="c1", screenshot=screenshot)

    (item,) = encode(update).output
    assert item["type"] == "computer_call_output"
    assert item["output"] == {"type": "computer_screenshot", **output}


def test_the_providers_call_passes_through_unchanged(encode: Any) -> None:
    raw = {
        "type": "computer_call",
        "id": "cu_up",
        "status": "completed",
        "call_id": "c1",
        "pending_safety_checks": [],
        "action": ACTION,
    }
    update = experimental(
        Content.from_computer_tool_call, id="cu_up", call_id="c1", actions=[ACTION], raw_representation=raw
    )

    assert encode(update).output == [raw]
