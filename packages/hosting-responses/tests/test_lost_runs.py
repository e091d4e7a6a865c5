"""Runs that no process executes are found, and what another process has taken over stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import live
import psycopg
import pytest
import wire
from postgres import PostgresServer
from states import State

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import Attempt, RunId, RunKey, RunStatus
from agent_framework_hosting.sql.presence import Presence
from agent_framework_hosting.testing.agents import AgentStep, Gate, ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponseStore, recovery

SECONDS = 60.0


@dataclass
class Replica:
    """A served host. `looks` is what it does with every sign of life."""

    served: live.LiveHost
    agent: ScriptedAgent
    host: AgentFrameworkHost
    channel: ResponsesChannel

    @property
    def presence(self) -> Presence:
        assert self.host._state.presence is not None
        return self.host._state.presence

    @property
    def store(self) -> ResponseStore:
        return self.channel.service.state.responses

    async def looks(self) -> None:
        await self.presence.round()

    async def accepts(self) -> RunKey:
        """Accept a background run."""
        body = {"model": "a", "input": "q", "background": True}
        answer = (await self.served.http.post("/v1/responses", json=body)).json()
        return RunKey(SHARED, RunId(answer["id"]))

    async def ended(self, key: RunKey) -> str:
        """Return the status of a run once its events have ended."""
        path = f"/v1/responses/{key.run_id}"
        told = wire.parse_sse((await self.served.http.get(f"{path}?stream=true", timeout=SECONDS)).content)
        wire.check_stream(told)
        stored = (await self.served.http.get(path)).json()
        assert told[-1]["response"] == stored
        return str(stored["status"])


@asynccontextmanager
async def replica(state: State, *turns: Sequence[AgentStep], **options: Any) -> AsyncGenerator[Replica, None]:
    agent, channel = ScriptedAgent(*turns), ResponsesChannel()
    host = AgentFrameworkHost(agent, channels=[channel], shutdown_grace=0, **state.options, **options)
    async with live.serve(host.app) as served:
        yield Replica(served, agent, host, channel)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every running response for one that must be executed by now."""
    monkeypatch.setattr(recovery, "MISSING_AFTER", -10.0)


@pytest.fixture
def postgres_state(postgres_url: str) -> State:
    return State("postgres", {"database_url": postgres_url})


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not is_so():  # noqa: ASYNC110  no event is set
            await asyncio.sleep(0.01)


async def begun(one: Replica, key: RunKey) -> Attempt:
    """Return the attempt of a run that is executed here, as soon as its agent has been asked."""
    runs = one.channel.service.runs
    await until(lambda: bool(one.agent.runs) and (turn := runs.find(key)) is not None and turn.attempt is not None)
    (attempt,) = runs.begun(one.store)
    return attempt


async def forgotten(one: Replica, key: RunKey) -> None:
    """Wait until no engine knows of the run any more."""
    async with asyncio.timeout(SECONDS):
        while not await one.channel.service.runs.missing([key], is_background=True):  # noqa: ASYNC110  as above
            await asyncio.sleep(0.01)


def operate(state: State, statement: str) -> None:
    with psycopg.connect(str(state.options["database_url"]), autocommit=True) as connection:
        connection.execute(statement.encode())


# --- Executed nowhere


@pytest.mark.behaviour("D6")
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "lose",
    ["DELETE FROM procrastinate_jobs", "UPDATE procrastinate_jobs SET status = 'failed'"],
    ids=["deleted", "given up"],
)
async def test_a_run_that_no_job_is_left_of_is_executed(postgres_state: State, lose: str) -> None:
    async with replica(postgres_state, run_concurrency=0) as accepting:
        key = await accepting.accepts()
        operate(postgres_state, lose)
        async with replica(postgres_state, ["hello"]) as working:
            await accepting.looks()

            assert await working.ended(key) == "completed"
            assert len(working.agent.runs) == 1


@pytest.mark.behaviour("D6")
@pytest.mark.usefixtures("at_once")
async def test_a_run_that_was_begun_and_is_executed_nowhere_ends(durable_state: State) -> None:
    async with replica(durable_state, [Gate()]) as one:
        key = await one.accepts()
        # As after a run whose end could not be stored: nobody has it, and its owner is alive.
        one.channel.service.runs.lose(await begun(one, key))
        await asyncio.wait_for(one.agent.runs[0].ended.wait(), SECONDS)
        await forgotten(one, key)

        await one.looks()

        assert await one.ended(key) == "failed"
        assert len(one.agent.runs) == 1


