"""Agent Framework's own client, pointed at a host: the hosted agent or workflow is an agent of the caller's program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import live
import pytest
from agent_framework import (
    Agent,
    AgentExecutor,
    AgentResponse,
    AgentResponseUpdate,
    AgentSession,
    Content,
    Executor,
    FunctionTool,
    Message,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
    register_checkpoint_type,
    response_handler,
    tool,
)
from agent_framework.exceptions import ChatClientException
from agent_framework.openai import OpenAIChatClient
from agent_framework_orchestrations import HandoffAgentUserRequest, HandoffBuilder, SequentialBuilder
from pydantic import BaseModel
from states import State, here

from agent_framework_hosting import AgentFrameworkHost, ChannelRequest
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

SECONDS = 60.0

STREAMED = pytest.mark.parametrize("is_streamed", [False, True], ids=["one-shot", "streamed"])


def remote_agent(served: live.LiveHost, model: str = "remote", **options: Any) -> Agent[Any]:
    """Return what the caller's program has. Its HTTP client holds each answer against the wire schema."""
    return Agent(client=OpenAIChatClient(model=model, async_client=served.client), name=model, **options)


@asynccontextmanager
async def hosted(target: Any, *, channel: ResponsesChannel | None = None, **options: Any) -> AsyncGenerator[Any, None]:
    host = AgentFrameworkHost(target, channels=[channel or ResponsesChannel()], **{**here(), **options})
    async with live.serve(host.app) as served:
        yield served


def letting_through(*names: str, settings: ResponsesSettings | None = None) -> ResponsesChannel:
    def run_hook(request: ChannelRequest, **_: object) -> ChannelRequest:
        return replace(
            request, options={name: value for name, value in (request.options or {}).items() if name in names}
        )

    return ResponsesChannel(run_hook=run_hook, settings=settings or ResponsesSettings())


async def run(agent: Any, given: Any = None, *, is_streamed: bool, **options: Any) -> AgentResponse[Any]:
    """Run a remote agent to its end."""
    if not is_streamed:
        answer: AgentResponse[Any] = await agent.run(given, **options)
        return answer
    stream: AgentResponse[Any] = await agent.run(given, stream=True, **options).get_final_response()
    return stream


def restored(session: AgentSession) -> AgentSession:
    """Return the session as another process reads it."""
    return AgentSession.from_dict(json.loads(json.dumps(session.to_dict())))


def texts(messages: Any) -> list[str]:
    return [message.text for message in messages]


def call(call_id: str, name: str, **arguments: Any) -> Content:
    return Content.from_function_call(call_id, name, arguments=json.dumps(arguments))


def decided(asked: AgentResponse[Any], *, approve: bool) -> Message:
    """Return the decision about everything that needs an approval."""
    return Message("user", [request.to_function_approval_response(approve) for request in asked.user_input_requests])


# --- Sessions ----------------------------------------------------------------------------------------------------


@pytest.mark.behaviour("A1", "A3")
async def test_a_base_url_is_all_it_takes_and_a_session_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    model = ScriptedChatClient(["Hello ", "Ada"], ["One ", "more"], ["And again"])
    async with hosted(Agent(client=model, instructions="Be kind.", name="Helper")) as served:
        client = OpenAIChatClient(base_url=f"{served.base_url}/v1", api_key="not-needed", model="Helper")
        agent = Agent(client=client, instructions="Be rude.")
        session = agent.create_session()
        first = await agent.run("I am Ada.", session=session)
        stream = agent.run("Go on.", session=session, stream=True)
        pieces = [update.text async for update in stream if update.text]
        third = await agent.run("Again.", session=session)
        await client.client.close()

    assert (first.text, third.text) == ("Hello Ada", "And again")
    # The last piece repeats the text as a whole, which is how the framework's client marks the end.
    assert pieces[:2] == ["One ", "more"]
    assert (await stream.get_final_response()).text == "One more"
    assert texts(model.calls[2].messages)[-5:] == ["I am Ada.", "Hello Ada", "Go on.", "One more", "Again."]
    # The caller's instructions stay with the caller.
    assert "rude" not in str([call.options for call in model.calls])


