"""An agent whose answer is known beforehand, and who keeps a journal of what it really does, for all processes together.

It is asked for a `Story`, as JSON. The framework's own function-calling loop runs its tools.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    Message,
    tool,
)


@dataclass(frozen=True, slots=True)
class Story:
    """What to tell: `pieces` texts in each of `tools` + 1 parts, with a call of the tool between two parts.

    `pause`: seconds before each piece. `name` is nobody else's; it is in every piece. Before piece `held_at`, counted
    from 0 through all parts, the agent waits for `Journal.release`.
    """

    name: str
    pieces: int = 3
    pause: float = 0.0
    tools: int = 0
    held_at: int | None = None

    @property
    def question(self) -> str:
        """The input that asks for it."""
        return json.dumps(asdict(self))

    @classmethod
    def asked(cls, question: str) -> Story:
        """Return the story that an input asks for."""
        return cls(**json.loads(question))

    def part(self, number: int, heard: Sequence[str] = ()) -> list[str]:
        """Return the pieces of one part. The first begins with the names of the stories that were told before."""
        opening = [f"({' '.join(heard)})"] if number == 0 else []
        return [*opening, *(f"<{self.name}/{number}.{piece}>" for piece in range(self.pieces))]

    def text(self, heard: Sequence[str] = ()) -> str:
        """Return all of it."""
        return "".join(piece for number in range(self.tools + 1) for piece in self.part(number, heard))


@dataclass(frozen=True, slots=True)
class Note:
    """What was done, in which process, and when (seconds of the clock that all processes of a machine have)."""

    did: str
    story: str
    process: int
    at: float


class Journal:
    """A file to which all processes append, each note in one piece."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, did: str, story: str) -> None:
        """Write that something was done for a story."""
        line = f"{did} {story} {os.getpid()} {time.monotonic()!r}\n"
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def release(self, story: str) -> None:
        """Let a story go on that is held."""
        self._gate(story).touch()

    async def wait(self, story: str) -> None:
        """Wait until a story may go on."""
        gate = self._gate(story)
        while not gate.exists():  # noqa: ASYNC110  another process makes it
            await asyncio.sleep(0.005)

    def _gate(self, story: str) -> Path:
        return self._path.with_name(f"{self._path.name} {story}")

    def notes(self) -> list[Note]:
        """Return everything that was written."""
        if not self._path.exists():
            return []
        lines = [line.split() for line in self._path.read_text(encoding="utf-8").splitlines()]
        return [Note(did, story, int(process), float(at)) for did, story, process, at in lines]


def storyteller(journal: Path) -> Agent[Any]:
    """Return the agent. Its journal has `began` and `cancelled` of stories, and `part-N` of each call of its tool."""
    written = Journal(journal)

    @tool(approval_mode="never_require")
    def turn_page(story: str, part: int) -> str:
        """Go on to the next part of the story."""
        written.note(f"part-{part}", story)
        return "turned"

    return Agent(client=_Model(written), name="storyteller", tools=[turn_page])


class _Model(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Any:
        del options, kwargs
        assert stream, "A host streams."
        return self._build_response_stream(self._tell(messages))

    async def _tell(self, messages: Sequence[Message]) -> AsyncGenerator[ChatResponseUpdate, None]:
        asked = max(number for number, message in enumerate(messages) if message.role == "user")
        story = Story.asked(messages[asked].text)
        number = sum(content.type == "function_result" for message in messages[asked:] for content in message.contents)
        if number == 0:
            self._journal.note("began", story.name)
        try:
            before = sum(len(story.part(earlier)) for earlier in range(number))
            for position, piece in enumerate(story.part(number, heard(messages[:asked])), before):
                if position == story.held_at:
                    await self._journal.wait(story.name)
                await asyncio.sleep(story.pause)
                yield _update(Content.from_text(piece))
        except asyncio.CancelledError:
            self._journal.note("cancelled", story.name)
            raise
        if number < story.tools:
            arguments = json.dumps({"story": story.name, "part": number})
            yield _update(Content.from_function_call(f"call_{story.name}_{number}", "turn_page", arguments=arguments))


def _update(content: Content) -> ChatResponseUpdate:
    return ChatResponseUpdate(contents=[content], role="assistant")


def heard(messages: Sequence[Message]) -> list[str]:
    """Return the names of the stories that were asked for; one that was not told as it should have been has a `!`."""
    names: list[str] = []
    told = ""
    story: Story | None = None
    for message in messages:
        if message.role == "user":
            if story is not None:
                names.append(_judged(story, told, names))
            story, told = Story.asked(message.text), ""
        elif message.role == "assistant":
            told += message.text
    return names if story is None else [*names, _judged(story, told, names)]


def _judged(story: Story, told: str, before: Sequence[str]) -> str:
    return story.name if told == story.text(before) else f"{story.name}!"
