"""The schema: migrations make exactly the tables that the packages declare, once, wholly or not at all."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from postgres import PostgresServer

from agent_framework_hosting.errors import ConfigurationError
from agent_framework_hosting.schema_part import SCHEMA
from agent_framework_hosting.sql import schema
from agent_framework_hosting.sql.database import Database, postgres_url, sqlite_url
from agent_framework_hosting.sql.schema import SchemaPart

PARTS = schema.installed_parts()

MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {down_revision!r}
branch_labels = None
depends_on = None


def upgrade():
    op.create_table("other_{revision}", sa.Column("id", sa.Text(), primary_key=True))
    {more}
"""

UPGRADE = """
import sys
import sqlalchemy as sa
from agent_framework_hosting.sql import schema
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.schema_part import SCHEMA

database = Database(sa.make_url(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
database.open()
schema.upgrade(database.engine, [SCHEMA])
schema.check(database.engine, [SCHEMA])
database.close_now()
"""


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[sa.URL, None, None]:
    if request.param == "sqlite":
        yield sqlite_url(str(tmp_path / "100% new.db"))
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.create(migrated=False)
    yield postgres_url(url)
    server.drop(url)


@pytest.fixture
def empty(empty_url: sa.URL) -> Generator[Database, None, None]:
    """An open database without any table."""
    database = Database(empty_url)
    database.open()
    yield database
    database.close_now()


class Chain:
    """A third package's part, whose migrations the test writes."""

    def __init__(self, directory: Path) -> None:
        self.versions = directory / "versions 100%"
        self.versions.mkdir()
        self.revisions: list[str] = []
        self.part = SchemaPart("other", sa.MetaData(), self.versions)

    def add(self, revision: str, more: str = "pass") -> None:
        down_revision = self.revisions[-1] if self.revisions else None
        script = MIGRATION.format(revision=revision, down_revision=down_revision, more=more)
        (self.versions / f"{revision}_.py").write_text(script)
        self.revisions.append(revision)

    def remove(self) -> None:
        (self.versions / f"{self.revisions.pop()}_.py").unlink()


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def tables(database: Database) -> set[str]:
    return set(sa.inspect(database.engine).get_table_names())


def test_the_parts_are_those_of_the_installed_packages() -> None:
    assert [part.name for part in PARTS] == ["hosting", "queue", "responses"]
    assert SCHEMA in PARTS


def test_an_empty_database_has_every_table_once_it_is_upgraded(empty: Database) -> None:
    schema.upgrade(empty.engine, PARTS)

    schema.check(empty.engine, PARTS)
    parts = [part for part in PARTS if empty.engine.dialect.name in part.dialects]
    ours = {name for name in tables(empty) if not name.startswith("procrastinate_")}
    assert ours == {name for part in parts for name in (*part.metadata.tables, part.version_table)}


@pytest.mark.parametrize("part", PARTS, ids=[part.name for part in PARTS])
def test_the_migrations_make_exactly_the_declared_tables(empty: Database, part: SchemaPart) -> None:
    schema.upgrade(empty.engine, PARTS)

    with empty.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": part.version_table,
                "include_name": lambda name, kind, _parents: kind != "table" or name in part.metadata.tables,
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, part.metadata) == []


def test_an_upgraded_database_is_left_as_it_is(empty: Database) -> None:
    schema.upgrade(empty.engine, PARTS)
    with empty.engine.begin() as connection:
        connection.execute(sa.insert(SCHEMA.metadata.tables["afhost_processes"]).values(owner="me", seen_at=1.0))

    schema.upgrade(empty.engine, PARTS)

    with empty.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT owner FROM afhost_processes")) == "me"


def test_a_database_without_a_schema_is_refused(empty: Database) -> None:
    with pytest.raises(ConfigurationError, match="'hosting' is at nothing, older than 0001: run `afhost db upgrade`"):
        schema.check(empty.engine, PARTS)

    assert tables(empty) == set()