@pytest.mark.behaviour("A1", "A2")
async def test_a_session_is_branched_and_survives_a_restart_of_both_ends(durable_state: State) -> None:
    model = ScriptedChatClient(*[[f"answer {number}"] for number in range(4)])
    target = Agent(client=model)
    async with hosted(target, **durable_state.options) as served:
        agent = remote_agent(served)
        session = agent.create_session()
        await agent.run("one", session=session)
        branch = restored(session)
        await agent.run("two", session=session)
    async with hosted(target, **durable_state.options) as served:
        agent = remote_agent(served)
        await agent.run("three", session=restored(session))
        await agent.run("other", session=branch)

    assert texts(model.calls[2].messages) == ["one", "answer 0", "two", "answer 1", "three"]
    assert texts(model.calls[3].messages) == ["one", "answer 0", "other"]


@STREAMED
async def test_a_session_may_be_a_conversation_of_the_host(is_streamed: bool) -> None:
    model = ScriptedChatClient(["a"], ["b"])
    async with hosted(Agent(client=model)) as served:
        conversation = await served.client.conversations.create()
        agent = remote_agent(served)
        session = agent.get_session(conversation.id)
        await run(agent, "one", session=session, is_streamed=is_streamed)
        await run(agent, "two", session=session, is_streamed=is_streamed)
        items = [item async for item in served.client.conversations.items.list(conversation.id, order="asc")]

    assert session.service_session_id == conversation.id
    assert texts(model.calls[1].messages) == ["one", "a", "two"]
    assert len(items) == 4


@pytest.mark.behaviour("A7")
async def test_a_caller_may_keep_the_history_itself() -> None:
    model = ScriptedChatClient(["a"], ["b"])
    async with hosted(Agent(client=model)) as served:
        agent = remote_agent(served, default_options={"store": False})
        session = agent.create_session()
        first = await agent.run("one", session=session)
        await agent.run("two", session=session)
        assert first.response_id is not None
        kept = await served.http.get(f"/responses/{first.response_id}")

    assert session.service_session_id is None
    assert texts(model.calls[1].messages) == ["one", "a", "two"]
    assert kept.status_code == 404


# --- Background --------------------------------------------------------------------------------------------------


@pytest.mark.behaviour("D3")
@pytest.mark.usefixtures("on_every_store")
async def test_a_background_run_is_polled_and_its_session_goes_on() -> None:
    gate = Gate()
    model = ScriptedChatClient(["half ", gate, "done"], ["more"])
    async with hosted(Agent(client=model)) as served:
        agent = remote_agent(served)
        session = agent.create_session()
        answer = await agent.run("one", session=session, options={"background": True})
        token: Any = answer.continuation_token
        assert token is not None
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        gate.open()
        async with asyncio.timeout(SECONDS):
            while token is not None:
                answer = await agent.run(session=session, options={"continuation_token": token})
                token = answer.continuation_token
        await agent.run("two", session=session)

    assert answer.text == "half done"
    assert texts(model.calls[1].messages) == ["one", "half done", "two"]


@pytest.mark.behaviour("D3")
async def test_a_stream_that_was_left_is_read_again_from_the_host() -> None:
    gate = Gate()
    model = ScriptedChatClient(["half ", gate, "done"])
    async with hosted(Agent(client=model)) as served:
        agent = remote_agent(served)
        session = agent.create_session()
        token: Any = None
        async for update in agent.run("one", session=session, stream=True, options={"background": True}):
            token = update.continuation_token or token
            if update.text:
                break
        gate.open()
        answer = await run(agent, session=session, is_streamed=True, options={"continuation_token": token})

    assert answer.text == "half done"


