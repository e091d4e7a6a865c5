"""Input items and their stored form."""

from itertools import count
from typing import Any, get_args

import pytest
from openai.types.responses import ResponseInputItem

from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.protocol.ids import new_id
from agent_framework_hosting_responses.protocol.input import ITEM_TYPES, UNSUPPORTED, parse_input, parse_items

TEXT = [{"type": "input_text", "text": "hi"}]
SAID = [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}]
ACTION = {"type": "exec", "command": ["ls"], "env": {}}

# One valid item of each type that is neither a message nor a reference, as a client replays it (contract §2.4).
ITEMS: list[dict[str, Any]] = [
    {"type": "function_call", "id": "fc_1", "status": "completed", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "id": "fco_1", "status": "completed", "call_id": "c", "output": "42"},
    {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "code", "input": "x = 1"},
    {"type": "custom_tool_call_output", "id": "ctco_1", "status": "completed", "call_id": "c", "output": TEXT},
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "thought"}],
        "content": [{"type": "reasoning_text", "text": "deeply"}],
        "encrypted_content": "abc",
    },
    {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": [{"name": "t", "input_schema": {}}]},
    {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "t", "arguments": "{}"},
    {
        "type": "mcp_approval_response",
        "id": "mcpa_1",
        "approval_request_id": "mcpr_1",
        "approve": False,
        "reason": "no",
    },
    {
        "type": "mcp_call",
        "id": "mcp_1",
        "status": "completed",
        "server_label": "s",
        "name": "t",
        "arguments": "{}",
        "approval_request_id": None,
        "output": "42",
        "error": None,
    },
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
    {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["q"], "results": None},
    {
        "type": "code_interpreter_call",
        "id": "ci_1",
        "status": "completed",
        "container_id": "cntr_1",
        "code": "1",
        "outputs": [{"type": "logs", "logs": "1"}, {"type": "image", "url": "https://example.com/a.png"}],
    },
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "iVBORw0KGgo="},
    {"type": "local_shell_call", "id": "lsh_1", "status": "completed", "call_id": "c", "action": ACTION},
    {"type": "local_shell_call_output", "id": "lsho_1", "status": "completed", "output": "ok", "call_id": "lsh_1"},
    {
        "type": "shell_call",
        "id": "sh_1",
        "status": "completed",
        "call_id": "c",
        "action": {"commands": ["ls"], "timeout_ms": None, "max_output_length": None},
        "environment": None,
    },
    {
        "type": "shell_call_output",
        "id": "sho_1",
        "status": "completed",
        "call_id": "c",
        "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        "max_output_length": None,
    },
    {
        "type": "apply_patch_call",
        "id": "ap_1",
        "status": "completed",
        "call_id": "c",
        "operation": {"type": "delete_file", "path": "a"},
    },
    {"type": "apply_patch_call_output", "id": "apo_1", "status": "failed", "call_id": "c", "output": "no"},
    {
        "type": "computer_call",
        "id": "cu_1",
        "status": "completed",
        "call_id": "c",
        "actions": [{"type": "screenshot"}],
        "pending_safety_checks": [],
    },
    {
        "type": "computer_call_output",
        "id": "cuo_1",
        "status": "completed",
        "call_id": "c",
        "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,iVBORw0KGgo="},
    },
    {
        "type": "tool_search_call",
        "id": "item_1",
        "status": "completed",
        "call_id": "c",
        "execution": "server",
        "arguments": {"query": "q"},
    },
    {"type": "tool_search_output", "id": "item_2", "status": "completed", "call_id": "c", "tools": []},
    {"type": "program", "id": "prog_1", "call_id": "c", "code": "1", "fingerprint": "f"},
    {"type": "program_output", "id": "item_3", "status": "completed", "call_id": "c", "result": "1"},
]
# What each type cannot do without, besides its type.
REQUIRED = {
    "function_call": ["call_id", "name", "arguments"],
    "function_call_output": ["call_id", "output"],
    "custom_tool_call": ["call_id", "name", "input"],
    "custom_tool_call_output": ["call_id", "output"],
    "reasoning": ["summary"],
    "mcp_list_tools": ["id", "server_label", "tools"],
    "mcp_approval_request": ["id", "server_label", "name", "arguments"],
    "mcp_approval_response": ["approval_request_id", "approve"],
    "mcp_call": ["id", "server_label", "name", "arguments"],
    "file_search_call": ["queries"],
    "code_interpreter_call": ["container_id"],
    "local_shell_call": ["call_id", "action"],
    "local_shell_call_output": ["output"],
    "shell_call": ["call_id", "action"],
    "shell_call_output": ["call_id", "output"],
    "apply_patch_call": ["call_id", "operation"],
    "apply_patch_call_output": ["call_id"],
    "computer_call": ["call_id", "actions"],
    "computer_call_output": ["call_id", "output"],
    "tool_search_output": ["tools"],
    "program": ["call_id", "code", "fingerprint"],
    "program_output": ["call_id", "result"],
}


