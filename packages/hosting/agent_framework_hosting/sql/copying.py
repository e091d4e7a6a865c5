"""Everything of one database into another: the way from SQLite to PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import sqlalchemy as sa

from ..errors import ConfigurationError
from .schema import SchemaPart

_AT_ONCE: Final = 500


def copy_rows(source: sa.Connection, target: sa.Connection, parts: Sequence[SchemaPart]) -> Mapping[str, int]:
    """Copy the rows of every table of the parts and return how many of each; both databases are at the same revision.

    Nothing is committed here: in one transaction of the target, so that it has everything or nothing.

    Raises:
        ConfigurationError: the target holds something already.
    """
    tables = [table for part in parts for table in part.metadata.sorted_tables]
    for table in tables:
        if target.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None:
            raise ConfigurationError(
                f"The database to copy to is in use: its table {table.name} is not empty. Copy into a new one."
            )
    return {table.name: _copy(source, target, table) for table in tables}


def _copy(source: sa.Connection, target: sa.Connection, table: sa.Table) -> int:
    count = 0
    with source.execution_options(yield_per=_AT_ONCE).execute(sa.select(table)) as rows:
        for batch in rows.mappings().partitions():
            target.execute(sa.insert(table), [dict(row) for row in batch])
            count += len(batch)
    return count
