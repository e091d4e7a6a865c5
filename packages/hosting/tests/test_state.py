"""Where a host keeps its state: chosen from options, opened and closed, and what it refuses."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from agent_framework import AgentSession
from postgres import PostgresServer

from agent_framework_hosting import ConfigurationError, SessionStore, StoreUnavailable
from agent_framework_hosting.checkpoints import FileCheckpoints, MemoryCheckpoints
from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.retention import Pruner
from agent_framework_hosting.sql.checkpoints import SqlCheckpoints
from agent_framework_hosting.sql.database import POOL_SIZE, Database
from agent_framework_hosting.state import DATABASE_VARIABLE, HostState, choose_state
from agent_framework_hosting.stores.base import Retention, SessionKey
from agent_framework_hosting.stores.memory import MemorySessionStore
from agent_framework_hosting.stores.sql import SqlSessionStore

ADA = Partition("ada")
KEY = SessionKey("named:s")
SECONDS = 60.0


@asynccontextmanager
async def opened(state: HostState) -> AsyncGenerator[HostState, None]:
    try:
        await state.open()
        yield state
    finally:
        await state.close()


def choose(**options: Any) -> HostState:
    return choose_state(**{"environment": {}, **options})


async def put(store: SessionStore, session_id: str) -> None:
    await store.put(ADA, KEY, AgentSession(session_id=session_id))


# --- memory


async def test_nothing_configured_is_memory_that_opens_and_closes() -> None:
    async with opened(choose()) as state:
        assert state.kind == "memory"
        assert isinstance(state.session_store, MemorySessionStore)
        assert state.database is None
        assert state.presence is None
        assert state.checkpoints() is None


def test_every_process_has_an_owner_of_its_own() -> None:
    assert choose().owner.startswith("proc_")
    assert choose().owner != choose().owner


async def test_retention_bounds_the_sessions_in_memory_too() -> None:
    store = choose(retention=Retention(max_entries=1)).session_store
    await store.put(ADA, SessionKey("first"), AgentSession())
    await store.put(ADA, SessionKey("second"), AgentSession())

    assert await store.get(ADA, SessionKey("first")) is None
    assert await store.get(ADA, SessionKey("second")) is not None


@pytest.mark.parametrize("retention", [Retention(max_age=-1.0), Retention(max_entries=-1)])
def test_a_retention_of_less_than_nothing_is_refused(retention: Retention) -> None:
    with pytest.raises(ConfigurationError, match="must be 0 or more, or None"):
        choose(retention=retention)


def test_retention_bounds_the_checkpoints_in_memory_too() -> None:
    assert isinstance(choose(retention=Retention(max_entries=1)).checkpoints(), MemoryCheckpoints)


async def test_retention_without_limits_keeps_everything_in_memory() -> None:
    store = choose(retention=Retention(max_age=None)).session_store
    await put(store, "kept")

    assert await store.get(ADA, KEY) is not None


async def test_without_sessions_on_disk_the_state_is_memory_with_checkpoints_in_their_directory(tmp_path: Path) -> None:
    state = choose(state_dir={"checkpoints": tmp_path / "deep" / "checkpoints"})
    checkpoints = state.checkpoints()

    async with opened(state):
        assert state.kind == "memory"
        assert isinstance(checkpoints, FileCheckpoints)
        assert (tmp_path / "deep" / "checkpoints").stat().st_mode & 0o777 == 0o700


async def test_a_directory_of_checkpoints_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    state = choose(state_dir={"checkpoints": tmp_path / "file" / "checkpoints"})
    state.checkpoints()
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="checkpoints cannot be made"):
        await state.open()


# --- stores of the user's own


@pytest.mark.parametrize("directory", [None, "state"])
def test_a_session_store_of_ones_own_takes_the_place_of_the_hosts(directory: str | None, tmp_path: Path) -> None:
    own = MemorySessionStore()

    state = choose(session_store=own, state_dir=None if directory is None else tmp_path / directory)

    assert state.session_store is own


# --- SQLite


async def test_a_path_keeps_sessions_in_one_file_that_survives_a_restart(tmp_path: Path) -> None:
    async with opened(choose(state_dir=tmp_path / "state")) as first:
        assert first.kind == "sqlite"
        assert isinstance(first.session_store, SqlSessionStore)
        await put(first.session_store, "kept")

    async with opened(choose(state_dir=tmp_path / "state")) as second:
        session = await second.session_store.get(ADA, KEY)

    assert session is not None
    assert session.session_id == "kept"
    assert {path.name for path in (tmp_path / "state" / "sessions").iterdir()} <= {"host.db", "host.db.lock"}


async def test_each_part_of_the_state_may_lie_elsewhere(tmp_path: Path) -> None:
    state = choose(state_dir={"sessions": str(tmp_path / "a")})

    async with opened(state):
        assert (tmp_path / "a" / "host.db").exists()
        assert isinstance(state.checkpoints(), SqlCheckpoints)


async def test_a_second_host_on_the_same_file_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    first, second = choose(state_dir=tmp_path), choose(state_dir=tmp_path)

    async with opened(first):
        with pytest.raises(ConfigurationError, match=r"host\.db is in use by another process.*PostgreSQL"):
            await second.open()
        await second.close()
        await put(first.session_store, "still works")
    async with opened(second):
        session = await second.session_store.get(ADA, KEY)

    assert session is not None


async def test_a_state_may_be_opened_again(tmp_path: Path) -> None:
    state = choose(state_dir=tmp_path)

    for _ in range(2):
        async with opened(state):
            await put(state.session_store, "again")
    with pytest.raises(StoreUnavailable):
        await state.session_store.get(ADA, KEY)


async def test_the_event_loop_turns_while_the_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = choose(state_dir=tmp_path)
    may_open, opens = threading.Event(), threading.Event()
    held_back(monkeypatch, opens, may_open)

    opening = asyncio.create_task(state.open())
    assert await asyncio.to_thread(opens.wait, SECONDS)
    may_open.set()
    async with asyncio.timeout(SECONDS):
        await opening
    await state.close()


async def test_a_start_that_is_cancelled_while_the_file_is_opened_leaves_it_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = choose(state_dir=tmp_path)
    may_open, opens = threading.Event(), threading.Event()
    held_back(monkeypatch, opens, may_open)
    opening = asyncio.create_task(state.open())
    assert await asyncio.to_thread(opens.wait, SECONDS)

    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    closing = asyncio.create_task(state.close())
    may_open.set()
    async with asyncio.timeout(SECONDS):
        await closing

    async with opened(choose(state_dir=tmp_path)) as other:
        await put(other.session_store, "free")


def held_back(monkeypatch: pytest.MonkeyPatch, opens: threading.Event, may_open: threading.Event) -> None:
    """Have the next database open slowly."""
    really = Database.open

    def slowly(database: Database) -> None:
        opens.set()
        assert may_open.wait(SECONDS)
        really(database)

    monkeypatch.setattr(Database, "open", slowly)


async def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions" / "host.db").write_text("Once upon a time there was a file that was no database. " * 100)

    with pytest.raises(ConfigurationError, match=r"sessions/host\.db"):
        async with opened(choose(state_dir=tmp_path)):
            pass


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    async with opened(choose(state_dir=tmp_path)) as state:
        assert state.database is not None
        newer = sa.text("UPDATE alembic_version_hosting SET version_num = '9999'")
        await state.database.run(lambda connection: connection.execute(newer))

    with pytest.raises(ConfigurationError, match="a newer version has upgraded it"):
        async with opened(choose(state_dir=tmp_path)):
            pass


# --- PostgreSQL


async def test_a_url_keeps_sessions_in_postgresql_for_several_processes(postgres_url: str) -> None:
    async with opened(choose(database_url=postgres_url)) as one, opened(choose(database_url=postgres_url)) as other:
        assert one.kind == "postgresql"
        assert one.owner != other.owner
        await put(one.session_store, "shared")
        session = await other.session_store.get(ADA, KEY)

    assert session is not None
    assert session.session_id == "shared"


async def test_statements_that_wait_for_a_lock_do_not_keep_the_signs_of_life_waiting(postgres_url: str) -> None:
    state = choose_state(database_url=postgres_url)
    await state.open()
    assert state.database is not None
    assert state.presence is not None

    def wait(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SELECT count(*) FROM afhost_sessions")

    async with (
        asyncio.timeout(SECONDS),
        await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as operator,
        operator.transaction(),
    ):
        await operator.execute("LOCK TABLE afhost_sessions IN ACCESS EXCLUSIVE MODE")
        waiting = [asyncio.ensure_future(state.database.run(wait)) for _ in range(POOL_SIZE + 1)]
        waiters = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while (await (await operator.execute(waiters)).fetchone()) != (POOL_SIZE,):  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
        await state.presence.sign()
        assert not any(waiter.done() for waiter in waiting)
    await asyncio.gather(*waiting)
    await state.close()


async def test_an_environment_variable_names_the_database_of_a_host_that_names_nothing(
    postgres_url: str, tmp_path: Path
) -> None:
    environment = {DATABASE_VARIABLE: postgres_url}

    assert choose(environment=environment).kind == "postgresql"
    assert choose(environment=environment, state_dir=tmp_path).kind == "sqlite"
    assert choose(environment=environment, state_dir={}).kind == "memory"
    assert choose(environment={DATABASE_VARIABLE: ""}).kind == "memory"


async def test_a_database_without_the_schema_is_refused_and_not_changed(postgres: PostgresServer) -> None:
    url = postgres.create(migrated=False)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="run `afhost db upgrade`"):
            async with opened(choose(database_url=url)):
                pass
    postgres.drop(url)


async def test_a_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached") as raised:
        async with opened(choose(database_url="postgresql://u:SECRET@127.0.0.1:1/app")):
            pass

    assert "SECRET" not in str(raised.value)


def test_checkpoints_may_lie_on_disk_beside_a_database(tmp_path: Path) -> None:
    state = choose(database_url="postgresql:///app", state_dir={"checkpoints": tmp_path})

    assert isinstance(state.checkpoints(), FileCheckpoints)
    assert isinstance(choose(database_url="postgresql:///app").checkpoints(), SqlCheckpoints)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_dir": "state"}, "database_url and state_dir both say"),
        ({"state_dir": {"sessions": "state"}}, "database_url and state_dir both say"),
        ({"database_url": "mysql://host/app"}, "names 'mysql': use postgresql"),
        ({"database_url": "sqlite:///file"}, "for SQLite use state_dir"),
        ({"database_url": "no url"}, "is no URL"),
        ({"database_url": ""}, "is no URL"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_what_to_change(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        choose(**{"database_url": "postgresql:///app", **options})


# --- checkpoints and pruning


@pytest.mark.parametrize("options", [{}, {"state_dir": "state"}, {"database_url": "postgresql:///app"}])
def test_a_location_of_checkpoints_wins_over_the_rest_of_the_state(options: dict[str, Any], tmp_path: Path) -> None:
    if "state_dir" in options:
        options = {"state_dir": tmp_path / "state"}

    checkpoints = choose(**options).checkpoints(tmp_path / "here")

    assert isinstance(checkpoints, FileCheckpoints)


async def test_what_the_retention_no_longer_covers_is_erased_in_the_background(durable_state: Any) -> None:
    state = choose(**durable_state.options, retention=Retention(max_entries=3))
    is_done = asyncio.Event()
    state.pruner = Pruner(first=0.0, afterwards=lambda: set_later(is_done))
    state.keep_pruned(state.session_store)

    async with opened(state), asyncio.timeout(SECONDS):
        for number in range(10):
            await state.session_store.put(ADA, SessionKey(f"s{number}"), AgentSession())
        state.pruner.start()
        await is_done.wait()
        await state.pruner.stop()
        left = [number for number in range(10) if await state.session_store.get(ADA, SessionKey(f"s{number}"))]

    assert left == [7, 8, 9]


async def set_later(event: asyncio.Event) -> None:
    event.set()


# --- optional dependencies


def run_python(program: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


HOST = """
import sys
from agent_framework_hosting import AgentFrameworkHost, ConfigurationError
from agent_framework_hosting.testing.agents import ScriptedAgent
class Nothing:
    name, path = "nothing", ""
