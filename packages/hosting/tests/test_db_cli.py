"""`afhost db …` on real databases of both kinds, with hosts that run and that do not."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from agent_framework import AgentSession
from postgres import PostgresServer
from states import State

from agent_framework_hosting.cli import main
from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.sql import schema
from agent_framework_hosting.sql.database import Database, postgres_url, sqlite_url
from agent_framework_hosting.state import DATABASE_VARIABLE, choose_state
from agent_framework_hosting.stores.base import SessionKey
from agent_framework_hosting.stores.sql import SqlSessionStore

ADA = Partition("ada")
TEXT = "x" * 10_000


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)


@pytest.fixture
def place(durable_state: State) -> Sequence[str]:
    """The flags that name a database with 30 sessions, stored a day apart until now."""
    asyncio.run(fill(durable_state))
    if durable_state.kind == "sqlite":
        return "--state-dir", str(durable_state.directory)
    return "--database-url", str(durable_state.options["database_url"])


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sqlite(tmp_path: Path) -> Sequence[str]:
    asyncio.run(fill(State("sqlite", {"state_dir": tmp_path / "state"})))
    return "--state-dir", str(tmp_path / "state")


async def fill(state: State) -> None:
    host = choose_state(**state.options)
    await host.open()
    assert host.database is not None
    for number in range(30):
        session = AgentSession(session_id=f"s{number}")
        session.state["text"] = TEXT
        store = SqlSessionStore(host.database, clock=aged(29 - number))
        await store.put(ADA, SessionKey(f"s{number}"), session)
    await host.close()


def aged(days: float) -> Callable[[], float]:
    now = time.time()
    return lambda: now - days * 86_400


def sessions_of(found: dict[str, Any]) -> dict[str, Any]:
    [sessions] = [store for store in found["stores"] if store["name"] == "sessions"]
    assert isinstance(sessions, dict)
    return sessions


def stats_of(capsys: pytest.CaptureFixture[str], place: Sequence[str]) -> dict[str, Any]:
    assert main(["db", "stats", *place, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


# --- stats


def test_stats_count_the_entries_of_every_store_and_the_disk(
    place: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = stats_of(capsys, place)

    sessions = sessions_of(found)
    assert {"sessions", "checkpoints"} <= {store["name"] for store in found["stores"]}
    assert sessions["entries"] == 30
    assert 30 * len(TEXT) <= sessions["bytes"] < 40 * len(TEXT)
    assert 28.9 < sessions["oldest"] / 86_400 < 29.1
    assert found["disk_bytes"] > 100_000


def test_stats_are_a_table_for_people(sqlite: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["db", "stats", *sqlite])

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert lines[0] == ["store", "entries", "bytes", "oldest"]
    assert ["checkpoints", "0", "0", "-"] in lines
    [sessions] = [line for line in lines if line[0] == "sessions"]
    assert sessions[1] == "30"
    assert sessions[3:] == ["29d", "0h"]
    assert lines[-1][:2] == ["on", "disk"]


# --- prune


@pytest.mark.parametrize(
    ("flags", "left"),
    [
        (["--max-age", "9.5d"], 10),
        (["--max-age", "36h"], 2),
        (["--max-entries", "7"], 7),
        (["--max-entries", "0"], 0),
        (["--max-entries", "20", "--max-age", "5d"], 5),
        (["--max-age", "100d"], 30),
    ],
)
def test_prune_erases_what_is_too_old_or_too_much(
    place: Sequence[str], flags: list[str], left: int, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["db", "prune", *place, *flags])

    out = capsys.readouterr().out
    assert code == 0
    assert f"{30 - left} erased, {left} left" in out
    assert sessions_of(stats_of(capsys, place))["entries"] == left


def test_what_prune_erases_is_free_on_the_disk(sqlite: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = stats_of(capsys, sqlite)["disk_bytes"]

    main(["db", "prune", *sqlite, "--max-entries", "0"])
    capsys.readouterr()

    assert stats_of(capsys, sqlite)["disk_bytes"] < before - 25 * len(TEXT)
    assert TEXT[:100].encode() not in (Path(sqlite[1]) / "sessions" / "host.db").read_bytes()


async def test_prune_and_stats_run_beside_a_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = State("sqlite", {"state_dir": tmp_path / "state"})
    await fill(state)
    host = choose_state(**state.options)
    await host.open()
    place = ["--state-dir", str(tmp_path / "state")]
    try:
        code = await asyncio.to_thread(main, ["db", "prune", *place, "--max-entries", "1"])
        assert await host.session_store.get(ADA, SessionKey("s29")) is not None
        assert await host.session_store.get(ADA, SessionKey("s28")) is None
        capsys.readouterr()
        found = await asyncio.to_thread(stats_of, capsys, place)
    finally:
        await host.close()

    assert code == 0
    assert sessions_of(found)["entries"] == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "needs --max-age or --max-entries"),
        (["--max-age", "soon"], "'soon' is no age"),
        (["--max-age=-1"], "is no age"),
        (["--max-entries=-1"], "is no number of entries"),
        (["--max-entries", "many"], "is no number of entries"),
    ],
)
def test_prune_wants_to_know_what_to_erase(
    sqlite: Sequence[str], flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = exit_code(["db", "prune", *sqlite, *flags])

    assert code == 2
    assert message in capsys.readouterr().err
    assert sessions_of(stats_of(capsys, sqlite))["entries"] == 30


def exit_code(arguments: Sequence[str]) -> object:
    """Return the code the command ends with, whether it is the parser or the command that refuses."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return ended.code


# --- upgrade