def test_an_older_schema_is_refused_until_it_is_upgraded(empty: Database, chain: Chain) -> None:
    chain.add("1")
    schema.upgrade(empty.engine, [chain.part])
    chain.add("2")

    with pytest.raises(ConfigurationError, match="'other' is at 1, older than 2: run `afhost db upgrade`"):
        schema.check(empty.engine, [chain.part])

    schema.upgrade(empty.engine, [chain.part])
    schema.check(empty.engine, [chain.part])
    assert tables(empty) == {"other_1", "other_2", "alembic_version_other"}


def test_a_newer_schema_is_refused_and_not_touched(empty: Database, chain: Chain) -> None:
    chain.add("1")
    chain.add("2")
    schema.upgrade(empty.engine, [chain.part])
    chain.remove()

    for use in (schema.check, schema.upgrade):
        with pytest.raises(ConfigurationError, match=r"at 2, which this version does not know.*Install that version"):
            use(empty.engine, [chain.part])
    with empty.engine.connect() as connection:
        assert schema.revision(connection, chain.part) == "2"


def test_a_failed_migration_leaves_nothing_behind(empty: Database, chain: Chain) -> None:
    chain.add("1")
    chain.add("2", more='raise LookupError("broken")')

    with pytest.raises(LookupError, match="broken"):
        schema.upgrade(empty.engine, [*PARTS, chain.part])

    assert tables(empty) == set()
    schema.upgrade(empty.engine, PARTS)


def test_a_database_of_another_kind_knows_nothing_of_a_part(empty: Database, chain: Chain) -> None:
    chain.add("1")
    elsewhere = replace(chain.part, dialects=frozenset({"another"}))

    schema.upgrade(empty.engine, [elsewhere])
    schema.check(empty.engine, [elsewhere])

    assert tables(empty) == set()


def test_a_part_may_object_to_a_database_of_the_right_revision(empty: Database, chain: Chain) -> None:
    def object_to(_connection: sa.Connection) -> None:
        raise ConfigurationError("not this one")

    chain.add("1")
    schema.upgrade(empty.engine, [chain.part])

    with pytest.raises(ConfigurationError, match="not this one"):
        schema.check(empty.engine, [replace(chain.part, verify=object_to)])


def test_parts_are_upgraded_independently(empty: Database, chain: Chain) -> None:
    chain.add("1")
    schema.upgrade(empty.engine, [chain.part])

    schema.upgrade(empty.engine, PARTS)

    schema.check(empty.engine, [*PARTS, chain.part])


def test_a_new_migration_of_one_part_does_not_see_the_tables_of_others(empty: Database, chain: Chain) -> None:
    schema.upgrade(empty.engine, PARTS)
    sa.Table("other_new", chain.part.metadata, sa.Column("id", sa.Text, primary_key=True))

    with empty.engine.connect() as connection:
        # As a developer of that package does: `alembic revision --autogenerate`.
        command.revision(
            schema._config(chain.part, connection), autogenerate=True, rev_id="1", version_path=str(chain.versions)
        )

    (script,) = chain.versions.glob("*.py")
    text = script.read_text()
    assert '"other_new"' in text or "'other_new'" in text
    assert "afhost" not in text
    assert "drop_table" not in text


def test_processes_that_upgrade_at_once_all_succeed(empty: Database) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, empty.url.render_as_string(hide_password=False)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in processes]

    assert said == [("", "")] * 4
    assert [process.returncode for process in processes] == [0] * 4


def test_alembic_says_nothing_and_leaves_logging_alone(empty: Database, capfd: pytest.CaptureFixture[str]) -> None:
    before = (logging.root.level, list(logging.root.handlers), logging.getLogger("alembic").level)

    schema.upgrade(empty.engine, PARTS)
    schema.check(empty.engine, PARTS)

    assert capfd.readouterr() == ("", "")
    assert (logging.root.level, list(logging.root.handlers), logging.getLogger("alembic").level) == before
    assert not logging.getLogger("alembic").disabled
