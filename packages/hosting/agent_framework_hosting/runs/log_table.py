"""The transactions of logs in SQL: one writes a batch, the others read, look for news, and forget.

Rules. The row of a log says how many events there are, so that writing a batch and taking its positions is one step, and
its lock keeps writers of different processes apart. An attempt lower than the row's writes nothing, nor does anybody once
the log is closed. Whoever reads the row and then its events sees either all events of a batch or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.dml import ReturningInsert

from ..errors import StaleWrite
from ..isolation import Partition
from ..sql.database import Database
from ..sql.tables import run_events, run_logs
from .base import LogEntry, RunId, RunKey

PAGE: Final = 500
"""Events that are read at once."""

_log = run_logs.c
_event = run_events.c

_PARTITION: Final = sa.bindparam("in_partition", type_=sa.Text)
_RUN: Final = sa.bindparam("of_run", type_=sa.Text)
_POSITION: Final = sa.bindparam("from_position", type_=sa.Integer)
_IS_LOG: Final = sa.and_(_log.partition == _PARTITION, _log.run_id == _RUN)
_IS_EVENT: Final = sa.and_(_event.partition == _PARTITION, _event.run_id == _RUN)

_STATE: Final = sa.select(_log.attempt, _log.next_position, _log.closed_at).where(_IS_LOG)
_EVENTS: Final = (
    sa.select(_event.kind, _event.data).where(_IS_EVENT, _event.position >= _POSITION).order_by(_event.position)
)
# One statement, so one snapshot: never the row of one moment with the events of another.
_PAGE: Final = (
    sa.select(_log.next_position, _log.closed_at, _event.kind, _event.data)
    .select_from(
        run_logs.outerjoin(
            run_events,
            sa.and_(_event.partition == _log.partition, _event.run_id == _log.run_id, _event.position >= _POSITION),
        )
    )
    .where(_IS_LOG)
    .order_by(_event.position)
    .limit(PAGE)
)
_ALL: Final = sa.select(_event.kind, _event.data).where(_IS_EVENT).order_by(_event.position)
_ADD: Final = sa.insert(run_events)
_KEYS: Final[sa.BindParameter[Any]] = sa.bindparam("keys", expanding=True)
_FORGET_LOGS: Final = sa.delete(run_logs).where(sa.tuple_(_log.partition, _log.run_id).in_(_KEYS))
_FORGET_EVENTS: Final = sa.delete(run_events).where(sa.tuple_(_event.partition, _event.run_id).in_(_KEYS))


class LogState(NamedTuple):
    """How far a log has got; `closed_at` in Unix seconds, `None` while it is open."""

    next_position: int
    closed_at: float | None


@dataclass(frozen=True, slots=True)
class Page:
    """Events of a log from some position on, at most `PAGE`; `state` tells whether there are more."""

    state: LogState
    entries: Sequence[LogEntry]


@dataclass(slots=True, kw_only=True)
class WriteBatch:
    """The transaction that writes a batch.

    `least` is where this process has left the log: a shorter one is another log. `expected` is the same if it was left
    under the same attempt, which nobody else writes with. Called again after a commit of which nobody knows whether it
    happened, it finds its own entries and writes nothing.
    """

    statements: LogStatements
    key: RunKey
    attempt: int
    entries: list[LogEntry]
    closes: bool = False
    stored_at: float = 0.0
    least: int = 0
    expected: int | None = None
    tried: int | None = None

    def __call__(self, connection: sa.Connection) -> int:
        """Write the batch; return the position of its first entry.

        Raises:
            StaleWrite: the log is closed or forgotten, or another process has written with this attempt or a later one.
        """
        if self.tried is not None and self._is_written(connection, self.tried):
            return self.tried
        where = {"in_partition": self.key.partition, "of_run": self.key.run_id}
        head = self.statements.write(connection, self)
        if head is None:
            state = connection.execute(_STATE, where).one_or_none()
            is_closed = state is None or state.closed_at is not None
            raise StaleWrite(
                "The log of this run is closed." if is_closed else "A later attempt writes to the log of this run."
            )
        base = head - len(self.entries)
        if base < self.least or (self.expected is not None and base != self.expected):
            raise StaleWrite("The log of this run is not the one that this attempt has written to.")
        self.tried = base
        return base

    def _is_written(self, connection: sa.Connection, base: int) -> bool:
        where = {"in_partition": self.key.partition, "of_run": self.key.run_id}
        state = connection.execute(_STATE, where).one_or_none()
        if state is None or (state.attempt, state.next_position) != (self.attempt, base + len(self.entries)):
            return False
        if self.closes and state.closed_at is None:
            return False
        found = connection.execute(_EVENTS, {**where, "from_position": base}).all()
        return [(kind, bytes(data)) for kind, data in found] == [(kind, data) for kind, data in self.entries]


class LogStatements:
    """What is said differently to different databases."""

    def __init__(self, database: Database) -> None:
        # Bound by name: as part of another statement an insert has no columns to take its values from.
        insert = database.insert(run_logs).values({column: sa.bindparam(f"new_{column.name}") for column in run_logs.c})
        new = insert.excluded
        self._advance = insert.on_conflict_do_update(
            index_elements=[_log.partition, _log.run_id],
            set_={
                "attempt": new.attempt,
                "next_position": _log.next_position + new.next_position,
                "closed_at": new.closed_at,
                "stored_at": new.stored_at,
            },
            where=sa.and_(_log.attempt <= new.attempt, _log.closed_at.is_(None)),
        ).returning(_log.partition, _log.run_id, _log.next_position)
        # PostgreSQL is asked once per batch: what a batch costs there are the round trips.
        self._write = None if database.is_sqlite else _one_statement(self._advance)

    def write(self, connection: sa.Connection, batch: WriteBatch) -> int | None:
        """Write a batch at the end of its log; return where that is now, `None` if the batch must not be written."""
        values = {
            "new_partition": batch.key.partition,
            "new_run_id": batch.key.run_id,
            "new_attempt": batch.attempt,
            "new_next_position": len(batch.entries),
            "new_closed_at": batch.stored_at if batch.closes else None,
            "new_stored_at": batch.stored_at,
        }
        if self._write is not None and batch.entries:
            kinds, contents = zip(*batch.entries, strict=True)
            where = {"count": len(batch.entries), "kinds": list(kinds), "contents": list(contents)}
            return connection.execute(self._write, {**values, **where}).scalar_one_or_none()
        row = connection.execute(self._advance, values).one_or_none()
        if row is None:
            return None
        head: int = row.next_position
        if batch.entries:
            where = {"partition": batch.key.partition, "run_id": batch.key.run_id}
            entries = enumerate(batch.entries, head - len(batch.entries))
            connection.execute(
                _ADD,
                [{**where, "position": position, "kind": kind, "data": data} for position, (kind, data) in entries],
            )
        return head


def _one_statement(advance: ReturningInsert[str, str, int]) -> sa.Select[int]:
    """Return PostgreSQL's statement that advances a log and adds the events to it."""
    log = advance.cte("log")
    entry = (
        sa.func.unnest(
            sa.bindparam("kinds", type_=postgresql.ARRAY(sa.Text)),
            sa.bindparam("contents", type_=postgresql.ARRAY(sa.LargeBinary)),
        )
        .table_valued("kind", "data", with_ordinality="number", name="entry")
        .render_derived()
    )
    position = log.c.next_position - sa.bindparam("count", type_=sa.Integer) + entry.c.number - 1
    added = sa.insert(run_events).from_select(
        ["partition", "run_id", "position", "kind", "data"],
        sa.select(log.c.partition, log.c.run_id, position, entry.c.kind, entry.c.data).select_from(
            log.join(entry, sa.true())
        ),
    )
    return sa.select(log.c.next_position).add_cte(added.cte("added"))


