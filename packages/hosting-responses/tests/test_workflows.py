"""Workflows behind the Responses API."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
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
    AgentExecutorResponse,
    AgentResponseUpdate,
    CheckpointStorage,
    Executor,
    FileCheckpointStorage,
    InMemoryCheckpointStorage,
    Message,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    WorkflowEvent,
    handler,
)

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.checkpoints import FileCheckpoints, MemoryCheckpoints
from agent_framework_hosting.sql.checkpoints import SqlCheckpoints
from agent_framework_hosting.targets.workflow import WorkflowTarget
from agent_framework_hosting.testing.agents import ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel

SECONDS = 60.0

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
@pytest.mark.parametrize("kind", ["state", "directory", "storage", "storage in memory"])
async def test_chains_and_branches_of_a_workflow_do_not_touch_each_other(kind: str, tmp_path: Path) -> None:
    location: Path | CheckpointStorage | None = None if kind == "state" else tmp_path / "checkpoints"
    if kind.startswith("storage"):
        location = FileCheckpointStorage(tmp_path) if kind == "storage" else InMemoryCheckpointStorage()
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


class Reading(Executor):
    @handler
    async def read(self, written: AgentExecutorResponse, ctx: WorkflowContext[str]) -> None:
        await ctx.send_message(written.agent_response.text)


@pytest.mark.behaviour("F7")
@pytest.mark.parametrize("shown", ["hide", "commentary"])
async def test_a_stream_update_hook_learns_which_executor_has_put_out_an_update(shown: Any) -> None:
    seen: list[tuple[str, str | None, str, str | None]] = []

    def hook(update: AgentResponseUpdate) -> AgentResponseUpdate:
        event = update.raw_representation
        assert isinstance(event, WorkflowEvent)
        seen.append((event.type, event.executor_id, update.text, (update.additional_properties or {}).get("phase")))
        return update

    def build() -> Workflow:
        writer = AgentExecutor(Agent(client=ScriptedChatClient(["draft"]), name="writer"), id="desk")
        reading, remember = Reading(id="reading"), Remember()
        return (
            WorkflowBuilder(start_executor=writer, output_from=[remember], intermediate_output_from=[writer])
            .add_edge(writer, reading)
            .add_edge(reading, remember)
            .build()
        )

    channel = ResponsesChannel(stream_update_hook=hook)
    target = WorkflowTarget(build, intermediate_outputs=shown)
    host = AgentFrameworkHost(target, channels=[channel], **states.here())
    async with live.serve(host.app) as served:
        raw = await served.http.post("/responses", json={"input": "q", "stream": True})

    events = wire.parse_sse(raw.content)
    wire.check_stream(events)
    phases = [item.get("phase") for item in events[-1]["response"]["output"]]
    commentary = ("intermediate", "desk", "draft", "commentary")
    answer = ("output", "remember", "draft", None)
    assert seen == ([commentary, answer] if shown == "commentary" else [answer])
    assert phases == (["commentary", None] if shown == "commentary" else [None])


@dataclass
class Basket:
    """A type of an application that was not registered with the framework."""

    items: list[str]


class Shop(Executor):
    """Keeps what was bought in a type of its own."""

    def __init__(self) -> None:
        super().__init__(id="shop")
        self.basket = Basket([])

    @handler
    async def buy(self, item: str, ctx: WorkflowContext[Any, str]) -> None:
        self.basket.items.append(item)
        await ctx.yield_output(" ".join(self.basket.items))

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"basket": self.basket}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.basket = state["basket"]


def shop() -> Workflow:
    return WorkflowBuilder(start_executor=Shop(), name="shop").build()


async def test_an_applications_own_type_is_kept_if_the_operator_allows_it(caplog: pytest.LogCaptureFixture) -> None:
    async with live.serve(host_of(shop, allowed_checkpoint_types=[Basket]).app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="pie")
        second = await create(model="m", input="tea", previous_response_id=first.id)
    is_lasting = bool(states.here())
    async with live.serve(host_of(shop).app) as served:
        create = served.client.with_options(max_retries=0).responses.create
        if is_lasting:
            # What memory holds needs no decoding, and is gone now.
            for previous in (second.id, None):
                with pytest.raises(openai.InternalServerError):
                    await create(model="m", input="jam", previous_response_id=previous)

    assert second.output_text == "pie tea"
    assert ("allowed_checkpoint_types" in caplog.text) is is_lasting


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
            await asyncio.wait_for(meeting.wait(), 60)
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


class Slow(Remember):
    """Speaks and then waits for ever when it is told to be `slow`."""

    def __init__(self, waits: asyncio.Event, stopped: asyncio.Event) -> None:
        super().__init__()
        self.waits, self.stopped = waits, stopped

    @handler
    async def hear(self, message: str, ctx: WorkflowContext[str, str]) -> None:
        if message == "slow":
            self.heard.append(message)
            await ctx.yield_output("half an")
            self.waits.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()
        await super().hear(message, ctx)
        await ctx.send_message(message)


class Echo(Executor):
    """A step after the first one."""

    @handler
    async def echo(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        await ctx.yield_output(f" {message}!")
        if message == "fail late":
            raise ValueError("secret reason")


class SlowWorkflow:
    """Workflows of two steps, the first of which may be slow."""

    def __init__(self) -> None:
        self.waits, self.stopped = asyncio.Event(), asyncio.Event()

    def __call__(self) -> Workflow:
        first, second = Slow(self.waits, self.stopped), Echo(id="echo")
        return WorkflowBuilder(start_executor=first).add_edge(first, second).build()


async def stored_checkpoints(host: AgentFrameworkHost) -> int:
    """Return how many checkpoints the host has."""
    assert isinstance(host.target, WorkflowTarget)
    checkpoints = host.target.checkpoints
    if isinstance(checkpoints, MemoryCheckpoints):
        return len(checkpoints)
    assert isinstance(checkpoints, (FileCheckpoints, SqlCheckpoints))
    return (await checkpoints.stats()).entries


@pytest.mark.behaviour("F6")
@pytest.mark.parametrize("is_streamed", [True, False])
async def test_a_workflow_whose_client_leaves_is_cancelled_and_its_chain_goes_on(is_streamed: bool) -> None:
    workflow = SlowWorkflow()
    host = host_of(workflow)
    async with live.serve(host.app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        left = asyncio.create_task(leave_early(served, first.id, is_streamed=is_streamed))
        await asyncio.wait_for(workflow.waits.wait(), SECONDS)
        left.cancel()
        await asyncio.wait_for(workflow.stopped.wait(), SECONDS)
        with contextlib.suppress(asyncio.CancelledError):
            await left

        second = await create(model="m", input="b", previous_response_id=first.id)
        third = await create(model="m", input="c", previous_response_id=second.id)
        branch = await create(model="m", input="x", previous_response_id=first.id)

        answers = [response.output_text for response in (second, third, branch)]
        assert answers == ["a|b b!", "a|b|c c!", "a|x x!"]
        assert await stored_checkpoints(host) == 4


async def leave_early(served: live.LiveHost, previous: str, *, is_streamed: bool) -> None:
    """Ask for a response that takes for ever."""
    body = {"input": "slow", "previous_response_id": previous, "stream": is_streamed}
    async with served.http.stream("POST", "/responses", json=body) as answer:
        await answer.aread()


@pytest.mark.behaviour("F6", "A5")
async def test_only_what_can_be_continued_leaves_a_checkpoint() -> None:
    workflow = SlowWorkflow()
    host = host_of(workflow)
    counts: dict[str, int] = {}
    async with live.serve(host.app) as served:
        create, retrieve = served.client.responses.create, served.client.responses.retrieve
        first = await create(model="m", input="a")
        counts["foreground"] = await stored_checkpoints(host)

        second = await create(model="m", input="b", previous_response_id=first.id, background=True)
        await ended(retrieve, second.id)
        counts["background"] = await stored_checkpoints(host)

        with pytest.raises(openai.InternalServerError):
            await create(model="m", input="fail late", previous_response_id=second.id)
        counts["failed"] = await stored_checkpoints(host)

        failed = await create(model="m", input="fail late", previous_response_id=second.id, background=True)
        assert (await ended(retrieve, failed.id)).status == "failed"
        counts["failed in the background"] = await stored_checkpoints(host)

        slow = await create(model="m", input="slow", previous_response_id=second.id, background=True)
        await asyncio.wait_for(workflow.waits.wait(), SECONDS)
        assert (await served.client.responses.cancel(slow.id)).status == "cancelled"
        counts["cancelled"] = await stored_checkpoints(host)

        await create(model="m", input="c", previous_response_id=second.id, store=False)
        counts["not stored"] = await stored_checkpoints(host)

        third = await create(model="m", input="d", previous_response_id=failed.id)
        await served.client.responses.delete(second.id)
        counts["continued and deleted"] = await stored_checkpoints(host)

    assert third.output_text.startswith("a|b|")
    assert counts == {
        "foreground": 1,
        "background": 2,
        "failed": 2,
        "failed in the background": 2,
        "cancelled": 2,
        "not stored": 2,
        "continued and deleted": 2,
    }


async def ended(retrieve: Any, response_id: str) -> Any:
    """Return the response as soon as it is terminal."""
    async with asyncio.timeout(SECONDS):
        async for _ in await retrieve(response_id, stream=True):
            pass
    return await retrieve(response_id)
