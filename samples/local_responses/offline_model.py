"""A deterministic stand-in for a language model, so that the sample starts without a key and without a network.

It is no language model: a few rules pick one of a few answers. Everything around it is real: it is a chat client of Agent
Framework, so the agent, its function calling loop and its session work on it as they do on any other chat client.
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

CITIES = ("Amsterdam", "Lisbon", "Nairobi", "Oslo", "Seattle", "Tokyo")


class OfflineChatClient(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """Answer questions about the weather by rule.

    - The last user message names a city: call `get_weather`, then say what the tool returned.
    - It names none: answer about the city that the conversation named last.
    """

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        del kwargs
        updates = _updates(messages, thinks=bool(options.get("reasoning")))
        return self._build_response_stream(updates) if stream else _collected(updates)


async def _updates(messages: Sequence[Message], *, thinks: bool) -> AsyncGenerator[ChatResponseUpdate, None]:
    spoken = 0
    for content in _answer(messages, thinks=thinks):
        spoken += 1
        yield ChatResponseUpdate(role="assistant", contents=[content])
    # Counted in words and pieces, not in tokens: there is no tokenizer.
    read = sum(len(message.text.split()) for message in messages)
    usage = Content.from_usage(
        {"input_token_count": read, "output_token_count": spoken, "total_token_count": read + spoken}
    )
    yield ChatResponseUpdate(role="assistant", contents=[usage], finish_reason="stop")


async def _collected(updates: AsyncGenerator[ChatResponseUpdate, None]) -> ChatResponse[Any]:
    return ChatResponse.from_updates([update async for update in updates])


def _answer(messages: Sequence[Message], *, thinks: bool) -> Iterator[Content]:
    asked = max((i for i, message in enumerate(messages) if message.role == "user"), default=0)
    question = messages[asked].text if messages else ""
    city = _city_in(question)
    result = _last_result(messages[asked:])
    if result is not None:
        yield from _words(f"The weather in {city}: {result}.")
    elif city is not None:
        if thinks:
            yield Content.from_text_reasoning(text=f"The question names {city}, so I ask the weather tool.")
        yield Content.from_function_call(f"call_{len(messages)}_{city}", "get_weather", arguments={"city": city})
    else:
        yield from _words(_about_earlier(messages[:asked]))


def _about_earlier(earlier: Sequence[Message]) -> str:
    city = next((found for message in reversed(earlier) if (found := _city_in(message.text))), None)
    result = _last_result(earlier)
    if city is None or result is None:
        return f"Name a city and I ask for its weather. I know {', '.join(CITIES)}."
    umbrella = "take an umbrella" if "rain" in result else "leave the umbrella at home"
    return f"You asked about {city} before, and the tool said {result}: {umbrella}."


def _city_in(text: str) -> str | None:
    return next((city for city in CITIES if re.search(rf"\b{city}\b", text, re.IGNORECASE)), None)


def _last_result(messages: Sequence[Message]) -> str | None:
    results = (c for m in reversed(messages) for c in m.contents if c.type == "function_result")
    found = next(results, None)
    return None if found is None else str(found.result)


def _words(text: str) -> Iterator[Content]:
    for piece in re.findall(r"\S+\s*", text):
        yield Content.from_text(piece)
