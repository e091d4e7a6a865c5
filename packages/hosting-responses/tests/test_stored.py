"""stored.py, and the entry point that leads to it: responses as an operator sees them. `test_runs_cli.py` uses them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_framework_hosting.isolation import SHARED, IsolationKeys, Partition
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus
from agent_framework_hosting.runs.stored import RunQuery, StoredRun, installed_runs
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting_responses.stored import StoredResponses
from agent_framework_hosting_responses.stores.base import ResponseRecord
from agent_framework_hosting_responses.stores.sql_responses import SqlResponseStore

ADA = IsolationKeys("ada").partition
DEFAULTS: dict[str, Any] = {"limit": 10}


def record(name: str, status: RunStatus, *, partition: Partition = SHARED, created_at: int = 100) -> ResponseRecord:
    error = {"code": "server_error", "message": "It broke."} if status is RunStatus.FAILED else None
    return ResponseRecord(
        key=RunKey(partition, RunId(name)),
        status=status,
        created_at=created_at,
        body=json.dumps({"id": name, "error": error, "output": []}).encode(),
        owner="me",
        is_background=True,
    )


@pytest.fixture
async def runs(database: Database) -> StoredResponses:
    ticks = iter(range(1_000, 2_000))
    store = SqlResponseStore(database, clock=lambda: next(ticks))
    await store.create(record("queued", RunStatus.QUEUED))
    await store.create(record("running", RunStatus.IN_PROGRESS, created_at=50))
    await store.create(record("failed", RunStatus.FAILED, partition=ADA))
    await store.create(record("deleted", RunStatus.COMPLETED))
    await store.delete(RunKey(SHARED, RunId("deleted")))
    return StoredResponses(database)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["failed", "running", "queued"]),
        ({"limit": 2}, ["failed", "running"]),
        ({"limit": 0}, []),
        ({"statuses": frozenset({RunStatus.QUEUED, RunStatus.FAILED})}, ["failed", "queued"]),
        ({"statuses": frozenset({RunStatus.QUEUED, RunStatus.IN_PROGRESS})}, ["running", "queued"]),
        ({"created_before": 99.0}, ["running"]),
        ({"partition": ADA}, ["failed"]),
        ({"partition": SHARED, "run_id": RunId("queued")}, ["queued"]),
        ({"run_id": RunId("deleted")}, []),
        ({"run_id": RunId("no\0id")}, []),
    ],
)
async def test_runs_are_found_by_what_is_asked(runs: StoredResponses, query: dict[str, Any], names: list[str]) -> None:
    found = await runs.find(RunQuery(**{**DEFAULTS, **query}))

    assert [run.key.run_id for run in found] == names


async def test_a_run_that_is_asked_for_by_its_id_tells_what_went_wrong(runs: StoredResponses) -> None:
    (found,) = await runs.find(RunQuery(run_id=RunId("failed"), limit=1))

    assert found == StoredRun(
        key=RunKey(ADA, RunId("failed")),
        status=RunStatus.FAILED,
        attempt=0,
        owner="me",
        is_background=True,
        created_at=100,
        changed_at=1_002,
        error="server_error: It broke.",
    )


async def test_a_released_run_is_nobodys_and_one_that_has_ended_stays_as_it_is(runs: StoredResponses) -> None:
    everything = {str(run.key.run_id): run for run in await runs.find(RunQuery(limit=10))}

    assert await runs.release(everything["running"])
    assert not await runs.release(everything["running"])
    assert not await runs.release(everything["failed"])

    owners = {run.key.run_id: run.owner for run in await runs.find(RunQuery(limit=10))}
    assert owners == {"queued": "me", "running": "", "failed": "me"}


async def test_the_package_tells_the_commands_of_its_runs(database: Database) -> None:
    assert [type(runs) for runs in installed_runs(database)] == [StoredResponses]
