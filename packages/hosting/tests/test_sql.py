"""What is special about sessions in SQL; what they have in common with others is in test_session_stores.py."""

import asyncio
import random
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from agent_framework import Agent, AgentSession, InMemoryHistoryProvider, Message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from agent_framework_hosting.errors import StoreError, StoreUnavailable
from agent_framework_hosting.isolation import SHARED, IsolationKeys, Partition
from agent_framework_hosting.schema_part import SCHEMA
from agent_framework_hosting.sql import schema
from agent_framework_hosting.sql.database import Database, sqlite_url
from agent_framework_hosting.sql.tables import sessions
from agent_framework_hosting.stores import sql
from agent_framework_hosting.stores.base import Prunable, Retention, SessionKey, StoreStats
from agent_framework_hosting.stores.sql import SqlSessionStore, erase_session
from agent_framework_hosting.testing.agents import ScriptedChatClient
from agent_framework_hosting.testing.session_stores import say, session_of, texts_of

ADA = IsolationKeys("ada").partition
BOB = IsolationKeys("bob").partition
KEYS = [SessionKey(f"response:{number}") for number in range(400)]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def counting(database: Database) -> list[str]:
    """Return the statements that the database is sent from now on."""
    statements: list[str] = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    return statements


async def rows(database: Database) -> Sequence[sa.Row[Any]]:
    return await database.run(lambda connection: connection.execute(sa.select(sessions)).all())


async def content(database: Database) -> bytes:
    """Return everything the table holds."""
    return b"".join((row.rest or b"") + row.lists + row.key.encode() for row in await rows(database))


async def store_chain(store: SqlSessionStore, length: int, partition: Partition = SHARED) -> None:
    """Store `length` sessions, each with one message more than the one before."""
    for turn in range(length):
        session = await store.get(partition, KEYS[turn - 1]) if turn else session_of()
        assert session is not None
        session.state["notes"] = "a note"
        say(session, f"message {turn}.")
        await store.put(partition, KEYS[turn], session, base=KEYS[turn - 1] if turn else None)


# --- What is written


@pytest.mark.behaviour("A11")
async def test_a_chain_of_a_real_agent_costs_the_same_bytes_and_queries_in_every_turn(database: Database) -> None:
    turns = 120
    store = SqlSessionStore(database)
    agent = Agent(ScriptedChatClient(*[[f"answer {turn:03}"] for turn in range(turns)]))
    statements = counting(database)
    sent: list[int] = []

    session: AgentSession | None = agent.create_session()
    for turn in range(turns):
        assert session is not None
        await agent.run(f"question {turn:03}", session=session)
        before = len(statements)
        await store.put(SHARED, KEYS[turn], session, base=KEYS[turn - 1] if turn else None)
        session = await store.get(SHARED, KEYS[turn])
        sent.append(len(statements) - before)

    sizes = {row.key: len(row.rest or b"") + len(row.lists) for row in await rows(database)}
    first, last = sizes[KEYS[2]], sizes[KEYS[turns - 1]]
    assert abs(last - first) <= 0.1 * first
    assert set(sent[1:]) == {sent[1]}
    restored = await SqlSessionStore(database).get(SHARED, KEYS[turns - 1])
    assert restored is not None
    assert session is not None
    assert restored.to_dict() == session.to_dict()
    assert len(restored.state["in_memory"]["messages"]) == 2 * turns


async def test_a_state_that_is_another_one_in_every_turn_does_not_make_long_chains(database: Database) -> None:
    store = SqlSessionStore(database)
    session = session_of(*["a message that stays as it is " * 4] * 20)

    for turn in range(300):
        session.state["notes"] = {"turn": turn}
        await store.put(SHARED, KEYS[turn], session, base=KEYS[turn - 1] if turn else None)
        found = await store.get(SHARED, KEYS[turn])
        assert found is not None
        session = found

    bases = {row.key: row.base_key for row in await rows(database)}
    length, key = 1, KEYS[299]
    while bases[key] is not None:
        length, key = length + 1, bases[key]
    assert 10 < length < 150
    assert texts_of(await SqlSessionStore(database).get(SHARED, KEYS[299])) == texts_of(session)


