"""Endings that nobody planned: exceptions that are none, stores and logs that fail, cancellations at the worst moment."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import live
import pytest
import raw
import wire
from agent_framework import AgentResponseUpdate, Content

from agent_framework_hosting import AgentFrameworkHost, ChannelRequest, ChannelSession
from agent_framework_hosting.context import ChannelContext
from agent_framework_hosting.errors import AlreadyExists, ConfigurationError, StoreUnavailable
from agent_framework_hosting.runs.base import Attempt, LogEntry, Participant, RunKey
from agent_framework_hosting.runs.memory import MemoryRunEngine, MemoryRunLog
from agent_framework_hosting.sessions import Sessions
from agent_framework_hosting.stores.memory import MemorySessionStore
from agent_framework_hosting.targets.agent import AgentTarget
from agent_framework_hosting.targets.served import ServedTarget, ServedTargets
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponsesService, ResponsesSettings
from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.service import Started
from agent_framework_hosting_responses.state import ResponsesState
from agent_framework_hosting_responses.stores.base import IdempotencyKey, ResponseRecord, ResponseStore
from agent_framework_hosting_responses.stores.context import Context
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore
from agent_framework_hosting_responses.stores.memory_settlements import MemorySettlements

SECONDS = 60.0
MODES: list[dict[str, Any]] = [{}, {"stream": True}, {"background": True}, {"background": True, "stream": True}]
mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: "+".join(mode) or "one-shot")


class NoException(BaseException):
    """What some libraries raise to get past `except Exception`."""


class TalkingAgent(ScriptedAgent):
    """An agent of one generator function."""

    def __init__(self, talk: Callable[[], AsyncGenerator[AgentResponseUpdate, None]]) -> None:
        super().__init__(())
        self._talk = talk

    def run(self, messages: Any = None, **kwargs: Any) -> Any:
        return self._talk()


def says(text: str) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_text(text)], role="assistant")


def context_of(agent: Any, *, log: MemoryRunLog | None = None, store: Any = None) -> ChannelContext:
    sessions, log = store or MemorySessionStore(), log or MemoryRunLog()
    return ChannelContext(
        targets=ServedTargets([ServedTarget("", AgentTarget(agent))]),
        session_store=sessions,
        sessions=Sessions(sessions),
        engine=MemoryRunEngine(),
        run_log=log,
        durable_log=log,
    )


def state_with(responses: ResponseStore) -> ResponsesState:
    return ResponsesState(responses=responses, conversations=MemoryConversationStore(), settlements=MemorySettlements())


async def ended(service: ResponsesService, started: Started) -> dict[str, Any]:
    """Wait until the readers of the run are released, and return the response as it is then."""
    body: dict[str, Any] = json.loads(await asyncio.wait_for(service.result(started), SECONDS))
    return body


# --- What agents raise -------------------------------------------------------------------------------------------


async def raises_no_exception() -> AsyncGenerator[AgentResponseUpdate, None]:
    yield says("half")
    raise NoException("secret")


async def raises_a_group() -> AsyncGenerator[AgentResponseUpdate, None]:
    yield says("half")
    raise BaseExceptionGroup("secret", [NoException("secret")])


async def exits() -> AsyncGenerator[AgentResponseUpdate, None]:
    yield says("half")
    raise SystemExit("secret")


async def waits_for_what_was_cancelled() -> AsyncGenerator[AgentResponseUpdate, None]:
    yield says("half")
    future = asyncio.get_running_loop().create_future()
    future.cancel("secret")
    await future


async def fails_to_clean_up() -> AsyncGenerator[AgentResponseUpdate, None]:
    try:
        yield says("half")
        raise ValueError("secret")
    finally:
        raise RuntimeError("secret")


@pytest.mark.behaviour("B8")
@mode
@pytest.mark.parametrize(
    "talk", [raises_no_exception, raises_a_group, exits, waits_for_what_was_cancelled, fails_to_clean_up]
)
async def test_whatever_an_agent_raises_its_response_fails_and_the_host_lives(
    talk: Callable[[], AsyncGenerator[AgentResponseUpdate, None]], mode: dict[str, Any]
) -> None:
    log = MemoryRunLog()
    service = ResponsesService(context_of(TalkingAgent(talk), log=log))

    started = await service.create({"input": "q", **mode})
    response = await ended(service, started)
    events = [json.loads(payload) async for batch in log.follow(started.record.key) for _, payload in batch]

    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert "secret" not in json.dumps([response, events])
    assert json.loads(await service.retrieve(response["id"])) == response
    if mode:
        wire.check_stream(events)
        assert events[-1]["response"] == response


# --- Stores and logs that fail -----------------------------------------------------------------------------------


class FailingStore(MemoryResponseStore):
    """Fails from the `first` call of `method` on, `times` times."""

    def __init__(self, method: str, *, first: int = 1, times: int = 1_000) -> None:
        super().__init__()
        self._method = method
        self._failing = range(first, first + times)
        self._calls = 0

    def _called(self, method: str) -> None:
        if method == self._method:
            self._calls += 1
            if self._calls in self._failing:
                raise StoreUnavailable("secret")

    async def begin(self, key: RunKey, *, owner: str = "") -> Attempt | None:
        self._called("begin")
        return await super().begin(key, owner=owner)

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        self._called("save")
        await super().save(attempt, record)


class FailingLog(MemoryRunLog):
    """Fails from the `first` append on."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self._left = first

    async def append(self, attempt: Attempt, entries: Sequence[LogEntry], *, closes: bool = False) -> None:
        self._left -= 1
        if self._left <= 0:
            raise StoreUnavailable("secret")
        await super().append(attempt, entries, closes=closes)


