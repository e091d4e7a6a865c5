"""The host's part of the schema, as tools find it."""

from __future__ import annotations

from pathlib import Path

from agent_framework_hosting.schema_part import SCHEMA
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.schema import head, installed_parts
from agent_framework_hosting.sql.tables import checkpoints, processes, run_events, run_logs, sessions
from agent_framework_hosting.stores.base import Retention


def test_the_part_has_migrations_that_are_installed_with_it() -> None:
    assert SCHEMA.name == "hosting"
    assert SCHEMA in installed_parts()
    assert head(SCHEMA) is not None
    assert isinstance(SCHEMA.versions, Path)
    assert [sessions, checkpoints, processes, run_logs, run_events] == list(SCHEMA.metadata.tables.values())


async def test_tools_are_given_the_stores(database: Database) -> None:
    stores = SCHEMA.stores(database, Retention(max_entries=0))

    assert [(await store.stats()).name for store in stores] == ["sessions", "checkpoints", "run logs"]
    assert [await store.prune(limit=1) for store in stores] == [0, 0, 0]
