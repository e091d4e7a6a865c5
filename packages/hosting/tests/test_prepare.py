"""A database is upgraded or checked, and what is wrong with it is said without its password."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from agent_framework_hosting import ConfigurationError, StoreUnavailable
from agent_framework_hosting.schema_part import SCHEMA
from agent_framework_hosting.sql import prepare
from agent_framework_hosting.sql.database import Database, postgres_url, sqlite_url

PARTS = (SCHEMA,)


@pytest.fixture
def new_database() -> Iterator[Callable[[sa.URL], Database]]:
    opened: list[Database] = []

    def new(url: sa.URL) -> Database:
        database = Database(url)
        database.open()
        opened.append(database)
        return database

    yield new
    for database in opened:
        database.close_now()


def test_a_database_that_was_upgraded_passes_the_check(
    tmp_path: Path, new_database: Callable[[sa.URL], Database]
) -> None:
    database = new_database(sqlite_url(str(tmp_path / "host.db")))

    with pytest.raises(ConfigurationError, match="run `afhost db upgrade`"):
        prepare.check(database, PARTS)
    prepare.upgrade(database, PARTS)
    prepare.check(database, PARTS)


def test_a_migrated_database_of_each_kind_passes(sql_url: sa.URL, new_database: Callable[[sa.URL], Database]) -> None:
    database = new_database(sql_url)

    prepare.check(database, PARTS)
    prepare.upgrade(database, PARTS)


@pytest.mark.parametrize("do", [prepare.check, prepare.upgrade])
def test_a_server_that_does_not_answer_is_named_without_its_password(
    do: Callable[..., None], new_database: Callable[[sa.URL], Database]
) -> None:
    url = postgres_url("postgresql://user:SECRET@127.0.0.1:1/app?password=SECRET2")

    with pytest.raises(StoreUnavailable, match=r"'app' at 127\.0\.0\.1:1 cannot be reached") as raised:
        do(new_database(url), PARTS)

    assert "SECRET" not in str(raised.value)
    assert "user" not in str(raised.value)


def test_a_password_in_the_drivers_words_is_left_out() -> None:
    url = postgres_url("postgresql://user:SECRET@db/app")

    with pytest.raises(StoreUnavailable) as raised, prepare.clear_errors(url):
        raise sa.exc.OperationalError("SELECT 1", None, ValueError("no entry for SECRET.\nDETAIL"))

    assert str(raised.value) == "The database 'app' at db cannot be reached: no entry for ***."


def test_what_the_role_may_not_do_is_a_matter_of_configuration() -> None:
    url = postgres_url("postgresql:///app")

    with pytest.raises(ConfigurationError, match="'app' at the local server cannot be used: permission denied"):  # noqa: SIM117  one more level reads better
        with prepare.clear_errors(url):
            raise sa.exc.ProgrammingError("CREATE TABLE", None, ValueError("permission denied for schema public"))
