"""The bodies of the Conversations API, read or refused (`protocol/conversations.py`)."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from agent_framework_hosting_responses.protocol.conversations import (
    NewConversation,
    decode_creation,
    parse_additions,
    parse_creation,
    parse_update,
)
from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.protocol.json import JsonObject

HI: Any = {"role": "user", "content": "hi"}
TEXT = [{"type": "input_text", "text": "hi"}]
SAID = [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}]


def added(*items: Any) -> list[JsonObject]:
    numbers = count(1)
    return list(parse_additions({"items": list(items)}, new_id=lambda prefix: f"{prefix}_new{next(numbers)}"))


def stored(role: str = "user", **members: Any) -> JsonObject:
    return {"id": "msg_new1", "type": "message", "status": "completed", "role": role, "content": TEXT, **members}


def refusal(body: Any, parse: Any = parse_creation) -> tuple[str | None, str | None, int]:
    with pytest.raises(RequestError) as refused:
        parse(body)
    return refused.value.param, refused.value.code, refused.value.status


@pytest.mark.parametrize("body", [b"", b" \r\n\t", b"null", b" null\n", b"{}", b'{"items": null, "metadata": null}'])
def test_a_conversation_can_be_made_of_nothing(body: bytes) -> None:
    assert parse_creation(decode_creation(body)) == NewConversation(items=(), metadata={})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"nul", "invalid_json"),
        (b"null null", "invalid_json"),
        (b"[]", "invalid_type"),
        (b"0", "invalid_type"),
        (b'"null"', "invalid_type"),
        (b'{"items": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "invalid_json"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_body_that_is_no_object_is_refused(body: bytes, code: str) -> None:
    assert refusal(body, decode_creation) == (None, code, 400)


def test_a_conversation_starts_with_its_items_and_metadata() -> None:
    body: JsonObject = {"items": [HI, {**HI, "id": "mine"}], "metadata": {"a": "", "\x00": "\ud800"}, "later": 1}

    parsed = parse_creation(body, new_id=lambda prefix: f"{prefix}_new1")

    assert parsed.items == (stored(), stored(id="mine"))
    assert parsed.metadata == {"a": "", "\x00": "\ud800"}


@pytest.mark.behaviour("C7")
@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (HI, stored()),
        ({"type": "message", "role": "developer", "content": TEXT}, stored("developer")),
        ({"type": None, "id": None, "role": "system", "content": TEXT, "status": None}, stored("system")),
        ({"role": "assistant", "content": "hi"}, stored("assistant", content=SAID)),
        (
            {"id": "msg_0", "type": "message", "status": "completed", "role": "assistant", "content": SAID},
            stored("assistant", id="msg_0", content=SAID),
        ),
        ({**HI, "id": ""}, stored()),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {
                "id": "fc_new1",
                "type": "function_call",
                "status": "completed",
                "call_id": "c",
                "name": "f",
                "arguments": "{}",
            },
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "1"},
            {"id": "fco_new1", "type": "function_call_output", "status": "completed", "call_id": "c", "output": "1"},
        ),
        ({"type": "reasoning", "id": "rs_1", "summary": []}, {"id": "rs_1", "type": "reasoning", "summary": []}),
    ],
)
def test_an_item_is_kept_in_one_form_however_it_is_sent(sent: Any, kept: JsonObject) -> None:
    assert added(sent) == [kept]


def test_the_output_of_a_local_shell_names_its_call_and_has_an_id_of_its_own() -> None:
    sent = {"type": "local_shell_call_output", "id": "lsh_1", "output": "ok"}

    (first,) = added(sent)
    (again,) = added(first)

    assert first == {
        "id": "lsho_new1",
        "type": "local_shell_call_output",
        "status": "completed",
        "output": "ok",
        "call_id": "lsh_1",
    }
    assert again == first


def test_a_call_of_the_local_shell_and_its_output_may_be_sent_with_one_id() -> None:
    call = {"type": "local_shell_call", "id": "lsh_1", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}}

    items = added(call, {"type": "local_shell_call_output", "id": "lsh_1", "output": "ok"})

    assert [item["id"] for item in items] == ["lsh_1", "lsho_new1"]


@pytest.mark.behaviour("C5", "C6")
@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ({"type": "message", "content": "hi"}, "items[1].role", "missing_required_parameter"),
        ({"role": "wizard", "content": "hi"}, "items[1].role", "invalid_value"),
        ({"role": "user"}, "items[1].content", "missing_required_parameter"),
        ({"role": "user", "content": [{"type": "smell"}]}, "items[1].content[0].type", "invalid_value"),
        ({"content": "hi"}, "items[1].type", "missing_required_parameter"),
        ({}, "items[1].type", "missing_required_parameter"),
        ("hi", "items[1]", "invalid_type"),
        (None, "items[1]", "invalid_type"),
        ({"type": "telepathy"}, "items[1].type", "invalid_value"),
        ({"type": ["message"], "id": "msg_1"}, "items[1].type", "invalid_type"),
        ({"type": "compaction", "encrypted_content": "x"}, "items[1].type", "unsupported_parameter"),
        ({**HI, "id": 7}, "items[1].id", "invalid_type"),
        ({**HI, "id": ["msg_1"]}, "items[1].id", "invalid_type"),
        ({**HI, "id": "a/b"}, "items[1].id", "invalid_value"),
        ({**HI, "id": "\x00"}, "items[1].id", "invalid_value"),
        ({**HI, "id": "\ud800"}, "items[1].id", "invalid_value"),
        ({**HI, "id": "é"}, "items[1].id", "invalid_value"),
        ({**HI, "id": "msg_1\n"}, "items[1].id", "invalid_value"),
        ({**HI, "id": "a" * 257}, "items[1].id", "invalid_value"),
        ({**HI, "id": "msg_0"}, "items[1].id", "invalid_value"),
        ({"type": "item_reference", "id": "msg_1"}, "items[1].id", None),
        ({"id": "msg_1"}, "items[1].id", None),
        (
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
            "items[1].type",
            "unsupported_parameter",
        ),
        ({"type": "local_shell_call_output", "id": 7, "output": "ok"}, "items[1].id", "invalid_type"),
    ],
)
def test_an_item_that_cannot_be_kept_is_refused_with_its_path(item: Any, param: str, code: str | None) -> None:
    for parse in (parse_creation, parse_additions):
        assert refusal({"items": [{**HI, "id": "msg_0"}, item]}, parse) == (param, code, 400)


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize(
    ("metadata", "param", "code"),
    [
        ([], "metadata", "invalid_type"),
        ("a", "metadata", "invalid_type"),
        ({"k": 1}, "metadata.k", "invalid_type"),
        ({"k": None}, "metadata.k", "invalid_type"),
        ({str(number): "x" for number in range(17)}, "metadata", "object_above_max_properties"),
        ({"k" * 65: "x"}, "metadata", "string_above_max_length"),
        ({"k": "x" * 513}, "metadata.k", "string_above_max_length"),
    ],
)
def test_metadata_beyond_a_limit_is_refused(metadata: Any, param: str, code: str) -> None:
    for parse in (parse_creation, parse_update):
        assert refusal({"metadata": metadata}, parse) == (param, code, 400)


def test_metadata_within_the_limits_is_kept() -> None:
    metadata: JsonObject = {f"{number}".ljust(64, "k"): "x" * 512 for number in range(16)}

    assert parse_update({"metadata": metadata}) == metadata


def test_null_clears_the_metadata_and_silence_is_refused() -> None:
    assert parse_update({"metadata": None}) == {}
    assert refusal({}, parse_update) == ("metadata", "missing_required_parameter", 400)


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "missing_required_parameter"),
        ({"items": None}, "missing_required_parameter"),
        ({"items": []}, "empty_array"),
        ({"items": HI}, "invalid_type"),
        ({"items": "hi"}, "invalid_type"),
        ({"items": [HI] * 21}, "array_above_max_length"),
    ],
)
def test_between_one_and_twenty_items_are_added(body: Any, code: str) -> None:
    assert refusal(body, parse_additions) == ("items", code, 400)
    assert len(parse_additions({"items": [HI] * 20})) == 20


def test_at_most_twenty_items_begin_a_conversation() -> None:
    assert refusal({"items": [HI] * 21}) == ("items", "array_above_max_length", 400)
    assert len({item["id"] for item in parse_creation({"items": [HI] * 20}).items}) == 20


@pytest.mark.parametrize(
    ("parse", "body"),
    [(parse_creation, {}), (parse_update, {"metadata": {}}), (parse_additions, {"items": [HI]})],
)
def test_unknown_fields_are_ignored_unless_the_operator_is_strict(parse: Any, body: JsonObject) -> None:
    parse(body | {"future": 1})

    with pytest.raises(RequestError) as refused:
        parse(body | {"future": 1}, strict=True)
    assert (refused.value.param, refused.value.code) == ("future", "unknown_parameter")
    parse(body, strict=True)


def test_what_a_caller_sent_is_not_changed_by_reading_it() -> None:
    sent: Any = {"items": [{"type": "local_shell_call_output", "id": "lsh_1", "output": "ok"}], "metadata": {"a": "b"}}

    parse_creation(sent)

    assert sent == {
        "items": [{"type": "local_shell_call_output", "id": "lsh_1", "output": "ok"}],
        "metadata": {"a": "b"},
    }
