"""sql/queue/part.py: Procrastinate's schema, made and changed by our migrations."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgres import PostgresServer
from procrastinate.schema import SchemaManager

from agent_framework_hosting.errors import ConfigurationError
from agent_framework_hosting.sql import schema
from agent_framework_hosting.sql.database import Database, postgres_url
from agent_framework_hosting.sql.queue import part
from agent_framework_hosting.sql.queue.part import SCHEMA

OBJECTS = """
SELECT 'function' AS kind, proname || pg_get_function_identity_arguments(oid) FROM pg_proc
 WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger', tgname FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'index', indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'column', table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns
 WHERE table_schema = 'public'
UNION ALL SELECT 'label', enumlabel FROM pg_enum
"""


@pytest.fixture
def empty(postgres: PostgresServer) -> Generator[Database, None, None]:
    """An open database without any table."""
    url = postgres.create(migrated=False)
    database = Database(postgres_url(url))
    database.open()
    yield database
    database.close_now()
    postgres.drop(url)


class Package:
    """The changes that a version of Procrastinate brings."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        for file in part._changes():
            (directory / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        monkeypatch.setattr(SchemaManager, "get_migrations_path", lambda: str(directory))

    def bring(self, name: str, statements: str) -> None:
        (self._directory / name).write_text(statements, encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    return Package(tmp_path, monkeypatch)


def objects(database: Database) -> set[tuple[str, str]]:
    with database.engine.connect() as connection:
        return {(kind, name) for kind, name in connection.exec_driver_sql(OBJECTS)}


def test_the_schema_is_that_of_the_installed_package_and_an_index(empty: Database) -> None:
    with empty.engine.begin() as connection:
        connection.exec_driver_sql(SchemaManager.get_schema(), execution_options={"no_parameters": True})
    theirs = objects(empty)
    with empty.engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    schema.upgrade(empty.engine, [SCHEMA])

    schema.check(empty.engine, [SCHEMA])
    ours = {(kind, name) for kind, name in objects(empty) if "alembic_version_queue" not in name}
    assert theirs <= ours
    assert (
        [kind for kind, name in ours - theirs if "afhost_jobs_run" in name]
        == ["index"]
        == [kind for kind, _ in ours - theirs]
    )


def test_what_a_newer_package_changes_is_applied_once(empty: Database, package: Package) -> None:
    schema.upgrade(empty.engine, [SCHEMA])
    package.bring("99.00.00_01_pre_more.sql", "CREATE TABLE procrastinate_more (share text DEFAULT '100%'); SELECT 1;")
    package.bring("99.00.00_50_post_more.sql", "ALTER TABLE procrastinate_more ADD note text;")

    with pytest.raises(ConfigurationError, match=r"newer than the database's schema of 'queue'.*99.00.00_50_post_more"):
        schema.check(empty.engine, [SCHEMA])
    for _ in range(2):  # as a later migration does, in a database made before and in one made after the change
        with empty.engine.begin() as connection:
            part.bring_up_to_date(connection)

    schema.check(empty.engine, [SCHEMA])
    assert ("column", "procrastinate_more.note text") in objects(empty)


def test_an_older_package_than_the_database_has_is_refused(empty: Database, package: Package) -> None:
    package.bring("99.00.00_01_pre_more.sql", "SELECT 1;")
    schema.upgrade(empty.engine, [SCHEMA])
    (Path(SchemaManager.get_migrations_path()) / "99.00.00_01_pre_more.sql").unlink()

    with pytest.raises(ConfigurationError, match="older than the database's schema of 'queue'"):
        schema.check(empty.engine, [SCHEMA])


def test_a_queue_that_is_somebody_elses_is_left_alone(empty: Database) -> None:
    with empty.engine.begin() as connection:
        connection.exec_driver_sql(SchemaManager.get_schema(), execution_options={"no_parameters": True})
    before = objects(empty)

    with pytest.raises(ConfigurationError, match="that are not this package's"):
        schema.upgrade(empty.engine, [SCHEMA])

    assert objects(empty) == before


def test_another_schema_of_the_same_database_has_a_queue_of_its_own(empty: Database) -> None:
    with empty.engine.begin() as connection:
        connection.exec_driver_sql(SchemaManager.get_schema(), execution_options={"no_parameters": True})
        connection.exec_driver_sql("CREATE SCHEMA afhost")
    beside = Database(empty.url.update_query_dict({"options": "-csearch_path=afhost"}))
    beside.open()

    try:
        schema.upgrade(beside.engine, [SCHEMA])
        schema.check(beside.engine, [SCHEMA])
    finally:
        beside.close_now()

    with empty.engine.connect() as connection:
        assert sa.inspect(connection).has_table("procrastinate_jobs", schema="afhost")
