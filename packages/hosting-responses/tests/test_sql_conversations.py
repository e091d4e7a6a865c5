"""Conversations in SQLite and PostgreSQL: the suite for every store, what several processes see, and retention."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

import pytest
import sqlalchemy as sa

from agent_framework_hosting.errors import StoreError
from agent_framework_hosting.runs.base import RunStatus
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.stores.base import Prunable, Retention
from agent_framework_hosting_responses.protocol.json import JsonObject
from agent_framework_hosting_responses.protocol.query import ListQuery
from agent_framework_hosting_responses.stores.base import (
    ConversationHead,
    ConversationKey,
    ConversationRecord,
    ResponseRecord,
)
from agent_framework_hosting_responses.stores.sql_conversations import SqlConversationStore
from agent_framework_hosting_responses.stores.tables import conversation_items, conversations
from agent_framework_hosting_responses.testing.conversation_locks import ConversationLocksSuite
from agent_framework_hosting_responses.testing.conversation_stores import ConversationStoreSuite
from agent_framework_hosting_responses.testing.conversation_turns import (
    check_nothing_is_there,
    conversation_of,
    head_of,
    ids_of,
    message_of,
    take_turn,
    turn_of,
)


class Clock:
    """A clock that stands still until a test moves it."""

    now = 1_800_000_000.5

    def __call__(self) -> float:
        return self.now


class TwoProcesses:
    """Two stores over one database, asked in turns: what one of them remembers must not differ from what is there."""

    def __init__(self, first: SqlConversationStore, second: SqlConversationStore) -> None:
        self._stores = [first, second]

    def _next(self) -> SqlConversationStore:
        self._stores.reverse()
        return self._stores[0]

    async def create(self, record: ConversationRecord, items: Sequence[JsonObject]) -> None:
        await self._next().create(record, items)

    async def get(self, key: ConversationKey) -> ConversationRecord | None:
        return await self._next().get(key)

    async def update(self, key: ConversationKey, metadata: Mapping[str, str]) -> ConversationRecord | None:
        return await self._next().update(key, metadata)

    async def delete(self, key: ConversationKey) -> bool:
        return await self._next().delete(key)

    async def head(self, key: ConversationKey) -> ConversationHead | None:
        return await self._next().head(key)

    async def append(self, key: ConversationKey, items: Sequence[JsonObject]) -> None:
        await self._next().append(key, items)

    async def item(self, key: ConversationKey, item_id: str) -> JsonObject | None:
        return await self._next().item(key, item_id)

    async def remove(self, key: ConversationKey, item_id: str) -> bool:
        return await self._next().remove(key, item_id)

    async def page(self, key: ConversationKey, query: ListQuery) -> tuple[Sequence[JsonObject], bool] | None:
        return await self._next().page(key, query)

    async def lock(self, record: ResponseRecord) -> None:
        await self._next().lock(record)

    async def finish(self, record: ResponseRecord) -> None:
        await self._next().finish(record)


@pytest.fixture
async def other_database(sql_url: sa.URL, database: Database) -> AsyncGenerator[Database, None]:
    """The same database, as another process has it open."""
    other = Database(sql_url)
    other.open()
    yield other
    await other.close()


@pytest.fixture
def store(database: Database) -> SqlConversationStore:
    return SqlConversationStore(database)


@pytest.mark.behaviour("E1", "E2")
class TestSqlConversationStore(ConversationStoreSuite):
    pass


@pytest.mark.behaviour("A9")
class TestTwoProcesses(ConversationLocksSuite):
    @pytest.fixture
    def store(self, database: Database, other_database: Database) -> TwoProcesses:
        return TwoProcesses(SqlConversationStore(database), SqlConversationStore(other_database))


async def test_what_does_not_fit_in_memory_is_read_again(database: Database) -> None:
    record = conversation_of()
    store = SqlConversationStore(database, cache_bytes=0)
    await store.create(record, [message_of("msg_1")])
    await take_turn(store, record, "resp_1")
    await take_turn(store, record, "resp_2")

    assert len(await ids_of(store, record)) == 5


async def counts_of(database: Database) -> tuple[int, int]:
    """How many conversations and items there are."""
    tables = (conversations, conversation_items)
    found = await database.run(
        lambda connection: [
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in tables
        ]
    )
    return found[0], found[1]


async def test_a_head_shares_what_it_has_in_common_with_the_one_before(store: SqlConversationStore) -> None:
    record = conversation_of()
    await store.create(record, [message_of("msg_1")])
    await take_turn(store, record, "resp_1")
    before = await head_of(store, record)
    await take_turn(store, record, "resp_2")

    after = await head_of(store, record)

    assert after.context.parent is before.context
    assert (await head_of(store, record)).context is after.context


async def test_a_conversation_made_again_is_not_taken_for_the_first(
    database: Database, other_database: Database
) -> None:
    record = conversation_of()
    mine, other = SqlConversationStore(database), SqlConversationStore(other_database)
    await mine.create(record, [message_of("msg_1")])
    await head_of(mine, record)

    await other.delete(record.key)
    await other.create(record, [message_of("msg_2")])

    assert await ids_of(mine, record) == ["msg_2"]


@pytest.mark.parametrize("name", ["\0", "conv_\ud800"])
async def test_an_id_that_no_column_holds_is_refused(store: SqlConversationStore, name: str) -> None:
    record = conversation_of(name)

    with pytest.raises(StoreError, match="cannot hold"):
        await store.create(record, [])

    await check_nothing_is_there(store, record)


@pytest.mark.parametrize("name", ["\0", "msg_\ud800", "x" * 10_000, "sha256 x", "é"])
async def test_an_item_may_have_any_id(store: SqlConversationStore, name: str) -> None:
    record = conversation_of()
    await store.create(record, [message_of("msg_1"), message_of(name)])

    assert await store.item(record.key, name) == message_of(name)
    assert await store.page(record.key, ListQuery(after=name)) == ([message_of("msg_1")], False)
    assert await store.remove(record.key, name)
    assert await ids_of(store, record) == ["msg_1"]


@pytest.mark.behaviour("D5")
async def test_a_deleted_conversation_leaves_no_row(store: SqlConversationStore, database: Database) -> None:
    record = conversation_of()
    await store.create(record, [message_of("msg_1")])
    await take_turn(store, record, "resp_1")

    await store.delete(record.key)

    assert await counts_of(database) == (0, 0)


async def test_the_longest_unused_conversations_go_first(database: Database) -> None:
    clock = Clock()
    store = SqlConversationStore(database, retention=Retention(max_age=100, max_entries=2), clock=clock)
    records = [conversation_of(f"conv_{number}") for number in range(5)]
    for record in records:
        await store.create(record, [message_of("msg_1")])
        clock.now += 1
    await store.append(records[0].key, [message_of("msg_2")])

    assert isinstance(store, Prunable)
    assert [await store.prune(limit=1), await store.prune(limit=100), await store.prune(limit=100)] == [1, 2, 0]
    assert [record.key for record in records if await store.get(record.key)] == [records[0].key, records[4].key]
    assert await counts_of(database) == (2, 3)
    clock.now += 99.5
    assert await store.prune(limit=100) == 1
    clock.now += 1
    assert await store.prune(limit=100) == 1

    assert await counts_of(database) == (0, 0)


async def test_a_conversation_in_which_a_response_runs_is_kept(database: Database) -> None:
    clock = Clock()
    store = SqlConversationStore(database, retention=Retention(max_age=100, max_entries=1), clock=clock)
    busy, idle = conversation_of("conv_1"), conversation_of("conv_2")
    for record in (busy, idle):
        await store.create(record, [])
    running = turn_of(busy, "resp_1", await head_of(store, busy), status=RunStatus.FAILED)
    await store.lock(running)
    clock.now += 101

    assert await store.prune(limit=100) == 1
    await store.finish(running)
    assert await store.prune(limit=100) == 0
    clock.now += 101

    assert await store.prune(limit=100) == 1


async def test_many_conversations_are_pruned_at_once(database: Database) -> None:
    clock = Clock()
    store = SqlConversationStore(database, retention=Retention(max_age=100), clock=clock)
    for number in range(120):
        await store.create(conversation_of(f"conv_{number}"), [message_of("msg_1")])
    clock.now += 101

    assert [await store.prune(limit=110), await store.prune(limit=110)] == [110, 10]
    assert await counts_of(database) == (0, 0)


async def test_the_store_says_what_it_holds(database: Database) -> None:
    clock = Clock()
    store = SqlConversationStore(database, clock=clock)
    empty = await store.stats()
    await store.create(conversation_of(), [message_of("msg_1", "x" * 1000)])
    clock.now += 10

    stats = await store.stats()

    assert (empty.entries, empty.bytes, empty.oldest) == (0, 0, None)
    assert (stats.name, stats.entries, stats.oldest) == ("conversations", 1, 10)
    assert 1000 < stats.bytes < 2000
