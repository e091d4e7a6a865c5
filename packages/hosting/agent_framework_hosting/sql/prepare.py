"""What a database needs before it is used: a schema of the right version; and errors that say what is wrong with it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from ..errors import ConfigurationError, StoreUnavailable
from . import schema
from .database import Database
from .schema import SchemaPart


def upgrade(database: Database, parts: Sequence[SchemaPart]) -> None:
    """Bring an open database to the newest version. Blocks.

    Raises:
        ConfigurationError: the database cannot be used.
        StoreUnavailable: it cannot be reached now.
    """
    with clear_errors(database.url):
        schema.upgrade(database.engine, parts)


def check(database: Database, parts: Sequence[SchemaPart]) -> None:
    """Check that an open database is at the newest version. Blocks.

    Raises:
        ConfigurationError: it is not, or cannot be used; the message says what to do.
        StoreUnavailable: it cannot be reached now.
    """
    with clear_errors(database.url):
        schema.check(database.engine, parts)


@contextmanager
def clear_errors(url: sa.URL) -> Generator[None, None, None]:
    """Raise what goes wrong inside with the database's name, and without its password."""
    try:
        yield
    except DBAPIError as error:
        said = str(error.orig).strip().splitlines()[0].rstrip(".")
        if url.password:
            said = said.replace(str(url.password), "***")
        if url.get_backend_name() != "sqlite" and isinstance(error, (OperationalError, InterfaceError)):
            raise StoreUnavailable(f"The database {place(url)} cannot be reached: {said}.") from error
        raise ConfigurationError(f"The database {place(url)} cannot be used: {said}.") from error


def place(url: sa.URL) -> str:
    """Return where the database is, without user, password and options."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    address = url.host or "the local server"
    port = f":{url.port}" if url.port else ""
    return f"{url.database!r} at {address}{port}"
