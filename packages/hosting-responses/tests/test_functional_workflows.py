"""Functional workflows of the framework behind the Responses API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import live
import openai
import pytest
import states
import wire
from agent_framework import RunContext, WorkflowEvent, register_checkpoint_type, step, workflow
from openai.types.responses import Response

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting_responses import ResponsesChannel

pytestmark = pytest.mark.usefixtures("on_every_store")

# Not in closures, which would count as part of the workflow.
EXECUTED: list[str] = []
EVENTS: dict[str, asyncio.Event] = {}


@dataclass
class Decision:
    """What a person decides."""

    is_approved: bool
    by: str


register_checkpoint_type(Decision)


@step
async def draft(text: str) -> str:
    EXECUTED.append(text)
    return f"draft of {text}"


@workflow
async def publishing(text: str, ctx: RunContext) -> str:
    """Draft, ask twice, and count what was published in the conversation."""
    drafted = await draft(text)
    decision = await ctx.request_info(drafted, Decision)
    title = await ctx.request_info("The title?", str)
    published = [*ctx.get_state("published", []), title if decision.is_approved else "nothing"]
    ctx.set_state("published", published)
    return f"{decision.by}: {', '.join(published)}"


@step
async def wait() -> None:
    EVENTS["begun"].set()
    try:
        await asyncio.Event().wait()
    finally:
        EVENTS["ended"].set()


@workflow
async def waiting(text: str, ctx: RunContext) -> str:
    told = [*ctx.get_state("told", []), text]
    ctx.set_state("told", told)
    await ctx.add_event(WorkflowEvent("output", executor_id="waiting", data="listening"))
    if text == "wait":
        await wait()
    return " ".join(told)


@pytest.fixture(autouse=True)
def nothing_executed() -> None:
    EXECUTED.clear()
    EVENTS.update(begun=asyncio.Event(), ended=asyncio.Event())


def host_of(target: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(target, channels=[ResponsesChannel()], **states.here())


def call_in(response: Response) -> tuple[str, Mapping[str, Any]]:
    """Return id and arguments of the one question in a response."""
    (item,) = response.output
    assert item.type == "function_call"
    assert response.status == "completed"
    return item.call_id, json.loads(item.arguments)


def output(call_id: str, answer: str) -> Any:
    return [{"type": "function_call_output", "call_id": call_id, "output": answer}]


@pytest.mark.behaviour("A2", "F1", "F3", "F4")
async def test_questions_of_a_functional_workflow_are_answered_once_and_its_chain_goes_on() -> None:
    async with live.serve(host_of(publishing).app) as served:
        create = served.client.responses.create
        asked = await create(model="m", input="one")
        decision_id, decision = call_in(asked)
        decided = await create(
            model="m",
            input=output(decision_id, '{"is_approved": true, "by": "ann"}'),
            previous_response_id=asked.id,
        )
        title_id, _ = call_in(decided)
        done = await create(model="m", input=output(title_id, "First"), previous_response_id=decided.id)
        refusals = [(asked.id, decision_id, "again"), (done.id, title_id, "again"), (asked.id, "call_forged", "x")]
        for previous, call_id, text in refusals:
            with pytest.raises(openai.BadRequestError):
                await create(model="m", input=output(call_id, text), previous_response_id=previous)
        again = await create(model="m", input="two", previous_response_id=done.id)
        again_id, _ = call_in(again)

    assert decision["request"] == "draft of one"
    assert done.output_text == "ann: First"
    assert again_id not in {decision_id, title_id}
    assert EXECUTED == ["one", "two"]


@pytest.mark.behaviour("F3")
async def test_a_functional_workflow_is_answered_after_a_restart() -> None:
    if not states.here():
        pytest.skip("memory does not survive a restart")
    async with live.serve(host_of(publishing).app) as served:
        asked = await served.client.responses.create(model="m", input="one")
    call_id, _ = call_in(asked)
    async with live.serve(host_of(publishing).app) as served:
        answer = output(call_id, '{"is_approved": false, "by": "bob"}')
        decided = await served.client.responses.create(model="m", input=answer, previous_response_id=asked.id)
    title_id, _ = call_in(decided)
    async with live.serve(host_of(publishing).app) as served:
        done = await served.client.responses.create(
            model="m", input=output(title_id, "First"), previous_response_id=decided.id
        )

    assert done.output_text == "bob: nothing"
    assert EXECUTED == ["one"]


@pytest.mark.behaviour("F6", "F7")
async def test_a_functional_workflow_is_streamed_cancelled_and_its_chain_goes_on() -> None:
    async with live.serve(host_of(waiting).app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="one")
        lost = await create(model="m", input="wait", previous_response_id=first.id, background=True)
        await asyncio.wait_for(EVENTS["begun"].wait(), 60)
        await served.client.responses.cancel(lost.id)
        await asyncio.wait_for(EVENTS["ended"].wait(), 60)
        body = {"input": "two", "previous_response_id": first.id, "stream": True}
        events = wire.parse_sse((await served.http.post("/responses", json=body)).content)

    wire.check_stream(events)
    texts = [event["text"] for event in events if event["type"] == "response.output_text.done"]
    assert texts == ["listening", "one two"]
