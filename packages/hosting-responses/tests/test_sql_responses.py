"""Responses in SQLite and PostgreSQL: the suite for every store, what several processes see, erasure and retention."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from agent_framework import AgentSession

from agent_framework_hosting.errors import AlreadyExists, StoreError
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import Attempt, Participant, RunKey, RunStatus
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.stores.base import Prunable, Retention
from agent_framework_hosting.stores.sql import SqlSessionStore
from agent_framework_hosting_responses.stores.base import IdempotencyKey, OwnedRun, ResponseRecord, ResponseStore
from agent_framework_hosting_responses.stores.context import Context, response_session_key
from agent_framework_hosting_responses.stores.sql_conversations import SqlConversationStore
from agent_framework_hosting_responses.stores.sql_responses import SqlResponseStore
from agent_framework_hosting_responses.stores.tables import responses
from agent_framework_hosting_responses.testing.conversation_turns import conversation_of, head_of, ids_of, message_of
from agent_framework_hosting_responses.testing.response_contexts import ResponseContextsSuite
from agent_framework_hosting_responses.testing.response_locks import ResponseLocksSuite
from agent_framework_hosting_responses.testing.response_stores import ResponseStoreSuite
from agent_framework_hosting_responses.testing.response_turns import (
    ADA,
    HOSTILE_IDS,
    check_nothing_is_there,
    context_of,
    ended,
    ended_of,
    key_of,
    run,
    running_of,
    take_turn,
    turns_of,
)


class Clock:
    """A clock that stands still until a test moves it."""

    now = 1_800_000_000.5

    def __call__(self) -> float:
        return self.now


class TwoProcesses:
    """Two stores over one database, asked in turns: what one of them remembers must not differ from what is there."""

    def __init__(self, first: ResponseStore, second: ResponseStore) -> None:
        self._stores = [first, second]

    def _next(self) -> ResponseStore:
        self._stores.reverse()
        return self._stores[0]

    async def create(
        self, record: ResponseRecord, context: Context | None = None, participants: Sequence[Participant] = ()
    ) -> ResponseRecord | None:
        return await self._next().create(record, context, participants)

    async def get(self, key: RunKey | IdempotencyKey) -> ResponseRecord | None:
        return await self._next().get(key)

    async def begin(self, key: RunKey, *, owner: str = "") -> Attempt | None:
        return await self._next().begin(key, owner=owner)

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        await self._next().save(attempt, record)

    async def delete(self, key: RunKey) -> bool:
        return await self._next().delete(key)

    async def context(self, key: RunKey) -> Context | None:
        store = self._next()
        # As a host does: `get` says whether the response is there.
        await store.get(key)
        return await store.context(key)


@pytest.fixture
async def other_database(sql_url: sa.URL, database: Database) -> AsyncGenerator[Database, None]:
    """The same database, as another process has it open."""
    other = Database(sql_url)
    other.open()
    yield other
    await other.close()


@pytest.fixture
def store(database: Database) -> SqlResponseStore:
    return SqlResponseStore(database)


@pytest.fixture
def conversations(database: Database) -> SqlConversationStore:
    return SqlConversationStore(database)


@pytest.mark.behaviour("D7", "E1", "E2")
class TestSqlResponseStore(ResponseStoreSuite):
    pass


@pytest.mark.behaviour("A2")
class TestTwoProcesses(ResponseContextsSuite, ResponseLocksSuite):
    @pytest.fixture
    def store(self, database: Database, other_database: Database) -> TwoProcesses:
        return TwoProcesses(SqlResponseStore(database), SqlResponseStore(other_database))


class TestWithoutMemory(ResponseContextsSuite):
    @pytest.fixture
    def store(self, database: Database) -> SqlResponseStore:
        return SqlResponseStore(database, cache_bytes=0)


async def rows_of(database: Database) -> dict[str, dict[str, Any]]:
    """Everything in the table, by id."""
    rows = await database.run(lambda connection: connection.execute(sa.select(responses)).mappings().all())
    return {row["id"]: dict(row) for row in rows}


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Collect the statements that reach the database."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(database.engine, "before_cursor_execute", note)


# --- What is in memory -------------------------------------------------------------------------------------------


@pytest.mark.behaviour("A11")
async def test_a_turn_reads_nothing_of_the_turns_before_it(database: Database, store: SqlResponseStore) -> None:
    await take_turn(store, "resp_0")
    sent_by_turn: list[int] = []
    for number in range(1, 12):
        previous = f"resp_{number - 1}"
        with statements(database) as sent:
            assert await store.get(key_of(previous)) is not None
            context = await store.context(key_of(previous))
            await store.create(ended_of(f"resp_{number}", previous_response_id=previous), context)
        sent_by_turn.append(len(sent))

    # get, insert, and the look whether the parent is there.
    assert sent_by_turn == [3] * 11


async def test_a_first_one_shot_is_one_statement(database: Database, store: SqlResponseStore) -> None:
    with statements(database) as sent:
        await store.create(ended_of("resp_1"))

    assert len(sent) == 1


async def test_a_chain_goes_on_after_a_restart(database: Database, store: SqlResponseStore) -> None:
    await take_turn(store, "resp_1")
    await take_turn(store, "resp_2", "resp_1", call_ids={"call_1": "own"})

    restarted = SqlResponseStore(database)
    await take_turn(restarted, "resp_3", "resp_2")

    assert await turns_of(restarted, "resp_3") == ["resp_1", "resp_2", "resp_3"]
    assert (await context_of(restarted, "resp_3")).all_call_ids() == {"call_1": "own"}


async def test_a_deleted_response_has_no_context_at_once(store: SqlResponseStore) -> None:
    await take_turn(store, "resp_1")
    assert await store.context(key_of("resp_1")) is not None

    await store.delete(key_of("resp_1"))

    assert await store.context(key_of("resp_1")) is None


async def test_an_id_that_another_process_uses_again_has_the_new_context(
    database: Database, other_database: Database
) -> None:
    clock = Clock()
    mine, other = SqlResponseStore(database, clock=clock), SqlResponseStore(other_database, clock=clock)
    await take_turn(mine, "resp_1")
    await context_of(mine, "resp_1")

    await other.delete(key_of("resp_1"))
    assert await mine.get(key_of("resp_1")) is None
    assert await mine.context(key_of("resp_1")) is None
    clock.now += 1
    again = ended_of("resp_1", input=(message_of("msg_new"),))
    await other.create(again)
    await context_of(mine, "resp_1")
    await other.delete(again.key)
    clock.now += 1
    await other.create(ended_of("resp_1"))

    assert (await context_of(mine, "resp_1")).items == ended_of("resp_1").input + ended_of("resp_1").output


@pytest.mark.behaviour("D5")
async def test_a_removed_item_of_a_conversation_is_in_no_context_any_more(
    store: SqlResponseStore, conversations: SqlConversationStore
) -> None:
    record = conversation_of()
    await conversations.create(record, [message_of("msg_1"), message_of("msg_2")])
    head = await head_of(conversations, record)
    in_conversation = running_of(
        "resp_1", conversation_id=record.key.conversation_id, conversation_position=head.position
    )
    await store.create(ended(in_conversation), head.context)
    await take_turn(store, "resp_2", "resp_1")
    assert "msg_1" in [item["id"] for item in (await context_of(store, "resp_2")).all_items()]

    await conversations.remove(record.key, "msg_1")

    for name, length in (("resp_1", 3), ("resp_2", 5)):
        found = [item["id"] for item in (await context_of(store, name)).all_items()]
        assert (found[0], len(found)) == ("msg_2", length)


# --- Ids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in HOSTILE_IDS if "\0" in name or "\ud800" in name])
async def test_an_id_that_no_column_holds_is_refused(store: SqlResponseStore, name: str) -> None:
    for record in (ended_of(name), ended_of("resp_1", previous_response_id=name)):
        with pytest.raises(StoreError, match="cannot hold"):
            await store.create(record)


async def test_a_response_that_continues_itself_has_an_end(store: SqlResponseStore, database: Database) -> None:
    await store.create(ended_of("resp_1", previous_response_id="resp_1"))

    assert await turns_of(SqlResponseStore(database), "resp_1") == ["resp_1"]


# --- Erasure -----------------------------------------------------------------------------------------------------


@pytest.mark.behaviour("D7")
async def test_a_deleted_response_keeps_its_id_as_long_as_something_continues_it(
    store: SqlResponseStore, database: Database
) -> None:
    await store.create(ended_of("resp_1", idempotency_key="key", request_hash="hash"))
    await take_turn(store, "resp_2", "resp_1")
    await take_turn(store, "resp_3", "resp_1")

    await store.delete(key_of("resp_1"))
    with pytest.raises(AlreadyExists):
        await store.create(ended_of("resp_1"))
    tombstone = (await rows_of(database))["resp_1"]
    await store.delete(key_of("resp_2"))
    with pytest.raises(AlreadyExists):
        await store.create(ended_of("resp_1"))
    await store.delete(key_of("resp_3"))

    assert (tombstone["body"], tombstone["idempotency_key"], tombstone["request_hash"]) == (b"", None, None)
    assert not tombstone["has_session"]
    assert await rows_of(database) == {}
    assert await store.create(ended_of("resp_1")) is None


@pytest.mark.behaviour("D5")
async def test_tombstones_go_with_the_last_response_that_continues_them(
    store: SqlResponseStore, database: Database
) -> None:
    for name, previous in (("a", None), ("b", "a"), ("c", "b"), ("d", "c"), ("x", "b")):
        await take_turn(store, name, previous)
    await store.create(ended_of("a", partition=ADA))
    await store.create(ended_of("b", partition=ADA, previous_response_id="a"))

    left: list[list[str]] = []
    for name in ("a", "b", "c", "d", "x"):
        assert await store.delete(key_of(name))
        left.append(sorted(row["id"] for row in (await rows_of(database)).values() if row["partition"] == SHARED))

    # `rows_of` goes by id: those of the other partition hide "a" and "b".
    assert [[name for name in names if name not in "ab"] for names in left] == [
        ["c", "d", "x"],
        ["c", "d", "x"],
        ["c", "d", "x"],
        ["x"],
        [],
    ]
    assert sorted(await rows_of(database)) == ["a", "b"]
    for name in ("a", "b"):
        assert await store.get(key_of(name, ADA)) is not None


@pytest.mark.behaviour("D5")
async def test_no_row_has_the_text_of_deleted_responses(store: SqlResponseStore, database: Database) -> None:
    for number in range(1, 4):
        previous = f"resp_{number - 1}" if number > 1 else None
        await take_turn(
            store, f"resp_{number}", previous, approvals={"mcpr_1": {"name": "secret"}}, call_ids={"secret": "secret"}
        )
    other = ended_of("other")
    await store.create(other)

    for number in (2, 1, 3):
        await store.delete(key_of(f"resp_{number}"))

    assert list(await rows_of(database)) == ["other"]
    assert await store.get(other.key) == other


async def test_a_long_chain_of_tombstones_goes_at_once(store: SqlResponseStore, database: Database) -> None:
    names = [f"resp_{number}" for number in range(120)]
    for name, previous in zip(names, [None, *names[:-1]], strict=True):
        await store.create(ended_of(name, previous_response_id=previous))
    for name in names[:-1]:
        await store.delete(key_of(name))
    assert len(await rows_of(database)) == 120

    with statements(database) as sent:
        await store.delete(key_of(names[-1]))

    assert await rows_of(database) == {}
    assert len(sent) < 10


@pytest.mark.parametrize("attempts", [12])
async def test_a_response_that_is_deleted_in_the_moment_it_is_continued_is_not_missing(
    database: Database, other_database: Database, attempts: int
) -> None:
    mine, other = SqlResponseStore(database), SqlResponseStore(other_database)
    for number in range(attempts):
        await take_turn(mine, f"a_{number}")
        await take_turn(mine, f"b_{number}", f"a_{number}")
        await mine.delete(key_of(f"a_{number}"))
    contexts = [await context_of(mine, f"b_{number}") for number in range(attempts)]

    await asyncio.gather(
        *(
            work
            for number in range(attempts)
            for work in (
                other.delete(key_of(f"b_{number}")),
                mine.create(ended_of(f"c_{number}", previous_response_id=f"b_{number}"), contexts[number]),
            )
        )
    )

    for number in range(attempts):
        await check_nothing_is_there(other, key_of(f"b_{number}"))
        context = await context_of(SqlResponseStore(database), f"c_{number}")
        assert [str(item["id"])[4] for item in context.all_items()] == ["a", "a", "b", "b", "c", "c"]
        await other.delete(key_of(f"c_{number}"))
    assert await rows_of(database) == {}


# --- Retention ---------------------------------------------------------------------------------------------------


async def test_the_oldest_responses_go_first_and_running_ones_never(database: Database) -> None:
    clock = Clock()
    store = SqlResponseStore(database, retention=Retention(max_age=100, max_entries=3), clock=clock)
    await store.create(running_of("running"))
    for number in range(6):
        clock.now += 1
        await store.create(ended_of(f"resp_{number}"))

    assert isinstance(store, Prunable)
    assert [await store.prune(limit=2), await store.prune(limit=100), await store.prune(limit=100)] == [2, 1, 0]
    assert sorted(await rows_of(database)) == ["resp_3", "resp_4", "resp_5", "running"]
    assert await store.context(key_of("resp_2")) is None
    clock.now += 99
    assert await store.prune(limit=100) == 1
    clock.now += 2
    assert await store.prune(limit=100) == 2

    assert list(await rows_of(database)) == ["running"]
    assert await store.begin(key_of("running")) is not None


async def test_the_age_counts_from_the_end(database: Database) -> None:
    clock = Clock()
    store = SqlResponseStore(database, retention=Retention(max_age=10), clock=clock)
    running = running_of("resp_1")
    attempt = await run(store, running)
    clock.now += 100
    await store.save(attempt, ended(running))

    clock.now += 9
    assert await store.prune(limit=10) == 0
    clock.now += 2

    assert await store.prune(limit=10) == 1


async def test_without_limits_nothing_is_pruned(database: Database) -> None:
    clock = Clock()
    store = SqlResponseStore(database, retention=Retention(max_age=None), clock=clock)
    await store.create(ended_of("resp_1"))
    clock.now += 10**9

    assert await store.prune(limit=10) == 0


@pytest.mark.behaviour("D8")
async def test_expired_responses_stay_for_those_that_continue_them_and_go_with_them(database: Database) -> None:
    clock = Clock()
    store = SqlResponseStore(database, retention=Retention(max_age=100), clock=clock)
    names = [f"resp_{number}" for number in range(130)]
    for name, previous in zip(names, [None, *names[:-1]], strict=True):
        await store.create(ended_of(name, previous_response_id=previous))
    clock.now += 101
    await store.create(ended_of("last", previous_response_id=names[-1]), await store.context(key_of(names[-1])))

    assert await store.prune(limit=1000) == 130
    assert await turns_of(SqlResponseStore(database), "last") == [*names, "last"]
    for name in names:
        assert await store.get(key_of(name)) is None
    clock.now += 101
    assert await store.prune(limit=1000) == 1

    assert await rows_of(database) == {}


async def test_a_chain_that_expires_in_one_batch_leaves_nothing(database: Database) -> None:
    clock = Clock()
    store = SqlResponseStore(database, retention=Retention(max_age=100), clock=clock)
    for name, previous in (("a", None), ("b", "a"), ("c", "b"), ("d", "b"), ("e", None)):
        await take_turn(store, name, previous)
    clock.now += 101

    assert await store.prune(limit=10) == 5

    assert await rows_of(database) == {}


@pytest.mark.behaviour("D5")
@pytest.mark.parametrize("how", ["delete", "prune"])
async def test_the_session_goes_with_its_response(database: Database, how: str) -> None:
    clock = Clock()
    store = SqlResponseStore(database, retention=Retention(max_age=100), clock=clock)
    sessions = SqlSessionStore(database)
    for partition in (SHARED, ADA):
        await sessions.put(partition, response_session_key("resp_1"), AgentSession())
    await store.create(ended_of("resp_1"))
    clock.now += 101
    await store.create(ended_of("resp_1", partition=ADA))

    if how == "delete":
        await store.delete(key_of("resp_1"))
    else:
        assert await store.prune(limit=10) == 1

    assert await sessions.get(SHARED, response_session_key("resp_1")) is None
    assert await sessions.get(ADA, response_session_key("resp_1")) is not None


async def test_the_store_says_what_it_holds(database: Database) -> None:
    clock = Clock()
    store = SqlResponseStore(database, clock=clock)
    empty = await store.stats()
    await store.create(ended_of("resp_1", input=(message_of("msg_1", "x" * 1000),)))
    clock.now += 5
    await store.create(running_of("resp_2"))
    clock.now += 5

    stats = await store.stats()

    assert (empty.entries, empty.bytes, empty.oldest) == (0, 0, None)
    assert (stats.name, stats.entries, stats.oldest) == ("responses", 2, 10)
    assert 1000 < stats.bytes < 3000


# --- Dead processes ----------------------------------------------------------------------------------------------


async def test_the_store_knows_whose_responses_run(store: SqlResponseStore) -> None:
    for name, owner in (("a", "one"), ("b", "one"), ("c", "two"), ("d", "three"), ("e", "one")):
        await store.create(running_of(name, owner=owner, created_at=ord(name)))
    await store.create(ended_of("done", owner="four"))
    await store.delete(key_of("d"))
    await store.begin(key_of("e"), owner="five")

    assert await store.running_owners() == {"one", "two", "five"}
    a, b = (OwnedRun(Attempt(key_of(name), 0), is_background=False, created_at=ord(name)) for name in ("a", "b"))
    assert await store.running_of("one", limit=10) == [a, b]
    assert await store.running_of("one", limit=1) == [a]
    assert await store.running_of("nobody", limit=10) == []


async def test_locks_of_a_dead_process_are_given_back_unless_a_stored_response_has_them(
    store: SqlResponseStore, conversations: SqlConversationStore
) -> None:
    records = [conversation_of(f"conv_{number}") for number in range(4)]
    for record in records:
        await conversations.create(record, [])
    stored, unstored, foreign, finished = (
        running_of(f"resp_{number}", owner="dead", conversation_id=record.key.conversation_id)
        for number, record in enumerate(records)
    )
    await store.create(stored)
    await conversations.lock(unstored)
    await conversations.lock(ResponseRecord(**{**_fields(foreign), "owner": "alive"}))
    await store.save(await run(store, finished), ended(finished))

    assert await store.running_owners() == {"dead", "alive"}
    assert await conversations.release("dead") == 1
    attempt = await store.begin(stored.key, owner="alive")
    assert attempt is not None
    assert await conversations.release("dead") == 0
    await store.save(attempt, ended(stored, RunStatus.FAILED))

    assert await store.running_owners() == {"alive"}
    await conversations.lock(unstored)
    await conversations.finish(ended(unstored))
    assert len(await ids_of(conversations, records[1])) == 2
    assert await ids_of(conversations, records[0]) == []


def _fields(record: ResponseRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}
