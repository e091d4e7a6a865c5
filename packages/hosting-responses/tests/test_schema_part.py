"""The channel's part of the schema, as tools find it."""

from __future__ import annotations

from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.schema import head, installed_parts
from agent_framework_hosting.stores.base import Retention
from agent_framework_hosting_responses.schema_part import SCHEMA
from agent_framework_hosting_responses.stores.tables import conversation_items, conversations, responses, settlements


def test_the_part_has_migrations_that_are_installed_with_it() -> None:
    assert SCHEMA.name == "responses"
    assert SCHEMA in installed_parts()
    assert head(SCHEMA) is not None
    assert [responses, conversations, conversation_items, settlements] == list(SCHEMA.metadata.tables.values())


async def test_tools_are_given_the_stores(database: Database) -> None:
    stores = SCHEMA.stores(database, Retention(max_entries=0))

    assert [(await store.stats()).name for store in stores] == ["responses", "conversations"]
    assert [await store.prune(limit=1) for store in stores] == [0, 0]
