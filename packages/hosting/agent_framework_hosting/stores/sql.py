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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from graphlib import TopologicalSorter
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from agent_framework import AgentSession
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import StoreError, StoreUnavailable
from ..isolation import Partition
from ..sql.database import Database
from ..sql.outdated import Outdated
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

_Name: TypeAlias = tuple[str, str]
"""Partition and key of a row."""


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
        find = partial(_OUTDATED.find, retention=self._retention, now=self._clock(), limit=limit)
        rows = await self._database.run(find)
        if rows:
            await self._database.run(partial(_erase_versions, rows=rows), erases=True)
        return len(rows)

    async def stats(self) -> StoreStats:
        """Return what the store holds; `bytes` counts what erased sessions have left for others, too."""
        entries, size, oldest = await self._database.run(_stats)
        return StoreStats(
            name="sessions",
            entries=entries,
            bytes=size,
            oldest=None if oldest is None else max(0.0, self._clock() - oldest),
        )


def erase_session(connection: sa.Connection, partition: Partition, key: SessionKey) -> bool:
    """Erase a session inside of the caller's transaction; `False` if there was none. See `erase_sessions`."""
    return erase_sessions(connection, [(partition, key)]) > 0


def erase_sessions(connection: sa.Connection, keys: Sequence[tuple[Partition, SessionKey]]) -> int:
    """Erase sessions inside of the caller's transaction, in a handful of statements; return how many there were.

    For stores in the same database whose entries own sessions. Run the transaction with `erases=True`.
    """
    return _erase(connection, connection.execute(_HELD, {"names": keys}).all())


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

_VERSION: Final = sa.select(_row.version).where(_IS_LIVE)

# An erasure changes the row's key, and waits for this lock. A claim does not.
_BASE: Final = sa.select(_row.version, _row.cost).where(_IS_LIVE).with_for_update(read=True, key_share=True)

_CLAIM: Final = sa.update(sessions).where(_IS_LIVE, _row.is_claimed == sa.false()).values(is_claimed=True)

_NAMES: Final[sa.BindParameter[Any]] = sa.bindparam("names", expanding=True)
_IS_NAMED: Final = sa.tuple_(_row.partition, _row.key).in_(_NAMES)
_IS_BASED_ON_NAMED: Final = sa.tuple_(_row.partition, _row.base_key).in_(_NAMES)

# In the order of their names, so that those who erase the same rows wait for each other instead of both giving up.
_HELD: Final = (
    sa.select(_row.partition, _row.key, _row.version)
    .where(_IS_NAMED, _row.is_deleted == sa.false())
    .order_by(_row.partition, _row.key)
    .with_for_update()
)
_GRAVE: Final = sa.literal("tombstone:")
_REBASE: Final = (
    sa.update(sessions)
    .where(_IS_BASED_ON_NAMED)
    .values(
        base_key=sa.select(_GRAVE + _ancestor.version)
        .where(_ancestor.partition == _row.partition, _ancestor.key == _row.base_key)
        .scalar_subquery()
    )
)
_BURY: Final = sa.update(sessions).where(_IS_NAMED).values(key=_GRAVE + _row.version, is_deleted=True)

_TOMBSTONES: Final = (
    sa.select(_row.partition, _row.key, _row.base_key, _row.rest, _row.lists)
    .where(_IS_NAMED, _row.is_deleted == sa.true())
    .order_by(_row.partition, _row.key)
    .with_for_update()
)
_DEPENDANTS: Final = sa.select(
    _row.partition, _row.key, _row.base_key, _row.rest.is_(None).label("is_same"), _row.lists
).where(_IS_BASED_ON_NAMED)
_REMOVE: Final = sa.delete(sessions).where(_IS_NAMED)
_TRIM: Final = sa.update(sessions).where(_IS_ROW).values(rest=sa.bindparam("new_rest"), lists=sa.bindparam("new_lists"))

