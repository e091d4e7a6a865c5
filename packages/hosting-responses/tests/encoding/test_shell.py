"""Shell calls and their outputs."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, Content


def update(*contents: Content) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=contents)


@pytest.mark.behaviour("B4")
def test_commands_and_what_they_printed(encode: Any) -> None:
    outputs = [
        Content.from_shell_command_output(stdout="a\n", stderr="w", exit_code=1),
        Content.from_shell_command_output(timed_out=True),
    ]

    encoded = encode(
        update(Content.from_shell_tool_call(call_id="s1", commands=["ls", "sleep 9"], timeout_ms=5)),
        update(Content.from_shell_tool_result(call_id="s1", outputs=outputs, max_output_length=9)),
    )

    command = [f"shell_call_command.{name}" for name in ("added", "delta", "done")]
    assert encoded.kinds[2:-1] == [
        "output_item.added",
        *command,
        *command,
        "output_item.done",
        "output_item.added",
        "shell_call_output_content.delta",
        "shell_call_output_content.done",
        "shell_call_output_content.done",
        "output_item.done",
    ]
    assert all("item_id" not in event for event in encoded.events if "shell_call_command" in event["type"])
    call, output = encoded.output
    assert call["action"] == {"commands": ["ls", "sleep 9"], "timeout_ms": 5, "max_output_length": None}
    assert output["call_id"] == call["call_id"] == "s1"
    assert output["output"] == [
        {"stdout": "a\n", "stderr": "w", "outcome": {"type": "exit", "exit_code": 1}},
        {"stdout": "", "stderr": "", "outcome": {"type": "timeout"}},
    ]


@pytest.mark.behaviour("C2")
def test_the_output_of_one_command_belongs_to_the_last_call(encode: Any) -> None:
    encoded = encode(
        update(Content.from_shell_tool_call(call_id="s1", commands=["ls"])),
        update(Content.from_shell_command_output(stdout="a", exit_code=0)),
    )

    assert [item["call_id"] for item in encoded.output] == ["s1", "s1"]


def test_the_providers_items_pass_through_unchanged(encode: Any) -> None:
    shell = {
        "type": "shell_call",
        "id": "sh_up",
        "status": "completed",
        "call_id": "s1",
        "action": {"commands": ["ls"], "timeout_ms": 1, "max_output_length": None},
        "environment": None,
    }
    output = {
        "type": "shell_call_output",
        "id": "sho_up",
        "status": "completed",
        "call_id": "s1",
        "max_output_length": None,
        "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
    }
    local = {
        "type": "local_shell_call",
        "id": "lsh_up",
        "status": "completed",
        "call_id": "s2",
        "action": {"type": "exec", "command": ["ls"], "env": {}},
    }

    encoded = encode(
        update(Content.from_shell_tool_call(call_id="s1", raw_representation=shell)),
        update(Content.from_shell_tool_result(call_id="s1", raw_representation=output)),
        update(Content.from_shell_tool_call(call_id="s2", raw_representation=local)),
    )

    assert encoded.output == [shell, output, local]


def test_calls_without_item_ids_are_all_there(encode: Any) -> None:
    calls = [
        {
            "type": "shell_call",
            "status": "completed",
            "call_id": call_id,
            "action": {"commands": ["ls"], "timeout_ms": None, "max_output_length": None},
            "environment": None,
        }
        for call_id in ("s1", "s2")
    ]

    encoded = encode(*(update(Content.from_shell_tool_call(raw_representation=call)) for call in calls))

    assert [item["call_id"] for item in encoded.output] == ["s1", "s2"]
