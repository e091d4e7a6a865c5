"""The tables of the channel, and what is asked of them."""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.outdated import Outdated
from agent_framework_hosting_responses.stores import (
    sql_conversations,
    sql_erasure,
    sql_responses,
    sql_settlements,
    sql_turns,
)
from agent_framework_hosting_responses.stores.tables import metadata


def test_whose_something_is_comes_first_in_every_key() -> None:
    for table in metadata.tables.values():
        assert next(iter(table.primary_key.columns)).name == "partition"


async def test_no_statement_of_a_request_reads_a_whole_table(database: Database) -> None:
    if not database.is_sqlite:
        return  # with next to no rows PostgreSQL reads whole tables, whatever indexes there are
    modules = (sql_responses, sql_erasure, sql_conversations, sql_turns, sql_settlements)
    statements = [
        str(statement.compile(dialect=sqlite.dialect()))
        for module in modules
        for name, value in vars(module).items()
        for statement in ([value.oldest.limit(1), value.count] if isinstance(value, Outdated) else [value])
        if isinstance(statement, (sa.Select, sa.CompoundSelect, sa.Update, sa.Delete)) and "BYTES" not in name
    ]

    def explain(connection: sa.Connection) -> list[str]:
        plans: list[str] = []
        for statement in statements:
            sql = re.sub(r"(?<=\) IN )\(__\[POSTCOMPILE_\w+\]\)", "(VALUES (?, ?))", statement)  # of pairs
            sql = re.sub(r"\(__\[POSTCOMPILE_\w+\]\)", "(?)", sql)
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", tuple([1] * sql.count("?")))
            plans += [str(row[-1]) for row in rows]
        return plans

    plans = await database.run(explain)

    assert len(statements) > 20
    assert [plan for plan in plans if re.match(r"SCAN (afhost|before|child)(?!.*INDEX)", plan)] == []
