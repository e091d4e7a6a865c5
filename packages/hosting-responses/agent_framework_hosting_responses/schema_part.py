"""The channel's part of the schema: its tables, their migrations, and the stores over them, for tools.

Named by an entry point, and imported by nobody: it knows every store, which know the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent_framework_hosting.sql.checkpoints import SqlCheckpoints
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.schema import SchemaPart
from agent_framework_hosting.stores.base import Prunable, Retention
from agent_framework_hosting.stores.sql import SqlSessionStore

from .stores import tables
from .stores.sql_conversations import SqlConversationStore
from .stores.sql_erasure import erasing_checkpoints
from .stores.sql_responses import SqlResponseStore


def _stores(database: Database, retention: Retention) -> Sequence[Prunable]:
    # Those in the same database; those in files are their host's.
    before_pruning = erasing_checkpoints(SqlSessionStore(database), SqlCheckpoints(database))
    return (
        SqlResponseStore(database, retention=retention, before_pruning=before_pruning),
        SqlConversationStore(database, retention=retention),
    )


SCHEMA: Final = SchemaPart("responses", tables.metadata, Path(tables.__file__).parent / "versions", _stores)
"""The channel's part of the schema."""
