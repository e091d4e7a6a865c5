"""The request body of `POST /responses`: decoded, checked and narrowed, once.

Behind `parse_request` no code looks at the shape of a request again. What needs a store stays open: whether ids exist, and
whether calls and their outputs pair up.

Source: contract §1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Final, Literal, cast

import msgspec

from agent_framework_hosting_responses.protocol import errors, fields
from agent_framework_hosting_responses.protocol.fields import Reader
from agent_framework_hosting_responses.protocol.ids import IdFactory, new_id
from agent_framework_hosting_responses.protocol.input import parse_input
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue
from agent_framework_hosting_responses.protocol.text import VERBOSITIES, parse_reasoning, parse_text
from agent_framework_hosting_responses.protocol.tools import ToolSet, parse_tool_choice, parse_tools

MAX_DEPTH: Final = 100
"""Levels of nesting of a body, itself included."""

_MAX_METADATA: Final = 16
_MAX_METADATA_KEY: Final = 64
_MAX_METADATA_VALUE: Final = 512

_decoder: Final = msgspec.json.Decoder()


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed request.

    `input` holds stored items, each with an id (`item_reference` items still have to be resolved). `tools` is what was sent minus
    secrets, `client_tools` the function and custom ones among them, `hosted_tools` what the agent's chat client gets as
    sent, secrets included. `echo` holds the members that the Response repeats, defaults filled in. `sent` names the fields that
    the body set to something other than null. `raw` is the body as sent, for hooks; neither it nor `hosted_tools` is ever
    stored.

    Source: contract §1.1.
    """

    model: str | None
    input: tuple[JsonObject, ...]
    instructions: str | None
    previous_response_id: str | None
    conversation_id: str | None
    store: bool
    background: bool
    stream: bool
    metadata: dict[str, str]
    tools: tuple[JsonObject, ...]
    client_tools: tuple[JsonObject, ...]
    hosted_tools: tuple[JsonObject, ...]
    tool_choice: JsonValue
    parallel_tool_calls: bool
    max_tool_calls: int | None
    max_output_tokens: int | None
    text: JsonObject
    include: frozenset[str]
    user: str | None
    safety_identifier: str | None
    echo: JsonObject
    sent: frozenset[str]
    raw: JsonObject


# --- JSON --------------------------------------------------------------------------------------------------------


def decode_body(body: bytes) -> JsonObject:
    """Return the JSON object in `body`.

    Lone surrogate escapes are kept, for JSON allows them; NaN, infinities and numbers beyond a double are refused.

    Raises:
        RequestError: The body is not JSON, not an object, or nested deeper than `MAX_DEPTH`.

    Source: contract §1.8, §4.8 E18.
    """
    try:
        value = cast("JsonValue", _decoder.decode(body))
    except RecursionError:
        raise errors.nested_too_deep(None, MAX_DEPTH) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = _decode_leniently(body)
    if not isinstance(value, dict):
        raise errors.not_an_object(value)
    _check_depth(value)
    return value


def _decode_leniently(body: bytes) -> JsonValue:
    """Decode what msgspec refuses although JSON allows it: the escape of one half of a surrogate pair."""
    if b"\\u" not in body:
        raise errors.invalid_json()
    try:
        return cast("JsonValue", json.loads(body.decode("utf-8"), parse_constant=_refuse, parse_float=_finite))
    except RecursionError:
        raise errors.nested_too_deep(None, MAX_DEPTH) from None
    except ValueError:
        raise errors.invalid_json() from None


def _refuse(constant: str) -> JsonValue:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(digits)
    return number


def _check_depth(body: JsonObject) -> None:
    # Level by level, not recursively: the point is to survive bodies on which recursion does not.
    for name, member in body.items():
        level: list[JsonValue] = [member]
        for _ in range(MAX_DEPTH - 1):
            level = [child for parent in level for child in _children(parent)]
            if not level:
                break
        else:
            raise errors.nested_too_deep(name[:64], MAX_DEPTH)