def read(value: Any) -> list[dict[str, Any]]:
    numbers = count(1)
    return list(parse_input(value, new_id=lambda prefix: f"{prefix}_new{next(numbers)}"))


def message(role: str = "user", **members: Any) -> dict[str, Any]:
    return {"id": "msg_new1", "type": "message", "status": "completed", "role": role, **members}


def test_a_string_is_one_user_message() -> None:
    assert read("hi") == [message(content=TEXT)]


@pytest.mark.parametrize("nothing", ["", []])
def test_nothing_is_no_items(nothing: Any) -> None:
    assert read(nothing) == []


@pytest.mark.behaviour("C7")
@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({"role": "user", "content": "hi"}, message(content=TEXT)),
        ({"role": "user", "content": ""}, message(content=[{"type": "input_text", "text": ""}])),
        ({"role": "user", "content": []}, message(content=[])),
        ({"type": None, "role": "system", "content": "hi"}, message("system", content=TEXT)),
        ({"type": "message", "role": "developer", "content": TEXT}, message("developer", content=TEXT)),
        ({"role": "assistant", "content": "hi"}, message("assistant", content=SAID)),
        (
            {"role": "assistant", "content": [{"type": "output_text", "text": "hi"}]},
            message("assistant", content=SAID),
        ),
        (
            {"role": "assistant", "content": "hi", "status": None, "phase": "commentary", "name": "ignored"},
            message("assistant", content=SAID, phase="commentary"),
        ),
        (
            {"id": "msg_0", "type": "message", "role": "assistant", "content": SAID, "status": "incomplete"},
            message("assistant", content=SAID, id="msg_0", status="incomplete"),
        ),
    ],
)
def test_a_message_is_stored_in_one_form_however_it_is_sent(sent: dict[str, Any], stored: dict[str, Any]) -> None:
    assert read([sent]) == [stored]


@pytest.mark.parametrize("item", ITEMS, ids=[item["type"] for item in ITEMS])
def test_an_item_is_stored_as_it_was_emitted(item: dict[str, Any]) -> None:
    assert read([item]) == [item]


@pytest.mark.parametrize("item", ITEMS, ids=[item["type"] for item in ITEMS])
def test_nulls_that_clients_make_up_are_accepted_and_not_stored(item: dict[str, Any]) -> None:
    # As `model_dump()` of the official client's types replays items.
    padded = {"async": None, "namespace": None, "caller": None, "created_by": None, "agent": None, **item}

    assert read([padded]) == [item]


@pytest.mark.parametrize("item", ITEMS, ids=[item["type"] for item in ITEMS])
def test_an_item_without_status_is_completed_if_its_kind_has_one(item: dict[str, Any]) -> None:
    sent = {key: value for key, value in item.items() if key != "status"}

    (stored,) = read([{**sent, "status": None}])

    assert stored == (sent | {"status": "completed"} if "status" in item else sent)


def test_members_that_the_api_does_not_name_stay_on_replayed_items() -> None:
    item = {**ITEMS[9], "vendor": {"x": [None]}}

    assert read([item]) == [item]


