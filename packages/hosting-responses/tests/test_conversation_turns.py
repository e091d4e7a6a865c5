"""Responses in conversations: context, atomic append, one running response at a time (contract §6.4)."""

from __future__ import annotations

import asyncio
from typing import Any

import live
import openai
import pytest
from agent_framework import Agent, Content
from states import State

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel

SECONDS = 60.0


def host_of(agent: Any, state: State, **options: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(agent, channels=[ResponsesChannel(**options)], **state.options)


def let_all_through(request: Any, **_: Any) -> Any:
    return request


def texts(messages: Any) -> list[str]:
    return [message.text for message in messages]


async def history(served: live.LiveHost, conversation_id: str) -> list[str]:
    """The conversation's items, oldest first, each with a status that is allowed to stay."""
    shown: list[str] = []
    item: Any
    async for item in served.client.conversations.items.list(conversation_id, order="asc", limit=100):
        assert getattr(item, "status", "completed") in {"completed", "incomplete"}
        if item.type == "message":
            shown.append("".join(part.text for part in item.content if hasattr(part, "text")))
        else:
            shown.append(item.type)
    return shown


@pytest.mark.behaviour("A1")
async def test_turn_four_of_a_conversation_sees_turns_one_to_three(state: State) -> None:
    model = ScriptedChatClient(["one"], ["two"], ["three"], ["four"])
    async with live.serve(host_of(Agent(client=model), state).app) as served:
        conversation = await served.client.conversations.create(
            items=[{"type": "message", "role": "user", "content": "before"}]
        )
        for number in range(1, 5):
            response: Any = await served.client.responses.create(
                model="a", input=f"question {number}", conversation=conversation.id, stream=number % 2 == 0
            )
            if number % 2 == 0:
                response = [event async for event in response][-1].response
            assert response.conversation.id == conversation.id
            assert response.previous_response_id is None
        shown = await history(served, conversation.id)

    said = ["before", "question 1", "one", "question 2", "two", "question 3", "three", "question 4"]
    assert texts(model.calls[3].messages) == said
    assert shown == [*said, "four"]


@pytest.mark.behaviour("A1")
async def test_a_conversation_goes_on_after_a_restart(durable_state: State) -> None:
    model = ScriptedChatClient(["one"], ["two"])
    async with live.serve(host_of(Agent(client=model), durable_state).app) as served:
        conversation = await served.client.conversations.create(metadata={"topic": "x"})
        await served.client.responses.create(model="a", input="q1", conversation=conversation.id)
    async with live.serve(host_of(Agent(client=model), durable_state).app) as served:
        await served.client.responses.create(model="a", input="q2", conversation=conversation.id)
        again = await served.client.conversations.retrieve(conversation.id)
        shown = await history(served, conversation.id)

    assert texts(model.calls[1].messages) == ["q1", "one", "q2"]
    assert shown == ["q1", "one", "q2", "two"]
    assert again == conversation


@pytest.mark.behaviour("A9")
async def test_of_concurrent_turns_one_runs_and_the_others_are_told_so(state: State) -> None:
    gate = Gate()
    async with live.serve(host_of(ScriptedAgent([gate, "answer"]), state).app) as served:
        conversation = await served.client.conversations.create()
        turns = [
            asyncio.create_task(
                served.client.responses.create(model="a", input=f"q{number}", conversation=conversation.id)
            )
            for number in range(8)
        ]
        async with asyncio.timeout(SECONDS):
            done, running = await asyncio.wait(turns, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 7:
                more, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                done |= more
        gate.open()
        winner = await asyncio.wait_for(next(iter(running)), SECONDS)
        shown = await history(served, conversation.id)
        later = await served.client.responses.create(model="a", input="later", conversation=conversation.id)

    for turn in done:
        error = turn.exception()
        assert isinstance(error, openai.BadRequestError)
        body: Any = error.body
        assert (body["code"], body["param"]) == ("conversation_locked", "conversation")
    assert winner.status == later.status == "completed"
    assert len(shown) == 2
    assert shown[1] == "answer"


@pytest.mark.behaviour("A5")
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_failed_turn_appends_nothing_and_frees_the_conversation(state: State, *, is_streamed: bool) -> None:
    model = ScriptedChatClient(["one"], ["half", RuntimeError("secret")], ["two"])
    async with live.serve(host_of(Agent(client=model), state).app) as served:
        conversation = await served.client.conversations.create()
        create = served.client.responses.create
        await create(model="a", input="q1", conversation=conversation.id)
        if is_streamed:
            stream = await create(model="a", input="q2", conversation=conversation.id, stream=True)
            events = [event async for event in stream]
            assert events[-1].type == "response.failed"
        else:
            with pytest.raises(openai.InternalServerError):
                await create(model="a", input="q2", conversation=conversation.id)
        await create(model="a", input="q3", conversation=conversation.id)
        shown = await history(served, conversation.id)

    assert shown == ["q1", "one", "q3", "two"]
    assert texts(model.calls[2].messages) == ["q1", "one", "q3"]


async def test_a_cancelled_turn_appends_nothing_and_frees_the_conversation(state: State) -> None:
    gate = Gate()
    model = ScriptedChatClient([gate, "never"], ["two"])
    async with live.serve(host_of(Agent(client=model), state).app) as served:
        conversation = await served.client.conversations.create()
        running = await served.client.responses.create(
            model="a", input="q1", conversation=conversation.id, background=True
        )
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        await served.client.responses.cancel(running.id)
        await served.client.responses.create(model="a", input="q2", conversation=conversation.id)
        shown = await history(served, conversation.id)

    assert shown == ["q2", "two"]


async def test_an_unstored_turn_is_in_the_conversation_and_nowhere_else(state: State) -> None:
    model = ScriptedChatClient(["one"], ["two"], ["three"])
    async with live.serve(host_of(Agent(client=model), state).app) as served:
        conversation = await served.client.conversations.create()
        create = served.client.responses.create
        await create(model="a", input="q1", conversation=conversation.id)
        unstored = await create(model="a", input="q2", conversation=conversation.id, store=False)
        await create(model="a", input="q3", conversation=conversation.id)
        with pytest.raises(openai.NotFoundError):
            await served.client.responses.retrieve(unstored.id)

    assert texts(model.calls[2].messages) == ["q1", "one", "q2", "two", "q3"]


async def test_items_that_were_added_or_deleted_between_turns_are_what_the_agent_sees(state: State) -> None:
    model = ScriptedChatClient(["one"], ["two"], ["three"])
    async with live.serve(host_of(Agent(client=model), state).app) as served:
        client = served.client
        conversation = await client.conversations.create()
        await client.responses.create(model="a", input="q1", conversation=conversation.id)
        await client.conversations.items.create(
            conversation.id, items=[{"type": "message", "role": "user", "content": "by the way"}]
        )
        await client.responses.create(model="a", input="q2", conversation=conversation.id)
        items: list[Any] = [i async for i in client.conversations.items.list(conversation.id, order="asc")]
        await client.conversations.items.delete(str(items[0].id), conversation_id=conversation.id)
        await client.responses.create(model="a", input="q3", conversation=conversation.id)

    assert texts(model.calls[1].messages) == ["q1", "one", "by the way", "q2"]
    assert texts(model.calls[2].messages) == ["one", "by the way", "q2", "two", "q3"]


async def test_a_call_of_one_turn_is_answered_in_the_next(state: State) -> None:
    call = Content.from_function_call("call_1", "lookup", arguments="{}")
    model = ScriptedChatClient([call], ["found"])
    async with live.serve(host_of(Agent(client=model), state, run_hook=let_all_through).app) as served:
        conversation = await served.client.conversations.create()
        lookup: Any = {"type": "function", "name": "lookup", "parameters": {"type": "object"}, "strict": False}
        options: dict[str, Any] = {"model": "a", "conversation": conversation.id, "tools": [lookup]}
        await served.client.responses.create(input="q", **options)
        with pytest.raises(openai.BadRequestError, match="No tool output found"):
            await served.client.responses.create(input="and?", **options)
        answer: Any = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
        response = await served.client.responses.create(input=[answer], **options)
        shown = await history(served, conversation.id)

    assert response.output_text == "found"
    assert shown == ["q", "function_call", "function_call_output", "found"]


async def test_a_response_of_a_conversation_can_be_continued_by_id(state: State) -> None:
    model = ScriptedChatClient(["one"], ["two"], ["branch"])
    async with live.serve(host_of(Agent(client=model), state).app) as served:
        create = served.client.responses.create
        conversation = await served.client.conversations.create()
        first = await create(model="a", input="q1", conversation=conversation.id)
        await create(model="a", input="q2", conversation=conversation.id)
        branch = await create(model="a", input="aside", previous_response_id=first.id)
        listed = [item async for item in served.client.responses.input_items.list(branch.id, order="asc")]
        shown = await history(served, conversation.id)

    assert texts(model.calls[2].messages) == ["q1", "one", "aside"]
    assert len(listed) == 3
    assert shown == ["q1", "one", "q2", "two"]


async def test_a_deleted_conversation_is_unknown_and_its_responses_stay(state: State) -> None:
    async with live.serve(host_of(ScriptedAgent(["one"]), state).app) as served:
        conversation = await served.client.conversations.create()
        response = await served.client.responses.create(model="a", input="q", conversation=conversation.id)
        await served.client.conversations.delete(conversation.id)
        with pytest.raises(openai.NotFoundError) as caught:
            await served.client.responses.create(model="a", input="q", conversation=conversation.id)
        kept = await served.client.responses.retrieve(response.id)

    assert "Conversation with id" in str(caught.value)
    assert kept.output_text == "one"


@pytest.mark.behaviour("A8")
async def test_a_conversation_and_a_previous_response_exclude_each_other(state: State) -> None:
    async with live.serve(host_of(ScriptedAgent(["one"]), state).app) as served:
        conversation = await served.client.conversations.create()
        first = await served.client.responses.create(model="a", input="q", conversation=conversation.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await served.client.responses.create(
                model="a", input="q", conversation=conversation.id, previous_response_id=first.id
            )

    body: Any = caught.value.body
    assert body["code"] == "mutually_exclusive_parameters"
