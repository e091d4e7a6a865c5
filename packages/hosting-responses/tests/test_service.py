"""The service without HTTP: for other frameworks, and for what only an observer inside can see."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import wire
from agent_framework import AgentSession

from agent_framework_hosting.context import ChannelContext
from agent_framework_hosting.errors import RunError
from agent_framework_hosting.isolation import IsolationKeys, reset_current_isolation_keys, set_current_isolation_keys
from agent_framework_hosting.runs.base import Attempt, LogEntry, Participant, RunId, RunKey, RunStatus
from agent_framework_hosting.runs.memory import MemoryRunEngine, MemoryRunLog
from agent_framework_hosting.sessions import Sessions
from agent_framework_hosting.stores.memory import MemorySessionStore
from agent_framework_hosting.targets.agent import AgentTarget
from agent_framework_hosting.targets.served import ServedTarget, ServedTargets
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent
from agent_framework_hosting_responses.protocol.errors import RequestError, error_body
from agent_framework_hosting_responses.protocol.query import ListQuery
from agent_framework_hosting_responses.protocol.sse import frames
from agent_framework_hosting_responses.service import ResponsesService, Started
from agent_framework_hosting_responses.settings import ResponsesSettings
from agent_framework_hosting_responses.state import ResponsesState
from agent_framework_hosting_responses.stores.base import ResponseRecord, ResponseStore
from agent_framework_hosting_responses.stores.context import Context
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore
from agent_framework_hosting_responses.stores.memory_settlements import MemorySettlements

SECONDS = 60.0
QUESTION: Any = {"input": "q"}


def context_of(
    agent: Any, *, log: MemoryRunLog | None = None, durable: MemoryRunLog | None = None, store: Any = None
) -> ChannelContext:
    targets = ServedTargets([ServedTarget("", AgentTarget(agent))])
    sessions = store or MemorySessionStore()
    log = log or MemoryRunLog()
    return ChannelContext(
        targets=targets,
        session_store=sessions,
        sessions=Sessions(sessions),
        engine=MemoryRunEngine(),
        run_log=log,
        durable_log=durable or log,
    )


def state_with(responses: ResponseStore) -> ResponsesState:
    return ResponsesState(responses=responses, conversations=MemoryConversationStore(), settlements=MemorySettlements())


async def answer(service: ResponsesService, body: dict[str, Any]) -> dict[str, Any]:
    started = await service.create(body)
    result: dict[str, Any] = json.loads(await asyncio.wait_for(service.result(started), SECONDS))
    await service.leave(started)
    return result


async def whole_stream(service: ResponsesService, started: Started) -> bytes:
    body = b""
    async with asyncio.timeout(SECONDS):
        async for batch in service.follow(started):
            body += frames(batch)
    await service.leave(started)
    return body


async def test_the_service_answers_in_a_plain_async_function() -> None:
    service = ResponsesService(context_of(ScriptedAgent(["Hel", "lo"])))

    response = await answer(service, QUESTION)
    started = await service.create({**QUESTION, "stream": True, "previous_response_id": response["id"]})
    events = wire.parse_sse(await whole_stream(service, started))

    wire.check_response(response)
    wire.check_stream(events)
    assert json.loads(await service.retrieve(response["id"])) == response
    items: Any = await service.input_items(events[0]["response"]["id"], ListQuery(order="asc"))
    assert [item["role"] for item in items["data"]] == ["user", "assistant", "user"]
    assert await service.delete(response["id"]) == {"id": response["id"], "object": "response", "deleted": True}
    with pytest.raises(RequestError) as caught:
        await service.retrieve(response["id"])
    assert caught.value.status == 404
    wire.check_error(error_body(caught.value))


async def test_background_runs_are_followed_and_cancelled_without_http() -> None:
    gate = Gate()
    agent = ScriptedAgent(["half", gate])
    service = ResponsesService(context_of(agent))

    started = await service.create({**QUESTION, "background": True})
    response_id = json.loads(started.body)["id"]
    await asyncio.wait_for(gate.reached.wait(), SECONDS)
    batches = await service.events(response_id, after=1)
    await service.leave(started)
    cancelled = json.loads(await service.cancel(response_id))
    entries = [entry async for batch in batches for entry in batch]

    assert started.is_background
    assert not started.is_streamed
    assert cancelled["status"] == started.status == "cancelled"
    assert agent.runs[0].is_cancelled
    assert [json.loads(payload)["sequence_number"] for _, payload in entries] == list(range(2, 2 + len(entries)))


async def test_a_silent_run_gives_empty_batches() -> None:
    gate = Gate()
    service = ResponsesService(context_of(ScriptedAgent([gate, "hello"])))
    started = await service.create({**QUESTION, "stream": True})
    silences = 0

    async with asyncio.timeout(SECONDS):
        async for batch in service.follow(started, idle=0.02):
            silences += not batch
            if silences == 2:
                gate.open()

    assert silences >= 2
    assert started.status is RunStatus.COMPLETED


async def test_a_service_that_drains_takes_no_run_and_keeps_no_trace_of_it() -> None:
    context = context_of(ScriptedAgent(["hello"]))
    responses = MemoryResponseStore()
    service = ResponsesService(context, state=state_with(responses), response_id_factory=lambda: "resp_mine")
    await context.engine.drain(0)

    with pytest.raises(RunError):
        await service.create({**QUESTION, "background": True})

    assert len(responses) == 0
    assert not await context.durable_log.exists(RunKey(IsolationKeys().partition, RunId("resp_mine")))


async def test_each_partition_has_its_own_ids() -> None:
    service = ResponsesService(context_of(ScriptedAgent(["hello"])), response_id_factory=lambda: "resp_same")
    for user in ("ada", "bob"):
        token = set_current_isolation_keys(IsolationKeys(user_key=user))
        response = await answer(service, {**QUESTION, "metadata": {"user": user}})
        reset_current_isolation_keys(token)
        assert response["id"] == "resp_same"

    token = set_current_isolation_keys(IsolationKeys(user_key="ada"))
    stored = json.loads(await service.retrieve("resp_same"))
    reset_current_isolation_keys(token)
    assert stored["metadata"] == {"user": "ada"}
    with pytest.raises(RequestError):
        await service.retrieve("resp_same")


async def test_a_background_response_whose_log_expired_can_only_be_polled() -> None:
    context = context_of(ScriptedAgent(["hello"]), durable=MemoryRunLog(max_closed=0))
    service = ResponsesService(context)
    started = await service.create({**QUESTION, "background": True})
    await asyncio.wait_for(service.result(started), SECONDS)
    response_id = json.loads(started.body)["id"]

    with pytest.raises(RequestError) as caught:
        await service.events(response_id)

    assert (caught.value.status, caught.value.param) == (400, "stream")
    assert "can no longer be streamed" in caught.value.message
    assert json.loads(await service.retrieve(response_id))["status"] == "completed"


# --- Store before tell: D10, I1 ----------------------------------------------------------------------------------


class SlowStore(MemoryResponseStore):
    """Lets others run in the middle of each write, as a store behind a network does, and writes down the order."""

    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self.order = order

    async def create(
        self, record: ResponseRecord, context: Context | None = None, participants: Sequence[Participant] = ()
    ) -> ResponseRecord | None:
        await turns()
        created = await super().create(record, context, participants)
        self.order.append(f"store {record.status}")
        await turns()
        return created

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        await turns()
        await super().save(attempt, record)
        self.order.append(f"store {record.status}")
        await turns()


class WatchedLog(MemoryRunLog):
    """Asks the service for the response at the very moment an event becomes readable."""

    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self.order = order
        self.service: ResponsesService | None = None
        self.told: list[tuple[dict[str, Any], dict[str, Any]]] = []

    async def append(self, attempt: Attempt, entries: Sequence[LogEntry], *, closes: bool = False) -> None:
        assert self.service is not None
        for kind, payload in entries:
            event = json.loads(payload)
            if "response" in event:
                stored = json.loads(await self.service.retrieve(attempt.key.run_id))
                self.told.append((event["response"], stored))
                self.order.append(f"tell {kind}")
        await turns()
        await super().append(attempt, entries, closes=closes)


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.behaviour("D10")
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(("steps", "ending"), [(["Hel", "lo"], "completed"), (["half", ValueError("boom")], "failed")])
async def test_a_state_is_stored_before_the_event_that_tells_of_it(
    background: bool, steps: list[Any], ending: str
) -> None:
    order: list[str] = []
    log = WatchedLog(order)
    service = ResponsesService(context_of(ScriptedAgent(steps), log=log), state=state_with(SlowStore(order)))
    log.service = service

    started = await service.create({**QUESTION, "background": background, "stream": True})
    events = wire.parse_sse(await whole_stream(service, started))

    wire.check_stream(events)
    assert all(stored["status"] == told["status"] for told, stored in log.told)
    assert log.told[-1][0] == log.told[-1][1] == events[-1]["response"]
    opening = (
        ["store queued", "tell response.created", "tell response.queued", "store in_progress"]
        if background
        else ["store in_progress", "tell response.created"]
    )
    assert order == [*opening, "tell response.in_progress", f"store {ending}", f"tell response.{ending}"]


@pytest.mark.behaviour("D10")
async def test_a_cancelled_state_is_stored_before_its_readers_hear_of_it() -> None:
    order: list[str] = []
    gate, log = Gate(), WatchedLog(order)
    service = ResponsesService(context_of(ScriptedAgent([gate]), log=log), state=state_with(SlowStore(order)))
    log.service = service

    started = await service.create({**QUESTION, "background": True})
    await asyncio.wait_for(gate.reached.wait(), SECONDS)
    await service.cancel(json.loads(started.body)["id"])

    assert order[-2:] == ["store cancelled", "tell response.failed"]
    assert log.told[-1][0] == log.told[-1][1]


async def test_a_cancel_that_meets_the_end_of_a_run_gives_one_terminal_state() -> None:
    gate, log = Gate(), WatchedLog([])
    responses = SlowStore([])
    service = ResponsesService(context_of(ScriptedAgent(["hello", gate]), log=log), state=state_with(responses))
    log.service = service

    started = await service.create({**QUESTION, "background": True})
    response_id = json.loads(started.body)["id"]
    await asyncio.wait_for(gate.reached.wait(), SECONDS)
    gate.open()
    bodies = await asyncio.wait_for(
        asyncio.gather(*(service.cancel(response_id) for _ in range(5)), service.result(started)), SECONDS
    )

    assert len({*bodies}) == 1
    assert len([told for told, _ in log.told if told["status"] in {"completed", "cancelled"}]) == 1


async def test_a_session_store_that_fails_fails_the_run() -> None:
    class BrokenStore(MemorySessionStore):
        async def put(self, partition: Any, key: Any, session: AgentSession, *, base: Any = None) -> None:
            raise OSError("disk full")

    for body in (QUESTION, {**QUESTION, "stream": True}, {**QUESTION, "background": True}):
        service = ResponsesService(context_of(ScriptedAgent(["hello"]), store=BrokenStore()))
        started = await service.create(body)
        response = json.loads(await asyncio.wait_for(service.result(started), SECONDS))
        stored = json.loads(await service.retrieve(response["id"]))

        assert stored["status"] == response["status"] == "failed"
        assert "disk full" not in json.dumps(response)


# --- Memory ------------------------------------------------------------------------------------------------------


async def test_two_thousand_answers_leave_no_logs_and_no_turns_behind() -> None:
    log, sessions = MemoryRunLog(), MemorySessionStore(max_entries=50)
    service = ResponsesService(
        context_of(ScriptedAgent(["hello"]), log=log, store=sessions),
        settings=replace(ResponsesSettings(), max_responses=50),
        state=state_with(responses := MemoryResponseStore(max_entries=50)),
    )
    before = count_of("Turn")

    for number in range(2_000):
        body = {**QUESTION, "stream": number % 2 == 0, "store": number % 3 != 0}
        started = await service.create(body)
        await service.result(started)
        await service.leave(started)
    del started

    assert len(responses) == 50
    assert (len(log._open), len(log._closed), len(sessions._sessions)) == (0, 0, 50)
    assert count_of("Turn") - before <= 1


async def test_deleting_a_response_deletes_its_session_and_its_log() -> None:
    log, sessions, responses = MemoryRunLog(), MemorySessionStore(), MemoryResponseStore()
    service = ResponsesService(
        context_of(ScriptedAgent(["hello"]), log=log, store=sessions), state=state_with(responses)
    )
    started = await service.create({**QUESTION, "background": True})
    response = json.loads(await asyncio.wait_for(service.result(started), SECONDS))
    before = (len(responses), len(sessions._sessions), len(log._closed))
    await service.delete(response["id"])

    assert before == (1, 1, 1)
    assert (len(responses), len(sessions._sessions), len(log._closed), len(log._open)) == (0, 0, 0, 0)


def count_of(name: str) -> int:
    gc.collect()
    return sum(type(thing).__name__ == name for thing in gc.get_objects())