def _children(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return [child for child in value.values() if isinstance(child, dict | list)]
    if isinstance(value, list):
        return [child for child in value if isinstance(child, dict | list)]
    return []


# --- Fields ------------------------------------------------------------------------------------------------------

_integer = fields.integer
_decimal = fields.decimal
_string = fields.string

_OPTIONS: Final[dict[str, tuple[Reader, JsonValue]]] = {
    "background": (fields.boolean, False),
    "instructions": (fields.string, None),
    "max_output_tokens": (partial(_integer, minimum=16), None),
    "max_tool_calls": (partial(_integer, minimum=1), None),
    "parallel_tool_calls": (fields.boolean, True),
    "prompt_cache_key": (partial(_string, maximum=64), None),
    "prompt_cache_retention": (fields.one_of("in_memory", "in-memory", "24h"), None),
    "safety_identifier": (partial(_string, maximum=128), None),
    "store": (fields.boolean, True),
    "temperature": (partial(_decimal, minimum=0, maximum=2), 1.0),
    "top_logprobs": (partial(_integer, minimum=0, maximum=20), 0),
    "top_p": (partial(_decimal, minimum=0, maximum=1), 1.0),
    "frequency_penalty": (partial(_decimal, minimum=-2, maximum=2), 0.0),
    "presence_penalty": (partial(_decimal, minimum=-2, maximum=2), 0.0),
    "truncation": (fields.one_of("auto", "disabled"), "disabled"),
    "user": (partial(_string, maximum=1024), None),
}
"""Fields that the Response echoes as they are: their reader and what stands in the Response when they were not sent."""

_TYPES: Final[dict[str, str]] = {
    "model": "a string",
    "input": "one of an array of objects or string",
    "previous_response_id": "a string",
    "conversation": "one of an object or string",
    "stream": "a boolean",
    "stream_options": "an object",
    "metadata": "an object",
    "tools": "an array",
    "tool_choice": "one of an object or string",
    "text": "an object",
    "reasoning": "an object",
    "include": "an array",
    "service_tier": "a string",
    "verbosity": "a string",
    "background": "a boolean",
    "instructions": "a string",
    "max_output_tokens": "an integer",
    "max_tool_calls": "an integer",
    "parallel_tool_calls": "a boolean",
    "prompt_cache_key": "a string",
    "prompt_cache_retention": "a string",
    "safety_identifier": "a string",
    "store": "a boolean",
    "temperature": "a decimal",
    "top_logprobs": "an integer",
    "top_p": "a decimal",
    "frequency_penalty": "a decimal",
    "presence_penalty": "a decimal",
    "truncation": "a string",
    "user": "a string",
}
"""The JSON type of each field that is read, as error messages call it."""

_REFUSED: Final = ("prompt", "moderation")
"""Fields whose silent omission would be wrong: another prompt, or an answer that was to be blocked."""

_IGNORED: Final = frozenset(
    {
        "prompt_cache_options",
        "context_management",
        "access_programs",
        "image",
        "background_options",
        "type",
        "generate",
        "stream_id",
    }
)
"""Fields that the API knows and that change nothing here; strict mode accepts them too."""

_ACCEPTED: Final[dict[str, tuple[type, ...]]] = {
    "a string": (str,),
    "a boolean": (bool,),
    "an integer": (int,),
    "a decimal": (int, float),
    "an object": (dict,),
    "an array": (list,),
    "one of an object or string": (dict, str),
    "one of an array of objects or string": (list, str),
}


def parse_request(
    body: JsonObject,
    *,
    strict: bool = False,
    hosted_tools: Literal["reject", "ignore", "pass"] = "reject",
    new_id: IdFactory = new_id,
) -> CreateRequest:
    """Return the request that `body` makes.

    Order of the checks: unknown fields (only if `strict`), the type of every field, then ranges and contents, then fields against
    each other. Ids of items that come without one are drawn from `new_id`.

    Raises:
        RequestError: The first thing that is wrong; `param` is its path, such as `input[3].content[0].type`.

    Source: contract §1.1, §1.2, §1.8.
    """
    given = fields.without_nulls(body)
    if strict:
        _check_known(given)
    _check_types(given)
    echo: JsonObject = {
        name: read(given[name], name) if name in given else default for name, (read, default) in _OPTIONS.items()
    }
    if "model" in given:
        fields.string(given["model"], "model", maximum=fields.MAX_ID)
    echo["metadata"] = cast("JsonObject", read_metadata(given.get("metadata", {})))
    echo["reasoning"] = parse_reasoning(given.get("reasoning", {}))
    echo["text"] = _read_text(given)
    tools = parse_tools(given.get("tools", []), hosted_tools=hosted_tools)
    echo["tools"] = list(tools.declared)
    echo["tool_choice"] = parse_tool_choice(given.get("tool_choice", "auto"), tools)
    previous_response_id, conversation_id = _read_context(given)
    echo["previous_response_id"] = previous_response_id
    if conversation_id is not None:
        echo["conversation"] = {"id": conversation_id}
    items = parse_input(given.get("input", []), new_id=new_id)
    _check_context(items, previous_response_id, conversation_id)
    return _build(body, given, echo=echo, tools=tools, items=items, conversation_id=conversation_id)


def _check_known(given: JsonObject) -> None:
    for name in given:
        if name not in _TYPES and name not in _IGNORED and name not in _REFUSED:
            raise errors.unknown_parameter(name)


def _check_types(given: JsonObject) -> None:
    for name, expected in _TYPES.items():
        if name in given and not _is_a(given[name], _ACCEPTED[expected]):
            raise errors.invalid_type(name, expected, given[name])
    for name in _REFUSED:
        if name in given:
            raise errors.unsupported_parameter(name)


def _is_a(value: JsonValue, accepted: tuple[type, ...]) -> bool:
    # In Python a boolean is an integer; in JSON it is not.
    return isinstance(value, accepted) and (not isinstance(value, bool) or bool in accepted)


def read_metadata(value: JsonValue) -> dict[str, str]:
    """Return the member `metadata` of a body: at most 16 pairs of short strings. Source: contract §1.1."""
    metadata = fields.mapping(value, "metadata")
    if len(metadata) > _MAX_METADATA:
        raise errors.too_many_properties("metadata", _MAX_METADATA, len(metadata))
    read: dict[str, str] = {}
    for key, member in metadata.items():
        if len(key) > _MAX_METADATA_KEY:
            raise errors.string_too_long("metadata", _MAX_METADATA_KEY, len(key))
        read[key] = fields.string(member, f"metadata.{key}", maximum=_MAX_METADATA_VALUE)
    return read


def _read_text(given: JsonObject) -> JsonObject:
    verbosity = None
    if "verbosity" in given:
        # The official client's `parse(verbosity=…)` sends it beside `text`.
        verbosity = fields.choice(given["verbosity"], "verbosity", VERBOSITIES)
    return parse_text(given.get("text", {}), verbosity=verbosity)


def _read_context(given: JsonObject) -> tuple[str | None, str | None]:
    previous = conversation = None
    if "previous_response_id" in given:
        previous = fields.identifier(given["previous_response_id"], "previous_response_id")
    value = given.get("conversation")
    if isinstance(value, str):
        conversation = fields.identifier(value, "conversation")
    elif isinstance(value, dict):
        conversation = fields.identifier(fields.required(value, "id", "conversation"), "conversation.id")
    return previous, conversation


def _check_context(items: tuple[JsonObject, ...], previous: str | None, conversation: str | None) -> None:
    if previous is not None and conversation is not None:
        raise errors.mutually_exclusive()
    if not items and previous is None and conversation is None:
        raise errors.missing_input()


def _read_include(value: JsonValue) -> frozenset[str]:
    # Unknown values are ignored by whoever looks for the known ones; the official tool runner always sends one.
    values = fields.list_of(fields.string, maximum=100)(value, "include")
    return frozenset(cast("list[str]", values))


def _build(
    body: JsonObject,
    given: Mapping[str, JsonValue],
    *,
    echo: JsonObject,
    tools: ToolSet,
    items: tuple[JsonObject, ...],
    conversation_id: str | None,
) -> CreateRequest:
    return CreateRequest(
        model=cast("str | None", given.get("model")),
        input=items,
        instructions=cast("str | None", echo["instructions"]),
        previous_response_id=cast("str | None", echo["previous_response_id"]),
        conversation_id=conversation_id,
        store=cast("bool", echo["store"]),
        background=cast("bool", echo["background"]),
        stream=cast("bool", given.get("stream", False)),
        metadata=cast("dict[str, str]", echo["metadata"]),
        tools=tools.declared,
        client_tools=tools.client,
        hosted_tools=tools.hosted,
        tool_choice=echo["tool_choice"],
        parallel_tool_calls=cast("bool", echo["parallel_tool_calls"]),
        max_tool_calls=cast("int | None", echo["max_tool_calls"]),
        max_output_tokens=cast("int | None", echo["max_output_tokens"]),
        text=cast("JsonObject", echo["text"]),
        include=_read_include(given.get("include", [])),
        user=cast("str | None", echo["user"]),
        safety_identifier=cast("str | None", echo["safety_identifier"]),
        echo=echo,
        sent=frozenset(given),
        raw=body,
    )