@pytest.mark.parametrize(
    ("method", "mode"),
    [("begin", one) for one in MODES if one.get("background")] + [("save", one) for one in MODES],
)
async def test_a_store_that_stays_away_lets_no_reader_wait(method: str, mode: dict[str, Any]) -> None:
    log = MemoryRunLog()
    service = ResponsesService(context_of(ScriptedAgent(["hello"]), log=log), state=state_with(FailingStore(method)))

    started = await service.create({"input": "q", **mode})
    response = await ended(service, started)
    await service.leave(started)

    assert response["status"] in {"queued", "in_progress"}
    assert (log._open, service.runs._turns) == ({}, {})


@pytest.mark.parametrize("mode", [one for one in MODES if one.get("background")])  # others have begun when accepted
async def test_a_store_that_fails_once_costs_the_run_but_not_its_end(mode: dict[str, Any]) -> None:
    service = ResponsesService(context_of(ScriptedAgent(["hello"])), state=state_with(FailingStore("begin", times=1)))

    response = await ended(service, await service.create({"input": "q", **mode}))

    assert response["status"] == "failed"
    assert json.loads(await service.retrieve(response["id"])) == response


async def test_an_end_that_could_not_be_stored_at_once_is_stored_as_it_was() -> None:
    log = MemoryRunLog()
    store = FailingStore("save", times=1)
    service = ResponsesService(context_of(ScriptedAgent(["hello"]), log=log), state=state_with(store))

    started = await service.create({"input": "q", "stream": True})
    response = await ended(service, started)
    events = [json.loads(payload) async for batch in log.follow(started.record.key) for _, payload in batch]

    wire.check_stream(events)
    assert response["status"] == "completed"
    assert events[-1]["response"] == response == json.loads(await service.retrieve(response["id"]))


@mode
@pytest.mark.parametrize("first", [2, 3, 4])
async def test_a_log_that_stays_away_lets_no_reader_wait(first: int, mode: dict[str, Any]) -> None:
    log = FailingLog(first)
    service = ResponsesService(context_of(ScriptedAgent(["hello"]), log=log))

    response = await ended(service, await service.create({"input": "q", **mode}))

    assert response["status"] in {"completed", "failed"}
    assert json.loads(await service.retrieve(response["id"])) == response
    assert (log._open, service.runs._turns) == ({}, {})


