"""How responses are erased in SQL: whole batches, in few statements, and nothing that belongs to others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import sqlalchemy as sa
from agent_framework import AgentSession

from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import Attempt, RunKey
from agent_framework_hosting.runs.sql_log import SqlRunLog
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.stores.base import Retention
from agent_framework_hosting.stores.sql import SqlSessionStore
from agent_framework_hosting_responses.stores.context import response_session_key
from agent_framework_hosting_responses.stores.sql_responses import SqlResponseStore
from agent_framework_hosting_responses.stores.tables import responses
from agent_framework_hosting_responses.testing.response_turns import ended_of, key_of, take_turn


class Clock:
    """A clock that stands still until a test moves it."""

    now = 1_800_000_000.5

    def __call__(self) -> float:
        return self.now


async def names_in(database: Database) -> list[str]:
    """The ids of all rows, those of tombstones included."""
    rows = await database.run(lambda connection: connection.scalars(sa.select(responses.c.id)).all())
    return sorted(rows)


async def test_branches_that_meet_and_expire_in_one_batch_leave_nothing(database: Database) -> None:
    clock = Clock()
    store = SqlResponseStore(database, retention=Retention(max_age=100), clock=clock)
    for name, previous in (("a", None), ("b", "a")):
        await take_turn(store, name, previous)
    clock.now += 50
    for name, previous in (("c", "b"), ("d", "c"), ("e", "b"), ("f", "e"), ("g", "f")):
        await take_turn(store, name, previous)
    clock.now += 51
    assert await store.prune(limit=10) == 2
    assert await names_in(database) == list("abcdefg")
    clock.now += 50

    assert await store.prune(limit=10) == 5

    assert await names_in(database) == []


async def test_processes_that_prune_at_once_erase_no_more_than_is_too_much(database: Database, sql_url: sa.URL) -> None:
    clock = Clock()
    other = Database(sql_url)
    other.open()
    retention = Retention(max_age=None, max_entries=20)
    stores = [SqlResponseStore(one, retention=retention, clock=clock) for one in (database, other)]
    for number in range(60):
        clock.now += 1
        await stores[0].create(ended_of(f"resp_{number}"))

    for _ in range(4):
        await asyncio.gather(*(store.prune(limit=10) for store in stores * 2))
    await other.close()

    assert await names_in(database) == [f"resp_{number}" for number in range(40, 60)]


@pytest.mark.parametrize("size", [10, 40])
async def test_a_batch_is_a_handful_of_statements_however_large_it_is(database: Database, size: int) -> None:
    clock = Clock()
    store = SqlResponseStore(database, retention=Retention(max_age=100), clock=clock)
    sessions, log = SqlSessionStore(database), SqlRunLog(database)
    for number in range(size):
        # Four of a kind: three that continue each other, and one more that continues the first.
        name, place = f"resp_{number}", number % 4
        previous = None if not place else f"resp_{number - (3 if place == 3 else 1)}"
        await take_turn(store, name, previous)
        base = None if previous is None else response_session_key(previous)
        await sessions.put(SHARED, response_session_key(name), _session_of(place + 1), base=base)
        await log.append(Attempt(key_of(name), 1), [("a", b"a"), ("b", b"b")], closes=True)
    await log.stop()
    clock.now += 101

    sent: list[str] = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    assert await store.prune(limit=100) == size
    sa.event.remove(database.engine, "before_cursor_execute", note)

    assert 8 <= len(sent) <= 20, sent
    assert await names_in(database) == []
    assert (await sessions.stats()).bytes == (await log.stats()).bytes == (await log.stats()).entries == 0


def _session_of(turns: int) -> AgentSession:
    session = AgentSession(session_id="s")
    session.state["said"] = ["a longer sentence" * 10] * turns
    return session


async def test_who_dies_before_the_rows_go_leaves_responses_that_are_found_again(database: Database) -> None:
    clock, reached = Clock(), asyncio.Event()
    told: list[Sequence[RunKey]] = []

    async def stand_still(keys: Sequence[RunKey]) -> None:
        told.append(keys)
        reached.set()
        await asyncio.Event().wait()

    async def go_on(keys: Sequence[RunKey]) -> None:
        told.append(keys)

    retention = Retention(max_age=100)
    first = SqlResponseStore(database, retention=retention, clock=clock, before_pruning=stand_still)
    second = SqlResponseStore(database, retention=retention, clock=clock, before_pruning=go_on)
    await first.create(ended_of("old"))
    clock.now += 101
    await first.create(ended_of("new"))

    pruning = asyncio.create_task(first.prune(limit=10))
    await asyncio.wait_for(reached.wait(), 60)
    pruning.cancel()
    await asyncio.wait([pruning])
    left = await names_in(database)
    assert await second.prune(limit=10) == 1

    assert left == ["new", "old"]
    assert await names_in(database) == ["new"]
    assert told == [[key_of("old")]] * 2
