"""One SQL database, SQLite or PostgreSQL, behind one method: run this function in a transaction.

SQLAlchemy is used synchronously, in threads of the database's own. Measured with a transaction of two inserts on SQLite:
the async engine costs 2.5 ms, a thread 0.4 ms, and less when transactions that wait for each other share a commit.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import StaticPool

from ..errors import ConfigurationError, StoreUnavailable

ResultT = TypeVar("ResultT")

Work = Callable[[sa.Connection], ResultT]
"""What is done inside one transaction. Runs in another thread; called again if the transaction has to be repeated."""

POOL_SIZE: Final = 10
"""Connections to PostgreSQL that one process uses at once."""

_MOST_SHARED: Final = 64
_BUSY_SECONDS: Final = 10.0
_MOST_JOURNAL_BYTES: Final = 16 * 1024 * 1024


class Database:
    """A SQL database. Open it with `open`, close it with `close`; in between `run` and nothing else.

    `url` is a SQLAlchemy URL, made by `sqlite_url` or `postgres_url`.
    """

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._engine: sa.Engine | None = None
        self._worker: _Worker | _Pool | None = None

    @property
    def engine(self) -> sa.Engine:
        """The engine, for migrations and tools; stores use `run`."""
        if self._engine is None:
            raise StoreUnavailable("The database is not open.")
        return self._engine

    def open(self) -> None:
        """Make the connections possible; PostgreSQL is not contacted before the first transaction."""
        if self._engine is not None:
            return
        self._engine = _sqlite_engine(self.url) if self.is_sqlite else _postgres_engine(self.url)
        self._worker = _Worker(self._engine) if self.is_sqlite else _Pool(self._engine)

    async def run(self, work: Work[ResultT]) -> ResultT:
        """Return what `work` returns once its transaction is committed; what it raises rolls the transaction back.

        Raises:
            StoreUnavailable: the database cannot be reached, or the connection was lost; nothing is known to be written.
        """
        if self._worker is None:
            raise StoreUnavailable("The database is not open.")
        try:
            return await self._worker.run(work)
        except (OperationalError, InterfaceError) as error:
            raise StoreUnavailable("The database cannot be used now.") from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise StoreUnavailable("The connection to the database was lost.") from error
            raise

    async def close(self) -> None:
        """Let running transactions end and close every connection."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """Do as `close` does, for tools: no event loop runs meanwhile."""
        worker, engine = self._worker, self._engine
        self._worker = self._engine = None
        if worker is not None and engine is not None:
            worker.stop()
            engine.dispose()

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Return an insert of this database's own kind, which knows `on_conflict_do_nothing` and `…_update`."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)


def sqlite_url(path: str) -> sa.URL:
    """Return the URL of a SQLite file."""
    return sa.URL.create("sqlite", database=path)


def postgres_url(url: str) -> sa.URL:
    """Return `url` (`postgresql://…`) with the driver this package uses.

    Raises:
        ConfigurationError: it is no PostgreSQL URL; the message does not repeat it, for it may hold a password.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise ConfigurationError("database_url is no URL: use postgresql://user@host/database.") from None
    if parsed.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ConfigurationError(
            f"database_url names {parsed.drivername!r}: use postgresql://…; for SQLite use state_dir."
        )
    return parsed.set(drivername="postgresql+psycopg")


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    # AUTOCOMMIT: this module writes BEGIN and COMMIT itself; the driver's own would come at the wrong moments.
    engine = sa.create_engine(
        url, poolclass=StaticPool, isolation_level="AUTOCOMMIT", connect_args={"check_same_thread": False}
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
        # Before anything is written: what retention erases is given back to the disk bit by bit (`space.py`). Inserting
        # costs the same with it.
        cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA journal_size_limit = {_MOST_JOURNAL_BYTES}")
        # With WAL a killed process loses nothing; a power cut may lose the last commits, but corrupts nothing.
        cursor.execute("PRAGMA synchronous = NORMAL")
        # What is deleted must not stay readable in the file (D5).
        cursor.execute("PRAGMA secure_delete = ON")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    return engine


def _postgres_engine(url: sa.URL) -> sa.Engine:
    return sa.create_engine(
        url, pool_size=POOL_SIZE, max_overflow=0, pool_pre_ping=True, connect_args={"connect_timeout": 10}
    )


@dataclass(slots=True)
class _Job:
    """A transaction that waits for the SQLite thread, and where its outcome goes."""

    work: Work[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        if self.future.done():  # whoever waited has been cancelled; the transaction counts all the same
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Worker:
    """The one thread that uses the SQLite connection. Transactions that are waiting at the same time share a commit."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="afhost-sqlite", daemon=True)
        self._thread.start()

    async def run(self, work: Work[ResultT]) -> ResultT:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()
        self._jobs.put(_Job(work, loop, future))
        return await future

    def stop(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def _serve(self) -> None:
        with self._engine.connect() as connection:
            while (jobs := self._waiting()) is not None:
                _transact(connection, jobs)
                for loop in {job.loop for job in jobs}:
                    _tell(loop, [job for job in jobs if job.loop is loop])

    def _waiting(self) -> list[_Job] | None:
        """Return the transactions that wait, at least one; `None` when the worker is to stop."""
        first = self._jobs.get()
        if first is None:
            return None
        jobs = [first]
        while len(jobs) < _MOST_SHARED:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)  # after these
                break
            jobs.append(job)
        return jobs


def _transact(connection: sa.Connection, jobs: Sequence[_Job]) -> None:
    """Run the jobs in one transaction, each rolled back alone if it fails."""
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101  the pool has just lent it
    try:
        # At the driver: three statements that have neither parameters nor results.
        driver.execute("BEGIN IMMEDIATE")
        for job in jobs:
            if len(jobs) > 1:
                driver.execute("SAVEPOINT job")
            try:
                job.result = job.work(connection)
            except BaseException as error:  # noqa: BLE001  handed to whoever waits for it
                job.error = error
                driver.execute("ROLLBACK TO job" if len(jobs) > 1 else "ROLLBACK")
            if len(jobs) > 1:
                driver.execute("RELEASE job")
        if driver.in_transaction:
            driver.execute("COMMIT")
    except Exception as error:  # noqa: BLE001  the file cannot be written: nobody's transaction has happened
        if driver.in_transaction:
            driver.execute("ROLLBACK")
        for job in jobs:
            job.error = job.error or _unavailable(error)


def _unavailable(error: Exception) -> StoreUnavailable:
    unavailable = StoreUnavailable("The database file cannot be used now.")
    unavailable.__cause__ = error
    return unavailable


def _tell(loop: asyncio.AbstractEventLoop, jobs: Sequence[_Job]) -> None:
    def tell() -> None:
        for job in jobs:
            job.tell()

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return


class _Pool:
    """Threads with a PostgreSQL connection each."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(max_workers=POOL_SIZE, thread_name_prefix="afhost-postgres")

    async def run(self, work: Work[ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._transact, work)

    def stop(self) -> None:
        self._threads.shutdown(wait=True)

    def _transact(self, work: Work[ResultT]) -> ResultT:
        with self._engine.begin() as connection:
            return work(connection)
