"""Checkpoints in SQL: the common suite on SQLite and PostgreSQL, bounds, retention, what is in the table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from agent_framework import WorkflowCheckpointException, register_checkpoint_type

from agent_framework_hosting.checkpoints import Checkpoints
from agent_framework_hosting.isolation import SHARED, Partition
from agent_framework_hosting.sql.checkpoints import SqlCheckpoints
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.tables import checkpoints as table
from agent_framework_hosting.stores.base import Prunable, Retention, StoreStats
from agent_framework_hosting.testing.checkpoints import ALICE, DurableCheckpointsSuite, Reopen, checkpoint


@dataclass
class Counter:
    """A type of an application that may be restored."""

    count: int


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class TestSqlCheckpoints(DurableCheckpointsSuite):
    @pytest.fixture
    def reopen(self, database: Database) -> Reopen:
        return lambda: SqlCheckpoints(database)


async def rows(database: Database) -> list[Any]:
    return await database.run(lambda connection: list(connection.execute(sa.select(table).order_by(table.c.position))))


async def tamper(database: Database, checkpoint: bytes) -> None:
    await database.run(lambda connection: connection.execute(sa.update(table).values(checkpoint=checkpoint)))


async def test_checkpoints_of_a_closed_database_are_found_when_it_is_opened_again(database: Database) -> None:
    checkpoint_id = await SqlCheckpoints(database).chain(ALICE, "chain").save(checkpoint(said="hello"))
    await database.close()
    database.open()

    loaded = await SqlCheckpoints(database).chain(ALICE, "chain").load(checkpoint_id)

    assert loaded.state == {"said": "hello"}


async def test_values_that_json_can_say_are_stored_without_a_pickle(database: Database) -> None:
    await SqlCheckpoints(database).chain(SHARED, "chain").save(checkpoint(said=["hello", {"count": 3}]))

    (row,) = await rows(database)

    assert json.loads(row.checkpoint)["state"] == {"said": ["hello", {"count": 3}]}
    assert b"__pickled__" not in row.checkpoint


async def test_a_registered_type_is_restored(database: Database) -> None:
    register_checkpoint_type(Counter)
    chain = SqlCheckpoints(database).chain(SHARED, "chain")

    loaded = await chain.load(await chain.save(checkpoint(counter=Counter(3))))

    assert loaded.state == {"counter": Counter(3)}


@pytest.mark.parametrize("stored", [b"", b"{", b"\xff\xfe", b'{"workflow_name": 1, "unknown": 2}'])
async def test_a_damaged_row_is_an_unusable_checkpoint(database: Database, stored: bytes) -> None:
    chain = SqlCheckpoints(database).chain(SHARED, "chain")
    checkpoint_id = await chain.save(checkpoint())
    await tamper(database, stored)

    with pytest.raises(WorkflowCheckpointException):
        await chain.load(checkpoint_id)


async def test_a_value_that_cannot_be_pickled_at_all_is_refused(database: Database) -> None:
    chain = SqlCheckpoints(database).chain(SHARED, "chain")

    with pytest.raises(WorkflowCheckpointException, match="cannot be stored"):
        await chain.save(checkpoint(value=lambda: None))


async def test_a_chain_keeps_its_last_checkpoints_only_and_takes_none_from_others(database: Database) -> None:
    checkpoints = SqlCheckpoints(database, max_per_chain=2)
    other = await checkpoints.chain(SHARED, "other").save(checkpoint())
    chain = checkpoints.chain(SHARED, "chain")

    ids = [await chain.save(checkpoint(name)) for name in ("built-1", "built-2", "built-3")]

    assert [row.checkpoint_id for row in await rows(database) if row.checkpoint_id != other] == ids[1:]
    assert await checkpoints.chain(SHARED, "other").load(other)


async def test_lists_are_in_the_order_of_saving(database: Database) -> None:
    chain = SqlCheckpoints(database).chain(SHARED, "chain")
    ids = [await chain.save(checkpoint()) for _ in range(10)]
    await chain.delete(ids[3])

    assert await chain.list_checkpoint_ids(workflow_name="workflow") == ids[:3] + ids[4:]
    assert [c.checkpoint_id for c in await chain.list_checkpoints(workflow_name="workflow")] == ids[:3] + ids[4:]


@pytest.mark.behaviour("E2")
async def test_a_partition_is_stored_as_it_is_unless_a_database_would_refuse_it(database: Database) -> None:
    digest = f"sha256:{'0' * 64}"
    names = [ALICE, "", "x" * 501, "a\x00", "\udfff", digest]
    for name in names:
        await SqlCheckpoints(database).chain(Partition(name), "chain").save(checkpoint())

    stored = {row.partition for row in await rows(database)}

    assert len(stored) == len(names)
    assert {ALICE, ""} < stored
    assert digest not in stored


# Retention


def checkpoints_of(database: Database, clock: Clock, **retention: Any) -> SqlCheckpoints:
    return SqlCheckpoints(database, retention=Retention(**{"max_age": None, **retention}), clock=clock)


async def save_each_second(checkpoints: Checkpoints, clock: Clock, count: int) -> list[str]:
    ids = []
    for number in range(count):
        ids.append(await checkpoints.chain(SHARED, f"chain-{number}").save(checkpoint()))
        clock.now += 1
    return ids


async def left(database: Database) -> set[str]:
    return {row.checkpoint_id for row in await rows(database)}


@pytest.mark.behaviour("D8")
async def test_pruning_erases_what_is_too_old_oldest_first_and_no_more_than_asked_for(database: Database) -> None:
    clock = Clock()
    checkpoints = checkpoints_of(database, clock, max_age=2.5)
    ids = await save_each_second(checkpoints, clock, 5)

    pruned = await checkpoints.prune(limit=2)
    left_then = await left(database)
    pruned_again = await checkpoints.prune(limit=2)

    assert isinstance(checkpoints, Prunable)
    assert (pruned, pruned_again) == (2, 1)
    assert left_then == set(ids[2:])
    assert await left(database) == set(ids[3:])
    assert await checkpoints.prune(limit=2) == 0


@pytest.mark.behaviour("D8")
async def test_pruning_erases_the_oldest_beyond_the_count(database: Database) -> None:
    clock = Clock()
    checkpoints = checkpoints_of(database, clock, max_entries=2)
    ids = await save_each_second(checkpoints, clock, 5)

    assert await checkpoints.prune(limit=2) == 2
    assert await left(database) == set(ids[2:])
    assert await checkpoints.prune(limit=100) == 1
    assert await left(database) == set(ids[3:])


async def test_without_limits_pruning_erases_nothing(database: Database) -> None:
    clock = Clock()
    checkpoints = checkpoints_of(database, clock)
    await save_each_second(checkpoints, clock, 2)
    clock.now += 1e9

    assert await checkpoints.prune(limit=100) == 0


async def test_stats_tell_count_size_and_age(database: Database) -> None:
    clock = Clock()
    checkpoints = checkpoints_of(database, clock)
    empty = await checkpoints.stats()
    await save_each_second(checkpoints, clock, 3)

    stats = await checkpoints.stats()

    assert empty == StoreStats(name="checkpoints", entries=0, bytes=0, oldest=None)
    assert stats == StoreStats(
        name="checkpoints", entries=3, bytes=sum(len(row.checkpoint) for row in await rows(database)), oldest=3.0
    )
