"""Raw Responses items of the agent's own model client, passed through unchanged.

Source: contract §2.4, §3.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent_framework_hosting_responses.protocol.json import JsonObject

from .code_interpreter import CodeInterpreterItem
from .custom_tool import CustomToolItem
from .draft import Draft
from .hosted import HostedItem
from .image_generation import ImageGenerationItem
from .mcp import McpCallItem, McpListToolsItem
from .search import FileSearchItem, WebSearchItem
from .shell import ShellCallItem, ShellOutputItem
from .source import member, responses_item

WRITERS: Final[Mapping[str, type[HostedItem]]] = {
    "code_interpreter_call": CodeInterpreterItem,
    "custom_tool_call": CustomToolItem,
    "file_search_call": FileSearchItem,
    "image_generation_call": ImageGenerationItem,
    "mcp_call": McpCallItem,
    "mcp_list_tools": McpListToolsItem,
    "shell_call": ShellCallItem,
    "shell_call_output": ShellOutputItem,
    "web_search_call": WebSearchItem,
}
"""Item type → its writer; all other types are announced and finished with nothing in between."""

# The framework turns these into contents, which are written by their own rules.
_BY_CONTENT: Final = frozenset(
    {
        "computer_call",
        "computer_call_output",
        "function_call",
        "function_call_output",
        "local_shell_call",
        "mcp_approval_request",
        "message",
        "reasoning",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
    }
)


def write_raw_item(draft: Draft, item: JsonObject) -> None:
    """Write a finished item as it is."""
    draft.before_output()
    draft.hosted.end(_id(item), item, WRITERS.get(str(item["type"]), HostedItem))


def write_raw_event(draft: Draft, raw: object) -> None:
    """Write what a raw stream event says beyond its contents: where items begin and end."""
    match member(raw, "type"):
        case "response.output_item.added":
            _write_item_event(draft, member(raw, "item"), is_done=False)
        case "response.output_item.done":
            _write_item_event(draft, member(raw, "item"), is_done=True)
        case "response.custom_tool_call_input.delta":
            opened = draft.hosted.get("custom_tool_call", member(raw, "item_id"))
            if isinstance(opened, CustomToolItem):
                opened.append(str(member(raw, "delta") or ""))


def _write_item_event(draft: Draft, raw_item: object, *, is_done: bool) -> None:
    item_type = member(raw_item, "type")
    if not isinstance(item_type, str):
        return
    if item_type == "message":
        _write_message_edge(draft, raw_item, is_done=is_done)
        return
    if item_type == "reasoning" and is_done:
        draft.end_reasoning()
    item = None if item_type in _BY_CONTENT else responses_item(raw_item)
    if item is None:
        return
    if is_done:
        write_raw_item(draft, item)
    elif item_type in WRITERS:
        draft.before_output()
        draft.hosted.open(_id(item), item, WRITERS[item_type])


def _write_message_edge(draft: Draft, raw_item: object, *, is_done: bool) -> None:
    if is_done:
        draft.end_message("incomplete" if member(raw_item, "status") == "incomplete" else "completed")
    else:
        draft.end_message("completed")
        draft.enter_phase(member(raw_item, "phase"))


def _id(item: JsonObject) -> str | None:
    item_id = item.get("id")
    return item_id if isinstance(item_id, str) else None
