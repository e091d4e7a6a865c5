"""Responses as an operator sees them: without what was said in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from agent_framework_hosting.context import ChannelContext
from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus
from agent_framework_hosting.runs.stored import RunQuery, StoredRun
from agent_framework_hosting.sql.database import Database

from .protocol.resources import decode_response
from .service import ResponsesService
from .stores.rows import is_text
from .stores.sql_responses import SqlResponseStore
from .stores.tables import IS_RUNNING, responses

_COLUMNS = (
    "partition",
    "id",
    "status",
    "attempt",
    "owner",
    "target",
    "is_background",
    "created_at",
    "stored_at",
)

# Nobody owns it, so it counts as that of a dead process, and the next that looks after those takes it over.
_NOBODY = ""


class StoredResponses:
    """The responses in a database. See `StoredRuns`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = SqlResponseStore(database)

    async def find(self, query: RunQuery) -> Sequence[StoredRun]:
        """Return the responses that the query asks for. See `StoredRuns.find`; only that of one id tells its error."""
        if not is_text(query.partition, query.run_id):
            return []
        rows = await self._database.run(lambda connection: connection.execute(_select(query)).all())
        return [await self._run_of(row, tells_error=query.run_id is not None) for row in rows]

    async def cancel(self, key: RunKey, context: ChannelContext) -> None:
        """Stop a background response, wherever it runs. See `StoredRuns.cancel`."""
        await ResponsesService(context, name="operator").runs.cancel_anywhere(key)

    async def release(self, run: StoredRun) -> bool:
        """Take a response away from its owner. See `StoredRuns.release`."""
        return await self._store.hand_over(run.key, owner=run.owner, to=_NOBODY)

    async def _run_of(self, row: Any, *, tells_error: bool) -> StoredRun:
        run = StoredRun(
            key=RunKey(Partition(row.partition), RunId(row.id)),
            status=RunStatus(row.status),
            attempt=row.attempt,
            owner=row.owner,
            target=row.target,
            is_background=row.is_background,
            created_at=row.created_at,
            changed_at=row.stored_at,
            error=None,
        )
        if not tells_error or run.status is not RunStatus.FAILED:
            return run
        record = await self._store.get(run.key)
        error = None if record is None else decode_response(record.body).get("error")
        if not isinstance(error, dict):
            return run
        return replace(run, error=f"{error.get('code')}: {error.get('message')}")


def _select(query: RunQuery) -> sa.Select[Any]:
    found = sa.select(*(responses.c[name] for name in _COLUMNS)).where(responses.c.is_deleted.is_(sa.false()))
    if query.statuses is not None:
        names = {status.value for status in query.statuses}
        found = found.where(responses.c.status.in_(names))
        if not any(status.is_terminal for status in query.statuses):
            found = found.where(IS_RUNNING)  # there is an index of these
    if query.created_before is not None:
        found = found.where(responses.c.created_at <= query.created_before)
    if query.partition is not None:
        found = found.where(responses.c.partition == query.partition)
    if query.run_id is not None:
        found = found.where(responses.c.id == query.run_id)
    return found.order_by(responses.c.stored_at.desc()).limit(query.limit)
