"""A deterministic stand-in for a language model, so that the sample starts without a key and without a network.

It is no language model: two rules. Everything around it is real: it is a chat client of Agent Framework, so the tool, its
approval and the session work on it as on any other chat client.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, Sequence
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

ORDER = re.compile(r"(\d+) euros? to (\w+)", re.IGNORECASE)


class OfflineChatClient(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """Call `pay` for every "20 euros to Ada" of what was said last; when the results are there, say them."""

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        del options, kwargs
        updates = _updates(messages)
        return self._build_response_stream(updates) if stream else _collected(updates)


async def _updates(messages: Sequence[Message]) -> AsyncGenerator[ChatResponseUpdate, None]:
    for content in _answer(messages):
        yield ChatResponseUpdate(role="assistant", contents=[content])


async def _collected(updates: AsyncGenerator[ChatResponseUpdate, None]) -> ChatResponse[Any]:
    return ChatResponse.from_updates([update async for update in updates])


def _answer(messages: Sequence[Message]) -> Iterator[Content]:
    said = max((i for i, message in enumerate(messages) if message.role == "user" and message.text), default=0)
    orders = ORDER.findall(messages[said].text) if messages else []
    results = [str(c.result) for message in messages[said:] for c in message.contents if c.type == "function_result"]
    if results:
        yield from _words(f"{', '.join(map(_told, results))}.")
    elif orders:
        for number, (euros, name) in enumerate(orders):
            arguments = {"name": name, "euros": int(euros)}
            yield Content.from_function_call(f"call_{len(messages)}_{number}", "pay", arguments=arguments)
    else:
        yield from _words("Tell me whom to pay, like this: Pay 20 euros to Ada.")


def _told(result: str) -> str:
    if "rejected" in result:
        return "Not paid, as nobody approved it"
    return f"Not paid: {result.removesuffix('.')}" if result.startswith("Error") else f"Paid: {result}"


def _words(text: str) -> Iterator[Content]:
    for piece in re.findall(r"\S+\s*", text):
        yield Content.from_text(piece)
