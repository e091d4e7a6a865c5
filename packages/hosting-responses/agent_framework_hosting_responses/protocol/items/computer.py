"""Computer calls, which the client runs, and their screenshots.

Source: contract §2.4 (computer_call, computer_call_output).
"""

from __future__ import annotations

from agent_framework import Content

from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

from .draft import Draft
from .hosted import HostedItem
from .source import responses_item


def write_computer_call(draft: Draft, content: Content) -> None:
    """Write a computer call, whole; the response ends and the client acts."""
    item = responses_item(content.raw_representation)
    if item is None or item["type"] != "computer_call":
        item = _call(content)
    draft.before_output()
    draft.hosted.end(content.call_id or content.id, item, HostedItem)


def write_computer_result(draft: Draft, content: Content) -> None:
    """Write the screenshot that a computer call led to."""
    item = responses_item(content.raw_representation)
    if item is None or item["type"] != "computer_call_output":
        item = _result(content)
    draft.before_output()
    draft.hosted.end(content.call_id or content.id, item, HostedItem)


def _call(content: Content) -> JsonObject:
    actions: list[JsonValue] = [dict(action) for action in content.actions or []]
    checks: list[JsonValue] = []
    for check in content.pending_safety_checks or []:
        fields = {str(name): str(value) for name, value in check.items() if value is not None}
        checks.append({**fields})
    return {
        "type": "computer_call",
        "status": "completed",
        "call_id": content.call_id or content.id or "",
        "pending_safety_checks": checks,
        "actions": actions,
    }


def _result(content: Content) -> JsonObject:
    screenshot = content.screenshot
    output: JsonObject = {"type": "computer_screenshot"}
    if screenshot is not None and screenshot.uri:
        output["image_url"] = screenshot.uri
    if screenshot is not None and screenshot.file_id:
        output["file_id"] = screenshot.file_id
    return {
        "type": "computer_call_output",
        "status": "completed",
        "call_id": content.call_id or "",
        "output": output,
    }
