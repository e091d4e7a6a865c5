"""Input items: what a request sends, read into the form in which items are stored.

Every item type of the API is named here: read by a row of `_KINDS`, read as a message or reference, or refused by
`UNSUPPORTED`. Nothing is dropped. Members that the API does not name are kept on items, because replayed items of hosted
tools carry vendor fields that their own model client needs; null members are not.

Source: contract §1.5, §2.4, §11.21.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Final

from agent_framework_hosting_responses.protocol import errors, fields
from agent_framework_hosting_responses.protocol.fields import Reader
from agent_framework_hosting_responses.protocol.ids import IdFactory, new_item_id
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue
from agent_framework_hosting_responses.protocol.parts import (
    MAX_FILE_DATA,
    read_assistant_parts,
    read_tool_output,
    read_user_parts,
)

MAX_ITEMS: Final = 10_000
"""Items of one request."""

ROLES: Final = ("user", "assistant", "system", "developer")
UNSUPPORTED: Final = frozenset({"compaction", "compaction_trigger", "additional_tools", "configuration_update"})
"""Item types that get a 400: nothing in this server can act on them, and ignoring them would change the answer."""

_PHASES: Final = ("commentary", "final_answer")


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How one item type is read: `nullable` members are written as null when absent, others are left out."""

    required: Mapping[str, Reader] = field(default_factory=dict)
    optional: Mapping[str, Reader] = field(default_factory=dict)
    nullable: tuple[str, ...] = ()
    status: str | None = None
    is_id_required: bool = False


def parse_input(value: JsonValue, *, new_id: IdFactory) -> tuple[JsonObject, ...]:
    """Return the items of the request's `input` (a string or an array) in stored form, each with an id.

    Ids that a client gives are kept if they are plausible and unique in the request, else replaced. `item_reference` items stay
    `{"type": "item_reference", "id"}`: whoever has the store resolves them.

    Raises:
        RequestError: An item is malformed or of a type that is not supported; `param` is its path.

    Source: contract §1.5.
    """
    if isinstance(value, str):
        if not fields.string(value, "input"):
            return ()
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise errors.invalid_type("input", "one of an array of objects or string", value)
    return parse_items(fields.array(value, "input", maximum=MAX_ITEMS), "input", new_id=new_id)


def parse_items(values: Sequence[JsonValue], path: str, *, new_id: IdFactory) -> tuple[JsonObject, ...]:
    """Return the items of the array at `path` in stored form, by the rules of `parse_input`.

    Raises:
        RequestError: An item is malformed or of a type that is not supported; `param` is its path.

    Source: contract §1.5.
    """
    seen: set[str] = set()
    items: list[JsonObject] = []
    for index, raw in enumerate(values):
        where = f"{path}[{index}]"
        given = fields.without_nulls(fields.mapping(raw, where))
        items.append(_read_item(given, where, seen=seen, new_id=new_id))
    return tuple(items)


def _read_item(given: JsonObject, path: str, *, seen: set[str], new_id: IdFactory) -> JsonObject:
    kind = _item_type(given, path)
    if kind == "item_reference":
        reference = fields.identifier(fields.required(given, "id", path), f"{path}.id")
        return {"type": "item_reference", "id": reference}
    item = _read_message(given, path) if kind == "message" else _read_other(given, kind, path)
    item_id = _claim_id(given, kind, path, seen=seen, new_id=new_id)
    return {"id": item_id, **item}


def _item_type(given: JsonObject, path: str) -> str:
    if "type" in given:
        kind = fields.string(given["type"], f"{path}.type")
        if kind in _KINDS or kind in {"message", "item_reference"}:
            return kind
        if kind in UNSUPPORTED:
            if kind == "compaction":
                fields.required(given, "encrypted_content", path)
            raise errors.unsupported_value(f"{path}.type", kind)
        raise errors.invalid_value(f"{path}.type", kind, ["message", *_KINDS, "item_reference"])
    if "role" in given:
        return "message"
    if given.keys() == {"id"}:
        return "item_reference"
    raise errors.missing_parameter(f"{path}.type")


