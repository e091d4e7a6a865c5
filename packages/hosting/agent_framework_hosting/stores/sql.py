"""Sessions in SQL: a row holds what is different from the row it has grown from, so that a chain costs the same per turn.

Rules. A row's `base_key` names the row it is relative to; rows without one hold whole snapshots. A row that is erased
while others are based on it becomes a tombstone: it gets a key that nobody asks for, loses what none of the others
needs, and goes with the last of them. A row that is written again is erased first, so what is based on it never changes.

Whatever a process remembers of a row is used only as long as the row's `version` is the same: other processes write
and erase rows, too. On PostgreSQL a base is locked while a row that builds on it is written.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import sqlalchemy as sa
from agent_framework import AgentSession
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import StoreError, StoreUnavailable
from ..isolation import Partition
from ..sql.database import Database
from ..sql.tables import sessions
from .base import Retention, SessionKey, StoreStats
from .snapshots import Delta, Snapshot, SnapshotCodec, decode_lists, diff, encode_lists, replay, trim

CACHED_SESSIONS: Final = 256
"""Sessions that one store keeps in memory, ready to go on."""

CACHED_BYTES: Final = 32 * 2**20
"""Bytes of JSON that the sessions in memory come to; as Python objects they are several times as big."""

# What reading one more row costs, in bytes that could be read instead; and what a chain may cost in vain.
_ROW_COST: Final = 256
_SLACK: Final = 16_384

# Transactions of the host wait for one batch of the pruning.
_PRUNED_AT_ONCE: Final = 50


class SqlSessionStore:
    """Sessions in the host's database, kept for `retention`; `clock` returns Unix seconds.

    Sessions that were just written are kept in memory as well, at most `CACHED_SESSIONS`, and given to the first who
    asks for them; that they are still the stored ones is asked of the database each time.
    """

    def __init__(
        self, database: Database, *, retention: Retention | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._retention = Retention() if retention is None else retention
        self._clock = clock
        # Whether a row was inserted is asked afterwards; without the option drivers may have forgotten.
        self._insert = database.insert(sessions).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
        self._codec = SnapshotCodec()
        self._cache = _Cache()

    async def get(self, partition: Partition, key: SessionKey) -> AgentSession | None:
        """Return a private copy of the stored session, `None` if there is none.

        Raises:
            StoreError: a state type in it does not read what it has written, or is no longer registered as it was.
        """
        cached = self._cache.get(partition, key)
        read = partial(_read, partition=partition, key=key, known=None if cached is None else cached.version)
        found = await self._database.run(read)
        if found is None:
            self._cache.pop(partition, key)
            return None
        if cached is None or found.snapshot is not None:
            cached = self._cache.set(partition, key, _Cached(found.version, _snapshot(found)))
        # Taken in one step: of two readers one gets the live session, and the other a copy.
        session, cached.session = cached.session, None
        return self._codec.decode(cached.snapshot) if session is None else session

    async def put(
        self, partition: Partition, key: SessionKey, session: AgentSession, *, base: SessionKey | None = None
    ) -> None:
        """Store `session`, replacing what was there; the caller gives it away.

        Raises:
            StoreError: the session's state holds something that cannot be stored; the message names where.
        """
        encoded = self._codec.encode(session)
        base = None if base == key else base
        write = _Write(
            insert=self._insert,
            partition=partition,
            key=key,
            snapshot=encoded.snapshot,
            base=base,
            known_base=None if base is None else self._cache.get(partition, base),
            stored_at=self._clock(),
        )
        version = await self._database.run(write)
        live = session if encoded.is_exact else None
        self._cache.set(partition, key, _Cached(version, encoded.snapshot, live))

    async def claim(self, partition: Partition, key: SessionKey) -> bool:
        """Say that the session is continued; `True` for the first who says so, in whatever process."""
        return await self._database.run(partial(_claim, partition=partition, key=key))

    async def delete(self, partition: Partition, key: SessionKey) -> bool:
        """Erase the session; `False` if there was none. What others have grown from stays with them."""
        self._cache.pop(partition, key)
        return await self._database.run(partial(erase_session, partition=partition, key=key), erases=True)

    async def prune(self, *, limit: int) -> int:
        """Erase what the store's retention no longer covers, at most `limit` sessions; return how many."""
        erased = 0
        while erased < limit:
            most = min(_PRUNED_AT_ONCE, limit - erased)
            outdated = await self._database.run(partial(self._outdated, limit=most))
            if not outdated:
                break
            erased += await self._database.run(partial(_erase_all, outdated=outdated), erases=True)
        return erased

    async def stats(self) -> StoreStats:
        """Return what the store holds; `bytes` counts what erased sessions have left for others, too."""
        entries, size, oldest = await self._database.run(_stats)
        return StoreStats(
            name="sessions",
            entries=entries,
            bytes=size,
            oldest=None if oldest is None else max(0.0, self._clock() - oldest),
        )

    def _outdated(self, connection: sa.Connection, *, limit: int) -> Sequence[sa.Row[str, str, str]]:
        """Return partition, key and version of the oldest sessions that are too old or too many."""
        oldest = _OLDEST.limit(limit)
        if self._retention.max_entries is not None:
            count = connection.execute(_COUNT).scalar_one()
            excess = count - self._retention.max_entries
            if excess > 0:
                return connection.execute(oldest.limit(min(limit, excess))).all()
        if self._retention.max_age is None:
            return ()
        return connection.execute(oldest.where(_row.stored_at < self._clock() - self._retention.max_age)).all()


