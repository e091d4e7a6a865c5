"""MCP items: lists, calls, approval requests, and calls of the agent's own tools shown in this form.

Source: contract §2.4, §3.6 (mcp_list_tools, mcp_call, mcp_approval_request).
"""

from __future__ import annotations

from typing import ClassVar, Final

from agent_framework import Content

from agent_framework_hosting_responses.protocol.calls import Call, json_text
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue
from agent_framework_hosting_responses.protocol.memo import AskedApproval

from .draft import Draft
from .hosted import HostedItem
from .output import Output
from .results import failure_text, is_failure, result_text
from .source import responses_item

# A result can come without its call; an item without a name could not be sent back.
_NAMELESS: Final = "tool"


class McpListToolsItem(HostedItem):
    """The tools of one MCP server."""

    opening: ClassVar[tuple[str, ...]] = ("in_progress",)

    def initial(self) -> JsonObject:
        """Return the list before anything is known."""
        item = {name: value for name, value in self.item.items() if name != "error"}
        return {**item, "tools": []}

    def conclude(self, item: JsonObject) -> JsonObject:
        """Tell whether the list came."""
        self.progress("failed" if item.get("error") else "completed")
        return {**item, "tools": item.get("tools") or []}


class McpCallItem(HostedItem):
    """One call of a tool that an MCP server runs."""

    opening: ClassVar[tuple[str, ...]] = ("in_progress",)

    def __init__(self, output: Output, item: JsonObject, *, include: frozenset[str]) -> None:
        self._arguments: str | None = None
        super().__init__(output, item, include=include)

    def initial(self) -> JsonObject:
        """Return the call before its arguments."""
        return {**self.item, "status": "in_progress", "arguments": "", "output": None, "error": None}

    def start(self) -> None:
        """Write the arguments if they are known already."""
        if self.item.get("arguments"):
            self._write_arguments(self.item)

    def conclude(self, item: JsonObject) -> JsonObject:
        """Write the arguments if that is still to do, and how the call went."""
        if self._arguments is None:
            self._write_arguments(item)
        if item.get("status") in {"completed", "failed"}:
            self.progress(str(item["status"]))
        return {**item, "arguments": self._arguments}

    def broken(self) -> JsonObject:
        """Return the call without a result."""
        return {**self.item, "status": "incomplete", "arguments": self._arguments or ""}

    def _write_arguments(self, item: JsonObject) -> None:
        text = item.get("arguments")
        self._arguments = text if isinstance(text, str) else json_text(text or {})
        if self._arguments:
            self.output.writer.emit("response.mcp_call_arguments.delta", {**self.place, "delta": self._arguments})
        self.output.writer.emit("response.mcp_call_arguments.done", {**self.place, "arguments": self._arguments})


def write_mcp_call(draft: Draft, content: Content) -> None:
    """Open the item of a call that a hosted MCP server runs."""
    item = responses_item(content.raw_representation)
    if item is None or item["type"] != "mcp_call":
        item = _call(content.tool_name or "", _arguments(content), content.server_name or draft.options.server_label)
    draft.before_output()
    draft.hosted.open(content.call_id, item, McpCallItem)


def write_mcp_result(draft: Draft, content: Content) -> None:
    """Finish the item of a call that a hosted MCP server ran."""
    item = responses_item(content.raw_representation)
    draft.before_output()
    if item is not None and item["type"] == "mcp_call":
        draft.hosted.open(content.call_id, {"status": "completed", **item}, McpCallItem)
        return
    opened = draft.hosted.get("mcp_call", content.call_id)
    item = opened.item if opened is not None else _call(content.tool_name or "", "", draft.options.server_label)
    answer = _answer(content, content.output, details=draft.options.error_details)
    draft.hosted.end(content.call_id, {**item, **answer}, McpCallItem)


def write_server_call(draft: Draft, call: Call, result: Content) -> None:
    """Show a call that the server ran itself as an MCP call of the agent, added to done at once."""
    item = _call(call.name, call.arguments or "{}", draft.options.server_label)
    answer = _answer(result, result.result, details=draft.options.error_details)
    McpCallItem(draft.output, item, include=draft.options.include).end({**item, **answer})


def write_approval_request(draft: Draft, content: Content) -> None:
    """Ask the client to approve a call; the call itself is not shown besides."""
    call = content.function_call
    if call is None or _is_asked(draft, content.id):
        return
    draft.before_output()
    draft.calls.absorb(call)
    item_id = draft.output.claim_id("mcp_approval_request", _upstream_id(call))
    draft.approvals[item_id] = _asked(content, call)
    draft.output.write(
        {
            "id": item_id,
            "type": "mcp_approval_request",
            "server_label": call.server_name or draft.options.server_label,
            "name": call.name or _NAMELESS,
            "arguments": _arguments(call) or "{}",
        }
    )


def _is_asked(draft: Draft, request_id: str | None) -> bool:
    return bool(request_id) and any(request_id == asked.request_id for asked in draft.approvals.values())


def _upstream_id(call: Content) -> JsonValue:
    raw = responses_item(call.raw_representation)
    return raw.get("id") if raw is not None and raw["type"] == "mcp_approval_request" else None


def _asked(content: Content, call: Content) -> AskedApproval:
    request_id = content.id or call.id or call.call_id or ""
    return AskedApproval(request_id=request_id, call_id=call.call_id or request_id, hosted=call.hosted is True)


def _call(name: str, arguments: str, server_label: str) -> JsonObject:
    return {
        "type": "mcp_call",
        "status": "in_progress",
        "approval_request_id": None,
        "arguments": arguments,
        "error": None,
        "name": name or _NAMELESS,
        "output": None,
        "server_label": server_label,
    }


def _arguments(content: Content) -> str:
    value = content.arguments
    return value if isinstance(value, str) else "" if value is None else json_text(value)


def _answer(content: Content, output: object, *, details: bool) -> JsonObject:
    if not is_failure(content):
        return {"status": "completed", "output": None if output is None else result_text(output)}
    text = failure_text(content.exception or result_text(output), details=details)
    return {
        "status": "failed",
        "error": {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]},
    }
