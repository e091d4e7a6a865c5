"""How responses are erased from their table, with what else holds their text.

A response that others continue stays as a tombstone, without its body, until the last of them is erased too. However
many are erased, it takes a handful of statements.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

import sqlalchemy as sa

from agent_framework_hosting.checkpoints import LastingCheckpoints
from agent_framework_hosting.errors import StoreError, StoreUnavailable
from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus
from agent_framework_hosting.runs.log_table import forget_all
from agent_framework_hosting.sql.outdated import Outdated
from agent_framework_hosting.stores.base import SessionStore
from agent_framework_hosting.stores.sql import erase_sessions
from agent_framework_hosting.targets.workflow import erase_checkpoint

from .context import response_session_key
from .tables import HAS_ENDED, IS_RUNNING, responses, settlements

_IS_LIVE = responses.c.is_deleted.is_(sa.false())
_NAMES: Final[sa.BindParameter[Any]] = sa.bindparam("names", expanding=True)
_IS_NAMED = sa.tuple_(responses.c.partition, responses.c.id).in_(_NAMES)

# Not the row of a running response either, whatever it was.
_BURY = (
    sa.update(responses)
    .where(_IS_NAMED)
    .values(
        is_deleted=True,
        status=RunStatus.CANCELLED.value,
        body=b"",
        has_session=False,
        owner="",
        idempotency_key=None,
        request_hash=None,
        request=None,
    )
)


def _unneeded() -> sa.Select[str, str]:
    """Select those of the named tombstones that nothing continues, and the tombstones before each that only it continued."""
    child = responses.alias("child")

    def continued(row: Any) -> sa.Select[int]:
        return sa.select(sa.literal(1)).where(
            child.c.partition == row.c.partition, child.c.previous_response_id == row.c.id
        )

    last = (
        sa.select(responses.c.partition, responses.c.id, responses.c.previous_response_id.label("previous"))
        .where(_IS_NAMED, responses.c.is_deleted.is_(sa.true()))
        .where(~continued(responses).correlate(responses).exists())
        .cte("unneeded", recursive=True)
    )
    before = responses.alias("before")
    step = (
        sa.select(before.c.partition, before.c.id, before.c.previous_response_id)
        .select_from(before.join(last, sa.and_(before.c.partition == last.c.partition, before.c.id == last.c.previous)))
        .where(before.c.is_deleted.is_(sa.true()))
        .where(~continued(before).where(child.c.id != last.c.id).correlate(before, last).exists())
    )
    last = last.union(step)
    return sa.select(last.c.partition, last.c.id)


_IS_UNNEEDED = sa.tuple_(responses.c.partition, responses.c.id).in_(_unneeded())
_HOLD_UNNEEDED = (
    sa.select(responses.c.id).where(_IS_UNNEEDED).order_by(responses.c.partition, responses.c.id).with_for_update()
)
_SWEEP = (
    sa.delete(responses)
    .where(_IS_UNNEEDED)
    .returning(responses.c.partition, responses.c.id, responses.c.previous_response_id)
)

# Nobody can answer what it has asked any more.
_FORGET_ANSWERS = sa.delete(settlements).where(
    sa.tuple_(settlements.c.partition, settlements.c.response_id).in_(_NAMES)
)

_IS_ENDED = sa.and_(_IS_LIVE, HAS_ENDED)
OUTDATED: Final = Outdated(
    sa.select(responses.c.partition, responses.c.id, responses.c.stored_at)
    .where(_IS_ENDED)
    .order_by(responses.c.stored_at),
    count=sa.select(
        # Two indexes; telling the rows apart would read them.
        sa.select(sa.func.count()).select_from(responses).where(_IS_LIVE).scalar_subquery()
        - sa.select(sa.func.count()).select_from(responses).where(IS_RUNNING).scalar_subquery()
    ),
    stored_at=responses.c.stored_at,
)
"""Finds ended responses: partition, id and time."""

# What was found and is still there; another response of the same id has another time.
_HOLD = (
    sa.select(responses.c.partition, responses.c.id)
    .where(_IS_NAMED, _IS_ENDED, responses.c.stored_at.in_(sa.bindparam("times", expanding=True)))
    .order_by(responses.c.partition, responses.c.id)
    .with_for_update()
)


def erase_outdated(connection: sa.Connection, *, rows: Sequence[Any]) -> None:
    """Erase responses that `OUTDATED` has found, unless they have gone since."""
    found = {"names": [(row.partition, row.id) for row in rows], "times": [row.stored_at for row in rows]}
    keys = [RunKey(Partition(row.partition), RunId(row.id)) for row in connection.execute(_HOLD, found)]
    if keys:
        erase(connection, keys)
        # Their logs have the text, too, and may be younger than what their own store forgets.
        forget_all(connection, keys=keys)


def erase(connection: sa.Connection, keys: Sequence[RunKey]) -> None:
    """Erase responses: what is continued leaves a tombstone, and takes it along when it goes."""
    connection.execute(_BURY, {"names": keys})
    _sweep(connection, keys)
    erase_sessions(connection, [(key.partition, response_session_key(key.run_id)) for key in keys])


def _sweep(connection: sa.Connection, names: Collection[tuple[str, str]]) -> None:
    """Remove the tombstones that nothing continues any more, and what only they continued."""
    while names:
        named = {"names": list(names)}
        if connection.dialect.name != "sqlite":
            # Whoever continues one of these at this moment is waited for: the statement after this one sees it.
            connection.execute(_HOLD_UNNEEDED, named)
        gone = connection.execute(_SWEEP, named).all()
        if gone:
            connection.execute(_FORGET_ANSWERS, {"names": [(row.partition, row.id) for row in gone]})
        # Again where branches meet that have gone together: each kept it for the other.
        names = {(row.partition, row.previous_response_id) for row in gone if row.previous_response_id is not None}
        names -= {(row.partition, row.id) for row in gone}


def erasing_checkpoints(
    sessions: SessionStore, checkpoints: LastingCheckpoints
) -> Callable[[Sequence[RunKey]], Awaitable[None]]:
    """Return what erases the checkpoints of responses before these are pruned, if it is done without a target."""

    async def erase_checkpoints(keys: Sequence[RunKey]) -> None:
        if await checkpoints.is_empty():  # nothing but agents: their sessions are long, and need not be read
            return
        for key in keys:
            try:
                session = await sessions.get(key.partition, response_session_key(key.run_id))
            except StoreUnavailable:
                raise
            except StoreError:
                # Of an application whose types are not known here: an agent, for workflows keep none in the session.
                continue
            if session is not None:
                await erase_checkpoint(checkpoints, key.partition, session)

    return erase_checkpoints
