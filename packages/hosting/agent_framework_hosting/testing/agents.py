"""Scripted agents: they say what a test wrote down, stop where it wants them to, and remember what they were sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from agent_framework import (
    AgentResponseUpdate,
    AgentSession,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    Message,
    ResponseStream,
)


class Gate:
    """A step that stops the script: `reached` is set when the script gets here, `open` lets it go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Let this and every later run pass."""
        self._opened.set()

    async def wait(self) -> None:
        """Say that the gate was reached, and wait until it is open."""
        self.reached.set()
        await self._opened.wait()


ChatStep: TypeAlias = "str | Content | ChatResponseUpdate | Gate | Exception"
"""One step of a model call: a text or content becomes an update of its own, an exception is raised here."""

AgentStep: TypeAlias = "str | Content | AgentResponseUpdate | Gate | Exception"
"""One step of an agent run, as for a model call."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """What the model was sent: private copies of the lists, the messages themselves."""

    messages: list[Message]
    options: dict[str, Any]
    stream: bool


class ScriptedChatClient(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """A chat client of the framework, function calling loop included, whose n-th model call plays the n-th turn.

    `calls` holds what each call was sent. A call beyond the last turn raises `IndexError`.
    """

    def __init__(self, *turns: Sequence[ChatStep]) -> None:
        super().__init__()
        self.calls: list[ModelCall] = []
        self._turns = turns

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        del kwargs
        if len(self.calls) == len(self._turns):
            raise IndexError(f"The script has {len(self._turns)} model calls, and this is one more.")
        turn = self._turns[len(self.calls)]
        self.calls.append(ModelCall(list(messages), dict(options), stream))
        return self._build_response_stream(_chat_updates(turn)) if stream else _chat_response(turn)


async def _chat_updates(turn: Sequence[ChatStep]) -> AsyncGenerator[ChatResponseUpdate, None]:
    for step in turn:
        if isinstance(step, Gate):
            await step.wait()
        elif isinstance(step, Exception):
            raise step
        elif isinstance(step, ChatResponseUpdate):
            yield step
        else:
            yield ChatResponseUpdate(contents=[_content(step)], role="assistant")


async def _chat_response(turn: Sequence[ChatStep]) -> ChatResponse[Any]:
    return ChatResponse.from_updates([update async for update in _chat_updates(turn)])


@dataclass(slots=True)
class AgentRun:
    """One run of a scripted agent: what it was sent, and how it ended. `ended` is set on every path."""

    messages: object
    session: AgentSession | None
    options: dict[str, Any]
    is_finished: bool = False
    is_cancelled: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class ScriptedAgent:
    """The smallest agent: its n-th run plays the n-th turn, and runs beyond the last turn play the last one again.

    Always streams. `runs` holds what each run was sent and how it ended; a run that was closed or cancelled says so.
    """

    def __init__(self, *turns: Sequence[AgentStep], name: str = "scripted") -> None:
        self.id = name
        self.name: str | None = name
        self.description: str | None = None
        self.runs: list[AgentRun] = []
        self._turns = turns

    def create_session(self, *, session_id: str | None = None) -> AgentSession:
        """Return a new session."""
        return AgentSession(session_id=session_id)

    def get_session(
        self, service_session_id: str | Mapping[str, Any], *, session_id: str | None = None
    ) -> AgentSession:
        """Return a session for an id of the service."""
        return AgentSession(session_id=session_id, service_session_id=cast("Any", service_session_id))

    def run(
        self,
        messages: object = None,
        *,
        stream: bool = False,
        session: AgentSession | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Play the next turn and return its updates; `stream` is ignored."""
        del stream, kwargs
        turn = self._turns[min(len(self.runs), len(self._turns) - 1)] if self._turns else ()
        record = AgentRun(messages, session, dict(options or {}))
        self.runs.append(record)
        return _agent_updates(turn, record)


async def _agent_updates(turn: Sequence[AgentStep], record: AgentRun) -> AsyncGenerator[AgentResponseUpdate, None]:
    try:
        for step in turn:
            if isinstance(step, Gate):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            elif isinstance(step, AgentResponseUpdate):
                yield step
            else:
                yield AgentResponseUpdate(contents=[_content(step)], role="assistant")
        record.is_finished = True
    except (asyncio.CancelledError, GeneratorExit):
        record.is_cancelled = True
        raise
    finally:
        record.ended.set()


def _content(step: str | Content) -> Content:
    return Content.from_text(step) if isinstance(step, str) else step
