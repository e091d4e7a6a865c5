"""The web application of a host: its probes, the channels' routes, middleware and lifespan."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute, compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from .channel import Channel, ChannelContribution, ExceptionHandler
from .errors import ConfigurationError
from .lifecycle import Lifecycle, Phase
from .middleware import IsolationMiddleware, PartitionMiddleware, PartitionResolver, RequestIdMiddleware

logger = logging.getLogger(__name__)

READINESS: Final = "/readiness"
LIVENESS: Final = "/liveness"


@dataclass(frozen=True, slots=True)
class ServedRoute:
    """One route of the app. `methods` is empty for a mounted app; `WEBSOCKET` stands for a WebSocket route."""

    owner: str
    path: str
    methods: frozenset[str]


class HostApp(Starlette):
    """A Starlette application that serves a host's channels.

    `served` and `commands` (with the name of their channel) say what there is. `announcement` goes into the record that
    is logged when the host has started; whoever binds an address adds it there as `bind`. With `resolve_partition` the
    isolation headers play no part, whether they are trusted or not.
    """

    def __init__(
        self,
        contributions: Sequence[tuple[Channel, ChannelContribution]],
        lifecycle: Lifecycle,
        *,
        announcement: Mapping[str, object],
        trust_isolation_headers: bool = False,
        resolve_partition: PartitionResolver | None = None,
        debug: bool = False,
    ) -> None:
        self.lifecycle = lifecycle
        self.announcement: dict[str, object] = {**announcement, "bind": None}
        self._has_warned = False
        table = _RouteTable()
        probes = [Route(READINESS, _Probe(self._readiness)), Route(LIVENESS, _Probe(_liveness))]
        for probe in probes:
            table.add("host", probe)
        for channel, contribution in contributions:
            for route in contribution.routes:
                table.add(channel.name, _under(channel, route, channel.path))
            for route in contribution.root_routes:
                table.add(channel.name, _under(channel, route, ""))
        self.served = tuple(table.served)
        self.commands = tuple((channel.name, command) for channel, part in contributions for command in part.commands)
        super().__init__(
            debug=debug,
            routes=table.routes,
            exception_handlers=_first_claims(contributions),
            lifespan=self.lifespan,
        )
        # "/responses/" is another resource than "/responses": a redirect would turn a POST into a second request.
        self.router.redirect_slashes = False
        # Inside the exception handlers, so that a refusal gets the body that the channels give to errors.
        if resolve_partition is not None:
            self.router.middleware_stack = PartitionMiddleware(
                self.router.middleware_stack, resolve_partition, exempt=probes
            )
        elif trust_isolation_headers:
            self.router.middleware_stack = IsolationMiddleware(self.router.middleware_stack)

    def build_middleware_stack(self) -> ASGIApp:
        """Return the stack with request ids outermost: the answer to an unexpected error has one too."""
        return RequestIdMiddleware(super().build_middleware_stack())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if self.lifecycle.phase is Phase.NEW and not self._has_warned and scope["type"] != "lifespan":
            self._has_warned = True
            logger.warning("A request arrived before the lifespan of the host was run: run host.lifespan in the parent")
        await super().__call__(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncGenerator[None, None]:
        """Start the host, and stop it when the block ends."""
        await self.lifecycle.start()
        logger.info("The host has started", extra=self.announcement)
        try:
            yield
        finally:
            await self.lifecycle.stop()

    def _readiness(self) -> Response:
        phase = self.lifecycle.phase
        return JSONResponse({"status": phase.value}, 200 if phase is Phase.READY else 503)


def _liveness() -> Response:
    return JSONResponse({"status": "alive"})


class _Probe:
    """Answers every method of its path, refusals included, so that no later route ever sees it."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_read = scope["method"] in {"GET", "HEAD"}
        response = self._answer() if is_read else Response(status_code=405, headers={"allow": "GET, HEAD"})
        await response(scope, receive, send)


class _ExactMount(Mount):
    """A mount that answers its own path too, where Starlette's would redirect to the path with a slash."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        if match is Match.NONE and scope["type"] in {"http", "websocket"} and not scope["path"].endswith("/"):
            path = scope["path"] + "/"
            match, child = super().matches({**scope, "path": path})
            child = {**child, "path": path}
        return match, child


def _under(channel: Channel, route: BaseRoute, prefix: str) -> Route | WebSocketRoute | Mount:
    """Return a copy of `route` below `prefix`."""
    if isinstance(route, Mount):
        return _ExactMount(prefix + route.path, app=route.app, name=route.name or None)
    if isinstance(route, (Route, WebSocketRoute)):
        path = prefix + ("" if prefix and route.path in {"", "/"} else route.path)
        moved = copy.copy(route)
        moved.path = path
        moved.path_regex, moved.path_format, moved.param_convertors = compile_path(path)
        return moved
    raise ConfigurationError(
        f"Channel {channel.name!r} contributes a {type(route).__name__}: use Route, WebSocketRoute or Mount."
    )


class _RouteTable:
    """Routes in order of precedence; refuses a route with a path and a method that an earlier one has."""

    def __init__(self) -> None:
        self.routes: list[BaseRoute] = []
        self.served: list[ServedRoute] = []
        self._shapes: list[tuple[str, ServedRoute]] = []

    def add(self, owner: str, route: Route | WebSocketRoute | Mount) -> None:
        served = ServedRoute(owner, route.path or "/", _methods(route))
        # "/items/{id}" and "/items/{item_id}" are the same place.
        shape = re.sub(r"\?P<\w+>", "", route.path_regex.pattern)
        for other_shape, other in self._shapes:
            if shape == other_shape and _hides(other, served):
                raise ConfigurationError(
                    f"{_said(owner)} answers {served.path}, which {_said(other.owner)} answers already: "
                    "give the channel another path."
                )
        self._shapes.append((shape, served))
        self.routes.append(route)
        # What a channel keeps out of the schema only says no.
        if getattr(route, "include_in_schema", True):
            self.served.append(served)


def _methods(route: Route | WebSocketRoute | Mount) -> frozenset[str]:
    if isinstance(route, WebSocketRoute):
        return frozenset({"WEBSOCKET"})
    return frozenset(route.methods or ()) if isinstance(route, Route) else frozenset()


def _hides(earlier: ServedRoute, later: ServedRoute) -> bool:
    # No methods means all of them; a later route for all of them is the fallback for what the earlier one leaves.
    return not earlier.methods or bool(earlier.methods & later.methods)


def _said(owner: str) -> str:
    return "the host" if owner == "host" else f"Channel {owner!r}"


def _first_claims(
    contributions: Sequence[tuple[Channel, ChannelContribution]],
) -> dict[int | type[Exception], ExceptionHandler]:
    handlers: dict[int | type[Exception], ExceptionHandler] = {}
    for _, contribution in contributions:
        for key, handler in contribution.exception_handlers.items():
            # Starlette treats 500 and Exception as one; as two claims the second would win.
            handlers.setdefault(500 if key is Exception else key, handler)
    return handlers