async def test_a_background_run_calls_the_callers_tools_in_between() -> None:
    @tool(approval_mode="never_require")
    def local_add(a: int, b: int) -> int:
        """Add."""
        return a + b

    model = ScriptedChatClient([call("c1", "local_add", a=1, b=2)], ["it is 3"])
    async with hosted(Agent(client=model), channel=letting_through("tools", "tool_choice")) as served:
        agent = remote_agent(served, tools=[local_add])
        session = agent.create_session()
        answer = await agent.run("sum", session=session, options={"background": True})
        async with asyncio.timeout(SECONDS):
            while answer.continuation_token is not None:
                options: Any = {"background": True, "continuation_token": answer.continuation_token}
                answer = await agent.run(session=session, options=options)

    assert answer.text == "it is 3"
    assert [content.result for content in model.calls[1].messages[-1].contents] == ["3"]


@STREAMED
@pytest.mark.behaviour("G1")
async def test_a_caller_that_gives_up_stops_the_hosted_agent(is_streamed: bool) -> None:
    gate = Gate()
    target = ScriptedAgent(["half ", gate, "done"])
    async with hosted(target) as served:
        running = asyncio.create_task(run(remote_agent(served), "one", is_streamed=is_streamed))
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        running.cancel()
        await asyncio.wait_for(target.runs[0].ended.wait(), SECONDS)
        with contextlib.suppress(asyncio.CancelledError):
            await running

    assert target.runs[0].is_cancelled


# --- What the caller asks for ------------------------------------------------------------------------------------


@STREAMED
@pytest.mark.parametrize("server_calls", ["hide", "mcp_call", "function_call"])
async def test_tools_of_the_caller_and_of_the_host_each_run_where_they_are(
    server_calls: Any, is_streamed: bool
) -> None:
    @tool(approval_mode="never_require")
    def local_add(a: int, b: int) -> int:
        """Add."""
        ran.append("add")
        return a + b

    @tool(approval_mode="always_require")
    def local_pay(amount: int) -> str:
        """Pay."""
        ran.append("pay")
        return f"paid {amount}"

    @tool(approval_mode="never_require")
    def multiply(a: int, b: int) -> int:
        """Multiply."""
        ran.append("multiply")
        return a * b

    ran: list[str] = []
    model = ScriptedChatClient(
        [call("c1", "multiply", a=2, b=3)],
        [call("c2", "local_add", a=6, b=1)],
        ["it is 7"],
        [call("c3", "local_pay", amount=7)],
        ["paid"],
    )
    channel = letting_through("tools", "tool_choice", settings=ResponsesSettings(server_calls=server_calls))
    async with hosted(Agent(client=model, tools=[multiply]), channel=channel) as served:
        agent = remote_agent(served, tools=[local_add, local_pay])
        session = agent.create_session()
        sums = await run(agent, "sum", session=session, is_streamed=is_streamed)
        asked = await run(agent, "pay", session=session, is_streamed=is_streamed)
        assert ran == ["multiply", "add"]
        paid = await run(agent, decided(asked, approve=True), session=session, is_streamed=is_streamed)

    assert (sums.text, paid.text) == ("it is 7", "paid")
    assert ran == ["multiply", "add", "pay"]
    results = [content.result for message in model.calls[-1].messages for content in message.contents]
    assert [result for result in results if result is not None] == ["6", "7", "paid 7"]


@STREAMED
async def test_an_answer_is_of_the_callers_type_if_the_host_lets_it_ask_for_one(is_streamed: bool) -> None:
    class City(BaseModel):
        name: str

    model = ScriptedChatClient(['{"name": ', '"Bern"}'])
    async with hosted(Agent(client=model), channel=letting_through("response_format")) as served:
        options = {"response_format": City}
        answer = await run(remote_agent(served), "which?", options=options, is_streamed=is_streamed)

    assert answer.value == City(name="Bern")
    assert model.calls[0].options["response_format"]["json_schema"]["schema"]["required"] == ["name"]


