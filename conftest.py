"""Ties tests to the behaviours they prove, and runs durable ones on every kind of state.

`@pytest.mark.behaviour("A1")` names a behaviour; `tests/test_manifest.py` checks both directions.

A test that asks for `database`, `state` or `durable_state` runs once per kind. On a machine with two processors a fresh
database costs: SQLite 30 ms; PostgreSQL 45 to 90 ms, dropping it included, and 1.5 s for the server, once per session
and only if a test asks for it.
"""

from __future__ import annotations

import tomllib
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from states import State, everything_in

if TYPE_CHECKING:  # at run time only for tests that ask: half a second
    import sqlalchemy as sa
    from commands import Commands
    from postgres import PostgresServer

    from agent_framework_hosting.checkpoints import Checkpoints
    from agent_framework_hosting.sql.database import Database

ROOT = Path(__file__).parent
MANIFEST: dict[str, dict[str, object]] = tomllib.loads((ROOT / "tests" / "behaviours.toml").read_text(encoding="utf-8"))
TESTS_OF_BEHAVIOUR = pytest.StashKey[dict[str, list[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "behaviour(*ids): the behaviours of tests/behaviours.toml that the test proves")
    config.stash[TESTS_OF_BEHAVIOUR] = {}


def pytest_itemcollected(item: pytest.Item) -> None:
    proven = item.config.stash[TESTS_OF_BEHAVIOUR]
    for marker in item.iter_markers("behaviour"):
        for behaviour in marker.args:
            if behaviour not in MANIFEST:
                raise pytest.UsageError(f"{item.nodeid} names an unknown behaviour {behaviour!r}.")
            proven.setdefault(behaviour, []).append(item.nodeid)


@pytest.fixture(scope="session")
def tests_of_behaviour(pytestconfig: pytest.Config) -> dict[str, list[str]]:
    """Behaviour id → the tests collected for it."""
    return pytestconfig.stash[TESTS_OF_BEHAVIOUR]


@pytest.fixture(scope="session")
def postgres() -> Generator[PostgresServer, None, None]:
    """A real server, started for the first test that asks for it."""
    from postgres import postgres_server  # noqa: PLC0415  see above

    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Generator[str, None, None]:
    """The URL of a fresh, migrated database; subprocesses may use it, too."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture
def poor_url(postgres: PostgresServer, postgres_url: str) -> Generator[str, None, None]:
    """The URL of the same database for a role without rights, whose password is SECRET."""
    with postgres.reader(postgres_url) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> sa.URL:
    """The URL, for `Database`, of a fresh, migrated database of each kind."""
    return _sql_url(request.param, request, tmp_path)


@pytest.fixture(params=["memory", "directory", "sqlite", "postgres"])
async def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Checkpoints, None]:
    """Where checkpoints of workflows lie, of each kind."""
    from agent_framework_hosting.checkpoints import FileCheckpoints, MemoryCheckpoints  # noqa: PLC0415  see above

    if request.param == "memory":
        yield MemoryCheckpoints()
    elif request.param == "directory":
        yield FileCheckpoints(tmp_path / "checkpoints")
    else:
        from agent_framework_hosting.sql.checkpoints import SqlCheckpoints  # noqa: PLC0415
        from agent_framework_hosting.sql.database import Database  # noqa: PLC0415

        opened = Database(_sql_url(request.param, request, tmp_path))
        opened.open()
        yield SqlCheckpoints(opened)
        await opened.close()


@pytest.fixture
async def database(sql_url: sa.URL) -> AsyncGenerator[Database, None]:
    """An open, migrated database of each kind. `Database(sql_url)` is a second process's view of the same."""
    from agent_framework_hosting.sql.database import Database  # noqa: PLC0415  see above

    opened = Database(sql_url)
    opened.open()
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> State:
    """Where a host keeps its state, of each kind. SQLite's directory is empty: the first host makes its database."""
    return _state(request, tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def durable_state(request: pytest.FixtureRequest, tmp_path: Path) -> State:
    """Where a host keeps its state, of each kind that survives a restart."""
    return _state(request, tmp_path)


@pytest.fixture(scope="module")
def commands() -> Generator[Commands, None, None]:
    """Where processes `afhost …` come from."""
    from commands import Commands  # noqa: PLC0415  see above

    made = Commands()
    yield made
    made.close()


@pytest.fixture
def on_every_store(state: State) -> Generator[State, None, None]:
    """Repeat a test for each kind of state; its hosts take `**states.here()`."""
    with everything_in(state):
        yield state


def _state(request: pytest.FixtureRequest, directory: Path) -> State:
    match request.param:
        case "memory":
            return State("memory")
        case "sqlite":
            return State("sqlite", {"state_dir": directory / "state"})
        case _:
            return State("postgres", {"database_url": request.getfixturevalue("postgres_url")})


def _sql_url(kind: str, request: pytest.FixtureRequest, directory: Path) -> sa.URL:
    from agent_framework_hosting.sql import database, schema  # noqa: PLC0415  see above

    if kind == "postgres":
        return database.postgres_url(request.getfixturevalue("postgres_url"))
    made = database.Database(database.sqlite_url(str(directory / "host.db")))
    made.open()
    schema.upgrade(made.engine, schema.installed_parts())
    made.close_now()
    return made.url
