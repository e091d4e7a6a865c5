"""What the Responses API means, in async calls, for any web framework.

Every method works inside the partition of the current isolation keys (`set_current_isolation_keys`); ids of another
partition are unknown ids. Errors are `RequestError`s: `protocol.errors.error_body` makes the API's envelope of them.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

from agent_framework import FunctionTool

from agent_framework_hosting.context import ChannelContext, current_partition
from agent_framework_hosting.errors import ConfigurationError
from agent_framework_hosting.hooks import (
    ChannelResponseHook,
    ChannelRunHook,
    ChannelStreamUpdateHook,
    apply_run_hook,
)
from agent_framework_hosting.isolation import IsolationKeys, get_current_isolation_keys
from agent_framework_hosting.runs.base import LogEntry, RunId, RunKey, RunStatus
from agent_framework_hosting.types import ChannelIdentity, ChannelRequest

from .history import Continuation, History, response_session_key
from .protocol import errors
from .protocol.encoder import EncoderOptions, ResponseEncoder
from .protocol.ids import new_id
from .protocol.json import JsonObject, encode_json
from .protocol.messages import to_messages
from .protocol.options import allowed_tool_names, chat_options
from .protocol.query import ListQuery, page
from .protocol.request import CreateRequest, parse_request
from .protocol.resources import deleted_response, model_list, model_object, new_response
from .runs import ResponseRuns, Turn
from .settings import ResponseIdFactory, ResponsesSettings
from .stores.base import ResponseRecord, ResponseStore
from .stores.memory import MemoryResponseStore

_RESPONSE_ID = re.compile(r"[A-Za-z0-9_-]{1,256}\Z")

# Seconds for which a background response that was not to be stored can be polled after its end (contract §1.2).
_UNSTORED_AGE = 600.0


@dataclass(frozen=True, slots=True)
class Started:
    """A response that has been accepted and runs; follow it with `ResponsesService.follow` or wait for its `result`."""

    turn: Turn

    @property
    def is_streamed(self) -> bool:
        """Whether the caller asked for a stream."""
        return self.turn.record.is_streamed

    @property
    def is_background(self) -> bool:
        """Whether the run goes on when the caller leaves."""
        return self.turn.record.is_background

    @property
    def body(self) -> bytes:
        """The Response object as of now, as JSON."""
        return self.turn.record.body

    @property
    def status(self) -> RunStatus:
        """Where the run stands."""
        return self.turn.record.status


class ResponsesService:
    """The Responses API over one target."""

    def __init__(
        self,
        context: ChannelContext,
        *,
        name: str = "responses",
        settings: ResponsesSettings | None = None,
        responses: ResponseStore | None = None,
        run_hook: ChannelRunHook | None = None,
        response_hook: ChannelResponseHook | None = None,
        stream_update_hook: ChannelStreamUpdateHook | None = None,
        response_id_factory: ResponseIdFactory | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings or ResponsesSettings()
        self._context = context
        self._name = name
        self._run_hook = run_hook
        self._clock = clock
        self._created = int(clock())
        self._new_response_id = _id_factory(response_id_factory)
        if responses is None:
            responses = MemoryResponseStore(
                max_entries=self.settings.max_responses, max_age=self.settings.max_response_age
            )
        self._responses: ResponseStore = responses
        # Responses with store:false live here while they run, and background ones a little longer to be polled.
        self._unstored = MemoryResponseStore(max_entries=self.settings.max_responses, max_age=_UNSTORED_AGE)
        self._history = History(responses=responses, sessions=context.session_store)
        self._runs = ResponseRuns(
            context,
            operation=name,
            run_timeout=self.settings.run_timeout,
            cancel_grace=self.settings.cancel_grace,
            response_hook=response_hook,
            stream_update_hook=stream_update_hook,
        )

    async def create(self, body: JsonObject) -> Started:
        """Accept a request: validate it, resolve what it refers to, and start its run.

        Raises:
            RequestError: the request cannot be run as asked; nothing was stored.
            RunError: the host is shutting down.
        """
        request = parse_request(
            body, strict=self.settings.strict_fields, hosted_tools=self.settings.hosted_tools, new_id=new_id
        )
        model = self._resolve_model(request.model)
        # Read once: a run hook may change what is current, but not whose response this is.
        isolation = get_current_isolation_keys() or IsolationKeys()
        continuation = await self._history.resolve(request, isolation.partition)
        response_id = self._new_response_id(request.previous_response_id)
        channel_request = await self._channel_request(request, continuation, response_id)
        self._check_tools(request, channel_request)
        response = new_response(request, response_id=response_id, created_at=int(self._clock()), model=model)
        turn = self._turn(request, continuation, channel_request, response, isolation=isolation)
        await self._runs.start(turn)
        return Started(turn)

    def follow(self, started: Started, *, idle: float | None = None) -> AsyncGenerator[Sequence[LogEntry], None]:
        """Yield the events of a run that was just created, from the first; an empty batch after `idle` silent seconds."""
        return started.turn.log.follow(started.turn.key, idle=idle)

    async def result(self, started: Started) -> bytes:
        """Wait for the end of the run and return the terminal Response object as JSON."""
        async with aclosing(started.turn.log.follow(started.turn.key)) as batches:
            async for _ in batches:
                pass
        return started.body

    async def leave(self, started: Started) -> None:
        """Say that the creator of a response no longer waits: a foreground run that still goes on is cancelled."""
        turn = started.turn
        if turn.record.is_background:
            return
        try:
            if not turn.record.status.is_terminal:
                await self._runs.cancel(turn.key)
        finally:
            # A foreground stream cannot be read again (contract §4.2), and an unstored response is gone with its request.
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
        log = self._context.durable_log
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
            await self._runs.cancel(record.key)
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
        await self._runs.settle(record.key)
        await self._context.session_store.delete(record.key.partition, response_session_key(response_id))
        await self._context.durable_log.drop(record.key)
        await store.delete(record.key)
        return deleted_response(response_id)

    async def input_items(self, response_id: str, query: ListQuery) -> JsonObject:
        """Return a page of the items the response was given: its context, then its own input.

        Raises:
            RequestError: the response or the item in `after` is unknown.
        """
        record, _ = await self._find(response_id)
        return page((*record.context, *record.input), query)

    def models(self) -> JsonObject:
        """Return the list of models: the target's name."""
        return model_list([self._model()])

    def model(self, model_id: str) -> JsonObject:
        """Return one model.

        Raises:
            RequestError: 404, there is no such model.
        """
        if model_id != self._context.target.name:
            raise errors.model_object_not_found(model_id)
        return self._model()

    def _model(self) -> JsonObject:
        return model_object(self._context.target.name, created=self._created)

    def _resolve_model(self, model: str | None) -> str:
        name = self._context.target.name
        if model is not None and model != name and self.settings.strict_model:
            raise errors.model_not_found(model)
        return model or name

    async def _find(self, response_id: str) -> tuple[ResponseRecord, ResponseStore]:
        key = RunKey(current_partition(), RunId(response_id))
        record = await self._responses.get(key)
        if record is not None:
            return record, self._responses
        record = await self._unstored.get(key)
        # An unstored foreground response belongs to the request that waits for it and to nobody else.
        if record is None or not record.is_background:
            raise errors.response_not_found(response_id)
        return record, self._unstored

    async def _channel_request(
        self, request: CreateRequest, continuation: Continuation, response_id: str
    ) -> ChannelRequest:
        speaker = request.safety_identifier or request.user
        attributes = {"response_id": response_id, "previous_response_id": request.previous_response_id}
        channel_request = ChannelRequest(
            channel=self._name,
            operation="responses.create",
            input=to_messages(continuation.unseen, approvals=continuation.approvals),
            options=chat_options(request),
            metadata=request.metadata,
            attributes=attributes,
            stream=request.stream,
            identity=ChannelIdentity(self._name, speaker) if speaker is not None else None,
        )
        hooked = await apply_run_hook(
            self._run_hook, channel_request, target=self._context.target.hosted, protocol_request=request.raw
        )
        if hooked.attributes is attributes:
            return hooked
        # A hook that makes a request of its own must not lose what is bound for the run.
        return replace(hooked, attributes={**hooked.attributes, **attributes})

    def _turn(
        self,
        request: CreateRequest,
        continuation: Continuation,
        channel_request: ChannelRequest,
        response: JsonObject,
        *,
        isolation: IsolationKeys,
    ) -> Turn:
        record = ResponseRecord(
            key=RunKey(isolation.partition, RunId(str(response["id"]))),
            status=RunStatus.QUEUED if request.background else RunStatus.IN_PROGRESS,
            created_at=cast("int", response["created_at"]),
            body=encode_json(response),
            is_background=request.background,
            is_streamed=request.stream,
            is_stored=request.store,
            previous_response_id=request.previous_response_id,
            input=continuation.input,
            context=continuation.context,
            approvals=continuation.approvals,
            call_ids=continuation.call_ids,
        )
        encoder = ResponseEncoder(
            response,
            options=self._encoder_options(request, continuation, channel_request),
            clock=lambda: int(self._clock()),
            events=request.stream or request.background,
        )
        return Turn(
            record=record,
            request=channel_request,
            isolation=isolation,
            encoder=encoder,
            store=self._responses if request.store else self._unstored,
            log=self._context.durable_log if request.background else self._context.run_log,
            session=continuation.session,
        )

    def _check_tools(self, request: CreateRequest, channel_request: ChannelRequest) -> None:
        """Refuse an offered tool with the name of one of the target's own: nobody could tell whose call it is."""
        own = self._context.target.server_tools() & _offered_tools(channel_request)
        for index, tool in enumerate(request.tools):
            if tool.get("name") in own:
                raise errors.duplicate_tool(f"tools[{index}].name", str(tool["name"]))

    def _encoder_options(
        self, request: CreateRequest, continuation: Continuation, channel_request: ChannelRequest
    ) -> EncoderOptions:
        """Tell the encoder whose call is whose: the caller's are those it declared and the operator let through."""
        offered = _offered_tools(channel_request)
        declared = {str(tool["name"]): tool for tool in request.client_tools}
        return EncoderOptions(
            client_tools=frozenset(n for n, tool in declared.items() if n in offered and tool["type"] == "function"),
            custom_tools=frozenset(n for n, tool in declared.items() if n in offered and tool["type"] == "custom"),
            server_tools=self._context.target.server_tools(),
            allowed_tools=allowed_tool_names(request),
            taken_ids=continuation.taken_ids,
            server_calls=self.settings.server_calls,
            server_label=self.settings.server_label or self._context.target.name,
            reasoning=self.settings.reasoning,
            include=request.include,
            error_details=self.settings.error_details,
        )


def _offered_tools(request: ChannelRequest) -> frozenset[str]:
    tools = cast("Sequence[object]", (request.options or {}).get("tools") or ())
    return frozenset(tool.name for tool in tools if isinstance(tool, FunctionTool))


def _id_factory(factory: ResponseIdFactory | None) -> Callable[[str | None], str]:
    """Return a factory of valid response ids that takes the previous id, whatever the user's takes."""
    if factory is None:
        return lambda _: new_id("resp")
    takes_previous = any(
        parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL}
        for parameter in inspect.signature(factory).parameters.values()
    )

    def make(previous: str | None) -> str:
        made = factory(previous) if takes_previous else factory()  # type: ignore[call-arg]
        if not isinstance(made, str) or not _RESPONSE_ID.match(made):
            raise ConfigurationError(
                "response_id_factory must return ids of letters, digits, '_' and '-', at most 256."
            )
        return made

    return make
