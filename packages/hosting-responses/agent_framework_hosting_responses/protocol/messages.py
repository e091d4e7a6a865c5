"""Stored items as Agent Framework messages: what a caller sent, and what earlier responses said.

The rule for what becomes of each item type stands in three tables:

- `_ASSISTANT`: said or called by the model. Consecutive ones form one assistant message, but a second message item or new
  reasoning begins another one, unless calls are still waiting for their outputs: providers want those next to them.
- `_TOOL`: results of calls that the client ran. Consecutive ones form one message of role `tool`.
- `SILENT`: kept in the stored context, invisible to the agent, because the framework has no content for them and nothing to
  do with them: the tool list of an MCP server, which each run fetches anew, and summaries that only their writer can read.

Message items of role `developer` become `system` messages, the only role for instructions that all chat clients know; the
original role stays in `additional_properties["responses"]`, next to `phase` and `status`. Item types that no table names can
only come from the agent's own provider, never from a request, and are treated as silent.

Source: contract §1.5, §1.7, §3.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, cast

from agent_framework import Content, Message

from agent_framework_hosting_responses.protocol import contents
from agent_framework_hosting_responses.protocol.contents import ContentWriter
from agent_framework_hosting_responses.protocol.errors import ProtocolError
from agent_framework_hosting_responses.protocol.json import JsonObject

SILENT: Final = frozenset({"mcp_list_tools", "compaction"})
"""Item types that stay in the context and out of the messages."""

_ASSISTANT: Final[dict[str, ContentWriter]] = {
    "reasoning": contents.reasoning,
    "function_call": contents.function_call,
    "custom_tool_call": contents.custom_tool_call,
    "mcp_call": contents.mcp_call,
    "web_search_call": contents.search_call,
    "file_search_call": contents.search_call,
    "code_interpreter_call": contents.code_interpreter_call,
    "image_generation_call": contents.image_generation_call,
    "shell_call": contents.shell_call,
    "local_shell_call": contents.shell_call,
    "computer_call": contents.computer_call,
    "apply_patch_call": contents.provider_call("apply_patch", "operation"),
    "tool_search_call": contents.provider_call("tool_search", "arguments"),
    "program": contents.provider_call("program", "code"),
}
_TOOL: Final[dict[str, ContentWriter]] = {
    "function_call_output": contents.function_result,
    "custom_tool_call_output": contents.function_result,
    "shell_call_output": contents.shell_call_output,
    "local_shell_call_output": contents.shell_call_output,
    "computer_call_output": contents.computer_call_output,
    "apply_patch_call_output": contents.provider_result("output"),
    "tool_search_output": contents.provider_result("tools"),
    "program_output": contents.provider_result("result"),
}
_WAITING: Final = frozenset({"function_call", "shell_tool_call", "computer_tool_call"})
"""Contents whose result comes in a message of its own."""

_NO_APPROVALS: Final[Mapping[str, JsonObject]] = MappingProxyType({})


def to_messages(items: Sequence[JsonObject], *, approvals: Mapping[str, JsonObject] = _NO_APPROVALS) -> list[Message]:
    """Return stored items, of inputs and outputs alike, as the messages an agent is run with.

    `approvals` maps the id of an approval request to its item, for requests that are not among `items` because the
    agent's session holds them; `contents.approval_response` says what else the item may carry. A message has the id of its
    message item, or of its first item if it has none.

    Raises:
        ProtocolError: An `item_reference` was not resolved, or an answer to an unknown approval request was let through.

    Source: contract §1.7.
    """
    asked = {cast("str", item["id"]): item for item in items if item["type"] == "mcp_approval_request"}
    builder = _Builder({**asked, **approvals})
    for item in items:
        builder.add(item)
    builder.close()
    return builder.messages


class _Builder:
    """The messages so far and the open one, to which the next item may still belong."""

    def __init__(self, approvals: Mapping[str, JsonObject]) -> None:
        self.messages: list[Message] = []
        self._approvals = approvals
        self._open: Message | None = None
        self._has_message_item = False
        self._shell_calls: dict[str, str] = {}

    def add(self, item: JsonObject) -> None:
        kind = cast("str", item["type"])
        if kind == "message":
            self._add_message(item)
        elif kind in _ASSISTANT:
            self._add_assistant(item, kind)
        elif kind in _TOOL:
            self._extend("tool", _TOOL[kind](self._with_call_id(item, kind)), item)
        elif kind == "mcp_approval_request":
            known = self._approvals.get(cast("str", item["id"]), item)
            self._extend("assistant", [contents.approval_request(item, known)], item)
        elif kind == "mcp_approval_response":
            self._add_approval_response(item)
        elif kind == "item_reference":
            raise ProtocolError(f"Item reference {item['id']!r} was not resolved.")

    def close(self) -> None:
        if self._open is not None:
            self.messages.append(self._open)
        self._open = None
        self._has_message_item = False

    def _add_message(self, item: JsonObject) -> None:
        parts = contents.part_contents(item["content"])
        if item["role"] != "assistant":
            self.close()
            role = "system" if item["role"] == "developer" else cast("str", item["role"])
            self.messages.append(_message(role, parts, item))
            return
        if self._has_message_item and not self._is_waiting():
            self.close()
        if not self._has_message_item and self._open is not None and self._open.role == "assistant":
            self._open.message_id = cast("str", item["id"])
            self._open.additional_properties.update(_message_properties(item))
        self._extend("assistant", parts, item)
        self._has_message_item = True

    def _add_assistant(self, item: JsonObject, kind: str) -> None:
        written = _ASSISTANT[kind](item)
        if not written:
            return
        if kind == "reasoning" and not self._is_waiting() and not self._is_reasoning_only():
            self.close()
        if kind == "local_shell_call":
            self._shell_calls[cast("str", item["id"])] = cast("str", item["call_id"])
        self._extend("assistant", written, item)

    def _add_approval_response(self, item: JsonObject) -> None:
        request_id = cast("str", item["approval_request_id"])
        known = self._approvals.get(request_id)
        if known is None:
            raise ProtocolError(f"Approval request {request_id!r} was not resolved.")
        self._extend("user", [contents.approval_response(item, known)], item)

    def _extend(self, role: str, written: list[Content], item: JsonObject) -> None:
        if self._open is not None and self._open.role != role:
            self.close()
        if self._open is None:
            self._open = _message(role, written, item)
        else:
            self._open.contents.extend(written)

    def _is_waiting(self) -> bool:
        return self._open is not None and any(content.type in _WAITING for content in self._open.contents)

    def _is_reasoning_only(self) -> bool:
        return self._open is not None and all(content.type == "text_reasoning" for content in self._open.contents)

    def _with_call_id(self, item: JsonObject, kind: str) -> JsonObject:
        if kind != "local_shell_call_output":
            return item
        # This one kind names the item of its call instead of the call.
        named = cast("str", item.get("call_id") or item["id"])
        return {**item, "call_id": self._shell_calls.get(named, named)}


def _message(role: str, written: list[Content], item: JsonObject) -> Message:
    return Message(
        role,
        written,
        message_id=cast("str", item["id"]),
        additional_properties=_message_properties(item) if item["type"] == "message" else None,
        raw_representation=item,
    )


def _message_properties(item: JsonObject) -> dict[str, Any]:
    kept = {key: item[key] for key in ("role", "phase", "status") if key in item}
    return {"responses": kept}
