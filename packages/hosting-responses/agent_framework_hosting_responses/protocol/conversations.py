"""The bodies of the Conversations API: decoded, checked and narrowed, once.

Ids that a caller gives to items are kept or refused, never replaced: the caller will ask for the items by them.

Source: contract §6.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agent_framework_hosting_responses.protocol import errors, fields
from agent_framework_hosting_responses.protocol.ids import IdFactory, new_id
from agent_framework_hosting_responses.protocol.input import parse_items
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue
from agent_framework_hosting_responses.protocol.request import decode_body, read_metadata

MAX_ITEMS: Final = 20
"""Items of one request. Source: contract §6.1."""


class NewConversation(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversation starts with: `items` in stored form, each with an id that is unique among them."""

    items: tuple[JsonObject, ...]
    metadata: dict[str, str]


def decode_creation(body: bytes) -> JsonObject:
    """Return the JSON object in the body of `POST /conversations`; an empty body and `null` are an empty object.

    Raises:
        RequestError: The body is not JSON, not an object, or nested too deeply.

    Source: contract §6.1.
    """
    return {} if body.strip() in {b"", b"null"} else decode_body(body)


def parse_creation(body: JsonObject, *, strict: bool = False, new_id: IdFactory = new_id) -> NewConversation:
    """Return what `POST /conversations` asks for. Unknown fields are refused if `strict`, else ignored.

    Raises:
        RequestError: The first thing that is wrong; `param` is its path, such as `items[3].role`.

    Source: contract §6.1.
    """
    given = _given(body, ("items", "metadata"), strict=strict)
    metadata = read_metadata(given.get("metadata", {}))
    return NewConversation(items=_read_items(given.get("items", []), new_id), metadata=metadata)


def parse_update(body: JsonObject, *, strict: bool = False) -> dict[str, str]:
    """Return the metadata that `POST /conversations/{id}` sets; null clears it.

    Raises:
        RequestError: There is no key `metadata`, or it breaks a limit.

    Source: contract §6.1.
    """
    _given(body, ("metadata",), strict=strict)
    if "metadata" not in body:
        raise errors.missing_parameter("metadata")
    metadata = body["metadata"]
    return {} if metadata is None else read_metadata(metadata)


def parse_additions(body: JsonObject, *, strict: bool = False, new_id: IdFactory = new_id) -> tuple[JsonObject, ...]:
    """Return the items that `POST /conversations/{id}/items` appends, in stored form; at least one.

    Raises:
        RequestError: The first thing that is wrong; `param` is its path, such as `items[3].role`.

    Source: contract §6.1, §6.2.
    """
    given = _given(body, ("items",), strict=strict)
    items = _read_items(fields.required(given, "items", ""), new_id)
    if not items:
        raise errors.array_empty("items")
    return items


def _given(body: JsonObject, known: tuple[str, ...], *, strict: bool) -> JsonObject:
    if strict:
        for name in body:
            if name not in known:
                raise errors.unknown_parameter(name)
    return fields.without_nulls(body)


def _read_items(value: JsonValue, new_id: IdFactory) -> tuple[JsonObject, ...]:
    given = [_with_own_id(raw) for raw in fields.array(value, "items", maximum=MAX_ITEMS)]
    _check_ids(given)
    items = parse_items(given, "items", new_id=new_id)
    for index, item in enumerate(items):
        if item["type"] == "item_reference":
            # What it refers to could only be in another conversation or response, and items have one place.
            raise errors.item_not_found(str(item["id"]), param=f"items[{index}].id", status=400)
        if item["type"] == "mcp_approval_response":
            # Behind the back of the request that is checked against what was asked, it would approve anything.
            raise errors.unsupported_value(f"items[{index}].type", "mcp_approval_response")
    return items


def _with_own_id(raw: JsonValue) -> JsonValue:
    """Return the item with its `id` as its own: in this one kind the wire's `id` may name the call it answers."""
    if (
        not isinstance(raw, dict)
        or raw.get("type") != "local_shell_call_output"
        or raw.get("call_id") is not None
        or not isinstance(raw.get("id"), str)
    ):
        return raw
    return {**raw, "id": None, "call_id": raw["id"]}


def _check_ids(given: list[JsonValue]) -> None:
    seen: set[str] = set()
    for index, raw in enumerate(given):
        item_id = raw.get("id") if isinstance(raw, dict) else None
        # An empty id is what some clients write for none.
        if item_id is None or item_id == "":
            continue
        param = f"items[{index}].id"
        known = fields.identifier(item_id, param)
        if known in seen:
            raise errors.duplicate_item(param, known)
        seen.add(known)
