"""One SQL database, SQLite or PostgreSQL, behind one method: run this function in a transaction.

SQLAlchemy is used synchronously, in threads of the database's own. Measured with a transaction of two inserts on SQLite:
the async engine costs 2.5 ms, a thread 0.35 ms, and 0.12 ms when transactions that wait for each other share a commit.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import StaticPool

from ..errors import ConfigurationError, StoreUnavailable

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

Work = Callable[[sa.Connection], ResultT]
"""What is done inside one transaction. Runs in another thread, and again if the transaction has to be repeated.

It neither commits nor rolls back. What it wants to survive inside the transaction it puts in `connection.begin_nested()`.
"""

POOL_SIZE: Final = 10
"""Connections to PostgreSQL that the stores of one process use at once."""

_MOST_SHARED: Final = 64
_BUSY_SECONDS: Final = 10.0
_MOST_JOURNAL_BYTES: Final = 16 * 1024 * 1024

# VACUUM takes 10 ms/MB, in which no transaction begins: a third of a second at most.
_MOST_VACUUMED: Final = 32_000_000
_IDLE_SECONDS: Final = 1.0

# Bounds on waiting for a PostgreSQL that does not answer; without them `close` could wait for ever. Seconds for a new
# connection, milliseconds for bytes that nobody confirms and for one statement. And for a transaction that does nothing:
# a process that stands still in it must not keep its locks from those who take over what it ran, nor from starting. A
# URL's own parameters go first.
_POSTGRES_DEFAULTS: Final = {
    "connect_timeout": "10",
    "tcp_user_timeout": "30000",
    "application_name": "agent-framework-hosting",
}
_POSTGRES_OPTIONS: Final = "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=10000"
# A deadlock, or a conflict of serializable transactions: PostgreSQL has rolled back one so that the other can go on.
_CONFLICTS: Final = frozenset({"40001", "40P01"})


class Database:
    """A SQL database. Open it with `open`, close it with `close`; in between `run` and nothing else.

    `url` is a SQLAlchemy URL, made by `sqlite_url` or `postgres_url`. May be opened again once it is closed, and used by
    several event loops. `connections` is how many transactions PostgreSQL executes at once; the others wait here.
    """

    def __init__(self, url: sa.URL, *, connections: int = POOL_SIZE) -> None:
        self.url = url
        self._connections = connections
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._engine: sa.Engine | None = None
        self._worker: _Worker | _Pool | None = None

    @property
    def engine(self) -> sa.Engine:
        """The engine, for migrations and tools, before the first `run`; stores use `run`."""
        if self._engine is None:
            raise StoreUnavailable("The database is not open.")
        return self._engine

    def open(self) -> None:
        """Open SQLite's file, or make the connections possible: PostgreSQL is not contacted before the first use.

        Raises:
            ConfigurationError: the file cannot be opened, or is no SQLite database.
        """
        if self._engine is not None:
            return
        if self.is_sqlite:
            engine = _sqlite_engine(self.url)
            try:
                self._worker = _Worker(engine)
            except (DBAPIError, sqlite3.Error) as error:
                engine.dispose()
                raise ConfigurationError(f"{self.url.database} cannot be opened as a SQLite database.") from error
        else:
            engine = _postgres_engine(self.url, connections=self._connections)
            self._worker = _Pool(engine, threads=self._connections)
        self._engine = engine

    async def run(self, work: Work[ResultT], *, erases: bool = False) -> ResultT:
        """Return what `work` returns once its transaction is committed; what it raises rolls the transaction back.

        `erases` says that what it deletes must not stay readable (D5). SQLite's files hold no such row on return, unless
        another process reads them meanwhile. Copies that SQLite left behind when it moved rows between pages (seen of 1
        row in 200) go when the database has been idle for a second, or is closed, if the file has up to 32 MB; larger ones
        keep them until an operator calls VACUUM. PostgreSQL removes what is deleted when it vacuums.

        A cancelled call does nothing if the transaction has not begun; otherwise it waits until the transaction has
        ended, committed or not, so that what the caller does next comes after it. A second cancellation does not wait.

        Raises:
            StoreUnavailable: the database cannot be used, or the connection was lost. Nothing is written, unless the
                connection was lost in the commit: then nobody knows.
        """
        worker = self._worker
        if worker is None:
            raise StoreUnavailable("The database is not open.")
        job = _Job(work, erases=erases)
        worker.put(job)
        try:
            return await job.outcome()
        except DBAPIError as error:
            if _is_unavailable(error):
                raise StoreUnavailable("The database cannot be used now.") from error
            raise

    async def close(self) -> None:
        """Let the transactions that were given to `run` end, and close every connection."""
        await asyncio.to_thread(self._ending())

    def close_now(self) -> None:
        """Do as `close` does, for tools: a running event loop would stand still meanwhile."""
        self._ending()()

    def _ending(self) -> Callable[[], None]:
        """Refuse new transactions from now on; return what waits for the others, in one piece: `close` may be cancelled."""
        worker, engine = self._worker, self._engine
        self._worker = self._engine = None

        def end() -> None:
            if worker is not None and engine is not None:
                worker.stop()
                engine.dispose()

        return end

    def arguments(self) -> dict[str, Any]:
        """Return what connects the driver to this database, for connections that no transaction needs (PostgreSQL)."""
        _, arguments = self.engine.dialect.create_connect_args(self.url)
        return {**arguments, **_postgres_bounds(self.url)}

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
    except (sa.exc.ArgumentError, ValueError):  # the latter for a port
        raise ConfigurationError("database_url is no URL: use postgresql://user@host/database.") from None
    if parsed.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ConfigurationError(
            f"database_url names {parsed.drivername!r}: use postgresql://…; for SQLite use state_dir."
        )
    return parsed.set(drivername="postgresql+psycopg")


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    # AUTOCOMMIT: this module writes BEGIN and COMMIT itself; the driver's own would come at the wrong moments.
    engine = sa.create_engine(
        url,
        poolclass=StaticPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,  # they are users' texts; an error's message goes to the log
        connect_args={"check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}")
        # Before anything is written: what retention erases is given back to the disk bit by bit (`space`). Inserting
        # costs the same with it.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {_MOST_JOURNAL_BYTES}")
        # With WAL a killed process loses nothing; a power cut may lose the last commits, but corrupts nothing.
        connection.execute("PRAGMA synchronous = NORMAL")
        # What is deleted must not stay readable in the file, nor in files beside it (D5).
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA foreign_keys = ON")

    return engine


def _postgres_engine(url: sa.URL, *, connections: int) -> sa.Engine:
    # No ping before each transaction: one whose connection turns out to be lost is repeated.
    engine = sa.create_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,
        connect_args=_postgres_bounds(url),
    )
    # `(a, b) IN (VALUES …)`: joined with the table over its index. A list of pairs is a condition for each pair.
    engine.dialect.tuple_in_values = True
    return engine


def _postgres_bounds(url: sa.URL) -> dict[str, str]:
    """Return the parameters of a connection that the URL does not have, and its options behind ours."""
    defaults = {name: value for name, value in _POSTGRES_DEFAULTS.items() if name not in url.query}
    # Together: whoever names a schema there (`-csearch_path=…`) still needs the bounds. The server takes the last value.
    given = url.normalized_query.get("options", ())
    return {**defaults, "options": " ".join([_POSTGRES_OPTIONS, *given])}


def _is_unavailable(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    # SQLite calls mistakes in a statement operational errors, too.
    is_mistake = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    return isinstance(error, (OperationalError, InterfaceError)) and not is_mistake


class _Job(Generic[ResultT]):
    """A transaction that waits for a database thread, and where its outcome goes."""

    def __init__(self, work: Work[ResultT], *, erases: bool) -> None:
        self.work = work
        self.erases = erases
        self.loop = asyncio.get_running_loop()
        self.result: Any = None
        self.error: BaseException | None = None
        # Read by the database thread before it begins: nobody wants the transaction any more.
        self.is_cancelled = False
        self._future: asyncio.Future[ResultT] = self.loop.create_future()
        self._end: asyncio.Future[None] | None = None
        self._is_told = False

    async def outcome(self) -> ResultT:
        """Return or raise what the transaction does, or wait for its end if cancelled."""
        try:
            return await self._future
        except asyncio.CancelledError:
            # `tell` runs in this loop, too: it has either been called, or will find `_end`.
            if not self._is_told:
                self.is_cancelled = True
                self._end = self.loop.create_future()
                await self._end
            raise

    def attempt(self, connection: sa.Connection) -> bool:
        """Do the work; return whether the transaction may be committed."""
        self.error = None
        try:
            self.result = self.work(connection)
        except BaseException as error:  # noqa: BLE001  handed to whoever waits for it
            self.error = error
        return self.error is None

    def tell(self) -> None:
        """Give the outcome to whoever waits; in the loop of the job."""
        self._is_told = True
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        if self._future.done():  # cancelled
            return
        if isinstance(self.error, StopIteration):  # a future does not take it
            self._future.set_exception(RuntimeError("A transaction raised StopIteration."))
        elif self.error is not None:
            self._future.set_exception(self.error)
        else:
            self._future.set_result(self.result)


def _tell(jobs: Sequence[_Job[Any]]) -> None:
    """Give the jobs' outcomes to their loops, each of which is woken once."""
    for loop in {job.loop for job in jobs}:

        def tell(loop: asyncio.AbstractEventLoop = loop) -> None:
            for job in jobs:
                if job.loop is loop:
                    job.tell()

        try:
            loop.call_soon_threadsafe(tell)
        except RuntimeError:  # the loop is closed: nobody waits any more
            continue