def test_upgrade_makes_the_schema_and_says_what_it_did(
    postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres.create(migrated=False)
    first = main(["db", "upgrade", "--database-url", url])
    made = capsys.readouterr().out
    second = main(["db", "upgrade", "--database-url", url])
    left = capsys.readouterr().out

    assert (first, second) == (0, 0)
    assert "hosting      nothing -> 0001" in made
    assert "hosting      0001" in left
    assert "->" not in left
    assert asyncio.run(is_served(url))
    postgres.drop(url)


async def is_served(url: str) -> bool:
    host = choose_state(database_url=url)
    try:
        await host.open()
        return await host.session_store.get(ADA, SessionKey("s")) is None
    finally:
        await host.close()


async def test_upgrade_is_refused_while_a_host_has_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = choose_state(state_dir=tmp_path)
    await host.open()
    try:
        code = await asyncio.to_thread(main, ["db", "upgrade", "--state-dir", str(tmp_path)])
    finally:
        await host.close()
    again = await asyncio.to_thread(main, ["db", "upgrade", "--state-dir", str(tmp_path)])

    assert (code, again) == (2, 0)
    assert "in use by another process" in capsys.readouterr().err


@pytest.mark.parametrize("action", [["prune", "--max-entries", "1"], ["stats"]])
def test_a_schema_that_is_too_old_is_not_touched(
    action: list[str], postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres.create(migrated=False)

    code = main(["db", *action, "--database-url", url])

    assert code == 2
    assert "run `afhost db upgrade`" in capsys.readouterr().err
    postgres.drop(url)


def test_a_newer_schema_is_not_touched(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with database_at(postgres_url).engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version_hosting SET version_num = '9999'")

    code = main(["db", "upgrade", "--database-url", postgres_url])

    assert code == 2
    assert "a newer version has upgraded it" in capsys.readouterr().err


def database_at(url: str) -> Any:
    class At:
        engine = sa.create_engine(postgres_url(url), poolclass=sa.NullPool)

    return At


# --- which database


def test_the_environment_names_the_database_too(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, postgres_url)

    assert sessions_of(stats_of(capsys, ()))["entries"] == 0


def test_the_directory_of_sessions_itself_may_be_named(
    sqlite: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sessions_of(stats_of(capsys, ["--state-dir", f"{sqlite[1]}/sessions"]))["entries"] == 30


@pytest.mark.parametrize("action", [["upgrade"], ["prune", "--max-entries", "1"], ["stats"]])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ([], "Name the database: --state-dir, --database-url or AFHOST_DATABASE_URL"),
        (["--state-dir", "nowhere"], "There is no database in nowhere"),
        (["--state-dir", "x" * 5_000], "cannot be used: "),
        (["--database-url", "mysql://u:SECRET@host/app"], "use postgresql://"),
        (["--database-url", "SECRET"], "is no URL"),
        (["--database-url", "postgresql://u:SECRET@127.0.0.1:1/app"], "'app' at 127.0.0.1:1 cannot be reached"),
        (["--state-dir", "x", "--database-url", "postgresql:///app"], "not allowed with argument --state-dir"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_in_one_line(
    action: list[str], place: list[str], message: str, capsys: pytest.CaptureFixture[str], empty: Path
) -> None:
    code = exit_code(["db", *action, *place])

    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert "SECRET" not in error
    assert "Traceback" not in error
    assert not list(empty.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ["db", "prune", "--max-entries", "1"],
        ["db", "stats"],
        ["runs", "list"],
        ["runs", "show", "resp_1"],
        ["runs", "cancel", "resp_1"],
        ["runs", "retry", "resp_1"],
    ],
)
def test_rights_that_are_missing_are_named_in_one_line(
    command: list[str], poor_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*command, "--database-url", poor_url])

    written = capsys.readouterr()
    assert code == 2
    assert "cannot be used: permission denied for" in written.err
    assert written.err.count("\n") == 1
    assert "SECRET" not in written.err


@pytest.mark.parametrize("flags", [["db", "stats"], ["runs", "list"]])
def test_a_directory_may_be_named_from_the_home(
    flags: list[str], sqlite: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Path(sqlite[1])
    monkeypatch.setenv("HOME", str(directory.parent))

    code = main([*flags, f"--state-dir=~/{directory.name}"])

    assert code == 0, capsys.readouterr().err


def test_a_file_that_is_no_database_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "host.db").write_text("Once upon a time there was a file that was no database. " * 100)

    code = main(["db", "stats", "--state-dir", str(tmp_path)])

    error = capsys.readouterr().err
    assert code == 2
    assert "host.db" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["db"], ["db", "vacuum"]])
def test_an_action_that_is_none_ends_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(arguments) == 2
    assert "usage: afhost db" in capsys.readouterr().err


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from agent_framework_hosting.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "db", "stats", "--state-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 2
    assert 'pip install "agent-framework-hosting[sqlite]"' in result.stderr


def test_upgrade_of_a_file_makes_what_a_new_package_brings(
    sqlite: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(sqlite[1]) / "sessions" / "host.db"
    database = Database(sqlite_url(str(path)))
    database.open()
    others = [part for part in schema.installed_parts() if part.name != "hosting" and "sqlite" in part.dialects]
    with database.engine.connect() as connection:
        for part in others:
            for table in reversed(part.metadata.sorted_tables):
                connection.exec_driver_sql(f"DROP TABLE {table.name}")
            connection.exec_driver_sql(f"DROP TABLE {part.version_table}")
    database.close_now()

    code = main(["db", "upgrade", *sqlite])

    out = capsys.readouterr().out
    assert code == 0
    assert others
    assert all(f"{part.name:<12} nothing -> 0001" in out for part in others)
