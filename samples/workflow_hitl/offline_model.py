"""A deterministic stand-in for a language model, so that the sample starts without a key and without a network.

It is no language model: one rule. Everything around it is real: it is a chat client of Agent Framework, so the workflow, its
session and its checkpoints work on it as on any other chat client.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
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


class OfflineChatClient(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """Answer the complaint, which came first, and put every later wish into the letter."""

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        del options, kwargs
        updates = _updates([message.text for message in messages if message.role == "user"])
        return self._build_response_stream(updates) if stream else _collected(updates)


async def _updates(told: Sequence[str]) -> AsyncGenerator[ChatResponseUpdate, None]:
    complaint, *wishes = told or [""]
    letter = " ".join([f'You wrote: "{complaint}" We are sorry.', *wishes, "Yours, the shop"])
    for piece in re.findall(r"\S+\s*", letter):
        yield ChatResponseUpdate(role="assistant", contents=[Content.from_text(piece)])


async def _collected(updates: AsyncGenerator[ChatResponseUpdate, None]) -> ChatResponse[Any]:
    return ChatResponse.from_updates([update async for update in updates])