async def test_of_several_messages_in_a_stream_the_frameworks_client_keeps_the_last() -> None:
    def both(first: str, last: str) -> list[AgentResponseUpdate]:
        texts = [Content.from_text(first), Content.from_text(last)]
        return [AgentResponseUpdate(contents=[text], role="assistant", message_id=text.text) for text in texts]

    target = ScriptedAgent(both("one", "two"))
    async with hosted(target) as served:
        agent = remote_agent(served)
        whole = await agent.run("x")
        stream = agent.run("x", stream=True)
        pieces = [
            content.text async for update in stream for content in update.contents if content.merge_mode == "replace"
        ]
        final = await stream.get_final_response()
        async with hosted(agent) as front:
            passed_on = await front.client.responses.create(model="m", input="x")

    assert [content.text for content in whole.messages[0].contents] == ["one", "two"]
    assert (pieces, final.text) == (["one", "two"], "two")
    # A host in front of the host reads the items themselves.
    assert [item.content[0].text for item in passed_on.output] == ["one", "two"]


@pytest.mark.behaviour("A5", "C3")
async def test_a_failure_is_an_exception_and_the_session_stays_where_it_was() -> None:
    model = ScriptedChatClient(["a"], ["half", ValueError("secret reason")], ["half", ValueError("secret")], ["b"])
    async with hosted(Agent(client=model)) as served:
        agent = remote_agent(served)
        session = agent.create_session()
        await agent.run("one", session=session)
        with pytest.raises(ChatClientException) as raised:
            await agent.run("fail", session=restored(session))
        # A stream that fails does not raise in the framework's client. It only has no finish reason.
        cut = await run(agent, "fail", session=restored(session), is_streamed=True)
        after = await agent.run("two", session=session)

    assert "secret" not in str(raised.value)
    assert (cut.text, cut.finish_reason, after.finish_reason) == ("half", None, "stop")
    assert texts(model.calls[-1].messages) == ["one", "a", "two"]


# --- Approvals ---------------------------------------------------------------------------------------------------


class Mailer:
    """What is hosted: an agent whose tool needs an approval, or a workflow with it. `sent` is what the tool has done."""

    def __init__(self, kind: str, *turns: Any) -> None:
        self.sent: list[str] = []
        self.model = ScriptedChatClient(*turns)
        self._kind = kind

    @property
    def target(self) -> Any:
        """What a host is given."""
        return self._workflow if self._kind == "workflow" else self._agent()

    def _agent(self) -> Agent[Any]:
        @tool(approval_mode="always_require")
        def send_mail(to: str) -> str:
            """Send a mail."""
            self.sent.append(to)
            return f"sent to {to}"

        return Agent(client=self.model, tools=[send_mail], name="mailer")

    def _workflow(self) -> Workflow:
        return WorkflowBuilder(start_executor=AgentExecutor(self._agent()), name="mailer").build()


KINDS = pytest.mark.parametrize("kind", ["agent", "workflow"])


