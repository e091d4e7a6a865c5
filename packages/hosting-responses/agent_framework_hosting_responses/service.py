"""What the Responses API means, in async calls, for any web framework.

Every method works inside the partition of the current isolation keys (`set_current_isolation_keys`); ids of another
partition are unknown ids. Errors are `RequestError`s: `protocol.errors.error_body` makes the API's envelope of them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from agent_framework_hosting.context import ChannelContext, current_partition
from agent_framework_hosting.errors import RunError
from agent_framework_hosting.hooks import ChannelResponseHook, ChannelRunHook, ChannelStreamUpdateHook
from agent_framework_hosting.isolation import IsolationKeys, get_current_isolation_keys
from agent_framework_hosting.runs.base import LogEntry, RunId, RunKey, RunLog, RunStatus

from .erasure import erase_session
from .history import History
from .models import Models
from .protocol import errors
from .protocol.ids import new_id
from .protocol.json import JsonObject, digest_of
from .protocol.query import ListQuery, page
from .protocol.request import CreateRequest, parse_request
from .protocol.resources import deleted_response
from .revival import Revival
from .runs import ResponseRuns
from .settings import ResponseIdFactory, ResponsesSettings
from .state import ResponsesState, state_of
from .stores.base import (
    AnsweredAlready,
    ConversationLocked,
    IdempotencyKey,
    ResponseRecord,
    ResponseStore,
    UnknownConversation,
)
from .stores.memory import MemoryResponseStore
from .turn import Turn
from .turns import RESPONSE_ID, TurnBuilder, TurnStores

# Seconds for which a background response that was not to be stored can be polled after its end (contract §1.2).
_UNSTORED_AGE = 600.0
_MOST_UNSTORED = 10_000


@dataclass(frozen=True, slots=True)
class Started:
    """A response that has been accepted; follow it with `ResponsesService.follow` or wait for its `result`.

    `turn` is there while it runs in this process. A repeated request with the same idempotency key gets the response of
    the first one, as `record`, wherever that stands.
    """

    turn: Turn | None
    record: ResponseRecord
    log: RunLog

    @property
    def is_streamed(self) -> bool:
        """Whether the caller asked for a stream."""
        return self.record.is_streamed

    @property
    def is_background(self) -> bool:
        """Whether the run goes on when the caller leaves."""
        return self.record.is_background

    @property
    def body(self) -> bytes:
        """The Response object as of now, as JSON."""
        return (self.turn or self).record.body

    @property
    def status(self) -> RunStatus:
        """Where the run stands."""
        return (self.turn or self).record.status


class ResponsesService:
    """The Responses API over the host's targets. `state` are its stores; by default those that the host's state calls for."""

    def __init__(
        self,
        context: ChannelContext,
        *,
        name: str = "responses",
        settings: ResponsesSettings | None = None,
        state: ResponsesState | None = None,
        run_hook: ChannelRunHook | None = None,
        response_hook: ChannelResponseHook | None = None,
        stream_update_hook: ChannelStreamUpdateHook | None = None,
        response_id_factory: ResponseIdFactory | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings or ResponsesSettings()
        self.settings.check([served.name for served in context.targets])
        self._context = context
        self.state = state = state or state_of(context, self.settings)
        self._responses = state.responses
        self._unstored = _unstored_responses(state)
        self._history = History(
            targets=context.targets,
            responses=state.responses,
            conversations=state.conversations,
            sessions=context.session_store,
            settlements=state.settlements,
        )
        self._models = Models(context.targets, self._history, settings=self.settings, created=int(clock()))
        self._turns = TurnBuilder(
            context,
            name=name,
            settings=self.settings,
            stores=_turn_stores(state, self._unstored),
            run_hook=run_hook,
            response_id_factory=response_id_factory,
            clock=clock,
        )
        self._revival = Revival(
            context, responses=state.responses, history=self._history, turns=self._turns, settings=self.settings
        )
        self.runs = ResponseRuns(
            context,
            operation=name,
            run_timeout=self.settings.run_timeout,
            cancel_grace=self.settings.cancel_grace,
            response_hook=response_hook,
            stream_update_hook=stream_update_hook,
            revival=self._revival,
            settlements=state.settlements,
        )

    async def create(self, body: JsonObject, *, idempotency_key: str | None = None) -> Started:
        """Accept a request: validate it, resolve what it refers to, and start its run.

        A request with the `idempotency_key` of an earlier one in the partition gets the response of that one.

        Raises:
            RequestError: the request cannot be run as asked; nothing was stored.
            RunError: the host is shutting down.
        """
        request = parse_request(
            body, strict=self.settings.strict_fields, hosted_tools=self.settings.hosted_tools, new_id=new_id
        )
        # Read once: a run hook may change what is current, but not whose response this is.
        isolation = get_current_isolation_keys() or IsolationKeys()
        request_hash = None if idempotency_key is None else digest_of(body)
        if idempotency_key is not None:
            named = IdempotencyKey(isolation.partition, idempotency_key)
            existing = await self._responses.get(named) or await self._unstored.get(named)
            if existing is not None:
                return await self._repeated(existing, request_hash)
        target = await self._models.choose(request, isolation.partition)
        continuation = await self._history.resolve(request, isolation.partition, target)
        turn = await self._turns.build(
            request,
            continuation,
            target=target,
            isolation=isolation,
            model=self._models.name_of(target, request),
            idempotency_key=idempotency_key,
            request_hash=request_hash,
        )
        existing = await self._start(turn, request)
        if existing is not None:
            return await self._repeated(existing, request_hash)
        return Started(turn, turn.record, turn.log)

    async def _start(self, turn: Turn, request: CreateRequest) -> ResponseRecord | None:
        try:
            return await self.runs.start(turn)
        except ConversationLocked:
            raise errors.conversation_locked() from None
        except UnknownConversation:
            raise errors.conversation_not_found(request.conversation_id or "") from None
        except AnsweredAlready as error:
            raise errors.response_answered_already(error.question.response_id) from None

    async def _repeated(self, record: ResponseRecord, request_hash: str | None) -> Started:
        """Return the response that an earlier request with the same idempotency key has got.

        Raises:
            RequestError: that request had another body, or its events are gone.
            RunError: it runs in another process, and its end cannot be waited for here.
        """
        if record.request_hash != request_hash:
            raise errors.idempotency_key_reused()
        turn = self.runs.find(record.key)
        if turn is not None:
            # Counted first: whoever made the request may leave while this one waits.
            turn.waiting += 1
            await turn.opened.wait()
            return Started(turn, record, turn.log)
        log = self._log_of(record)
        if not record.status.is_terminal and not record.is_background:
            raise RunError("The response that this request repeats runs in another process.")
        if record.is_streamed and not await log.exists(record.key):
            raise errors.not_streamable_expired()
        return Started(None, record, log)

    def follow(self, started: Started, *, idle: float | None = None) -> AsyncGenerator[Sequence[LogEntry], None]:
        """Yield the events of a run that was just created, from the first; an empty batch after `idle` silent seconds."""
        return started.log.follow(started.record.key, idle=idle)

    async def result(self, started: Started) -> bytes:
        """Wait for the end of the run and return the terminal Response object as JSON."""
        if started.turn is None and started.status.is_terminal:
            return started.body
        async with aclosing(started.log.follow(started.record.key)) as batches:
            async for _ in batches:
                pass
        return started.body

    async def leave(self, started: Started) -> None:
        """Say that the creator of a response no longer waits: a foreground run that still goes on is cancelled."""
        turn = started.turn
        if turn is None or turn.record.is_background:
            return
        turn.waiting -= 1
        if turn.waiting > 0:  # a repeated request waits for the same run
            return
        try:
            if not turn.record.status.is_terminal:
                await self.runs.cancel(turn.key)
        finally:
            # A foreground stream cannot be read again (contract §4.2), and an unstored response is gone with its request.
            if turn.record.idempotency_key is None:
                await turn.log.drop(turn.key)
            if not turn.record.is_stored:
                await turn.store.delete(turn.key)

    async def retrieve(self, response_id: str) -> bytes:
        """Return the Response object as JSON.

        Raises:
            RequestError: 404, the response is unknown.
        """
        return (await self._find(response_id))[0].body

    async def events(
        self, response_id: str, *, after: int = -1, idle: float | None = None
    ) -> AsyncGenerator[Sequence[LogEntry], None]:
        """Return the events of a background response after sequence number `after`, stored ones and then live ones.

        Raises:
            RequestError: the response is unknown, was not created in the background, or its log has expired.
        """
        record, _ = await self._find(response_id)
        if not record.is_background:
            raise errors.not_streamable_foreground()
        log = self._log_of(record)
        if not await log.exists(record.key):
            raise errors.not_streamable_expired()
        return log.follow(record.key, after=after, idle=idle)

    async def cancel(self, response_id: str) -> bytes:
        """Stop a background response and return it; a terminal one is returned as it is (contract §4.4).

        Raises:
            RequestError: the response is unknown or not a background one.
        """
        record, store = await self._find(response_id)
        if not record.is_background:
            raise errors.cannot_cancel_foreground()
        if not record.status.is_terminal:
            await self.runs.cancel_anywhere(record.key)
        cancelled = await store.get(record.key)
        if cancelled is None:  # somebody has deleted it meanwhile
            raise errors.response_not_found(response_id)
        return cancelled.body

    async def delete(self, response_id: str) -> JsonObject:
        """Erase a response with its session and its events.

        Raises:
            RequestError: the response is unknown or still running.
        """
        record, store = await self._find(response_id)
        if not record.status.is_terminal:
            raise errors.cannot_delete_in_flight()
        # Stored before told: the last event must not come into the log after it was deleted.
        await self.runs.settle(record.key)
        await erase_session(self._context, record.key)
        await self._log_of(record).drop(record.key)
        await store.delete(record.key)
        return deleted_response(response_id)

    async def input_items(self, response_id: str, query: ListQuery) -> JsonObject:
        """Return a page of the items the response was given: its context, then its own input.

        Raises:
            RequestError: the response or the item in `after` is unknown.
        """
        record, store = await self._find(response_id)
        context = await store.context(record.key)
        before = () if context is None or context.parent is None else context.parent.all_items()
        return page((*before, *record.input), query)

    def models(self) -> JsonObject:
        """Return the list of models: the names of the targets."""
        return self._models.all()

    def model(self, model_id: str) -> JsonObject:
        """Return one model.

        Raises:
            RequestError: 404, there is no such model.
        """
        return self._models.one(model_id)

    def _log_of(self, record: ResponseRecord) -> RunLog:
        """Return the log of a response that can be read after its request; what is not stored leaves no events either."""
        return self._context.durable_log if record.is_stored else self._context.run_log

    async def _find(self, response_id: str) -> tuple[ResponseRecord, ResponseStore]:
        if not RESPONSE_ID.match(response_id):  # no id of ours, and perhaps none that a database can look for
            raise errors.response_not_found(response_id)
        key = RunKey(current_partition(), RunId(response_id))
        record = await self._responses.get(key)
        if record is not None:
            return record, self._responses
        record = await self._unstored.get(key)
        # An unstored foreground response belongs to the request that waits for it and to nobody else.
        if record is None or not record.is_background:
            raise errors.response_not_found(response_id)
        return record, self._unstored


def _unstored_responses(state: ResponsesState) -> MemoryResponseStore:
    """Return where responses with store:false live while they run, and background ones a little longer to be polled."""
    return MemoryResponseStore(conversations=state.conversations, max_entries=_MOST_UNSTORED, max_age=_UNSTORED_AGE)


def _turn_stores(state: ResponsesState, unstored: MemoryResponseStore) -> TurnStores:
    return TurnStores(stored=state.responses, one_shots=state.one_shots or state.responses, unstored=unstored)