class _Worker:
    """The one thread that uses the SQLite connection. Transactions that are waiting at the same time share a commit."""

    def __init__(self, engine: sa.Engine) -> None:
        self._connection = engine.connect()
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        # Held while a job or the end is queued: a job behind the end would never be answered.
        self._lock = threading.Lock()
        self._is_stopped = False
        self._owes_scrub = False
        self._owes_vacuum = False
        self._is_told = False
        self._thread = threading.Thread(target=self._serve, name="afhost-sqlite", daemon=True)
        self._thread.start()

    def put(self, job: _Job[Any]) -> None:
        with self._lock:
            if self._is_stopped:
                raise StoreUnavailable("The database is not open.")
            self._jobs.put(job)

    def stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            self._jobs.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while self._serve_waiting():
            pass
        if self._owes_vacuum:
            _vacuum(self._connection)
        self._connection.close()

    def _serve_waiting(self) -> bool:
        jobs = self._waiting()
        wanted = [job for job in jobs if not job.is_cancelled]
        if wanted:
            driver = _driver(self._connection)
            changes = driver.total_changes
            _transact(self._connection, wanted)
            if any(job.erases for job in wanted):
                self._owes_scrub = True
                # Pruning that finds nothing must not have the whole file written anew every time.
                self._owes_vacuum = self._owes_vacuum or driver.total_changes != changes
        if self._owes_scrub:
            self._scrub()
        _tell(jobs)
        return bool(jobs)

    def _scrub(self) -> None:
        self._owes_scrub, was_told = not _scrub(self._connection), self._is_told
        self._is_told = self._owes_scrub
        if self._owes_scrub and not was_told:
            logger.warning("Deleted rows stay in the database's log until no other process reads it.")

    def _waiting(self) -> list[_Job[Any]]:
        """Return the transactions that wait, at least one; none when the worker is to stop."""
        job = self._first()
        jobs: list[_Job[Any]] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == _MOST_SHARED:
                return jobs
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs
        if jobs:
            self._jobs.put(None)  # after these
        return jobs

    def _first(self) -> _Job[Any] | None:
        if self._owes_vacuum:
            try:
                return self._jobs.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                self._owes_vacuum = False
                _vacuum(self._connection)
        return self._jobs.get()