@KINDS
@STREAMED
@pytest.mark.behaviour("F5")
async def test_what_needs_an_approval_is_approved_or_rejected_and_runs_at_the_host(
    kind: str, is_streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    both = [call("c1", "send_mail", to="bob"), call("c2", "send_mail", to="eve")]
    mailer = Mailer(kind, both, ["both sent"], [call("c3", "send_mail", to="ann")], ["not sent"], ["bye"])
    async with hosted(mailer.target) as served:
        agent = remote_agent(served)
        session = agent.create_session()
        asked = await run(agent, "write", session=session, is_streamed=is_streamed)
        assert mailer.sent == []
        wanted = [str(getattr(request.function_call, "arguments", None)) for request in asked.user_input_requests]
        answers = [await run(agent, decided(asked, approve=True), session=session, is_streamed=is_streamed)]
        again = await run(agent, "write again", session=session, is_streamed=is_streamed)
        rejected = decided(again, approve=False)
        answers.append(await run(agent, rejected, session=session, is_streamed=is_streamed))
        answers.append(await run(agent, "bye", session=session, is_streamed=is_streamed))

    assert wanted == ['{"to": "bob"}', '{"to": "eve"}']
    assert [answer.text for answer in answers] == ["both sent", "not sent", "bye"]
    assert sorted(mailer.sent) == ["bob", "eve"]
    # The agent knows each answer for one to its own question, also when it reads it later in its history.
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@KINDS
@pytest.mark.behaviour("F5")
async def test_an_approval_is_given_after_a_restart_of_both_ends_and_counts_once(
    kind: str, durable_state: State
) -> None:
    mailer = Mailer(kind, [call("c1", "send_mail", to="bob")], ["sent"])
    async with hosted(mailer.target, **durable_state.options) as served:
        agent = remote_agent(served)
        session = agent.create_session()
        asked = await agent.run("write", session=session)
    async with hosted(mailer.target, **durable_state.options) as served:
        agent = remote_agent(served)
        later, another = restored(session), restored(session)
        done = await agent.run(decided(asked, approve=True), session=later)
        with pytest.raises(ChatClientException, match="already been answered"):
            await agent.run(decided(asked, approve=True), session=another)

    assert done.text == "sent"
    assert mailer.sent == ["bob"]


@STREAMED
async def test_tools_of_both_ends_wait_for_approvals_in_one_turn(is_streamed: bool) -> None:
    @tool(approval_mode="always_require")
    def local_pay(amount: int) -> str:
        """Pay."""
        paid.append(amount)
        return f"paid {amount}"

    paid: list[int] = []
    mailer = Mailer("agent", [call("c1", "send_mail", to="bob"), call("c2", "local_pay", amount=1)], ["done"])
    async with hosted(mailer.target, channel=letting_through("tools", "tool_choice")) as served:
        agent = remote_agent(served, tools=[local_pay])
        session = agent.create_session()
        asked = await run(agent, "write and pay", session=session, is_streamed=is_streamed)
        assert (mailer.sent, paid, len(asked.user_input_requests)) == ([], [], 2)
        done = await run(agent, decided(asked, approve=True), session=session, is_streamed=is_streamed)

    assert done.text == "done"
    assert (mailer.sent, paid) == (["bob"], [1])
    results = [content.result for message in mailer.model.calls[1].messages for content in message.contents]
    assert sorted(result for result in results if result is not None) == ["paid 1", "sent to bob"]


# --- Questions of workflows --------------------------------------------------------------------------------------


@dataclass
class Refund:
    order: str
    amount: int


register_checkpoint_type(Refund)


class Clerk(Executor):
    """Asks whether to pay, and how; other words are repeated."""

    def __init__(self) -> None:
        super().__init__(id="clerk")

    @handler
    async def ask(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        if message == "refund":
            await ctx.request_info(Refund("A1", 20), bool)
            await ctx.request_info("How?", str)
        else:
            await ctx.yield_output(message)

    @response_handler
    async def on_verdict(self, asked: Refund, is_approved: bool, ctx: WorkflowContext[Any, str]) -> None:
        await ctx.yield_output(f"{asked.order} approved: {is_approved}")

    @response_handler
    async def on_way(self, asked: str, way: str, ctx: WorkflowContext[Any, str]) -> None:
        await ctx.yield_output(f"paid by {way}")


def clerk() -> Workflow:
    return WorkflowBuilder(start_executor=Clerk(), name="clerk").build()


def questions_in(response: AgentResponse[Any]) -> dict[str, Any]:
    contents = [content for message in response.messages for content in message.contents]
    return {str(content.name): content for content in contents if content.type == "function_call"}


def answer(question: Any, result: Any) -> Message:
    return Message("tool", [Content.from_function_result(question.call_id, result=result)])


@STREAMED
@pytest.mark.behaviour("F3")
async def test_what_a_workflow_asks_is_a_function_call_and_is_answered_with_its_result(is_streamed: bool) -> None:
    async with hosted(clerk) as served:
        agent = remote_agent(served)
        session = agent.create_session()
        asked = questions_in(await run(agent, "refund", session=session, is_streamed=is_streamed))
        way = await run(agent, answer(asked["clerk"], "cash"), session=session, is_streamed=is_streamed)
        verdict = await run(agent, answer(asked["Refund"], True), session=session, is_streamed=is_streamed)
        after = await run(agent, "thanks", session=session, is_streamed=is_streamed)

    assert json.loads(asked["Refund"].arguments)["request"] == {"order": "A1", "amount": 20}
    assert [response.text for response in (way, verdict, after)] == ["paid by cash", "A1 approved: True", "thanks"]


@pytest.mark.behaviour("F3", "F4")
async def test_a_question_is_answered_after_a_restart_of_both_ends_and_once(durable_state: State) -> None:
    async with hosted(clerk, **durable_state.options) as served:
        agent = remote_agent(served)
        session = agent.create_session()
        asked = questions_in(await agent.run("refund", session=session))
    async with hosted(clerk, **durable_state.options) as served:
        agent = remote_agent(served)
        first = restored(session)
        with pytest.raises(ChatClientException, match="schema"):
            await agent.run(answer(asked["Refund"], "perhaps"), session=restored(session))
        results = [Content.from_function_result(asked[name].call_id, result=result) for name, result in ANSWERS.items()]
        done = await agent.run(Message("tool", results), session=first)
        with pytest.raises(ChatClientException, match="already been answered"):
            await agent.run(Message("tool", results), session=restored(session))

    assert sorted(texts(done.messages[0].contents)) == ["A1 approved: False", "paid by card"]


ANSWERS = {"Refund": "false", "clerk": "card"}


@STREAMED
async def test_a_tool_of_the_caller_answers_what_it_is_asked_and_a_declared_one_leaves_it_to_a_person(
    is_streamed: bool,
) -> None:
    @tool(name="Refund", approval_mode="never_require")
    def decide(request: dict[str, Any], response_schema: dict[str, Any]) -> bool:
        """Decide about a refund."""
        return response_schema == {"type": "boolean"} and request["amount"] < 50

    declared = FunctionTool(name="clerk", func=None, input_model={"type": "object", "properties": {}})
    async with hosted(clerk) as served:
        agent = remote_agent(served, tools=[decide, declared])
        session = agent.create_session()
        asked = await run(agent, "refund", session=session, is_streamed=is_streamed)
        (left,) = [request for request in asked.user_input_requests if request.name == "clerk"]
        done = await run(agent, answer(left, "cash"), session=session, is_streamed=is_streamed)

    assert "paid by cash" in done.text


# --- A part of something larger ----------------------------------------------------------------------------------


async def test_a_hosted_agent_is_a_tool_of_a_local_one() -> None:
    expert = ScriptedChatClient(["42"])
    async with hosted(Agent(client=expert)) as served:
        model = ScriptedChatClient([call("c1", "remote", task="How many?")], ["There are 42."])
        local = Agent(client=model, tools=[remote_agent(served, description="Knows numbers").as_tool()])
        answered = await local.run("ask")

    assert answered.text == "There are 42."
    assert texts(expert.calls[0].messages) == ["How many?"]
    assert [content.result for content in model.calls[1].messages[-1].contents] == ["42"]


async def test_a_hosted_agent_is_a_step_of_a_local_workflow_and_its_approvals_come_through() -> None:
    mailer = Mailer("agent", [call("c1", "send_mail", to="bob")], ["sent"], ["again"])
    async with hosted(mailer.target) as served:
        first = AgentExecutor(remote_agent(served))
        last = AgentExecutor(Agent(client=ScriptedChatClient(["ok: sent"], ["ok: again"]), name="last"))
        workflow = WorkflowBuilder(start_executor=first, output_from=[last]).add_edge(first, last).build()
        asked = (await workflow.run("write")).get_request_info_events()
        approved = {event.request_id: event.data.to_function_approval_response(True) for event in asked}
        done = await workflow.run(responses=approved)
        again = await workflow.run("again")

    assert [output.text for output in done.get_outputs()] == ["ok: sent"]
    assert [output.text for output in again.get_outputs()] == ["ok: again"]
    assert mailer.sent == ["bob"]
    assert texts(mailer.model.calls[2].messages)[-1] == "again"


async def test_agents_of_one_host_hand_off_to_each_other_in_a_workflow_of_the_caller() -> None:
    to_refunds, to_triage = (call(f"c_{name}", f"handoff_to_{name}") for name in ("refunds", "triage"))
    triage = ScriptedChatClient(["one moment", to_refunds], ["anything else?"])
    refunds = ScriptedChatClient(["refunded"], [to_triage])
    hosts = {"triage": Agent(client=triage), "refunds": Agent(client=refunds)}
    async with hosted(hosts, channel=letting_through("tools", "tool_choice")) as served:
        keeps: Any = {"require_per_service_call_history_persistence": True}
        agents = {name: remote_agent(served, model=name, **keeps) for name in hosts}
        workflow = HandoffBuilder(participants=[*agents.values()]).with_start_agent(agents["triage"]).build()
        first = await workflow.run("I want a refund")
        (asked,) = first.get_request_info_events()
        second = await workflow.run(responses={asked.request_id: HandoffAgentUserRequest.create_response("thanks")})

    assert [output.text for output in first.get_outputs()] == ["one moment", "refunded"]
    assert [output.text for output in second.get_outputs()] == ["", "anything else?"]
    heard = [message.text for message in triage.calls[1].messages if message.text]
    assert heard == ["I want a refund", "one moment", "refunded", "thanks"]


async def test_hosted_agents_take_part_in_an_orchestration_of_the_caller_that_is_hosted_in_turn() -> None:
    writer, editor = ScriptedChatClient(["draft"], ["draft 2"]), ScriptedChatClient(["final"], ["final 2"])
    hosts = {"writer": Agent(client=writer), "editor": Agent(client=editor)}
    async with hosted(hosts) as served:
        newspaper = SequentialBuilder(participants=[remote_agent(served, model=name) for name in hosts])
        async with hosted(newspaper) as front:
            create = front.client.responses.create
            first = await create(model="m", input="write")
            second = await create(model="m", input="again", previous_response_id=first.id)

    assert (first.output_text, second.output_text) == ("final", "final 2")
    assert texts(editor.calls[1].messages) == ["write", "draft", "final", "again", "draft 2"]


@KINDS
@pytest.mark.behaviour("F5")
@pytest.mark.parametrize("outer", ["agent", "workflow"])
async def test_a_host_in_front_of_a_host_passes_approvals_on(kind: str, outer: str) -> None:
    mailer = Mailer(kind, [call("c1", "send_mail", to="bob")], ["sent"], ["bye"])
    async with AsyncExitStack() as stack:
        inner = await stack.enter_async_context(hosted(mailer.target))
        agent = remote_agent(inner)

        def in_a_workflow() -> Workflow:
            return WorkflowBuilder(start_executor=AgentExecutor(agent)).build()

        front = await stack.enter_async_context(hosted(agent if outer == "agent" else in_a_workflow))
        responses = front.client.responses
        asked = await responses.create(model="m", input="write")
        (request,) = asked.output
        approval: Any = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}
        done = await responses.create(model="m", input=[approval], previous_response_id=asked.id)
        after = await responses.create(model="m", input="bye", previous_response_id=done.id)

    assert (done.output_text, after.output_text) == ("sent", "bye")
    assert mailer.sent == ["bob"]


@pytest.mark.behaviour("C8")
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_host_in_front_of_a_host_that_fails_fails_too(is_streamed: bool) -> None:
    model = ScriptedChatClient(["half", ValueError("secret reason")])
    async with hosted(Agent(client=model)) as inner, hosted(remote_agent(inner)) as front:
        ended = await front.http.post("/v1/responses", json={"input": "x", "stream": is_streamed})

    assert ("response.failed" in ended.text) if is_streamed else (ended.status_code == 500)
    assert "secret" not in ended.text
