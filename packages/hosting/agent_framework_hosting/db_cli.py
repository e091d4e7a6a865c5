"""The commands on a host's database: `afhost db upgrade`, `prune`, `stats` and `copy`.

They need no application: what lies in the database is told by the installed packages (`SchemaPart`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .directories import SESSIONS
from .errors import ConfigurationError
from .retention import prune_all
from .state import DATABASE_VARIABLE, postgres_database, sqlite_database
from .stores.base import Prunable, Retention, StoreStats

if TYPE_CHECKING:  # optional dependencies
    from .sql.database import Database
    from .sql.file import DatabaseFile

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def add_actions(db: argparse.ArgumentParser) -> None:
    """Give the command `db` its actions."""
    actions = db.add_subparsers(required=True, metavar="action")
    for name, command, text in (
        ("upgrade", _upgrade, "bring the schema to the version of the installed packages"),
        ("prune", _prune, "erase what is too old or too much, for good"),
        ("stats", _stats, "print what there is, and how much of it"),
    ):
        action = actions.add_parser(name, help=text)
        place = action.add_mutually_exclusive_group()
        place.add_argument("--state-dir", metavar="PATH", help="the host's state_dir, or its directory of sessions")
        place.add_argument(
            "--database-url", metavar="URL", help=f"postgresql://…; default: the environment's {DATABASE_VARIABLE}"
        )
        action.set_defaults(command=command)
        if name == "prune":
            action.add_argument(
                "--max-age", type=_age, metavar="AGE", help="erase what is older: seconds, or 90m, 12h, 30d"
            )
            action.add_argument(
                "--max-entries", type=_count, metavar="N", help="keep the newest N entries of each store"
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
    with _opened(options, exclusive=True) as database:
        from .sql import prepare, schema  # noqa: PLC0415  optional dependency

        with prepare.clear_errors(database.url):
            before = _revisions(database)
            prepare.upgrade(database, schema.installed_parts())
            after = _revisions(database)
    for name, revision in after.items():
        was = before[name]
        _say(f"{name:<12} {revision}" if was == revision else f"{name:<12} {was or 'nothing'} -> {revision}")


def _prune(options: argparse.Namespace) -> None:
    if options.max_age is None and options.max_entries is None:
        # The host's own retention is not known here, and what is erased does not come back.
        raise ConfigurationError("db prune needs --max-age or --max-entries, or both: say what to erase.")
    retention = Retention(max_age=options.max_age, max_entries=options.max_entries)

    async def prune(database: Database, stores: Sequence[Prunable]) -> list[tuple[int, StoreStats]]:
        from .sql.space import give_back  # noqa: PLC0415  optional dependency

        erased = [await prune_all(store) for store in stores]
        await give_back(database, reserve=0.0)
        return list(zip(erased, [await store.stats() for store in stores], strict=True))

    for erased, stats in _with_stores(options, retention, prune):
        _say(f"{stats.name:<16} {erased} erased, {stats.entries} left")


def _stats(options: argparse.Namespace) -> None:
    async def measure(database: Database, stores: Sequence[Prunable]) -> tuple[list[StoreStats], int]:
        return [await store.stats() for store in stores], await _disk(database)

    found, disk = _with_stores(options, Retention(), measure)
    if options.json:
        _say(json.dumps({"stores": [asdict(stats) for stats in found], "disk_bytes": disk}, indent=2))
        return
    _say(f"{'store':<16} {'entries':>10} {'bytes':>14}  oldest")
    for stats in found:
        _say(f"{stats.name:<16} {stats.entries:>10} {stats.bytes:>14}  {_said(stats.oldest)}")
    _say(f"{'on disk':<16} {'':>10} {disk:>14}")


def _copy(options: argparse.Namespace) -> None:
    to = argparse.Namespace(state_dir=None, database_url=options.database_url)
    with _opened(options, exclusive=True) as source, _opened(to) as target:
        from .sql import prepare, schema  # noqa: PLC0415  optional dependency
        from .sql.copying import copy_rows  # noqa: PLC0415

        parts = schema.installed_parts()
        prepare.check(source, parts)
        prepare.check(target, parts)
        with prepare.clear_errors(target.url), source.engine.connect() as rows, target.engine.begin() as into:
            copied = copy_rows(rows, into, parts)
    for table, count in copied.items():
        _say(f"{table:<28} {count}")


def _with_stores(
    options: argparse.Namespace, retention: Retention, work: Callable[[Database, Sequence[Prunable]], Awaitable[Any]]
) -> Any:
    """Return what `work` returns for the stores of every installed package."""
    with _opened(options) as database:
        from .sql import prepare, schema  # noqa: PLC0415  optional dependency

        parts = schema.installed_parts()
        prepare.check(database, parts)

        async def run() -> Any:
            return await work(database, [store for part in parts for store in part.stores(database, retention)])

        return asyncio.run(run())


@contextmanager
def _opened(options: argparse.Namespace, *, exclusive: bool = False) -> Generator[Database, None, None]:
    """Open the database that the options name; `exclusive` keeps hosts away from a SQLite file meanwhile."""
    database, file = _find(options)
    if file is not None and exclusive:
        file.acquire()
    try:
        database.open()
        yield database
    finally:
        database.close_now()
        if file is not None:
            file.release()


def _find(options: argparse.Namespace) -> tuple[Database, DatabaseFile | None]:
    if options.state_dir is None:
        url: str | None = options.database_url or os.environ.get(DATABASE_VARIABLE)
        if not url:
            raise ConfigurationError(f"Name the database: --state-dir, --database-url or {DATABASE_VARIABLE}.")
        return postgres_database(url), None
    root = Path(options.state_dir)
    for directory in (root / SESSIONS, root):
        database, file = sqlite_database(directory)
        if file.path.is_file():
            return database, file
    raise ConfigurationError(
        f"There is no database in {root}: a host makes it there when it starts for the first time."
    )


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


def _age(text: str) -> float:
    match = _AGE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: write 3600, 90m, 12h or 30d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of entries")
    return int(text)


def _said(age: float | None) -> str:
    if age is None:
        return "-"
    minutes, hours, days = int(age // 60), int(age // 3_600), int(age // 86_400)
    if days:
        return f"{days}d {hours % 24}h"
    return f"{hours}h {minutes % 60}m" if hours else f"{minutes}m {int(age % 60)}s"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
