"""What a tool answered, as text or parts that may leave the server.

The text of an exception stays inside unless the operator wants details. Source: contract §2.4, design I6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from agent_framework import Content

from agent_framework_hosting_responses.protocol.calls import json_text
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

TOOL_FAILED: Final = "The tool call failed."
"""Stands for whatever a failed tool said."""

_FAILED: Final = frozenset({"error", "failed", "incomplete"})


def is_failure(content: Content) -> bool:
    """Tell whether a result content reports a failed tool."""
    if content.exception is not None or content.status in _FAILED:
        return True
    output = content.output
    if isinstance(output, Mapping) and bool(output.get("isError") or output.get("is_error")):
        return True
    if isinstance(output, Sequence) and any(isinstance(part, Content) and part.type == "error" for part in output):
        return True
    return bool(content.additional_properties.get("is_error") or content.additional_properties.get("isError"))


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
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Content):
        return value.text or value.uri or value.file_id or ""
    if isinstance(value, Sequence) and not isinstance(value, bytes) and any(isinstance(v, Content) for v in value):
        return "\n".join(result_text(item) for item in value)
    return json_text(value)


def _part(item: Content) -> JsonObject:
    if item.type == "data" and item.uri and item.has_top_level_media_type("image"):
        return {"type": "input_image", "image_url": item.uri, "detail": "auto"}
    if item.type == "data" and item.uri:
        return {"type": "input_file", "file_data": item.uri, "filename": item.name or "file"}
    if item.type == "uri" and item.uri and item.media_type and item.has_top_level_media_type("image"):
        return {"type": "input_image", "image_url": item.uri, "detail": "auto"}
    if item.type == "uri" and item.uri:
        return {"type": "input_file", "file_url": item.uri}
    if item.type == "hosted_file" and item.file_id:
        return {"type": "input_file", "file_id": item.file_id}
    return {"type": "input_text", "text": result_text(item)}
