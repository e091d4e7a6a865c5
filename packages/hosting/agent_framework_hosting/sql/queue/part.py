"""The queue's part of the schema: Procrastinate's own, as the installed package brings it.

Procrastinate ships its schema as one SQL file, and every later change of it as a file of its own. The migrations in
`versions/` apply what the database does not have yet; a comment at the table of jobs says how far it has come. So it is
the same whether a database was made before or after a change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from ...errors import ConfigurationError
from ..schema import SchemaPart

_NOTE: Final = "agent-framework-hosting, schema of Procrastinate "


def bring_up_to_date(connection: sa.Connection) -> None:
    """Make Procrastinate's tables and functions, or change them to what the installed package needs.

    Raises:
        ConfigurationError: they are there, but not made by this package.
    """
    from procrastinate.schema import SchemaManager  # noqa: PLC0415  optional dependency

    found, files = _level(connection), _changes()
    if found is None:
        _execute(connection, SchemaManager.get_schema())
    for file in files:
        if found is not None and file.name > found:
            _execute(connection, file.read_text(encoding="utf-8"))
    _execute(connection, f"COMMENT ON TABLE procrastinate_jobs IS '{_NOTE}{files[-1].name}'")


def verify(connection: sa.Connection) -> None:
    """Check that the installed package is the one that the database has the schema for.

    Raises:
        ConfigurationError: it is not; the message says what to do.
    """
    found, newest = _level(connection), _changes()[-1].name
    if found != newest:
        relation = "newer" if found is None or found < newest else "older"
        raise ConfigurationError(
            f"The installed procrastinate is {relation} than the database's schema of 'queue' (the package is at "
            f"{newest}, the database at {found or 'nothing'}): install the version of procrastinate that this version "
            "of agent-framework-hosting was released with, or a newer agent-framework-hosting."
        )


def _level(connection: sa.Connection) -> str | None:
    """Return the name of the last change that the database has, `None` if it has no such tables."""
    name = connection.exec_driver_sql("SELECT to_regclass('procrastinate_jobs')::oid").scalar()
    if name is None:
        return None
    note = connection.exec_driver_sql("SELECT obj_description(to_regclass('procrastinate_jobs'), 'pg_class')").scalar()
    if not isinstance(note, str) or not note.startswith(_NOTE):
        raise ConfigurationError(
            "The database has tables of Procrastinate that are not this package's. Use another database, or another "
            "schema of it: postgresql://…?options=-csearch_path%3Dafhost."
        )
    return note.removeprefix(_NOTE)


def _changes() -> list[Path]:
    """Return the files of the installed package that change the schema, oldest first: they are named by version."""
    from procrastinate.schema import SchemaManager  # noqa: PLC0415  optional dependency

    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"), key=lambda file: file.name)


def _execute(connection: sa.Connection, statements: str) -> None:
    # Without parameters the driver takes any number of statements, and percent signs for what they are.
    connection.exec_driver_sql(statements, execution_options={"no_parameters": True})


SCHEMA: Final = SchemaPart(
    "queue",
    sa.MetaData(),  # the tables are Procrastinate's
    Path(__file__).parent / "versions",
    dialects=frozenset({"postgresql"}),
    verify=verify,
)
"""The part of the schema that holds the runs to execute. SQLite has none: there the process itself executes them."""
