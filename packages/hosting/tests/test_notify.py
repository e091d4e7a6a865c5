"""Notifications between processes: they arrive, few at a time, and go on after the server has cut all connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import psycopg
import pytest
from postgres import PostgresServer

from agent_framework_hosting.sql import database as database_module  # its `postgres_url` is a fixture's name here
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.notify import Notifier

SECONDS = 60.0
CHANNEL = "afhost_test"


class Process:
    """A notifier, and what it has heard."""

    def __init__(self, database: Database, *, interval: float = 0.001) -> None:
        self.heard: list[tuple[str, str]] = []
        self.connections = 0
        self._changed = asyncio.Event()
        self.notifier = Notifier(
            database, CHANNEL, on_news=self._hear, on_connect=self._connect, interval=interval, retry=0.01
        )

    def _hear(self, name: str, value: str) -> None:
        self.heard.append((name, value))
        self._changed.set()

    def _connect(self) -> None:
        self.connections += 1
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def listen(self) -> None:
        self.notifier.listen()
        await self.until(lambda: self.connections > 0)


@pytest.fixture
async def database(postgres_url: str) -> AsyncGenerator[Database]:
    database = Database(database_module.postgres_url(postgres_url))
    database.open()
    yield database
    await database.close()


@pytest.fixture
async def one(database: Database) -> AsyncGenerator[Process]:
    process = Process(database)
    yield process
    await process.notifier.stop()


@pytest.fixture
async def two(database: Database) -> AsyncGenerator[Process]:
    process = Process(database)
    yield process
    await process.notifier.stop()


async def test_everybody_who_listens_hears_what_is_sent(one: Process, two: Process) -> None:
    await one.listen()
    await two.listen()

    one.notifier.send("a", "1")

    await one.until(lambda: one.heard == [("a", "1")])
    await two.until(lambda: two.heard == [("a", "1")])


async def test_what_comes_at_once_goes_together_and_of_one_name_only_the_last_value(one: Process, two: Process) -> None:
    await two.listen()

    for number in range(100):
        one.notifier.send("a", str(number))
        one.notifier.send("b", str(number))
    await two.until(lambda: len(two.heard) >= 2)

    assert two.heard == [("a", "99"), ("b", "99")]


async def test_more_than_fits_into_one_notification_goes_in_several(one: Process, two: Process) -> None:
    await two.listen()
    sent = [(f"{number:024}", str(number)) for number in range(2_000)]

    for name, value in sent:
        one.notifier.send(name, value)
    await two.until(lambda: len(two.heard) >= len(sent))

    assert two.heard == sent


async def test_what_is_sent_during_a_notification_comes_with_the_next(one: Process, two: Process) -> None:
    await two.listen()
    for number in range(300):
        one.notifier.send("a", str(number))
        await asyncio.sleep(0)

    await two.until(lambda: two.heard[-1:] == [("a", "299")])

    values = [int(value) for _, value in two.heard]
    assert values == sorted(set(values))


async def test_connections_that_the_server_has_cut_come_back(
    one: Process, two: Process, postgres: PostgresServer, postgres_url: str
) -> None:
    await two.listen()
    one.notifier.send("a", "1")
    await two.until(lambda: two.heard == [("a", "1")])

    assert postgres.disconnect(postgres_url) >= 2
    await two.until(lambda: two.connections == 2)
    one.notifier.send("a", "2")

    # The sender has noticed nothing until now, and loses nothing.
    await two.until(lambda: two.heard == [("a", "1"), ("a", "2")])


async def test_it_goes_on_trying_while_the_server_cannot_be_reached(
    one: Process, postgres: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(postgres_url)["dbname"]

    def allow(*, connections: bool) -> None:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {connections}')

    allow(connections=False)
    try:
        one.notifier.listen()
        one.notifier.send("a", "1")
        one.notifier.send("a", "2")
        async with asyncio.timeout(SECONDS):
            while len({record.getMessage() for record in caplog.records}) < 2:  # noqa: ASYNC110  a log has no event
                await asyncio.sleep(0.005)
    finally:
        allow(connections=True)
    await one.until(lambda: one.connections == 1)
    one.notifier.send("b", "3")
    await one.until(lambda: ("b", "3") in one.heard)

    assert {record.levelname for record in caplog.records} == {"WARNING"}


async def test_it_connects_only_when_it_is_needed_and_stops(
    one: Process, postgres: PostgresServer, postgres_url: str
) -> None:
    assert postgres.disconnect(postgres_url) == 0
    await one.listen()
    one.notifier.send("a", "1")
    await one.until(lambda: len(one.heard) == 1)

    await one.notifier.stop()
    await one.notifier.stop()

    assert postgres.disconnect(postgres_url) == 0