def erase_session(connection: sa.Connection, partition: Partition, key: SessionKey) -> bool:
    """Erase a session inside of the caller's transaction; `False` if there was none.

    For stores in the same database whose entries own sessions. Run the transaction with `erases=True`.
    """
    return _erase(connection, partition, key, _ERASE)


# --- In memory


@dataclass(slots=True)
class _Cached:
    """A session of one version; `session` until somebody takes it."""

    version: str
    snapshot: Snapshot
    session: AgentSession | None = None


class _Cache:
    """The sessions used last, bounded by count and size."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[Partition, SessionKey], tuple[_Cached, int]] = OrderedDict()
        self._size = 0

    def get(self, partition: Partition, key: SessionKey) -> _Cached | None:
        entry = self._entries.get((partition, key))
        if entry is None:
            return None
        self._entries.move_to_end((partition, key))
        return entry[0]

    def set(self, partition: Partition, key: SessionKey, cached: _Cached) -> _Cached:
        self.pop(partition, key)
        size = cached.snapshot.size
        self._entries[partition, key] = (cached, size)
        self._size += size
        while len(self._entries) > CACHED_SESSIONS or self._size > CACHED_BYTES:
            self.pop(*next(iter(self._entries)))
        return cached

    def pop(self, partition: Partition, key: SessionKey) -> None:
        entry = self._entries.pop((partition, key), None)
        if entry is not None:
            self._size -= entry[1]


# --- Statements

_row = sessions.c
_ancestor = sessions.alias("ancestor").c
_PARTITION: Final = sa.bindparam("in_partition", type_=sa.Text)
_KEY: Final = sa.bindparam("of_key", type_=sa.Text)
_IS_ROW: Final = sa.and_(_row.partition == _PARTITION, _row.key == _KEY)
_IS_LIVE: Final = sa.and_(_IS_ROW, _row.is_deleted == sa.false())
_IS_BASED: Final = sa.and_(_row.partition == _PARTITION, _row.base_key == _KEY)
_GRAVE: Final = sa.bindparam("grave", type_=sa.Text)

_VERSION: Final = sa.select(_row.version).where(_IS_LIVE)

# An erasure changes the row's key, and waits for this lock. A claim does not.
_BASE: Final = sa.select(_row.version, _row.cost).where(_IS_LIVE).with_for_update(read=True, key_share=True)

_CLAIM: Final = sa.update(sessions).where(_IS_LIVE, _row.is_claimed == sa.false()).values(is_claimed=True)

_ERASE: Final = sa.update(sessions).where(_IS_LIVE).values(key=_GRAVE, is_deleted=True)
_ERASE_VERSION: Final = _ERASE.where(_row.version == sa.bindparam("of_version"))
_REBASE: Final = sa.update(sessions).where(_IS_BASED).values(base_key=_GRAVE)

_TOMBSTONE: Final = (
    sa.select(_row.base_key, _row.rest, _row.lists).where(_IS_ROW, _row.is_deleted == sa.true()).with_for_update()
)
_DEPENDANTS: Final = sa.select(_row.rest.is_(None), _row.lists).where(_IS_BASED)
_REMOVE: Final = sa.delete(sessions).where(_IS_ROW)
_TRIM: Final = sa.update(sessions).where(_IS_ROW).values(rest=sa.bindparam("new_rest"), lists=sa.bindparam("new_lists"))

_OLDEST: Final = (
    sa.select(_row.partition, _row.key, _row.version).where(_row.is_deleted == sa.false()).order_by(_row.stored_at)
)
_COUNT: Final = sa.select(sa.func.count()).select_from(sessions).where(_row.is_deleted == sa.false())
_OLDEST_TIME: Final = sa.select(sa.func.min(_row.stored_at)).where(_row.is_deleted == sa.false())
_SIZE: Final = sa.select(
    sa.func.sum(sa.func.length(_row.lists)) + sa.func.sum(sa.func.coalesce(sa.func.length(_row.rest), 0))
)


def _chain() -> sa.Select[str | None, str, bytes | None, bytes]:
    """Return the query for a row and all that it is based on, the whole snapshot first."""
    columns = (_row.partition, _row.base_key, _row.version, _row.rest, _row.lists)
    chain = sa.select(*columns, sa.literal(0).label("level")).where(_IS_LIVE).cte("chain", recursive=True)
    chain = chain.union_all(
        sa.select(
            _ancestor.partition,
            _ancestor.base_key,
            _ancestor.version,
            _ancestor.rest,
            _ancestor.lists,
            chain.c.level + 1,
        ).where(_ancestor.partition == chain.c.partition, _ancestor.key == chain.c.base_key)
    )
    return sa.select(chain.c.base_key, chain.c.version, chain.c.rest, chain.c.lists).order_by(chain.c.level.desc())


_CHAIN: Final = _chain()


# --- Transactions


@dataclass(frozen=True, slots=True)
class _Found:
    """A stored session; `snapshot` is `None` if the caller knows this version."""

    version: str
    snapshot: Snapshot | None


def _snapshot(found: _Found) -> Snapshot:
    if found.snapshot is None:
        raise StoreError("A stored session was not read.")
    return found.snapshot


def _read(connection: sa.Connection, *, partition: Partition, key: SessionKey, known: str | None) -> _Found | None:
    where = {"in_partition": partition, "of_key": key}
    if known is not None:
        version = connection.execute(_VERSION, where).scalar()
        if version is None or version == known:
            return None if version is None else _Found(known, None)
    rows = connection.execute(_CHAIN, where).all()
    if not rows:
        return None
    if rows[0].base_key is not None:
        raise StoreError("A stored session is incomplete.")
    return _Found(rows[-1].version, replay(Delta(row.rest, decode_lists(row.lists)) for row in rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Write:
    """The transaction that writes a session; returns the new version."""

    insert: sqlite.Insert | postgresql.Insert
    partition: Partition
    key: SessionKey
    snapshot: Snapshot
    base: SessionKey | None
    known_base: _Cached | None
    stored_at: float

    def __call__(self, connection: sa.Connection) -> str:
        base, cost, rest, lists = self._relative(connection)
        version = secrets.token_hex(8)
        values = {
            "partition": self.partition,
            "key": self.key,
            "base_key": base,
            "version": version,
            "cost": cost,
            "rest": rest,
            "lists": lists,
            "is_claimed": False,
            "is_deleted": False,
            "stored_at": self.stored_at,
        }
        # Again only if the key was taken; and once more if another process takes it in between.
        for _ in range(3):
            if connection.execute(self.insert, values).rowcount == 1:
                return version
            erase_session(connection, self.partition, self.key)
        raise StoreUnavailable("Others write the same session all the time.")

    def _relative(self, connection: sa.Connection) -> tuple[SessionKey | None, int, bytes | None, bytes]:
        """Return base, cost and content of the row: the difference if there is a base and it pays."""
        whole = diff(None, self.snapshot)
        whole_cost = _ROW_COST + self.snapshot.size
        base = None
        if self.base is not None:
            where = {"in_partition": self.partition, "of_key": self.base}
            base = connection.execute(_BASE, where).one_or_none()
        if base is not None:
            delta = diff(self._base_snapshot(connection, base.version), self.snapshot)
            lists = encode_lists(delta.lists)
            row_cost = _ROW_COST + len(delta.rest or b"") + len(lists)
            # A chain whose rows come to much more than what they make (a list that was compacted, a state that is
            # another one every turn) is not continued. Until then as much was saved as writing all of it costs.
            if row_cost < whole_cost and base.cost + row_cost <= 2 * whole_cost + _SLACK:
                return self.base, base.cost + row_cost, delta.rest, lists
        return None, whole_cost, whole.rest, encode_lists(whole.lists)

    def _base_snapshot(self, connection: sa.Connection, version: str) -> Snapshot:
        if self.known_base is not None and self.known_base.version == version:
            return self.known_base.snapshot
        found = None if self.base is None else _read(connection, partition=self.partition, key=self.base, known=None)
        if found is None:
            raise StoreError("A stored session is incomplete.")
        return _snapshot(found)


def _claim(connection: sa.Connection, *, partition: Partition, key: SessionKey) -> bool:
    return connection.execute(_CLAIM, {"in_partition": partition, "of_key": key}).rowcount == 1


def _erase_all(connection: sa.Connection, *, outdated: Sequence[sa.Row[str, str, str]]) -> int:
    """Erase these versions; one that was written again since is another one."""
    return sum(
        _erase(connection, Partition(row.partition), SessionKey(row.key), _ERASE_VERSION, row.version)
        for row in outdated
    )


def _erase(
    connection: sa.Connection, partition: Partition, key: SessionKey, statement: sa.Update, version: str | None = None
) -> bool:
    grave = f"tombstone:{secrets.token_hex(16)}"
    where = {"in_partition": partition, "of_key": key, "grave": grave}
    if connection.execute(statement, where if version is None else {**where, "of_version": version}).rowcount == 0:
        return False
    # After the row's key has changed nobody can base another row on it any more.
    connection.execute(_REBASE, where)
    _tidy(connection, partition, grave)
    return True


def _tidy(connection: sa.Connection, partition: Partition, key: str | None) -> None:
    """Remove a tombstone that nothing is based on, or what nobody needs of it; then the same with its base."""
    while key is not None:
        where = {"in_partition": partition, "of_key": key}
        row = connection.execute(_TOMBSTONE, where).one_or_none()
        if row is None:  # a live row
            return
        dependants = connection.execute(_DEPENDANTS, where).all()
        if dependants:
            needs = [Delta(None if is_same else b"", decode_lists(lists)) for is_same, lists in dependants]
            delta = Delta(row.rest, decode_lists(row.lists))
            trimmed = trim(delta, needs)
            if trimmed == delta:
                return
            new = {"new_rest": trimmed.rest, "new_lists": encode_lists(trimmed.lists)}
            connection.execute(_TRIM, {**where, **new})
        else:
            connection.execute(_REMOVE, where)
        key = row.base_key


def _stats(connection: sa.Connection) -> tuple[int, int, float | None]:
    return (
        connection.execute(_COUNT).scalar_one(),
        int(connection.execute(_SIZE).scalar_one() or 0),
        connection.execute(_OLDEST_TIME).scalar_one(),
    )