@pytest.mark.behaviour("C5")
def test_every_item_type_of_the_official_client_is_read_or_refused() -> None:
    union = get_args(get_args(ResponseInputItem)[0])
    known: set[str] = set()
    for member in union:
        annotation = member.model_fields["type"].annotation
        known |= {name for part in (annotation, *get_args(annotation)) for name in get_args(part) or [part]} - {None}
    known = {name for name in known if isinstance(name, str)}

    assert known - (ITEM_TYPES | UNSUPPORTED) == set()
    assert len(known) > 25


def test_the_table_of_valid_items_names_every_type() -> None:
    assert {item["type"] for item in ITEMS} | {"message", "item_reference"} == ITEM_TYPES


@pytest.mark.behaviour("C5", "C6")
@pytest.mark.parametrize(
    ("item", "member"),
    [(item, member) for item in ITEMS for member in REQUIRED.get(item["type"], [])],
    ids=[f"{item['type']}.{member}" for item in ITEMS for member in REQUIRED.get(item["type"], [])],
)
def test_an_item_without_what_its_kind_needs_is_refused(item: dict[str, Any], member: str) -> None:
    for missing in ({key: value for key, value in item.items() if key != member}, {**item, member: None}):
        with pytest.raises(RequestError) as refused:
            read([{"role": "user", "content": "hi"}, missing])

        assert (refused.value.param, refused.value.code) == (f"input[1].{member}", "missing_required_parameter")


@pytest.mark.behaviour("C5")
@pytest.mark.parametrize("kind", sorted(UNSUPPORTED))
def test_an_item_that_nothing_here_can_act_on_is_refused_and_not_dropped(kind: str) -> None:
    with pytest.raises(RequestError) as refused:
        read([{"type": kind, "encrypted_content": "abc", "role": "developer", "tools": []}])

    assert (refused.value.param, refused.value.code) == ("input[0].type", "unsupported_parameter")
    assert kind in refused.value.message


@pytest.mark.behaviour("C5", "C6")
@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ("hi", "input[0]", "invalid_type"),
        (None, "input[0]", "invalid_type"),
        ({}, "input[0].type", "missing_required_parameter"),
        ({"content": "hi"}, "input[0].type", "missing_required_parameter"),
        ({"id": "msg_1", "content": "hi"}, "input[0].type", "missing_required_parameter"),
        ({"type": 1}, "input[0].type", "invalid_type"),
        ({"type": "telepathy"}, "input[0].type", "invalid_value"),
        ({"type": "compaction"}, "input[0].encrypted_content", "missing_required_parameter"),
        ({"role": "user"}, "input[0].content", "missing_required_parameter"),
        ({"role": "user", "content": None}, "input[0].content", "missing_required_parameter"),
        ({"role": "user", "content": 7}, "input[0].content", "invalid_type"),
        ({"role": "tool", "content": "hi"}, "input[0].role", "invalid_value"),
        ({"role": ["user"], "content": "hi"}, "input[0].role", "invalid_type"),
        ({"type": "message", "content": "hi"}, "input[0].role", "missing_required_parameter"),
        ({"role": "user", "content": "hi", "status": "done"}, "input[0].status", "invalid_value"),
        ({"role": "user", "content": "hi", "phase": "middle"}, "input[0].phase", "invalid_value"),
        ({"role": "user", "content": "hi", "id": 7}, "input[0].id", "invalid_type"),
        ({"role": "user", "content": [{"type": "x"}]}, "input[0].content[0].type", "invalid_value"),
        ({**ITEMS[0], "arguments": {}}, "input[0].arguments", "invalid_type"),
        ({**ITEMS[0], "call_id": ""}, "input[0].call_id", "invalid_value"),
        ({**ITEMS[0], "call_id": "x" * 257}, "input[0].call_id", "string_above_max_length"),
        ({**ITEMS[0], "status": 1}, "input[0].status", "invalid_type"),
        ({**ITEMS[1], "output": {}}, "input[0].output", "invalid_type"),
        ({**ITEMS[1], "output": [{"type": "input_audio"}]}, "input[0].output[0].type", "invalid_value"),
        ({**ITEMS[4], "summary": "x"}, "input[0].summary", "invalid_type"),
        ({**ITEMS[4], "summary": [{"text": "x"}]}, "input[0].summary[0].type", "missing_required_parameter"),
        ({**ITEMS[4], "summary": [{"type": "x"}]}, "input[0].summary[0].type", "invalid_value"),
        ({**ITEMS[4], "encrypted_content": 1}, "input[0].encrypted_content", "invalid_type"),
        ({**ITEMS[6], "id": "../x"}, "input[0].id", "invalid_value"),
        ({**ITEMS[7], "approve": "true"}, "input[0].approve", "invalid_type"),
        ({**ITEMS[7], "approval_request_id": "../x"}, "input[0].approval_request_id", "invalid_value"),
        ({**ITEMS[11], "outputs": [{"url": 1}]}, "input[0].outputs[0].url", "invalid_type"),
        ({**ITEMS[13], "action": {"command": "ls"}}, "input[0].action.command", "invalid_type"),
        ({**ITEMS[15], "action": {"commands": [1]}}, "input[0].action.commands[0]", "invalid_type"),
        ({**ITEMS[16], "output": [{"outcome": "ok"}]}, "input[0].output[0].outcome", "invalid_type"),
        ({"type": "item_reference"}, "input[0].id", "missing_required_parameter"),
        ({"id": "../x"}, "input[0].id", "invalid_value"),
        ({"id": 7}, "input[0].id", "invalid_type"),
    ],
)
def test_a_malformed_item_is_refused_with_its_path(item: Any, param: str, code: str) -> None:
    with pytest.raises(RequestError) as refused:
        read([item])

    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize("value", [1, True, {}, None])
