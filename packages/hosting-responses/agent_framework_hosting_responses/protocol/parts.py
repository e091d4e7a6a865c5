"""Content parts of input messages and of tool outputs, read into their stored form.

Source: contract §1.5, content parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from agent_framework_hosting_responses.protocol import errors, fields
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

MAX_PARTS: Final = 10_000
"""Parts of one message."""

MAX_IMAGE_URL: Final = 20_971_520
MAX_FILE_DATA: Final = 73_400_320

_DETAILS: Final = ("low", "high", "auto", "original")
_DATA_URL: Final = re.compile(r"data:[\w.+-]+/[\w.+*-]+(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
_HTTP_URL: Final = re.compile(r"https?://[^\s/]", re.ASCII | re.IGNORECASE)

PartReader: TypeAlias = Callable[[JsonObject, str], JsonObject]


def is_data_url(value: str) -> bool:
    """Return whether `value` starts like a base64 data URL; the payload is left to whoever decodes it."""
    return _DATA_URL.match(value) is not None


def read_user_parts(value: JsonValue, path: str) -> list[JsonValue]:
    """Return the content of a user, system or developer message, or of a tool output, as stored parts."""
    if isinstance(value, str):
        return [{"type": "input_text", "text": fields.string(value, path)}]
    return _read_parts(value, path, _INPUT_PARTS)


def read_assistant_parts(value: JsonValue, path: str) -> list[JsonValue]:
    """Return the content of a replayed assistant message as stored parts.

    `input_text`, which the short message form allows for every role, becomes `output_text`.
    """
    if isinstance(value, str):
        return [_output_text({"text": value}, path)]
    return _read_parts(value, path, _ASSISTANT_PARTS)


def read_tool_output(value: JsonValue, path: str) -> JsonValue:
    """Return the `output` of a call: a string as it is, or stored parts."""
    if isinstance(value, str):
        return fields.string(value, path)
    if not isinstance(value, list):
        raise errors.invalid_type(path, "one of an array of objects or string", value)
    return _read_parts(value, path, _INPUT_PARTS)


def _read_parts(value: JsonValue, path: str, readers: Mapping[str, PartReader]) -> list[JsonValue]:
    if not isinstance(value, list):
        raise errors.invalid_type(path, "one of an array of objects or string", value)
    parts: list[JsonValue] = []
    for index, raw in enumerate(fields.array(value, path, maximum=MAX_PARTS)):
        where = f"{path}[{index}]"
        part = fields.without_nulls(fields.mapping(raw, where))
        kind = fields.string(fields.required(part, "type", where), f"{where}.type")
        reader = readers.get(kind)
        if reader is None:
            raise errors.invalid_value(f"{where}.type", kind, _names(readers))
        parts.append(reader(part, where))
    return parts


def _names(readers: Mapping[str, PartReader]) -> list[str]:
    return ["output_text", "refusal"] if "refusal" in readers else list(readers)


def _input_text(part: JsonObject, path: str) -> JsonObject:
    return _with_breakpoint(part, {"type": "input_text", "text": _required_text(part, "text", path)})


def _input_image(part: JsonObject, path: str) -> JsonObject:
    stored: JsonObject = {"type": "input_image"}
    stored["detail"] = fields.choice(part.get("detail", "auto"), f"{path}.detail", _DETAILS)
    if "image_url" in part:
        where = f"{path}.image_url"
        url = fields.string(part["image_url"], where, maximum=MAX_IMAGE_URL)
        if not is_data_url(url) and not _HTTP_URL.match(url):
            raise errors.invalid_url_value(where)
        stored["image_url"] = url
    if "file_id" in part:
        stored["file_id"] = fields.identifier(part["file_id"], f"{path}.file_id")
    if "image_url" not in stored and "file_id" not in stored:
        raise errors.missing_parameter(f"{path}.image_url")
    return _with_breakpoint(part, stored)


def _input_file(part: JsonObject, path: str) -> JsonObject:
    stored: JsonObject = {"type": "input_file"}
    if "file_id" in part:
        stored["file_id"] = fields.identifier(part["file_id"], f"{path}.file_id")
    if "file_url" in part:
        url = fields.string(part["file_url"], f"{path}.file_url", maximum=MAX_IMAGE_URL)
        if not _HTTP_URL.match(url):
            raise errors.invalid_url_value(f"{path}.file_url")
        stored["file_url"] = url
    if "file_data" in part:
        data = fields.string(part["file_data"], f"{path}.file_data", maximum=MAX_FILE_DATA)
        if not is_data_url(data):
            raise errors.invalid_file_data(f"{path}.file_data")
        stored["file_data"] = data
    if len(stored) == 1:
        raise errors.missing_parameter(f"{path}.file_id")
    if "filename" in part:
        stored["filename"] = fields.string(part["filename"], f"{path}.filename", maximum=1024)
    if "detail" in part:
        stored["detail"] = fields.choice(part["detail"], f"{path}.detail", _DETAILS)
    return _with_breakpoint(part, stored)


def _output_text(part: JsonObject, path: str) -> JsonObject:
    objects = fields.list_of(fields.mapping)
    return {
        "type": "output_text",
        "text": _required_text(part, "text", path),
        "annotations": objects(part.get("annotations", []), f"{path}.annotations"),
        "logprobs": objects(part.get("logprobs", []), f"{path}.logprobs"),
    }


def _refusal(part: JsonObject, path: str) -> JsonObject:
    return {"type": "refusal", "refusal": _required_text(part, "refusal", path)}


def _required_text(part: JsonObject, key: str, path: str) -> str:
    return fields.string(fields.required(part, key, path), f"{path}.{key}")


def _with_breakpoint(part: JsonObject, stored: JsonObject) -> JsonObject:
    if "prompt_cache_breakpoint" in part:
        stored["prompt_cache_breakpoint"] = part["prompt_cache_breakpoint"]
    return stored


_INPUT_PARTS: Final[dict[str, PartReader]] = {
    "input_text": _input_text,
    "input_image": _input_image,
    "input_file": _input_file,
}
_ASSISTANT_PARTS: Final[dict[str, PartReader]] = {
    "output_text": _output_text,
    "refusal": _refusal,
    "input_text": _output_text,
}
