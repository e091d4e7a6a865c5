"""What a tool answered, as text or parts that may leave the server.

The text of an exception stays inside unless the operator wants details. Source: contract §2.4, design I6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent_framework import Content

from agent_framework_hosting_responses.protocol.calls import json_text
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

TOOL_FAILED: Final = "The tool call failed."
"""Stands for whatever a failed tool said."""

_FAILED: Final = frozenset({"error", "failed", "incomplete"})


def is_failure(content: Content) -> bool:
    """Tell whether a result content reports a failed tool."""
    return (
        content.exception is not None
        or content.status in _FAILED
        or _is_marked(content.additional_properties)
        or _is_error_output(content.output)
    )


def failure_text(text: str | None, *, details: bool) -> str:
    """Return what a client may read of a failure."""
    return text if details and text else TOOL_FAILED


def result_output(content: Content, *, details: bool) -> JsonValue:
    """Return the `output` of a `function_call_output`: text, or parts when there is more than text."""
    if is_failure(content):
        return failure_text(content.exception or result_text(content.result), details=details)
    items = content.items
    if not items or all(item.type == "text" for item in items):
        return result_text(content.result if content.result is not None else items)
    return [_part(item) for item in items]


def result_text(value: object) -> str:
    """Return any tool output as text: contents by their text, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Content):
        return value.text or value.uri or value.file_id or ""
    if isinstance(value, list | tuple) and any(isinstance(item, Content) for item in value):
        return "\n".join(map(result_text, value))
    return "" if value is None else json_text(value)


def _is_error_output(output: object) -> bool:
    if isinstance(output, Mapping):
        return _is_marked(output)
    return isinstance(output, list | tuple) and any(isinstance(it, Content) and it.type == "error" for it in output)


def _is_marked(fields: Mapping[str, object]) -> bool:
    return bool(fields.get("is_error") or fields.get("isError"))


def _part(item: Content) -> JsonObject:
    is_image = (item.media_type or "").startswith("image")
    if item.type == "hosted_file" and item.file_id:
        return {"type": "input_file", "file_id": item.file_id}
    if item.type not in {"data", "uri"} or not item.uri:
        return {"type": "input_text", "text": result_text(item)}
    if is_image:
        return {"type": "input_image", "image_url": item.uri, "detail": "auto"}
    if item.type == "data":
        return {"type": "input_file", "file_data": item.uri, "filename": item.name or "file"}
    return {"type": "input_file", "file_url": item.uri}
