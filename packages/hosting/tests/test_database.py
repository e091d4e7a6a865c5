"""The database: transactions in threads, on SQLite and on PostgreSQL alike, and where the two differ."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import sqlite3
import threading
import traceback
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from postgres import PostgresServer

from agent_framework_hosting.errors import ConfigurationError, StoreUnavailable
from agent_framework_hosting.sql import database as database_module
from agent_framework_hosting.sql.database import POOL_SIZE, Database, postgres_url, sqlite_url

SECONDS = 60.0

metadata = sa.MetaData()
notes = sa.Table("notes", metadata, sa.Column("id", sa.Text, primary_key=True), sa.Column("body", sa.LargeBinary))
links = sa.Table(
    "links",
    metadata,
    sa.Column("note", sa.ForeignKey("notes.id", deferrable=True, initially="DEFERRED"), primary_key=True),
)


@pytest.fixture
async def tables(database: Database) -> Database:
    """A database with the tables of this module."""
    await database.run(metadata.create_all)
    return database


@pytest.fixture
async def sqlite_tables(tmp_path: Path) -> AsyncGenerator[Database, None]:
    database = Database(sqlite_url(str(tmp_path / "host.db")))
    database.open()
    await database.run(metadata.create_all)
    yield database
    await database.close()


@pytest.fixture
async def postgres_tables(postgres_url: str) -> AsyncGenerator[Database, None]:
    database = Database(database_module.postgres_url(postgres_url))
    database.open()
    await database.run(metadata.create_all)
    yield database
    await database.close()


def adding(note: str, body: bytes = b"") -> Callable[[sa.Connection], None]:
    def work(connection: sa.Connection) -> None:
        connection.execute(sa.insert(notes).values(id=note, body=body))

    return work


def executed(statement: sa.Executable, connection: sa.Connection) -> None:
    connection.execute(statement)


def all_notes(connection: sa.Connection) -> list[str]:
    return list(connection.execute(sa.select(notes.c.id).order_by(notes.c.id)).scalars())


class Gate:
    """Work that stands still until it is let go; every thread of the database stands still with enough of it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()

    def work(self, connection: sa.Connection) -> None:
        self.begun.set()
        assert self.opened.wait(SECONDS)

    async def hold(self, database: Database) -> list[asyncio.Task[None]]:
        held = [asyncio.create_task(database.run(self.work)) for _ in range(1 if database.is_sqlite else POOL_SIZE)]
        assert await asyncio.to_thread(self.begun.wait, SECONDS)
        return held


async def queued(database: Database, *works: Callable[[sa.Connection], None]) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(database.run(work)) for work in works]
    await asyncio.sleep(0)  # each has given its work to the threads
    return tasks


async def test_a_transaction_returns_what_its_work_returns_and_is_seen_by_the_next(tables: Database) -> None:
    added = sa.insert(notes).values(id="a").returning(notes.c.id)

    assert await tables.run(lambda connection: connection.execute(added).scalar_one()) == "a"
    assert await tables.run(all_notes) == ["a"]


async def test_what_the_work_raises_reaches_the_caller_and_undoes_the_transaction(tables: Database) -> None:
    def work(connection: sa.Connection) -> None:
        adding("a")(connection)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await tables.run(work)

    assert await tables.run(all_notes) == []


async def test_a_violated_constraint_reaches_the_caller_without_the_values(tables: Database) -> None:
    await tables.run(adding("a"))

    with pytest.raises(sa.exc.IntegrityError) as caught:
        await tables.run(adding("a", b"a secret"))

    assert "secret" not in str(caught.value)


async def test_a_nested_transaction_fails_alone(tables: Database) -> None:
    def work(connection: sa.Connection) -> None:
        adding("a")(connection)
        with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
            adding("a")(connection)
        adding("b")(connection)

    await tables.run(work)

    assert await tables.run(all_notes) == ["a", "b"]


