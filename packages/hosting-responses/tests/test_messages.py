"""Stored items as messages, judged by the framework's own OpenAI client where it speaks the same items."""

from itertools import count
from typing import Any

import pytest
from agent_framework import Content, Message
from agent_framework.openai import OpenAIChatClient
from openai import AsyncOpenAI

from agent_framework_hosting_responses.protocol.errors import ProtocolError
from agent_framework_hosting_responses.protocol.input import ITEM_TYPES, UNSUPPORTED, parse_input
from agent_framework_hosting_responses.protocol.json import JsonObject
from agent_framework_hosting_responses.protocol.messages import SILENT, to_messages

REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add", "arguments": '{"a":1}'}
OUTPUT = {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "42"}
ASKED = {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "agent", "name": "pay", "arguments": "{}"}


def stored(*items: Any) -> tuple[JsonObject, ...]:
    numbers = count(1)
    return parse_input(list(items), new_id=lambda prefix: f"{prefix}_new{next(numbers)}")


def messages(*items: Any, **options: Any) -> list[Message]:
    return to_messages(stored(*items), **options)


def said(text: str, **members: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}], **members}


def shape(found: list[Message]) -> list[tuple[str, list[str]]]:
    return [(message.role, [content.type for content in message.contents]) for message in found]


# One item of every type that requests may carry, and what becomes of it.
RENDERED: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"role": "user", "content": "hi"}, "user", ["text"]),
    (REASONING, "assistant", ["text_reasoning"]),
    (CALL, "assistant", ["function_call"]),
    (OUTPUT, "tool", ["function_result"]),
    (
        {"type": "custom_tool_call", "call_id": "c", "name": "code", "input": "x = 1"},
        "assistant",
        ["function_call"],
    ),
    ({"type": "custom_tool_call_output", "call_id": "c", "output": "ok"}, "tool", ["function_result"]),
    (ASKED, "assistant", ["function_approval_request"]),
    (
        {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "t", "arguments": "{}", "output": "42"},
        "assistant",
        ["mcp_server_tool_call", "mcp_server_tool_result"],
    ),
    (
        {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "t", "arguments": "{}", "error": {"code": 1}},
        "assistant",
        ["mcp_server_tool_call", "mcp_server_tool_result"],
    ),
    (
        {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "q"}},
        "assistant",
        ["search_tool_call", "search_tool_result"],
    ),
    (
        {"type": "file_search_call", "id": "fs_1", "queries": ["q"]},
        "assistant",
        ["search_tool_call", "search_tool_result"],
    ),
    (
        {"type": "code_interpreter_call", "container_id": "cntr_1", "code": "1"},
        "assistant",
        ["code_interpreter_tool_call", "code_interpreter_tool_result"],
    ),
    (
        {"type": "image_generation_call", "result": "iVBORw0KGgo="},
        "assistant",
        ["image_generation_tool_call", "image_generation_tool_result"],
    ),
    ({"type": "image_generation_call", "status": "failed"}, "assistant", ["image_generation_tool_call"]),
    (
        {"type": "local_shell_call", "call_id": "c", "action": {"command": ["ls", "-l"]}},
        "assistant",
        ["shell_tool_call"],
    ),
    ({"type": "local_shell_call_output", "id": "lsh_1", "output": "ok"}, "tool", ["shell_tool_result"]),
    ({"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}}, "assistant", ["shell_tool_call"]),
    (
        {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "a", "stderr": ""}]},
        "tool",
        ["shell_tool_result"],
    ),
    (
        {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file", "path": "a"}},
        "assistant",
        ["function_call"],
    ),
    ({"type": "apply_patch_call_output", "call_id": "c", "output": "ok"}, "tool", ["function_result"]),
    (
        {"type": "computer_call", "call_id": "c", "actions": [{"type": "screenshot"}]},
        "assistant",
        ["computer_tool_call"],
    ),
    ({"type": "computer_call_output", "call_id": "c", "output": {"file_id": "f"}}, "tool", ["computer_tool_result"]),
    ({"type": "tool_search_call", "call_id": "c", "arguments": {"query": "q"}}, "assistant", ["function_call"]),
    ({"type": "tool_search_output", "call_id": "c", "tools": []}, "tool", ["function_result"]),
    ({"type": "program", "call_id": "c", "code": "1", "fingerprint": "f"}, "assistant", ["function_call"]),
    ({"type": "program_output", "call_id": "c", "result": "1"}, "tool", ["function_result"]),
]


