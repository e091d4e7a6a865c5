"""Background runs that one process accepts and another executes, on one PostgreSQL database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import live
import pytest

from agent_framework_hosting import AgentFrameworkHost, ConfigurationError, get_current_isolation_keys
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

SECONDS = 60.0


def host_of(agent: Any, url: str, **options: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(
        agent, channels=[ResponsesChannel()], database_url=url, trust_isolation_headers=True, **options
    )


@contextlib.asynccontextmanager
async def worker(agent: Any, url: str) -> AsyncGenerator[None, None]:
    stopped = asyncio.Event()
    work = asyncio.create_task(host_of(agent, url).work(stopped))
    try:
        yield
    finally:
        stopped.set()
        await asyncio.wait_for(work, SECONDS)


class Asking(ScriptedAgent):
    """Says whose run it is."""

    def __init__(self) -> None:
        super().__init__(["hello"])
        self.keys: list[Any] = []

    def run(self, messages: Any = None, **kwargs: Any) -> Any:
        self.keys.append(get_current_isolation_keys())
        return super().run(messages, **kwargs)


@pytest.mark.behaviour("D3", "E5")
async def test_a_run_is_accepted_here_executed_there_and_followed_here(postgres_url: str) -> None:
    never, agent = ScriptedAgent(["never"]), Asking()
    async with live.serve(host_of(never, postgres_url, run_concurrency=0).app) as served, worker(agent, postgres_url):
        headers = {"x-agent-user-isolation-key": "ada"}
        async with asyncio.timeout(SECONDS):
            stream: Any = await served.client.responses.create(
                model="a", input="q", background=True, stream=True, extra_headers=headers
            )
            events = [event async for event in stream]
        stored = await served.client.responses.retrieve(events[0].response.id, extra_headers=headers)

    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response == stored
    assert stored.output_text == "hello"
    assert [keys.user_key for keys in agent.keys] == ["ada"]
    assert never.runs == []


@pytest.mark.behaviour("D4")
async def test_a_run_is_cancelled_wherever_it_is_executed(postgres_url: str) -> None:
    gate = Gate()
    agent = ScriptedAgent([gate, "late"])
    idle = ScriptedAgent(["never"])
    async with live.serve(host_of(idle, postgres_url, run_concurrency=0).app) as served, worker(agent, postgres_url):
        running = await served.client.responses.create(model="a", input="q", background=True)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        cancelled = await served.client.responses.cancel(running.id)
        await asyncio.wait_for(agent.runs[0].ended.wait(), SECONDS)
        events = [event async for event in await served.client.responses.retrieve(running.id, stream=True)]

    assert cancelled.status == "cancelled"
    assert agent.runs[0].is_cancelled
    assert [event.type for event in events].count("response.failed") == 1


@pytest.mark.behaviour("D4")
async def test_whoever_cancels_a_run_at_the_same_time_it_is_cancelled_for_all(postgres_url: str) -> None:
    idle = [host_of(ScriptedAgent(["never"]), postgres_url, run_concurrency=0) for _ in range(2)]
    async with live.serve(idle[0].app) as one, live.serve(idle[1].app) as other:
        queued = await one.client.responses.create(model="a", input="q", background=True)
        cancels = [served.client.responses.cancel(queued.id) for served in (one, other, one, other)]
        cancelled = await asyncio.wait_for(asyncio.gather(*cancels), SECONDS)

    assert [response.status for response in cancelled] == ["cancelled"] * 4


async def test_a_request_that_must_not_be_stored_is_run_where_it_was_accepted(postgres_url: str) -> None:
    agent = ScriptedAgent(["here"])
    channel = ResponsesChannel(settings=ResponsesSettings(hosted_tools="pass"))
    host = AgentFrameworkHost(agent, channels=[channel], database_url=postgres_url)
    async with live.serve(host.app) as served, asyncio.timeout(SECONDS):
        tools: list[Any] = [{"type": "web_search"}]
        stream: Any = await served.client.responses.create(
            model="a", input="q", background=True, stream=True, tools=tools
        )
        events = [event async for event in stream]

    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "here"


async def test_a_host_without_work_to_share_is_no_worker(postgres_url: str) -> None:
    for host in (
        AgentFrameworkHost(ScriptedAgent(["x"]), channels=[ResponsesChannel()]),
        host_of(ScriptedAgent(["x"]), postgres_url, run_concurrency=0),
    ):
        with pytest.raises(ConfigurationError, match="worker"):
            await host.work(asyncio.Event())
