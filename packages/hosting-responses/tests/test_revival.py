"""Background runs whose process died: taken over by the next one, with a stream that goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

import live
import openai
import pytest
from agent_framework import (
    Agent,
    AgentResponseUpdate,
    ChatResponseUpdate,
    Content,
    Executor,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
)
from msgspec.structs import replace
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from states import State

from agent_framework_hosting import AgentFrameworkHost, IsolationKeys, get_current_isolation_keys
from agent_framework_hosting.runs.base import Attempt, RunId, RunKey, RunLog, RunStatus
from agent_framework_hosting.state import HostState, choose_state
from agent_framework_hosting.targets.workflow import WorkflowTarget
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings
from agent_framework_hosting_responses.portable import PortableRequest
from agent_framework_hosting_responses.protocol.encoder import ResponseEncoder
from agent_framework_hosting_responses.protocol.ids import new_id
from agent_framework_hosting_responses.protocol.json import encode_json
from agent_framework_hosting_responses.protocol.request import parse_request
from agent_framework_hosting_responses.protocol.resources import new_response
from agent_framework_hosting_responses.stores.base import ResponseRecord
from agent_framework_hosting_responses.stores.sql_responses import SqlResponseStore

SECONDS = 60.0


def host_of(agent: Any, state: State, **settings: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(
        agent, channels=[ResponsesChannel(settings=ResponsesSettings(**settings))], **state.options
    )


class Traced(ScriptedChatClient):
    """A model that answers with the trace and the user for whom it was called."""

    async def _traced(self) -> AsyncGenerator[ChatResponseUpdate, None]:
        keys = get_current_isolation_keys()
        span = trace.get_current_span().get_span_context()
        text = f"{span.trace_id:x} {keys.user_key if keys else None}"
        yield ChatResponseUpdate(contents=[Content.from_text(text)], role="assistant")

    def _inner_get_response(self, **_: Any) -> Any:
        return self._build_response_stream(self._traced())


class Dead:
    """What a process that died has left: a response that it accepted, and perhaps began to answer."""

    def __init__(self, *, isolation: IsolationKeys = IsolationKeys(), **body: Any) -> None:  # noqa: B008  frozen
        self.body = {"input": "question", "background": True, "stream": True, **body}
        self.request = parse_request(self.body, strict=False, hosted_tools="reject", new_id=new_id)
        self.id = new_id("resp")
        self.key = RunKey(isolation.partition, RunId(self.id))
        response = new_response(self.request, response_id=self.id, created_at=1, model="a")
        self.encoder = ResponseEncoder(response, clock=lambda: 1)
        self.record = ResponseRecord(
            key=self.key,
            status=RunStatus.QUEUED,
            created_at=1,
            body=encode_json(response),
            owner="proc_dead",
            is_background=True,
            is_streamed=True,
            input=self.request.input,
            request=PortableRequest.of(self.body, isolation).encoded,
        )

    async def leave(self, state: State, *updates: AgentResponseUpdate, is_begun: bool = True) -> None:
        """Write what the process has written until it died."""
        opened: HostState = choose_state(**state.options)
        await opened.open()
        assert opened.database is not None
        assert opened.run_log is not None
        await self._write(SqlResponseStore(opened.database), opened.run_log, *updates, is_begun=is_begun)
        await opened.close()

    async def leave_in(self, host: AgentFrameworkHost) -> None:
        """Write it while a host runs that has not noticed its death yet."""
        context = host._context
        assert context.database is not None
        await self._write(SqlResponseStore(context.database), context.durable_log, is_begun=True)

    async def _write(self, store: SqlResponseStore, log: RunLog, *updates: AgentResponseUpdate, is_begun: bool) -> None:
        await store.create(self.record)
        await log.append(Attempt(self.key, 0), self.encoder.open())
        if is_begun:
            attempt = await store.begin(self.key, owner="proc_dead")
            assert attempt is not None
            await log.append(attempt, self.encoder.start())
            for update in updates:
                await log.append(attempt, self.encoder.feed(update))


def says(text: str) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_text(text)], role="assistant")


async def followed(served: live.LiveHost, response_id: str) -> list[Any]:
    async with asyncio.timeout(SECONDS):
        stream = await served.client.responses.retrieve(response_id, stream=True)
        return [event async for event in stream]


def check(events: list[Any]) -> None:
    assert [event.sequence_number for event in events] == list(range(len(events)))
    ends = [e.type for e in events if e.type in {"response.completed", "response.failed", "response.incomplete"}]
    assert len(ends) == 1
    assert events[-1].type == ends[0]


@pytest.mark.behaviour("D6")
async def test_a_queued_run_of_a_dead_process_is_run(durable_state: State) -> None:
    dead = Dead()
    await dead.leave(durable_state, is_begun=False)
    model = ScriptedChatClient(["answer"])

    async with live.serve(host_of(Agent(client=model), durable_state).app) as served:
        events = await followed(served, dead.id)
        stored = await served.client.responses.retrieve(dead.id)

    check(events)
    assert (stored.status, stored.output_text) == ("completed", "answer")
    assert events[-1].response == stored
    assert [message.text for message in model.calls[0].messages] == ["question"]


@pytest.mark.behaviour("E5")
async def test_a_run_of_a_dead_process_is_run_for_its_creator_and_in_the_trace_of_its_request(
    durable_state: State,
) -> None:
    span = SpanContext(trace_id=0xABC, span_id=9, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    with trace.use_span(NonRecordingSpan(span)):
        dead = Dead(isolation=IsolationKeys("ada"))
    await dead.leave(durable_state, is_begun=False)

    channels = [ResponsesChannel()]
    host = AgentFrameworkHost(
        Agent(client=Traced()), channels=channels, trust_isolation_headers=True, **durable_state.options
    )
    async with live.serve(host.app) as served:
        served.client = served.client.with_options(default_headers={"x-agent-user-isolation-key": "ada"})
        check(await followed(served, dead.id))
        stored = await served.client.responses.retrieve(dead.id)

    assert stored.output_text == "abc ada"


@pytest.mark.behaviour("D6")
async def test_a_run_that_was_begun_fails_and_its_stream_says_so(durable_state: State) -> None:
    dead = Dead()
    await dead.leave(durable_state, says("half an "))
    agent = ScriptedAgent(["never"])

    async with live.serve(host_of(agent, durable_state).app) as served:
        events = await followed(served, dead.id)
        stored = await served.client.responses.retrieve(dead.id)

    check(events)
    assert stored.status == "failed"
    assert stored.error is not None
    assert stored.error.code == "server_error"
    assert events[-1].response == stored
    assert stored.output[0].status == "incomplete"  # type: ignore[union-attr]
    assert agent.runs == []


@pytest.mark.behaviour("D6")
async def test_a_run_that_may_be_repeated_is_and_its_stream_goes_on(durable_state: State) -> None:
    dead = Dead()
    await dead.leave(durable_state, says("half an "))

    async with live.serve(host_of(ScriptedAgent(["whole"]), durable_state, lost_runs="retry").app) as served:
        events = await followed(served, dead.id)
        stored = await served.client.responses.retrieve(dead.id)

    check(events)
    assert stored.status == "completed"
    assert stored.output_text == "whole"
    assert events[-1].response == stored
    told = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.status for item in told] == ["incomplete", "completed"]
    assert len({item.id for item in told}) == 2


async def test_a_run_is_not_repeated_for_ever(durable_state: State) -> None:
    dead = Dead()
    await dead.leave(durable_state)
    opened = choose_state(**durable_state.options)
    await opened.open()
    assert opened.database is not None
    for _ in range(2):
        assert await SqlResponseStore(opened.database).begin(dead.key, owner="proc_dead") is not None
    await opened.close()

    async with live.serve(host_of(ScriptedAgent(["x"]), durable_state, lost_runs="retry").app) as served:
        check(await followed(served, dead.id))
        stored = await served.client.responses.retrieve(dead.id)

    assert stored.status == "failed"


class Answer(Executor):
    """A workflow of one step."""

    @handler
    async def answer(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        await ctx.yield_output(f"to {message}")


def answering() -> Workflow:
    return WorkflowBuilder(start_executor=Answer(id="answer")).build()


@pytest.mark.behaviour("F8")
@pytest.mark.parametrize(
    ("said", "rule", "status", "output"),
    [
        # A checkpoint is stored before anything is executed: without one nothing was.
        ([], "resume", "completed", ["to question"]),
        ([], "fail", "failed", []),
        ([], "retry", "completed", ["to question"]),
        # It had one, and it is gone.
        (["half an "], "resume", "failed", ["half an "]),
        (["half an "], "retry", "completed", ["to question"]),
    ],
)
async def test_a_workflow_without_a_checkpoint_starts_anew_if_nothing_was_executed(
    durable_state: State, said: list[str], rule: str, status: str, output: list[str]
) -> None:
    dead = Dead()
    await dead.leave(durable_state, *(says(text) for text in said))

    async with live.serve(host_of(answering, durable_state, lost_runs=rule).app) as served:
        check(await followed(served, dead.id))
        stored = await served.client.responses.retrieve(dead.id)

    assert stored.status == status
    assert [item.content[0].text for item in stored.output] == output  # type: ignore[union-attr, index]


@pytest.mark.behaviour("F8", "D11")
async def test_a_workflow_that_was_taken_over_ends_with_the_step_that_it_is_in(durable_state: State) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    executed: list[str] = []

    class Step(Executor):
        @handler
        async def step(self, message: str, ctx: WorkflowContext[str, str]) -> None:
            executed.append(self.id)
            reached.set()
            await go_on.wait()
            await ctx.send_message(message)

    def build() -> Workflow:
        first, second = Step(id="first"), Step(id="second")
        return WorkflowBuilder(start_executor=first).add_edge(first, second).build()

    channel = ResponsesChannel()
    host = AgentFrameworkHost(build, channels=[channel], **durable_state.options)
    async with live.serve(host.app) as served:
        running = await served.client.responses.create(model="m", input="q", background=True)
        await asyncio.wait_for(reached.wait(), SECONDS)
        key = RunKey(IsolationKeys().partition, RunId(running.id))
        other = await channel.service.state.responses.begin(key, owner="other")
        assert other is not None
        log = host._context.durable_log
        await log.append(other, ())
        target = host.target
        assert isinstance(target, WorkflowTarget)
        before = await target.resumption(key.partition, key.run_id)

        go_on.set()
        engine = host._context.durable_engine
        await engine.drain(SECONDS)

        assert before is not None
        assert await target.resumption(key.partition, key.run_id) == before
        assert (await served.client.responses.retrieve(running.id)).status == "in_progress"
    assert executed == ["first"]


async def test_a_stored_request_that_fits_no_more_fails(durable_state: State) -> None:
    dead = Dead(previous_response_id="resp_gone")
    await dead.leave(durable_state, is_begun=False)

    async with live.serve(host_of(ScriptedAgent(["x"]), durable_state).app) as served:
        check(await followed(served, dead.id))
        stored = await served.client.responses.retrieve(dead.id)

    assert stored.status == "failed"


@pytest.mark.behaviour("D6")
async def test_a_run_hook_that_works_only_in_a_request_fails_the_run_that_is_taken_over(durable_state: State) -> None:
    def hook(request: Any, **_: Any) -> Any:
        raise LookupError("secret")

    dead = Dead()
    await dead.leave(durable_state, is_begun=False)

    host = AgentFrameworkHost(ScriptedAgent(["x"]), channels=[ResponsesChannel(run_hook=hook)], **durable_state.options)
    async with live.serve(host.app) as served:
        events = await followed(served, dead.id)

    check(events)
    assert events[-1].type == "response.failed"
    assert "secret" not in events[-1].to_json()


@pytest.mark.behaviour("D4")
async def test_a_run_that_another_process_has_can_be_cancelled(durable_state: State) -> None:
    dead = Dead()
    gate = Gate()
    agent = ScriptedAgent([gate, "late"])
    async with live.serve(host_of(agent, durable_state).app) as served:
        running = await served.client.responses.create(model="a", input="q", background=True)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        cancelled = await served.client.responses.cancel(running.id)
        events = await followed(served, running.id)

    check(events)
    assert cancelled.status == "cancelled"
    assert dead.id != running.id


class Overtaken:
    """A log of a process that stands still at one call about a run, until another process has ended the run."""

    def __init__(self, host: AgentFrameworkHost, dead: Dead, *, at: str) -> None:
        self._dead = dead
        self._log = host._context.durable_log
        assert host._context.database is not None
        self._store = SqlResponseStore(host._context.database)
        self._is_due = True
        setattr(self._log, at, partial(self._late, getattr(self._log, at)))

    async def _late(self, call: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        if self._is_due and (args[0] == self._dead.key or args[0][0] == self._dead.key):
            self._is_due = False
            attempt = await self._store.begin(self._dead.key, owner="proc_other")
            assert attempt is not None
            encoder, record = self._dead.encoder, self._dead.record
            ending = encoder.fail(message="Ended by another one.")
            await self._store.save(attempt, replace(record, status=RunStatus.FAILED, body=encoder.encoded))
            await self._log.append(attempt, ending, closes=True)
        return await call(*args, **options)


@pytest.mark.behaviour("D11")
@pytest.mark.parametrize("at", ["append", "entries"])
async def test_a_process_that_stood_still_when_it_took_a_run_over_leaves_it_to_who_was_faster(
    durable_state: State, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = host_of(ScriptedAgent(["x"]), durable_state, lost_runs="retry")
    async with live.serve(host.app) as served:
        for ask in ("cancel", "restart"):
            dead = Dead()
            await dead.leave_in(host)
            Overtaken(host, dead, at=at)

            if ask == "cancel":
                told = await served.client.responses.cancel(dead.id)
            else:
                (channel,) = host.channels
                assert isinstance(channel, ResponsesChannel)
                await channel.service.runs.restart(dead.key)
                await followed(served, dead.id)
                told = await served.client.responses.retrieve(dead.id)

            check(await followed(served, dead.id))
            assert told.error is not None
            assert told.error.message == "Ended by another one."
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.behaviour("D3")
async def test_a_stream_can_be_resumed_after_a_restart(durable_state: State) -> None:
    async with live.serve(host_of(ScriptedAgent(["Hel", "lo"]), durable_state).app) as served:
        stream = await served.client.responses.create(model="a", input="q", background=True, stream=True)
        whole = [event async for event in stream]
        response_id = whole[0].response.id  # type: ignore[union-attr]
    async with live.serve(host_of(ScriptedAgent(["x"]), durable_state).app) as served:
        again = await followed(served, response_id)
        rest = [
            event async for event in await served.client.responses.retrieve(response_id, stream=True, starting_after=2)
        ]

    check(again)
    assert again == whole
    assert rest == whole[3:]


async def test_an_unknown_run_is_nothing_to_do(durable_state: State) -> None:
    channel = ResponsesChannel()
    host = AgentFrameworkHost(ScriptedAgent(["x"]), channels=[channel], **durable_state.options)
    async with live.serve(host.app) as served:
        await channel.service.runs.restart(RunKey(IsolationKeys().partition, RunId("resp_unknown")))
        with pytest.raises(openai.NotFoundError):
            await served.client.responses.retrieve("resp_unknown")
