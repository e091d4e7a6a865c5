"""A deterministic stand-in for a language model, so that the sample starts without a key and without a network.

It is no language model: each agent gets a function that makes its answer of the conversation. Everything around it is
real: it is a chat client of Agent Framework, so agents, sessions and checkpoints work on it as on any other chat client.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from agent_framework import (
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    Message,
    ResponseStream,
)

PROMISES = ("guaranteed", "risk-free", "the best")


class OfflineChatClient(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """Answer with what `answer` makes of the messages, streamed word by word."""

    def __init__(self, answer: Callable[[Sequence[Message]], str]) -> None:
        super().__init__()
        self._answer = answer

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        del options, kwargs
        updates = _words(self._answer(messages))
        return self._build_response_stream(updates) if stream else _collected(updates)


async def _words(text: str) -> AsyncGenerator[ChatResponseUpdate, None]:
    for piece in re.findall(r"\S+\s*", text):
        yield ChatResponseUpdate(role="assistant", contents=[Content.from_text(piece)])


async def _collected(updates: AsyncGenerator[ChatResponseUpdate, None]) -> ChatResponse[Any]:
    return ChatResponse.from_updates([update async for update in updates])


def write(messages: Sequence[Message]) -> str:
    """Draft a slogan for the first brief of the conversation, and revise the last draft for every later one."""
    briefs = [message.text for message in messages if message.role == "user"]
    drafts = [message.text for message in messages if message.role == "assistant"]
    if not drafts:
        product = briefs[-1].splitlines()[0].removeprefix("Product: ").rstrip(".")
        return f"Meet {product}: simply the best there is. Your money back within 30 days, guaranteed."
    if "short" in briefs[-1].lower():
        return re.split(r"(?<=\.)\s", drafts[-1])[0]
    return f"{drafts[-1]} ({briefs[-1].splitlines()[0]})"


def review(messages: Sequence[Message]) -> str:
    """Strike promises out of the draft."""
    draft = messages[-1].text
    struck = [promise for promise in PROMISES if promise in draft]
    for promise in struck:
        draft = draft.replace(f", {promise}", "").replace(promise, "as good as")
    note = f"Struck: {', '.join(struck)}." if struck else "Nothing to object to."
    return f"{draft}\n{note}"


def lay_out(messages: Sequence[Message]) -> str:
    """Set the reviewed text as Markdown, the reviewer's note below it."""
    text, _, note = messages[-1].text.rpartition("\n")
    return f"**{text}**\n\n_Legal: {note}_"
