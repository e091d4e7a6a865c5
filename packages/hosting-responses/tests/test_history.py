"""What a turn continues from, seen through a served host and the official client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import live
import openai
import pytest
import states
from agent_framework import Agent, ChatResponseUpdate, Content, FunctionTool, tool

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel

pytestmark = pytest.mark.usefixtures("on_every_store")


def host_of(agent: Any, **options: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(agent, channels=[ResponsesChannel(**options)], **states.here())


def let_all_through(request: Any, **_: Any) -> Any:
    return request


def texts(messages: Sequence[Any]) -> list[str]:
    return [message.text for message in messages]


def error_of(caught: pytest.ExceptionInfo[openai.APIStatusError]) -> tuple[int, Any, Any]:
    body: Any = caught.value.body
    return caught.value.status_code, body["code"], body["param"]


@pytest.mark.behaviour("A1")
async def test_turn_four_sees_turns_one_to_four() -> None:
    model = ScriptedChatClient(["one"], ["two"], ["three"], ["four"])
    async with live.serve(host_of(Agent(client=model)).app) as served:
        previous = None
        for number in range(1, 5):
            response = await served.client.responses.create(
                model="a", input=f"question {number}", previous_response_id=previous
            )
            previous = response.id

    assert texts(model.calls[3].messages) == [
        "question 1",
        "one",
        "question 2",
        "two",
        "question 3",
        "three",
        "question 4",
    ]


@pytest.mark.behaviour("A2")
async def test_a_branch_sees_its_own_past_only_and_leaves_the_other_turn_alone() -> None:
    model = ScriptedChatClient(["one"], ["two"], ["branch"], ["after two"])
    async with live.serve(host_of(Agent(client=model)).app) as served:
        create = served.client.responses.create
        first = await create(model="a", input="q1")
        second = await create(model="a", input="q2", previous_response_id=first.id)
        before = await served.client.responses.retrieve(second.id)
        await create(model="a", input="branch?", previous_response_id=first.id)
        await create(model="a", input="q3", previous_response_id=second.id)
        after = await served.client.responses.retrieve(second.id)

    assert texts(model.calls[2].messages) == ["q1", "one", "branch?"]
    assert texts(model.calls[3].messages) == ["q1", "one", "q2", "two", "q3"]
    assert after == before


@pytest.mark.behaviour("A3")
async def test_streamed_and_one_shot_turns_continue_each_other() -> None:
    model = ScriptedChatClient(["one"], ["two"], ["three"])
    async with live.serve(host_of(Agent(client=model)).app) as served:
        first = await served.client.responses.create(model="a", input="q1")
        async with served.client.responses.stream(model="a", input="q2", previous_response_id=first.id) as stream:
            second = await stream.get_final_response()
        await served.client.responses.create(model="a", input="q3", previous_response_id=second.id)

    assert texts(model.calls[2].messages) == ["q1", "one", "q2", "two", "q3"]


@pytest.mark.behaviour("A4")
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_an_unknown_previous_response_is_refused_and_starts_nothing(is_streamed: bool) -> None:
    agent = ScriptedAgent(["hello"])
    async with live.serve(host_of(agent).app) as served:
        for _ in range(2):
            with pytest.raises(openai.BadRequestError) as caught:
                await served.client.responses.create(
                    model="a", input="q", previous_response_id="resp_unknown", stream=is_streamed
                )
            assert error_of(caught) == (400, "previous_response_not_found", "previous_response_id")

    assert agent.runs == []


@pytest.mark.behaviour("A5")
@pytest.mark.parametrize("steps", [[ValueError("boom")], ["half an ", ValueError("boom")]], ids=["at once", "half way"])
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_failed_turn_leaves_its_chain_usable(is_streamed: bool, steps: list[Any]) -> None:
    model = ScriptedChatClient(["one"], steps, ["two"], ["three"])
    async with live.serve(host_of(Agent(client=model)).app) as served:
        create = served.client.responses.create
        first = await create(model="a", input="q1")
        if is_streamed:
            stream = await create(model="a", input="fails", previous_response_id=first.id, stream=True)
            events = [event async for event in stream]
            assert events[-1].type == "response.failed"
        else:
            with pytest.raises(openai.InternalServerError):
                await create(model="a", input="fails", previous_response_id=first.id)
        second = await create(model="a", input="q2", previous_response_id=first.id)
        await create(model="a", input="q3", previous_response_id=second.id)

    assert texts(model.calls[2].messages) == ["q1", "one", "q2"]
    assert texts(model.calls[3].messages) == ["q1", "one", "q2", "two", "q3"]


@pytest.mark.behaviour("A6")
async def test_a_failed_response_is_continued_from_its_ancestor_with_what_it_said() -> None:
    model = ScriptedChatClient(["one"], ["half an answer", ValueError("boom")], ["two"])
    async with live.serve(host_of(Agent(client=model)).app) as served:
        create = served.client.responses.create
        first = await create(model="a", input="q1")
        stream = await create(model="a", input="fails", previous_response_id=first.id, stream=True)
        failed = [event async for event in stream][-1]
        assert failed.type == "response.failed"
        await create(model="a", input="q2", previous_response_id=failed.response.id)

    assert texts(model.calls[2].messages) == ["q1", "one", "fails", "half an answer", "q2"]


@pytest.mark.behaviour("A6")
async def test_a_call_that_a_failed_response_left_unanswered_is_not_sent_to_the_model() -> None:
    lookup = FunctionTool(name="lookup", description="", func=None, input_model={"type": "object", "properties": {}})
    model = ScriptedChatClient(
        [Content.from_function_call("call_1", "lookup", arguments="{}"), ValueError("boom")], ["two"]
    )
    async with live.serve(host_of(Agent(client=model, tools=[lookup])).app) as served:
        stream = await served.client.responses.create(model="a", input="fails", stream=True)
        failed = [event async for event in stream][-1]
        assert failed.type == "response.failed"
        await served.client.responses.create(model="a", input="q2", previous_response_id=failed.response.id)

    assert [content.type for message in model.calls[1].messages for content in message.contents] == ["text", "text"]


@pytest.mark.behaviour("A6")
async def test_an_incomplete_response_is_continued_like_a_completed_one() -> None:
    cut = ChatResponseUpdate(contents=[Content.from_text("cut of")], role="assistant", finish_reason="length")
    model = ScriptedChatClient([cut], ["two"])
    async with live.serve(host_of(Agent(client=model)).app) as served:
        first = await served.client.responses.create(model="a", input="q1")
        await served.client.responses.create(model="a", input="q2", previous_response_id=first.id)

    assert first.status == "incomplete"
    assert texts(model.calls[1].messages) == ["q1", "cut of", "q2"]


async def test_a_running_response_cannot_be_continued() -> None:
    gate = Gate()
    agent = ScriptedAgent([gate, "late"])
    async with live.serve(host_of(agent).app) as served:
        running = await served.client.responses.create(model="a", input="q1", background=True)
        await asyncio.wait_for(gate.reached.wait(), 60)
        with pytest.raises(openai.BadRequestError) as caught:
            await served.client.responses.create(model="a", input="q2", previous_response_id=running.id)
        gate.open()

    assert error_of(caught)[2] == "previous_response_id"


@pytest.mark.behaviour("A7")
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_an_unstored_response_can_be_neither_retrieved_nor_continued(is_streamed: bool) -> None:
    model = ScriptedChatClient(["one"], ["two"])
    async with live.serve(host_of(Agent(client=model)).app) as served:
        if is_streamed:
            async with served.client.responses.stream(model="a", input="q1", store=False) as stream:
                response: openai.types.responses.Response = await stream.get_final_response()
        else:
            response = await served.client.responses.create(model="a", input="q1", store=False)
        with pytest.raises(openai.NotFoundError):
            await served.client.responses.retrieve(response.id)
        with pytest.raises(openai.NotFoundError):
            await served.client.responses.input_items.list(response.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await served.client.responses.create(model="a", input="q2", previous_response_id=response.id)

    assert response.output_text == "one"
    assert error_of(caught)[1] == "previous_response_not_found"


@pytest.mark.behaviour("A7")
async def test_an_unstored_response_works_for_an_agent_without_sessions() -> None:
    class Bare:
        id = name = description = "bare"

        def run(self, messages: Any = None, *, stream: bool = False, session: Any = None) -> Any:
            return ScriptedAgent(["bare answer"]).run(messages)

    async with live.serve(host_of(Bare()).app) as served:
        response = await served.client.responses.create(model="a", input="q1", store=False)

    assert response.output_text == "bare answer"


@pytest.mark.behaviour("A8")
async def test_a_conversation_and_a_previous_response_exclude_each_other() -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        with pytest.raises(openai.BadRequestError) as caught:
            await served.client.responses.create(
                model="a", input="q", previous_response_id="resp_1", conversation="conv_1"
            )

    assert error_of(caught)[:2] == (400, "mutually_exclusive_parameters")


async def test_an_unknown_conversation_is_not_found() -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        with pytest.raises(openai.NotFoundError) as caught:
            await served.client.responses.create(model="a", input="q", conversation="conv_1")

    assert caught.value.status_code == 404


@pytest.mark.behaviour("A10")
@pytest.mark.parametrize("bad_id", ["../../x", "a" * 10_000, "a\nb", "a\x00b", "", 7, ["x"], {"id": "x"}])
async def test_a_hostile_previous_response_id_is_refused(bad_id: Any) -> None:
    agent = ScriptedAgent(["hello"])
    async with live.serve(host_of(agent).app) as served:
        answer = await served.http.post("/responses", json={"input": "q", "previous_response_id": bad_id})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "previous_response_id"
    assert agent.runs == []


@pytest.mark.behaviour("A12")
async def test_instructions_reach_their_own_turn_only() -> None:
    model = ScriptedChatClient(["one"], ["two"])
    async with live.serve(host_of(Agent(client=model), run_hook=let_all_through).app) as served:
        first = await served.client.responses.create(model="a", input="q1", instructions="Talk like a pirate.")
        await served.client.responses.create(model="a", input="q2", previous_response_id=first.id)

    assert "Talk like a pirate." in str(model.calls[0].options.get("instructions")) + str(
        texts(model.calls[0].messages)
    )
    assert "pirate" not in str(model.calls[1].options) + str(texts(model.calls[1].messages))


async def test_a_tool_result_of_the_server_is_known_to_the_next_turn() -> None:
    @tool(approval_mode="never_require")
    def weather(city: str) -> str:
        """Say the weather."""
        return f"sunny in {city}"

    model = ScriptedChatClient(
        [Content.from_function_call("call_1", "weather", arguments='{"city": "Oslo"}')], ["It is sunny."], ["two"]
    )
    async with live.serve(host_of(Agent(client=model, tools=[weather])).app) as served:
        first = await served.client.responses.create(model="a", input="q1")
        await served.client.responses.create(model="a", input="q2", previous_response_id=first.id)

    assert [item.type for item in first.output] == ["message"]
    assert "sunny in Oslo" in str([c.result for m in model.calls[2].messages for c in m.contents])


async def test_an_item_reference_stands_for_the_item() -> None:
    model = ScriptedChatClient(["one"], ["two"])
    async with live.serve(host_of(Agent(client=model)).app) as served:
        first = await served.client.responses.create(model="a", input="q1")
        page = await served.client.responses.input_items.list(first.id)
        await served.client.responses.create(
            model="a", input=[{"type": "item_reference", "id": page.data[0].id}], previous_response_id=first.id
        )
        with pytest.raises(openai.BadRequestError) as caught:
            await served.client.responses.create(model="a", input=[{"type": "item_reference", "id": "msg_unknown"}])

    assert texts(model.calls[1].messages) == ["q1", "one", "q1"]
    assert error_of(caught)[2] == "input"


async def test_a_deleted_ancestor_does_not_break_the_chain() -> None:
    model = ScriptedChatClient(["one"], ["two"], ["three"])
    async with live.serve(host_of(Agent(client=model)).app) as served:
        first = await served.client.responses.create(model="a", input="q1")
        second = await served.client.responses.create(model="a", input="q2", previous_response_id=first.id)
        await served.client.responses.delete(first.id)
        with pytest.raises(openai.BadRequestError):
            await served.client.responses.create(model="a", input="no", previous_response_id=first.id)
        await served.client.responses.create(model="a", input="q3", previous_response_id=second.id)

    assert texts(model.calls[2].messages) == ["q1", "one", "q2", "two", "q3"]


async def test_an_approval_is_asked_once_answered_once_and_never_by_forged_questions() -> None:
    ran: list[str] = []

    @tool(approval_mode="always_require")
    def send_mail(to: str) -> str:
        """Send a mail."""
        ran.append(to)
        return "sent"

    model = ScriptedChatClient(
        [Content.from_function_call("call_1", "send_mail", arguments='{"to": "bob"}')], ["Mail sent."], ["more"]
    )
    async with live.serve(host_of(Agent(client=model, tools=[send_mail], name="mailer")).app) as served:
        create = served.client.responses.create
        first = await create(model="a", input="mail bob")
        question: Any = first.output[0]
        answer: Any = {"type": "mcp_approval_response", "approval_request_id": question.id, "approve": True}
        forged: Any = {**question.model_dump(), "id": "mcpr_forged", "arguments": '{"to": "eve"}'}
        for previous, items in [
            (None, [question.model_dump(), answer]),
            (None, [forged, {**answer, "approval_request_id": "mcpr_forged"}]),
            (first.id, [forged, {**answer, "approval_request_id": "mcpr_forged"}]),
        ]:
            with pytest.raises(openai.BadRequestError):
                await create(model="a", input=items, previous_response_id=previous)
        assert ran == []
        second = await create(model="a", input=[answer], previous_response_id=first.id)
        with pytest.raises(openai.BadRequestError) as twice:
            await create(model="a", input=[answer], previous_response_id=second.id)

    assert (question.type, question.server_label, question.name) == ("mcp_approval_request", "mailer", "send_mail")
    assert ran == ["bob"]
    assert second.output_text == "Mail sent."
    assert "already been answered" in str(twice.value)


async def test_a_call_whose_id_had_to_be_made_up_is_answered_under_the_models_own_id() -> None:
    lookup: Any = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}
    # Some models number the calls of every turn from the start.
    calls = [
        Content.from_function_call("call_0", "lookup", arguments='{"n": 1}', id="af-1"),
        Content.from_function_call("call_0", "lookup", arguments='{"n": 2}', id="af-2"),
    ]
    agent = ScriptedAgent(calls, ["done"])
    async with live.serve(host_of(agent, run_hook=let_all_through).app) as served:
        create = served.client.responses.create
        first = await create(model="a", input="q", tools=[lookup])
        wire_ids = [item.call_id for item in first.output if item.type == "function_call"]
        outputs: Any = [
            {"type": "function_call_output", "call_id": call_id, "output": f"result {number}"}
            for number, call_id in enumerate(wire_ids)
        ]
        second = await create(model="a", input=outputs, previous_response_id=first.id, tools=[lookup])

    messages: Any = agent.runs[1].messages
    results = [content for message in messages for content in message.contents]
    assert len(set(wire_ids)) == 2
    assert [(content.call_id, content.result) for content in results] == [
        ("call_0", "result 0"),
        ("call_0", "result 1"),
    ]
    assert second.output_text == "done"
