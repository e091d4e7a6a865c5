"""Raw Responses items that the agent's own model client left in `raw_representation`.

They are recognised by shape, not by class: a mapping, or an object with `type` and `model_dump`.

Source: contract §0.2 rule 4, §2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

# Item type → members that are null when there is nothing. Every other null member is left out.
NULLABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "mcp_call": ("output", "error", "approval_request_id"),
    "file_search_call": ("results",),
    "code_interpreter_call": ("code", "outputs"),
    "image_generation_call": ("result",),
    "shell_call": ("environment",),
    "shell_call_output": ("max_output_length",),
}

# Some providers give every item a status; OpenAI's clients expect none on these. Source: contract §2.4, §11.10.
_STATUSLESS: Final = frozenset(
    {"compaction", "custom_tool_call", "mcp_approval_request", "mcp_list_tools", "reasoning"}
)

ITEM_TYPES: Final[frozenset[str]] = frozenset(
    {
        "additional_tools",
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "compaction",
        "computer_call",
        "computer_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "file_search_call",
        "function_call",
        "function_call_output",
        "image_generation_call",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_call",
        "mcp_list_tools",
        "message",
        "program",
        "program_output",
        "reasoning",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)
"""The output item types of the API; others have no place on the wire."""


def member(raw: object, name: str) -> Any:
    """Return `raw`'s member `name`, whether it is a mapping or an object."""
    return raw.get(name) if isinstance(raw, Mapping) else getattr(raw, name, None)


def responses_item(raw: object) -> JsonObject | None:
    """Return `raw` as an output item, without members that must not be there; None if it is none."""
    if isinstance(raw, list):
        # Merged contents carry the raw objects of all their chunks; the last one is the most complete.
        return next((item for item in map(responses_item, reversed(raw)) if item is not None), None)
    item_type = member(raw, "type")
    if not isinstance(item_type, str) or item_type not in ITEM_TYPES:
        return None
    fields = _fields(raw)
    if fields is None or not isinstance(fields.get("id"), str | None):
        return None
    return _as_on_the_wire(item_type, fields)


def visible(item: JsonObject, include: frozenset[str]) -> JsonObject:
    """Return `item` without what the request did not ask to include. Source: contract §1.6."""
    item_type = item["type"]
    if item_type == "file_search_call" and "file_search_call.results" not in include:
        return {**item, "results": None}
    if item_type == "code_interpreter_call" and "code_interpreter_call.outputs" not in include:
        return {**item, "outputs": None}
    action = item.get("action")
    if (
        item_type == "web_search_call"
        and isinstance(action, dict)
        and "web_search_call.action.sources" not in include
        and "sources" in action
    ):
        return {**item, "action": {name: value for name, value in action.items() if name != "sources"}}
    return item


def _as_on_the_wire(item_type: str, fields: JsonObject) -> JsonObject:
    nullable = NULLABLE.get(item_type, ())
    item = {name: value for name, value in fields.items() if value is not None or name in nullable}
    for name in nullable:
        item.setdefault(name, None)
    if item_type in _STATUSLESS:
        item.pop("status", None)
    action = item.get("action")
    if item_type == "web_search_call" and isinstance(action, dict):
        item["action"] = {name: value for name, value in action.items() if value is not None}
    return item


def _fields(raw: object) -> dict[str, JsonValue] | None:
    if isinstance(raw, Mapping):
        return dict(raw)
    dump = getattr(raw, "model_dump", None)
    if not callable(dump):
        return None
    return cast("dict[str, JsonValue]", dump(mode="json", by_alias=True, exclude_unset=True))
