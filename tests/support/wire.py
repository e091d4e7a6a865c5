"""What the wire must look like, stricter than any client: the judge of every answer of the test suite.

The shapes are in `wire_schema` and `wire_events`, the order of a stream in `wire_stream`; here are the rules between
fields and the choice of the shape. Every function raises `AssertionError` that names the wrong field.

Source: contract §2, §3, §4, §6, §7.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
import wire_schema as schema
import wire_stream
from open_responses import check_open_responses, check_open_responses_stream
from wire_events import EVENTS, ItemEvent, Lifecycle

__all__ = [
    "check_answer",
    "check_error",
    "check_event",
    "check_open_responses",
    "check_open_responses_stream",
    "check_page",
    "check_response",
    "check_stream",
    "parse_sse",
]

JsonObject: TypeAlias = dict[str, Any]
ShapeT = TypeVar("ShapeT")

TERMINAL = wire_stream.TERMINAL
RUNNING = {"queued", "in_progress"}
LIFECYCLE = {
    "response.created": {"queued", "in_progress"},
    "response.queued": {"queued"},
    "response.in_progress": {"in_progress"},
    "response.completed": {"completed"},
    "response.incomplete": {"incomplete"},
    "response.failed": {"failed", "cancelled"},
}
"""The statuses a lifecycle event may carry; a cancelled run ends as `response.failed` (contract §3.3)."""


def shape(value: object, expected: type[ShapeT], *, at: str = "") -> ShapeT:
    """Return `value` as the shape it must have, or fail with the path of the wrong field below `at`."""
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        raise AssertionError(f"{at or getattr(expected, '__name__', expected)}: {error}") from None


def rule(*, holds: bool, at: str, message: str) -> None:
    """Fail with the path `at` unless the rule holds."""
    if not holds:
        raise AssertionError(f"$.{at}: {message}")


# The Response, contract §2


def check_response(body: JsonObject) -> None:
    """Check one Response: its shape, and what its status says about the other fields (contract §2.1, §2.2)."""
    response = shape(body, schema.Response)
    _check_status(response)
    _check_output(response)
    _check_echo(response)


def _check_status(response: schema.Response) -> None:
    status = response.status
    is_running = status in RUNNING
    has_usage = response.usage is not None
    rule(holds=(response.error is not None) == (status == "failed"), at="error", message=f"wrong for {status}")
    rule(
        holds=(response.incomplete_details is not None) == (status == "incomplete"),
        at="incomplete_details",
        message=f"wrong for {status}",
    )
    rule(
        holds=(response.completed_at is not None) == (status == "completed"),
        at="completed_at",
        message=f"wrong for {status}",
    )
    rule(
        holds=response.completed_at is None or response.completed_at >= response.created_at,
        at="completed_at",
        message="before created_at",
    )
    rule(holds=not (has_usage and (is_running or status == "cancelled")), at="usage", message=f"not null for {status}")
    rule(
        holds=response.service_tier == ("auto" if is_running else "default"),
        at="service_tier",
        message=f"{response.service_tier!r} is wrong for {status}",
    )
    rule(holds=status != "queued" or response.background, at="status", message="queued in the foreground")
    rule(holds=status != "queued" or not response.output, at="output", message="not empty while queued")


def _check_output(response: schema.Response) -> None:
    states = [getattr(item, "status", None) for item in response.output]
    for index, item in enumerate(response.output):
        kind = str(item.__struct_config__.tag)
        rule(
            holds=item.id.startswith(schema.ID_PREFIXES[kind]),
            at=f"output[{index}].id",
            message=f"{item.id!r} does not begin with {schema.ID_PREFIXES[kind]!r}",
        )
        if response.status != "in_progress":
            rule(
                holds=states[index] not in {"in_progress", "searching", "interpreting", "generating", "calling"},
                at=f"output[{index}].status",
                message=f"{states[index]!r} in a response that is {response.status}",
            )
        if response.status == "completed":
            rule(holds=states[index] != "incomplete", at=f"output[{index}].status", message="incomplete in completed")
    reason = response.incomplete_details and response.incomplete_details.reason
    if reason in {"max_output_tokens", "content_filter"} and states and states[-1] is not None:
        rule(holds=states[-1] == "incomplete", at="output[-1].status", message=f"{states[-1]!r} in an incomplete one")
    _check_unique([item.id for item in response.output], at="output[].id")
    _check_unique(
        [item.call_id for item in response.output if isinstance(item, schema.FunctionCall | schema.CustomToolCall)],
        at="output[].call_id",
    )


def _check_unique(names: list[str], *, at: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    rule(holds=not repeated, at=at, message=f"{repeated} more than once")


def _check_echo(response: schema.Response) -> None:
    rule(
        holds=isinstance(response.conversation, msgspec.UnsetType) or response.previous_response_id is None,
        at="previous_response_id",
        message="together with a conversation",
    )
    choice = response.tool_choice
    if isinstance(choice, str):
        rule(holds=choice in schema.TOOL_CHOICES, at="tool_choice", message=f"{choice!r} is no choice")
    else:
        rule(
            holds=choice.get("type") in schema.TOOL_CHOICE_TYPES, at="tool_choice.type", message=f"{choice.get('type')}"
        )
    for index, tool in enumerate(response.tools):
        at = f"tools[{index}]"
        rule(holds=tool.get("type") in schema.TOOL_TYPES, at=f"{at}.type", message=f"{tool.get('type')}")
        if tool["type"] == "function":
            shape(tool, schema.FunctionTool, at=f"$.{at}")
        if tool["type"] == "mcp":
            _check_redacted(tool, at=at)


def _check_redacted(tool: JsonObject, *, at: str) -> None:
    secrets = [*(tool.get("headers") or {}).values(), tool.get("authorization") or "<redacted>"]
    rule(holds=set(secrets) == {"<redacted>"}, at=at, message="holds a secret")


# Events, contract §3


def check_event(event: JsonObject) -> None:
    """Check one event by itself: exactly its fields, and the whole Response inside where it has one."""
    kind = event.get("type")
    rule(holds=kind in EVENTS, at="type", message=f"{kind!r} is no event")
    parsed = shape(event, EVENTS[str(kind)], at=str(kind))
    if isinstance(parsed, Lifecycle):
        _check_lifecycle(str(kind), event["response"])
    if isinstance(parsed, ItemEvent):
        prefix = schema.ID_PREFIXES[event["item"]["type"]]
        rule(holds=parsed.item.id.startswith(prefix), at="item.id", message=f"does not begin with {prefix!r}")


def _check_lifecycle(kind: str, response: JsonObject) -> None:
    try:
        check_response(response)
    except AssertionError as error:
        raise AssertionError(f"{kind}: in its response: {error}") from None
    rule(
        holds=response["status"] in LIFECYCLE[kind],
        at="response.status",
        message=f"{response['status']!r} in {kind}",
    )
    if response["status"] in RUNNING:
        rule(holds=response["output"] == [], at="response.output", message=f"not empty in {kind}")


def check_stream(events: list[JsonObject], *, earlier_items: int = 0, kept_items: Collection[int] = ()) -> None:
    """Check a whole stream from `response.created` to the terminal event: every event, and their order.

    A resumed stream is checked together with the events before it. The first `earlier_items` are of attempts that were
    lost: they are told, but are no part of the answer that a later attempt has given, except for `kept_items`.
    """
    for event in events:
        check_event(event)
    wire_stream.check_order(events, earlier_items=earlier_items, kept_items=kept_items)


def parse_sse(raw: bytes) -> list[JsonObject]:
    """Return the events of a complete SSE body, whose framing must be ours (contract §3.1).

    A block is `event:` and one `data:` line, or one comment line; comments are left out of the result. No `id:` lines,
    no `[DONE]`, LF only, and a blank line after the last block too.
    """
    rule(holds=b"\r" not in raw, at="sse", message="a carriage return")
    text = raw.decode("utf-8")
    rule(holds=not text or text.endswith("\n\n"), at="sse", message="no blank line after the last block")
    blocks = text.split("\n\n")[:-1]
    return [_parse_block(block, at=f"sse[{index}]") for index, block in enumerate(blocks) if not _is_comment(block)]


def _is_comment(block: str) -> bool:
    return block.startswith(":") and "\n" not in block


def _parse_block(block: str, *, at: str) -> JsonObject:
    lines = block.split("\n")
    rule(
        holds=len(lines) == 2 and lines[0].startswith("event: ") and lines[1].startswith("data: "),
        at=at,
        message=f"not one event line and one data line: {block[:80]!r}",
    )
    event = json.loads(lines[1].removeprefix("data: "))
    rule(holds=isinstance(event, dict), at=at, message="the data is no object")
    rule(
        holds=lines[0].removeprefix("event: ") == event.get("type"),
        at=at,
        message=f"{lines[0]!r} names another type than {event.get('type')!r}",
    )
    parsed: JsonObject = event
    return parsed


# Other answers, contract §4, §6, §7


class ErrorBody(schema.Wire):
    """The four keys of an error."""

    message: str
    type: Literal[
        "invalid_request_error", "authentication_error", "rate_limit_error", "tokens", "requests",
        "insufficient_quota", "server_error",
    ]  # fmt: skip
    param: str | None
    code: str | None


class ErrorEnvelope(schema.Wire):
    """The body of every error answer, contract §4.8."""

    error: ErrorBody


class Page(schema.Wire, tag_field="object", tag="list"):
    """A page of items, contract §4.5."""

    data: list[schema.StoredItem]
    first_id: schema.Id | None
    last_id: schema.Id | None
    has_more: bool


class Model(schema.Wire, tag_field="object", tag="model"):
    """One agent, contract §7."""

    id: str
    created: schema.Time
    owned_by: str
    shutdown_date: schema.OrAbsent[str] = msgspec.UNSET


class ModelList(schema.Wire, tag_field="object", tag="list"):
    """All agents, contract §7."""

    data: list[Model]


class Deleted(schema.Wire):
    """A deleted object, contract §4.3 and §6.1."""

    id: schema.Id
    object: Literal["response", "conversation.deleted"]
    deleted: Literal[1]


class InputTokens(schema.Wire, tag_field="object", tag="response.input_tokens"):
    """An estimate, contract §4.6."""

    input_tokens: schema.Count


class Compacted(schema.Wire, tag_field="object", tag="response.compaction"):
    """A compaction, contract §4.7."""

    id: schema.Id
    created_at: schema.Time
    output: list[schema.StoredItem]
    usage: schema.Usage


class Conversation(schema.Wire, tag_field="object", tag="conversation"):
    """A conversation, contract §6.1."""

    id: schema.Id
    created_at: schema.Time
    metadata: schema.Metadata


def check_error(body: JsonObject) -> None:
    """Check the error envelope: exactly four keys, all there."""
    envelope = shape(body, ErrorEnvelope)
    rule(holds=envelope.error.message != "", at="error.message", message="empty")


def check_page(body: JsonObject) -> None:
    """Check a list of items: their stored form, ids that are unique, and first and last that fit."""
    page = shape(body, Page)
    ids = [item.id for item in page.data]
    rule(holds=page.first_id == (ids[0] if ids else None), at="first_id", message=f"{page.first_id!r}")
    rule(holds=page.last_id == (ids[-1] if ids else None), at="last_id", message=f"{page.last_id!r}")
    rule(holds=bool(ids) or not page.has_more, at="has_more", message="true for an empty page")
    _check_unique(ids, at="data[].id")


def check_model_list(body: JsonObject) -> None:
    """Check the list of agents; it has no page keys."""
    _check_unique([model.id for model in shape(body, ModelList).data], at="data[].id")


def check_deleted(body: JsonObject) -> None:
    """Check the answer to a deletion."""
    rule(holds=body.get("deleted") is True, at="deleted", message="not true")
    shape({**body, "deleted": 1}, Deleted)


ROUTES = {"responses", "conversations", "models"}
OBJECTS: dict[object, type[schema.Wire]] = {
    "model": Model,
    "response.input_tokens": InputTokens,
    "response.compaction": Compacted,
    "conversation": Conversation,
}
# The client retries 409 by itself, and 422 is another exception class for it (contract §4.8).
FORBIDDEN_STATUSES = {409, 422}


def check_answer(status: int, body: JsonObject, *, path: str) -> None:
    """Check any JSON answer of the API.

    The API is what is below `/v1/`, and every path with a segment `responses`, `conversations` or `models`, wherever
    it is mounted; answers of other paths (`/readiness`) are the host's own and are not judged here.
    """
    segments = path.strip("/").split("/")
    if segments[0] != "v1" and ROUTES.isdisjoint(segments):
        return
    if status == 200:
        _check_success(body, segments)
        return
    rule(holds=status >= 400 and status not in FORBIDDEN_STATUSES, at="status", message=f"{status} is never sent")
    check_error(body)
    rule(
        holds=(body["error"]["type"] == "server_error") == (status >= 500),
        at="error.type",
        message=f"{body['error']['type']!r} with status {status}",
    )


def _check_success(body: JsonObject, segments: list[str]) -> None:
    rule(holds=isinstance(body, dict), at="", message="no object")
    kind = body.get("object")
    if "deleted" in body:
        check_deleted(body)
    elif kind == "response":
        check_response(body)
    elif kind == "list":
        (check_model_list if segments[-1] == "models" else check_page)(body)
    elif kind in OBJECTS:
        shape(body, OBJECTS[kind])
    else:
        # The one answer without `object`: a bare item of a conversation.
        rule(holds="items" in segments, at="object", message=f"{kind!r} is no answer of this API")
        shape(body, schema.StoredItem)  # type: ignore[arg-type]
