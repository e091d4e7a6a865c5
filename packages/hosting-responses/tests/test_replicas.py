"""Two hosts on one PostgreSQL database are one service: whatever was done on one is true on the other at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sqlalchemy as sa
import wire
from agent_framework import Agent, Executor, Workflow, WorkflowBuilder, WorkflowContext, handler
from states import State
from witness import Answer, LocalClient, Witness, local

from agent_framework_hosting import AgentFrameworkHost, ChannelSession, IsolationKeys
from agent_framework_hosting.runs.base import Attempt, LogEntry, Participant, RunId, RunKey
from agent_framework_hosting.testing.agents import Gate
from agent_framework_hosting_responses import ResponsesChannel
from agent_framework_hosting_responses.stores.tables import responses

SECONDS = 60.0
TURNS = 20


@dataclass
class Replica:
    """A running host."""

    ask: LocalClient
    host: AgentFrameworkHost
    witness: Witness

    async def create(self, text: str, *, headers: Mapping[str, str] | None = None, **body: Any) -> str:
        answer = await self.ask("POST", "/v1/responses", {"input": text, **body}, headers=headers)
        assert answer.status == 200, answer
        if body.get("stream"):
            return str(wire.parse_sse(answer.content)[-1]["response"]["id"])
        return str(answer.json()["id"])

    async def get(self, path: str) -> Answer:
        return await self.ask("GET", f"/v1/{path}")

    async def ended(self, response_id: str) -> Any:
        """Return a background response as soon as it is terminal."""
        while True:
            response = (await self.get(f"responses/{response_id}")).json()
            if response["status"] not in wire.RUNNING:
                return response
            await asyncio.sleep(0.01)

    async def delete(self, path: str) -> None:
        answer = await self.ask("DELETE", f"/v1/{path}")
        assert answer.status == 200, answer

    async def texts(self, path: str) -> list[str]:
        answer = await self.get(f"{path}?order=asc&limit=100")
        assert answer.status == 200, answer
        return [item["content"][0]["text"] for item in answer.json()["data"]]

    async def refusal(self, **body: Any) -> str:
        """Return the code, or without one the status, with which a turn is refused."""
        answer = await self.ask("POST", "/v1/responses", {"input": "refused", **body})
        assert answer.status in {400, 404}, answer
        return str(answer.json()["error"]["code"] or answer.status)


@asynccontextmanager
async def replicas(
    options: Mapping[str, Any], *, count: int = 2, target: Any = None, **channel: Any
) -> AsyncGenerator[list[Replica], None]:
    async with AsyncExitStack() as stack:
        started: list[Replica] = []
        # One for all: a background run may be executed by another host than the one that was asked.
        witness = Witness()
        for _ in range(count):
            host = AgentFrameworkHost(
                target or Agent(client=witness), channels=[ResponsesChannel(**channel)], **options
            )
            started.append(Replica(await stack.enter_async_context(local(host)), host, witness))
        yield started


@pytest.fixture
def one_database(postgres_url: str) -> dict[str, Any]:
    return {"database_url": postgres_url}


# --- Responses


@pytest.mark.behaviour("A1", "A2", "D1")
async def test_a_chain_goes_on_at_either_replica(one_database: dict[str, Any]) -> None:
    async with replicas(one_database) as (one, other):
        first = await one.create("q1")
        shown = await other.get(f"responses/{first}")
        second = await other.create("q2", previous_response_id=first, stream=True)
        third = await one.create("q3", previous_response_id=second)
        await other.create("q4", previous_response_id=third)
        await one.create("branch", previous_response_id=second)
        asked = await other.texts(f"responses/{third}/input_items")

        assert shown.content == (await one.get(f"responses/{first}")).content
    history = ["q1", "answer to q1", "q2", "answer to q2"]
    assert one.witness.seen["q3"] == asked == [*history, "q3"]
    assert other.witness.seen["q4"] == [*history, "q3", "answer to q3", "q4"]
    assert one.witness.seen["branch"] == [*history, "branch"]


@pytest.mark.behaviour("D5")
async def test_a_response_that_was_deleted_at_one_replica_is_unknown_at_the_other(
    one_database: dict[str, Any],
) -> None:
    async with replicas(one_database) as (one, other):
        first = await one.create("q1")
        # Now this replica has contexts and sessions of both in memory.
        second = await one.create("q2", previous_response_id=first)
        await other.delete(f"responses/{first}")
        after_first = await one.refusal(previous_response_id=first)
        third = await one.create("q3", previous_response_id=second)
        await other.delete(f"responses/{second}")
        await other.delete(f"responses/{third}")

        assert after_first == "previous_response_not_found"
        for gone in (first, second, third):
            assert (await one.get(f"responses/{gone}")).status == 404
            assert (await one.get(f"responses/{gone}/input_items")).status == 404
            assert await one.refusal(previous_response_id=gone) == "previous_response_not_found"
    assert one.witness.seen["q3"] == ["q1", "answer to q1", "q2", "answer to q2", "q3"]


@pytest.mark.behaviour("D9")
async def test_a_request_that_is_repeated_at_the_other_replica_gets_the_same_response(
    one_database: dict[str, Any],
) -> None:
    key = {"idempotency-key": "order 7"}
    async with replicas(one_database) as (one, other):
        first = await one.create("q1", headers=key)
        again = await other.create("q1", headers=key)
        both = await asyncio.gather(
            *(replica.create("q2", headers={"idempotency-key": "order 8"}, background=True) for replica in (one, other))
        )
        refused = await other.ask("POST", "/v1/responses", {"input": "another"}, headers=key)
        await one.get(f"responses/{both[0]}?stream=true")
        runs = one.witness.asked

    assert first == again
    assert len(set(both)) == 1
    assert refused.json()["error"]["code"] == "idempotency_key_reused"
    assert [runs.count("q1"), runs.count("q2")] == [1, 1]


# --- Conversations


@pytest.mark.behaviour("D11")
async def test_a_replica_that_stood_still_while_it_accepted_a_run_leaves_it_to_who_took_it_over(
    one_database: dict[str, Any],
) -> None:
    async with replicas(one_database) as (one, other):
        log = one.host._context.durable_log
        stands, goes_on = asyncio.Event(), asyncio.Event()

        def opening(key: RunKey, entries: Sequence[LogEntry]) -> Participant:
            """Open the log after the response was stored, as it must be if they are in two databases."""

            async def stand_still() -> None:
                stands.set()
                await goes_on.wait()
                await log.append(Attempt(key, 0), entries)

            return Participant(alone=stand_still)

        log.opening = opening  # type: ignore[method-assign]
        async with asyncio.timeout(SECONDS):
            accepting = asyncio.create_task(one.create("question", background=True))
            await stands.wait()
            (channel,) = other.host.channels
            assert isinstance(channel, ResponsesChannel)
            store = other.host._context.database
            assert store is not None
            (response_id,) = await store.run(lambda connection: connection.execute(sa.select(responses.c.id)).scalars())
            await channel.service.runs.restart(RunKey(IsolationKeys().partition, RunId(response_id)))
            told = await other.ended(response_id)
            goes_on.set()

            assert await accepting == response_id

        assert told["status"] == "completed"
        for replica in (one, other):
            assert (await replica.get(f"responses/{response_id}")).json() == told
            wire.check_stream(wire.parse_sse((await replica.get(f"responses/{response_id}?stream=true")).content))


@pytest.mark.behaviour("A1", "A9")
async def test_a_conversation_is_the_same_at_both_replicas(one_database: dict[str, Any]) -> None:
    async with replicas(one_database) as (one, other):
        conversation = (await one.ask("POST", "/v1/conversations", {})).json()["id"]
        path = f"conversations/{conversation}"
        await one.create("q1", conversation=conversation)
        await other.create("q2", conversation=conversation)
        await one.create("q3", conversation=conversation)
        item = (await one.get(f"{path}/items?order=asc")).json()["data"][0]["id"]
        await other.delete(f"{path}/items/{item}")
        added = {"items": [{"role": "user", "content": "by the way"}]}
        await other.ask("POST", f"/v1/{path}/items", added)
        gone = (await one.get(f"{path}/items/{item}")).status
        await one.create("q4", conversation=conversation)
        await other.ask("POST", f"/v1/{path}", {"metadata": {"topic": "fish"}})
        shown = (await one.get(path)).json()["metadata"]
        listed = await other.texts(f"{path}/items")
        await other.delete(path)

        assert (await one.get(path)).status == (await one.get(f"{path}/items")).status == 404
        assert await one.refusal(conversation=conversation) == "404"
    rest = ["answer to q1", "q2", "answer to q2"]
    assert one.witness.seen["q3"] == ["q1", *rest, "q3"]
    assert gone == 404
    assert one.witness.seen["q4"] == [*rest, "q3", "answer to q3", "by the way", "q4"]
    assert listed == [*one.witness.seen["q4"], "answer to q4"]
    assert shown == {"topic": "fish"}


@pytest.mark.behaviour("A9")
async def test_a_conversation_that_one_replica_works_on_is_locked_at_the_other(one_database: dict[str, Any]) -> None:
    async with replicas(one_database) as (one, other):
        conversation = (await one.ask("POST", "/v1/conversations", {})).json()["id"]
        gate = one.witness.gates["q1"] = Gate()
        running = await one.create("q1", conversation=conversation, background=True)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        refused = [await other.refusal(conversation=conversation) for _ in range(2)]
        in_flight = await other.ask("DELETE", f"/v1/responses/{running}")
        gate.open()
        await one.get(f"responses/{running}?stream=true")
        await other.create("q2", conversation=conversation)

    assert refused == ["conversation_locked"] * 2
    assert in_flight.status == 400
    assert other.witness.seen["q2"] == ["q1", "answer to q1", "q2"]


@pytest.mark.behaviour("A9")
async def test_of_many_turns_at_once_in_one_conversation_each_happens_once_and_alone(state: State) -> None:
    modes: list[dict[str, Any]] = [{}, {"stream": True}, {"background": True}]

    async def insist(replica: Replica, number: int) -> int:
        """Ask until the conversation is free, as the error asks for; return how often."""
        body = {"input": f"q{number:02}", "conversation": conversation, **modes[number % 3]}
        attempts = 1
        while (answer := await replica.ask("POST", "/v1/responses", body)).status != 200:
            assert (answer.status, answer.json()["error"]["code"]) == (400, "conversation_locked")
            attempts += 1
        response = wire.parse_sse(answer.content)[-1]["response"]["id"] if "stream" in body else answer.json()["id"]
        await replica.get(f"responses/{response}?stream=true")
        return attempts

    async with replicas(state.options, count=2 if state.kind == "postgres" else 1) as hosts:
        conversation = (await hosts[0].ask("POST", "/v1/conversations", {})).json()["id"]
        async with asyncio.timeout(SECONDS):
            attempts = await asyncio.gather(*(insist(hosts[number % len(hosts)], number) for number in range(TURNS)))
        found = await hosts[-1].texts(f"conversations/{conversation}/items")

    questions, answers = found[::2], found[1::2]
    assert sorted(questions) == [f"q{number:02}" for number in range(TURNS)]
    assert answers == [f"answer to {question}" for question in questions]
    witness = hosts[0].witness
    assert witness.seen == {question: found[: 2 * index + 1] for index, question in enumerate(questions)}
    assert len(witness.asked) == TURNS
    # Otherwise they came one after the other, and nothing was shown.
    assert sum(attempts) > TURNS


# --- Sessions with names


def desk(request: Any, **_: Any) -> Any:
    return replace(request, session=ChannelSession("desk 7"))


@pytest.mark.behaviour("A1")
async def test_a_named_session_goes_on_at_either_replica_and_is_reset_for_both(one_database: dict[str, Any]) -> None:
    async with replicas(one_database, run_hook=desk) as (one, other):
        await one.create("q1")
        await other.create("q2")
        await one.create("q3")
        was_there = await other.host.reset_session("desk 7")
        await one.create("q4")
        await other.create("q5")

    assert other.witness.seen["q2"] == ["q1", "answer to q1", "q2"]
    assert one.witness.seen["q3"] == ["q1", "answer to q1", "q2", "answer to q2", "q3"]
    assert was_there
    assert one.witness.seen["q4"] == ["q4"]
    assert other.witness.seen["q5"] == ["q4", "answer to q4", "q5"]


# --- Workflows


class Remember(Executor):
    """Answers with everything that it has been told in this conversation."""

    def __init__(self) -> None:
        super().__init__(id="remember")
        self.heard: list[str] = []

    @handler
    async def hear(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        self.heard.append(message)
        await ctx.yield_output("|".join(self.heard))

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"heard": list(self.heard)}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.heard = list(state["heard"])


def remembering() -> Workflow:
    return WorkflowBuilder(start_executor=Remember(), name="memory").build()


@pytest.mark.behaviour("A1", "A2", "F1")
async def test_a_workflow_goes_on_at_either_replica(one_database: dict[str, Any]) -> None:
    async with replicas(one_database, target=remembering) as (one, other):
        first = await one.create("a")
        second = await other.create("b", previous_response_id=first)
        third = await one.create("c", previous_response_id=second)
        branch = await other.create("x", previous_response_id=first)
        await one.delete(f"responses/{second}")
        refused = await other.refusal(previous_response_id=second)
        fourth = await other.create("d", previous_response_id=third)
        answers = [
            (await one.get(f"responses/{name}")).json()["output"][0]["content"][0]["text"]
            for name in (first, third, branch, fourth)
        ]

    assert answers == ["a", "a|b|c", "a|x", "a|b|c|d"]
    assert refused == "previous_response_not_found"
