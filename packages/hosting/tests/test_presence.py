"""Presence: who is alive is known from the database, and a process that was taken for dead knows it, too."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import sqlalchemy as sa
from postgres import PostgresServer

from agent_framework_hosting.errors import StoreUnavailable
from agent_framework_hosting.sql import database as database_module  # its `postgres_url` is a fixture's name here
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.presence import LEASE, Presence
from agent_framework_hosting.sql.tables import processes

SECONDS = 60.0


def registered(connection: sa.Connection) -> set[str]:
    return set(connection.execute(sa.select(processes.c.owner)).scalars())


async def stand_still(database: Database, owner: str, seconds: float) -> None:
    """Let the row of a process look as if the process had not run for so long."""
    older = sa.update(processes).where(processes.c.owner == owner).values(seen_at=processes.c.seen_at - seconds)
    await database.run(lambda connection: connection.execute(older))


async def test_a_process_is_registered_from_start_to_stop(database: Database) -> None:
    presence = Presence(database, owner="me", exclusive=False)

    await presence.start()
    await presence.start()
    assert await database.run(registered) == {"me"}
    await presence.stop()
    await presence.stop()
    assert await database.run(registered) == set()
    await presence.start()
    assert await database.run(registered) == {"me"}
    await presence.stop()


async def test_processes_have_names_of_their_own(database: Database) -> None:
    assert Presence(database).owner != Presence(database).owner


async def test_the_dead_are_those_that_are_not_registered_or_did_not_renew(database: Database) -> None:
    me = Presence(database, owner="me", exclusive=False)
    for other in ("alive", "still", "late"):
        await database.run(Presence(database, owner=other, exclusive=False)._write)
    await me.start()
    await stand_still(database, "still", LEASE + 1)
    await stand_still(database, "late", LEASE - 5)

    assert await me.dead_owners({"me", "alive", "still", "late", "unknown"}) == {"still", "unknown"}
    assert await me.dead_owners(set()) == set()
    assert await database.run(registered) == {"me", "alive", "late"}
    await me.stop()


async def test_the_living_are_those_that_have_signed_in_time(database: Database) -> None:
    for name in ("alive", "still"):
        await database.run(Presence(database, owner=name, exclusive=False)._write)
    await stand_still(database, "still", LEASE + 1)

    assert await Presence(database, exclusive=False).living() == {"alive"}


async def test_renewing_keeps_a_process_alive(database: Database) -> None:
    me, other = (Presence(database, owner=name, exclusive=False) for name in ("me", "other"))
    await me.start()
    await other.start()
    await stand_still(database, "other", LEASE - 5)

    await other.sign()
    await stand_still(database, "other", LEASE - 5)

    assert await me.dead_owners({"other"}) == set()
    await me.stop()
    await other.stop()


async def test_a_process_renews_by_itself(database: Database) -> None:
    presence = Presence(database, owner="me", exclusive=False, beat=0.001)
    await presence.start()
    await stand_still(database, "me", LEASE + 1)

    seen_at = sa.select(processes.c.seen_at)
    async with asyncio.timeout(SECONDS):
        first = await database.run(lambda connection: connection.scalar(seen_at))
        while await database.run(lambda connection: connection.scalar(seen_at)) == first:
            pass

    assert await Presence(database, exclusive=False).dead_owners({"me"}) == set()
    await presence.stop()


async def test_a_process_that_was_taken_for_dead_is_told_once_and_lives_on(database: Database) -> None:
    told: list[bool] = []
    me, other = (Presence(database, owner=name, exclusive=False) for name in ("me", "other"))
    other.when_lost(lambda: told.append(other.is_lost))
    await me.start()
    await other.start()
    await stand_still(database, "other", LEASE + 1)

    assert await me.dead_owners({"other"}) == {"other"}
    await other.sign()
    await other.sign()

    assert told == [True]
    assert not other.is_lost
    assert await me.dead_owners({"other"}) == set()
    await other.stop()
    await me.stop()


async def test_a_late_sign_of_life_that_nobody_missed_is_no_loss(database: Database) -> None:
    told: list[str] = []
    presence = Presence(database, owner="me", exclusive=False)
    presence.when_lost(lambda: told.append("lost"))
    await presence.start()
    await stand_still(database, "me", LEASE + 1)

    await presence.sign()
    await presence.stop()

    assert told == []


async def test_a_process_whose_sign_of_life_hangs_is_told_when_its_lease_ends(database: Database) -> None:
    opened, lost = threading.Event(), asyncio.Event()
    presence = Presence(database, owner="me", exclusive=False, beat=0.001, lease=0.2)
    presence.when_lost(lost.set)
    await presence.start()

    # Holds the row, and SQLite's only thread.
    def hold(connection: sa.Connection) -> None:
        connection.execute(sa.update(processes).values(seen_at=processes.c.seen_at))
        assert opened.wait(SECONDS)

    held = asyncio.create_task(database.run(hold))
    await asyncio.wait_for(lost.wait(), SECONDS)
    opened.set()
    await held
    await presence.stop()

    assert await database.run(registered) == set()


async def test_a_process_that_stood_still_asks_first_whether_anybody_has_noticed(database: Database) -> None:
    told: list[str] = []
    presence = Presence(database, owner="me", exclusive=False, beat=2.0, lease=0.1)
    presence.when_lost(lambda: told.append("lost"))
    await presence.start()

    time.sleep(2.5)  # noqa: ASYNC251  nothing of the process goes on
    await asyncio.sleep(0)
    await presence.sign()

    assert told == []
    await presence.stop()


async def test_a_process_may_be_started_again_under_its_name(database: Database) -> None:
    told: list[str] = []
    presence = Presence(database, owner="me", exclusive=False)
    presence.when_lost(lambda: told.append("lost"))
    await presence.start()
    await presence.stop()

    await presence.start()

    assert told == []
    assert await database.run(registered) == {"me"}
    await presence.stop()


async def test_a_database_that_is_away_does_not_end_the_process(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    async def watcher() -> None:
        seen.append("seen")

    presence = Presence(database, owner="me", exclusive=False)
    presence.watch(watcher)
    await presence.start()
    await database.close()

    await presence.round()
    while_away = list(seen)
    database.open()
    await presence.round()

    assert while_away == []
    assert seen == ["seen"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert await database.run(registered) == {"me"}
    await database.close()
    await presence.stop()
    with pytest.raises(StoreUnavailable):
        await presence.start()


async def test_a_watcher_that_fails_does_not_keep_others_from_looking(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    seen = asyncio.Event()

    async def failing() -> None:
        raise LookupError

    async def looking() -> None:
        seen.set()

    presence = Presence(database, beat=0.001)
    presence.watch(failing)
    presence.watch(looking)
    await presence.start()

    await asyncio.wait_for(seen.wait(), SECONDS)
    await presence.stop()

    assert "LookupError" in caplog.text


async def test_a_watcher_that_takes_long_does_not_put_off_the_signs_of_life(database: Database) -> None:
    looks = 0

    async def endless() -> None:
        nonlocal looks
        looks += 1
        await asyncio.Event().wait()

    presence = Presence(database, owner="me", exclusive=False, beat=0.001)
    presence.watch(endless)
    await presence.start()
    async with asyncio.timeout(SECONDS):
        while not looks:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.001)
        await stand_still(database, "me", LEASE - 1)
        seen_at = sa.select(processes.c.seen_at)
        first = await database.run(lambda connection: connection.scalar(seen_at))
        while await database.run(lambda connection: connection.scalar(seen_at)) == first:
            pass
    await presence.stop()

    assert looks == 1


async def test_a_lost_connection_does_not_end_the_lease(postgres: PostgresServer, postgres_url: str) -> None:
    database = Database(database_module.postgres_url(postgres_url))
    database.open()
    presence = Presence(database, owner="me")
    await presence.start()

    await asyncio.to_thread(postgres.disconnect, postgres_url)
    await presence.sign()

    assert not presence.is_lost
    assert await database.run(registered) == {"me"}
    await presence.stop()
    await database.close()


async def test_with_a_database_of_its_own_every_other_process_is_dead(database: Database) -> None:
    presence = Presence(database, owner="me", exclusive=True)
    await presence.start()

    assert await presence.dead_owners({"me", "other"}) == {"other"}
    assert await database.run(registered) == set()
    await presence.stop()


async def test_sqlite_is_a_database_of_its_own(database: Database) -> None:
    presence = Presence(database, owner="me")
    await presence.start()

    assert await database.run(registered) == (set() if database.is_sqlite else {"me"})
    await presence.stop()