@pytest.mark.behaviour("C2")
@pytest.mark.parametrize(("item", "role", "types"), RENDERED)
def test_an_item_becomes_contents_of_its_kind_and_nothing_of_it_is_lost(
    item: dict[str, Any], role: str, types: list[str]
) -> None:
    (kept,) = stored(item)

    (found,) = to_messages([kept])

    assert shape([found]) == [(role, types)]
    assert found.message_id == kept["id"]
    assert found.raw_representation == kept
    if kept["type"] not in {"message", "local_shell_call_output"}:
        assert all(content.raw_representation == kept for content in found.contents)


@pytest.mark.behaviour("C2", "C5")
def test_every_item_type_is_rendered_named_as_silent_refused_or_resolved_before() -> None:
    rendered = {item.get("type", "message") for item, _, _ in RENDERED} | {"mcp_approval_response"}

    assert rendered | SILENT | {"item_reference"} == ITEM_TYPES | (SILENT & UNSUPPORTED)
    assert not rendered & SILENT


@pytest.mark.parametrize(
    "item",
    [
        {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []},
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "abc"},
        {"type": "vendor:thing", "id": "thing_1"},
    ],
)
def test_silent_items_and_those_of_the_agents_own_provider_are_left_out(item: JsonObject) -> None:
    assert to_messages([item]) == []


# --- Grouping ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], []),
        (
            [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
            [("user", ["text"]), ("user", ["text"])],
        ),
        (
            [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}],
            [("system", ["text"]), ("system", ["text"])],
        ),
        ([REASONING, said("a")], [("assistant", ["text_reasoning", "text"])]),
        ([said("a"), said("b")], [("assistant", ["text"]), ("assistant", ["text"])]),
        ([said("a"), REASONING, CALL], [("assistant", ["text"]), ("assistant", ["text_reasoning", "function_call"])]),
        (
            [said("a"), CALL, {**CALL, "id": "fc_2", "call_id": "call_2"}],
            [("assistant", ["text", "function_call", "function_call"])],
        ),
        (
            # A call has to stand right before its output, whatever was said in between.
            [CALL, REASONING, said("a"), said("b"), OUTPUT],
            [("assistant", ["function_call", "text_reasoning", "text", "text"]), ("tool", ["function_result"])],
        ),
        (
            [
                CALL,
                {**CALL, "id": "fc_2", "call_id": "call_2"},
                OUTPUT,
                {**OUTPUT, "id": "fco_2", "call_id": "call_2"},
                said("a"),
            ],
            [
                ("assistant", ["function_call", "function_call"]),
                ("tool", ["function_result", "function_result"]),
                ("assistant", ["text"]),
            ],
        ),
        (
            [CALL, OUTPUT, {**CALL, "id": "fc_2", "call_id": "call_2"}, {**OUTPUT, "id": "x", "call_id": "call_2"}],
            [
                ("assistant", ["function_call"]),
                ("tool", ["function_result"]),
                ("assistant", ["function_call"]),
                ("tool", ["function_result"]),
            ],
        ),
    ],
)
def test_items_of_one_turn_form_one_message(items: list[Any], expected: list[tuple[str, list[str]]]) -> None:
    assert shape(messages(*items)) == expected


def test_a_message_has_the_id_role_and_phase_of_its_item() -> None:
    developer, assistant = messages(
        {"role": "developer", "content": "a", "id": "msg_1"},
        said("b", id="msg_2", phase="commentary", status="incomplete"),
    )

    assert (developer.role, developer.message_id) == ("system", "msg_1")
    assert developer.additional_properties["responses"] == {"role": "developer", "status": "completed"}
    assert assistant.message_id == "msg_2"
    assert assistant.additional_properties["responses"] == {
        "role": "assistant",
        "phase": "commentary",
        "status": "incomplete",
    }


def test_a_message_that_begins_with_reasoning_has_the_id_of_what_was_said() -> None:
    (found,) = messages(REASONING, said("a", id="msg_1", phase="final_answer"))

    assert found.message_id == "msg_1"
    assert found.additional_properties["responses"]["phase"] == "final_answer"


def test_a_message_of_parts_keeps_all_of_them() -> None:
    (found,) = messages(
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what is this?"},
                {"type": "input_image", "image_url": "https://example.com/a.png?size=1"},
                {"type": "input_file", "file_id": "file-1"},
            ],
        }
    )

    assert [content.type for content in found.contents] == ["text", "uri", "hosted_file"]


