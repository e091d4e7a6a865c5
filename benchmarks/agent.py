"""The agents that are measured: they say nothing of their own, so that what is left is the host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

from agent_framework import (
    Agent,
    AgentResponseUpdate,
    AgentSession,
    BaseChatClient,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    InMemoryHistoryProvider,
    Message,
    ResponseStream,
)

_WORDS = (" the", " answer", " of", " a", " model", " comes", " in", " tokens", ",", " each", " an", " update", ".")
UPDATES = tuple(
    AgentResponseUpdate(contents=[Content.from_text(word)], role="assistant", message_id="message") for word in _WORDS
)


class CountingAgent:
    """Answers the text `"500"`, or `"500 words"`, with 500 prebuilt updates, each of them in a turn of the event loop of its own.

    Neither it nor its sessions remember anything: the hundredth run of a chain costs what the first did.
    """

    def __init__(self) -> None:
        self.id = "counting"
        self.name: str | None = "counting"
        self.description: str | None = None

    def create_session(self, *, session_id: str | None = None) -> AgentSession:
        return AgentSession(session_id=session_id)

    def get_session(
        self, service_session_id: str | Mapping[str, Any], *, session_id: str | None = None
    ) -> AgentSession:
        return AgentSession(session_id=session_id, service_session_id=service_session_id)

    def run(self, messages: Any = None, **kwargs: Any) -> Any:
        del kwargs
        return _updates(int(messages[-1].text.partition(" ")[0]))


async def _updates(count: int) -> AsyncGenerator[AgentResponseUpdate, None]:
    for update in islice(cycle(UPDATES), count):
        yield update
        # Without this the host could write many updates at once, which no real model lets it do.
        await asyncio.sleep(0)


class OneAnswerClient(FunctionInvocationLayer[Any], BaseChatClient[Any]):
    """A model that gives the same answer whatever it is sent."""

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        del messages, options, kwargs
        return self._build_response_stream(_answer()) if stream else _whole_answer()


async def _answer() -> AsyncGenerator[ChatResponseUpdate, None]:
    yield ChatResponseUpdate(contents=[Content.from_text("".join(_WORDS) * 4)], role="assistant")


async def _whole_answer() -> ChatResponse[Any]:
    return ChatResponse.from_updates([update async for update in _answer()])


def remembering_agent() -> Agent[Any]:
    """Return the framework's own agent, which keeps the history in its session and sends all of it to the model.

    It takes a message that is the same as one it has for that one: every turn must say something new.
    """
    return Agent(client=OneAnswerClient(), name="remembering", context_providers=[InMemoryHistoryProvider("history")])