def read_page(connection: sa.Connection, *, key: RunKey, position: int) -> Page | None:
    """Return the events from `position` on, `None` if there is no such log."""
    # Positions come from callers and may be larger than any integer of the database.
    position = min(position, 2**31 - 1)
    where = {"in_partition": key.partition, "of_run": key.run_id, "from_position": position}
    rows = connection.execute(_PAGE, where).all()
    if not rows:
        return None
    first = rows[0]
    state = LogState(first.next_position, first.closed_at)
    return Page(state, [] if first.kind is None else [(row.kind, bytes(row.data)) for row in rows])


def read_pages(connection: sa.Connection, *, wanted: Sequence[tuple[RunKey, int]]) -> Sequence[Page | None]:
    """Return a page of each log, from the position named with it."""
    return [read_page(connection, key=key, position=position) for key, position in wanted]


def read_all(connection: sa.Connection, *, key: RunKey) -> list[LogEntry]:
    """Return every event of a log."""
    rows = connection.execute(_ALL, {"in_partition": key.partition, "of_run": key.run_id}).all()
    return [(row.kind, bytes(row.data)) for row in rows]


def read_state(connection: sa.Connection, *, key: RunKey) -> LogState | None:
    """Return how far a log has got, `None` if there is no such log."""
    row = connection.execute(_STATE, {"in_partition": key.partition, "of_run": key.run_id}).one_or_none()
    return None if row is None else LogState(row.next_position, row.closed_at)


