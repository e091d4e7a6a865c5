"""What dead processes left running is ended by those that live."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from agent_framework_hosting.errors import StaleWrite
from agent_framework_hosting.isolation import SHARED, IsolationKeys, Partition
from agent_framework_hosting.runs.base import Attempt, RunId, RunKey, RunStatus
from agent_framework_hosting.runs.sql_log import SqlRunLog
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting_responses.protocol.resources import lost_response
from agent_framework_hosting_responses.recovery import Recovery
from agent_framework_hosting_responses.stores.base import (
    ConversationId,
    ConversationKey,
    ConversationRecord,
    ResponseRecord,
    ResponseStore,
)
from agent_framework_hosting_responses.stores.sql_conversations import SqlConversationStore
from agent_framework_hosting_responses.stores.sql_responses import SqlResponseStore

ADA = IsolationKeys(user_key="ada").partition
CONVERSATION = ConversationKey(SHARED, ConversationId("conv_1"))


def running(name: str, *, owner: str, partition: Partition = SHARED, conversation: str | None = None) -> ResponseRecord:
    body: dict[str, object] = {
        "id": name,
        "status": "in_progress",
        "output": [],
        "error": None,
        "service_tier": "auto",
        "usage": None,
    }
    return ResponseRecord(
        key=RunKey(partition, RunId(name)),
        status=RunStatus.IN_PROGRESS,
        created_at=1,
        body=json.dumps(body).encode(),
        owner=owner,
        input=({"id": f"{name}_in", "type": "message"},),
        conversation_id=conversation,
    )


class Mender:
    """Executes nothing, and remembers whose logs it was to mend. `test_lost_runs.py` has runners that run."""

    def __init__(self) -> None:
        self.mended: list[RunKey] = []

    async def restart(self, key: RunKey) -> None:
        raise AssertionError(key)

    async def mend(self, key: RunKey) -> None:
        self.mended.append(key)

    async def forget(self, record: ResponseRecord) -> None:
        raise AssertionError(record)

    async def missing(self, keys: Iterable[RunKey], *, is_background: bool) -> set[RunKey]:
        raise AssertionError(keys)

    def begun(self, store: ResponseStore) -> set[Attempt]:
        return set()

    def lose(self, attempt: Attempt) -> None:
        raise AssertionError(attempt)


async def all_dead(owners: set[str]) -> set[str]:
    return owners


async def status_of(store: SqlResponseStore, record: ResponseRecord) -> RunStatus:
    stored = await store.get(record.key)
    assert stored is not None
    return stored.status


async def test_runs_of_dead_processes_fail_and_those_of_living_ones_go_on(database: Database) -> None:
    store, conversations = SqlResponseStore(database), SqlConversationStore(database)
    lost, other, mine, alive = (
        running("a", owner="dead"),
        running("b", owner="dead", partition=ADA),
        running("c", owner="me"),
        running("d", owner="alive"),
    )
    for record in (lost, other, mine, alive):
        await store.create(record)

    async def dead_owners(owners: set[str]) -> set[str]:
        return owners - {"alive"}

    ended = await Recovery(store, conversations, owner="me").run(dead_owners)

    assert ended == 2
    assert [await status_of(store, record) for record in (lost, other, mine, alive)] == [
        RunStatus.FAILED,
        RunStatus.FAILED,
        RunStatus.IN_PROGRESS,
        RunStatus.IN_PROGRESS,
    ]
    stored = await store.get(lost.key)
    assert stored is not None
    body = json.loads(stored.body)
    assert body["error"]["code"] == "server_error"
    assert stored.input == lost.input


async def test_what_is_in_the_name_of_a_process_that_has_just_started_is_lost_too(database: Database) -> None:
    store, conversations = SqlResponseStore(database), SqlConversationStore(database)
    mine = running("a", owner="me")
    await store.create(mine)

    assert await Recovery(store, conversations, owner="me").run(all_dead, is_start=True) == 1
    assert await status_of(store, mine) is RunStatus.FAILED


@pytest.mark.parametrize("is_alone", [True, False])
async def test_a_log_is_silent_at_once_if_nobody_else_can_write_to_it(database: Database, *, is_alone: bool) -> None:
    store, conversations = SqlResponseStore(database), SqlConversationStore(database)
    log = SqlRunLog(database)
    opened = running("a", owner="me").key
    await log.append(Attempt(opened, 1), [("response.created", b"{}")])
    mender = Mender()
    recovery = Recovery(store, conversations, owner="me", logs=log, is_alone=is_alone)
    recovery.hand_to(mender)
    await recovery.run(all_dead, is_start=True)
    await log.stop()

    assert mender.mended == ([opened] if is_alone else [])


async def test_the_conversation_of_a_lost_run_is_free_again_and_has_nothing_of_it(database: Database) -> None:
    store, conversations = SqlResponseStore(database), SqlConversationStore(database)
    await conversations.create(ConversationRecord(key=CONVERSATION, created_at=1, metadata={}), ())
    await store.create(running("a", owner="dead", conversation="conv_1"))

    await Recovery(store, conversations, owner="me").run(all_dead)

    head = await conversations.head(CONVERSATION)
    assert head is not None
    assert head.context.all_items() == ()
    await store.create(running("b", owner="me", conversation="conv_1"))


async def test_the_lock_of_an_unstored_response_of_a_dead_process_is_given_back(database: Database) -> None:
    store, conversations = SqlResponseStore(database), SqlConversationStore(database)
    await conversations.create(ConversationRecord(key=CONVERSATION, created_at=1, metadata={}), ())
    await conversations.lock(running("unstored", owner="dead", conversation="conv_1"))

    await Recovery(store, conversations, owner="me").run(all_dead)

    await conversations.lock(running("next", owner="me", conversation="conv_1"))


async def test_a_process_that_was_thought_dead_writes_nothing_any_more(database: Database) -> None:
    store, conversations = SqlResponseStore(database), SqlConversationStore(database)
    record = running("a", owner="paused")
    await store.create(record)
    paused = await store.begin(record.key, owner="paused")
    assert isinstance(paused, Attempt)

    await Recovery(store, conversations, owner="me").run(all_dead)

    with pytest.raises(StaleWrite):
        await store.save(paused, replace(record, status=RunStatus.COMPLETED))
    assert await status_of(store, record) is RunStatus.FAILED


async def test_two_processes_that_recover_at_once_end_each_run_once(database: Database) -> None:
    store, conversations = SqlResponseStore(database), SqlConversationStore(database)
    for number in range(20):
        await store.create(running(f"r{number}", owner="dead"))

    for owner in ("one", "two"):
        await Recovery(store, conversations, owner=owner).run(all_dead)

    assert await store.running_owners() == set()


def test_a_lost_response_says_that_it_failed_and_nothing_of_the_inside() -> None:
    body = json.loads(lost_response(running("a", owner="dead").body))

    assert (body["status"], body["completed_at"], body["service_tier"]) == ("failed", None, "default")
    assert body["output"] == []
    assert set(body["error"]) == {"code", "message"}
