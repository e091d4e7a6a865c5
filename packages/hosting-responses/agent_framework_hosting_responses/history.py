"""What a response continues from: `previous_response_id` → the items of its context and the session of its run.

Rules (contract §1.2, §1.7): the context is the previous response's context, input and output. The target gets it through
the agent session that was stored with the previous response. A response without one (it failed, was cancelled, or ran
with sessions disabled) is continued from the nearest ancestor that has one, plus the items since, as messages; calls in
them that never got an output are left out of those messages, because no model accepts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent_framework import AgentSession

from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus
from agent_framework_hosting.stores.base import SessionKey, SessionStore

from .protocol import errors
from .protocol.json import JsonObject
from .protocol.pairing import check_pairing, without_unanswered_calls
from .protocol.request import CreateRequest
from .stores.base import ResponseRecord, ResponseStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """Where a run starts from.

    `context` are the items before the request's own; `backlog` is the tail of them that `session` does not know yet;
    `input` are the request's own items with references resolved. `session` is a private copy, `None` for a new one.
    """

    context: tuple[JsonObject, ...] = ()
    backlog: tuple[JsonObject, ...] = ()
    input: tuple[JsonObject, ...] = ()
    session: AgentSession | None = None
    approvals: Mapping[str, JsonObject] = field(default_factory=dict)
    call_ids: Mapping[str, str] = field(default_factory=dict)

    @property
    def taken_ids(self) -> frozenset[str]:
        """The ids of items and calls that the response must not use again: clients take them for the same thing."""
        items = (*self.context, *self.input)
        ids = (item.get(name) for item in items for name in ("id", "call_id"))
        return frozenset(value for value in ids if isinstance(value, str))

    @property
    def unseen(self) -> tuple[JsonObject, ...]:
        """The items that the target has to be told: backlog and input, with the `call_id`s that the target knows."""
        items = (*self.backlog, *self.input)
        return tuple(_with_own_call_id(item, self.call_ids) for item in items) if self.call_ids else items


def response_session_key(response_id: str) -> SessionKey:
    """Return the key of the session snapshot that belongs to a response."""
    return SessionKey(f"response:{response_id}")


class History:
    """Resolves what requests refer to, always inside one partition."""

    def __init__(self, *, responses: ResponseStore, sessions: SessionStore) -> None:
        self._responses = responses
        self._sessions = sessions

    async def resolve(self, request: CreateRequest, partition: Partition) -> Continuation:
        """Return where the run of `request` starts from.

        Raises:
            RequestError: the previous response or the conversation is unknown or busy, an item reference is unknown, or
                calls and their outputs do not pair up.
        """
        if request.conversation_id is not None:
            # Conversations come with durable state; until then every id is an unknown one.
            raise errors.conversation_not_found(request.conversation_id)
        if request.previous_response_id is None:
            resolved = _resolve_references(request.input, ())
            check_pairing(resolved, (), must_answer=(), asked=())
            return Continuation(input=resolved)
        previous = await self._previous(request.previous_response_id, partition)
        context = previous.items
        resolved = _resolve_references(request.input, context)
        # Only what a finished response asked for has to be answered: a failed turn must not block its chain.
        is_finished = previous.status in {RunStatus.COMPLETED, RunStatus.INCOMPLETE}
        must_answer = previous.output if is_finished else ()
        check_pairing(resolved, context, must_answer=must_answer, asked=previous.approvals)
        session, known = await self._session(previous)
        return Continuation(
            context=context,
            backlog=without_unanswered_calls(context[known:], resolved),
            input=resolved,
            session=session,
            approvals=previous.approvals,
            call_ids=previous.call_ids,
        )

    async def _previous(self, response_id: str, partition: Partition) -> ResponseRecord:
        record = await self._responses.get(RunKey(partition, RunId(response_id)))
        if record is None or not record.is_stored:
            raise errors.previous_response_not_found(response_id)
        if not record.status.is_terminal:
            raise errors.previous_response_running(response_id)
        return record

    async def _session(self, previous: ResponseRecord) -> tuple[AgentSession | None, int]:
        """Return the session to continue, and how many items of the context it knows."""
        ancestor: ResponseRecord | None = previous
        while ancestor is not None:
            if ancestor.has_session:
                session = await self._sessions.get(ancestor.key.partition, response_session_key(ancestor.key.run_id))
                if session is not None:
                    return session, len(ancestor.items)
            if ancestor.previous_response_id is None:
                break
            ancestor = await self._responses.get(RunKey(ancestor.key.partition, RunId(ancestor.previous_response_id)))
        return None, 0


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
