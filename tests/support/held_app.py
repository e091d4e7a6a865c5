"""What `afhost` serves in tests of whole processes: `afhost serve held_app:host` with its settings in `HELD`.

The agent says as many pieces as it is asked for, `NAME` or `NAME*PIECES` (two by default): the first at once, piece
number `n` not before there is a file `NAME.n`. It writes its process id into `NAME.begun` first. One whose name begins
with `stubborn` ignores that it is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

from agent_framework import AgentResponseUpdate, Content, Message

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

VARIABLE: Final = "HELD"
"""Environment variable with a JSON object: `directory` of the files, `host` options, channel `settings`."""

PAUSE: Final = 0.02

_options = json.loads(os.environ[VARIABLE])


def pieces_of(question: str) -> tuple[str, list[str]]:
    """Return the name and the pieces of the answer to a question."""
    name, _, count = question.partition("*")
    return name, [f"{name} {number}. " for number in range(int(count or 2))]


class HeldAgent(ScriptedAgent):
    """See above."""

    def run(self, messages: Any = None, **_: Any) -> Any:
        """Return the updates."""
        last = messages[-1] if isinstance(messages, list) else messages
        return _updates(last.text if isinstance(last, Message) else str(last))


async def _updates(question: str) -> AsyncGenerator[AgentResponseUpdate, None]:
    directory = Path(_options["directory"])
    name, pieces = pieces_of(question)
    with (directory / f"{name}.begun").open("a") as begun:
        begun.write(f"{os.getpid()}\n")
    for number, piece in enumerate(pieces):
        while number and not (directory / f"{name}.{number}").exists():
            try:
                await asyncio.sleep(PAUSE)
            except asyncio.CancelledError:
                if not name.startswith("stubborn"):
                    raise
        yield AgentResponseUpdate(contents=[Content.from_text(piece)], role="assistant")


host = AgentFrameworkHost(
    HeldAgent(name="held"),
    channels=[ResponsesChannel(settings=ResponsesSettings(**_options["settings"]))],
    **_options["host"],
)