@pytest.mark.behaviour("D6")
@pytest.mark.usefixtures("at_once")
async def test_a_foreground_run_that_is_executed_nowhere_ends(durable_state: State) -> None:
    async with replica(durable_state, [Gate()]) as one:
        stream: Any = await one.served.client.responses.create(model="a", input="q", stream=True)
        created = await anext(stream)
        key = RunKey(SHARED, RunId(created.response.id))
        one.channel.service.runs.lose(await begun(one, key))
        events = [event async for event in stream]
        await asyncio.wait_for(one.agent.runs[0].ended.wait(), SECONDS)

        await one.looks()

        # The stream is cut: what becomes of the run is not for this process to say.
        assert not any(event.type in {"response.completed", "response.failed"} for event in events)
        stored = await one.store.get(key)
        assert stored is not None
        assert stored.status is RunStatus.FAILED


@pytest.mark.usefixtures("at_once")
async def test_a_run_that_goes_on_is_left_alone_whatever_became_of_its_job(postgres_state: State) -> None:
    gate = Gate()
    async with replica(postgres_state, ["hello", gate]) as one:
        key = await one.accepts()
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        operate(postgres_state, "DELETE FROM procrastinate_jobs")

        await one.looks()
        gate.open()

        assert await one.ended(key) == "completed"
        assert len(one.agent.runs) == 1


@pytest.mark.usefixtures("at_once")
async def test_a_run_that_gets_lost_again_and_again_is_ended_at_last(
    postgres_state: State, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(postgres_state, run_concurrency=0) as one:
        key = await one.accepts()
        operate(postgres_state, f"UPDATE afhost_responses SET attempt = {recovery.MOST_ATTEMPTS}, request = 'broken'")
        operate(postgres_state, "DELETE FROM procrastinate_jobs")

        await one.looks()

        stored = await one.store.get(key)
    assert stored is not None
    assert stored.status is RunStatus.FAILED


async def test_a_young_run_is_not_looked_for(postgres_state: State) -> None:
    async with replica(postgres_state, run_concurrency=0) as one:
        await one.accepts()
        operate(postgres_state, "DELETE FROM procrastinate_jobs")

        await one.looks()

        assert one.host._state.engine is not None
        assert await one.host._state.engine.depth() == (0, 0, 0.0)


# --- Another's by now


@pytest.mark.behaviour("D11")
@pytest.mark.parametrize("is_alive", [True, False])
async def test_an_agent_stops_whose_run_another_process_has_taken(
    postgres_state: State,
    is_alive: bool,  # if not, this process takes it back in the same moment
) -> None:
    async with replica(postgres_state, ["hello", Gate(), "late"]) as one:
        key = await one.accepts()
        await begun(one, key)
        assert one.host._state.database is not None
        another = Presence(one.host._state.database, owner="another")
        if is_alive:
            await another.start()
        taken = await one.store.begin(key, owner="another")

        await one.looks()
        await asyncio.wait_for(one.agent.runs[0].ended.wait(), SECONDS)

        stored = await one.store.get(key)
        await another.stop()
    assert taken == Attempt(key, 2)
    assert one.agent.runs[0].is_cancelled
    assert stored is not None
    assert (stored.status, stored.attempt) == (RunStatus.IN_PROGRESS, 2)


@pytest.mark.behaviour("D11")
async def test_an_agent_stops_when_the_database_is_away_for_longer_than_the_lease(
    postgres_state: State, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(postgres_state.options["database_url"])
    async with replica(postgres_state, ["hello", Gate(), "late"], ["never"]) as one:
        # Not everything is stopped by its next write: this agent says nothing.
        one.presence._lease, one.presence._beat = 2.0, 0.2
        await one.presence.sign()
        key = await one.accepts()
        await begun(one, key)

        with postgres.outage(url):
            await asyncio.wait_for(one.agent.runs[0].ended.wait(), SECONDS)
        was_cancelled = one.agent.runs[0].is_cancelled
        await forgotten(one, key)
        monkeypatch.setattr(recovery, "MISSING_AFTER", -10.0)

        status = await one.ended(key)

    assert was_cancelled
    assert status == "failed"
    assert len(one.agent.runs) == 1
