"""The host's part of the schema: its tables, their migrations, and the stores over them, for tools.

Named by an entry point, and imported by nobody: it knows every store, which know the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .runs.sql_log import SqlRunLog
from .sql import tables
from .sql.checkpoints import SqlCheckpoints
from .sql.database import Database
from .sql.schema import SchemaPart
from .stores.base import Prunable, Retention
from .stores.sql import SqlSessionStore


def _stores(database: Database, retention: Retention) -> Sequence[Prunable]:
    return (
        SqlSessionStore(database, retention=retention),
        SqlCheckpoints(database, retention=retention),
        SqlRunLog(database),
    )


SCHEMA: Final = SchemaPart("hosting", tables.metadata, Path(tables.__file__).parent / "versions", stores=_stores)
"""The host's part of the schema."""
