"""The host's tables: names that are ours in a database shared with others, and the partition in every key."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from agent_framework_hosting.sql.tables import checkpoints, metadata, run_events, run_logs, sessions

TABLES = list(metadata.tables.values())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_names_tell_whose_they_are_and_fit_postgresql(table: sa.Table) -> None:
    names = [table.name, *(str(index.name) for index in table.indexes)]

    assert all(name.startswith("afhost_") for name in names)
    assert all(len(name.encode()) <= 63 for name in names)


@pytest.mark.behaviour("E2")
@pytest.mark.parametrize("table", [sessions, checkpoints, run_logs, run_events], ids=lambda table: table.name)
def test_the_partition_is_the_first_part_of_every_users_key(table: sa.Table) -> None:
    assert table.primary_key.columns.keys()[0] == "partition"


@pytest.mark.parametrize("table", [sessions, checkpoints], ids=lambda table: table.name)
def test_what_grows_old_is_found_without_reading_everything(table: sa.Table) -> None:
    assert any(table.c.stored_at in index.columns.values() for index in table.indexes)


def test_logs_that_closed_long_ago_are_found_without_reading_everything() -> None:
    assert any(run_logs.c.closed_at in index.columns.values() for index in run_logs.indexes)
