"""The public suite for stores of sessions, run on the store of this sample, and what the suite leaves to each store.

uv run python -m pytest    in this folder
"""
# ruff: noqa: S101, ASYNC240  it is a test

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from agent_framework import AgentSession
from json_session_store import JsonSessionStore  # type: ignore[import-not-found]  # a sibling, found when this is run

from agent_framework_hosting import IsolationKeys, Retention, SessionKey, StoreUnavailable
from agent_framework_hosting.testing.session_stores import SessionStoreSuite

ADA = IsolationKeys(user_key="ada").partition
KEYS = [SessionKey(f"response:resp_{number}") for number in range(4)]


class TestJsonSessionStore(SessionStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> JsonSessionStore:
        return JsonSessionStore(tmp_path / "sessions")


async def filled(store: JsonSessionStore, directory: Path) -> None:
    """Store a session an hour for the last four hours."""
    for age, key in enumerate(reversed(KEYS)):
        before = set(directory.glob("*.json"))
        await store.put(ADA, key, AgentSession())
        (path,) = set(directory.glob("*.json")) - before
        written = path.stat().st_mtime - 3600 * age
        os.utime(path, (written, written))


async def left(store: JsonSessionStore) -> Sequence[SessionKey]:
    return [key for key in KEYS if await store.get(ADA, key) is not None]


async def test_what_is_too_old_or_too_much_is_erased_oldest_first(tmp_path: Path) -> None:
    store = JsonSessionStore(tmp_path, retention=Retention(max_age=9000, max_entries=2))
    await filled(store, tmp_path)

    assert (await store.stats()).entries == 4
    assert [await store.prune(limit=1), await left(store)] == [1, KEYS[1:]]
    assert [await store.prune(limit=10), await left(store)] == [1, KEYS[2:]]
    assert await store.prune(limit=10) == 0


async def test_a_session_survives_the_process(tmp_path: Path) -> None:
    session = AgentSession()
    await JsonSessionStore(tmp_path).put(ADA, KEYS[0], session)

    found = await JsonSessionStore(tmp_path).get(ADA, KEYS[0])

    assert found is not None
    assert found.session_id == session.session_id


async def test_a_directory_that_cannot_be_used_is_said_to_be_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    store = JsonSessionStore(tmp_path / "file")

    with pytest.raises(StoreUnavailable):
        await store.put(ADA, KEYS[0], AgentSession())