def _driver(connection: sa.Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101  the pool has lent it
    return driver


def _transact(connection: sa.Connection, jobs: Sequence[_Job[Any]]) -> None:
    """Run the jobs in one transaction, each rolled back alone if it fails."""
    driver = _driver(connection)
    try:
        # At the driver: statements that have neither parameters nor results.
        if driver.in_transaction:  # its rollback has failed
            driver.execute("ROLLBACK")
        driver.execute("BEGIN IMMEDIATE")
        if len(jobs) == 1:
            driver.execute("COMMIT" if jobs[0].attempt(connection) else "ROLLBACK")
            return
        for job in jobs:
            driver.execute("SAVEPOINT job")
            if not job.attempt(connection):
                driver.execute("ROLLBACK TO job")
            driver.execute("RELEASE job")
        driver.execute("COMMIT")
    except Exception as error:  # noqa: BLE001  nobody's transaction has happened
        for job in jobs:
            job.error = job.error or _unavailable(error)
        if driver.in_transaction:
            _roll_back(driver)


def _unavailable(error: Exception) -> StoreUnavailable:
    unavailable = StoreUnavailable("The database file cannot be used now.")
    unavailable.__cause__ = error
    return unavailable


def _roll_back(driver: sqlite3.Connection) -> None:
    try:
        driver.execute("ROLLBACK")
    except sqlite3.Error:
        logger.exception("A transaction could not be rolled back; trying again before the next one.")


def _scrub(connection: sa.Connection) -> bool:
    """Remove what has been deleted from the files; return whether it is done.

    A deletion overwrites the page in the write-ahead log; older pages stay in the log and in the file until the log is
    written back and emptied, which another process that reads the file prevents.
    """
    driver = _driver(connection)
    driver.execute("PRAGMA busy_timeout = 0")  # everybody's transactions would wait
    try:
        is_busy, *_ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:
        logger.exception("The database's log could not be written back, it is tried again")
        return False
    finally:
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}")
    return not is_busy


