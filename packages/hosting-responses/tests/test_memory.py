"""Responses in memory: bounded, and every rule of the store's protocol."""

from __future__ import annotations

from typing import Any

import live
import openai
import pytest
from msgspec.structs import replace

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.errors import AlreadyExists, StaleWrite
from agent_framework_hosting.isolation import IsolationKeys
from agent_framework_hosting.runs.base import Attempt, RunId, RunKey, RunStatus
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings
from agent_framework_hosting_responses.stores.base import ResponseRecord
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore

ADA = IsolationKeys(user_key="ada").partition
BOB = IsolationKeys(user_key="bob").partition


def record_of(name: str, *, status: RunStatus = RunStatus.IN_PROGRESS, partition: Any = ADA) -> ResponseRecord:
    return ResponseRecord(key=RunKey(partition, RunId(name)), status=status, created_at=1, body=name.encode())


class Clock:
    """A clock that stands still until a test moves it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.behaviour("D7")
@pytest.mark.parametrize("status", [RunStatus.QUEUED, RunStatus.COMPLETED])
async def test_an_id_can_be_taken_once_in_each_partition(status: RunStatus) -> None:
    store = MemoryResponseStore()
    await store.create(record_of("a", status=status))

    with pytest.raises(AlreadyExists):
        await store.create(replace(record_of("a"), body=b"other"))
    await store.create(record_of("a", partition=BOB))

    stored = await store.get(RunKey(ADA, RunId("a")))
    assert stored is not None
    assert (stored.body, stored.status) == (b"a", status)


@pytest.mark.behaviour("E2")
async def test_another_partition_sees_writes_and_deletes_nothing() -> None:
    store = MemoryResponseStore()
    await store.create(record_of("a"))
    foreign = RunKey(BOB, RunId("a"))

    assert await store.get(foreign) is None
    assert await store.begin(foreign) is None
    assert not await store.delete(foreign)
    with pytest.raises(StaleWrite):
        await store.save(Attempt(foreign, 0), record_of("a", partition=BOB))
    assert await store.get(RunKey(ADA, RunId("a"))) == record_of("a")


async def test_the_latest_attempt_alone_may_write() -> None:
    store = MemoryResponseStore()
    record = record_of("a")
    await store.create(record)
    first = await store.begin(record.key)
    second = await store.begin(record.key)
    assert first is not None
    assert second is not None

    with pytest.raises(StaleWrite):
        await store.save(first, replace(record, body=b"stale"))
    await store.save(second, replace(record, body=b"fresh"))

    stored = await store.get(record.key)
    assert stored is not None
    assert (first.number, second.number, stored.attempt, stored.body) == (1, 2, 2, b"fresh")


@pytest.mark.parametrize("status", [status for status in RunStatus if status.is_terminal])
async def test_a_terminal_response_never_changes(status: RunStatus) -> None:
    store = MemoryResponseStore()
    record = record_of("a")
    await store.create(record)
    attempt = await store.begin(record.key)
    assert attempt is not None
    await store.save(attempt, replace(record, status=status))

    with pytest.raises(StaleWrite):
        await store.save(attempt, replace(record, body=b"late"))
    assert await store.begin(record.key) is None
    stored = await store.get(record.key)
    assert stored is not None
    assert (stored.status, stored.body) == (status, b"a")


@pytest.mark.parametrize("status", [RunStatus.IN_PROGRESS, RunStatus.FAILED])
async def test_a_deleted_response_is_gone(status: RunStatus) -> None:
    store = MemoryResponseStore()
    record = record_of("a", status=status)
    await store.create(record)

    assert await store.delete(record.key)
    assert not await store.delete(record.key)
    assert await store.get(record.key) is None
    assert await store.begin(record.key) is None
    with pytest.raises(StaleWrite):
        await store.save(Attempt(record.key, 0), record)
    assert len(store) == 0


async def test_the_oldest_finished_responses_are_forgotten_first_and_running_ones_never() -> None:
    store = MemoryResponseStore(max_entries=2)
    await store.create(record_of("running"))
    for name in "abc":
        await store.create(record_of(name, status=RunStatus.COMPLETED))

    found = [name for name in ("running", "a", "b", "c") if await store.get(RunKey(ADA, RunId(name)))]
    assert found == ["running", "b", "c"]
    assert len(store) == 3


async def test_a_finished_response_is_forgotten_after_its_age() -> None:
    clock = Clock()
    store = MemoryResponseStore(max_age=10, clock=clock)
    running = record_of("running")
    await store.create(running)
    await store.create(record_of("done", status=RunStatus.COMPLETED))
    clock.now = 11

    assert await store.get(RunKey(ADA, RunId("done"))) is None
    attempt = await store.begin(running.key)
    assert attempt is not None
    await store.save(attempt, replace(running, status=RunStatus.COMPLETED))
    clock.now = 21
    assert await store.get(running.key) is not None
    clock.now = 22
    assert await store.get(running.key) is None


# --- Through a served host ---------------------------------------------------------------------------------------


async def test_a_full_store_forgets_the_oldest_response() -> None:
    channel = ResponsesChannel(settings=ResponsesSettings(max_responses=2))
    async with live.serve(AgentFrameworkHost(ScriptedAgent(["hello"]), channels=[channel]).app) as served:
        made = [(await served.client.responses.create(model="a", input="q")).id for _ in range(3)]
        with pytest.raises(openai.NotFoundError):
            await served.client.responses.retrieve(made[0])
        kept = [(await served.client.responses.retrieve(name)).id for name in made[1:]]

    assert kept == made[1:]


async def test_conversations_are_bounded_in_number_and_age() -> None:
    by_number = ResponsesChannel(settings=ResponsesSettings(max_conversations=1))
    by_age = ResponsesChannel(name="aged", path="/aged", settings=ResponsesSettings(max_conversation_age=-1))
    host = AgentFrameworkHost(ScriptedAgent(["hello"]), channels=[by_number, by_age])
    async with live.serve(host.app) as served:
        made = [(await served.client.conversations.create()).id for _ in range(2)]
        found = [(await served.http.get(f"/v1/conversations/{name}")).status_code for name in made]
        aged = (await served.http.post("/aged/conversations", json={})).json()["id"]
        gone = await served.http.get(f"/aged/conversations/{aged}")

    assert found == [404, 200]
    assert gone.status_code == 404


@pytest.mark.parametrize("background", [False, True])
async def test_a_response_that_runs_survives_a_full_store(background: bool) -> None:
    gate = Gate()
    channel = ResponsesChannel(settings=ResponsesSettings(max_responses=1))
    agent = ScriptedAgent([gate, "slow"], ["quick"])
    async with live.serve(AgentFrameworkHost(agent, channels=[channel]).app) as served:
        stream: Any = await served.client.responses.create(model="a", input="q", stream=True, background=background)
        events = [await anext(stream)]
        for _ in range(3):
            await served.client.responses.create(model="a", input="q")
        gate.open()
        events += [event async for event in stream]
        stored = await served.client.responses.retrieve(events[0].response.id)

    assert events[-1].type == "response.completed"
    assert stored.output_text == "slow"
