"""A model that remembers, word for word, what it was sent, and a client that talks to a host without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from agent_framework import ChatResponse, ChatResponseUpdate, Content, Message, ResponseStream
from starlette.types import ASGIApp

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import Gate, ScriptedChatClient


class Witness(ScriptedChatClient):
    """A model that answers `question` with `answer to question`, in two pieces.

    `seen[question]` are the texts of all messages that it was sent with it, oldest first; `asked` are the questions in the
    order they came. A question in `gates` waits there before its answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.gates: dict[str, Gate] = {}

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        del options, kwargs
        texts = [message.text for message in messages]
        self.seen[texts[-1]] = texts
        self.asked.append(texts[-1])
        return self._build_response_stream(self._pieces(texts[-1])) if stream else self._whole(texts[-1])

    async def _pieces(self, question: str) -> AsyncGenerator[ChatResponseUpdate, None]:
        if question in self.gates:
            await self.gates[question].wait()
        for piece in ("answer to ", question):
            yield ChatResponseUpdate(contents=[Content.from_text(piece)], role="assistant")

    async def _whole(self, question: str) -> ChatResponse[Any]:
        return ChatResponse.from_updates([update async for update in self._pieces(question)])


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: `headers` without what differs between any two answers."""

    status: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.content)


class LocalClient:
    """Sends requests to an ASGI application in this process."""

    def __init__(self, app: ASGIApp) -> None:
        # A JSON answer of the API needs no socket, and a stream is read to its end.
        self._http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app), base_url="http://local", timeout=30, trust_env=False, verify=False
        )

    async def __call__(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request, its `body` as JSON, and return the whole answer."""
        # Without a socket a request may be answered without ever waiting: whoever repeats one would stop everybody else.
        await asyncio.sleep(0)
        answer = await self._http.request(method, path, json=body, headers=headers)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in {"x-request-id", "date"}}
        return Answer(answer.status_code, kept, answer.content)

    async def close(self) -> None:
        """Close the client."""
        await self._http.aclose()


@asynccontextmanager
async def local(host: AgentFrameworkHost) -> AsyncGenerator[LocalClient, None]:
    """Run the host, its lifespan included, and lend a client of it."""
    async with host.lifespan():
        client = LocalClient(host.app)
        try:
            yield client
        finally:
            await client.close()
