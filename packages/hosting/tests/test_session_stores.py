"""The suite for stores of sessions, run on every kind of store."""

import asyncio

import pytest
from agent_framework import AgentSession

from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.stores.base import SessionKey, SessionStore
from agent_framework_hosting.stores.memory import MemorySessionStore
from agent_framework_hosting.stores.sql import SqlSessionStore
from agent_framework_hosting.testing.session_stores import SessionChainsSuite, SessionStoreSuite


@pytest.mark.behaviour("E2")
class TestMemorySessionStore(SessionStoreSuite):
    @pytest.fixture
    def store(self) -> MemorySessionStore:
        return MemorySessionStore()


@pytest.mark.behaviour("E2")
class TestSqlSessionStore(SessionStoreSuite):
    @pytest.fixture
    def store(self, database: Database) -> SqlSessionStore:
        return SqlSessionStore(database)


class ManyProcesses:
    """Stores of several processes over one database: every call comes from another one."""

    def __init__(self, database: Database) -> None:
        self._stores = [SqlSessionStore(database) for _ in range(3)]

    def _next(self) -> SqlSessionStore:
        self._stores.append(self._stores.pop(0))
        return self._stores[0]

    async def get(self, partition: Partition, key: SessionKey) -> AgentSession | None:
        return await self._next().get(partition, key)

    async def put(
        self, partition: Partition, key: SessionKey, session: AgentSession, *, base: SessionKey | None = None
    ) -> None:
        await self._next().put(partition, key, session, base=base)

    async def claim(self, partition: Partition, key: SessionKey) -> bool:
        return await self._next().claim(partition, key)

    async def delete(self, partition: Partition, key: SessionKey) -> bool:
        return await self._next().delete(partition, key)


class TestSqlSessionStoresOfManyProcesses(SessionStoreSuite):
    @pytest.fixture
    def store(self, database: Database) -> ManyProcesses:
        return ManyProcesses(database)


class Forgetful(MemorySessionStore):
    """Breaks a rule: what has grown from a session goes with it."""

    def __init__(self) -> None:
        super().__init__()
        self._grown: dict[SessionKey, list[SessionKey]] = {}

    async def put(
        self, partition: Partition, key: SessionKey, session: AgentSession, *, base: SessionKey | None = None
    ) -> None:
        if base is not None:
            self._grown.setdefault(base, []).append(key)
        await super().put(partition, key, session, base=base)

    async def delete(self, partition: Partition, key: SessionKey) -> bool:
        for grown in self._grown.pop(key, ()):
            await self.delete(partition, grown)
        return await super().delete(partition, key)


class Shared(MemorySessionStore):
    """Breaks a rule: every reader gets the same session."""

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[tuple[Partition, SessionKey], AgentSession] = {}

    async def get(self, partition: Partition, key: SessionKey) -> AgentSession | None:
        session = await super().get(partition, key)
        return session and self._live.setdefault((partition, key), session)


@pytest.mark.parametrize(
    ("store", "test"),
    [
        (Forgetful(), SessionChainsSuite().test_a_deleted_session_leaves_what_has_grown_from_it),
        (Shared(), SessionStoreSuite().test_a_reader_may_change_what_it_got),
        (Shared(), SessionStoreSuite().test_readers_at_the_same_time_get_a_session_each),
        (Shared(), SessionStoreSuite().test_branches_at_the_same_time_do_not_meet),
    ],
)
async def test_the_suite_finds_what_a_store_does_wrong(store: SessionStore, test: object) -> None:
    assert callable(test)

    with pytest.raises(AssertionError):
        await asyncio.wait_for(test(store), 60)