def read_states(connection: sa.Connection, *, keys: Sequence[RunKey]) -> dict[RunKey, LogState]:
    """Return how far logs have got, those that exist."""
    found: dict[RunKey, LogState] = {}
    for start in range(0, len(keys), PAGE):
        wanted = [tuple(key) for key in keys[start : start + PAGE]]
        query = sa.select(_log.partition, _log.run_id, _log.next_position, _log.closed_at).where(
            sa.tuple_(_log.partition, _log.run_id).in_(wanted)
        )
        for row in connection.execute(query):
            key = RunKey(Partition(row.partition), RunId(row.run_id))
            found[key] = LogState(row.next_position, row.closed_at)
    return found


def forget(connection: sa.Connection, *, key: RunKey) -> None:
    """Erase a log."""
    forget_all(connection, keys=[key])


def forget_all(connection: sa.Connection, *, keys: Sequence[RunKey]) -> None:
    """Erase logs."""
    # The rows first: whoever writes to a log holds its row's lock until the events are there, too.
    connection.execute(_FORGET_LOGS, {"keys": keys})
    connection.execute(_FORGET_EVENTS, {"keys": keys})


def find_closed(connection: sa.Connection, *, before: float, limit: int) -> list[RunKey]:
    """Return the logs that were closed before `before` (Unix seconds), the oldest first, at most `limit`."""
    query = sa.select(_log.partition, _log.run_id).where(_log.closed_at < before).order_by(_log.closed_at).limit(limit)
    return [RunKey(Partition(row.partition), RunId(row.run_id)) for row in connection.execute(query)]


def find_open(connection: sa.Connection, *, before: float, limit: int) -> list[RunKey]:
    """Return open logs that were last written to before `before` (Unix seconds), at most `limit`."""
    query = sa.select(_log.partition, _log.run_id).where(_log.closed_at.is_(None), _log.stored_at < before).limit(limit)
    return [RunKey(Partition(row.partition), RunId(row.run_id)) for row in connection.execute(query)]


def count(connection: sa.Connection) -> tuple[int, int, float | None]:
    """Return the number of logs, the bytes of their events, and when the oldest was last written to."""
    entries, oldest = connection.execute(sa.select(sa.func.count(), sa.func.min(_log.stored_at))).one()
    size = connection.execute(sa.select(sa.func.sum(sa.func.length(_event.data)))).scalar_one()
    return entries, int(size or 0), oldest
