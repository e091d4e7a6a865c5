"""`Idempotency-Key`: one key, one response, one run."""

from __future__ import annotations

import asyncio
from typing import Any

import live
import pytest
import raw
from agent_framework import Agent
from states import State

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel

SECONDS = 60.0
KEY = {"Idempotency-Key": "order-7"}


def host_of(agent: Any, state: State, **options: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(agent, channels=[ResponsesChannel()], **state.options, **options)


@pytest.mark.behaviour("D9")
@pytest.mark.parametrize("mode", [{}, {"background": True}], ids=["one-shot", "background"])
async def test_the_same_key_and_body_give_the_same_response_and_one_run(state: State, mode: dict[str, Any]) -> None:
    model = ScriptedChatClient(["only one"])
    async with live.serve(host_of(Agent(client=model), state).app) as served:
        create = served.client.responses.create
        first = await create(model="a", input="hello", extra_headers=KEY, **mode)
        async with asyncio.timeout(SECONDS):
            while (await served.client.responses.retrieve(first.id)).status != "completed":
                pass
        # The order of members is none of a body's meaning.
        again = await create(input="hello", model="a", extra_headers=KEY, **mode)

    assert (again.id, again.status, again.output_text) == (first.id, "completed", "only one")
    assert len(model.calls) == 1


@pytest.mark.behaviour("D9")
async def test_a_repeated_stream_has_the_same_events(state: State) -> None:
    async with live.serve(host_of(ScriptedAgent(["Hel", "lo"]), state).app) as served:
        create = served.client.responses.create
        first = [event async for event in await create(model="a", input="q", stream=True, extra_headers=KEY)]
        again = [event async for event in await create(model="a", input="q", stream=True, extra_headers=KEY)]

    assert first == again
    assert first[-1].type == "response.completed"


@pytest.mark.behaviour("D9")
async def test_requests_with_one_key_at_the_same_time_share_one_run(state: State) -> None:
    gate = Gate()
    model = ScriptedChatClient([gate, "shared"])
    async with live.serve(host_of(Agent(client=model), state).app) as served:
        requests = [
            asyncio.create_task(served.client.responses.create(model="a", input="q", extra_headers=KEY))
            for _ in range(5)
        ]
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        gate.open()
        answers = await asyncio.wait_for(asyncio.gather(*requests), SECONDS)

    assert len({answer.id for answer in answers}) == 1
    assert {answer.output_text for answer in answers} == {"shared"}
    assert len(model.calls) == 1


@pytest.mark.behaviour("D9")
async def test_the_same_key_with_another_body_is_refused(state: State) -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"]), state).app) as served:
        await served.http.post("/v1/responses", json={"input": "one"}, headers=KEY)
        other = await served.http.post("/v1/responses", json={"input": "two"}, headers=KEY)

    assert other.status_code == 400
    assert other.json()["error"]["code"] == "idempotency_key_reused"


async def test_another_user_may_use_the_same_key(state: State) -> None:
    host = host_of(ScriptedAgent(["hello"]), state, trust_isolation_headers=True)
    async with live.serve(host.app) as served:
        ids = set()
        for user in ("ada", "bob", "ada"):
            headers = {**KEY, "x-agent-user-isolation-key": user}
            answer = await served.http.post("/v1/responses", json={"input": "q"}, headers=headers)
            ids.add(answer.json()["id"])

    assert len(ids) == 2


async def test_a_client_that_leaves_does_not_stop_a_run_that_another_waits_for(state: State) -> None:
    gate = Gate()
    body: dict[str, Any] = {"model": "a", "input": "q", "stream": True}
    host = host_of(ScriptedAgent([gate, "done"]), state)
    async with live.serve(host.app) as served, raw.connect(served.base_url) as leaver:
        await leaver.send("POST", "/v1/responses", body, headers=KEY)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        await leaver.head()
        stayer = await served.client.responses.create(**body, extra_headers=KEY)
        leaver.abort()
        # Whatever the server does about the client that left has been done when a later one has got its answer.
        await served.http.get("/liveness")
        gate.open()
        events = [event async for event in stayer]

    assert events[-1].type == "response.completed"


async def test_a_body_with_half_an_emoji_can_have_a_key() -> None:
    body = b'{"input": "half \\ud83d"}'
    headers = {**KEY, "content-type": "application/json"}
    async with live.serve(host_of(ScriptedAgent(["hello"]), State("memory")).app) as served:
        answers = [await served.http.post("/v1/responses", content=body, headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"], ids=["empty", "long", "not-ascii"])
async def test_a_key_that_is_none_is_refused(key: str) -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"]), State("memory")).app) as served:
        answer = await served.http.post(
            "/v1/responses", json={"input": "q"}, headers=[(b"idempotency-key", key.encode("latin-1"))]
        )

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_value"


async def test_a_key_survives_a_restart(durable_state: State) -> None:
    model = ScriptedChatClient(["once"])
    answers = []
    for _ in range(2):
        async with live.serve(host_of(Agent(client=model), durable_state).app) as served:
            answers.append(await served.client.responses.create(model="a", input="q", extra_headers=KEY))

    assert answers[0].id == answers[1].id
    assert len(model.calls) == 1


async def test_a_key_of_an_unstored_response_is_forgotten_with_it(state: State) -> None:
    model = ScriptedChatClient(["one"], ["two"])
    async with live.serve(host_of(Agent(client=model), state).app) as served:
        create = served.client.responses.create
        first = await create(model="a", input="q", store=False, extra_headers=KEY)
        second = await create(model="a", input="q", store=False, extra_headers=KEY)

    assert (first.output_text, second.output_text) == ("one", "two")
