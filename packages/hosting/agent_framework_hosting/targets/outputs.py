"""What a workflow puts out, as updates: each output its own message, nothing twice, nothing interleaved."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import uuid
from collections.abc import Sequence
from copy import copy
from typing import Any, Literal, TypeAlias, cast

from agent_framework import (
    AgentExecutorResponse,
    AgentResponse,
    AgentResponseUpdate,
    Content,
    Message,
    WorkflowEvent,
)

from .questions import WorkflowQuestion
from .texts import as_text

logger = logging.getLogger(__name__)

IntermediateOutputs = Literal["hide", "commentary"]

_PartKind = Literal["delta", "message", "plain"]
_Part: TypeAlias = tuple[_PartKind, AgentResponseUpdate]

_WITH_PARTS = (str, Content, Message, AgentResponse, AgentResponseUpdate, AgentExecutorResponse)


class WorkflowOutputs:
    """Turns the events of one workflow run into updates.

    - Outputs of the executors that the workflow designates as its outputs are the answer, in the order they come.
    - Intermediate outputs are hidden, or marked `additional_properties["phase"] = "commentary"`.
    - A message that repeats what was put out before (the whole response after an agent's stream) is left out.
    - While one executor is putting out, what others put out at the same time waits until it is done.
    - A request for input is a message of its own (see `WorkflowQuestion`).
    - Messages of the roles `user` and `system` are input that came along, not output.
    - The `raw_representation` of an update is the event of the workflow, with its executor, for hooks.
    """

    def __init__(self, *, intermediate: IntermediateOutputs) -> None:
        self._intermediate = intermediate
        self._told = _ToldMessages()
        self._turns = _Turns()
        # The message that an executor is putting out piece by piece, for the pieces that do not name theirs.
        self._current: dict[str | None, AgentResponseUpdate] = {}

    @property
    def told(self) -> list[object]:
        """What was put out, as far as it must be recognised when it comes again: a JSON value, complete between supersteps."""
        return self._told.remembered()

    def recall(self, told: Sequence[Any]) -> None:
        """Take for put out what an earlier attempt at the run has put out; `told` is what it had in `told`."""
        self._told.recall(told)

    def feed(self, event: WorkflowEvent[Any]) -> list[AgentResponseUpdate]:
        """Return the updates to hand out now."""
        match event.type:
            case "output":
                return self._turns.admit(event.executor_id, self._answer(event))
            case "intermediate" | "data" if self._intermediate == "commentary":
                return self._turns.admit(event.executor_id, self._commentary(event))
            case "executor_completed" | "executor_failed":
                self._current.pop(event.executor_id, None)
                self._told.close(event.executor_id)
                return self._turns.release(event.executor_id)
            case "superstep_completed":
                return self._turns.release_all()
            case "request_info":
                return self._turns.admit(event.source_executor_id, [_question(event)])
            case "error":
                # The executor reported it and went on; what ends a run is raised by the run itself.
                logger.warning("An executor reported an error.", exc_info=cast("BaseException | None", event.data))
        return []

    def end(self) -> list[AgentResponseUpdate]:
        """Return what still waits when the last event has been fed."""
        return self._turns.release_all()

    def _answer(self, event: WorkflowEvent[Any]) -> list[AgentResponseUpdate]:
        answer: list[AgentResponseUpdate] = []
        for kind, update in _parts(event.data):
            if kind == "delta":
                self._told.add(event.executor_id, update)
            elif kind == "message" and self._told.repeats(event.executor_id, update):
                continue
            answer.append(self._signed(event, kind, update))
        return answer

    def _commentary(self, event: WorkflowEvent[Any]) -> list[AgentResponseUpdate]:
        updates = [self._signed(event, kind, update) for kind, update in _parts(event.data)]
        for update in updates:
            update.additional_properties = {**(update.additional_properties or {}), "phase": "commentary"}
        return updates

    def _signed(self, event: WorkflowEvent[Any], kind: _PartKind, update: AgentResponseUpdate) -> AgentResponseUpdate:
        """Return a copy that says who speaks, which message it belongs to, and what the workflow has put out."""
        executor = event.executor_id
        # A copy: the executor keeps the update and builds its own response from it.
        signed = copy(update)
        signed.raw_representation = event
        signed.author_name = update.author_name or executor
        if kind != "delta":
            signed.message_id = update.message_id or uuid.uuid4().hex
            self._current.pop(executor, None)
            return signed
        current = self._current.get(executor)
        if signed.message_id is None:
            continued = current if current is not None and signed.role in {None, current.role} else None
            signed.message_id = uuid.uuid4().hex if continued is None else continued.message_id
        if current is None or current.message_id != signed.message_id:
            self._current[executor] = signed
        return signed


class _ToldMessages:
    """What was put out, to recognise it when it comes again as a whole."""

    def __init__(self) -> None:
        self._open: dict[str | None, list[AgentResponseUpdate]] = {}
        self._closed: list[list[AgentResponseUpdate]] = []
        self._messages: list[_Told] = []

    def add(self, executor: str | None, update: AgentResponseUpdate) -> None:
        # Only kept, not joined: most runs never put out a whole message after a stream.
        self._open.setdefault(executor, []).append(update)

    def close(self, executor: str | None) -> None:
        """Take the stream of the executor as complete."""
        if updates := self._open.pop(executor, None):
            self._closed.append(updates)

    def repeats(self, executor: str | None, update: AgentResponseUpdate) -> bool:
        """Return whether the message was told before; if not, remember it. Each telling excuses one repetition."""
        self.close(executor)
        self._join()
        told = _Told.of(update)
        for index, earlier in enumerate(self._messages):
            if earlier.is_same(told):
                del self._messages[index]
                return True
        self._messages.append(told)
        return False

    def remembered(self) -> list[object]:
        """Return what `recall` takes; every stream counts as complete."""
        for executor in list(self._open):
            self.close(executor)
        self._join()
        return [
            [told.digest, [list(other) for other in told.others], told.author, told.message_id]
            for told in self._messages
        ]

    def recall(self, remembered: Sequence[Any]) -> None:
        """Remember what was remembered before."""
        for digest, others, author, message_id in remembered:
            self._messages.append(_Told(digest, tuple((kind, of) for kind, of in others), author, message_id))

    def _join(self) -> None:
        for updates in self._closed:
            self._messages.extend(_Told.of(message) for message in AgentResponse.from_updates(updates).messages)
        self._closed.clear()


@dataclasses.dataclass(frozen=True, slots=True)
class _Told:
    # Of the text: it is kept with every checkpoint.
    digest: str
    others: tuple[tuple[str, str | None], ...]
    author: str | None
    message_id: str | None

    @classmethod
    def of(cls, message: Message | AgentResponseUpdate) -> _Told:
        contents = message.contents
        text = "".join(c.text or "" for c in contents if c.type == "text")
        return cls(
            hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            tuple((c.type, c.call_id or c.id) for c in contents if c.type not in {"text", "text_reasoning", "usage"}),
            message.author_name,
            message.message_id,
        )

    def is_same(self, other: _Told) -> bool:
        return (
            (self.digest, self.others) == (other.digest, other.others)
            and (self.author == other.author or None in {self.author, other.author})
            and (self.message_id == other.message_id or None in {self.message_id, other.message_id})
        )


class _Turns:
    """Lets one executor speak at a time: interleaved pieces of two messages would cut both to shreds."""

    def __init__(self) -> None:
        self._speaker: str | None = None
        self._waiting: dict[str | None, list[AgentResponseUpdate]] = {}
        self._done: set[str | None] = set()

    def admit(self, executor: str | None, updates: list[AgentResponseUpdate]) -> list[AgentResponseUpdate]:
        if not updates:
            return []
        if self._speaker is None:
            self._speaker = executor
        if executor == self._speaker:
            return updates
        self._done.discard(executor)
        self._waiting.setdefault(executor, []).extend(updates)
        return []

    def release(self, executor: str | None) -> list[AgentResponseUpdate]:
        if executor != self._speaker:
            self._done.add(executor)
            return []
        self._speaker = None
        released: list[AgentResponseUpdate] = []
        while self._waiting and self._speaker is None:
            following = next(iter(self._waiting))
            released += self._waiting.pop(following)
            if following not in self._done:
                self._speaker = following
        return released

    def release_all(self) -> list[AgentResponseUpdate]:
        released = [update for updates in self._waiting.values() for update in updates]
        self._waiting.clear()
        self._done.clear()
        self._speaker = None
        return released


def _parts(output: object) -> list[_Part]:
    """Return the parts of one output that are the workflow's own words."""
    return [(kind, update) for kind, update in _all_parts(output) if update.role not in {"user", "system"}]


def _all_parts(output: object) -> list[_Part]:
    if output is None:
        return []
    if isinstance(output, AgentResponseUpdate):
        return [("delta", output)]
    if isinstance(output, (str, Content)):
        return [_plain(output)]
    if isinstance(output, (list, tuple)):
        return _parts_of_items(output)
    response = _as_response(output)
    if response is not None:
        return [("message", update) for update in response.to_updates()]
    return [_plain(as_text(output))]


def _parts_of_items(items: Sequence[object]) -> list[_Part]:
    contents = [item for item in items if isinstance(item, Content)]
    if contents and len(contents) == len(items):
        return [_plain(*contents)]
    if all(isinstance(item, _WITH_PARTS) for item in items):
        return [part for item in items for part in _all_parts(item)]
    return [_plain(as_text(items))]


def _question(event: WorkflowEvent[Any]) -> AgentResponseUpdate:
    asked = WorkflowQuestion(event).content
    return AgentResponseUpdate(
        contents=[asked],
        role="assistant",
        author_name=event.source_executor_id,
        message_id=uuid.uuid4().hex,
        raw_representation=event,
    )


def _as_response(output: object) -> AgentResponse[Any] | None:
    if isinstance(output, AgentExecutorResponse):
        return output.agent_response
    if isinstance(output, Message):
        return AgentResponse(messages=[output])
    return output if isinstance(output, AgentResponse) else None


def _plain(*contents: str | Content) -> _Part:
    as_contents = [Content.from_text(content) if isinstance(content, str) else content for content in contents]
    return "plain", AgentResponseUpdate(contents=as_contents, role="assistant")
