"""What a turn costs, however many came before it, and that what is forgotten makes room (A11, D8)."""

from __future__ import annotations

import statistics
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
import stored
from agent_framework import Agent
from states import State
from witness import LocalClient, Witness, local

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.retention import prune_all
from agent_framework_hosting.sql.space import give_back
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

TURNS = 60
MOST_STATEMENTS = {"chain": 6, "branches": 7, "conversation": 13}
"""Of one turn, as built: whoever needs more should know why."""


@dataclass
class Measured:
    """A running host; `statements` are those that its database has been sent."""

    ask: LocalClient
    host: AgentFrameworkHost
    witness: Witness
    statements: list[str]

    async def create(self, text: str, **body: Any) -> str:
        answer = await self.ask("POST", "/v1/responses", {"input": text, **body})
        assert answer.status == 200, answer
        return str(answer.json()["id"])


@asynccontextmanager
async def measured(state: State, **settings: Any) -> AsyncGenerator[Measured, None]:
    witness = Witness()
    channel = ResponsesChannel(settings=ResponsesSettings(**settings))
    host = AgentFrameworkHost(Agent(client=witness), channels=[channel], **state.options)
    async with local(host) as client:
        statements: list[str] = []
        database = host._state.database
        assert database is not None

        @sa.event.listens_for(database.engine, "before_cursor_execute")
        def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            # What the host does by itself, now and then: it says that it is alive, and prunes.
            if "afhost_processes" not in statement and "PRAGMA" not in statement:
                statements.append(statement)

        await host._state.pruner.stop()
        yield Measured(client, host, witness, statements)


@pytest.mark.behaviour("A11")
@pytest.mark.parametrize("kind", ["chain", "branches", "conversation"])
async def test_a_turn_costs_the_same_bytes_and_statements_however_many_came_before_it(
    durable_state: State, kind: str
) -> None:
    sizes: list[int] = []
    counts: list[int] = []
    async with measured(durable_state) as talk:
        conversation = (await talk.ask("POST", "/v1/conversations", {})).json()["id"]
        made: list[str] = []
        before = sum(stored.row_bytes(durable_state).values())
        for turn in range(TURNS):
            if kind == "conversation":
                continued = {"conversation": conversation}
            elif kind == "chain":
                continued = {"previous_response_id": made[-1]} if made else {}
            else:
                # Two at a time continue the same response.
                continued = {"previous_response_id": made[max(0, turn // 2 * 2 - 1)]} if made else {}
            sent = len(talk.statements)
            made.append(await talk.create(f"question {turn:03} {'x' * 200}", **continued))
            counts.append(len(talk.statements) - sent)
            after = sum(stored.row_bytes(durable_state).values())
            sizes.append(after - before)
            before = after
        seen = talk.witness.seen[talk.witness.asked[-1]]

    assert len(seen) == (TURNS + 1 if kind == "branches" else 2 * TURNS - 1)
    first, last = sum(sizes[2:12]), sum(sizes[-10:])
    assert abs(last - first) <= 0.1 * first, sizes
    # The median: now and then the host asks by itself which processes are alive and what they run.
    assert statistics.median(counts[2:12]) == statistics.median(counts[-10:]) <= MOST_STATEMENTS[kind], counts


@pytest.mark.behaviour("D8")
async def test_of_many_responses_the_newest_stay_and_the_others_make_room(durable_state: State) -> None:
    many, kept = 300, 50
    async with measured(durable_state, max_responses=kept) as talk:
        made = [await talk.create(f"first {'x' * 2_000}")]
        chain = [made[0]]
        for number in range(1, many):
            # Every tenth belongs to one chain, most of which is forgotten.
            if number % 10 == 0:
                made.append(await talk.create(f"turn {number}", previous_response_id=chain[-1]))
                chain.append(made[-1])
            else:
                made.append(await talk.create(f"single {number} {'x' * 2_000}"))
        before = sizes_of(durable_state)
        for store in talk.host._state.pruner._stores:
            await prune_all(store)
        assert talk.host._state.database is not None
        await give_back(talk.host._state.database)
        after = sizes_of(durable_state)
        statuses = [(await talk.ask("GET", f"/v1/responses/{response}")).status for response in made]
        await talk.create("last", previous_response_id=chain[-1])
        await talk.create("shown", input=[{"role": "user", "content": "shown"}], previous_response_id=chain[-2])

    assert statuses == [404] * (many - kept) + [200] * kept
    assert len(talk.witness.seen["last"]) == 2 * len(chain) + 1
    assert talk.witness.seen["last"][:2] == [f"first {'x' * 2_000}", f"answer to first {'x' * 2_000}"]
    assert len(talk.witness.seen["shown"]) == 2 * len(chain) - 1
    # Fifty of three hundred, and what the chain of thirty needs of its forgotten turns.
    for place, size in before.items():
        assert after[place] < 0.4 * size, (place, size, after[place])


def sizes_of(state: State) -> dict[str, int]:
    """The bytes of the responses and their sessions: in SQLite's file, or in the rows."""
    if state.kind == "sqlite":
        return {"file": (state.directory / "sessions" / "host.db").stat().st_size}
    rows = stored.row_bytes(state)
    return {table: rows[table] for table in ("afhost_responses", "afhost_sessions")}