# --- Approvals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("approve", [True, False])
def test_an_answer_carries_the_call_that_was_asked_about(approve: bool) -> None:
    answer = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": approve, "reason": "r"}

    (found,) = messages(answer, approvals={"mcpr_1": {**ASKED, "request_id": "af_1", "call_id": "call_1"}})

    (content,) = found.contents
    assert found.role == "user"
    assert content.type == "function_approval_response"
    assert (content.approved, content.id) == (approve, "af_1")
    call = content.function_call
    assert isinstance(call, Content)
    assert (call.id, call.call_id, call.name, call.arguments) == ("af_1", "call_1", "pay", "{}")
    assert (call.hosted, call.server_name) == (False, "agent")
    assert content.additional_properties["reason"] == "r"


def test_a_replayed_request_answers_for_itself() -> None:
    asked, answered = messages(
        ASKED, {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    )

    assert (asked.contents[0].id, answered.contents[0].id) == ("mcpr_1", "mcpr_1")
    assert asked.contents[0].type == "function_approval_request"


def test_a_question_of_the_agents_provider_stays_the_providers() -> None:
    answer = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}

    (found,) = messages(answer, approvals={"mcpr_1": {**ASKED, "hosted": True}})

    call = found.contents[0].function_call
    assert isinstance(call, Content)
    assert (call.hosted, call.id, call.call_id) == (True, None, "mcpr_1")


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "msg_0"},
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_0", "approve": True},
    ],
)
def test_what_should_have_been_resolved_before_is_our_bug(item: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="was not resolved"):
        messages(item)


# --- The framework's client of the same API ----------------------------------------------------------------------


def sent_by_the_framework(*items: Any) -> list[dict[str, Any]]:
    client = OpenAIChatClient(model="m", async_client=AsyncOpenAI(api_key="none"))
    return client._prepare_messages_for_openai(messages(*items), request_uses_service_side_storage=False)


def without_ids(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in {"id", "status"}}


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "detail": "high", "image_url": "https://example.com/a"}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "detail": "low", "file_id": "file-1"}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_file", "file_data": "data:text/plain;base64,YQ==", "filename": "a.txt"}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_file", "file_url": "https://example.com/a.pdf"}],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "hi",
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url": "https://example.com",
                            "title": "t",
                            "start_index": 0,
                            "end_index": 2,
                        },
                        {"type": "file_citation", "file_id": "f", "filename": "a.txt", "index": 1},
                        {
                            "type": "container_file_citation",
                            "container_id": "c",
                            "file_id": "f",
                            "filename": "a.txt",
                            "start_index": 0,
                            "end_index": 2,
                        },
                        {"type": "file_path", "file_id": "f", "index": 1},
                    ],
                }
            ],
        },
        CALL,
        OUTPUT,
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
            "content": [{"type": "reasoning_text", "text": "c"}],
            "encrypted_content": "abc",
        },
        {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "t", "arguments": "{}", "output": "42"},
        {
            "type": "shell_call",
            "call_id": "c",
            "action": {"commands": ["ls"], "timeout_ms": None, "max_output_length": None},
            "environment": None,
        },
        {
            "type": "shell_call_output",
            "call_id": "c",
            "max_output_length": None,
            "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        },
        {"type": "computer_call", "call_id": "c", "actions": [{"type": "screenshot"}], "pending_safety_checks": []},
        {
            "type": "computer_call",
            "call_id": "c",
            "action": {"type": "screenshot"},
            "pending_safety_checks": [],
        },
        {
            "type": "computer_call_output",
            "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": "https://example.com/a.png"},
        },
    ],
)
def test_the_frameworks_client_sends_an_item_on_as_it_came(item: dict[str, Any]) -> None:
    (sent,) = sent_by_the_framework(item)

    assert without_ids(sent) == without_ids(item)


def test_reasoning_that_cannot_be_replayed_does_not_break_the_frameworks_client() -> None:
    # The official tool runner replays reasoning without its encrypted form when the server sent none.
    bare = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "a"}]}

    sent = sent_by_the_framework({"role": "user", "content": "hi"}, bare, CALL, OUTPUT)

    assert [item["type"] for item in sent] == ["message", "function_call", "function_call_output"]


def test_a_local_shell_output_answers_the_call_whose_item_it_names() -> None:
    call = {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_1", "action": {"command": ["ls"], "env": {}}}

    asked, answered = messages(call, {"type": "local_shell_call_output", "id": "lsh_1", "output": "ok"})

    assert asked.contents[0].call_id == "call_1"
    assert answered.contents[0].call_id == "call_1"
