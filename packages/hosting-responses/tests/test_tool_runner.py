"""The official client's tool runner, which replays the whole history and trusts no id twice, against a served host."""

from __future__ import annotations

from typing import Any

import live
import pytest
from agent_framework import Agent, Content, tool
from openai.lib.responses_tool_runner import RegisteredFunction, ResponsesToolRunner

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel


def function(name: str) -> Any:
    return {
        "type": "function",
        "name": name,
        "description": "Look a number up.",
        "parameters": {
            "type": "object",
            "properties": {"x": {"type": "integer"}},
            "required": ["x"],
            "additionalProperties": False,
        },
        "strict": True,
    }


def call(call_id: str, name: str, arguments: str) -> Content:
    return Content.from_function_call(call_id, name, arguments=arguments)


def host_of(agent: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(agent, channels=[ResponsesChannel(run_hook=lambda request, **_: request)])


@pytest.mark.behaviour("B1")
@pytest.mark.parametrize("mode", [{}, {"stream": True}, {"stream": True, "eager": True}], ids=str)
async def test_the_tool_runner_comes_to_an_answer_whatever_the_models_call_ids(mode: Any) -> None:
    @tool(approval_mode="never_require")
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    model = ScriptedChatClient(
        [call("call_0", "add", '{"a": 1, "b": 2}')],
        # This model numbers the calls of every turn from the start.
        [call("call_0", "lookup", '{"x": 1}'), call("call_1", "lookup", '{"x": 2}')],
        [call("call_0", "lookup", '{"x": 3}')],
        ["done ", "42"],
    )
    asked: list[Any] = []

    def lookup(arguments: Any) -> str:
        asked.append(arguments)
        return "found"

    runner = ResponsesToolRunner(functions=[RegisteredFunction(function("lookup"), lookup)])
    async with live.serve(host_of(Agent(client=model, tools=[add])).app) as served:
        request: Any = {"model": "a", "input": "go"}
        answer = await live.in_thread(lambda: runner.run(served.sync_client, request, **mode))

    assert answer.output_text == "done 42"
    assert len(asked) == 3
    results = [c.result for m in model.calls[3].messages for c in m.contents if c.type == "function_result"]
    assert results.count("found") == 3


async def test_no_call_id_of_the_chain_is_used_again() -> None:
    lookup = function("lookup")
    agent = ScriptedAgent([call("call_0", "lookup", '{"x": 1}')], [call("call_0", "lookup", '{"x": 2}')], ["done"])
    async with live.serve(host_of(agent).app) as served:
        create = served.client.responses.create
        response = await create(model="a", input="go", tools=[lookup])
        seen = []
        for number in range(2):
            item: Any = response.output[0]
            seen.append(item.call_id)
            output: Any = {"type": "function_call_output", "call_id": item.call_id, "output": f"result {number}"}
            response = await create(model="a", input=[output], previous_response_id=response.id, tools=[lookup])

    messages: Any = agent.runs[2].messages
    assert len(set(seen)) == 2
    assert [(c.call_id, c.result) for m in messages for c in m.contents] == [("call_0", "result 1")]
    assert response.output_text == "done"
