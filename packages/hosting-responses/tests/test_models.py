"""Several targets behind one host: chosen by `model`, and nothing of one ever gets to another."""

from __future__ import annotations

import asyncio
from typing import Any

import live
import openai
import pytest
from states import State
from team import SECONDS, Listener, Team, ended, host_of, refusal

from agent_framework_hosting import ChannelRequest
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel


async def test_models_are_listed_in_their_order_and_found_by_their_names(state: State) -> None:
    async with live.serve(host_of(Team().targets, state).app) as served:
        listed = await served.client.models.list()
        critic = await served.client.models.retrieve("team/critic")
        with pytest.raises(openai.NotFoundError, match="The model 'agent of writer' does not exist"):
            await served.client.models.retrieve("agent of writer")

    assert [model.id for model in listed.data] == ["writer", "team/critic", "steps"]
    assert critic == listed.data[1]


async def test_the_model_of_a_request_chooses_who_answers(state: State) -> None:
    team = Team()
    async with live.serve(host_of(team.targets, state).app) as served:
        create: Any = served.client.responses.create
        answers = [await create(model=name, input="q") for name in ("writer", "team/critic", "steps")]
        streamed = [event async for event in await create(model="team/critic", input="q", stream=True)]
        background = await create(model="steps", input="later", background=True)
        later = await ended(served, background.id)

    assert [answer.model for answer in (*answers, later)] == ["writer", "team/critic", "steps", "steps"]
    assert [answer.output_text for answer in (*answers, later)] == ["q", "q", "q", "later"]
    assert streamed[-1].response.model == "team/critic"
    assert (len(team.writer.runs), len(team.critic.runs)) == (1, 2)


async def test_a_model_that_is_not_there_is_refused_and_so_is_none_at_all(state: State) -> None:
    team = Team()
    async with live.serve(host_of(team.targets, state).app) as served:
        create: Any = served.client.responses.create
        unknown = await refusal(create(model="gpt-4", input="q"))
        missing = await refusal(create(input="q"))
        conversation = await served.client.conversations.create()
        of_nobody = await refusal(create(input="q", conversation=conversation.id))
        not_found = await refusal(create(input="q", previous_response_id="resp_unknown"))
        with pytest.raises(openai.NotFoundError):
            await create(input="q", conversation="conv_unknown")

    assert unknown == ("model", "model_not_found", "The requested model 'gpt-4' does not exist.")
    assert missing == of_nobody == ("model", "missing_required_parameter", "Missing required parameter: 'model'.")
    assert not_found[:2] == ("previous_response_id", "previous_response_not_found")
    assert not team.writer.runs


async def test_a_mapping_of_one_is_served_as_one_target_is(state: State) -> None:
    async with live.serve(host_of({"writer": Listener("writer")}, state).app) as served:
        any_name = await served.client.responses.create(model="gpt-4", input="q")
        no_name = await served.client.responses.create(input="q", previous_response_id=any_name.id)

    assert (any_name.model, no_name.model, no_name.output_text) == ("gpt-4", "writer", "q|q")


# --- Who goes on


async def test_a_chain_goes_on_with_the_target_that_answered_last(state: State) -> None:
    team = Team()
    async with live.serve(host_of(team.targets, state).app) as served:
        create: Any = served.client.responses.create
        for name, last in (("writer", "a|b|c"), ("team/critic", "a|b|c"), ("steps", "a+b+c")):
            response = await create(model=name, input="a")
            for text in ("b", "c"):
                response = await create(input=text, previous_response_id=response.id)
            assert (response.model, response.output_text) == (name, last)

    assert team.writer.told == team.critic.told == [1, 1, 1]


async def test_another_model_is_told_what_was_said_and_never_given_anothers_session(state: State) -> None:
    team = Team()
    async with live.serve(host_of(team.targets, state).app) as served:
        create: Any = served.client.responses.create
        first = await create(model="writer", input="a")
        second = await create(model="team/critic", input="b", previous_response_id=first.id)
        third = await create(input="c", previous_response_id=second.id)
        back = await create(model="writer", input="d", previous_response_id=third.id)
        branch = await create(model="team/critic", input="x", previous_response_id=first.id)

    assert second.output_text == "a|a|b"
    assert third.output_text == "a|a|b|c"
    # Its own first turn it knows: what it is told is what came since, the answers of the other included.
    assert back.output_text == "a|b|a|a|b|c|a|a|b|c|d"
    assert branch.output_text == "a|a|x"
    assert (team.writer.told, team.critic.told) == ([1, 5], [3, 1, 3])


