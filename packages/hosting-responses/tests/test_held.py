"""Foreground one-shot responses: written once, when they have ended."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from agent_framework_hosting.errors import StaleWrite, StoreUnavailable
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import Attempt, Participant, RunId, RunKey, RunStatus
from agent_framework_hosting_responses.stores.base import IdempotencyKey, ResponseRecord
from agent_framework_hosting_responses.stores.context import Context
from agent_framework_hosting_responses.stores.held import HeldResponses
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore

KEY = RunKey(SHARED, RunId("resp_1"))
RUNNING = ResponseRecord(key=KEY, status=RunStatus.IN_PROGRESS, created_at=1, body=b"{}")
BEFORE = Context([{"id": "before"}])


async def begun(store: HeldResponses) -> Attempt:
    await store.create(RUNNING, BEFORE)
    attempt = await store.begin(KEY, owner="me")
    assert attempt is not None
    return attempt


async def test_a_running_response_is_not_stored_and_a_finished_one_is() -> None:
    stored = MemoryResponseStore()
    held = HeldResponses(stored)

    attempt = await begun(held)
    await held.save(attempt, replace(RUNNING, body=b"{1}"))
    running = await stored.get(KEY), await held.get(KEY)
    await held.save(attempt, replace(RUNNING, status=RunStatus.COMPLETED, output=({"id": "after"},)))
    finished = await stored.get(KEY)
    context = await stored.context(KEY)

    assert running[0] is None
    assert running[1] is not None
    assert running[1].body == b"{1}"
    assert finished is not None
    assert (finished.status, finished.attempt, finished.owner) == (RunStatus.COMPLETED, 1, "me")
    assert context is not None
    assert [item["id"] for item in context.all_items()] == ["before", "after"]
    assert await held.get(KEY) is None


async def test_a_finished_response_can_be_neither_begun_nor_written_again() -> None:
    held = HeldResponses(MemoryResponseStore())
    attempt = await begun(held)
    await held.save(attempt, replace(RUNNING, status=RunStatus.FAILED))

    with pytest.raises(StaleWrite):
        await held.save(attempt, RUNNING)
    assert await held.begin(KEY) is None
    assert await held.context(KEY) is None


async def test_an_earlier_attempt_writes_nothing() -> None:
    held = HeldResponses(MemoryResponseStore())
    first = await begun(held)
    second = await held.begin(KEY)

    with pytest.raises(StaleWrite):
        await held.save(first, RUNNING)
    assert second is not None
    assert second.number == 2


async def test_an_end_that_could_not_be_stored_can_be_stored_later() -> None:
    class Unreachable(MemoryResponseStore):
        is_reachable = False

        async def create(
            self, record: ResponseRecord, context: Context | None = None, participants: Sequence[Participant] = ()
        ) -> ResponseRecord | None:
            if not self.is_reachable:
                raise StoreUnavailable("away")
            return await super().create(record, context, participants)

    stored = Unreachable()
    held = HeldResponses(stored)
    attempt = await begun(held)
    ended = replace(RUNNING, status=RunStatus.COMPLETED)

    with pytest.raises(StoreUnavailable):
        await held.save(attempt, ended)
    stored.is_reachable = True
    later = await held.begin(KEY)
    assert later is not None
    await held.save(later, ended)

    assert (await stored.get(KEY)) is not None


async def test_what_runs_can_be_forgotten() -> None:
    held = HeldResponses(MemoryResponseStore())
    await begun(held)
    context = await held.context(KEY)

    assert context is not None
    assert context.parent is BEFORE
    assert await held.get(IdempotencyKey(SHARED, "k")) is None
    assert await held.delete(KEY)
    assert not await held.delete(KEY)
    assert await held.get(KEY) is None
