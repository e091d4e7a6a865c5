"""What is really stored: every byte of the files and every column of every row, past all of our own code."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing

import psycopg
from psycopg import sql
from states import State


def cells(state: State) -> Generator[tuple[str, bytes], None, None]:
    """Yield `table.column` and the content of every cell of every table."""
    if state.kind == "sqlite":
        yield from _cells_of_sqlite(state)
    elif state.kind == "postgres":
        yield from _cells_of_postgres(state)


def files(state: State) -> Generator[tuple[str, bytes], None, None]:
    """Yield the path, below the state's directory, and the content of every file."""
    if state.kind == "sqlite" and state.directory.exists():
        for path in sorted(state.directory.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(state.directory)), path.read_bytes()


def places_of(state: State, text: str) -> list[str]:
    """Return where in the tables and files `text` is; always nowhere for state in memory."""
    sought = text.encode()
    return sorted(
        {place for contents in (cells(state), files(state)) for place, content in contents if sought in content}
    )


def row_bytes(state: State) -> dict[str, int]:
    """Return the size of the content of each table."""
    sizes: dict[str, int] = {}
    for place, content in cells(state):
        table = place.partition(".")[0]
        sizes[table] = sizes.get(table, 0) + len(content)
    return sizes


def _cells_of_sqlite(state: State) -> Generator[tuple[str, bytes], None, None]:
    path = state.directory / "sessions" / "host.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            rows = connection.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in rows.description]
            for row in rows.fetchall():
                for name, value in zip(names, row, strict=True):
                    yield f"{table}.{name}", _bytes_of(value)


def _cells_of_postgres(state: State) -> Generator[tuple[str, bytes], None, None]:
    with psycopg.connect(state.options["database_url"], autocommit=True) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for table in tables:
            rows = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(*table)))
            names = [column.name for column in rows.description or ()]
            for row in rows.fetchall():
                for name, value in zip(names, row, strict=True):
                    yield f"{table[1]}.{name}", _bytes_of(value)


def _bytes_of(value: object) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return b"" if value is None else str(value).encode()
