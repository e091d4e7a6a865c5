"""MCP calls, lists and approvals."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, Content

from agent_framework_hosting_responses.protocol.memo import AskedApproval

RAW = {"type": "mcp_call", "id": "mcp_up", "name": "t", "server_label": "s", "arguments": '{"a":1}'}


def opened(**fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_mcp_server_tool_call("m1", "t", **fields)])


def ended(**fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_mcp_server_tool_result("m1", **fields)])


def approval(request_id: str, **fields: Any) -> AgentResponseUpdate:
    call = Content.from_function_call("c1", "f", id=request_id, arguments='{"a":1}', **fields)
    return AgentResponseUpdate(contents=[Content.from_function_approval_request(request_id, call)])


@pytest.mark.behaviour("B4")
def test_a_call_opens_with_its_arguments_and_ends_with_its_output(encode: Any) -> None:
    encoded = encode(opened(server_name="s", arguments={"a": 1}), ended(output=[Content.from_text("out")]))

    assert encoded.kinds[2:-1] == [
        "output_item.added",
        "mcp_call.in_progress",
        "mcp_call_arguments.delta",
        "mcp_call_arguments.done",
        "mcp_call.completed",
        "output_item.done",
    ]
    assert encoded.output[0]["output"] == "out"
    assert encoded.output[0]["server_label"] == "s"


@pytest.mark.behaviour("C3")
@pytest.mark.parametrize(
    "fields",
    [
        {"output": {"isError": True, "content": "secret"}},
        {"output": [Content.from_error(message="secret")]},
        {"output": "secret", "additional_properties": {"is_error": True}},
    ],
    ids=["mapping", "error content", "property"],
)
def test_a_failed_call_fails_without_its_message(fields: Any, encode: Any) -> None:
    encoded = encode(opened(arguments="{}"), ended(**fields))

    assert "mcp_call.failed" in encoded.kinds
    assert encoded.output[0]["error"] == {
        "type": "mcp_tool_execution_error",
        "content": [{"type": "text", "text": "The tool call failed."}],
    }
    assert "secret" not in str(encoded.events)


def test_a_result_without_a_call_is_a_whole_item(encode: Any) -> None:
    assert encode(ended(output="out")).output[0]["output"] == "out"


def test_a_call_without_a_result_is_incomplete(encode: Any) -> None:
    encoded = encode(opened(arguments="{}"))

    assert encoded.output[0]["status"] == "incomplete"
    assert encoded.output[0]["arguments"] == "{}"


def test_the_providers_call_passes_through_unchanged(encode: Any) -> None:
    started = {**RAW, "arguments": "", "status": "in_progress"}
    finished = {**RAW, "status": "completed", "output": "out", "error": None, "approval_request_id": "mcpr_9"}

    encoded = encode(opened(raw_representation=started), ended(raw_representation=finished))

    assert encoded.output == [finished]
    assert encoded.kinds.count("mcp_call_arguments.delta") == 1


def test_a_finished_call_of_the_provider_is_told_once(encode: Any) -> None:
    finished = {**RAW, "status": "failed", "error": {"type": "http_error", "code": 500, "message": "m"}}

    encoded = encode(opened(raw_representation=finished), ended(raw_representation=finished))

    assert encoded.output == [{**finished, "output": None, "approval_request_id": None}]


@pytest.mark.behaviour("B4")
def test_an_approval_request_absorbs_its_call(encode: Any) -> None:
    call = AgentResponseUpdate(contents=[Content.from_function_call("c1", "f", id="af-1", arguments='{"a":1}')])

    encoded = encode(call, approval("af-1"), approval("af-1"), server_label="me")

    assert encoded.output == [
        {
            "id": "mcpr_1",
            "type": "mcp_approval_request",
            "server_label": "me",
            "name": "f",
            "arguments": '{"a":1}',
        }
    ]
    assert encoded.encoder.approvals == {"mcpr_1": AskedApproval(request_id="af-1", call_id="c1")}
    assert encoded.encoder.questions == {"mcpr_1": {**encoded.output[0], "request_id": "af-1", "call_id": "c1"}}


def test_a_provider_keeps_the_id_and_label_of_its_approval_request(encode: Any) -> None:
    raw = {"type": "mcp_approval_request", "id": "mcpr_up", "name": "f", "server_label": "s", "arguments": "{}"}

    encoded = encode(approval("mcpr_up", hosted=True, server_name="s", raw_representation=raw))

    assert encoded.output[0]["id"] == "mcpr_up"
    assert encoded.output[0]["server_label"] == "s"
    assert encoded.encoder.approvals == {"mcpr_up": AskedApproval(request_id="mcpr_up", call_id="c1", hosted=True)}


def test_a_tool_list_that_failed_says_so(encode: Any) -> None:
    item = {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": [], "error": "no"}
    event = {"type": "response.output_item.done", "item": item}

    encoded = encode(AgentResponseUpdate(raw_representation=event))

    assert encoded.kinds[2:-1] == [
        "output_item.added",
        "mcp_list_tools.in_progress",
        "mcp_list_tools.failed",
        "output_item.done",
    ]
    assert "error" not in encoded.events[2]["item"]
    assert encoded.output == [item]


def test_a_result_without_its_call_is_an_item_that_can_be_sent_back(encode: Any) -> None:
    result = Content.from_mcp_server_tool_result("m1", output="ok")

    encoded = encode(AgentResponseUpdate(contents=[result]))

    assert [(item["name"], item["output"]) for item in encoded.output] == [("tool", "ok")]
