"""Calls and their outputs, approval requests and their answers: what belongs together in a context.

Source: contract §1.2.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, TypeAlias

from . import errors
from .json import JsonObject, JsonValue

CALL_OF_OUTPUT: Final = {
    "function_call_output": "function_call",
    "custom_tool_call_output": "custom_tool_call",
}
"""Type of an output item → type of the call it answers."""

CallKey: TypeAlias = tuple[str, JsonValue]
"""Type and `call_id` of a call."""


_LOOKS_BACK: Final = {*CALL_OF_OUTPUT, "mcp_approval_response", "item_reference"}


def refers_back(items: Sequence[JsonObject]) -> bool:
    """Whether any of the request's own `items` needs the context before them: an output, an answer or a reference."""
    return any(item.get("type") in _LOOKS_BACK for item in items)


def check_pairing(
    items: Sequence[JsonObject],
    context: Sequence[JsonObject],
    *,
    must_answer: Sequence[JsonObject],
    asked: Collection[str],
) -> None:
    """Check that the request's own `items` fit the `context` before them, which may be empty unless they refer back.

    `must_answer` are the items of the previous response, if that response finished: what they ask for has to be answered.
    `asked` are the ids of the approval requests that the server itself has put out in this context. An approval request
    that the caller replays is not among them: whoever writes the question must not be able to answer it too.

    Raises:
        RequestError: an output without a call, an answer nobody asked for or a second one, or an unanswered call.
    """
    calls = {call for item in (*context, *items) if (call := _call(item)) is not None}
    for item in items:
        answered = _answered_call(item)
        if answered is not None and answered not in calls:
            raise errors.call_not_found(str(item.get("call_id")))
    _check_approvals(items, context, asked=asked)
    # Not in the whole context: an answer there belongs to an earlier call, whose id an agent may use again.
    answers = _answered_calls((*must_answer, *items))
    for item in must_answer:
        call = _call(item)
        if call is not None and item.get("status") != "incomplete" and call not in answers:
            raise errors.call_output_missing(str(call[1]))


def without_unanswered_calls(items: Sequence[JsonObject], following: Sequence[JsonObject]) -> tuple[JsonObject, ...]:
    """Return `items` without the calls that neither they nor the `following` items answer: no model accepts those."""
    answers = _answered_calls((*items, *following))
    return tuple(item for item in items if (call := _call(item)) is None or call in answers)


def without_past_approvals(items: Sequence[JsonObject], answers: Sequence[JsonObject]) -> tuple[JsonObject, ...]:
    """Return `items`, which come before the request's own `answers`, without approvals that these do not give.

    Whoever is told of an approval runs the tool: what was approved before has run, or was given up, and must not run now.
    """
    given = {item.get("approval_request_id") for item in answers if item.get("type") == "mcp_approval_response"}
    return tuple(
        item
        for item in items
        if item.get("type") != "mcp_approval_response"
        and (item.get("type") != "mcp_approval_request" or item.get("id") in given)
    )


def without_orphaned_outputs(items: Sequence[JsonObject], context: Sequence[JsonObject]) -> tuple[JsonObject, ...]:
    """Return `items` of the `context` without outputs whose call was taken out of it: no model accepts those."""
    calls = {call for item in context if (call := _call(item)) is not None}
    return tuple(item for item in items if (answered := _answered_call(item)) is None or answered in calls)


def _check_approvals(items: Sequence[JsonObject], context: Sequence[JsonObject], *, asked: Collection[str]) -> None:
    answered = {item.get("approval_request_id") for item in context if item.get("type") == "mcp_approval_response"}
    for item in items:
        if item.get("type") != "mcp_approval_response":
            continue
        request_id = item.get("approval_request_id")
        if request_id not in asked:
            raise errors.approval_request_not_found(str(request_id))
        if request_id in answered:
            raise errors.approval_answered_already(str(request_id))
        answered.add(request_id)


def _call(item: JsonObject) -> CallKey | None:
    kind = item.get("type")
    return (kind, item.get("call_id")) if isinstance(kind, str) and kind in CALL_OF_OUTPUT.values() else None


def _answered_call(item: JsonObject) -> CallKey | None:
    kind = item.get("type")
    call_kind = CALL_OF_OUTPUT.get(kind) if isinstance(kind, str) else None
    return None if call_kind is None else (call_kind, item.get("call_id"))


def _answered_calls(items: Iterable[JsonObject]) -> set[CallKey]:
    return {call for item in items if (call := _answered_call(item)) is not None}
