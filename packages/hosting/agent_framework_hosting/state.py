"""Where a host keeps its state: chosen from its options, opened before its channels start, closed after they stop."""

from __future__ import annotations

import asyncio
import importlib
import math
import os
import sys
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from .checkpoints import (
    AllowedTypes,
    CheckpointLocation,
    Checkpoints,
    FileCheckpoints,
    LastingCheckpoints,
    MemoryCheckpoints,
    StorageCheckpoints,
    is_storage,
    read_allowed_types,
)
from .directories import PathName, StateDirectories, make_directory, read_directories, read_directory
from .errors import ConfigurationError
from .retention import Pruner
from .stores.base import Prunable, Retention, SessionStore
from .stores.memory import MemorySessionStore
from .types import HostStatePaths

if TYPE_CHECKING:  # the SQL packages are optional dependencies, loaded for those who configure a database
    from .runs.procrastinate import ProcrastinateRunEngine
    from .runs.sql_log import SqlRunLog
    from .sql.database import Database
    from .sql.file import DatabaseFile
    from .sql.presence import Presence

DATABASE_VARIABLE: Final = "AFHOST_DATABASE_URL"
"""Environment variable with the URL of the database of a host that names neither a database nor a directory."""

RUN_CONCURRENCY: Final = 10
"""Background runs that a process executes at once, of all that the processes on one PostgreSQL database have."""

StateKind: TypeAlias = Literal["memory", "sqlite", "postgresql"]

_EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "sqlite": ("sqlalchemy", "alembic", "filelock"),
    "postgres": ("sqlalchemy", "alembic", "psycopg", "procrastinate"),
}


@dataclass(slots=True, kw_only=True)
class HostState:
    """What a host knows between requests. `open` before and `close` after it is used, as often as the host starts.

    `owner` names this process in the database, or nobody but itself without one. `retention` is that of the host's own
    stores, `None` for their defaults. `allowed_checkpoint_types` may be in the checkpoints of workflows, by name.
    """

    kind: StateKind
    session_store: SessionStore
    directories: StateDirectories = field(default_factory=StateDirectories)
    retention: Retention | None = None
    allowed_checkpoint_types: frozenset[str] = frozenset()
    database: Database | None = None
    presence: Presence | None = None
    run_log: SqlRunLog | None = None
    engine: ProcrastinateRunEngine | None = None
    owner: str = field(default_factory=lambda: f"proc_{uuid.uuid4().hex}")
    pruner: Pruner = field(default_factory=Pruner)
    _file: DatabaseFile | None = None
    _signs: Database | None = None
    _made: Path | None = None
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def open(self) -> None:
        """Open the database and see to its schema. `close` afterwards, also if this fails.

        Raises:
            ConfigurationError: the state cannot be used, or another process uses it; the message says what to change.
            StoreUnavailable: the database cannot be reached.
        """
        if self._made is not None:
            await asyncio.to_thread(_make, self._made)
        if self.database is None:
            return
        from .sql import prepare  # noqa: PLC0415  optional dependency

        # A cancelled start must not leave a thread behind that still opens what is being closed.
        opening = asyncio.ensure_future(asyncio.to_thread(self._open_database, self.database))
        self._opened.push_async_callback(self._close_database, self.database, opening)
        await asyncio.shield(opening)
        if self.run_log is not None:
            self._opened.push_async_callback(self.run_log.stop)
            await self.run_log.start()
        if self.engine is not None:
            self._opened.push_async_callback(self.engine.close)
        if self._signs is not None:
            self._opened.push_async_callback(self._signs.close)
            self._signs.open()  # contacts nobody
        if self.presence is not None:
            self._opened.push_async_callback(self.presence.stop)
            # The first that is written: it tells whether the rights are there.
            with prepare.clear_errors(self.database.url):
                await self.presence.start()

    async def close(self) -> None:
        """Let go of everything that was opened; does nothing if nothing was."""
        await self._opened.aclose()

    def keep_pruned(self, store: object) -> None:
        """Have a store pruned in the background, unless it forgets by itself."""
        store = store.storage if isinstance(store, StorageCheckpoints) else store
        if isinstance(store, Prunable):
            self.pruner.add(store)

    def checkpoints(self, location: CheckpointLocation | None = None) -> Checkpoints | None:
        """Return where a workflow's checkpoints go, in `location` if it is given; `None` for the target's own, in memory.

        Raises:
            ConfigurationError: it is neither a directory nor a storage.
        """
        if is_storage(location):
            storage = StorageCheckpoints(location)
            self.keep_pruned(storage)
            return storage
        directory = (
            self.directories.checkpoints if location is None else read_directory("checkpoint_location", location)
        )
        self._made = directory
        checkpoints: Checkpoints | None = self._lasting_checkpoints(directory)
        if checkpoints is None and self.retention is not None:
            checkpoints = MemoryCheckpoints(**_memory_bounds(self.retention, "max_chains"))
        self.keep_pruned(checkpoints)
        return checkpoints

    def left_checkpoints(self) -> LastingCheckpoints | None:
        """Return where workflows that are not served any more have left checkpoints; nothing is made there."""
        return self._lasting_checkpoints(self.directories.checkpoints)

    def _lasting_checkpoints(self, directory: Path | None) -> LastingCheckpoints | None:
        retention, allowed = self.retention or Retention(), self.allowed_checkpoint_types
        if directory is not None:
            return FileCheckpoints(directory, retention=retention, allowed_checkpoint_types=allowed)
        if self.database is None:
            return None
        from .sql.checkpoints import SqlCheckpoints  # noqa: PLC0415  optional dependency

        return SqlCheckpoints(self.database, retention=retention, allowed_checkpoint_types=allowed)

    def _open_database(self, database: Database) -> None:
        from .sql import prepare, schema  # noqa: PLC0415  optional dependency

        if self._file is not None:
            self._file.acquire()
        database.open()
        # One process alone has a SQLite file. A PostgreSQL database may be in use by processes of the version before.
        (prepare.upgrade if database.is_sqlite else prepare.check)(database, schema.installed_parts())

    async def _close_database(self, database: Database, opening: asyncio.Future[None]) -> None:
        await asyncio.wait([opening])
        try:
            await database.close()
        finally:
            if self._file is not None:
                await asyncio.to_thread(self._file.release)


