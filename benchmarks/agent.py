"""The agent that is measured: it says nothing of its own, so that what is left is the host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from itertools import cycle, islice
from typing import Any

from agent_framework import AgentResponseUpdate, AgentSession, Content

_WORDS = (" the", " answer", " of", " a", " model", " comes", " in", " tokens", ",", " each", " an", " update", ".")
_UPDATES = tuple(
    AgentResponseUpdate(contents=[Content.from_text(word)], role="assistant", message_id="message") for word in _WORDS
)


class CountingAgent:
    """Answers the text `"500"` with 500 prebuilt updates, each of them in a turn of the event loop of its own."""

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
        return _updates(int(messages[-1].text))


async def _updates(count: int) -> AsyncGenerator[AgentResponseUpdate, None]:
    for update in islice(cycle(_UPDATES), count):
        yield update
        # Without this the host could write many updates at once, which no real model lets it do.
        await asyncio.sleep(0)