def _claim_id(given: JsonObject, kind: str, path: str, *, seen: set[str], new_id: IdFactory) -> str:
    where = f"{path}.id"
    given_id = fields.string(given["id"], where) if "id" in given else ""
    if kind in _KINDS and _KINDS[kind].is_id_required:
        # Other items point at these ids; replacing one would cut the pair.
        given_id = fields.identifier(fields.required(given, "id", path), where)
    if not fields.is_identifier(given_id) or given_id in seen:
        given_id = new_item_id(kind, new_id)
    seen.add(given_id)
    return given_id


def _read_message(given: JsonObject, path: str) -> JsonObject:
    role = fields.choice(fields.required(given, "role", path), f"{path}.role", ROLES)
    content = fields.required(given, "content", path)
    where = f"{path}.content"
    item: JsonObject = {
        "type": "message",
        "status": fields.choice(given.get("status", "completed"), f"{path}.status", _STATUSES),
        "role": role,
        "content": read_assistant_parts(content, where) if role == "assistant" else read_user_parts(content, where),
    }
    if "phase" in given:
        item["phase"] = fields.choice(given["phase"], f"{path}.phase", _PHASES)
    return item


def _read_other(given: JsonObject, kind: str, path: str) -> JsonObject:
    spec = _KINDS[kind]
    item: JsonObject = {"type": kind}
    if spec.status is not None or "status" in given:
        item["status"] = fields.string(given.get("status", spec.status), f"{path}.status", maximum=64)
    for key, read in spec.required.items():
        item[key] = read(fields.required(given, key, path), f"{path}.{key}")
    for key, value in given.items():
        if key not in item and key != "id":
            read_member = spec.optional.get(key, fields.anything)
            item[key] = read_member(value, f"{path}.{key}")
    for key in spec.nullable:
        item.setdefault(key, None)
    _finish(item, given, path)
    return item


def _finish(item: JsonObject, given: JsonObject, path: str) -> None:
    """Apply the rules that hold for one kind only."""
    if item["type"] == "computer_call" and not (item.get("action") or item.get("actions")):
        raise errors.missing_parameter(f"{path}.actions")
    if item["type"] == "local_shell_call_output" and "id" in given:
        # The wire's `id` of this one item names the call it answers; our items need ids of their own.
        item.setdefault("call_id", given["id"])


def _typed_texts(kind: str) -> Reader:
    """Return a reader of arrays of `{"type": kind, "text"}`."""

    def read(value: JsonValue, path: str) -> JsonValue:
        part = fields.without_nulls(fields.mapping(value, path))
        fields.choice(fields.required(part, "type", path), f"{path}.type", (kind,))
        return {"type": kind, "text": fields.string(fields.required(part, "text", path), f"{path}.text")}

    return fields.list_of(read)


def _object(required: Mapping[str, Reader] = MappingProxyType({}), **optional: Reader) -> Reader:
    """Return a reader of objects that reads the named members and keeps the others as they are."""

    def read(value: JsonValue, path: str) -> JsonValue:
        given = fields.mapping(value, path)
        known = {key: reader(fields.required(given, key, path), f"{path}.{key}") for key, reader in required.items()}
        for key, reader in optional.items():
            if given.get(key) is not None:
                known[key] = reader(given[key], f"{path}.{key}")
        return {**given, **known}

    return read


def _shell_action(value: JsonValue, path: str) -> JsonValue:
    action = fields.mapping(_shell_commands(value, path), path)
    return {"timeout_ms": None, "max_output_length": None, **action}


def _image_data(value: JsonValue, path: str) -> JsonValue:
    return fields.string(value, path, maximum=MAX_FILE_DATA)