def choose_state(
    *,
    state_dir: PathName | HostStatePaths | None = None,
    database_url: str | None = None,
    session_store: SessionStore | None = None,
    retention: Retention | None = None,
    allowed_checkpoint_types: AllowedTypes = (),
    run_concurrency: int = RUN_CONCURRENCY,
    environment: Mapping[str, str] = os.environ,
) -> HostState:
    """Return the state that a host's options describe; nothing is opened or made yet.

    Raises:
        ConfigurationError: the options contradict each other, or need an extra that is not installed.
    """
    _check_retention(retention)
    allowed_types = read_allowed_types(allowed_checkpoint_types)
    directories = read_directories(state_dir)
    if state_dir is None and database_url is None:
        database_url = environment.get(DATABASE_VARIABLE) or None
    if database_url is not None:
        if directories.sessions is not None:
            raise ConfigurationError(
                "database_url and state_dir both say where sessions lie: leave one out. A directory for the checkpoints "
                'of workflows beside a database is state_dir={"checkpoints": …}.'
            )
        state = _sql_state(postgres_database(database_url), session_store, retention, run_concurrency)
    elif directories.sessions is not None:
        database, file = sqlite_database(directories.sessions)
        state = _sql_state(database, session_store, retention, run_concurrency)
        state._file = file  # noqa: SLF001  this function is the constructor
    else:
        state = HostState(kind="memory", session_store=session_store or _memory_sessions(retention))
    state.directories = directories
    state.retention = retention
    state.allowed_checkpoint_types = allowed_types
    state.keep_pruned(state.session_store)
    return state


def sqlite_database(directory: Path) -> tuple[Database, DatabaseFile]:
    """Return the SQLite database in `directory`, and its file; neither is opened.

    Raises:
        ConfigurationError: the extra `[sqlite]` is not installed.
    """
    _require("sqlite", "state_dir")
    from .sql.database import Database, sqlite_url  # noqa: PLC0415  optional dependency
    from .sql.file import DatabaseFile  # noqa: PLC0415

    file = DatabaseFile(directory)
    return Database(sqlite_url(str(file.path))), file


def postgres_database(url: str) -> Database:
    """Return the PostgreSQL database at `url`; it is not opened.

    Raises:
        ConfigurationError: the extra `[postgres]` is not installed, or `url` is none of PostgreSQL.
    """
    _require("postgres", "database_url")
    from .sql.database import Database, postgres_url  # noqa: PLC0415  optional dependency

    return Database(postgres_url(url))


def _sql_state(
    database: Database,
    session_store: SessionStore | None,
    retention: Retention | None,
    run_concurrency: int,
) -> HostState:
    from .runs.sql_log import SqlRunLog  # noqa: PLC0415  optional dependency
    from .sql.database import Database  # noqa: PLC0415
    from .sql.presence import Presence  # noqa: PLC0415
    from .sql.space import give_back  # noqa: PLC0415
    from .stores.sql import SqlSessionStore  # noqa: PLC0415

    # Not the stores' own: statements that wait for a lock must not keep the signs of life waiting, too.
    signs = None if database.is_sqlite else Database(database.url, connections=2)
    presence = Presence(signs or database)
    run_log = SqlRunLog(database)
    state = HostState(
        kind="sqlite" if database.is_sqlite else "postgresql",
        session_store=session_store or SqlSessionStore(database, retention=retention or Retention()),
        database=database,
        presence=presence,
        run_log=run_log,
        owner=presence.owner,
        pruner=Pruner(afterwards=lambda: give_back(database)),
        _signs=signs,
    )
    state.keep_pruned(run_log)
    if not database.is_sqlite:
        from .runs.procrastinate import ProcrastinateRunEngine  # noqa: PLC0415  optional dependency

        state.engine = ProcrastinateRunEngine(
            database.url, works=run_concurrency > 0, concurrency=max(1, run_concurrency)
        )
        presence.watch(state.engine.look)
    return state


def _memory_sessions(retention: Retention | None) -> MemorySessionStore:
    return MemorySessionStore() if retention is None else MemorySessionStore(**_memory_bounds(retention, "max_entries"))


def _memory_bounds(retention: Retention, count: str) -> dict[str, Any]:
    return {
        count: sys.maxsize if retention.max_entries is None else retention.max_entries,
        "max_age": math.inf if retention.max_age is None else retention.max_age,
    }


def _check_retention(retention: Retention | None) -> None:
    for name in ("max_age", "max_entries"):
        if retention is not None and (getattr(retention, name) or 0) < 0:
            raise ConfigurationError(f"retention: {name} must be 0 or more, or None for no limit.")


def _make(directory: Path) -> None:
    try:
        make_directory(directory)
    except OSError as error:
        raise ConfigurationError(f"The directory {directory} cannot be made: {error.strerror or error}.") from error


def _require(extra: str, option: str) -> None:
    for package in _EXTRAS[extra]:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigurationError(
                f"{option} needs the extra [{extra}] ({package} cannot be imported): "
                f'pip install "agent-framework-hosting[{extra}]".'
            ) from error
