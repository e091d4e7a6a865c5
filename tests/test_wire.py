"""The schema that judges all other tests refuses what it should: each rule is broken once, in an otherwise right answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import wire

JsonObject = dict[str, Any]
Stream = list[JsonObject]

EXAMPLES = Path(__file__).parents[1] / "packages" / "hosting-responses" / "tests" / "examples"

TEXT_PART: JsonObject = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
MESSAGE: JsonObject = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [TEXT_PART],
}
CALL: JsonObject = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "get_weather",
    "arguments": "{}",
}
REASONING: JsonObject = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
USAGE: JsonObject = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 15,
}
FUNCTION: JsonObject = {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}
# The canonical body of the contract, §2.1.
BODY: JsonObject = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1767225600,
    "completed_at": 1767225601,
    "status": "completed",
    "background": False,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "model": "agent-a",
    "output": [MESSAGE],
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "truncation": "disabled",
    "usage": USAGE,
    "user": None,
    "metadata": {},
}
RUNNING: JsonObject = {"completed_at": None, "usage": None, "output": [], "service_tier": "auto"}
STATUSES: dict[str, JsonObject] = {
    "queued": {**RUNNING, "background": True},
    "in_progress": {**RUNNING},
    "completed": {},
    "incomplete": {
        "completed_at": None,
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [{**MESSAGE, "status": "incomplete"}],
    },
    "failed": {"completed_at": None, "error": {"code": "server_error", "message": "The run failed."}},
    "cancelled": {"completed_at": None, "usage": None},
}


def body(status: str = "completed", **changes: object) -> JsonObject:
    return deepcopy({**BODY, "status": status, **STATUSES[status], **changes})


def without(value: JsonObject, key: str) -> JsonObject:
    return {name: field for name, field in value.items() if name != key}


# Responses


@pytest.mark.parametrize("status", STATUSES)
def test_a_right_response_passes(status: str) -> None:
    wire.check_response(body(status))


@pytest.mark.parametrize("key", [key for key in BODY if key != "object"])
def test_every_key_of_a_response_is_needed(key: str) -> None:
    with pytest.raises(AssertionError, match=key):
        wire.check_response(without(body(), key))


@pytest.mark.parametrize(
    "key",
    [
        *["id", "created_at", "status", "background", "metadata", "model", "output", "parallel_tool_calls", "store"],
        *["service_tier", "temperature", "top_p", "top_logprobs", "presence_penalty", "frequency_penalty", "text"],
        *["tool_choice", "tools", "truncation", "conversation"],
    ],
)
def test_null_is_refused_where_a_value_belongs(key: str) -> None:
    with pytest.raises(AssertionError, match=key):
        wire.check_response({**body(), key: None})


RESPONSE_RULES: dict[str, tuple[str, JsonObject, str]] = {
    "unknown key": ("completed", {"billing": {"payer": "x"}}, "billing"),
    "a fraction of a second": ("completed", {"created_at": 1767225600.5}, "created_at"),
    "a whole second as a float": ("completed", {"created_at": 1767225600.0}, "created_at"),
    "completed before it was created": ("completed", {"completed_at": 1}, "completed_at"),
    "a status that does not exist": ("completed", {"status": "requires_action"}, "status"),
    "an id of another kind": ("completed", {"id": "msg_1"}, "id"),
    "completed without a time": ("completed", {"completed_at": None}, "completed_at"),
    "completed with an error": ("completed", {"error": STATUSES["failed"]["error"]}, "error"),
    "completed with details": ("completed", {"incomplete_details": {"reason": "steered"}}, "incomplete_details"),
    "completed but still auto": ("completed", {"service_tier": "auto"}, "service_tier"),
    "completed with an item in progress": ("completed", {"output": [{**MESSAGE, "status": "in_progress"}]}, "output"),
    "completed with an incomplete item": ("completed", {"output": [{**MESSAGE, "status": "incomplete"}]}, "output"),
    "incomplete without a reason": ("incomplete", {"incomplete_details": None}, "incomplete_details"),
    "incomplete for no known reason": ("incomplete", {"incomplete_details": {"reason": "tired"}}, "incomplete_details"),
    "incomplete with a time": ("incomplete", {"completed_at": 1767225601}, "completed_at"),
    "incomplete with a complete end": ("incomplete", {"output": [MESSAGE]}, "output"),
    "failed without an error": ("failed", {"error": None}, "error"),
    "failed with an unknown code": ("failed", {"error": {"code": "oops", "message": "x"}}, "error"),
    "failed with a time": ("failed", {"completed_at": 1767225601}, "completed_at"),
    "cancelled with usage": ("cancelled", {"usage": USAGE}, "usage"),
    "running with usage": ("in_progress", {"usage": USAGE}, "usage"),
    "running as default": ("in_progress", {"service_tier": "default"}, "service_tier"),
    "queued in the foreground": ("queued", {"background": False}, "status"),
    "queued with output": ("queued", {"output": [MESSAGE]}, "output"),
    "usage without the written cache": (
        "completed",
        {"usage": {**USAGE, "input_tokens_details": {"cached_tokens": 0}}},
        "cache_write_tokens",
    ),
    "a negative count": ("completed", {"usage": {**USAGE, "output_tokens": -1}}, "output_tokens"),
    "metadata that is no text": ("completed", {"metadata": {"a": 1}}, "metadata"),
    "conversation as a string": ("completed", {"conversation": "conv_1"}, "conversation"),
    "conversation and previous response": (
        "completed",
        {"conversation": {"id": "conv_1"}, "previous_response_id": "resp_0"},
        "previous_response_id",
    ),
    "reasoning without a summary": ("completed", {"reasoning": {"effort": None}}, "reasoning"),
    "text without verbosity": ("completed", {"text": {"format": {"type": "text"}}}, "text"),
    "a schema format without its schema": (
        "completed",
        {"text": {"format": {"type": "json_schema", "name": "x"}, "verbosity": "low"}},
        "text.format",
    ),
    "a choice that does not exist": ("completed", {"tool_choice": "maybe"}, "tool_choice"),
    "a choice of an unknown type": ("completed", {"tool_choice": {"type": "magic"}}, "tool_choice"),
    "a tool of an unknown type": ("completed", {"tools": [{"type": "magic"}]}, "tools.0..type"),
    "a function without strict": ("completed", {"tools": [without(FUNCTION, "strict")]}, "tools.0.*strict"),
    "a secret of an mcp server": (
        "completed",
        {"tools": [{"type": "mcp", "server_label": "x", "headers": {"Authorization": "Bearer 1"}}]},
        "tools.0",
    ),
    "an item id twice": ("completed", {"output": [MESSAGE, MESSAGE]}, "output.*id"),
    "a call id twice": ("completed", {"output": [CALL, {**CALL, "id": "fc_2"}]}, "call_id"),
    "an item id of another kind": ("completed", {"output": [{**MESSAGE, "id": "fc_1"}]}, "output.0..id"),
    "an item of an unknown kind": ("completed", {"output": [{"id": "x_1", "type": "acme:thing"}]}, "output.0..type"),
}


@pytest.mark.parametrize("rule", RESPONSE_RULES)
def test_a_wrong_response_is_refused_with_the_field(rule: str) -> None:
    status, changes, field = RESPONSE_RULES[rule]

    with pytest.raises(AssertionError, match=field):
        wire.check_response({**body(status), **changes})


# Items


ITEMS: dict[str, JsonObject] = {
    "message": MESSAGE,
    "function_call": CALL,
    "reasoning": REASONING,
    "function_call_output": {
        "id": "fco_1",
        "type": "function_call_output",
        "status": "completed",
        "call_id": "call_1",
        "output": "x",
    },
    "custom_tool_call": {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_1", "name": "n", "input": "x"},
    "mcp_approval_request": {
        "id": "mcpr_1",
        "type": "mcp_approval_request",
        "server_label": "s",
        "name": "n",
        "arguments": "{}",
    },
    "mcp_call": {
        "id": "mcp_1",
        "type": "mcp_call",
        "status": "completed",
        "server_label": "s",
        "name": "n",
        "arguments": "{}",
        "output": None,
        "error": None,
        "approval_request_id": None,
    },
}


@pytest.mark.parametrize("kind", ITEMS)
def test_every_key_of_an_item_is_needed(kind: str) -> None:
    wire.check_response(body(output=[ITEMS[kind]]))
    for key in ITEMS[kind]:
        with pytest.raises(AssertionError, match="output"):
            wire.check_response(body(output=[without(ITEMS[kind], key)]))


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("message", "phase"),
        *[("function_call", key) for key in ("namespace", "caller", "async", "created_by")],
        *[("reasoning", key) for key in ("content", "encrypted_content", "status")],
        ("custom_tool_call", "status"),
    ],
)
def test_an_optional_key_of_an_item_is_absent_and_never_null(kind: str, key: str) -> None:
    with pytest.raises(AssertionError, match=rf"{key}.*output.0.|output.0..{key}"):
        wire.check_response(body(output=[{**ITEMS[kind], key: None}]))


def test_arguments_are_text() -> None:
    with pytest.raises(AssertionError, match="arguments"):
        wire.check_response(body(output=[{**CALL, "arguments": {}}]))


@pytest.mark.parametrize("key", ["url", "title", "start_index", "end_index"])
def test_an_annotation_has_all_its_fields(key: str) -> None:
    citation = {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 0, "end_index": 1}
    message = {**MESSAGE, "content": [{**TEXT_PART, "annotations": [citation]}]}
    wire.check_response(body(output=[message]))

    with pytest.raises(AssertionError, match=key):
        wire.check_response(
            body(output=[{**MESSAGE, "content": [{**TEXT_PART, "annotations": [{**citation, key: None}]}]}])
        )


@pytest.mark.parametrize("key", ["annotations", "logprobs"])
def test_a_text_part_has_its_lists(key: str) -> None:
    with pytest.raises(AssertionError, match=key):
        wire.check_response(body(output=[{**MESSAGE, "content": [without(TEXT_PART, key)]}]))


# Events and streams


def lifecycle(kind: str, status: str, **changes: object) -> JsonObject:
    return {"type": f"response.{kind}", "response": body(status, **changes)}


def item_event(step: str, index: int, item: JsonObject) -> JsonObject:
    return {"type": f"response.output_item.{step}", "output_index": index, "item": item}


def good_stream() -> Stream:
    """A summary of reasoning, a text of two deltas with one annotation, and a function call."""
    reasoning = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    text = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    call = {"item_id": "fc_1", "output_index": 2}
    citation = {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 0, "end_index": 1}
    part = {**TEXT_PART, "annotations": [citation]}
    message = {**MESSAGE, "content": [part]}
    summary = {"type": "summary_text", "text": "Hm."}
    empty_summary, empty_part = {**summary, "text": ""}, {**TEXT_PART, "text": ""}
    events: Stream = [
        lifecycle("created", "in_progress"),
        lifecycle("in_progress", "in_progress"),
        item_event("added", 0, {**REASONING, "summary": []}),
        {"type": "response.reasoning_summary_part.added", **reasoning, "part": empty_summary},
        {"type": "response.reasoning_summary_text.delta", **reasoning, "delta": "Hm."},
        {"type": "response.reasoning_summary_text.done", **reasoning, "text": "Hm."},
        {"type": "response.reasoning_summary_part.done", **reasoning, "part": summary},
        item_event("done", 0, REASONING),
        item_event("added", 1, {**MESSAGE, "status": "in_progress", "content": []}),
        {"type": "response.content_part.added", **text, "part": empty_part},
        {"type": "response.output_text.delta", **text, "delta": "H", "logprobs": []},
        {"type": "response.output_text.delta", **text, "delta": "i", "logprobs": []},
        {
            "type": "response.output_text.annotation.added",
            **text,
            "annotation_index": 0,
            "annotation": citation,
        },
        {"type": "response.output_text.done", **text, "text": "Hi", "logprobs": []},
        {"type": "response.content_part.done", **text, "part": part},
        item_event("done", 1, message),
        item_event("added", 2, {**CALL, "status": "in_progress", "arguments": ""}),
        {"type": "response.function_call_arguments.delta", **call, "delta": "{}"},
        {"type": "response.function_call_arguments.done", **call, "arguments": "{}"},
        item_event("done", 2, CALL),
        lifecycle("completed", "completed", output=[REASONING, message, CALL]),
    ]
    return numbered(events)


def numbered(events: Stream) -> Stream:
    return [{**deepcopy(event), "sequence_number": number} for number, event in enumerate(events)]


def at(events: Stream, kind: str, position: int = 0) -> int:
    """The index of the event of `kind` that comes at `position` among its like."""
    return [index for index, event in enumerate(events) if event["type"] == f"response.{kind}"][position]


def removed(kind: str, position: int = 0) -> Callable[[Stream], Stream]:
    def change(events: Stream) -> Stream:
        index = at(events, kind, position)
        return numbered([*events[:index], *events[index + 1 :]])

    return change


def repeated(kind: str, position: int = 0) -> Callable[[Stream], Stream]:
    def change(events: Stream) -> Stream:
        index = at(events, kind, position)
        return numbered([*events[: index + 1], *events[index:]])

    return change


def swapped(kind: str, position: int = 0) -> Callable[[Stream], Stream]:
    """Swap an event with the one after it."""

    def change(events: Stream) -> Stream:
        index = at(events, kind, position)
        return numbered([*events[:index], events[index + 1], events[index], *events[index + 2 :]])

    return change


def changed(kind: str, position: int = 0, **fields: object) -> Callable[[Stream], Stream]:
    def change(events: Stream) -> Stream:
        events[at(events, kind, position)].update(deepcopy(fields))
        return events

    return change


def renumbered(events: Stream) -> Stream:
    return [{**event, "sequence_number": event["sequence_number"] + 1} for event in events]


STREAM_RULES: dict[str, tuple[Callable[[Stream], Stream], str]] = {
    "empty": (lambda events: events[:0], "empty"),
    "numbers from 1": (renumbered, "sequence_number"),
    "a gap in the numbers": (changed("output_text.delta", sequence_number=99), "sequence_number"),
    "no created": (removed("created"), "begins with"),
    "no in_progress": (removed("in_progress"), "begins with"),
    "queued in the foreground": (changed("created", response=body("queued")), "begins with"),
    "created with output": (changed("created", response=body("in_progress", output=[MESSAGE])), "output"),
    "completed with another status": (changed("completed", response=body("failed")), "status"),
    "a wrong response inside": (changed("completed", response=without(body(), "usage")), "completed: .*usage"),
    "no terminal event": (removed("completed"), "ends with"),
    "two terminal events": (repeated("completed"), "does not belong here"),
    "created twice": (repeated("in_progress"), "does not belong here"),
    "another response id": (
        changed("completed", response=body("completed", id="resp_2", output=[])),
        "changed within the stream",
    ),
    "another echo": (
        changed("in_progress", response=body("in_progress", instructions="x")),
        "changed within the stream",
    ),
    "an output_index left out": (changed("output_item.added", 1, output_index=7), "output_index 7 instead of 1"),
    "an output_index twice": (changed("output_item.added", 1, output_index=0), "output_index 0 instead of 1"),
    "an item id twice": (
        changed("output_item.added", 2, item={**MESSAGE, "status": "in_progress", "content": []}),
        "used before",
    ),
    "another item id": (changed("output_text.delta", item_id="msg_2"), "added as 'msg_1'"),
    "another item id in done": (changed("output_item.done", 1, item={**MESSAGE, "id": "msg_2"}), "added as 'msg_1'"),
    "another call id in done": (changed("output_item.done", 2, item={**CALL, "call_id": "call_2"}), "call_id"),
    "an item that was not added": (removed("output_item.added", 2), "was not added"),
    "an item that is never done": (removed("output_item.done", 2), "never done"),
    "an item done twice": (repeated("output_item.done", 2), "done already"),
    "an item done before its text": (swapped("function_call_arguments.done"), "is not done"),
    "a done item in progress": (changed("output_item.done", 2, item={**CALL, "status": "in_progress"}), "in progress"),
    "a message added with content": (
        changed("output_item.added", 1, item={**MESSAGE, "status": "in_progress"}),
        "content is not empty",
    ),
    "a message added as completed": (changed("output_item.added", 1, item={**MESSAGE, "content": []}), "'completed'"),
    "reasoning added with its summary": (changed("output_item.added", 0, item=REASONING), "not empty"),
    "a call added with its arguments": (changed("output_item.added", 2, item=CALL), "arguments is not empty"),
    "a delta before its part": (swapped("content_part.added"), "content_index 0 was not added"),
    "another content_index": (changed("content_part.added", content_index=1), "content_index 1 instead of 0"),
    "a part added with text": (changed("content_part.added", part=TEXT_PART), "has a text"),
    "a part with annotations": (
        changed(
            "content_part.added",
            part={**TEXT_PART, "text": "", "annotations": [{"type": "file_path", "file_id": "f", "index": 0}]},
        ),
        "has annotations",
    ),
    "a delta of another kind of part": (
        changed("content_part.added", part={"type": "refusal", "refusal": ""}),
        "the part is a refusal",
    ),
    "a delta after the text is done": (swapped("output_text.annotation.added"), "the text is done already"),
    "a text that is not its deltas": (changed("output_text.done", text="Ho"), "differs from its deltas"),
    "a part that is not its text": (changed("content_part.done", part={**TEXT_PART, "text": "Ho"}), "differs"),
    "a part without its annotations": (changed("content_part.done", part=TEXT_PART), "annotations differ"),
    "a part done before its text": (swapped("output_text.done"), "text of the part is not done"),
    "a part done that was not added": (changed("content_part.done", content_index=1), "content_index 1 was not added"),
    "a part done twice": (repeated("content_part.done"), "done already"),
    "a part that changed its type": (
        changed("content_part.done", part={"type": "refusal", "refusal": "Hi"}),
        "changed its type",
    ),
    "a part that is never done": (removed("content_part.done"), "not done"),
    "an annotation left out": (changed("output_text.annotation.added", annotation_index=1), "annotation_index 1"),
    "a message that is not its parts": (changed("output_item.done", 1, item=MESSAGE), "content differs"),
    "reasoning that is not its parts": (
        changed("output_item.done", 0, item={**REASONING, "summary": []}),
        "summary differs",
    ),
    "no arguments done": (removed("function_call_arguments.done"), "not done"),
    "no arguments at all": (
        lambda events: removed("function_call_arguments.delta")(removed("function_call_arguments.done")(events)),
        "differs from the streamed",
    ),
    "arguments that are not their deltas": (
        changed("function_call_arguments.done", arguments="{ }"),
        "differs from its deltas",
    ),
    "arguments done twice": (repeated("function_call_arguments.done"), "the text is done already"),
    "a call with other arguments": (changed("output_item.done", 2, item={**CALL, "arguments": "[]"}), "arguments"),
    "a text of another kind of item": (
        changed("function_call_arguments.delta", type="response.mcp_call_arguments.delta"),
        "has no such text",
    ),
    "a final output with other items": (
        changed("completed", response=body("completed", output=[MESSAGE])),
        "differs from the done items",
    ),
    "an unknown event": (changed("output_text.delta", type="response.magic"), "no event"),
    "an event with a further field": (changed("output_text.delta", obfuscation="x"), "obfuscation"),
    "an empty delta": (changed("output_text.delta", delta=""), "delta"),
    "a null delta": (changed("output_text.delta", delta=None), "delta"),
    "an id of another kind in an item": (changed("output_item.added", 1, item={**MESSAGE, "id": "fc_9"}), "item.id"),
}


def test_a_right_stream_passes() -> None:
    wire.check_stream(good_stream())


def test_items_may_interleave() -> None:
    wire.check_stream(swapped("output_item.done", 1)(good_stream()))


@pytest.mark.parametrize("rule", STREAM_RULES)
def test_a_wrong_stream_is_refused(rule: str) -> None:
    change, message = STREAM_RULES[rule]

    with pytest.raises(AssertionError, match=message):
        wire.check_stream(change(good_stream()))


def test_a_background_stream_begins_queued_and_may_end_there_by_cancellation() -> None:
    created, queued = (lifecycle(kind, "queued") for kind in ("created", "queued"))
    running = lifecycle("in_progress", "in_progress", background=True)
    completed = lifecycle("completed", "completed", background=True, output=[])
    cancelled = lifecycle("failed", "cancelled", background=True, output=[])

    wire.check_stream(numbered([created, queued, running, completed]))
    wire.check_stream(numbered([created, queued, cancelled]))

    with pytest.raises(AssertionError, match="begins with"):
        wire.check_stream(numbered([created, running, completed]))


def test_only_a_cancelled_stream_may_leave_an_item_open() -> None:
    opened = [lifecycle("created", "in_progress"), lifecycle("in_progress", "in_progress")]
    opened.append(item_event("added", 0, {**MESSAGE, "status": "in_progress", "content": []}))

    wire.check_stream(numbered([*opened, lifecycle("failed", "cancelled", output=[])]))

    with pytest.raises(AssertionError, match="never done"):
        wire.check_stream(numbered([*opened, lifecycle("failed", "failed", output=[])]))


def as_ours(event: JsonObject) -> JsonObject:
    """A recorded event without what only the service sends, and with what it did not send yet."""
    event = without(event, "obfuscation")
    if "response" in event:
        response: JsonObject = {
            "completed_at": None,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "prompt_cache_retention": None,
            "user": None,
            **{key: value for key, value in event["response"].items() if key in BODY or key == "conversation"},
        }
        if response["status"] == "completed":
            response["completed_at"] = response["completed_at"] or response["created_at"]
        if response["usage"]:
            response["usage"]["input_tokens_details"].setdefault("cache_write_tokens", 0)
        response["output"] = [_as_our_item(item) for item in response["output"]]
        event["response"] = response
    if "item" in event:
        event["item"] = _as_our_item(event["item"])
    return event


def _as_our_item(item: JsonObject) -> JsonObject:
    return without(item, "status") if item["type"] == "custom_tool_call" else item


def test_the_recorded_events_pass_and_so_do_the_streams_without_gaps() -> None:
    files = sorted(EXAMPLES.glob("*.jsonl"))
    whole = 0

    for file in files:
        recorded = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        events = [as_ours(event) for event in recorded if "_elided" not in event]
        for event in events:
            wire.check_event(event)
        if len(events) == len(recorded) and events[0]["type"] == "response.created":
            wire.check_stream(events)
            whole += 1

    assert len(files) == 25
    assert whole == 9


# Framing


GOOD_SSE = b'event: error\ndata: {"type":"error"}\n\n'


def test_comments_are_no_events() -> None:
    assert wire.parse_sse(b": keep-alive\n\n" + GOOD_SSE) == [{"type": "error"}]
    assert wire.parse_sse(b"") == []


@pytest.mark.parametrize(
    "raw",
    [
        GOOD_SSE.replace(b"\n", b"\r\n"),
        GOOD_SSE.replace(b"}\n", b"}\r\n"),
        GOOD_SSE[:-1],
        b"id: 1\n" + GOOD_SSE,
        b'data: {"type":"error"}\n\n',
        b"event: error\n\n",
        b"retry: 10\n\n",
        b'event: error\ndata: {"type":\ndata: "error"}\n\n',
        b'event: other\ndata: {"type":"error"}\n\n',
        b"event: error\ndata: []\n\n",
        GOOD_SSE + b"data: [DONE]\n\n",
    ],
)
def test_other_framing_is_refused(raw: bytes) -> None:
    with pytest.raises(AssertionError, match="sse"):
        wire.parse_sse(raw)


# Other answers


ERROR: JsonObject = {"message": "No.", "type": "invalid_request_error", "param": None, "code": None}
PAGE: JsonObject = {"object": "list", "data": [MESSAGE], "first_id": "msg_1", "last_id": "msg_1", "has_more": False}
MODEL: JsonObject = {"id": "agent-a", "object": "model", "created": 1767225600, "owned_by": "local"}


def test_an_error_has_exactly_its_four_keys() -> None:
    wire.check_error({"error": ERROR})

    for key in ERROR:
        with pytest.raises(AssertionError, match=key):
            wire.check_error({"error": without(ERROR, key)})
    for wrong in ({**ERROR, "status": 400}, {**ERROR, "type": "not_found"}, {**ERROR, "message": ""}):
        with pytest.raises(AssertionError, match="error"):
            wire.check_error({"error": wrong})
    with pytest.raises(AssertionError, match="detail"):
        wire.check_error({"error": ERROR, "detail": "x"})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"first_id": None}, "first_id"),
        ({"last_id": "msg_0"}, "last_id"),
        ({"data": [], "first_id": None, "last_id": None, "has_more": True}, "has_more"),
        ({"data": [MESSAGE, MESSAGE]}, "id"),
        ({"data": [without(MESSAGE, "id")]}, "id"),
        ({"data": [{**MESSAGE, "role": "user"}]}, "role"),
        ({"data": [{**MESSAGE, "content": "Hi"}]}, "content"),
        ({"next": None}, "next"),
    ],
)
def test_a_wrong_page_is_refused(changes: JsonObject, field: str) -> None:
    wire.check_page(PAGE)
    wire.check_page({**PAGE, "data": [], "first_id": None, "last_id": None})

    with pytest.raises(AssertionError, match=field):
        wire.check_page({**PAGE, **changes})


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v1/responses", BODY),
        ("/responses/resp_1", BODY),
        ("/agents/a/responses/resp_1/cancel", BODY),
        ("/v1/responses/resp_1", {"id": "resp_1", "object": "response", "deleted": True}),
        ("/v1/responses/resp_1/input_items", PAGE),
        ("/v1/models", {"object": "list", "data": [MODEL]}),
        ("/v1/models/team/agent-a", MODEL),
        ("/v1/responses/input_tokens", {"object": "response.input_tokens", "input_tokens": 3}),
        ("/v1/conversations", {"id": "conv_1", "object": "conversation", "created_at": 1, "metadata": {}}),
        ("/v1/conversations/conv_1", {"id": "conv_1", "object": "conversation.deleted", "deleted": True}),
        ("/v1/conversations/conv_1/items/msg_1", MESSAGE),
        ("/readiness", {"status": "ok"}),
    ],
)
def test_an_answer_is_judged_by_what_it_is(path: str, answer: JsonObject) -> None:
    wire.check_answer(200, answer, path=path)

    if path != "/readiness":
        with pytest.raises(AssertionError):
            wire.check_answer(200, {**answer, "surprise": 1}, path=path)


@pytest.mark.parametrize(
    ("status", "path", "answer"),
    [
        (201, "/v1/responses", BODY),
        (202, "/v1/responses", BODY),
        (400, "/v1/responses", BODY),
        (200, "/v1/responses", {"error": ERROR}),
        (200, "/v1/responses", MESSAGE),
        (409, "/v1/responses", {"error": ERROR}),
        (422, "/v1/responses", {"error": ERROR}),
        (500, "/v1/responses", {"error": ERROR}),
        (404, "/v1/xyz", {"error": {**ERROR, "type": "server_error"}}),
        (404, "/v1/xyz", {"detail": "Not Found"}),
        (200, "/v1/responses/resp_1", {"id": "resp_1", "object": "response", "deleted": False}),
    ],
)
def test_a_wrong_answer_is_refused(status: int, path: str, answer: JsonObject) -> None:
    with pytest.raises(AssertionError):
        wire.check_answer(status, answer, path=path)


def test_an_answer_that_is_no_object_is_refused() -> None:
    body_of_a_wrong_server: Any = [MESSAGE]

    with pytest.raises(AssertionError, match="no object"):
        wire.check_answer(200, body_of_a_wrong_server, path="/v1/responses")


def test_an_error_answer_passes() -> None:
    wire.check_answer(404, {"error": ERROR}, path="/v1/xyz")
    wire.check_answer(500, {"error": {**ERROR, "type": "server_error"}}, path="/responses")


# Open Responses


def test_open_responses_drops_further_keys_but_needs_its_own() -> None:
    wire.check_open_responses({**BODY, "billing": None})

    for key in ("presence_penalty", "safety_identifier", "completed_at"):
        with pytest.raises(AssertionError, match=key):
            wire.check_open_responses(without(BODY, key))
    for wrong in ({"temperature": None}, {"created_at": 1.5}, {"tools": [without(FUNCTION, "strict")]}):
        with pytest.raises(AssertionError, match=next(iter(wrong))):
            wire.check_open_responses({**BODY, **wrong})
    with pytest.raises(AssertionError, match="encrypted_content"):
        wire.check_open_responses({**BODY, "output": [{**REASONING, "encrypted_content": None}]})
    with pytest.raises(AssertionError, match="mcp_call"):
        wire.check_open_responses({**BODY, "output": [ITEMS["mcp_call"]]})


def test_open_responses_knows_only_its_own_events() -> None:
    final = wire.check_open_responses_stream(good_stream())

    assert final["status"] == "completed"
    with pytest.raises(AssertionError, match="no final response"):
        wire.check_open_responses_stream(good_stream()[:-1])
    with pytest.raises(AssertionError, match="reasoning_text"):
        wire.check_open_responses_stream([{"type": "response.reasoning_text.delta"}])
    with pytest.raises(AssertionError, match="error"):
        wire.check_open_responses_stream([{"type": "error", "sequence_number": 0, "code": None, "message": "x"}])