async def test_an_insert_of_the_databases_own_kind_ignores_conflicts(tables: Database) -> None:
    statement = tables.insert(notes).values(id="a").on_conflict_do_nothing()

    await tables.run(lambda connection: connection.execute(statement))
    await tables.run(lambda connection: connection.execute(statement))

    assert await tables.run(all_notes) == ["a"]


async def test_a_mistake_in_a_statement_is_not_called_unavailability(tables: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        await tables.run(lambda connection: connection.execute(sa.text("SELECT x FROM nowhere")))


async def test_transactions_that_run_at_once_fail_one_by_one(tables: Database) -> None:
    def failing(connection: sa.Connection) -> None:
        adding("failed")(connection)
        raise LookupError

    gate = Gate()
    held = await gate.hold(tables)
    tasks = await queued(tables, adding("a"), failing, adding("b"), failing, adding("c"))
    gate.opened.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*held)

    assert [type(outcome) for outcome in outcomes] == [type(None), LookupError, type(None), LookupError, type(None)]
    assert await tables.run(all_notes) == ["a", "b", "c"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_what_ends_a_program_ends_the_caller_and_not_the_thread(
    tables: Database, error: type[BaseException]
) -> None:
    def work(connection: sa.Connection) -> None:
        adding("a")(connection)
        raise error

    with pytest.raises(error):
        await tables.run(work)

    assert await tables.run(all_notes) == []


async def test_an_exhausted_iterator_in_the_work_does_not_hang_its_caller(tables: Database) -> None:
    def work(connection: sa.Connection) -> str:
        return next(iter(all_notes(connection)))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(tables.run(work), SECONDS)


async def test_a_cancelled_caller_waits_for_a_transaction_that_has_begun(tables: Database) -> None:
    gate = Gate()

    def work(connection: sa.Connection) -> None:
        adding("a")(connection)
        gate.work(connection)

    task = asyncio.create_task(tables.run(work))
    assert await asyncio.to_thread(gate.begun.wait, SECONDS)
    task.cancel()
    await asyncio.sleep(0)
    was_done = task.done()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not was_done
    assert await tables.run(all_notes) == ["a"]


async def test_a_caller_cancelled_twice_does_not_wait(tables: Database) -> None:
    gate = Gate()
    (task, *others) = await gate.hold(tables)

    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    gate.opened.set()
    await asyncio.gather(*others)
    assert await tables.run(all_notes) == []


async def test_a_transaction_whose_caller_was_cancelled_before_it_began_does_not_happen(tables: Database) -> None:
    gate = Gate()
    held = await gate.hold(tables)
    (unwanted, wanted) = await queued(tables, adding("unwanted"), adding("wanted"))

    unwanted.cancel()
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(wanted, *held)

    with pytest.raises(asyncio.CancelledError):
        await unwanted
    assert await tables.run(all_notes) == ["wanted"]


async def test_a_loop_that_closes_before_its_answer_disturbs_nobody(tables: Database) -> None:
    gate = Gate()

    def leave() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(tables.run(gate.work))
        loop.run_until_complete(asyncio.sleep(0))
        assert gate.begun.wait(SECONDS)
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what the test is about

    await asyncio.to_thread(leave)
    gate.opened.set()

    assert await asyncio.wait_for(tables.run(all_notes), SECONDS) == []


async def test_several_event_loops_may_use_one_database(tables: Database) -> None:
    async def add(loop: int) -> None:
        await asyncio.gather(*(tables.run(adding(f"{loop}-{number}")) for number in range(20)))

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, add(loop)) for loop in range(4)))

    assert len(await tables.run(all_notes)) == 80


