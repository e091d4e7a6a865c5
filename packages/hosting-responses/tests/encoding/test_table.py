"""Every content type of the framework has one rule."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from agent_framework import AgentResponseUpdate, Content
from agent_framework._types import ContentType

from agent_framework_hosting_responses.protocol.items import table
from agent_framework_hosting_responses.protocol.items.media import ignore

PNG = "data:image/png;base64,iVBORw0KGgo="
SILENT = {"usage", "function_approval_response", "hosted_vector_store"}

CALL = Content.from_function_call("c1", "f", id="c1", arguments="{}")
SAMPLES: dict[str, Content] = {
    "text": Content.from_text("a"),
    "text_reasoning": Content.from_text_reasoning(text="a"),
    "data": Content.from_uri(PNG),
    "uri": Content.from_uri("https://a.b", media_type="text/html"),
    "error": Content.from_error(message="m"),
    "function_call": CALL,
    "hosted_file": Content.from_hosted_file("f"),
    "code_interpreter_tool_call": Content.from_code_interpreter_tool_call(call_id="c"),
    "code_interpreter_tool_result": Content.from_code_interpreter_tool_result(call_id="c"),
    "image_generation_tool_call": Content.from_image_generation_tool_call(image_id="c"),
    "image_generation_tool_result": Content.from_image_generation_tool_result(image_id="c"),
    "mcp_server_tool_call": Content.from_mcp_server_tool_call("c", "t"),
    "mcp_server_tool_result": Content.from_mcp_server_tool_result("c"),
    "search_tool_call": Content.from_search_tool_call("c", tool_name="web_search"),
    "search_tool_result": Content.from_search_tool_result("c", tool_name="web_search"),
    "shell_tool_call": Content.from_shell_tool_call(call_id="c"),
    "shell_tool_result": Content.from_shell_tool_result(call_id="c"),
    "shell_command_output": Content.from_shell_command_output(),
    "computer_tool_call": Content("computer_tool_call", id="cu", call_id="c", actions=[{"type": "screenshot"}]),
    "computer_tool_result": Content("computer_tool_result", id="cuo", call_id="c"),
    "function_approval_request": Content.from_function_approval_request("c1", CALL),
    "oauth_consent_request": Content.from_oauth_consent_request("https://a.b"),
}


@pytest.mark.behaviour("C2")
def test_every_content_type_has_a_rule() -> None:
    assert set(table.RENDERING) == set(get_args(ContentType))


@pytest.mark.behaviour("C2")
def test_the_silent_ones_are_named() -> None:
    assert {name for name, rule in table.RENDERING.items() if rule is ignore} == SILENT
    assert all(f"`{name}`" in (table.__doc__ or "") for name in SILENT)


@pytest.mark.behaviour("C2")
@pytest.mark.parametrize("name", sorted(set(get_args(ContentType)) - SILENT - {"function_result"}))
def test_every_other_one_shows(name: str, encode: Any) -> None:
    encoded = encode(AgentResponseUpdate(contents=[SAMPLES[name]]))

    # An error that nothing follows is the response's failure; everything else is an item.
    assert encoded.output or encoded.response["error"]


@pytest.mark.behaviour("C2")
def test_a_result_shows_with_its_call(encode: Any) -> None:
    updates = [
        AgentResponseUpdate(contents=[CALL]),
        AgentResponseUpdate(contents=[Content.from_function_result("c1", result="r")], role="tool"),
    ]

    encoded = encode(*updates, server_calls="function_call")

    assert [item["type"] for item in encoded.output] == ["function_call", "function_call_output"]
