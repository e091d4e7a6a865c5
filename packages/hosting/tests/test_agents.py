"""The public test helpers in testing/agents.py."""

import asyncio
from collections.abc import AsyncIterable
from contextlib import aclosing

import pytest
from agent_framework import (
    Agent,
    AgentResponseUpdate,
    AgentSession,
    ChatResponseUpdate,
    Content,
    SupportsAgentRun,
    tool,
)

from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient


@tool(approval_mode="never_require")
def weather(city: str) -> str:
    """Say how the weather is."""
    return f"sunny in {city}"


async def read_into(texts: list[str], updates: AsyncIterable[AgentResponseUpdate]) -> None:
    async for update in updates:
        texts.append(update.text)  # noqa: PERF401  one by one: the test looks at them while they come


async def test_the_client_runs_the_frameworks_function_calling_loop() -> None:
    call = Content.from_function_call("c1", "weather", arguments='{"city":"Rome"}')
    client = ScriptedChatClient([call], ["It is ", "sunny."])
    agent = Agent(client=client, tools=[weather])

    response = await agent.run("How is Rome?")

    assert response.text == "It is sunny."
    results = [content.result for message in client.calls[1].messages for content in message.contents if content.result]
    assert results == ["sunny in Rome"]


async def test_the_client_streams_one_update_a_step_and_records_what_it_was_sent() -> None:
    client = ScriptedChatClient(["one", ChatResponseUpdate(contents=[Content.from_text("two")], role="assistant")])
    agent = Agent(client=client)

    texts = [update.text async for update in agent.run("hi", stream=True, options={"temperature": 0.5})]

    assert texts == ["one", "two"]
    [call] = client.calls
    assert call.stream
    assert call.options["temperature"] == 0.5
    assert [message.text for message in call.messages] == ["hi"]


async def test_a_model_call_beyond_the_script_says_so() -> None:
    agent = Agent(client=ScriptedChatClient(["only"]))
    await agent.run("one")

    with pytest.raises(IndexError, match="has 1 model calls"):
        await agent.run("two")


async def test_the_client_raises_and_waits_where_the_script_says_so() -> None:
    gate = Gate()
    agent = Agent(client=ScriptedChatClient(["before", gate, ValueError("broken")]))
    texts: list[str] = []

    reading = asyncio.create_task(read_into(texts, agent.run("hi", stream=True)))
    await asyncio.wait_for(gate.reached.wait(), 60)
    assert texts == ["before"]
    gate.open()
    with pytest.raises(ValueError, match="broken"):
        await reading


def test_the_agent_is_an_agent() -> None:
    assert isinstance(ScriptedAgent(), SupportsAgentRun)
    assert isinstance(ScriptedAgent().get_session("service"), AgentSession)


async def test_the_agent_plays_its_turns_and_repeats_the_last() -> None:
    update = AgentResponseUpdate(contents=[Content.from_text("two")], role="assistant")
    agent = ScriptedAgent(["one"], [update])

    texts = [[step.text async for step in agent.run("hi")] for _ in range(3)]

    assert texts == [["one"], ["two"], ["two"]]
    assert all(run.is_finished and not run.is_cancelled for run in agent.runs)


async def test_the_agent_records_what_it_was_sent() -> None:
    agent = ScriptedAgent([])
    session = agent.create_session()

    async for _ in agent.run("hi", session=session, options={"temperature": 1}):
        pass

    assert (agent.runs[0].messages, agent.runs[0].session, agent.runs[0].options) == ("hi", session, {"temperature": 1})


async def test_the_agent_says_when_it_was_left_early() -> None:
    agent = ScriptedAgent(["one", "two"])

    async with aclosing(agent.run("hi")) as updates:
        async for _ in updates:
            break

    assert agent.runs[0].is_cancelled
    assert agent.runs[0].ended.is_set()
    assert not agent.runs[0].is_finished


async def test_the_agent_raises_at_the_given_point() -> None:
    agent = ScriptedAgent(["one", ValueError("broken")])
    texts: list[str] = []

    with pytest.raises(ValueError, match="broken"):
        await read_into(texts, agent.run("hi"))

    assert texts == ["one"]
    assert agent.runs[0].ended.is_set()
    assert not agent.runs[0].is_cancelled