async def test_in_a_conversation_another_model_is_told_what_was_said(state: State) -> None:
    team = Team()
    async with live.serve(host_of(team.targets, state).app) as served:
        create: Any = served.client.responses.create
        conversation = (await served.client.conversations.create()).id
        answers = [
            await create(conversation=conversation, input=text, **({"model": name} if name else {}))
            for name, text in (("writer", "a"), (None, "b"), ("team/critic", "c"), (None, "d"), ("writer", "e"))
        ]
        unknown = await refusal(create(conversation=conversation, input="f", model="gpt-4"))

    assert [answer.model for answer in answers] == ["writer", "writer", "team/critic", "team/critic", "writer"]
    assert answers[1].output_text == "a|b"
    assert answers[2].output_text == "a|a|b|a|b|c"
    assert answers[3].output_text == answers[2].output_text + "|d"
    assert (team.writer.told, team.critic.told) == ([1, 1, 5], [5, 1])
    assert unknown[0] == "model"


async def test_a_workflow_keeps_its_own_state_while_others_answer_in_between(state: State) -> None:
    async with live.serve(host_of(Team().targets, state).app) as served:
        create: Any = served.client.responses.create
        first = await create(model="steps", input="a")
        between = await create(model="writer", input="b", previous_response_id=first.id)
        last = await create(model="steps", input="c", previous_response_id=between.id)
        branch = await create(input="x", previous_response_id=first.id)

    assert between.output_text == "a|a|b"
    assert (last.output_text, branch.output_text) == ("a+c", "a+x")


# --- What one has asked


async def test_what_a_workflow_asks_is_answered_by_nobody_else(state: State) -> None:
    team = Team()
    async with live.serve(host_of(team.targets, state).app) as served:
        create: Any = served.client.responses.create
        asking = await create(model="steps", input="ask")
        call: Any = asking.output[0]
        answer: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "yes"}]
        wrong = await refusal(create(model="writer", input=answer, previous_response_id=asking.id))
        right = await create(input=answer, previous_response_id=asking.id)

        conversation = (await served.client.conversations.create()).id
        call = (await create(model="steps", input="ask", conversation=conversation)).output[0]
        answer[0]["call_id"] = call.call_id
        also_wrong = await refusal(create(model="writer", input=answer, conversation=conversation))
        also_right = await create(input=answer, conversation=conversation)

    assert wrong[0] == also_wrong[0] == "model"
    assert "'steps'" in wrong[2]
    assert right.output_text == also_right.output_text == "answer yes"
    assert not team.writer.runs


async def test_the_run_hook_and_the_labels_are_those_of_the_chosen_target(state: State) -> None:
    team, seen = Team(), list[object]()

    def run_hook(request: ChannelRequest, *, target: object, **_: Any) -> ChannelRequest:
        seen.append(target)
        return request

    async with live.serve(host_of(team.targets, state, channel=ResponsesChannel(run_hook=run_hook)).app) as served:
        for name in ("writer", "team/critic"):
            await served.client.responses.create(model=name, input="q")

    assert seen == [team.writer, team.critic]


async def test_a_run_of_one_target_does_not_keep_another_waiting(state: State) -> None:
    gate = Gate()
    slow = ScriptedAgent([gate, "done"])
    async with live.serve(host_of({"slow": slow, "fast": ScriptedAgent(["quick"])}, state).app) as served:
        waiting = asyncio.create_task(served.client.responses.create(model="slow", input="q"))
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        fast = await served.client.responses.create(model="fast", input="q")
        gate.open()
        response = await asyncio.wait_for(waiting, SECONDS)

    assert (fast.output_text, response.output_text) == ("quick", "done")