async def test_a_list_that_is_compacted_is_written_once_and_grows_again(database: Database) -> None:
    store = SqlSessionStore(database)
    await store_chain(store, 30)
    session = await store.get(SHARED, KEYS[29])
    assert session is not None
    session.state["in_memory"]["messages"] = [Message("system", ["a summary"])]
    await store.put(SHARED, KEYS[30], session, base=KEYS[29])

    (row,) = [row for row in await rows(database) if row.key == KEYS[30]]
    restored = await SqlSessionStore(database).get(SHARED, KEYS[30])

    assert len(row.lists) < 300
    assert texts_of(restored) == ["a summary"]


async def test_what_cannot_be_stored_is_refused_and_nothing_is_written(database: Database) -> None:
    store = SqlSessionStore(database)
    session = session_of("one")
    session.state["a"] = {"b": [object()]}

    with pytest.raises(StoreError, match=r"state\.a\.b\[0\]"):
        await store.put(SHARED, KEYS[0], session)

    assert await rows(database) == []


async def test_a_database_that_is_closed_is_unavailable(sql_url: sa.URL) -> None:
    store = SqlSessionStore(Database(sql_url))

    with pytest.raises(StoreUnavailable):
        await store.get(SHARED, KEYS[0])
    with pytest.raises(StoreUnavailable):
        await store.put(SHARED, KEYS[0], session_of("one"))


# --- What is kept in memory


async def test_the_first_reader_gets_the_session_itself_and_nobody_else_does(database: Database) -> None:
    store, session = SqlSessionStore(database), session_of("one")
    await store.put(SHARED, KEYS[0], session)

    first, second = await store.get(SHARED, KEYS[0]), await store.get(SHARED, KEYS[0])

    assert first is session
    assert second is not session
    assert texts_of(second) == ["one"]


async def test_a_session_that_would_not_come_back_the_same_is_not_handed_on(database: Database) -> None:
    """What a restart would show is shown at once."""
    store, session = SqlSessionStore(database), AgentSession()
    session.state["a"] = (1, 2)
    await store.put(SHARED, KEYS[0], session)

    found = await store.get(SHARED, KEYS[0])

    assert found is not None
    assert found.state == {"a": [1, 2]}


async def test_what_another_process_writes_is_seen_and_what_it_deletes_is_gone(
    database: Database, sql_url: sa.URL
) -> None:
    elsewhere = Database(sql_url)
    elsewhere.open()
    one, two = SqlSessionStore(database), SqlSessionStore(elsewhere)
    await one.put(SHARED, KEYS[0], session_of("old"))
    await one.put(SHARED, KEYS[1], session_of("gone"))

    await two.put(SHARED, KEYS[0], session_of("new"))
    await two.delete(SHARED, KEYS[1])

    assert texts_of(await one.get(SHARED, KEYS[0])) == ["new"]
    assert await one.get(SHARED, KEYS[1]) is None
    assert await two.claim(SHARED, KEYS[0])
    assert not await one.claim(SHARED, KEYS[0])
    await elsewhere.close()


async def test_a_session_grows_from_what_its_base_is_now_not_from_what_it_was_here(database: Database) -> None:
    one, two = SqlSessionStore(database), SqlSessionStore(database)
    await one.put(SHARED, KEYS[0], session_of("one"))
    session = await one.get(SHARED, KEYS[0])
    assert session is not None
    await two.put(SHARED, KEYS[0], session_of("quite", "another"))

    say(session, "two")
    await one.put(SHARED, KEYS[1], session, base=KEYS[0])

    assert texts_of(await SqlSessionStore(database).get(SHARED, KEYS[1])) == ["one", "two"]


@pytest.mark.behaviour("D8")
async def test_what_is_kept_in_memory_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "CACHED_SESSIONS", 5)
    store = SqlSessionStore(database)
    given = [session_of(f"{number}") for number in range(20)]
    for key, session in zip(KEYS, given, strict=False):
        await store.put(SHARED, key, session)

    found = [await store.get(SHARED, key) for key in KEYS[:20]]

    assert [texts_of(session) for session in found] == [[f"{number}"] for number in range(20)]
    assert [number for number in range(20) if found[number] is given[number]] == []
    assert len(store._cache._entries) == 5


async def test_large_sessions_leave_the_memory_sooner(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "CACHED_BYTES", 10_000)
    store = SqlSessionStore(database)
    given = [session_of("x" * 4_000) for _ in range(4)]
    for key, session in zip(KEYS, given, strict=False):
        await store.put(SHARED, key, session)

    found = [await store.get(SHARED, key) for key in reversed(KEYS[:4])]

    assert [one is other for one, other in zip(found, reversed(given), strict=True)] == [True, True, False, False]
    assert store._cache._size <= 10_000


