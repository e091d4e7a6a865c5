"""Free pages of a SQLite file, given back to the disk. PostgreSQL's autovacuum does it there."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import sqlalchemy as sa

from .database import Database

RESERVE: Final = 0.1
"""Part of the file that may be free: what is erased today is often needed again for what is stored tomorrow."""

_PAGES_AT_ONCE: Final = 128
"""Measured: 1 ms of the one connection's time."""


async def give_back(database: Database, *, reserve: float = RESERVE) -> int:
    """Shrink the file of a SQLite database until at most `reserve` of it is free; return how many pages went.

    Does nothing with PostgreSQL.
    """
    if not database.is_sqlite:
        return 0
    total = 0
    while True:
        started = time.perf_counter()
        freed = await database.run(lambda connection: _shrink(connection, reserve))
        total += freed
        if freed < _PAGES_AT_ONCE:
            if total:
                # The file itself is cut when the write-ahead log is written back.
                await database.run(lambda _: None, erases=True)
            return total
        # As long as it took: requests have at least half of the connection's time.
        await asyncio.sleep(time.perf_counter() - started)


def _shrink(connection: sa.Connection, reserve: float) -> int:
    free = _pragma(connection, "freelist_count")
    excess = min(_PAGES_AT_ONCE, free - int(_pragma(connection, "page_count") * reserve))
    for _ in range(excess):
        # A page at a time: the driver stops after the first step of a statement that has no result.
        connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
    # Counted: a file that somebody else has made may not be able to shrink bit by bit.
    return free - _pragma(connection, "freelist_count")


def _pragma(connection: sa.Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
