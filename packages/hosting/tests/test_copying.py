"""`afhost db copy`: a state in SQLite becomes one in PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from agent_framework import AgentSession, Message
from postgres import PostgresServer

from agent_framework_hosting.cli import main
from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.schema_part import SCHEMA
from agent_framework_hosting.sql.copying import copy_rows
from agent_framework_hosting.sql.tables import sessions
from agent_framework_hosting.state import HostState, choose_state
from agent_framework_hosting.stores.base import SessionKey

ADA = Partition("ada")


def session_of(*texts: str) -> AgentSession:
    session = AgentSession(session_id="s")
    session.state["in_memory"] = {"messages": [Message("user", [text]) for text in texts]}
    return session


async def stored(state: HostState, key: str) -> list[str]:
    session = await state.session_store.get(ADA, SessionKey(key))
    return [] if session is None else [message.text for message in session.state["in_memory"]["messages"]]


async def filled(directory: Path) -> None:
    state = choose_state(state_dir=directory)
    await state.open()
    first, second = SessionKey("response:1"), SessionKey("response:2")
    await state.session_store.put(ADA, first, session_of("one \ud83d\udc4b"))
    await state.session_store.put(ADA, second, session_of("one \ud83d\udc4b", "two\x00"), base=first)
    await state.close()


async def test_everything_is_in_the_other_database_afterwards(
    tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await filled(tmp_path)

    code = main(["db", "copy", "--state-dir", str(tmp_path), "--database-url", postgres_url])

    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    assert f"{sessions.name:<28} 2" in printed.out.splitlines()
    copied = choose_state(database_url=postgres_url)
    await copied.open()
    assert await stored(copied, "response:2") == ["one \U0001f44b", "two\x00"]
    await copied.close()


async def test_a_database_that_holds_something_is_left_alone(
    tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await filled(tmp_path)
    arguments = ["db", "copy", "--state-dir", str(tmp_path), "--database-url", postgres_url]
    assert main(arguments) == 0

    code = main(arguments)

    assert code == 2
    assert "is not empty" in capsys.readouterr().err


async def test_a_state_that_a_host_uses_is_not_copied(
    tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = choose_state(state_dir=tmp_path)
    await state.open()

    code = main(["db", "copy", "--state-dir", str(tmp_path), "--database-url", postgres_url])

    assert code == 2
    assert "host.db" in capsys.readouterr().err
    await state.close()


async def test_a_database_without_the_schema_is_refused(
    tmp_path: Path, postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    await filled(tmp_path)
    url = postgres.create(migrated=False)

    code = main(["db", "copy", "--state-dir", str(tmp_path), "--database-url", url])

    assert code == 2
    assert "afhost db upgrade" in capsys.readouterr().err
    postgres.drop(url)


def test_nothing_is_copied_if_something_cannot_be(postgres_url: str, tmp_path: Path) -> None:
    source = sa.create_engine(f"sqlite:///{tmp_path / 'broken.db'}")
    with source.connect() as rows:
        sessions.create(rows)
        target = sa.create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
        # The other tables of the part are missing in the source.
        with pytest.raises(sa.exc.OperationalError), target.begin() as into:
            copy_rows(rows, into, [SCHEMA])
        target.dispose()
    source.dispose()