_STATUSES: Final = ("in_progress", "completed", "incomplete")
_text: Reader = fields.string
_texts: Reader = fields.list_of(fields.string)
_call_id: Reader = fields.text_of(256)
_name: Reader = fields.text_of(256)
_objects: Reader = fields.list_of(fields.mapping)
_count: Reader = partial(fields.integer, minimum=0)
_exit_code: Reader = partial(fields.integer, minimum=-(2**31))
_call: Final[dict[str, Reader]] = {"call_id": _call_id}
_answer: Final[dict[str, Reader]] = {"call_id": _call_id, "output": read_tool_output}
_mcp: Final[dict[str, Reader]] = {"server_label": _name, "name": _name, "arguments": _text}

_shell_commands: Reader = _object({"commands": _texts}, timeout_ms=_count, max_output_length=_count)
_local_action: Reader = _object({"command": _texts}, timeout_ms=_count)
_shell_outputs: Reader = fields.list_of(_object(stdout=_text, stderr=_text, outcome=_object(exit_code=_exit_code)))
_code_outputs: Reader = fields.list_of(_object(logs=_text, url=_text))
_screenshot: Reader = _object(image_url=_text, file_id=fields.identifier)

_KINDS: Final[dict[str, _Kind]] = {
    "function_call": _Kind(required={**_call, "name": _name, "arguments": _text}, status="completed"),
    "function_call_output": _Kind(required=_answer, status="completed"),
    "custom_tool_call": _Kind(required={**_call, "name": _name, "input": _text}),
    "custom_tool_call_output": _Kind(required=_answer, status="completed"),
    "reasoning": _Kind(
        required={"summary": _typed_texts("summary_text")},
        optional={"content": _typed_texts("reasoning_text"), "encrypted_content": _text},
    ),
    "mcp_list_tools": _Kind(required={"server_label": _name, "tools": _objects}, is_id_required=True),
    "mcp_approval_request": _Kind(required=_mcp, is_id_required=True),
    "mcp_approval_response": _Kind(
        required={"approval_request_id": fields.identifier, "approve": fields.boolean},
        optional={"reason": _text},
    ),
    "mcp_call": _Kind(
        required=_mcp,
        optional={"output": _text, "approval_request_id": fields.identifier},
        nullable=("approval_request_id", "output", "error"),
        status="completed",
        is_id_required=True,
    ),
    "web_search_call": _Kind(optional={"action": fields.mapping}, status="completed"),
    "file_search_call": _Kind(
        required={"queries": _texts},
        optional={"results": _objects},
        nullable=("results",),
        status="completed",
    ),
    "code_interpreter_call": _Kind(
        required={"container_id": _name},
        optional={"code": _text, "outputs": _code_outputs},
        nullable=("code", "outputs"),
        status="completed",
    ),
    "image_generation_call": _Kind(optional={"result": _image_data}, nullable=("result",), status="completed"),
    "local_shell_call": _Kind(required={**_call, "action": _local_action}, status="completed"),
    "local_shell_call_output": _Kind(required={"output": _text}, optional={"call_id": _call_id}, status="completed"),
    "shell_call": _Kind(required={**_call, "action": _shell_action}, nullable=("environment",), status="completed"),
    "shell_call_output": _Kind(
        required={**_call, "output": _shell_outputs},
        optional={"max_output_length": _count},
        nullable=("max_output_length",),
        status="completed",
    ),
    "apply_patch_call": _Kind(required={**_call, "operation": fields.mapping}, status="completed"),
    "apply_patch_call_output": _Kind(required=_call, optional={"output": _text}, status="completed"),
    "computer_call": _Kind(
        required=_call,
        optional={"action": fields.mapping, "actions": _objects, "pending_safety_checks": _objects},
        status="completed",
    ),
    "computer_call_output": _Kind(required={**_call, "output": _screenshot}, status="completed"),
    "tool_search_call": _Kind(optional=_call, status="completed"),
    "tool_search_output": _Kind(required={"tools": _objects}, optional=_call, status="completed"),
    "program": _Kind(required={**_call, "code": _text, "fingerprint": _text}),
    "program_output": _Kind(required={**_call, "result": _text}, status="completed"),
}

ITEM_TYPES: Final = frozenset({"message", "item_reference", *_KINDS})
"""The item types that requests may carry."""