def test_input_is_a_string_or_an_array(value: Any) -> None:
    with pytest.raises(RequestError) as refused:
        read(value)

    assert (refused.value.param, refused.value.code) == ("input", "invalid_type")


def test_more_items_than_the_limit_are_refused() -> None:
    with pytest.raises(RequestError) as refused:
        read([{"role": "user", "content": "hi"}] * 10_001)

    assert (refused.value.param, refused.value.code) == ("input", "array_above_max_length")


@pytest.mark.parametrize(
    "reference", [{"id": "msg_0"}, {"type": None, "id": "msg_0"}, {"type": "item_reference", "id": "msg_0"}]
)
def test_a_reference_is_kept_for_whoever_has_the_store(reference: dict[str, Any]) -> None:
    assert read([reference]) == [{"type": "item_reference", "id": "msg_0"}]


def test_ids_are_kept_if_they_are_plausible_and_unique() -> None:
    hi = {"role": "user", "content": "hi"}

    items = read([{**hi, "id": "my-own_ID"}, {**hi, "id": "my-own_ID"}, {**hi, "id": "a/b"}, {**hi, "id": ""}, hi])

    assert [item["id"] for item in items] == ["my-own_ID", "msg_new1", "msg_new2", "msg_new3", "msg_new4"]


def test_items_without_id_get_one_with_the_prefix_of_their_kind() -> None:
    items = parse_input(
        [
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""},
            {"type": "function_call_output", "call_id": "c", "output": ""},
            {"type": "reasoning", "summary": []},
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        ],
        new_id=new_id,
    )

    assert [str(item["id"]).split("_")[0] for item in items] == ["fc", "fco", "rs", "mcpa"]


def test_the_output_of_a_local_shell_keeps_which_call_it_answers() -> None:
    call, output = read([ITEMS[13], {"type": "local_shell_call_output", "id": "lsh_1", "output": "ok"}])

    assert call["id"] == "lsh_1"
    assert output["id"] == "lsho_new1"
    assert output["call_id"] == "lsh_1"


def test_what_a_request_sent_is_not_changed_by_reading_it() -> None:
    sent = {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a.png"}]}

    read([sent])

    assert sent == {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a.png"}]}


def test_items_of_another_member_are_refused_with_its_path() -> None:
    assert [
        item["id"] for item in parse_items([{"role": "user", "content": "hi", "id": "a"}], "items", new_id=new_id)
    ] == ["a"]

    with pytest.raises(RequestError) as refused:
        parse_items([{"role": "user", "content": "hi"}, {"role": "user"}], "items", new_id=new_id)
    assert refused.value.param == "items[1].content"