@pytest.mark.parametrize("stream", [False, True])
async def test_over_http_a_run_whose_end_cannot_be_stored_is_a_server_error(
    stream: bool,
) -> None:
    channel = ResponsesChannel(state=state_with(FailingStore("save")))
    app = AgentFrameworkHost(ScriptedAgent(["hello"]), channels=[channel]).app
    async with live.serve(app) as served:
        answer = await served.http.post("/responses", json={"input": "q", "stream": stream})

    assert answer.status_code == (200 if stream else 500)
    assert "response.completed" not in answer.text
    assert "secret" not in answer.text
    assert stream or answer.headers["x-should-retry"] == "false"


@pytest.mark.behaviour("A5")
@mode
async def test_a_named_session_that_cannot_be_stored_fails_the_run(mode: dict[str, Any]) -> None:
    class FullStore(MemorySessionStore):
        async def put(self, partition: Any, key: Any, session: Any, *, base: Any = None) -> None:
            if key.startswith("named:"):
                raise OSError("disk full")
            await super().put(partition, key, session)

    def name_session(request: ChannelRequest, **_: object) -> ChannelRequest:
        return replace(request, session=ChannelSession(isolation_key="k"))

    log = MemoryRunLog()
    context = context_of(ScriptedAgent(["hello"]), log=log, store=FullStore())
    service = ResponsesService(context, run_hook=name_session)

    started = await service.create({"input": "q", **mode})
    response = await ended(service, started)
    events = [json.loads(payload) async for batch in log.follow(started.record.key) for _, payload in batch]

    assert response["status"] == "failed"
    assert "disk full" not in json.dumps([response, events])
    if mode:
        wire.check_stream(events)


# --- Cancellation at the worst moment ----------------------------------------------------------------------------


@pytest.mark.behaviour("D4")
async def test_a_cancel_that_meets_the_stored_end_of_a_run_is_answered_with_it() -> None:
    class SlowStore(MemoryResponseStore):
        """Keeps the end of a run on its way until the gate is open."""

        def __init__(self) -> None:
            super().__init__()
            self.saving = Gate()

        async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
            if record.status.is_terminal:
                await self.saving.wait()
            await super().save(attempt, record)

    log, store = MemoryRunLog(), SlowStore()
    service = ResponsesService(
        context_of(ScriptedAgent(["hello"]), log=log),
        state=state_with(store),
        settings=ResponsesSettings(cancel_grace=0.01),
    )

    started = await service.create({"input": "q", "background": True})
    response_id = json.loads(started.body)["id"]
    await asyncio.wait_for(store.saving.reached.wait(), SECONDS)
    cancel = asyncio.create_task(service.cancel(response_id))
    await ticks(20)
    store.saving.open()
    cancelled = json.loads(await asyncio.wait_for(cancel, SECONDS))
    response = await ended(service, started)
    events = [json.loads(payload) async for batch in log.follow(started.record.key) for _, payload in batch]

    wire.check_stream(events)
    assert cancelled["status"] == "completed"
    assert events[-1]["response"] == response == cancelled == json.loads(await service.retrieve(response_id))


async def ticks(number: int) -> None:
    """Let every other task run `number` times."""
    for _ in range(number):
        await asyncio.sleep(0)


