"""From a parsed request to a turn: what the target gets, what the encoder must know, what is stored."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import msgspec
from agent_framework import FunctionTool

from agent_framework_hosting.context import ChannelContext
from agent_framework_hosting.errors import ConfigurationError
from agent_framework_hosting.hooks import ChannelRunHook, apply_run_hook
from agent_framework_hosting.isolation import IsolationKeys
from agent_framework_hosting.runs.base import RunId, RunKey, RunLog, RunStatus
from agent_framework_hosting.targets.base import Resumption
from agent_framework_hosting.targets.served import ServedTarget
from agent_framework_hosting.types import ChannelIdentity, ChannelRequest

from .history import Continuation
from .portable import PortableRequest
from .protocol import errors
from .protocol.encoder import EncoderOptions, ResponseEncoder
from .protocol.ids import new_id
from .protocol.json import encode_json
from .protocol.memo import Memo
from .protocol.messages import to_messages
from .protocol.options import allowed_tool_names, chat_options
from .protocol.replay import Replay
from .protocol.request import CreateRequest
from .protocol.resources import decode_response, new_response
from .settings import ResponseIdFactory, ResponsesSettings
from .stores.base import ResponseRecord, ResponseStore
from .turn import Turn

RESPONSE_ID = re.compile(r"[A-Za-z0-9_-]{1,256}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStores:
    """Where the records of turns go: stored ones, stored ones that nobody can know before they end, and all others."""

    stored: ResponseStore
    one_shots: ResponseStore
    unstored: ResponseStore

    def pick(self, request: CreateRequest, *, is_known_early: bool) -> ResponseStore:
        """Return the store for the response to `request`."""
        if not request.store:
            return self.unstored
        waits = not (request.stream or request.background or is_known_early)
        return self.one_shots if waits and request.conversation_id is None else self.stored


class TurnBuilder:
    """Prepares turns for one channel."""

    def __init__(
        self,
        context: ChannelContext,
        *,
        name: str,
        settings: ResponsesSettings,
        stores: TurnStores,
        run_hook: ChannelRunHook | None,
        response_id_factory: ResponseIdFactory | None,
        clock: Callable[[], float],
    ) -> None:
        self._context = context
        self._name = name
        self._settings = settings
        self._stores = stores
        self._run_hook = run_hook
        self._has_own_ids = response_id_factory is not None
        self._new_response_id = _id_factory(response_id_factory)
        self._clock = clock

    async def build(
        self,
        request: CreateRequest,
        continuation: Continuation,
        *,
        target: ServedTarget,
        isolation: IsolationKeys,
        model: str,
        idempotency_key: str | None,
        request_hash: str | None,
    ) -> Turn:
        """Return the turn of `request`; nothing is stored yet.

        Raises:
            RequestError: a declared tool is named like one of the target's own.
        """
        response_id = self._new_response_id(request.previous_response_id)
        channel_request = await self._channel_request(request, continuation, response_id, target)
        response = new_response(request, response_id=response_id, created_at=int(self._clock()), model=model)
        record = ResponseRecord(
            key=RunKey(isolation.partition, RunId(response_id)),
            status=RunStatus.QUEUED if request.background else RunStatus.IN_PROGRESS,
            created_at=cast("int", response["created_at"]),
            body=encode_json(response),
            attempt=int(not request.background),  # in the foreground it begins at once, here
            owner=self._context.owner,
            target=target.key,
            is_background=request.background,
            is_streamed=request.stream,
            is_stored=request.store,
            previous_response_id=request.previous_response_id,
            conversation_id=request.conversation_id,
            conversation_position=continuation.conversation_position,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
            input=continuation.input,
            request=self._portable(request, isolation),
        )
        options = self._encoder_options(request, continuation, channel_request, target)
        has_events = request.stream or request.background
        return Turn(
            record=record,
            request=channel_request,
            isolation=isolation,
            encoder=ResponseEncoder(response, options=options, clock=self._seconds, events=has_events),
            store=self._store_for(request, continuation, idempotency_key),
            log=self._log_for(request, idempotency_key),
            target=target,
            # What no other process can run must not be given to one.
            engine=self._context.engine if record.request is None else self._context.durable_engine,
            context=continuation.context,
            session=continuation.session,
            session_key=continuation.session_key,
            answers=continuation.answers,
            settles=continuation.settles,
        )

    def _store_for(
        self, request: CreateRequest, continuation: Continuation, idempotency_key: str | None
    ) -> ResponseStore:
        # A process that is killed must not leave answers that count, of a response that nobody finds.
        is_known_early = self._has_own_ids or idempotency_key is not None or bool(continuation.settles)
        return self._stores.pick(request, is_known_early=is_known_early)

    def _log_for(self, request: CreateRequest, idempotency_key: str | None) -> RunLog:
        # Only a log that outlives the request can tell a repeated request the same events.
        is_kept = request.store and (request.background or idempotency_key is not None)
        return self._context.durable_log if is_kept else self._context.run_log

    async def rebuild(
        self,
        record: ResponseRecord,
        request: CreateRequest,
        continuation: Continuation,
        *,
        target: ServedTarget,
        isolation: IsolationKeys,
        told: Replay,
        resumption: Resumption | None,
    ) -> Turn:
        """Return the turn of a stored response that another process has accepted, to be run from what was told of it.

        With a `resumption`, whose mark is the encoder's memo, the target goes on from there.

        Raises:
            RequestError: the request does not fit this process's target.
        """
        channel_request = await self._channel_request(request, continuation, record.key.run_id, target)
        options = self._encoder_options(request, continuation, channel_request, target)
        memo = Memo() if resumption is None else msgspec.convert(resumption.mark, Memo)
        turn = self.remnant(record, isolation=isolation, told=told, options=options, memo=memo)
        turn.resumption = resumption
        turn.request = channel_request
        turn.context = continuation.context
        turn.session, turn.session_key = continuation.session, continuation.session_key
        turn.answers = continuation.answers
        return turn

    def remnant(
        self,
        record: ResponseRecord,
        *,
        isolation: IsolationKeys,
        told: Replay,
        options: EncoderOptions | None = None,
        memo: Memo = Memo(),  # noqa: B008  frozen
    ) -> Turn:
        """Return what is enough of a turn to end it."""
        encoder = ResponseEncoder(
            decode_response(record.body),
            options=options or EncoderOptions(),
            clock=self._seconds,
            earlier=told,
            memo=memo,
        )
        turn = Turn(
            record=record,
            request=ChannelRequest(channel=self._name, operation="responses.create", input=""),
            isolation=isolation,
            encoder=encoder,
            store=self._stores.stored,
            log=self._context.durable_log,
            engine=self._context.durable_engine,
            target=self._context.targets.stored(record.target),
        )
        turn.untold += encoder.open()
        return turn

    def _seconds(self) -> int:
        return int(self._clock())

    def _portable(self, request: CreateRequest, isolation: IsolationKeys) -> bytes | None:
        """Return what another process needs to run the request, `None` if it will not be run by another.

        Hosted tools carry secrets, which are never stored: such a request is run here or not at all.
        """
        if self._context.database is None or not (request.background and request.store) or request.hosted_tools:
            return None
        return PortableRequest.of(request.raw, isolation).encoded

    async def _channel_request(
        self, request: CreateRequest, continuation: Continuation, response_id: str, target: ServedTarget
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
            self._run_hook, channel_request, target=target.target.hosted, protocol_request=request.raw
        )
        _check_tools(request, hooked, target)
        if hooked.attributes is attributes:
            return hooked
        # A hook that makes a request of its own must not lose what is bound for the run.
        return replace(hooked, attributes={**hooked.attributes, **attributes})

    def _encoder_options(
        self,
        request: CreateRequest,
        continuation: Continuation,
        channel_request: ChannelRequest,
        target: ServedTarget,
    ) -> EncoderOptions:
        """Tell the encoder whose call is whose: the caller's are those it declared and the operator let through."""
        offered = _offered_tools(channel_request)
        declared = {str(tool["name"]): tool for tool in request.client_tools}
        return EncoderOptions(
            client_tools=frozenset(n for n, tool in declared.items() if n in offered and tool["type"] == "function"),
            custom_tools=frozenset(n for n, tool in declared.items() if n in offered and tool["type"] == "custom"),
            server_tools=target.target.server_tools(),
            allowed_tools=allowed_tool_names(request),
            taken_ids=continuation.taken_ids,
            server_calls=self._settings.server_calls,
            server_label=self._settings.server_label or target.name,
            reasoning=self._settings.reasoning,
            include=request.include,
            error_details=self._settings.error_details,
        )


def _check_tools(request: CreateRequest, channel_request: ChannelRequest, target: ServedTarget) -> None:
    """Refuse an offered tool with the name of one of the target's own: nobody could tell whose call it is."""
    own = target.target.server_tools() & _offered_tools(channel_request)
    for index, tool in enumerate(request.tools):
        if tool.get("name") in own:
            raise errors.duplicate_tool(f"tools[{index}].name", str(tool["name"]))


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
        if not isinstance(made, str) or not RESPONSE_ID.match(made):
            raise ConfigurationError(
                "response_id_factory must return ids of letters, digits, '_' and '-', at most 256."
            )
        return made

    return make
