"""OpenAI's Responses API as a channel: routes, and nothing that knows what they mean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from agent_framework_hosting.channel import ChannelContribution
from agent_framework_hosting.context import ChannelContext
from agent_framework_hosting.errors import ConfigurationError, RunError
from agent_framework_hosting.hooks import ChannelResponseHook, ChannelRunHook, ChannelStreamUpdateHook
from agent_framework_hosting.runs.base import RunStatus

from .conversation_routes import conversation_routes
from .conversations import ConversationsService
from .http import (
    NO_RETRY,
    Answered,
    EventStream,
    error_response,
    handle_error,
    json_response,
    read_body,
    read_idempotency_key,
    until_disconnect,
)
from .protocol import errors
from .protocol.errors import RequestError, error_body
from .protocol.query import parse_list_query, parse_retrieve_query
from .protocol.request import decode_body
from .service import ResponsesService, Started
from .settings import ResponseIdFactory, ResponsesSettings
from .state import ResponsesState

if TYPE_CHECKING:  # SQLAlchemy is an optional dependency
    from agent_framework_hosting.sql.presence import Presence


class ResponsesChannel:
    """Serve a host's target as OpenAI's Responses API.

    The routes are served under `path` and under `/v1` + `path`, conversations and models beside them. Without a `run_hook` no option,
    instruction or tool of a caller reaches the target; a `run_hook` that returns the request unchanged lets all through.
    `state` are stores of your own; by default responses and conversations lie where the host keeps its state.
    """

    def __init__(
        self,
        path: str = "/responses",
        *,
        name: str = "responses",
        run_hook: ChannelRunHook | None = None,
        response_hook: ChannelResponseHook | None = None,
        stream_update_hook: ChannelStreamUpdateHook | None = None,
        response_id_factory: ResponseIdFactory | None = None,
        settings: ResponsesSettings | None = None,
        state: ResponsesState | None = None,
    ) -> None:
        self.name = name
        self.path = path.rstrip("/")
        self.settings = settings or ResponsesSettings()
        self._run_hook = run_hook
        self._response_hook = response_hook
        self._stream_update_hook = stream_update_hook
        self._response_id_factory = response_id_factory
        self._state = state
        self._service: ResponsesService | None = None

    @property
    def service(self) -> ResponsesService:
        """The API in async calls; exists once the host has built its app."""
        if self._service is None:
            raise ConfigurationError("The channel has no service yet: give it to a host and build the host's app.")
        return self._service

    def contribute(self, context: ChannelContext) -> ChannelContribution:
        """Return the routes and the error answers of the API.

        Raises:
            ConfigurationError: another host has the channel already.
        """
        if self._service is not None:
            # Its routes would answer for the other host's target, with the other host's data.
            raise ConfigurationError(f"The channel {self.name!r} is given to two hosts: make one for each.")
        self._service = ResponsesService(
            context,
            name=self.name,
            settings=self.settings,
            state=self._state,
            run_hook=self._run_hook,
            response_hook=self._response_hook,
            stream_update_hook=self._stream_update_hook,
            response_id_factory=self._response_id_factory,
        )
        beside = self.path.removesuffix("/responses")
        prefixes = [""] if self.path.startswith("/v1") else ["", "/v1"]
        # The models come first: of a channel at the root they lie where an id would stand.
        root_routes = [route for prefix in prefixes for route in self._models(prefix + beside)]
        conversations = ConversationsService(
            self._service.state.conversations, self._service.state.conversations, settings=self.settings
        )
        root_routes += [route for prefix in prefixes for route in conversation_routes(prefix + beside, conversations)]
        root_routes += [route for prefix in prefixes for route in self._responses(prefix + self.path)]
        for store in self._service.state.prunable:
            context.keep_pruned(store)
        return ChannelContribution(
            root_routes=root_routes,
            on_ready=_recovering(self._service, context.presence),
            on_drained=[self._service.runs.end_all],
            exception_handlers={
                HTTPException: handle_error,
                RequestError: handle_error,
                RunError: handle_error,
                Exception: handle_error,
            },
        )

    def _responses(self, path: str) -> list[BaseRoute]:
        one = path + "/{response_id}"
        return [
            Route(path or "/", Answered(self._create), methods=["POST"]),
            # Parts of the API that are not offered: without these they would look like ids with a wrong method.
            Route(f"{path}/compact", _not_offered, methods=["POST"], include_in_schema=False),
            Route(f"{path}/input_tokens", _not_offered, methods=["POST"], include_in_schema=False),
            Route(one, Answered(self._retrieve), methods=["GET"]),
            Route(one, Answered(self._delete), methods=["DELETE"]),
            Route(f"{one}/cancel", Answered(self._cancel), methods=["POST"]),
            Route(f"{one}/input_items", Answered(self._input_items), methods=["GET"]),
        ]

    def _models(self, path: str) -> list[BaseRoute]:
        return [
            Route(f"{path}/models", Answered(self._list_models), methods=["GET"]),
            # The official client sends "/" in a model id as %2F; servers decode it before routing.
            Route(path + "/models/{model_id:path}", Answered(self._model), methods=["GET"]),
        ]

    async def _create(self, request: Request) -> Response:
        body = decode_body(await read_body(request, limit=self.settings.max_body_bytes))
        started = await self.service.create(body, idempotency_key=read_idempotency_key(request))
        if started.is_streamed:
            return EventStream(
                self.service.follow(started, idle=self.settings.keep_alive or None),
                leave=partial(self.service.leave, started),
                has_done_marker=self.settings.done_marker,
            )
        if started.is_background:
            return json_response(started.body)
        return await self._answer(request, started)

    async def _answer(self, request: Request, started: Started) -> Response:
        try:
            body = await until_disconnect(request.receive, self.service.result(started))
        finally:
            await self.service.leave(started)
        # Not even terminal is a run whose end could not be stored.
        if body is None or started.status not in {RunStatus.COMPLETED, RunStatus.INCOMPLETE}:
            return json_response(error_body(errors.server_error()), status=500, headers=NO_RETRY)
        return json_response(body)

    async def _retrieve(self, request: Request) -> Response:
        query = parse_retrieve_query(request.query_params.multi_items())
        response_id = request.path_params["response_id"]
        if not query.stream:
            return json_response(await self.service.retrieve(response_id))
        events = await self.service.events(
            response_id, after=query.starting_after, idle=self.settings.keep_alive or None
        )
        return EventStream(events, has_done_marker=self.settings.done_marker)

    async def _delete(self, request: Request) -> Response:
        return json_response(await self.service.delete(request.path_params["response_id"]))

    async def _cancel(self, request: Request) -> Response:
        return json_response(await self.service.cancel(request.path_params["response_id"]))

    async def _input_items(self, request: Request) -> Response:
        query = parse_list_query(request.query_params.multi_items())
        return json_response(await self.service.input_items(request.path_params["response_id"], query))

    async def _list_models(self, request: Request) -> Response:
        del request
        return json_response(self.service.models())

    async def _model(self, request: Request) -> Response:
        return json_response(self.service.model(request.path_params["model_id"]))


async def _not_offered(request: Request) -> Response:
    return error_response(errors.invalid_url(request.method, request.url.path), request)


def _recovering(service: ResponsesService, presence: Presence | None) -> Sequence[Callable[[], Awaitable[None]]]:
    """Return what takes over the runs of dead processes: those found at the start, and later those that die meanwhile."""
    recovery = service.state.recovery
    if recovery is None or presence is None:
        return ()
    recovery.hand_to(service.runs)
    presence.when_lost(recovery.lose)

    async def recover() -> None:
        await recovery.run(presence.dead_owners)

    async def start() -> None:
        await recovery.run(presence.dead_owners, is_start=True)

    presence.watch(recover)
    return (start,)
