"""Workflows behind the Responses API."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import live
import openai
import pytest
import states
import wire
from agent_framework import (
    Agent,
    AgentExecutor,
    AgentResponseUpdate,
    Executor,
    Message,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
)

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel

pytestmark = pytest.mark.usefixtures("on_every_store")


class Remember(Executor):
    """Answers with everything it has been told in this conversation."""

    def __init__(self) -> None:
        super().__init__(id="remember")
        self.heard: list[str] = []

    @handler
    async def hear(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        if message == "fail":
            self.heard.append("half heard")
            raise ValueError("secret reason")
        self.heard.append(message)
        await ctx.yield_output("|".join(self.heard))

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"heard": list(self.heard)}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.heard = list(state["heard"])


def remembering() -> Workflow:
    return WorkflowBuilder(start_executor=Remember(), name="memory").build()


def host_of(target: Any, **options: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(target, channels=[ResponsesChannel()], **options, **states.here())


@pytest.mark.behaviour("A1", "A2", "F1")
@pytest.mark.parametrize("has_directory", [False, True])
async def test_chains_and_branches_of_a_workflow_do_not_touch_each_other(has_directory: bool, tmp_path: Path) -> None:
    location = tmp_path / "checkpoints" if has_directory else None
    async with live.serve(host_of(remembering(), checkpoint_location=location).app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        second = await create(model="m", input="b", previous_response_id=first.id)
        branch = await create(model="m", input="x", previous_response_id=first.id)
        third = await create(model="m", input="c", previous_response_id=second.id)
        with pytest.raises(openai.InternalServerError):
            await create(model="m", input="fail", previous_response_id=second.id)
        with pytest.raises(openai.BadRequestError):
            await create(model="m", input="z", previous_response_id="resp_unknown")
        fourth = await create(model="m", input="d", previous_response_id=third.id)
        other = await create(model="m", input="new")

    answers = [response.output_text for response in (first, second, branch, third, fourth, other)]
    assert answers == ["a", "a|b", "a|x", "a|b|c", "a|b|c|d", "new"]


@pytest.mark.behaviour("F7")
async def test_a_workflow_streams_its_agents_text_and_answers_the_same_one_shot() -> None:
    def build() -> Workflow:
        writer = Agent(client=ScriptedChatClient(["draft"]), name="writer")
        editor = Agent(client=ScriptedChatClient(["fi", "nal"]), name="editor")
        first, last = AgentExecutor(writer), AgentExecutor(editor)
        return WorkflowBuilder(start_executor=first, output_from=[last]).add_edge(first, last).build()

    async with live.serve(host_of(build).app) as served:
        one_shot = await served.client.responses.create(model="m", input="q")
        raw = await served.http.post("/responses", json={"input": "q", "stream": True})

    events = wire.parse_sse(raw.content)
    wire.check_stream(events)
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert deltas == ["fi", "nal"]
    assert one_shot.output_text == "final"


@pytest.mark.behaviour("F2")
async def test_runs_of_one_workflow_go_on_at_the_same_time() -> None:
    meeting = asyncio.Barrier(3)

    class Meet(Executor):
        @handler
        async def meet(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
            # Nobody passes before all three runs are here: one after the other they would never meet.
            await asyncio.wait_for(meeting.wait(), 10)
            await ctx.yield_output(f"met as {message}")

    def build() -> Workflow:
        return WorkflowBuilder(start_executor=Meet(id="meet")).build()

    async with live.serve(host_of(build).app) as served:
        responses = await asyncio.gather(
            *(served.client.responses.create(model="m", input=name) for name in ("ann", "bob", "eve"))
        )

    assert [response.output_text for response in responses] == ["met as ann", "met as bob", "met as eve"]


async def test_a_run_hook_gives_a_workflow_an_input_of_its_own_type() -> None:
    class Order(Executor):
        @handler
        async def take(self, message: dict[str, Any], ctx: WorkflowContext[Any, AgentResponseUpdate]) -> None:
            update = AgentResponseUpdate(contents=Message("assistant", [f"{message['n']} pies"]).contents)
            await ctx.yield_output(update)

    def build() -> Workflow:
        return WorkflowBuilder(start_executor=Order(id="order")).build()

    def run_hook(request: Any, **_: Any) -> Any:
        return replace(request, input={"n": len(request.input[-1].text)}, options=None)

    host = AgentFrameworkHost(build, channels=[ResponsesChannel(run_hook=run_hook)], **states.here())
    async with live.serve(host.app) as served:
        response = await served.client.responses.create(model="m", input="four")

    assert response.output_text == "4 pies"


@pytest.mark.behaviour("A7")
async def test_an_unstored_turn_of_a_workflow_leaves_nothing_on_disk(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    async with live.serve(host_of(remembering(), checkpoint_location=checkpoints).app) as served:
        create = served.client.responses.create
        await create(model="m", input="gone", store=False)
        assert list(checkpoints.rglob("*")) == []
        first = await create(model="m", input="a")
        kept = sorted(checkpoints.rglob("*"))
        unstored = await create(model="m", input="b", previous_response_id=first.id, store=False)
        assert sorted(checkpoints.rglob("*")) == kept
        second = await create(model="m", input="c", previous_response_id=first.id)

    assert (unstored.output_text, second.output_text) == ("a|b", "a|c")
