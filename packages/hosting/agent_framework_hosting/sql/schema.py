"""The parts of the schema, one per package, and their migrations.

Every part has an Alembic chain and a version table of its own, so that packages are upgraded independently of each
other. Other packages bring parts through the entry point group `agent_framework_hosting.schemas`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..stores.base import Prunable, Retention
    from .database import Database

SCHEMAS: Final = "agent_framework_hosting.schemas"
"""Entry point group in which packages name their `SchemaPart`."""

_SCRIPTS: Final = Path(__file__).parent / "migrations"

# Any number that other users of the database are unlikely to have chosen.
_ADVISORY_LOCK: Final = 7_229_041_518_806

# Alembic tells `env.py` which migration runs through a global of the process.
_ALEMBIC: Final = threading.Lock()

StoresOf: TypeAlias = "Callable[[Database, Retention], Sequence[Prunable]]"
"""Makes the stores of a package over a database, with this retention."""


def _no_stores(_database: Database, _retention: Retention) -> Sequence[Prunable]:
    return ()


def _nothing(_connection: sa.Connection) -> None:
    """Find nothing to object to."""


@dataclass(frozen=True, slots=True)
class SchemaPart:
    """The tables of one package: `metadata` as they are now, `versions` the directory of its Alembic migrations.

    `stores` makes the stores over these tables that do not forget by themselves, for `afhost db prune` and `stats`.
    `dialects` are the databases that have the part; the others know nothing of it. `verify` looks at what a revision
    number does not tell, and raises `ConfigurationError`.
    """

    name: str
    metadata: sa.MetaData
    versions: Path
    stores: StoresOf = _no_stores
    dialects: frozenset[str] = frozenset({"sqlite", "postgresql"})
    verify: Callable[[sa.Connection], None] = _nothing

    @property
    def version_table(self) -> str:
        """The table that holds the revision the database is at."""
        return f"alembic_version_{self.name}"

    def applies_to(self, connection: sa.Connection) -> bool:
        """Whether databases of this kind have the part."""
        return connection.dialect.name in self.dialects


def installed_parts() -> tuple[SchemaPart, ...]:
    """Return the parts of every installed package, in the order of their names."""
    found = sorted(entry_points(group=SCHEMAS), key=lambda entry_point: entry_point.name)
    return tuple(cast("SchemaPart", entry_point.load()) for entry_point in found)


def upgrade(engine: sa.Engine, parts: Sequence[SchemaPart]) -> None:
    """Bring every part to its newest revision; processes that do so at once wait for each other.

    Raises:
        ConfigurationError: a part is at a revision that this version does not know.
    """
    with _ALEMBIC, engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
        else:
            # Waiting for another process, or for a large table to be changed, may take longer than any request.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        try:
            for part in parts:
                if not part.applies_to(connection):
                    continue
                _refuse_newer(part, revision(connection, part))
                command.upgrade(_config(part, connection), "head")
        except BaseException:
            _end(connection, "ROLLBACK")
            raise
        _end(connection, "COMMIT")


def check(engine: sa.Engine, parts: Sequence[SchemaPart]) -> None:
    """Check that every part is at its newest revision.

    Raises:
        ConfigurationError: one is not; the message says what to do.
    """
    with engine.connect() as connection:
        for part in parts:
            if not part.applies_to(connection):
                continue
            found, newest = revision(connection, part), head(part)
            if found == newest:
                part.verify(connection)
                continue
            _refuse_newer(part, found)
            raise ConfigurationError(
                f"The database's schema of {part.name!r} is at {found or 'nothing'}, older than {newest}: "
                "run `afhost db upgrade`."
            )


def revision(connection: sa.Connection, part: SchemaPart) -> str | None:
    """Return the revision of the part in the database, `None` if it is not there."""
    return MigrationContext.configure(connection, opts={"version_table": part.version_table}).get_current_revision()


def head(part: SchemaPart) -> str | None:
    """Return the part's newest revision."""
    return _directory(part).get_current_head()


def _refuse_newer(part: SchemaPart, found: str | None) -> None:
    if found is not None and found not in {script.revision for script in _directory(part).walk_revisions()}:
        raise ConfigurationError(
            f"The database's schema of {part.name!r} is at {found}, which this version does not know: "
            "a newer version has upgraded it. Install that version."
        )


def _end(connection: sa.Connection, how: str) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(how)
    elif how == "COMMIT":
        connection.commit()
    else:
        connection.rollback()


def _config(part: SchemaPart, connection: sa.Connection | None = None) -> Config:
    config = Config()
    # Config values are templates: a "%" in a path must be doubled.
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(part.versions).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = part.version_table
    config.attributes["metadata"] = part.metadata
    return config


def _directory(part: SchemaPart) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(part))
