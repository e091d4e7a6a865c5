"""What a response continues from: `previous_response_id` or `conversation` → its context and the session of its run.

Rules (contract §1.2, §1.7, §6.4): the context is the previous response's context, input and output, or all items of the
conversation. The target gets it through the agent session that was stored with the last response in it. A response
without one (it failed, was cancelled, or ran with sessions disabled) is continued from the nearest ancestor that has one,
plus the items since, as messages; calls in them that never got an output are left out of those messages, because no
model accepts them. So is a response whose session another target has left: each goes on with its own sessions alone,
and is told what others have said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from agent_framework import AgentSession

from agent_framework_hosting.branches import continue_session
from agent_framework_hosting.errors import TargetError
from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus
from agent_framework_hosting.sessions import target_of
from agent_framework_hosting.stores.base import SessionKey, SessionStore
from agent_framework_hosting.targets.base import Asking, Question
from agent_framework_hosting.targets.served import ServedTarget, ServedTargets

from .answers import (
    Waiting,
    answers_in,
    calls_in,
    check_answers_are_to_the_newest,
    check_nothing_is_answered_late,
    id_answered_by,
    names_answered,
    used_up,
    wire_names,
)
from .protocol import errors
from .protocol.json import JsonObject
from .protocol.pairing import (
    check_pairing,
    refers_back,
    without_orphaned_outputs,
    without_past_approvals,
    without_unanswered_calls,
)
from .protocol.request import CreateRequest
from .stores.base import (
    ConversationHead,
    ConversationId,
    ConversationKey,
    ConversationStore,
    QuestionKey,
    ResponseRecord,
    ResponseStore,
    Settlements,
)
from .stores.context import EMPTY, Context, response_session_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """Where a run starts from.

    `context` are the items before the request's own; `backlog` is the tail of them that `session` does not know yet;
    `input` are the request's own items with references resolved. `session` is a private copy, `None` for a new one;
    `session_key` names what it is a copy of. `answers` are what the target gets to know of what it has asked, by its own
    names; `settles` are the questions that nobody may answer after this.
    """

    context: Context = EMPTY
    conversation_position: int = 0
    backlog: tuple[JsonObject, ...] = ()
    input: tuple[JsonObject, ...] = ()
    session: AgentSession | None = None
    session_key: SessionKey | None = None
    answers: Mapping[str, object] = field(default_factory=dict)
    settles: tuple[QuestionKey, ...] = ()

    @property
    def taken_ids(self) -> TakenIds:
        """The ids of items and calls that the response must not use again: clients take them for the same thing."""
        return TakenIds(self.context, self.input)

    @cached_property
    def unseen(self) -> tuple[JsonObject, ...]:
        """The items that the target has to be told: backlog and input, with the `call_id`s that the target knows."""
        items = (*self.backlog, *self.input)
        if not any("call_id" in item for item in items):
            return items
        call_ids = self.context.all_call_ids()
        return tuple(_with_own_call_id(item, call_ids) for item in items) if call_ids else items

    @cached_property
    def approvals(self) -> Mapping[str, JsonObject]:
        """The approval requests that the unseen items may answer, by id."""
        is_answer = any(item.get("type") == "mcp_approval_response" for item in (*self.backlog, *self.input))
        return self.context.all_approvals() if is_answer else {}


class TakenIds:
    """The ids of the items and calls before a response, collected when the first is asked for: most runs ask for none."""

    def __init__(self, context: Context, own: Sequence[JsonObject]) -> None:
        self._context = context
        self._own = own

    def __contains__(self, value: object) -> bool:
        return value in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    @cached_property
    def _ids(self) -> frozenset[str]:
        groups = [self._own, *(node.items for node in self._context.nodes())]
        ids = (item.get(name) for items in groups for item in items for name in ("id", "call_id"))
        return frozenset(value for value in ids if isinstance(value, str))


class History:
    """Resolves what requests refer to, always inside one partition."""

    def __init__(
        self,
        *,
        targets: ServedTargets,
        responses: ResponseStore,
        conversations: ConversationStore,
        sessions: SessionStore,
        settlements: Settlements,
    ) -> None:
        self._targets = targets
        self._responses = responses
        self._conversations = conversations
        self._sessions = sessions
        self._settlements = settlements

    async def last_response(self, request: CreateRequest, partition: Partition) -> ResponseRecord | None:
        """Return the response that `request` continues; `None` if there is none, or it is gone from its conversation.

        Raises:
            RequestError: the previous response or the conversation is unknown.
        """
        if request.conversation_id is not None:
            head = await self._head(partition, request.conversation_id)
            last = next((node.response_id for node in head.context.nodes() if node.response_id is not None), None)
            return None if last is None else await self._responses.get(RunKey(partition, RunId(last)))
        if request.previous_response_id is not None:
            return await self._stored(RunKey(partition, RunId(request.previous_response_id)))
        return None

    async def resolve(self, request: CreateRequest, partition: Partition, target: ServedTarget) -> Continuation:
        """Return where the run of `request` by the target starts from.

        Raises:
            RequestError: the previous response or the conversation is unknown or busy, an item reference is unknown,
                calls and their outputs do not pair up, or another target has asked what is answered.
        """
        if request.conversation_id is not None:
            head = await self._head(partition, request.conversation_id)
            # What was asked and answered elsewhere must not keep the conversation from going on.
            goes_back = not any(id_answered_by(item) is not None for item in request.input)
            place = _Place(head.context, _asked_last(head.context), position=head.position, goes_back=goes_back)
        elif request.previous_response_id is not None:
            previous, context = await self._previous(RunKey(partition, RunId(request.previous_response_id)))
            # Only what a finished response asked for has to be answered: a failed turn must not block its chain.
            is_finished = previous.status in {RunStatus.COMPLETED, RunStatus.INCOMPLETE}
            place = _Place(context, previous.output if is_finished else ())
        else:
            place = _Place()
        return await self._from(place, request, partition, target)

    async def resume(self, request: CreateRequest, record: ResponseRecord, target: ServedTarget) -> Continuation:
        """Return what the run of a stored response gets that goes on from a checkpoint of its own.

        What it continued may have been deleted since it was accepted: the checkpoint has what the target knew of it, and
        the response its context. Of answers to what is gone only the names are left.
        """
        try:
            return await self.resolve(request, record.key.partition, target)
        except errors.RequestError:
            kept = await self._responses.context(record.key)
            context = EMPTY if kept is None or kept.parent is None else kept.parent
            names = names_answered(record.input, context)
            return Continuation(context=context, input=record.input, answers=dict.fromkeys(names))

    async def _from(
        self, place: _Place, request: CreateRequest, partition: Partition, target: ServedTarget
    ) -> Continuation:
        await self._check_asker(request, partition, place.context, target)
        waiting = await self._waiting(partition, place, target)
        own = self._checked(request, place, waiting, target)
        session, key, unknown = await self._session(
            partition, place.context, waiting, target, keeps_session=request.store
        )
        return Continuation(
            context=place.context,
            conversation_position=place.position,
            backlog=_backlog(unknown, own.items, place.context),
            input=own.items,
            session=session,
            session_key=key,
            answers=own.answers,
            settles=_settled(own, place.context, waiting, partition, target),
        )

    async def _head(self, partition: Partition, conversation_id: str) -> ConversationHead:
        head = await self._conversations.head(ConversationKey(partition, ConversationId(conversation_id)))
        if head is None:
            raise errors.conversation_not_found(conversation_id)
        return head

    async def _stored(self, key: RunKey) -> ResponseRecord:
        record = await self._responses.get(key)
        if record is None or not record.is_stored:
            raise errors.previous_response_not_found(key.run_id)
        return record

    async def _previous(self, key: RunKey) -> tuple[ResponseRecord, Context]:
        record = await self._stored(key)
        if not record.status.is_terminal:
            raise errors.previous_response_running(key.run_id)
        context = await self._responses.context(key)
        if context is None:  # deleted in this moment
            raise errors.previous_response_not_found(key.run_id)
        return record, context

    async def _session(
        self, partition: Partition, context: Context, waiting: Waiting, target: ServedTarget, *, keeps_session: bool
    ) -> tuple[AgentSession | None, SessionKey | None, tuple[JsonObject, ...]]:
        """Return the session to continue, its key, and the items of the context that it does not know."""
        newer: list[Context] = []
        session = key = None
        for node in context.nodes():
            if node.has_session and node.response_id is not None and node.response_id not in waiting.passed_over:
                key = response_session_key(node.response_id)
                session = await self._continued(partition, key, target, keeps_session=keeps_session)
                if session is not None:
                    break
            newer.append(node)
        unknown = tuple(item for node in reversed(newer) for item in node.items)
        return session, None if session is None else key, unknown

    async def _continued(
        self, partition: Partition, key: SessionKey, target: ServedTarget, *, keeps_session: bool
    ) -> AgentSession | None:
        return await continue_session(
            target.target, self._sessions, partition, key, target_key=target.key, keeps_session=keeps_session
        )

    async def _waiting(self, partition: Partition, place: _Place, target: ServedTarget) -> Waiting:
        """Return what the target waits for, which goes on from the last response that has a session of its own.

        Raises:
            RequestError: what it waits for is gone.
        """
        if not isinstance(target.target, Asking):
            return Waiting()
        passed_over: set[str] = set()
        late: set[str] = set()
        for node in place.context.nodes():
            session = await self._session_after(partition, node)
            if session is not None and target_of(session) != target.key:
                continue
            if session is not None:
                question = QuestionKey(partition, str(node.response_id))
                asked = await _questions(target.target, partition, session, question.response_id)
                if not (asked and place.goes_back and await self._settlements.is_settled(question)):
                    found = question.response_id
                    return Waiting(response_id=found, questions=asked, passed_over=passed_over, late=late)
                passed_over.add(question.response_id)
            late |= calls_in(node)
        return Waiting(passed_over=passed_over, late=late)

    async def _session_after(self, partition: Partition, node: Context) -> AgentSession | None:
        if not node.has_session or node.response_id is None:
            return None
        return await self._sessions.get(partition, response_session_key(node.response_id))

    async def _check_asker(
        self,
        request: CreateRequest,
        partition: Partition,
        context: Context,
        target: ServedTarget,
    ) -> None:
        """Refuse answers to what another target has asked, which waits where the last response has left it.

        Raises:
            RequestError: an item is such an answer.
        """
        answered = {name for item in request.input if (name := id_answered_by(item)) is not None}
        if not answered:
            return
        approvals = context.all_approvals()
        for name in answered & approvals.keys():
            asker = str(approvals[name].get("target", ""))
            if asker != target.key:
                raise errors.asked_by_another_model(asker)
        response_id = next(_with_sessions(context), None)
        if self._targets.only is None and response_id is not None:
            await self._check_last(response_id, answered, partition, context, target)

    async def _check_last(
        self, response_id: str, answered: set[str], partition: Partition, context: Context, target: ServedTarget
    ) -> None:
        session = await self._sessions.get(partition, response_session_key(response_id))
        other = None if session is None else self._targets.stored(target_of(session))
        if session is None or other is None or other is target or not isinstance(other.target, Asking):
            return
        waiting = Waiting(questions=await _questions(other.target, partition, session, response_id))
        if answered & wire_names(waiting, context).keys():
            raise errors.asked_by_another_model(other.name)

    def _checked(
        self,
        request: CreateRequest,
        place: _Place,
        waiting: Waiting,
        target: ServedTarget,
    ) -> _Own:
        """Return the request's items with references resolved, checked against what they refer to."""
        # A context may be long, and most requests do not look back further than one response.
        context = place.context
        known = context.all_items() if refers_back(request.input) else ()
        resolved = _resolve_references(request.input, known)
        asked = context.all_approvals() if known else {}
        asked_last = [item for item in place.asked if item.get("call_id") not in waiting.late]
        if waiting.questions:
            answers = answers_in(resolved, waiting, context)
            others = [item for item in asked_last if item.get("call_id") not in answers.open_calls]
            check_pairing(answers.rest, known, must_answer=others, asked=asked)
            return _Own(resolved, answers.values)
        check_pairing(resolved, known, must_answer=asked_last, asked=asked)
        if isinstance(target.target, Asking):
            check_nothing_is_answered_late(resolved, known, asked, waiting)
        else:
            check_answers_are_to_the_newest(resolved, context, target.key)
        return _Own(resolved)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a request goes on: after `context`, whose last response has brought the items `asked`.

    `goes_back` says that responses are passed over whose questions were answered elsewhere.
    """

    context: Context = EMPTY
    asked: Sequence[JsonObject] = ()
    position: int = 0
    goes_back: bool = False


@dataclass(frozen=True, slots=True)
class _Own:
    items: tuple[JsonObject, ...]
    answers: Mapping[str, object] = field(default_factory=dict)


def _with_sessions(context: Context) -> Iterator[str]:
    return (node.response_id for node in context.nodes() if node.has_session and node.response_id is not None)


async def _questions(
    target: Asking, partition: Partition, session: AgentSession, response_id: str
) -> Mapping[str, Question]:
    try:
        return await target.questions(partition, session)
    except TargetError as error:
        logger.warning("What a response waits for cannot be read any more", exc_info=error)
        raise errors.question_gone(response_id) from error


def _settled(
    own: _Own, context: Context, waiting: Waiting, partition: Partition, target: ServedTarget
) -> tuple[QuestionKey, ...]:
    """Return what nobody may answer after this.

    A workflow goes on from where it waits once: two who answer different questions there would each wait for the other's
    answer.
    """
    if own.answers:
        return (QuestionKey(partition, waiting.response_id),)
    return tuple(QuestionKey(partition, *question) for question in used_up(own.items, context, target.key))


def _backlog(items: Sequence[JsonObject], own: Sequence[JsonObject], context: Context) -> tuple[JsonObject, ...]:
    if refers_back(items):
        items = without_orphaned_outputs(items, context.all_items())
    return without_past_approvals(without_unanswered_calls(items, own), own)


def _asked_last(context: Context) -> tuple[JsonObject, ...]:
    """Return the items from the last response in a conversation on: what it asked for, and answers that came since."""
    newer: list[Context] = []
    for node in context.nodes():
        newer.append(node)
        if node.response_id is not None:
            return tuple(item for later in reversed(newer) for item in later.items)
    return ()


def _with_own_call_id(item: JsonObject, call_ids: Mapping[str, str]) -> JsonObject:
    call_id = item.get("call_id")
    return {**item, "call_id": call_ids[call_id]} if isinstance(call_id, str) and call_id in call_ids else item


def _resolve_references(items: Sequence[JsonObject], context: Sequence[JsonObject]) -> tuple[JsonObject, ...]:
    if all(item.get("type") != "item_reference" for item in items):
        return tuple(items)
    known = {item.get("id"): item for item in (*context, *items) if item.get("type") != "item_reference"}
    resolved: list[JsonObject] = []
    for item in items:
        if item.get("type") == "item_reference":
            target = known.get(item.get("id"))
            if target is None:
                raise errors.item_not_found(str(item.get("id")), param="input", status=400)
            resolved.append(target)
        else:
            resolved.append(item)
    return tuple(resolved)
