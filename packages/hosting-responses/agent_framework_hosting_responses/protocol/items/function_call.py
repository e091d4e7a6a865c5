"""Calls that the client runs, and calls of the server when the operator wants them shown.

Source: contract §3.6 (Function call, Custom tool call, Server-executed agent tools).
"""

from __future__ import annotations

import json

from agent_framework import Content

from agent_framework_hosting_responses.protocol.calls import Call, Owner
from agent_framework_hosting_responses.protocol.events import DeltaRun
from agent_framework_hosting_responses.protocol.json import JsonObject

from .draft import Draft
from .mcp import write_server_call
from .output import Output
from .raw import write_raw_item
from .results import result_output
from .source import responses_item

_NO_ARGUMENTS = "{}"


class CallItem:
    """One open `function_call` or `custom_tool_call` item."""

    __slots__ = ("_buffer", "_index", "_is_custom", "_is_streaming", "_item", "_output", "_run", "call_id")

    def __init__(self, output: Output, *, call_id: str, name: str, is_custom: bool) -> None:
        self.call_id = call_id
        self._output = output
        self._is_custom = is_custom
        item_type = "custom_tool_call" if is_custom else "function_call"
        self._item: JsonObject = {
            "id": output.claim_id(item_type),
            "type": item_type,
            **self._status("in_progress"),
            "call_id": call_id,
            "name": name,
            self._key: "",
        }
        self._index = output.add(self._item)
        # Agent Framework has no tools with free text input: a custom call may come as {"input": "…"},
        # and then only the end tells what the input is.
        self._is_streaming = not is_custom
        self._buffer: list[str] = []
        self._run = DeltaRun(output.writer, f"response.{self._event}.delta", self._place)

    @property
    def _key(self) -> str:
        return "input" if self._is_custom else "arguments"

    @property
    def _event(self) -> str:
        return "custom_tool_call_input" if self._is_custom else "function_call_arguments"

    @property
    def _place(self) -> JsonObject:
        return {"item_id": self._item["id"], "output_index": self._index}

    def _status(self, status: str) -> JsonObject:
        # Calls of custom tools have none on the wire (contract §2.4).
        return {} if self._is_custom else {"status": status}

    def append(self, text: str) -> None:
        """Write the next piece of the arguments."""
        if not text:
            return
        if not self._is_streaming:
            if self._buffer or text.lstrip()[:1] in {"", "{"}:
                self._buffer.append(text)
                return
            self._is_streaming = True
        self._run.append(text)

    def close(self, status: str) -> None:
        """Close the item as `completed` or `incomplete`."""
        rest = _free_text("".join(self._buffer))
        if not rest and not self._run.text and not self._is_custom:
            # Clients parse the arguments: no arguments is an empty object, not an empty text.
            rest = _NO_ARGUMENTS
        if rest:
            self._run.append(rest)
        text = self._run.text
        self._output.writer.emit(f"response.{self._event}.done", {**self._place, self._key: text})
        self._output.finish(self._index, {**self._item, **self._status(status), self._key: text})


def write_function_call(draft: Draft, content: Content) -> None:
    """Write a chunk of a call that is the client's; keep any other call until it is decided."""
    if content.informational_only or content.hosted:
        _write_hosted_call(draft, content)
        return
    call = draft.calls.match(content)
    if call is None:
        return
    draft.end_reasoning()
    delta = call.take(content)
    if call.owner is Owner.UNDECIDED and content.user_input_request:
        call.owner = Owner.CLIENT
    if call.owner is Owner.CLIENT and not call.is_closed:
        stream_call(draft, call, delta)


def stream_call(draft: Draft, call: Call, delta: str) -> None:
    """Write `delta` of a client's call, opening its item first, closing it when it is complete."""
    draft.before_output()
    if call.item is None:
        _open(draft, call).append(call.arguments)
    else:
        call.item.append(delta)
    if call.is_complete:
        close_call(call, "completed")


def close_call(call: Call, status: str) -> None:
    """Close the item of a call, if it has an open one."""
    if call.item is not None and not call.is_closed:
        call.is_closed = True
        call.item.close(status)


def close_calls(draft: Draft, status: str) -> None:
    """Close the items of all calls that are open."""
    for call in draft.open_calls:
        close_call(call, status)
    draft.open_calls.clear()


def write_undecided_calls(draft: Draft, status: str) -> None:
    """Write the calls that no result followed: they are the client's after all."""
    for call in draft.calls.all:
        if call.owner is Owner.UNDECIDED and call.name not in draft.options.server_tools:
            call.owner = Owner.CLIENT
            draft.before_output()
            _open(draft, call).append(call.arguments)
            close_call(call, status)


def write_function_result(draft: Draft, content: Content) -> None:
    """Decide a call for the server; show call and result if the operator wants that."""
    draft.end_reasoning()
    call = draft.calls.settle(content)
    if call is None:
        return
    close_call(call, "completed")
    is_shown = call.item is not None
    if not is_shown:
        call.owner = Owner.SERVER
    if draft.options.server_calls == "hide":
        return
    draft.before_output()
    if draft.options.server_calls == "mcp_call":
        if not is_shown:
            write_server_call(draft, call, content)
        return
    if call.item is None:
        _open(draft, call).append(call.arguments)
        close_call(call, "completed")
    _write_output(draft, call, content)


def _open(draft: Draft, call: Call) -> CallItem:
    call.item = CallItem(
        draft.output,
        call_id=draft.calls.claim_call_id(call.source_id),
        name=call.name,
        is_custom=call.name in draft.options.custom_tools,
    )
    draft.open_calls.append(call)
    return call.item


def _write_output(draft: Draft, call: Call, content: Content) -> None:
    assert call.item is not None  # noqa: S101  its only caller has just opened it
    draft.output.write(
        {
            "id": draft.output.claim_id("function_call_output"),
            "type": "function_call_output",
            "status": "completed",
            "call_id": call.item.call_id,
            "output": result_output(content, details=draft.options.error_details),
        }
    )


def _write_hosted_call(draft: Draft, content: Content) -> None:
    """A call that the provider ran: its raw item passes through, otherwise it is the server's own business."""
    item = responses_item(content.raw_representation)
    if item is not None and item["type"] in {"custom_tool_call", "tool_search_call"}:
        write_raw_item(draft, item)
        return
    draft.end_reasoning()
    call = draft.calls.match(content)
    if call is not None:
        call.take(content)
        call.owner = Owner.SERVER


def _free_text(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, dict) and list(value) == ["input"] and isinstance(value["input"], str):
        return value["input"]
    return text