_COUNT: Final = sa.select(sa.func.count()).select_from(sessions).where(_row.is_deleted == sa.false())
_OUTDATED: Final = Outdated(
    sa.select(_row.partition, _row.key, _row.version).where(_row.is_deleted == sa.false()).order_by(_row.stored_at),
    count=_COUNT,
    stored_at=_row.stored_at,
)
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


def _erase_versions(connection: sa.Connection, *, rows: Sequence[sa.Row[str, str, str]]) -> int:
    """Erase these versions; one that was written again since is another one."""
    wanted = {tuple(row) for row in rows}
    held = connection.execute(_HELD, {"names": [(row.partition, row.key) for row in rows]}).all()
    return _erase(connection, [row for row in held if tuple(row) in wanted])


def _erase(connection: sa.Connection, held: Sequence[sa.Row[str, str, str]]) -> int:
    """Erase rows that the transaction holds: nobody can base another row on them any more."""
    if held:
        names = [(row.partition, row.key) for row in held]
        connection.execute(_REBASE, {"names": names})
        connection.execute(_BURY, {"names": names})
        _tidy(connection, {(row.partition, f"tombstone:{row.version}") for row in held})
    return len(held)


def _tidy(connection: sa.Connection, names: Collection[_Name]) -> None:
    """Remove tombstones that nothing is based on, and what nobody needs of the others; then the same with their bases."""
    while names:
        found = connection.execute(_TOMBSTONES, {"names": list(names)}).all()
        if not found:  # live rows
            return
        rows: dict[_Name, Any] = {(row.partition, row.key): row for row in found}
        dependants: dict[_Name, dict[_Name, Delta]] = {name: {} for name in rows}
        for row in connection.execute(_DEPENDANTS, {"names": list(rows)}):
            need = Delta(None if row.is_same else b"", decode_lists(row.lists))
            dependants[row.partition, row.base_key][row.partition, row.key] = need
        tidied = _tidied(rows, dependants)
        if tidied.removed:
            connection.execute(_REMOVE, {"names": tidied.removed})
        if tidied.trimmed:
            connection.execute(_TRIM, [_trimmed(name, left) for name, left in tidied.trimmed.items()])
        names = tidied.bases


@dataclass(frozen=True, slots=True)
class _Tidied:
    """What becomes of tombstones, and which bases of theirs may need less from now on."""

    removed: list[_Name] = field(default_factory=list)
    trimmed: dict[_Name, Delta] = field(default_factory=dict)
    bases: set[_Name] = field(default_factory=set)


def _tidied(rows: Mapping[_Name, Any], dependants: Mapping[_Name, dict[_Name, Delta]]) -> _Tidied:
    tidied = _Tidied()
    for name in _youngest_first(rows):
        row, needs = rows[name], dependants[name]
        base = (row.partition, row.base_key)
        # Of a base that is among the rows, too, as it will be needed when its turn comes.
        if not needs:
            tidied.removed.append(name)
            dependants.get(base, {}).pop(name, None)
        else:
            delta = Delta(row.rest, decode_lists(row.lists))
            left = trim(delta, list(needs.values()))
            if left == delta:
                continue
            tidied.trimmed[name] = left
            if base in rows:
                dependants[base][name] = left
        if row.base_key is not None and base not in rows:
            tidied.bases.add(base)
    return tidied


def _trimmed(name: _Name, left: Delta) -> dict[str, object]:
    return {"in_partition": name[0], "of_key": name[1], "new_rest": left.rest, "new_lists": encode_lists(left.lists)}


def _youngest_first(rows: Mapping[_Name, Any]) -> Iterable[_Name]:
    """Return the names of the rows, each after all that are based on it."""
    order: TopologicalSorter[_Name] = TopologicalSorter()
    for name, row in rows.items():
        order.add(name)
        if (base := (row.partition, row.base_key)) in rows:
            order.add(base, name)
    return order.static_order()


def _stats(connection: sa.Connection) -> tuple[int, int, float | None]:
    return (
        connection.execute(_COUNT).scalar_one(),
        int(connection.execute(_SIZE).scalar_one() or 0),
        connection.execute(_OLDEST_TIME).scalar_one(),
    )
