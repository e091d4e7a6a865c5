"""The official client, sync and async, against a served host."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import live
import openai
import pytest
import raw
import states
import wire
from agent_framework import Agent, AgentResponse, AgentResponseUpdate, Content, Message, tool
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette

from agent_framework_hosting import AgentFrameworkHost, ChannelRequest
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings


def host_of(agent: Any, **options: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(agent, channels=[ResponsesChannel(**options)], **states.here())


def let_all_through(request: Any, **_: Any) -> Any:
    return request


class City(BaseModel):
    name: str
    country: str


OSLO = '{"name": "Oslo", "country": "Norway"}'
WEATHER_TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "Say the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


@pytest.mark.usefixtures("on_every_store")
@pytest.mark.behaviour("B1", "D1")
async def test_one_shot_streamed_and_background_answers_are_the_stored_ones() -> None:
    async with live.serve(host_of(ScriptedAgent(["Hel", "lo"])).app) as served:
        responses = served.client.responses
        one_shot = await responses.create(model="a", input="q")
        async with responses.stream(model="a", input="q") as stream:
            streamed = await stream.get_final_response()
        async with responses.stream(model="a", input="q", background=True) as stream:
            background = await stream.get_final_response()

        for response in (one_shot, streamed, background):
            stored = await responses.retrieve(response.id)
            assert (
                stored.model_dump()
                == openai.types.responses.Response.model_validate(
                    response.model_dump(exclude={"output": {"__all__": {"content": {"__all__": {"parsed"}}}}})
                ).model_dump()
            )
            assert stored.output_text == "Hello"
            assert stored.status == "completed"


async def test_the_sync_client_can_do_all_of_it() -> None:
    def work(client: openai.OpenAI) -> None:
        created = client.responses.create(model="a", input="q")
        assert created.output_text == "Hello"
        with client.responses.stream(model="a", input="q", previous_response_id=created.id) as stream:
            streamed = stream.get_final_response()
        assert client.responses.retrieve(streamed.id).output_text == "Hello"
        items = list(client.responses.input_items.list(streamed.id, order="asc"))
        assert [item.type for item in items] == ["message", "message", "message"]
        background = client.responses.create(model="a", input="q", background=True, stream=True)
        events = list(background)
        final = events[-1]
        assert final.type == "response.completed"
        replay = list(client.responses.retrieve(final.response.id, stream=True, starting_after=2))
        assert [event.sequence_number for event in replay] == [event.sequence_number for event in events[3:]]
        assert client.responses.cancel(final.response.id).status == "completed"
        client.responses.delete(created.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(created.id)

    async with live.serve(host_of(ScriptedAgent(["Hel", "lo"])).app) as served:
        await live.in_thread(lambda: work(served.sync_client))


@pytest.mark.usefixtures("on_every_store")
@pytest.mark.behaviour("E4")
async def test_structured_output_is_parsed_by_the_client_when_the_operator_lets_it_through() -> None:
    model = ScriptedChatClient([OSLO], [OSLO[:10], OSLO[10:]])
    async with live.serve(host_of(Agent(client=model), run_hook=let_all_through).app) as served:
        parsed = await served.client.responses.parse(model="a", input="q", text_format=City)
        async with served.client.responses.stream(model="a", input="q", text_format=City) as stream:
            streamed = await stream.get_final_response()

    assert parsed.output_parsed == City(name="Oslo", country="Norway")
    assert streamed.output_parsed == City(name="Oslo", country="Norway")
    assert model.calls[0].options["response_format"]


async def test_a_client_tool_ends_the_response_and_its_output_continues_it() -> None:
    model = ScriptedChatClient(
        [
            Content.from_function_call("call_1", "weather", arguments='{"ci'),
            Content.from_function_call("call_1", "weather", arguments='ty": "Oslo"}'),
        ],
        ["It is sunny."],
    )
    async with live.serve(host_of(Agent(client=model), run_hook=let_all_through).app) as served:
        create = served.client.responses.create
        async with served.client.responses.stream(model="a", input="q", tools=[WEATHER_TOOL]) as stream:
            first = await stream.get_final_response()
        call: Any = first.output[0]
        with pytest.raises(openai.BadRequestError) as unanswered:
            await create(model="a", input="never mind", previous_response_id=first.id, tools=[WEATHER_TOOL])
        output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        with pytest.raises(openai.BadRequestError) as unknown:
            await create(model="a", input=[output | {"call_id": "call_x"}], previous_response_id=first.id)
        second = await create(model="a", input=[output], previous_response_id=first.id, tools=[WEATHER_TOOL])

    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Oslo"})
    assert first.status == "completed"
    assert "No tool output found for function call call_1." in str(unanswered.value)
    assert "No tool call found for function call output with call_id call_x." in str(unknown.value)
    assert second.output_text == "It is sunny."


@pytest.mark.usefixtures("on_every_store")
@pytest.mark.behaviour("E4")
async def test_without_a_run_hook_nothing_that_the_caller_chooses_reaches_the_agent() -> None:
    model = ScriptedChatClient(["hello"])
    async with live.serve(host_of(Agent(client=model, instructions="Be kind.")).app) as served:
        response = await served.client.responses.create(
            model="other", input="q", instructions="Be rude.", temperature=0.1, tools=[WEATHER_TOOL], store=True
        )

    sent = model.calls[0].options
    assert "rude" not in str(sent) + str([message.text for message in model.calls[0].messages])
    assert not sent.get("tools")
    assert not {"temperature", "model", "store"} & set(sent)
    assert response.instructions == "Be rude."


async def test_a_call_that_the_server_ran_is_shown_in_the_form_the_operator_chose() -> None:
    @tool(approval_mode="never_require")
    def weather(city: str) -> str:
        """Say the weather."""
        return f"sunny in {city}"

    shown: dict[str, list[str]] = {}
    forms: list[Any] = ["hide", "function_call", "mcp_call"]
    for form in forms:
        model = ScriptedChatClient(
            [Content.from_function_call("call_1", "weather", arguments='{"city": "Oslo"}')], ["It is sunny."]
        )
        agent = Agent(client=model, tools=[weather], name="forecaster")
        settings = ResponsesSettings(server_calls=form)
        async with (
            live.serve(host_of(agent, settings=settings).app) as served,
            served.client.responses.stream(model="a", input="q") as stream,
        ):
            response = await stream.get_final_response()
        shown[form] = [item.type for item in response.output]

    assert shown == {
        "hide": ["message"],
        "function_call": ["function_call", "function_call_output", "message"],
        "mcp_call": ["mcp_call", "message"],
    }


@pytest.mark.parametrize("path", ["", "/v1", "/agents/a", "/v1/agents/a"])
async def test_the_api_is_served_under_its_path_and_under_v1(path: str) -> None:
    for channel_path in ("/responses", "/agents/a/responses"):
        async with live.serve(
            AgentFrameworkHost(ScriptedAgent(["hello"]), channels=[ResponsesChannel(channel_path)]).app
        ) as served:
            created = await served.http.post(f"{path}/responses", json={"input": "q"})
            models = await served.http.get(f"{path}/models")
        is_its_own = ("agents" in path) == ("agents" in channel_path)
        assert (created.status_code, models.status_code) == ((200, 200) if is_its_own else (404, 404))


async def test_the_exact_path_is_answered_without_a_redirect() -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        answer = await served.http.post("/responses", json={"input": "q"}, follow_redirects=False)
        other = await served.http.post("/responses/", json={"input": "q"}, follow_redirects=False)

    assert (answer.status_code, other.status_code) == (200, 404)


async def test_a_channel_at_the_root_answers_the_root() -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"]), path="").app) as served:
        created = await served.http.post("/", json={"input": "q"})
        stored = await served.http.get(f"/{created.json()['id']}")
        models = [await served.http.get(path) for path in ("/models", "/v1/models")]

    assert stored.json() == created.json()
    assert [listed.json()["object"] for listed in models] == ["list", "list"]


async def test_the_models_are_the_target() -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"], name="team/agent")).app) as served:
        listed = [model async for model in await served.client.models.list()]
        one = await served.client.models.retrieve("team/agent")
        with pytest.raises(openai.NotFoundError):
            await served.client.models.retrieve("other")

    assert [model.id for model in listed] == [one.id] == ["team/agent"]


async def test_a_strict_host_knows_its_own_name_only() -> None:
    settings = ResponsesSettings(strict_model=True)
    async with live.serve(host_of(ScriptedAgent(["hello"], name="mine"), settings=settings).app) as served:
        mine = await served.client.responses.create(model="mine", input="q")
        with pytest.raises(openai.BadRequestError) as caught:
            await served.client.responses.create(model="other", input="q")

    assert mine.model == "mine"
    assert caught.value.code == "model_not_found"


async def test_hooks_see_and_change_requests_updates_and_results() -> None:
    seen: list[Any] = []

    def run_hook(request: Any, *, target: Any, protocol_request: Any) -> Any:
        seen.append((target.name, protocol_request["input"], request.options["max_tokens"]))
        return request

    async def update_hook(update: AgentResponseUpdate) -> AgentResponseUpdate | None:
        return None if update.text == "secret" else update

    def response_hook(result: Any, *, request: Any, channel_name: str) -> Any:
        seen.append((result.result.text, result.session is not None, channel_name, request.stream))
        answer = AgentResponse(messages=[Message("assistant", ["changed"])])
        return type(result)(answer, result.session)

    host = host_of(
        ScriptedAgent(["Hel", "secret", "lo"]),
        run_hook=run_hook,
        stream_update_hook=update_hook,
        response_hook=response_hook,
    )
    async with live.serve(host.app) as served:
        one_shot = await served.client.responses.create(model="a", input="q", max_output_tokens=99)
        async with served.client.responses.stream(model="a", input="q", max_output_tokens=99) as stream:
            streamed = await stream.get_final_response()

    assert one_shot.output_text == "changed"
    assert streamed.output_text == "Hello"
    assert seen == [
        ("scripted", "q", 99),
        ("Hello", True, "responses", False),
        ("scripted", "q", 99),
        ("Hello", True, "responses", True),
    ]


@pytest.mark.parametrize("takes_previous", [False, True])
async def test_a_response_id_factory_may_take_the_previous_id(takes_previous: bool) -> None:
    made: list[str | None] = []

    def with_previous(previous: str | None) -> str:
        made.append(previous)
        return f"resp_mine{len(made)}"

    def without() -> str:
        made.append(None)
        return f"resp_mine{len(made)}"

    factory = with_previous if takes_previous else without
    async with live.serve(host_of(ScriptedAgent(["hello"]), response_id_factory=factory).app) as served:
        first = await served.client.responses.create(model="a", input="q")
        second = await served.client.responses.create(model="a", input="q", previous_response_id=first.id)

    assert (first.id, second.id) == ("resp_mine1", "resp_mine2")
    assert made == [None, "resp_mine1" if takes_previous else None]


@pytest.mark.usefixtures("on_every_store")
@pytest.mark.behaviour("D7")
async def test_a_response_id_that_is_taken_is_never_overwritten() -> None:
    agent = ScriptedAgent(["first"], ["second"])
    async with live.serve(host_of(agent, response_id_factory=lambda: "resp_same").app) as served:
        first = await served.client.responses.create(model="a", input="q")
        with pytest.raises(openai.InternalServerError):
            await served.client.responses.create(model="a", input="q")
        stored = await served.client.responses.retrieve("resp_same")

    assert stored == first
    assert len(agent.runs) == 1


@pytest.mark.behaviour("G7")
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_the_host_can_be_mounted_in_another_application(framework: type[Starlette]) -> None:
    host = host_of(ScriptedAgent(["hello"]))
    parent = framework(lifespan=host.lifespan)
    parent.mount("/ai", host)
    async with live.serve(parent) as served:
        answer = await served.http.post("/ai/v1/responses", json={"input": "q"})
        missing = await served.http.get("/ai/v1/nothing")
        ready = await served.http.get("/ai/readiness")

    assert answer.json()["status"] == "completed"
    assert missing.json()["error"]["message"] == "Invalid URL (GET /ai/v1/nothing)"
    assert ready.status_code == 200


@pytest.mark.usefixtures("on_every_store")
@pytest.mark.behaviour("D2")
async def test_input_items_pages_through_130_items_in_both_orders() -> None:
    items: list[Any] = [{"role": "user", "content": f"item {number}"} for number in range(130)]
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        response = await served.client.responses.create(model="a", input=items)
        listing = served.client.responses.input_items.list
        forward: list[Any] = [item async for item in listing(response.id, order="asc")]
        backward: list[Any] = [item async for item in listing(response.id, limit=100)]

    assert [item.content[0].text for item in forward] == [f"item {number}" for number in range(130)]
    assert backward == forward[::-1]


async def test_a_raw_stream_keeps_to_the_grammar_of_the_contract() -> None:
    async with live.serve(host_of(ScriptedAgent(["Hel", "lo"])).app) as served:
        answer = await served.http.post("/v1/responses", json={"input": "q", "stream": True})

    events = wire.parse_sse(answer.content)
    wire.check_stream(events)
    assert [event["type"] for event in events][-1] == "response.completed"


@pytest.mark.behaviour("G5")
async def test_an_agent_whose_run_is_a_coroutine_that_returns_a_generator_works_in_both_modes() -> None:
    class Coroutine(ScriptedAgent):
        async def run(self, messages: Any = None, **kwargs: Any) -> Any:
            return super().run(messages, **kwargs)

    async with live.serve(host_of(Coroutine(["Hel", "lo"])).app) as served:
        one_shot = await served.client.responses.create(model="a", input="q")
        async with served.client.responses.stream(model="a", input="q") as stream:
            streamed = await stream.get_final_response()

    assert one_shot.output_text == streamed.output_text == "Hello"


async def test_the_input_message_says_which_channel_and_who() -> None:
    agent = ScriptedAgent(["hello"])
    async with live.serve(host_of(agent).app) as served:
        await served.client.responses.create(
            model="a",
            input=[{"role": "user", "content": "1"}, {"role": "user", "content": "2"}],
            safety_identifier="u7",
        )

    messages: Any = agent.runs[0].messages
    assert "hosting" not in messages[0].additional_properties
    assert messages[1].additional_properties["hosting"] == {
        "channel": "responses",
        "identity": {"channel": "responses", "native_id": "u7", "attributes": {}},
    }


async def test_the_request_context_is_bound_for_the_whole_run() -> None:
    bound: list[Any] = []

    class Bindable(ScriptedAgent):
        @contextlib.contextmanager
        def bind_request_context(self, **attributes: Any) -> Any:
            bound.append(("bind", attributes))
            try:
                yield
            finally:
                bound.append(("release", self.runs[-1].is_finished))

    async with (
        live.serve(host_of(Bindable(["hello"])).app) as served,
        served.client.responses.stream(model="a", input="q") as stream,
    ):
        response = await stream.get_final_response()

    assert bound == [("bind", {"response_id": response.id, "previous_response_id": None}), ("release", True)]


async def test_a_workflow_style_gate_does_not_hold_other_requests() -> None:
    gate = Gate()
    agent = ScriptedAgent([gate, "slow"], ["quick"])
    async with live.serve(host_of(agent).app) as served:
        slow = await served.client.responses.create(model="a", input="q", background=True)
        quick = await served.client.responses.create(model="a", input="q")
        gate.open()
        async for _ in await served.client.responses.create(model="a", input="q", stream=True):
            pass

    assert quick.output_text == "quick"
    assert slow.status == "queued"


async def test_a_callers_tool_with_the_name_of_the_agents_own_is_refused() -> None:
    @tool(approval_mode="never_require")
    def weather(city: str) -> str:
        """Say the weather."""
        return f"sunny in {city}"

    host = host_of(Agent(client=ScriptedChatClient(), tools=[weather]), run_hook=let_all_through)
    async with live.serve(host.app) as served:
        with pytest.raises(openai.BadRequestError) as caught:
            await served.client.responses.create(model="a", input="q", tools=[WEATHER_TOOL])

    assert caught.value.param == "tools[0].name"


async def test_a_run_hook_that_raises_is_answered_and_leaves_the_connection_usable() -> None:
    def run_hook(request: Any, **_: Any) -> Any:
        raise ValueError("secret reason")

    host = host_of(ScriptedAgent(["hello"]), run_hook=run_hook)
    async with live.serve(host.app) as served, raw.connect(served.base_url) as connection:
        broken = await connection.request("POST", "/responses", {"input": "q"})
        after = await connection.request("GET", "/responses/resp_unknown")

    assert (broken.status, after.status) == (500, 404)
    assert b"secret reason" not in broken.body


async def test_what_is_bound_for_the_run_survives_a_hook_that_makes_its_own_request() -> None:
    bound: list[Any] = []

    class Bindable(ScriptedAgent):
        @contextlib.contextmanager
        def bind_request_context(self, **attributes: Any) -> Any:
            bound.append(attributes)
            yield

    def run_hook(request: Any, **_: Any) -> Any:
        return ChannelRequest(channel="mine", operation="mine", input="changed", attributes={"team": "blue"})

    agent = Bindable(["hello"])
    async with live.serve(host_of(agent, run_hook=run_hook).app) as served:
        response = await served.client.responses.create(model="a", input="q")

    assert bound == [{"team": "blue", "response_id": response.id, "previous_response_id": None}]


async def test_debug_shows_the_traceback_of_a_broken_hook_and_nothing_else_does() -> None:
    def run_hook(request: Any, **_: Any) -> Any:
        raise ValueError("secret reason")

    channel = ResponsesChannel(run_hook=run_hook)
    async with live.serve(AgentFrameworkHost(ScriptedAgent(["x"]), channels=[channel], debug=True).app) as served:
        answer = await served.http.post("/responses", json={"input": "q"})

    assert answer.status_code == 500
    assert "secret reason" in answer.text


async def test_a_tool_is_echoed_without_what_no_tool_has() -> None:
    body = {"input": "q", "tools": [{**WEATHER_TOOL, "nonsense": {"a": 1}}]}
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        answer = await served.http.post("/responses", json=body)

    assert answer.json()["tools"] == [WEATHER_TOOL]
