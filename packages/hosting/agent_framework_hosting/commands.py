"""What the commands on a database have in common: the flags that name it, and how ages are read and written."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from .directories import SESSIONS, read_directory
from .errors import ConfigurationError, HostingError
from .state import DATABASE_VARIABLE, postgres_database, sqlite_database

if TYPE_CHECKING:  # optional dependencies
    from .sql.database import Database
    from .sql.file import DatabaseFile

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_MOST_DIGITS: Final = 18  # of what every database takes as an integer
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


class Refused(HostingError):  # noqa: N818  what it says
    """There is nothing that the command could do; the message says why."""


def add_place(action: argparse.ArgumentParser) -> None:
    """Give a command the flags that name a database."""
    place = action.add_mutually_exclusive_group()
    place.add_argument("--state-dir", metavar="PATH", help="the host's state_dir, or its directory of sessions")
    place.add_argument(
        "--database-url", metavar="URL", help=f"postgresql://…; default: the environment's {DATABASE_VARIABLE}"
    )


@contextmanager
def opened(options: argparse.Namespace, *, exclusive: bool = False) -> Generator[Database, None, None]:
    """Open the database that the options name; `exclusive` keeps hosts away from a SQLite file meanwhile.

    Raises:
        ConfigurationError: they name none, or one that cannot be used, also while it is open.
        StoreUnavailable: it cannot be reached.
    """
    database, file = _find(options)
    from .sql import prepare  # noqa: PLC0415  optional dependency, which is there by now

    if file is not None and exclusive:
        file.acquire()
    try:
        with prepare.clear_errors(database.url):
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
    root = read_directory("--state-dir", options.state_dir)
    for directory in (root / SESSIONS, root):
        database, file = sqlite_database(directory)
        try:
            is_there = file.path.is_file()
        except OSError as error:
            raise ConfigurationError(f"{file.path} cannot be used: {error.strerror or error}.") from error
        if is_there:
            return database, file
    raise ConfigurationError(
        f"There is no database in {options.state_dir}: a host makes it there when it starts for the first time."
    )


def age(text: str) -> float:
    """Return the seconds that a flag says: `3600`, `90m`, `12h`, `30d`."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: write 3600, 90m, 12h or 30d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def count(text: str) -> int:
    """Return the number that a flag says."""
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of entries")
    return int(text)


def said(seconds: float | None) -> str:
    """Write an age for people, in its two largest units."""
    if seconds is None:
        return "-"
    minutes, hours, days = int(seconds // 60), int(seconds // 3_600), int(seconds // 86_400)
    if days:
        return f"{days}d {hours % 24}h"
    return f"{hours}h {minutes % 60}m" if hours else f"{minutes}m {int(seconds % 60)}s"


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")