# --- What is erased


@pytest.mark.behaviour("D5")
async def test_a_deleted_session_leaves_no_byte(database: Database) -> None:
    store = SqlSessionStore(database)
    await store.put(SHARED, KEYS[0], session_of("secret"))

    await store.delete(SHARED, KEYS[0])

    assert await rows(database) == []


@pytest.mark.behaviour("D5")
@pytest.mark.parametrize("is_pruned", [True, False])
async def test_what_is_erased_is_in_no_file_of_sqlite(tmp_path: Path, *, is_pruned: bool) -> None:
    database = Database(sqlite_url(str(tmp_path / "host.db")))
    database.open()
    schema.upgrade(database.engine, [SCHEMA])
    clock = Clock()
    store = SqlSessionStore(database, retention=Retention(max_age=60), clock=clock)
    await store.put(SHARED, KEYS[0], session_of("a secret"))
    written = [path for path in tmp_path.iterdir() if b"a secret" in path.read_bytes()]

    if is_pruned:
        clock.now += 100
        await store.prune(limit=10)
    else:
        await store.delete(SHARED, KEYS[0])

    assert written
    assert [path for path in tmp_path.iterdir() if b"a secret" in path.read_bytes()] == []
    await database.close()


@pytest.mark.behaviour("D5")
async def test_a_deleted_session_leaves_only_what_others_have_grown_from(database: Database) -> None:
    store = SqlSessionStore(database)
    session = session_of("kept", "secret")
    session.state["notes"] = "secret"
    await store.put(SHARED, KEYS[0], session)
    compacted = session_of("kept", "new")
    compacted.state["notes"] = "n" * 300
    await store.put(SHARED, KEYS[1], compacted, base=KEYS[0])
    assert {row.base_key for row in await rows(database)} == {None, KEYS[0]}

    await store.delete(SHARED, KEYS[0])

    assert b"secret" not in await content(database)
    assert b"kept" in await content(database)
    assert KEYS[0].encode() not in await content(database)
    assert texts_of(await SqlSessionStore(database).get(SHARED, KEYS[1])) == ["kept", "new"]


@pytest.mark.behaviour("D5")
async def test_with_its_last_descendant_a_deleted_session_goes_too(database: Database) -> None:
    store = SqlSessionStore(database)
    await store_chain(store, 6)
    branch = await store.get(SHARED, KEYS[3])
    assert branch is not None
    say(branch, "other")
    await store.put(SHARED, KEYS[10], branch, base=KEYS[3])

    for number in (1, 0, 3, 2, 5):
        await store.delete(SHARED, KEYS[number])
    assert texts_of(await SqlSessionStore(database).get(SHARED, KEYS[4])) == [f"message {n}." for n in range(5)]
    assert b"message 5." not in await content(database)
    await store.delete(SHARED, KEYS[4])
    assert b"message 4." not in await content(database)
    assert b"message 3." in await content(database)
    await store.delete(SHARED, KEYS[10])

    assert await rows(database) == []


async def test_the_chain_of_tombstones_loses_what_the_last_descendant_does_not_need(database: Database) -> None:
    store = SqlSessionStore(database)
    await store_chain(store, 4)
    session = await store.get(SHARED, KEYS[3])
    assert session is not None
    messages = session.state["in_memory"]["messages"]
    session.state["in_memory"]["messages"] = [messages[0], Message("user", ["x" * 2_000])]
    del session.state["notes"]
    await store.put(SHARED, KEYS[4], session, base=KEYS[3])

    for number in (0, 3, 1, 2):
        await store.delete(SHARED, KEYS[number])

    left = await content(database)
    assert b"a note" not in left
    assert [b"message %d." % number in left for number in range(4)] == [True, False, False, False]
    assert texts_of(await SqlSessionStore(database).get(SHARED, KEYS[4])) == ["message 0.", "x" * 2_000]


async def test_a_session_can_be_erased_in_a_transaction_of_somebody_else(database: Database) -> None:
    store = SqlSessionStore(database)
    await store.put(SHARED, KEYS[0], session_of("one"))

    def give_up(connection: sa.Connection) -> None:
        assert erase_session(connection, SHARED, KEYS[0])
        assert not erase_session(connection, SHARED, KEYS[0])
        raise KeyError

    with pytest.raises(KeyError):
        await database.run(give_up)
    assert texts_of(await store.get(SHARED, KEYS[0])) == ["one"]
    assert await database.run(lambda connection: erase_session(connection, SHARED, KEYS[0]), erases=True)

    assert await store.get(SHARED, KEYS[0]) is None
    assert await rows(database) == []