def build(**options):
    Nothing.contribute = lambda *_: None
    return AgentFrameworkHost(ScriptedAgent(["hi"]), channels=[Nothing()], **options)
"""

SQL_PACKAGES = "{'sqlalchemy', 'alembic', 'filelock', 'psycopg'}"


def test_a_host_without_a_database_loads_nothing_of_sql(tmp_path: Path) -> None:
    program = HOST + (
        "build(); build(state_dir={'checkpoints': sys.argv[1]}); import agent_framework_hosting.cli\n"
        f"print(sorted({SQL_PACKAGES} & set(sys.modules)))"
    )

    assert run_python(program, str(tmp_path)) == "[]"


@pytest.mark.parametrize(
    ("missing", "options", "extra"),
    [
        ("sqlalchemy", "state_dir=sys.argv[1]", "sqlite"),
        ("alembic", "state_dir=sys.argv[1]", "sqlite"),
        ("filelock", "state_dir=sys.argv[1]", "sqlite"),
        ("sqlalchemy", "database_url='postgresql:///app'", "postgres"),
        ("psycopg", "database_url='postgresql:///app'", "postgres"),
    ],
)
def test_a_missing_extra_is_named(missing: str, options: str, extra: str, tmp_path: Path) -> None:
    program = (
        f"import sys\nsys.modules[{missing!r}] = None\n{HOST}"
        f"try:\n    build({options})\nexcept ConfigurationError as error:\n    print(error)"
    )

    said = run_python(program, str(tmp_path))

    assert f'pip install "agent-framework-hosting[{extra}]"' in said
    assert missing in said


@pytest.mark.parametrize(
    ("missing", "options"),
    [("psycopg", "state_dir=sys.argv[1]"), ("filelock", "database_url='postgresql:///app'")],
)
def test_the_other_databases_extra_is_not_needed(missing: str, options: str, tmp_path: Path) -> None:
    program = f"import sys\nsys.modules[{missing!r}] = None\n{HOST}build({options})\nprint('built')"

    assert run_python(program, str(tmp_path)) == "built"


def test_a_state_is_chosen_by_options_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)
    choices: list[tuple[Callable[[], HostState], str]] = [
        (choose_state, "memory"),
        (lambda: choose_state(state_dir=tmp_path), "sqlite"),
        (lambda: choose_state(database_url="postgresql:///app"), "postgresql"),
    ]

    assert [choice().kind for choice, _ in choices] == [kind for _, kind in choices]
    assert not list(tmp_path.iterdir())
