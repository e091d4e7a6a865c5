"""Stores in memory, bounded by count and age so that a long-lived process stays small."""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from agent_framework import AgentSession

from ..errors import StoreError
from ..isolation import Partition
from .base import SessionKey
from .snapshots import Snapshot, SnapshotCodec

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class BoundedDict(Generic[KeyT, ValueT]):
    """A dict that forgets: the oldest entries beyond `max_entries`, and every entry older than `max_age` seconds.

    An entry's age counts from the last `set`. Reading refreshes neither age nor order: retention must not depend on who
    looks. `set` and `get` are O(1) amortised.
    """

    def __init__(
        self,
        *,
        max_entries: int,
        max_age: float,
        clock: Callable[[], float] = time.monotonic,
        on_evict: Callable[[KeyT, ValueT], None] | None = None,
    ) -> None:
        self._entries: OrderedDict[KeyT, tuple[float, ValueT]] = OrderedDict()
        self._max_entries = max_entries
        self._max_age = max_age
        self._clock = clock
        self._on_evict = on_evict

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: KeyT) -> ValueT | None:
        """Return the value, `None` if it is unknown or too old."""
        self._evict()
        entry = self._entries.get(key)
        return None if entry is None else entry[1]

    def set(self, key: KeyT, value: ValueT) -> None:
        """Store the value as the youngest entry."""
        self._entries.pop(key, None)
        self._entries[key] = (self._clock(), value)
        self._evict()

    def pop(self, key: KeyT) -> ValueT | None:
        """Remove and return the value, `None` if it is unknown; eviction callbacks are not told."""
        entry = self._entries.pop(key, None)
        return None if entry is None else entry[1]

    def _evict(self) -> None:
        oldest_allowed = self._clock() - self._max_age
        while self._entries:
            key, (stored_at, value) = next(iter(self._entries.items()))
            if len(self._entries) <= self._max_entries and stored_at >= oldest_allowed:
                return
            del self._entries[key]
            if self._on_evict is not None:
                self._on_evict(key, value)


@dataclass(slots=True)
class _Stored:
    """A session as it was put, until the first reader takes it; then the snapshot that the others get copies of."""

    content: AgentSession | Snapshot
    is_claimed: bool = False


class MemorySessionStore:
    """Sessions of one process, at most `max_entries` of them, each at most `max_age` seconds old.

    Snapshots of a chain share the bytes of their messages, so a turn costs what it adds. What cannot be a snapshot is
    copied instead, every time. A session that nobody continues costs neither.
    """

    def __init__(
        self, *, max_entries: int = 10_000, max_age: float = 30 * 86_400.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sessions: BoundedDict[tuple[Partition, SessionKey], _Stored] = BoundedDict(
            max_entries=max_entries, max_age=max_age, clock=clock
        )
        self._codec = SnapshotCodec()

    async def get(self, partition: Partition, key: SessionKey) -> AgentSession | None:
        """Return a private copy of the stored session, `None` if there is none.

        Raises:
            StoreError: the session can be neither encoded nor copied.
        """
        stored = self._sessions.get((partition, key))
        return None if stored is None else self._private(stored)

    async def put(
        self, partition: Partition, key: SessionKey, session: AgentSession, *, base: SessionKey | None = None
    ) -> None:
        """Store `session`, replacing what was there; the caller gives it away. `base` makes no difference here."""
        del base
        self._sessions.set((partition, key), _Stored(session))

    async def claim(self, partition: Partition, key: SessionKey) -> bool:
        """Say that the session is continued; `True` for the first who says so."""
        stored = self._sessions.get((partition, key))
        if stored is None or stored.is_claimed:
            return False
        stored.is_claimed = True
        return True

    async def delete(self, partition: Partition, key: SessionKey) -> bool:
        """Forget the session; `False` if there was none."""
        return self._sessions.pop((partition, key)) is not None

    def _private(self, stored: _Stored) -> AgentSession:
        session = stored.content
        if isinstance(session, Snapshot):
            return self._codec.decode(session)
        try:
            encoded = self._codec.encode(session)
        except StoreError as error:
            return _copied(session, error)
        stored.content = encoded.snapshot
        return session if encoded.is_exact else self._codec.decode(encoded.snapshot)


def _copied(session: AgentSession, reason: StoreError) -> AgentSession:
    try:
        return copy.deepcopy(session)
    except Exception:  # noqa: BLE001  an object of the application's that does not want to be copied
        raise reason from None