async def test_nobody_can_ask_for_a_tombstone(database: Database) -> None:
    store = SqlSessionStore(database)
    await store_chain(store, 2)
    await store.delete(SHARED, KEYS[0])
    (tombstone,) = [SessionKey(row.key) for row in await rows(database) if row.is_deleted]

    assert await store.get(SHARED, tombstone) is None
    assert not await store.claim(SHARED, tombstone)
    assert not await store.delete(SHARED, tombstone)


async def test_writers_and_erasers_of_one_family_do_not_harm_each_other(database: Database) -> None:
    """All at once: branches of a session, its deletion, its replacement, and deletions of the branches."""
    chance = random.Random(5)
    stores = [SqlSessionStore(database) for _ in range(4)]
    await stores[0].put(SHARED, KEYS[0], session_of("root"))
    written: dict[SessionKey, list[str]] = {}

    async def branch(number: int) -> None:
        key, store = KEYS[number], stores[number % 4]
        session = await store.get(SHARED, KEYS[0])
        if session is None:
            return
        say(session, f"{number}")
        texts = texts_of(session)
        await store.put(SHARED, key, session, base=KEYS[0])
        written[key] = texts

    async def disturb(number: int) -> None:
        store = stores[number % 4]
        if number % 2:
            await store.delete(SHARED, KEYS[0])
        else:
            await store.put(SHARED, KEYS[0], session_of("root", f"again {number}"))

    for burst in range(6):
        work: list[Awaitable[object]] = [branch(burst * 20 + number) for number in range(1, 15)]
        work += [disturb(number) for number in range(4)]
        work += [stores[1].delete(SHARED, key) for key in chance.sample(sorted(written), k=len(written) // 3)]
        chance.shuffle(work)
        await asyncio.wait_for(asyncio.gather(*work), 30)
        await stores[0].put(SHARED, KEYS[0], session_of("root"))

    fresh = SqlSessionStore(database)
    for key, texts in written.items():
        session = await fresh.get(SHARED, key)
        assert session is None or texts_of(session) == texts
        await fresh.delete(SHARED, key)
    await fresh.delete(SHARED, KEYS[0])
    assert await rows(database) == []


# --- Retention


@pytest.mark.behaviour("D8")
async def test_what_is_too_old_is_pruned_the_oldest_first(database: Database) -> None:
    clock = Clock()
    store = SqlSessionStore(database, retention=Retention(max_age=60), clock=clock)
    for number in range(10):
        clock.now = 1_000 + number
        await store.put(ADA if number % 2 else BOB, KEYS[number], session_of(f"{number}"))
    clock.now = 1_065.5

    assert isinstance(store, Prunable)
    assert await store.prune(limit=2) == 2
    assert await store.prune(limit=100) == 4
    assert await store.prune(limit=100) == 0

    assert sorted(row.key for row in await rows(database)) == KEYS[6:10]


@pytest.mark.behaviour("D8")
async def test_what_is_too_much_is_pruned_the_oldest_first(database: Database) -> None:
    clock = Clock()
    store = SqlSessionStore(database, retention=Retention(max_age=None, max_entries=75), clock=clock)
    for number in range(200):
        clock.now = 1_000 + number
        await store.put(SHARED, KEYS[number], session_of(f"{number}"))

    assert await store.prune(limit=1_000) == 125
    assert await store.prune(limit=1_000) == 0

    assert {row.key for row in await rows(database)} == set(KEYS[125:200])


async def test_without_limits_nothing_is_pruned(database: Database) -> None:
    clock = Clock()
    store = SqlSessionStore(database, retention=Retention(max_age=None), clock=clock)
    await store.put(SHARED, KEYS[0], session_of("one"))
    clock.now = 1e12

    assert await store.prune(limit=10) == 0
    assert texts_of(await store.get(SHARED, KEYS[0])) == ["one"]


async def test_a_pruned_session_is_gone_but_what_has_grown_from_it_is_whole(database: Database) -> None:
    clock = Clock()
    store = SqlSessionStore(database, retention=Retention(max_age=60), clock=clock)
    await store_chain(store, 5)
    clock.now += 50
    session = await store.get(SHARED, KEYS[4])
    assert session is not None
    say(session, "young")
    await store.put(SHARED, KEYS[5], session, base=KEYS[4])
    clock.now += 20

    assert await store.prune(limit=100) == 5

    assert await store.get(SHARED, KEYS[4]) is None
    expected = [*(f"message {turn}." for turn in range(5)), "young"]
    assert texts_of(await SqlSessionStore(database).get(SHARED, KEYS[5])) == expected
    clock.now += 100
    assert await store.prune(limit=100) == 1
    assert await rows(database) == []


async def test_stats_tell_what_there_is(database: Database) -> None:
    clock = Clock()
    store = SqlSessionStore(database, clock=clock)
    empty = await store.stats()
    await store_chain(store, 3)
    clock.now += 10
    await store.delete(SHARED, KEYS[0])

    stats = await store.stats()

    assert empty == StoreStats(name="sessions", entries=0, bytes=0, oldest=None)
    assert (stats.entries, stats.oldest) == (2, 10.0)
    assert stats.bytes == sum(len(row.rest or b"") + len(row.lists) for row in await rows(database))


# --- Two users, any operations, any order

IDS = st.sampled_from(KEYS[:4])
USERS = st.sampled_from([ADA, BOB, SHARED])


@pytest.mark.behaviour("E1", "E2")
async def test_whatever_users_do_nobody_meets_what_is_not_theirs(database: Database) -> None:
    """Random operations against a dict of dicts, through stores of two processes."""
    loop = asyncio.get_running_loop()

    class Users(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.run(database.run(lambda connection: connection.execute(sa.delete(sessions))))
            self.stores = [SqlSessionStore(database), SqlSessionStore(database)]
            self.texts: dict[tuple[Partition, SessionKey], list[str]] = {}
            self.claimed: set[tuple[Partition, SessionKey]] = set()

        def run(self, work: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(work, loop).result(30)

        @rule(user=USERS, key=IDS, base=IDS, process=st.integers(0, 1), drops=st.integers(0, 2))
        def write(self, user: Partition, key: SessionKey, base: SessionKey, process: int, drops: int) -> None:
            store = self.stores[process]
            session = self.run(store.get(user, base)) or session_of(f"{user}: start")
            history = session.state["in_memory"]
            history["messages"] = history["messages"][: len(history["messages"]) - drops]
            say(session, f"{user}: {len(history['messages'])} {key}")
            self.texts[user, key] = texts_of(session)
            self.claimed.discard((user, key))
            self.run(store.put(user, key, session, base=base))

        @rule(user=USERS, key=IDS, process=st.integers(0, 1))
        def read(self, user: Partition, key: SessionKey, process: int) -> None:
            found = self.run(self.stores[process].get(user, key))
            expected = self.texts.get((user, key))
            assert (None if found is None else texts_of(found)) == expected
            assert all(text.startswith(f"{user}: ") for text in expected or ())

        @rule(user=USERS, key=IDS, process=st.integers(0, 1))
        def claim(self, user: Partition, key: SessionKey, process: int) -> None:
            is_first = (user, key) in self.texts and (user, key) not in self.claimed
            assert self.run(self.stores[process].claim(user, key)) == is_first
            if is_first:
                self.claimed.add((user, key))

        @rule(user=USERS, key=IDS, process=st.integers(0, 1))
        def delete(self, user: Partition, key: SessionKey, process: int) -> None:
            was_there = self.texts.pop((user, key), None) is not None
            self.claimed.discard((user, key))
            assert self.run(self.stores[process].delete(user, key)) == was_there

        def teardown(self) -> None:
            for user, key in self.texts:
                assert self.run(self.stores[0].delete(user, key))
            assert self.run(rows(database)) == []

    checks = settings(
        max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    await asyncio.to_thread(run_state_machine_as_test, Users, settings=checks)


async def test_a_real_agent_goes_on_after_a_restart(database: Database) -> None:
    agent = Agent(ScriptedChatClient(["one"], ["two"]), context_providers=[InMemoryHistoryProvider()])
    session = agent.create_session()
    await agent.run("first", session=session)
    await SqlSessionStore(database).put(SHARED, KEYS[0], session)

    restored = await SqlSessionStore(database).get(SHARED, KEYS[0])
    await agent.run("second", session=restored)

    assert restored is not None
    assert restored.session_id == session.session_id
    assert [message.text for message in restored.state["in_memory"]["messages"]] == ["first", "one", "second", "two"]
