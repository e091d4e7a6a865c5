"""A workflow that keeps everything it hears, in several places, says all of it in every answer, and asks people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from agent_framework import (
    Executor,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
    register_checkpoint_type,
    response_handler,
)

from agent_framework_hosting.testing.agents import Gate


@dataclass
class Verdict:
    """An answer with fields."""

    approved: bool
    note: str


register_checkpoint_type(Verdict)


class Listener(Executor):
    """Notes what it hears, in its own state and in the shared one, and does what the last word says.

    That is a list of things to do, `bool+late`: ask for a `bool`, a `verdict`, always under the same name, or a `text`;
    `wait` at the gate of the line; `fail` at once, or `late`, when everything has been said; or nothing, `tell`.
    """

    gates: ClassVar[dict[str, Gate]] = {}

    def __init__(self) -> None:
        super().__init__(id="listener")
        self.heard: list[str] = []

    @handler
    async def hear(self, text: str, ctx: WorkflowContext[dict[str, Any]]) -> None:
        await self._take(text.splitlines(), ctx)

    @response_handler
    async def on_bool(self, asked: str, answer: bool, ctx: WorkflowContext[dict[str, Any]]) -> None:
        await self._take([f"{answer!r}: tell"], ctx)

    @response_handler
    async def on_verdict(self, asked: str, answer: Verdict, ctx: WorkflowContext[dict[str, Any]]) -> None:
        await self._take([f"{answer.approved!r}: {answer.note}"], ctx)

    @response_handler
    async def on_text(self, asked: str, answer: str, ctx: WorkflowContext[dict[str, Any]]) -> None:
        await self._take([answer], ctx)

    async def _take(self, lines: Sequence[str], ctx: WorkflowContext[dict[str, Any]]) -> None:
        self.heard += lines
        # In place: what a checkpoint keeps must not be what the workflow goes on with.
        shared = ctx.get_state("shared", [])
        shared += lines
        ctx.set_state("shared", shared)
        things = things_of(lines[-1])
        for thing in things:
            match thing:
                case "wait":
                    await self.gates[lines[-1]].wait()
                case "fail":
                    raise ValueError("secret reason")
                case "bool":
                    await ctx.request_info(f"{lines[-1]} bool?", bool)
                case "verdict":
                    await ctx.request_info(f"{lines[-1]} verdict?", Verdict, request_id="verdict")
                case "text":
                    await ctx.request_info(f"{lines[-1]} text?", str)
        await ctx.send_message({"heard": self.heard, "is_late": "late" in things})

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"heard": self.heard}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.heard = state["heard"]


class Speaker(Executor):
    """Says everything that is known, a line for each time it is told something."""

    def __init__(self) -> None:
        super().__init__(id="speaker")
        self.times = 0

    @handler
    async def speak(self, message: dict[str, Any], ctx: WorkflowContext[Any, str]) -> None:
        self.times += 1
        known = {"heard": message["heard"], "shared": ctx.get_state("shared"), "times": self.times}
        await ctx.yield_output(json.dumps(known) + "\n")
        if message["is_late"]:
            raise ValueError("secret reason")

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"times": self.times}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.times = state["times"]


def things_of(line: str) -> list[str]:
    """Return what a line has the workflow do."""
    return line.rpartition(" ")[2].split("+")


def conversing() -> Workflow:
    """Return a workflow that has heard nothing."""
    listener, speaker = Listener(), Speaker()
    return WorkflowBuilder(start_executor=listener, output_from=[speaker]).add_edge(listener, speaker).build()


WRONG: dict[str, list[str]] = {
    "bool": ["perhaps", "7", '{"approved": true}'],
    "verdict": ["yes", '{"approved": true}', '{"approved": "perhaps", "note": "x tell"}', "[]"],
    "text": [],
}
"""What cannot be decoded as an answer of each kind."""


def answer_to(kind: str, line: str) -> tuple[str, str]:
    """Return the answer on the wire, and what the workflow hears."""
    if kind == "bool":
        is_true = len(line) % 2 == 0
        return json.dumps(is_true), f"{is_true!r}: tell"
    if kind == "verdict":
        return json.dumps({"approved": False, "note": line}), f"False: {line}"
    return line, line


def kind_of(call: dict[str, Any]) -> str:
    """Return what a call on the wire asks for; its arguments say so, and the schema of the answer as well."""
    arguments = json.loads(call["arguments"])
    kind = str(arguments["request"]).rstrip("?").rpartition(" ")[2]
    assert arguments["response_schema"]["type"] == {"bool": "boolean", "verdict": "object", "text": "string"}[kind]
    return kind
