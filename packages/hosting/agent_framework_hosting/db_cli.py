"""The commands on a host's database: `afhost db upgrade`, `prune`, `stats` and `copy`.

They need no application: what lies in the database is told by the installed packages (`SchemaPart`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .commands import add_place, age, count, opened, said, say
from .errors import ConfigurationError
from .retention import prune_all
from .state import DATABASE_VARIABLE
from .stores.base import Prunable, Retention, StoreStats

if TYPE_CHECKING:  # optional dependencies
    from .sql.database import Database


def add_actions(db: argparse.ArgumentParser) -> None:
    """Give the command `db` its actions."""
    actions = db.add_subparsers(required=True, metavar="action")
    for name, command, text in (
        ("upgrade", _upgrade, "bring the schema to the version of the installed packages"),
        ("prune", _prune, "erase what is too old or too much, for good"),
        ("stats", _stats, "print what there is, and how much of it"),
    ):
        action = actions.add_parser(name, help=text)
        add_place(action)
        action.set_defaults(command=command)
        if name == "prune":
            action.add_argument(
                "--max-age", type=age, metavar="AGE", help="erase what is older: seconds, or 90m, 12h, 30d"
            )
            action.add_argument(
                "--max-entries", type=count, metavar="N", help="keep the newest N entries of each store"
            )
        if name == "stats":
            action.add_argument("--json", action="store_true", help="print JSON")
    copy = actions.add_parser("copy", help="copy a SQLite database into an empty one in PostgreSQL")
    copy.add_argument("--state-dir", metavar="PATH", required=True, help="the host's state_dir; no host may use it")
    copy.add_argument(
        "--database-url", metavar="URL", help=f"postgresql://…; default: the environment's {DATABASE_VARIABLE}"
    )
    copy.set_defaults(command=_copy)


def _upgrade(options: argparse.Namespace) -> None:
    with opened(options, exclusive=True) as database:
        from .sql import prepare, schema  # noqa: PLC0415  optional dependency

        before = _revisions(database)
        prepare.upgrade(database, schema.installed_parts())
        after = _revisions(database)
    for name, revision in after.items():
        was = before[name]
        say(f"{name:<12} {revision}" if was == revision else f"{name:<12} {was or 'nothing'} -> {revision}")


def _prune(options: argparse.Namespace) -> None:
    if options.max_age is None and options.max_entries is None:
        # The host's own retention is not known here, and what is erased does not come back.
        raise ConfigurationError("db prune needs --max-age or --max-entries, or both: say what to erase.")
    retention = Retention(max_age=options.max_age, max_entries=options.max_entries)

    async def prune(database: Database, stores: Sequence[Prunable]) -> list[tuple[int, StoreStats]]:
        from .sql.space import give_back  # noqa: PLC0415  optional dependency

        # Channels' stores first: what belongs to their entries is found only as long as the sessions are there.
        erased = [await prune_all(store) for store in reversed(stores)][::-1]
        await give_back(database, reserve=0.0)
        return list(zip(erased, [await store.stats() for store in stores], strict=True))

    for erased, stats in _with_stores(options, retention, prune):
        say(f"{stats.name:<16} {erased} erased, {stats.entries} left")


def _stats(options: argparse.Namespace) -> None:
    async def measure(database: Database, stores: Sequence[Prunable]) -> tuple[list[StoreStats], int]:
        return [await store.stats() for store in stores], await _disk(database)

    found, disk = _with_stores(options, Retention(), measure)
    if options.json:
        say(json.dumps({"stores": [asdict(stats) for stats in found], "disk_bytes": disk}, indent=2))
        return
    say(f"{'store':<16} {'entries':>10} {'bytes':>14}  oldest")
    for stats in found:
        say(f"{stats.name:<16} {stats.entries:>10} {stats.bytes:>14}  {said(stats.oldest)}")
    say(f"{'on disk':<16} {'':>10} {disk:>14}")


def _copy(options: argparse.Namespace) -> None:
    to = argparse.Namespace(state_dir=None, database_url=options.database_url)
    with opened(options, exclusive=True) as source, opened(to) as target:
        from .sql import prepare, schema  # noqa: PLC0415  optional dependency
        from .sql.copying import copy_rows  # noqa: PLC0415

        parts = schema.installed_parts()
        prepare.check(source, parts)
        prepare.check(target, parts)
        with source.engine.connect() as rows, target.engine.begin() as into:
            copied = copy_rows(rows, into, parts)
    for table, rows_of_table in copied.items():
        say(f"{table:<28} {rows_of_table}")


def _with_stores(
    options: argparse.Namespace, retention: Retention, work: Callable[[Database, Sequence[Prunable]], Awaitable[Any]]
) -> Any:
    """Return what `work` returns for the stores of every installed package."""
    with opened(options) as database:
        from .sql import prepare, schema  # noqa: PLC0415  optional dependency

        parts = schema.installed_parts()
        prepare.check(database, parts)

        async def run() -> Any:
            return await work(database, [store for part in parts for store in part.stores(database, retention)])

        return asyncio.run(run())


def _revisions(database: Database) -> dict[str, str | None]:
    from .sql import schema  # noqa: PLC0415  optional dependency

    with database.engine.connect() as connection:
        parts = [part for part in schema.installed_parts() if part.applies_to(connection)]
        return {part.name: schema.revision(connection, part) for part in parts}


async def _disk(database: Database) -> int:
    """Return the bytes that the database takes on the disk, with what it shares."""
    if database.is_sqlite:
        path = str(database.url.database)
        files = [Path(path + suffix) for suffix in ("", "-wal", "-shm")]
        return sum(file.stat().st_size for file in files if file.exists())
    query = "SELECT pg_database_size(current_database())"
    return await database.run(lambda connection: int(connection.exec_driver_sql(query).scalar_one()))