class SuspendingStore(MemoryResponseStore):
    """Lets others run before and after each call, as a store behind a network does."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    async def _suspend(self) -> None:
        await ticks(self._random.randrange(4))

    async def create(
        self, record: ResponseRecord, context: Context | None = None, participants: Sequence[Participant] = ()
    ) -> ResponseRecord | None:
        await self._suspend()
        created = await super().create(record, context, participants)
        await self._suspend()
        return created

    async def get(self, key: RunKey | IdempotencyKey) -> ResponseRecord | None:
        await self._suspend()
        return await super().get(key)

    async def begin(self, key: RunKey, *, owner: str = "") -> Attempt | None:
        await self._suspend()
        attempt = await super().begin(key, owner=owner)
        await self._suspend()
        return attempt

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        await self._suspend()
        await super().save(attempt, record)
        await self._suspend()

    async def delete(self, key: RunKey) -> bool:
        await self._suspend()
        return await super().delete(key)


class UnsteadyAgent(ScriptedAgent):
    """Takes its time; finishes, fails, or ignores cancellations."""

    def __init__(self, random: Random) -> None:
        super().__init__(())
        self._random = random
        self._kind = random.choice(["finishes", "fails", "ignores"])

    def run(self, messages: Any = None, **kwargs: Any) -> Any:
        return self._talk()

    async def _talk(self) -> AsyncGenerator[AgentResponseUpdate, None]:
        for _ in range(4):
            try:
                await ticks(self._random.randrange(5))
            except asyncio.CancelledError:
                if self._kind != "ignores":
                    raise
            yield says("word ")
        if self._kind == "fails":
            raise ValueError("secret")


async def disturb(service: ResponsesService, started: Started, random: Random) -> tuple[str, str]:
    """Do something to the run at some moment; return what, and the status that was answered."""
    await ticks(random.randrange(60))
    response_id = started.record.key.run_id
    what = random.choice(["cancel", "leave", "delete", "drain", "retrieve"])
    try:
        if what == "cancel":
            return what, json.loads(await service.cancel(response_id))["status"]
        if what == "retrieve":
            return what, json.loads(await service.retrieve(response_id))["status"]
        if what == "delete":
            await service.delete(response_id)
        elif what == "leave":
            await service.leave(started)
        else:
            await service._context.engine.drain(0)
    except RequestError as error:
        return what, error.message
    return what, "done"


@pytest.mark.behaviour("D4", "D10")
@pytest.mark.parametrize("seed", range(250))
async def test_whoever_meets_whom_a_run_has_one_end_and_everybody_is_told_the_same(seed: int) -> None:
    random = Random(seed)
    log = MemoryRunLog()
    context = context_of(UnsteadyAgent(random), log=log)
    settings = ResponsesSettings(
        cancel_grace=random.choice([0.0, 0.001, 1.0]), run_timeout=random.choice([None, None, 0.0, 0.001])
    )
    service = ResponsesService(context, state=state_with(SuspendingStore(random)), settings=settings)
    is_background = random.choice([True, False])

    started = await service.create({"input": "q", "stream": True, "background": is_background})
    reader = asyncio.create_task(read(service, started))
    async with asyncio.timeout(SECONDS):
        answers = await asyncio.gather(*(disturb(service, started, random) for _ in range(random.randrange(5))))
        events = await reader
        await context.engine.drain(SECONDS)

    final = started.status.value
    is_dropped = ("delete", "done") in answers or (not is_background and ("leave", "done") in answers)
    assert final in {"completed", "failed", "cancelled"}
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    if not is_dropped:
        wire.check_stream(events)
        assert events[-1]["response"]["status"] == final
    assert {status for what, status in answers if what == "cancel"} <= {
        final,
        "Cannot cancel a synchronous response.",
        f"Response with id '{started.record.key.run_id}' not found.",
    }
    assert (log._open, service.runs._turns) == ({}, {})
    if ("delete", "done") in answers:
        assert log._closed.get(started.record.key) is None
    else:
        assert json.loads(await service.retrieve(started.record.key.run_id))["status"] == final


class LateStore(MemoryResponseStore):
    """A store that has stored a response for a while when it says so."""

    def __init__(self) -> None:
        super().__init__()
        self.has_stored = asyncio.Event()

    async def create(self, *args: Any) -> ResponseRecord | None:
        known = await super().create(*args)
        self.has_stored.set()
        await asyncio.Event().wait()
        return known


async def test_a_request_that_is_cancelled_while_it_is_stored_leaves_nothing_behind() -> None:
    store = LateStore()
    service = ResponsesService(context_of(ScriptedAgent(["x"])), state=state_with(store))
    request = asyncio.create_task(service.create({"input": "q", "stream": True}))
    await asyncio.wait_for(store.has_stored.wait(), SECONDS)

    request.cancel()
    await asyncio.wait_for(asyncio.wait({request}), SECONDS)

    assert request.cancelled()
    assert len(store) == 0


@pytest.mark.behaviour("D7")
async def test_a_request_with_the_id_of_a_running_response_does_not_take_its_run_away() -> None:
    gate = Gate()
    agent = ScriptedAgent([gate, "x"])
    service = ResponsesService(context_of(agent), response_id_factory=lambda: "resp_same")
    running = await service.create({"input": "q", "stream": True})
    await asyncio.wait_for(gate.reached.wait(), SECONDS)

    with pytest.raises(AlreadyExists):
        await service.create({"input": "q", "stream": True})

    await asyncio.wait_for(service.leave(running), SECONDS)
    assert agent.runs[0].is_cancelled
    assert running.status == "cancelled"


async def read(service: ResponsesService, started: Started) -> list[dict[str, Any]]:
    return [json.loads(payload) async for batch in service.follow(started) for _, payload in batch]


@pytest.mark.behaviour("G2")
@mode
async def test_a_run_that_is_drained_before_its_first_step_reaches_an_end(mode: dict[str, Any]) -> None:
    agent = ScriptedAgent([Gate()])
    context = context_of(agent)
    service = ResponsesService(context)

    started = await service.create({"input": "q", **mode})
    await asyncio.wait_for(context.engine.drain(0), SECONDS)
    response = await ended(service, started)

    assert response["status"] == "failed"
    assert json.loads(await service.retrieve(response["id"])) == response


@pytest.mark.behaviour("G2")
@mode
async def test_a_run_that_the_shutdown_breaks_off_failed_and_was_not_cancelled(mode: dict[str, Any]) -> None:
    gate, log = Gate(), MemoryRunLog()
    agent = ScriptedAgent(["half", gate])
    context = context_of(agent, log=log)
    service = ResponsesService(context)

    started = await service.create({"input": "q", **mode})
    await asyncio.wait_for(gate.reached.wait(), SECONDS)
    await asyncio.wait_for(context.engine.drain(0), SECONDS)
    response = await ended(service, started)
    events = [json.loads(payload) async for batch in log.follow(started.record.key) for _, payload in batch]

    assert agent.runs[0].is_cancelled
    assert response["status"] == "failed"
    assert response["error"]["message"] == "The server was shut down before the run ended."
    if mode:
        wire.check_stream(events)
        assert events[-1]["response"] == response


async def test_a_client_that_leaves_in_the_middle_of_its_upload_is_no_error_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = ScriptedAgent(["hello"])
    async with live.serve(AgentFrameworkHost(agent, channels=[ResponsesChannel()]).app) as served:
        async with raw.connect(served.base_url) as connection:
            await connection.send_head("POST", "/responses", {"content-length": "1000"})
            await connection.send_bytes(b'{"input": "')
            connection.abort()
        assert (await served.http.get("/readiness")).status_code == 200

    assert agent.runs == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# --- Channels ----------------------------------------------------------------------------------------------------


def test_a_channel_is_refused_by_a_second_host() -> None:
    channel = ResponsesChannel()
    first = AgentFrameworkHost(ScriptedAgent(["one"]), channels=[channel])
    second = AgentFrameworkHost(ScriptedAgent(["two"]), channels=[channel])

    assert first.app is first.app
    with pytest.raises(ConfigurationError, match="make one for each"):
        _ = second.app


class HesitantLog(MemoryRunLog):
    """Takes the events of the begin at once, and says so only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.has_taken = asyncio.Event()

    async def append(self, attempt: Attempt, entries: Sequence[LogEntry], *, closes: bool = False) -> None:
        await super().append(attempt, entries, closes=closes)
        if any(kind == "response.in_progress" for kind, _ in entries) and not self.has_taken.is_set():
            self.has_taken.set()
            await asyncio.Event().wait()


async def test_a_run_that_is_cancelled_while_its_begin_is_told_tells_it_once() -> None:
    log = HesitantLog()
    service = ResponsesService(context_of(ScriptedAgent(["never"]), log=log))

    started = await service.create({"input": "q", "background": True, "stream": True})
    await asyncio.wait_for(log.has_taken.wait(), SECONDS)
    response_id = str(json.loads(started.body)["id"])
    await asyncio.wait_for(service.cancel(response_id), SECONDS)
    events = [json.loads(data) for _, data in await log.entries(started.record.key)]

    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events] == [
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.failed",
    ]
