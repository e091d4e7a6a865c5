"""What the Open Responses compliance suite (release 2026-04-24) demands of a body and of an event.

Laxer than `wire` about further keys, which its parser drops, and stricter about kinds: it knows five items and 24
events. Source: contract §2.1, §3.5, §10.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET
from wire_schema import Free, OrAbsent

JsonObject: TypeAlias = dict[str, Any]
ShapeT = TypeVar("ShapeT")
Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class Loose(msgspec.Struct, kw_only=True):
    """An object whose further keys are dropped."""


class Typed(Loose, tag_field="type"):
    """An object that `type` tells apart from its neighbours."""


class UrlCitation(Typed, tag="url_citation"):
    url: str
    title: str
    start_index: int
    end_index: int


class OutputText(Typed, tag="output_text"):
    text: str
    annotations: list[UrlCitation]
    logprobs: OrAbsent[list[Free]] = UNSET


class Refusal(Typed, tag="refusal"):
    refusal: str


class ReasoningText(Typed, tag="reasoning_text"):
    text: str


class SummaryText(Typed, tag="summary_text"):
    text: str


class Message(Typed, tag="message"):
    id: str
    status: Status
    role: Literal["user", "assistant", "system", "developer"]
    content: list[OutputText | Refusal | ReasoningText | SummaryText]
    phase: OrAbsent[Literal["commentary", "final_answer"] | None] = UNSET


class FunctionCall(Typed, tag="function_call"):
    id: str
    call_id: str
    name: str
    arguments: str
    status: Status


class FunctionCallOutput(Typed, tag="function_call_output"):
    id: str
    call_id: str
    output: str | list[dict[str, Free]]
    status: Status


class Reasoning(Typed, tag="reasoning"):
    id: str
    summary: list[SummaryText]
    content: OrAbsent[list[ReasoningText]] = UNSET
    encrypted_content: OrAbsent[str] = UNSET


class Compaction(Typed, tag="compaction"):
    id: str
    encrypted_content: str


Item: TypeAlias = Message | FunctionCall | FunctionCallOutput | Reasoning | Compaction


class InputTokensDetails(Loose):
    cached_tokens: int


class OutputTokensDetails(Loose):
    reasoning_tokens: int


class Usage(Loose):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens_details: OutputTokensDetails


class FailedError(Loose):
    code: str
    message: str


class IncompleteDetails(Loose):
    reason: str


class ReasoningSettings(Loose):
    effort: Literal["none", "low", "medium", "high", "xhigh"] | None
    summary: Literal["concise", "detailed", "auto"] | None


class TextFormat(Typed, tag="text"):
    """Plain text."""


class JsonObjectFormat(Typed, tag="json_object"):
    """Any JSON object."""


class JsonSchemaFormat(Typed, tag="json_schema"):
    """The suite wants `schema: null` here; it has no test for it, and the official client needs the object."""

    name: str
    schema: Free
    strict: bool
    description: str | None


class TextSettings(Loose):
    format: TextFormat | JsonObjectFormat | JsonSchemaFormat
    verbosity: OrAbsent[Literal["low", "medium", "high"]] = UNSET


class FunctionTool(Typed, tag="function"):
    """The only tool the suite knows, with five keys that must be there."""

    name: str
    description: str | None
    parameters: dict[str, Free] | None
    strict: bool | None


class Response(Loose):
    """Every key must be there; null only where it says so."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    incomplete_details: IncompleteDetails | None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[Item]
    error: FailedError | None
    tools: list[FunctionTool]
    tool_choice: str | dict[str, Free]
    truncation: Literal["auto", "disabled"]
    parallel_tool_calls: bool
    text: TextSettings
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    temperature: float
    reasoning: ReasoningSettings | None
    usage: Usage | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: Free
    safety_identifier: str | None
    prompt_cache_key: str | None


class Event(Loose):
    sequence_number: int


class Lifecycle(Event):
    response: Response


class ItemEvent(Event):
    output_index: int
    item: Item


class PartEvent(Event):
    item_id: str
    output_index: int
    content_index: int
    part: OutputText | Refusal | ReasoningText | SummaryText


class ContentDelta(Event):
    item_id: str
    output_index: int
    content_index: int
    delta: str


class ContentText(Event):
    item_id: str
    output_index: int
    content_index: int
    text: str


class AnnotationAdded(Event):
    item_id: str
    output_index: int
    content_index: int
    annotation_index: int
    annotation: UrlCitation | None


class RefusalDone(Event):
    item_id: str
    output_index: int
    content_index: int
    refusal: str


class ArgumentsDelta(Event):
    item_id: str
    output_index: int
    delta: str


class ArgumentsDone(Event):
    item_id: str
    output_index: int
    arguments: str


class SummaryPart(Event):
    item_id: str
    output_index: int
    summary_index: int
    part: OutputText | Refusal | ReasoningText | SummaryText


class SummaryDelta(Event):
    item_id: str
    output_index: int
    summary_index: int
    delta: str


class SummaryDone(Event):
    item_id: str
    output_index: int
    summary_index: int
    text: str


class NestedError(Loose):
    type: str
    code: str | None
    message: str
    param: str | None


class ErrorEvent(Event):
    error: NestedError


EVENTS: dict[str, type[Event]] = {
    "response.created": Lifecycle,
    "response.queued": Lifecycle,
    "response.in_progress": Lifecycle,
    "response.completed": Lifecycle,
    "response.failed": Lifecycle,
    "response.incomplete": Lifecycle,
    "response.output_item.added": ItemEvent,
    "response.output_item.done": ItemEvent,
    "response.content_part.added": PartEvent,
    "response.content_part.done": PartEvent,
    "response.output_text.delta": ContentDelta,
    "response.output_text.done": ContentText,
    "response.output_text.annotation.added": AnnotationAdded,
    "response.refusal.delta": ContentDelta,
    "response.refusal.done": RefusalDone,
    "response.function_call_arguments.delta": ArgumentsDelta,
    "response.function_call_arguments.done": ArgumentsDone,
    "response.reasoning_summary_part.added": SummaryPart,
    "response.reasoning_summary_part.done": SummaryPart,
    "response.reasoning_summary_text.delta": SummaryDelta,
    "response.reasoning_summary_text.done": SummaryDone,
    "response.reasoning.delta": ContentDelta,
    "response.reasoning.done": ContentText,
    "error": ErrorEvent,
}


def check_open_responses(body: JsonObject) -> None:
    """Check a body as the suite does; fails with the path of the wrong field."""
    _shape(body, Response)


def check_open_responses_stream(events: list[JsonObject]) -> JsonObject:
    """Check each event of a stream as the suite does, and return the final Response."""
    final: JsonObject | None = None
    for event in events:
        kind = event.get("type")
        if kind not in EVENTS:
            raise AssertionError(f"{kind!r} is no event of Open Responses")
        _shape(event, EVENTS[kind])
        if kind in {"response.completed", "response.failed", "response.incomplete"}:
            final = event["response"]
    if final is None:
        raise AssertionError("the stream has no final response")
    return final


def _shape(value: JsonObject, expected: type[ShapeT]) -> ShapeT:
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        raise AssertionError(f"Open Responses: {expected.__name__}: {error}") from None
