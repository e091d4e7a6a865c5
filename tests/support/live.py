"""A host that is really served, and official clients that talk to it. Every JSON answer is held against the wire schema."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx2
import openai
import uvicorn
import wire
from starlette.types import ASGIApp

ResultT = TypeVar("ResultT")

STARTUP_SECONDS = 60.0


class _Server(uvicorn.Server):
    """A server inside the test's own event loop; signals belong to pytest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class LiveHost:
    """A served app: `base_url` for raw HTTP, `client` and `sync_client` of the official package."""

    def __init__(self, base_url: str, server: uvicorn.Server) -> None:
        self.base_url = base_url
        self.server = server
        # Plain HTTP: loading certificates (`verify`) would take most of a test's time.
        self.http = httpx2.AsyncClient(
            base_url=base_url,
            timeout=30,
            event_hooks={"response": [_check_async_answer]},
            trust_env=False,
            verify=False,
        )
        # The client retries by itself; a test must see the first answer.
        self.client = openai.AsyncOpenAI(
            base_url=f"{base_url}/v1",
            api_key="sk-test",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                event_hooks={"response": [_check_async_answer]}, trust_env=False, verify=False
            ),
        )
        self.sync_client = openai.OpenAI(
            base_url=f"{base_url}/v1",
            api_key="sk-test",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                event_hooks={"response": [_check_answer]}, trust_env=False, verify=False
            ),
        )

    async def close(self) -> None:
        """Close the clients."""
        await self.http.aclose()
        await self.client.close()
        self.sync_client.close()


async def in_thread(work: Callable[[], ResultT]) -> ResultT:
    """Return what the blocking `work` returns, run beside the event loop that serves it."""
    return await asyncio.wait_for(asyncio.to_thread(work), timeout=60)


@asynccontextmanager
async def serve(app: ASGIApp) -> AsyncGenerator[LiveHost, None]:
    """Serve `app` on a free port of the loopback interface, its lifespan included."""
    # Named TCP, so that asyncio switches off Nagle's algorithm: else every second small write waits 40 ms for the client.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=5))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(STARTUP_SECONDS):
            while not server.started:
                if task.done():
                    await task
                    raise RuntimeError("The server ended before it started.")
                await asyncio.sleep(0.005)
        live = LiveHost(f"http://127.0.0.1:{listener.getsockname()[1]}", server)
        try:
            yield live
        finally:
            await live.close()
    finally:
        server.should_exit = True
        await task
        listener.close()


async def _check_async_answer(response: httpx2.Response) -> None:
    if _is_json(response):
        await response.aread()
        wire.check_answer(response.status_code, response.json(), path=response.request.url.path)


def _check_answer(response: httpx2.Response) -> None:
    if _is_json(response):
        response.read()
        wire.check_answer(response.status_code, response.json(), path=response.request.url.path)


def _is_json(response: httpx2.Response) -> bool:
    return response.headers.get("content-type", "").startswith("application/json")
