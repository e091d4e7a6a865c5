"""Answers to what a workflow has asked: which items of a request they are, and what they say."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from agent_framework_hosting.errors import WrongAnswer
from agent_framework_hosting.targets.base import Approval, Question

from .protocol import errors
from .protocol.json import JsonObject, JsonValue
from .stores.base import APPROVALS
from .stores.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What the target needs to know before it goes on: its `questions` by its own names of them.

    It goes on from the session after the response `response_id`. `passed_over` are later responses whose questions were
    answered elsewhere, `late` are the calls since, for whose outputs it does not wait any more.
    """

    response_id: str = ""
    questions: Mapping[str, Question] = field(default_factory=dict)
    passed_over: AbstractSet[str] = frozenset()
    late: AbstractSet[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a request answers: `values` by the target's names. `rest` are the request's other items.

    `open_calls` are the ids on the wire of what was asked: it may stay open.
    """

    values: Mapping[str, object]
    rest: tuple[JsonObject, ...]
    open_calls: frozenset[str]


def answers_in(items: Sequence[JsonObject], waiting: Waiting, context: Context) -> Answers:
    """Return what the request's `items` answer of what the target waits for.

    Some questions may stay open, for later requests.

    Raises:
        RequestError: there is no answer, a second one, one to something else, or one that the target cannot take; or
            there are messages, for which the target does not wait.
    """
    asked = wire_names(waiting, context)
    values: dict[str, object] = {}
    rest: list[JsonObject] = []
    for item in items:
        answered_id = id_answered_by(item)
        if answered_id is None:
            rest.append(item)
            continue
        if answered_id in waiting.late:
            raise errors.call_late(answered_id)
        name = asked.get(answered_id)
        if name is None or name in values:
            raise _not_open(item, answered_id, is_asked=name is not None or _is_known(item, answered_id, context))
        values[name] = _taken(waiting.questions[name], item, answered_id)
    if not values:
        raise _missing(next(iter(asked), waiting.response_id), context)
    if any(item.get("type") == "message" for item in rest):
        raise errors.answers_only()
    return Answers(values=values, rest=tuple(rest), open_calls=frozenset(asked))


def _taken(question: Question, item: JsonObject, answered_id: str) -> object:
    try:
        return question.answer(_given(item))
    except WrongAnswer as error:
        raise errors.wrong_answer(answered_id, str(error)) from error


def check_nothing_is_answered_late(
    items: Sequence[JsonObject], context: Sequence[JsonObject], approvals: Container[str], waiting: Waiting
) -> None:
    """Refuse answers to what was asked before, for a target that does not wait for any.

    Raises:
        RequestError: an item answers what another one in the context has answered, or one of the `approvals`, for which
            nobody waits any more, or a call that is as late; or the last item is an answer, to whatever.
    """
    answered = {answered_id for item in context if (answered_id := id_answered_by(item)) is not None}
    for item in items:
        answered_id = id_answered_by(item)
        if answered_id in answered:
            raise _not_open(item, str(answered_id), is_asked=True)
        if answered_id in approvals:
            raise errors.approval_late(str(answered_id))
        if answered_id in waiting.late:
            raise errors.call_late(str(answered_id))
    # Those before are what a caller that keeps the history itself tells of it.
    if items and id_answered_by(items[-1]) is not None:
        raise errors.nothing_asked()


def check_answers_are_to_the_newest(items: Sequence[JsonObject], context: Context, target_key: str) -> None:
    """Refuse answers to approval requests of a target that has asked for approvals again since.

    An agent waits for what it has asked last. It asks again for what some of the answers have left open, and takes an answer
    to the older request for one to the newer, which could be given, too.

    Raises:
        RequestError: an item answers an older request.
    """
    answered = approvals_answered_by(items)
    if not answered:
        return
    newest = next(node.approvals for node in context.nodes() if _asks(node, target_key))
    open_requests = {asked["request_id"]: name for name, asked in newest.items()}
    approvals = context.all_approvals()
    for name in sorted(answered - newest.keys()):
        request_id = approvals[name]["request_id"]
        if request_id in open_requests:
            raise errors.approval_asked_again(name, open_requests[request_id])
        raise errors.approval_late(name)


def used_up(items: Sequence[JsonObject], context: Context, target_key: str) -> list[tuple[str, str]]:
    """Return what nobody may answer after the items, which answer requests of an agent: questions, as response and name.

    These are the requests, under each name that they got when they were asked again: the tool runs for any of them. And
    `APPROVALS` of the turn in which they were asked, or in which the agent was answered since: it goes on from there once.
    It would ask two who answer different requests for the other's approval, and do for both what was approved.
    """
    answered = approvals_answered_by(items)
    if not answered:
        return []
    own = _request_ids(context, target_key)
    request_ids = {own[name] for name in answered}
    names: list[tuple[str, str]] = []
    turn = answered_in = ""
    for node in context.nodes():
        response_id = str(node.response_id)
        given = approvals_answered_by(node.items) & own.keys()
        if given:
            answered_in = answered_in or response_id
        asked = [(response_id, name) for name in node.approvals if own.get(name) in request_ids]
        if asked:
            turn = answered_in or response_id
            names += asked
        if node.has_session:
            # What is asked under the same id before that is another request.
            request_ids.difference_update(map(own.__getitem__, given))
    return [(turn, APPROVALS), *names]


def approvals_answered_by(items: Sequence[JsonObject]) -> set[str]:
    """Return the ids of the approval requests that the items answer."""
    return {str(item["approval_request_id"]) for item in items if item.get("type") == "mcp_approval_response"}


def _request_ids(context: Context, target_key: str) -> dict[str, JsonValue]:
    """Return id on the wire → the target's own, of the approval requests of a target."""
    approvals = context.all_approvals().items()
    return {name: asked["request_id"] for name, asked in approvals if asked.get("target") == target_key}


def _asks(node: Context, target_key: str) -> bool:
    return any(asked.get("target") == target_key for asked in node.approvals.values())


def names_answered(items: Sequence[JsonObject], context: Context) -> list[str]:
    """Return the target's names of what the items answer."""
    call_ids, approvals = context.all_call_ids(), context.all_approvals()
    ids = [wire_id for item in items if (wire_id := id_answered_by(item)) is not None]
    return [str(approvals[one]["request_id"]) if one in approvals else call_ids.get(one, one) for one in ids]


def calls_in(node: Context) -> AbstractSet[str]:
    """Return the ids on the wire of the calls that a response has brought."""
    if node.response_id is None:
        return frozenset()
    return {str(item["call_id"]) for item in node.items if item.get("type") == "function_call"}


def wire_names(waiting: Waiting, context: Context) -> dict[str, str]:
    """Return id on the wire → the target's name, for what was asked last under each name."""
    call_ids, approvals = context.all_call_ids(), context.all_approvals()
    ids: dict[str, str] = {}
    for item in context.all_items():
        wire_id = str(item.get("call_id") or item.get("id"))
        if item.get("type") == "function_call":
            ids[call_ids.get(wire_id, wire_id)] = wire_id
        elif item.get("type") == "mcp_approval_request" and wire_id in approvals:
            ids[str(approvals[wire_id]["request_id"])] = wire_id
    return {wire_id: name for name, wire_id in ids.items() if name in waiting.questions}


def id_answered_by(item: JsonObject) -> str | None:
    """Return the id on the wire of the call or the approval request that the item answers; `None` if it is no answer."""
    match item.get("type"):
        case "function_call_output":
            return str(item.get("call_id"))
        case "mcp_approval_response":
            return str(item.get("approval_request_id"))
    return None


def _given(item: JsonObject) -> str | Approval:
    if item["type"] == "mcp_approval_response":
        reason = item.get("reason")
        return Approval(is_approved=item["approve"] is True, reason=reason if isinstance(reason, str) else None)
    output = item.get("output") or ""
    if not isinstance(output, list):
        return str(output)
    texts = [part["text"] for part in output if isinstance(part, dict) and part.get("type") == "input_text"]
    if len(texts) != len(output):
        raise WrongAnswer("The answer must be text.")
    return "".join(map(str, texts))


def _is_known(answer: JsonObject, answered_id: str, context: Context) -> bool:
    is_approval = answer["type"] == "mcp_approval_response"
    kind, name = ("mcp_approval_request", "id") if is_approval else ("function_call", "call_id")
    return any(item.get("type") == kind and item.get(name) == answered_id for item in context.all_items())


def _not_open(item: JsonObject, answered_id: str, *, is_asked: bool) -> errors.RequestError:
    if item["type"] == "mcp_approval_response":
        return (
            errors.approval_answered_already(answered_id)
            if is_asked
            else errors.approval_request_not_found(answered_id)
        )
    return errors.call_answered_already(answered_id) if is_asked else errors.call_not_found(answered_id)


def _missing(answered_id: str, context: Context) -> errors.RequestError:
    is_approval = answered_id in context.all_approvals()
    return (errors.approval_missing if is_approval else errors.call_output_missing)(answered_id)
