"""Run by Alembic for every part: migrates over the connection, and inside the transaction, that `schema.upgrade` has."""

from __future__ import annotations

from alembic import context

attributes = context.config.attributes
tables = attributes["metadata"].tables


def is_of_this_part(name: str | None, kind: str, _parents: object) -> bool:
    """Hide other parts' tables, and the operator's own, from autogenerate, which would drop them."""
    return kind != "table" or name in tables


context.configure(
    connection=attributes["connection"],
    target_metadata=attributes["metadata"],
    version_table=attributes["version_table"],
    include_name=is_of_this_part,
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()
