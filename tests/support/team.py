"""Two agents and a workflow behind one host."""

from __future__ import annotations

import asyncio
from typing import Any

import live
import openai
import pytest
from agent_framework import Executor, Workflow, WorkflowBuilder, WorkflowContext, handler, response_handler
from states import State

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

SECONDS = 60.0


class Listener(ScriptedAgent):
    """Answers with all that it has heard in its session; `told` is how many messages each run has brought."""

    def __init__(self, name: str) -> None:
        super().__init__([], name=f"agent of {name}")
        self.told: list[int] = []

    def run(self, messages: Any = None, *, session: Any = None, **kwargs: Any) -> Any:
        heard = session.state.setdefault("heard", [])
        heard += [message.text for message in messages]
        self.told.append(len(messages))
        self._turns = (["|".join(heard)],)
        return super().run(messages, session=session, **kwargs)


class Steps(Executor):
    """Answers with everything it has been told, and asks when it is told to."""

    def __init__(self) -> None:
        super().__init__(id="steps")
        self.heard: list[str] = []

    @handler
    async def hear(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        if message == "ask":
            await ctx.request_info("sure?", str)
            return
        self.heard.append(message)
        await ctx.yield_output("+".join(self.heard))

    @response_handler
    async def answered(self, asked: str, answer: str, ctx: WorkflowContext[Any, str]) -> None:
        del asked
        await self.hear(f"answer {answer}", ctx)

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"heard": list(self.heard)}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.heard = list(state["heard"])


def steps() -> Workflow:
    return WorkflowBuilder(start_executor=Steps(), name="some workflow").build()


class Team:
    """Two agents and a workflow."""

    def __init__(self) -> None:
        self.writer, self.critic = Listener("writer"), Listener("critic")

    @property
    def targets(self) -> dict[str, Any]:
        return {"writer": self.writer, "team/critic": self.critic, "steps": steps}


def host_of(targets: Any, state: State, *, channel: Any = None, **settings: Any) -> AgentFrameworkHost:
    channel = channel or ResponsesChannel(settings=ResponsesSettings(**settings))
    return AgentFrameworkHost(targets, channels=[channel], **state.options)


async def refusal(request: Any) -> tuple[str | None, str | None, str]:
    """Return param, code and message of the 400 that answers the request."""
    with pytest.raises(openai.BadRequestError) as caught:
        await request
    return caught.value.param, caught.value.code, str(caught.value.body["message"])  # type: ignore[index]


async def ended(served: live.LiveHost, response_id: str) -> Any:
    """Return a background response as soon as it is terminal."""
    async with asyncio.timeout(SECONDS):
        stream = await served.client.responses.retrieve(response_id, stream=True)
        events = [event async for event in stream]
    return await served.client.responses.retrieve(events[-1].response.id)  # type: ignore[union-attr]