def _vacuum(connection: sa.Connection) -> None:
    """Write the file anew if it is small: pages have unused space, with copies of rows that were moved and then deleted."""
    driver = _driver(connection)
    try:
        (size,) = driver.execute(
            "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        ).fetchone()
        if size <= _MOST_VACUUMED:
            driver.execute("VACUUM")
            _scrub(connection)
    except sqlite3.Error:
        logger.exception("The database file could not be vacuumed: copies of deleted rows may be in it.")


class _Pool:
    """Threads with a PostgreSQL connection each."""

    def __init__(self, engine: sa.Engine, *, threads: int) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="afhost-postgres")

    def put(self, job: _Job[Any]) -> None:
        try:
            self._threads.submit(self._serve, job)
        except RuntimeError:
            raise StoreUnavailable("The database is not open.") from None

    def stop(self) -> None:
        self._threads.shutdown(wait=True)

    def _serve(self, job: _Job[Any]) -> None:
        if not job.is_cancelled:
            try:
                self._transact(job)
            except BaseException as error:  # noqa: BLE001  handed to whoever waits for it
                job.error = error
        _tell([job])

    def _transact(self, job: _Job[Any]) -> None:
        for is_last in (False, False, True):
            with self._engine.connect() as connection:
                if job.attempt(connection):
                    connection.commit()
                    return
            if is_last or not _is_worth_repeating(job.error):
                return


def _is_worth_repeating(error: BaseException | None) -> bool:
    # The server has been restarted since the connection was last used; or it chose this transaction to give way. Never
    # after a commit: it may have happened.
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _CONFLICTS
