"""What state takes: bytes in rows, in files, and in the memory and the CPU time of processes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from benchmarks.stored_hosts import SQLITE, Place
from sqlalchemy.pool import NullPool

from agent_framework_hosting.sql.database import postgres_url

_NUMBER_BYTES: Final = 8


class Contents:
    """The rows of a host's database, read from outside while the host is idle."""

    def __init__(self, place: Place) -> None:
        self._is_sqlite = place.store == SQLITE
        if self._is_sqlite:
            url = sa.make_url(f"sqlite:///file:{place.file}?mode=ro&uri=true")
        else:
            assert place.url is not None
            url = postgres_url(place.url)
        self._engine = sa.create_engine(url, poolclass=NullPool)
        self._metadata = sa.MetaData()
        self._metadata.reflect(self._engine, only=lambda name, _: name.startswith("afhost_"))

    def size(self) -> int:
        """Return the bytes of all values in all rows of all tables of the host and its channels; a number counts as 8, NULL as nothing."""
        total = 0
        with self._engine.connect() as connection:
            for table in self._metadata.sorted_tables:
                columns = [sa.func.coalesce(self._bytes(column), 0) for column in table.columns]
                total += sum(int(value) for value in connection.execute(sa.select(*columns)).one())
        return total

    def pages(self) -> int | None:
        """Return the bytes of SQLite's file as it is once the write-ahead log is written back."""
        if not self._is_sqlite:
            return None
        with self._engine.connect() as connection:
            page_count = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            return int(page_count * connection.exec_driver_sql("PRAGMA page_size").scalar_one())

    def responses(self) -> int:
        """Return how many responses there are."""
        table = self._metadata.tables["afhost_responses"]
        with self._engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())

    def _bytes(self, column: sa.Column[Any]) -> sa.ColumnElement[int]:
        if not isinstance(column.type, (sa.String, sa.LargeBinary)):
            return sa.func.count(column) * _NUMBER_BYTES
        if self._is_sqlite:
            return sa.func.sum(sa.func.length(sa.cast(column, sa.LargeBinary)))
        return sa.func.sum(sa.func.octet_length(column))


def file_bytes(file: Path) -> int:
    """Return the bytes of SQLite's file and of its write-ahead log."""
    log = file.with_name(f"{file.name}-wal")
    return file.stat().st_size + (log.stat().st_size if log.exists() else 0)


def resident_bytes(pid: int) -> int:
    """Return the memory that a process has in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class DatabaseServer:
    """The processes of a PostgreSQL server."""

    def __init__(self, url: str) -> None:
        self._url = url
        with psycopg.connect(url) as connection:
            # While there is a connection: its process is gone soon after.
            stat = Path(f"/proc/{connection.info.backend_pid}/stat")
            is_here = stat.exists() and "postgres" in stat.read_text(encoding="utf-8")
            # Of a server elsewhere nothing is known.
            self._pid = int(_fields(stat)[1]) if is_here else None

    def settings(self) -> str:
        """Return the version, and the settings that say what a commit waits for."""
        with psycopg.connect(self._url) as connection:
            names = ("server_version", "fsync", "synchronous_commit")
            values = [connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in names]
        version, *switches = [str(value[0]) for value in values if value is not None]
        pairs = zip(names[1:], switches, strict=True)
        return f"{version.split()[0]}, {', '.join(f'{name} {value}' for name, value in pairs)}"

    def cpu_seconds(self) -> float:
        """Return the CPU time that all its processes have used so far; 0 if it runs elsewhere."""
        if self._pid is None:
            return 0.0
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = _fields(stat)
            except OSError:  # it has ended
                continue
            if int(fields[1]) == self._pid:
                ticks += int(fields[11]) + int(fields[12])
        # Children that have ended count for their parent.
        ticks += sum(map(int, _fields(Path(f"/proc/{self._pid}/stat"))[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")


def _fields(stat: Path) -> list[str]:
    return stat.read_text(encoding="utf-8").rpartition(")")[2].split()


def sync_seconds(directory: Path) -> float:
    """Return what this disk takes to keep 8 KB for good, the median of some attempts."""
    file = directory / "sync"
    seconds = []
    with file.open("wb") as output:
        for _ in range(21):
            output.write(b"\0" * 8_192)
            output.flush()
            started = time.perf_counter()
            os.fdatasync(output.fileno())
            seconds.append(time.perf_counter() - started)
    file.unlink()
    return sorted(seconds)[len(seconds) // 2]
