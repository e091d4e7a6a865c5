"""The API over HTTP: reading bodies, writing JSON, errors and event streams. Nothing here knows what a response is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeAlias, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_framework_hosting.errors import RunError, StoreUnavailable
from agent_framework_hosting.runs.base import LogEntry

from .protocol import errors
from .protocol.errors import RequestError, error_body
from .protocol.json import JsonObject, encode_json
from .protocol.sse import DONE, KEEP_ALIVE, frames

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Answers one request; whatever it raises is answered for it."""

# The official client retries 5xx and 408/409/429 by itself; a run that began must not run twice (contract §9.4).
NO_RETRY: Final = {"x-should-retry": "false"}

# Seconds; far below the one second within which a run has to hear that its client has left.
_PATIENCE: Final = 0.05

_LONGEST_KEY: Final = 255

# A reader far behind has much to catch up; the loop serves others between the writes, and waits while it does not read.
_MOST_FRAMES: Final = 256

_STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class JSONBytesResponse(Response):
    """An answer whose JSON has been encoded already."""

    media_type = "application/json"


def json_response(body: bytes | JsonObject, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    content = body if isinstance(body, bytes) else encode_json(body)
    return JSONBytesResponse(content, status_code=status, headers=headers)


def error_response(error: Exception, request: Request) -> Response:
    """Return the API's error envelope for anything that was raised. The one function that writes an error body.

    Source: contract §4.8.
    """
    headers: dict[str, str] = {}
    if isinstance(error, RequestError):
        known = error
    elif isinstance(error, HTTPException):
        known = _of_http_exception(error, request)
        headers.update(error.headers or {})
    elif isinstance(error, (RunError, StoreUnavailable)):
        if isinstance(error, StoreUnavailable):
            logger.error("A request needed a store that is away", exc_info=error, extra={"path": request.url.path})
        known = errors.overloaded()
        headers["retry-after"] = "1"
    else:
        logger.error("A request failed", exc_info=error, extra={"path": request.url.path})
        known = errors.server_error()
    if known.status == 413:
        headers |= NO_RETRY
    return json_response(error_body(known), status=known.status, headers=headers)


async def handle_error(request: Request, error: Exception) -> Response:
    """Answer an exception that reached the web framework."""
    return error_response(error, request)


def _of_http_exception(error: HTTPException, request: Request) -> RequestError:
    path = request.url.path
    if error.status_code == 404:
        return errors.invalid_url(request.method, path)
    if error.status_code == 405:
        return errors.method_not_allowed(request.method, path)
    if error.status_code == 413:
        return errors.body_too_large()
    if error.status_code >= 500:
        return errors.server_error()
    return RequestError(error.detail, status=error.status_code)


async def read_body(request: Request, *, limit: int) -> bytes:
    """Return the request's body, of at most `limit` bytes.

    Raises:
        RequestError: 413, before more than `limit` bytes are in memory; 400 for a content type that is not JSON, or when the
            client leaves before the end.
    """
    content_type = request.headers.get("content-type")
    if content_type is not None and content_type.partition(";")[0].strip().lower() != "application/json":
        raise errors.unsupported_content_type(content_type)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise errors.body_too_large()
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise errors.body_too_large()
            chunks.append(chunk)
    except ClientDisconnect:
        # Nobody reads this; as an error of the server it would fill the log of any host that can be reached.
        raise RequestError("The request ended in the middle of its body.", status=400) from None
    return b"".join(chunks)


def read_idempotency_key(request: Request) -> str | None:
    """Return what the caller named its request, `None` if it did not.

    Raises:
        RequestError: the name is empty, too long or not printable.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise errors.invalid_idempotency_key(_LONGEST_KEY)
    return key


async def until_disconnect(receive: Receive, work: Awaitable[ResultT]) -> ResultT | None:
    """Return what `work` returns, or cancel it and return `None` when the client leaves first.

    The client is watched from `_PATIENCE` seconds on: most answers are done by then and need no second task.
    """
    current = asyncio.current_task()
    assert current is not None  # noqa: S101  coroutines of an ASGI server run in tasks
    watch: asyncio.Task[None] | None = None
    has_left = is_over = False

    def leave(task: asyncio.Task[None]) -> None:
        nonlocal has_left
        # Called a turn of the loop after the client has left: by then the work may be over, and nothing is to be cancelled.
        if not task.cancelled() and not is_over:
            has_left = True
            current.cancel()

    def start_watching() -> None:
        nonlocal watch
        watch = asyncio.create_task(_disconnected(receive))
        watch.add_done_callback(leave)

    timer = asyncio.get_running_loop().call_later(_PATIENCE, start_watching)
    try:
        return await work
    except asyncio.CancelledError:
        # Cancelled by `leave`, and by nobody else: the server may be stopping the request too.
        if has_left and current.uncancel() == 0:
            return None
        raise
    finally:
        is_over = True
        timer.cancel()
        if watch is not None:
            watch.cancel()
            await asyncio.wait({watch})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Answered:
    """An endpoint as an ASGI application, with an answer to whatever it raises.

    What reaches the server itself closes the connection. Not a function, so that Starlette adds none of its own layers,
    each of which every event would have to pass.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive, send)
        try:
            response = await self._endpoint(request)
        except (RequestError, HTTPException, RunError) as error:
            response = error_response(error, request)
        except Exception as error:
            if request.app.debug:
                raise
            response = error_response(error, request)
        await response(scope, receive, send)


class EventStream(Response):
    """An SSE answer: one frame an event, each batch sent at once, comments while nothing happens.

    `leave` is awaited when the stream has ended or the client has gone. Empty batches become keep-alive comments.

    Source: contract §3.1.
    """

    def __init__(
        self,
        batches: AsyncGenerator[Sequence[LogEntry], None],
        *,
        leave: Callable[[], Awaitable[None]] | None = None,
        has_done_marker: bool = False,
    ) -> None:
        super().__init__()
        self.raw_headers = list(_STREAM_HEADERS)
        self._batches = batches
        self._leave = leave
        self._has_done_marker = has_done_marker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        del scope
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await until_disconnect(receive, self._pump(send))
        finally:
            if self._leave is not None:
                await self._leave()

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._batches) as batches:
            async for batch in batches:
                if not batch:
                    await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})
                for start in range(0, len(batch), _MOST_FRAMES):
                    body = frames(batch[start : start + _MOST_FRAMES])
                    await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": DONE if self._has_done_marker else b""})
