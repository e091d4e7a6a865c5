"""What every request passes through: request ids, and whose request it is.

Pure ASGI, so that a streamed answer costs nothing here after its first message. A limit of the body is the channel's:
it knows its protocol's error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .hooks import resolve
from .isolation import (
    ISOLATION_HEADER_CHAT,
    ISOLATION_HEADER_USER,
    IsolationKeys,
    reset_current_isolation_keys,
    set_current_isolation_keys,
)

logger = logging.getLogger(__name__)

PartitionResolver: TypeAlias = Callable[[Request], Awaitable[str | IsolationKeys] | str | IsolationKeys]
"""Says whose request it is: a user key, or isolation keys; sync or async. `HTTPException` refuses the request."""

MAX_ISOLATION_KEY = 512
"""Bytes that an isolation header may have."""

_REQUEST_ID_HEADER = b"x-request-id"
_USER = ISOLATION_HEADER_USER.encode()
_CHAT = ISOLATION_HEADER_CHAT.encode()


class RequestIdMiddleware:
    """Give every HTTP answer, errors included, an `x-request-id: req_<hex>`; log records find it in the scope's state.

    An id that the caller sends is not taken over: callers could make two requests look like one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = "req_" + os.urandom(16).hex()
        scope.setdefault("state", {})["request_id"] = request_id

        # A plain function that hands on the server's own awaitable: a streamed chunk costs one call, no coroutine.
        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                header = (_REQUEST_ID_HEADER, request_id.encode())
                # A new list: the old one belongs to a response object that may be sent again.
                message = {**message, "headers": [*message.get("headers", ()), header]}
            return send(message)

        await self.app(scope, receive, send_with_id)


class IsolationMiddleware:
    """Serve each request under the isolation keys of its headers. Install it only when their sender is trusted.

    Without it the keys stay what an embedding application has set, `None` if nothing has.

    Raises:
        HTTPException: 400, a header comes twice, is longer than `MAX_ISOLATION_KEY` or is not UTF-8.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        token = set_current_isolation_keys(_read_keys(scope))
        try:
            await self.app(scope, receive, send)
        finally:
            reset_current_isolation_keys(token)


class PartitionMiddleware:
    """Serve each request under the isolation keys that the operator's own function gives it; headers play no part.

    The function sees the request without its body, which belongs to the channel; a WebSocket's handshake looks to it like
    a GET. What the function raises ends the request. Requests that one of the `exempt` routes answers are served without
    asking it.

    Raises:
        HTTPException: 500, the function has returned neither a text nor keys that name somebody.
    """

    def __init__(self, app: ASGIApp, resolve_partition: PartitionResolver, *, exempt: Sequence[BaseRoute] = ()) -> None:
        self.app = app
        self._resolve_partition = resolve_partition
        self._exempt = tuple(exempt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        # The routes themselves are asked: a path that only looks like a probe's must not get in without a partition.
        if scope["type"] not in {"http", "websocket"} or any(
            route.matches(scope)[0] is Match.FULL for route in self._exempt
        ):
            await self.app(scope, receive, send)
            return
        request = Request(scope if scope["type"] == "http" else {**scope, "type": "http", "method": "GET"})
        token = set_current_isolation_keys(_resolved_keys(await resolve(self._resolve_partition(request))))
        try:
            await self.app(scope, receive, send)
        finally:
            reset_current_isolation_keys(token)


def _resolved_keys(found: object) -> IsolationKeys:
    keys = IsolationKeys(user_key=found) if isinstance(found, str) else found
    if isinstance(keys, IsolationKeys):
        parts = [key for key in (keys.user_key, keys.chat_key) if key is not None]
        if parts and all(isinstance(key, str) and key for key in parts):
            return keys
    # Whatever it was meant to say: to go on would be to put this caller's data where everybody's is.
    logger.error(
        "resolve_partition must return a text that is not empty, or IsolationKeys with such texts",
        extra={"returned": type(found).__name__},
    )
    raise HTTPException(500)


def _read_keys(scope: Scope) -> IsolationKeys:
    values: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name not in {_USER, _CHAT}:
            continue
        # Two values mean that somebody in front of the trusted sender added one; guessing which would be a way in.
        if name in values:
            raise HTTPException(400, f"The header {name.decode()} must not be repeated.")
        values[name] = _decode(name, value)
    # An empty header is how a gateway says that it has no key.
    return IsolationKeys(user_key=values.get(_USER) or None, chat_key=values.get(_CHAT) or None)


def _decode(name: bytes, value: bytes) -> str:
    if len(value) > MAX_ISOLATION_KEY:
        raise HTTPException(400, f"The header {name.decode()} is longer than {MAX_ISOLATION_KEY} bytes.")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"The header {name.decode()} is not valid UTF-8.") from error
