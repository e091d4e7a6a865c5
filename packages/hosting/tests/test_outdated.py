"""What a retention no longer covers, on the rows of checkpoints."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.outdated import Outdated
from agent_framework_hosting.sql.tables import checkpoints
from agent_framework_hosting.stores.base import Retention

OUTDATED = Outdated(
    sa.select(checkpoints.c.checkpoint_id).where(checkpoints.c.chain != "in use").order_by(checkpoints.c.stored_at),
    count=sa.select(sa.func.count()).select_from(checkpoints),
    stored_at=checkpoints.c.stored_at,
)


async def found(database: Database, retention: Retention, *, limit: int = 100) -> str:
    """Return the names of the rows that are found at second 10, of rows a to f of the seconds 1 to 6; b is in use."""

    def find(connection: sa.Connection) -> str:
        connection.execute(sa.delete(checkpoints))
        for second, name in enumerate("abcdef", 1):
            place = {"partition": "", "chain": "in use" if name == "b" else "free", "checkpoint_id": name}
            rest = {"workflow_name": "w", "position": 9 - second, "checkpoint": b"", "stored_at": float(second)}
            connection.execute(sa.insert(checkpoints), {**place, **rest})
        rows = OUTDATED.find(connection, retention, now=10, limit=limit)
        return "".join(row.checkpoint_id for row in rows)

    return await database.run(find)


@pytest.mark.parametrize(
    ("retention", "names"),
    [
        (Retention(max_age=None), ""),
        (Retention(max_age=6), "ac"),
        (Retention(max_age=0), "acdef"),
        (Retention(max_age=None, max_entries=6), ""),
        (Retention(max_age=None, max_entries=4), "ac"),
        (Retention(max_age=None, max_entries=0), "acdef"),
        (Retention(max_age=6, max_entries=5), "ac"),
        (Retention(max_age=8, max_entries=3), "acd"),
    ],
)
async def test_the_oldest_rows_that_may_go_are_found_if_they_are_too_old_or_too_many(
    database: Database, retention: Retention, names: str
) -> None:
    assert await found(database, retention) == names
    assert await found(database, retention, limit=2) == names[:2]