async def test_closing_lets_transactions_end_that_were_asked_for(tables: Database) -> None:
    gate = Gate()
    held = await gate.hold(tables)
    tasks = await queued(tables, *(adding(str(number)) for number in range(100)))

    closing = asyncio.create_task(tables.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await tables.run(all_notes)
    gate.opened.set()
    await asyncio.wait_for(closing, SECONDS)
    await asyncio.gather(*held, *tasks)

    tables.open()
    assert len(await tables.run(all_notes)) == 100


async def test_a_closed_database_is_unavailable_until_it_is_opened_again(tables: Database) -> None:
    await tables.close()
    await tables.close()

    with pytest.raises(StoreUnavailable):
        await tables.run(all_notes)
    with pytest.raises(StoreUnavailable):
        _ = tables.engine
    tables.open()
    tables.open()
    assert await tables.run(all_notes) == []


async def test_a_call_that_meets_the_end_of_closing_is_refused_and_not_forgotten(tables: Database) -> None:
    # As another thread's event loop would find it: the thread is stopping, its owner has not noticed yet.
    worker = tables._worker
    assert worker is not None
    await asyncio.to_thread(worker.stop)

    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(tables.run(all_notes), SECONDS)


def test_a_sqlite_file_is_set_up_for_crashes_and_for_forgetting(tmp_path: Path) -> None:
    database = Database(sqlite_url(str(tmp_path / "host.db")))
    database.open()

    async def settings() -> dict[str, object]:
        names = (
            "auto_vacuum",
            "journal_mode",
            "synchronous",
            "secure_delete",
            "temp_store",
            "foreign_keys",
            "busy_timeout",
        )
        return await database.run(
            lambda connection: {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names}
        )

    found = asyncio.run(settings())
    database.close_now()

    assert found == {
        "auto_vacuum": 2,
        "journal_mode": "wal",
        "synchronous": 1,
        "secure_delete": 1,
        "temp_store": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["host.db"]


@pytest.mark.parametrize("name", ["text.db", "missing/host.db", "."])
def test_a_file_that_is_no_database_is_refused_when_it_is_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.db").write_text("no database " * 100)
    database = Database(sqlite_url(str(tmp_path / name)))

    with pytest.raises(ConfigurationError, match="SQLite"):
        database.open()

    with pytest.raises(StoreUnavailable):
        _ = database.engine


async def test_sqlite_transactions_that_wait_share_a_commit(sqlite_tables: Database) -> None:
    statements: list[str] = []
    await sqlite_tables.run(
        lambda connection: connection.connection.driver_connection.set_trace_callback(statements.append)  # type: ignore[union-attr]
    )
    gate = Gate()
    held = await gate.hold(sqlite_tables)
    tasks = await queued(sqlite_tables, *(adding(str(number)) for number in range(10)))

    gate.opened.set()
    await asyncio.gather(*held, *tasks)

    assert statements.count("COMMIT") == 3  # of the trace itself, of the one that was held, and of the ten


async def test_a_commit_that_fails_fails_every_transaction_in_it(sqlite_tables: Database) -> None:
    gate = Gate()
    held = await gate.hold(sqlite_tables)
    # The reference to a missing note is noticed by COMMIT, not before.
    tasks = await queued(
        sqlite_tables,
        adding("a"),
        partial(executed, sa.insert(links).values(note="missing")),
    )
    gate.opened.set()
    await asyncio.gather(*held)

    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, StoreUnavailable]
    assert await sqlite_tables.run(all_notes) == []
    await sqlite_tables.run(adding("b"))


async def test_a_full_disk_makes_the_file_unavailable_and_answers_honestly(sqlite_tables: Database) -> None:
    await sqlite_tables.run(
        lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 40").scalar_one(),
    )
    gate = Gate()
    held = await gate.hold(sqlite_tables)
    tasks = await queued(sqlite_tables, adding("small"), adding("large", bytes(1_000_000)), adding("last"))
    gate.opened.set()
    await asyncio.gather(*held)

    small, large, last = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(large, StoreUnavailable)
    written = [name for name, outcome in (("last", last), ("small", small)) if outcome is None]
    assert await sqlite_tables.run(all_notes) == written


async def test_a_file_that_another_program_locks_is_unavailable(
    tmp_path: Path, sqlite_tables: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sqlite_tables.close()
    monkeypatch.setattr(database_module, "_BUSY_SECONDS", 0.05)
    sqlite_tables.open()
    other = sqlite3.connect(tmp_path / "host.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable):
        await sqlite_tables.run(all_notes)

    other.execute("ROLLBACK")
    other.close()
    assert await sqlite_tables.run(all_notes) == []


def marked(number: int, chance: random.Random) -> bytes:
    return b"<secret-%06d>" % number * chance.choice([1, 20, 150, 600])


def remains(directory: Path) -> set[bytes]:
    """Return the secrets that any file holds."""
    return {secret for path in directory.iterdir() for secret in re.findall(rb"<secret-\d{6}>", path.read_bytes())}


@pytest.mark.behaviour("D5")
@pytest.mark.parametrize("seed", range(5))
async def test_erased_rows_are_in_no_file_once_it_is_closed(sqlite_tables: Database, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    names = [f"{chance.random()}" for _ in range(400)]  # in no order: pages are split and merged
    bodies: dict[str, bytes] = {}
    for number, name in enumerate(names):
        bodies[name] = marked(number, chance)
        await sqlite_tables.run(adding(name, bodies[name]))
        if number % 3 == 0:
            changed = chance.choice(list(bodies))
            bodies[changed] = marked(1000 + number, chance)
            await sqlite_tables.run(
                partial(executed, sa.update(notes).where(notes.c.id == changed).values(body=bodies[changed]))
            )
    before = remains(tmp_path)

    while bodies:
        gone = chance.sample(list(bodies), min(len(bodies), chance.choice([1, 10, 100])))
        for name in gone:
            del bodies[name]
        await sqlite_tables.run(partial(executed, sa.delete(notes).where(notes.c.id.in_(gone))), erases=True)
        await sqlite_tables.close()
        sqlite_tables.open()

        assert remains(tmp_path) == {body[:15] for body in bodies.values()}

    assert len(before) >= len(names)


@pytest.mark.behaviour("D5")
async def test_erased_rows_are_in_no_file_of_an_open_database(sqlite_tables: Database, tmp_path: Path) -> None:
    await sqlite_tables.run(adding("short", b"<secret-000001>"))
    await sqlite_tables.run(adding("long", b"<secret-000002>" * 10_000))
    await sqlite_tables.run(adding("kept", b"<secret-000003>"))

    await sqlite_tables.run(partial(executed, sa.delete(notes).where(notes.c.id != "kept")), erases=True)

    assert remains(tmp_path) == {b"<secret-000003>"}


async def test_a_file_is_vacuumed_when_rows_were_erased_and_nobody_uses_it(
    sqlite_tables: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    vacuumed = threading.Event()

    def trace(statement: str) -> None:
        if statement == "VACUUM":
            vacuumed.set()

    monkeypatch.setattr(database_module, "_IDLE_SECONDS", 0.001)
    await sqlite_tables.run(adding("a", b"text"))
    await sqlite_tables.run(partial(traced, trace=trace))

    await sqlite_tables.run(partial(executed, sa.delete(notes)), erases=True)

    assert await asyncio.to_thread(vacuumed.wait, SECONDS)
    assert await sqlite_tables.run(all_notes) == []


async def test_a_file_is_not_vacuumed_when_nothing_was_erased(sqlite_tables: Database) -> None:
    statements: list[str] = []
    await sqlite_tables.run(partial(traced, trace=statements.append))

    await sqlite_tables.run(partial(executed, sa.delete(notes)), erases=True)
    await sqlite_tables.close()

    assert any("DELETE" in statement for statement in statements)
    assert "VACUUM" not in statements


def traced(connection: sa.Connection, trace: Callable[[str], object]) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_trace_callback(trace)


async def test_a_large_file_is_not_vacuumed(
    sqlite_tables: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sqlite_tables.run(adding("a", bytes(1_000_000)))
    monkeypatch.setattr(database_module, "_MOST_VACUUMED", 900_000)

    await sqlite_tables.run(partial(executed, sa.delete(notes)), erases=True)
    await sqlite_tables.close()

    assert (tmp_path / "host.db").stat().st_size > 900_000


async def test_erased_rows_stay_while_another_process_reads_and_go_once_it_has_read(
    sqlite_tables: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await sqlite_tables.run(adding("a", b"<secret-000001>" * 100))
    reader = sqlite3.connect(tmp_path / "host.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM notes").fetchall()

    with caplog.at_level(logging.WARNING):
        await sqlite_tables.run(lambda connection: connection.execute(sa.delete(notes)), erases=True)
        await sqlite_tables.run(adding("b"))
    while_read = remains(tmp_path)
    reader.execute("ROLLBACK")
    await sqlite_tables.run(all_notes)
    reader.close()

    assert while_read
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert remains(tmp_path) == set()


async def test_a_lost_postgres_connection_is_replaced_without_the_caller_noticing(
    postgres: PostgresServer, postgres_url: str, postgres_tables: Database
) -> None:
    await asyncio.gather(*(postgres_tables.run(all_notes) for _ in range(POOL_SIZE)))

    cut = await asyncio.to_thread(postgres.disconnect, postgres_url)

    assert cut > 0
    await asyncio.gather(*(postgres_tables.run(adding(str(number))) for number in range(2 * POOL_SIZE)))
    assert len(await postgres_tables.run(all_notes)) == 2 * POOL_SIZE


async def test_a_postgres_connection_lost_in_the_middle_repeats_the_work(
    postgres: PostgresServer, postgres_url: str, postgres_tables: Database
) -> None:
    attempts: list[int] = []

    def work(connection: sa.Connection) -> None:
        attempts.append(len(attempts))
        adding(f"before-{len(attempts)}")(connection)
        if len(attempts) == 1:
            postgres.disconnect(postgres_url)
        adding(f"after-{len(attempts)}")(connection)

    await postgres_tables.run(work)

    assert await postgres_tables.run(all_notes) == ["after-2", "before-2"]


async def test_a_postgres_connection_lost_in_the_commit_is_told_and_not_repeated(
    postgres: PostgresServer, postgres_url: str, postgres_tables: Database
) -> None:
    def work(connection: sa.Connection) -> None:
        adding("a")(connection)
        postgres.disconnect(postgres_url)

    with pytest.raises(StoreUnavailable):
        await postgres_tables.run(work)

    assert await postgres_tables.run(all_notes) == []


async def test_a_postgres_connection_that_is_lost_every_time_is_unavailability(
    postgres: PostgresServer, postgres_url: str, postgres_tables: Database
) -> None:
    attempts: list[int] = []

    def work(connection: sa.Connection) -> None:
        attempts.append(1)
        adding("a")(connection)
        postgres.disconnect(postgres_url)
        all_notes(connection)

    with pytest.raises(StoreUnavailable):
        await postgres_tables.run(work)

    assert len(attempts) == 3


async def test_a_postgres_transaction_that_gave_way_to_another_is_repeated(
    postgres_url: str, postgres_tables: Database
) -> None:
    await postgres_tables.run(adding("a", b"0"))
    attempts: list[int] = []

    def work(connection: sa.Connection) -> None:
        attempts.append(1)
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        body = connection.execute(sa.select(notes.c.body)).scalar_one()
        if len(attempts) == 1:
            with psycopg.connect(postgres_url) as other:
                other.execute("UPDATE notes SET body = 'other'")
        connection.execute(sa.update(notes).values(body=body + b" and mine"))

    await postgres_tables.run(work)

    assert await postgres_tables.run(lambda connection: connection.execute(sa.select(notes.c.body)).scalar_one()) == (
        b"other and mine"
    )


async def test_an_unreachable_postgres_is_unavailability_that_keeps_the_password() -> None:
    database = Database(postgres_url("postgresql://someone:pass-word@127.0.0.1:1/host"))
    database.open()

    with pytest.raises(StoreUnavailable) as caught:
        await database.run(all_notes)
    await database.close()

    assert "pass-word" not in "".join(traceback.format_exception(caught.value))


async def test_a_postgres_statement_that_hangs_is_given_up(postgres_url: str, postgres_tables: Database) -> None:
    database = Database(database_module.postgres_url(f"{postgres_url}&options=-c%20statement_timeout%3D50"))
    database.open()

    with pytest.raises(StoreUnavailable):
        await database.run(lambda connection: connection.execute(sa.text("SELECT pg_sleep(60)")))
    await asyncio.wait_for(database.close(), SECONDS)

    ordinary = await postgres_tables.run(
        lambda connection: connection.execute(sa.text("SHOW statement_timeout")).scalar()
    )
    assert ordinary == "30s"


async def test_a_process_that_stands_still_in_a_transaction_gives_way_and_does_it_again_later(
    postgres_url: str, postgres_tables: Database
) -> None:
    await postgres_tables.run(adding("a", b"0"))
    frozen = Database(
        database_module.postgres_url(f"{postgres_url}&options=-c%20idle_in_transaction_session_timeout%3D50")
    )
    frozen.open()
    began, ended = threading.Event(), threading.Event()

    def append(connection: sa.Connection, text: bytes) -> None:
        body = connection.execute(sa.select(notes.c.body).with_for_update()).scalar_one()
        connection.execute(sa.update(notes).values(body=body + text))

    def stand_still(connection: sa.Connection) -> None:
        append(connection, b" frozen")
        began.set()
        ended.wait(SECONDS)
        append(connection, b"!")

    standing = asyncio.create_task(frozen.run(stand_still))
    await asyncio.to_thread(began.wait, SECONDS)
    await asyncio.wait_for(postgres_tables.run(lambda connection: append(connection, b" other")), SECONDS)
    ended.set()
    await standing
    await frozen.close()

    body = await postgres_tables.run(lambda connection: connection.execute(sa.select(notes.c.body)).scalar_one())
    assert body == b"0 other frozen!"
    ordinary = await postgres_tables.run(
        lambda connection: connection.execute(sa.text("SHOW idle_in_transaction_session_timeout")).scalar()
    )
    assert ordinary == "10s"


async def test_a_schema_named_in_the_url_does_not_take_the_bounds_away(postgres_url: str) -> None:
    database = Database(database_module.postgres_url(f"{postgres_url}&options=-csearch_path%3Dpg_catalog"))
    database.open()
    names = ("search_path", "statement_timeout", "idle_in_transaction_session_timeout")

    def shown(connection: sa.Connection) -> list[object]:
        return [connection.execute(sa.text(f"SHOW {name}")).scalar() for name in names]

    pooled = await database.run(shown)
    async with await psycopg.AsyncConnection.connect(**database.arguments()) as listening:
        rows = [await (await listening.execute(f"SHOW {name}".encode())).fetchone() for name in names]
    await database.close()

    assert pooled == ["pg_catalog", "30s", "10s"]
    assert rows == [(value,) for value in pooled]


@pytest.mark.parametrize(
    "url",
    [
        "no url of pass-word",
        "mysql://me:pass-word@host/database",
        "sqlite:///host.db?password=pass-word",
        "postgresql://me:pass-word@host:pass-word/database",
    ],
)
def test_a_url_of_something_else_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        postgres_url(url)

    assert "pass-word" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_url_of_postgres_gets_the_driver_of_this_package(scheme: str) -> None:
    url = postgres_url(f"{scheme}://me@host/database?sslmode=require")

    assert url.render_as_string() == "postgresql+psycopg://me@host/database?sslmode=require"
