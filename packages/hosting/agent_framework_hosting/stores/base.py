"""What a store of the host must do. The suites in `agent_framework_hosting.testing` check that it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, Protocol, runtime_checkable

from agent_framework import AgentSession

from ..isolation import Partition

SessionKey = NewType("SessionKey", str)
"""Which session inside a partition. Made by the host: never a caller's text as it came."""


class SessionStore(Protocol):
    """Agent sessions by partition and key. A stored session is a value: nobody sees it change.

    Raises:
        StoreUnavailable: from every method, when the store cannot be reached.
    """

    async def get(self, partition: Partition, key: SessionKey) -> AgentSession | None:
        """Return a private copy of the stored session, `None` if there is none."""
        ...

    async def put(
        self, partition: Partition, key: SessionKey, session: AgentSession, *, base: SessionKey | None = None
    ) -> None:
        """Store `session`, replacing what was there. The caller gives it away and must not change it afterwards.

        `base` is the stored session that this one has grown from; a store may keep only what is different.

        Raises:
            StoreError: the session's state holds something that cannot be stored; the message names where.
        """
        ...

    async def claim(self, partition: Partition, key: SessionKey) -> bool:
        """Say that the session is continued; `True` for the first who says so, `False` for all others.

        What lies outside of the session under its id (a history in a file, a thread at a service) goes on with the first;
        the others need a session with an id of its own. Also `False` if there is no such session.
        """
        ...

    async def delete(self, partition: Partition, key: SessionKey) -> bool:
        """Erase the session; `False` if there was none. Sessions that have grown from it stay as they are."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long a store keeps what it has: at most `max_entries`, each for `max_age` seconds after its last write.

    `None` means without limit. The oldest go first. What is still running, or what younger entries continue from, is
    not forgotten before they are.
    """

    max_age: float | None = 30 * 86_400.0
    max_entries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """What a store holds: `entries`, their size in `bytes`, and the age of the oldest in seconds (`None` if empty)."""

    name: str
    entries: int
    bytes: int
    oldest: float | None


@runtime_checkable
class Prunable(Protocol):
    """A store that does not forget by itself: the host has it pruned from time to time."""

    async def prune(self, *, limit: int) -> int:
        """Erase what the store's retention no longer covers, at most `limit` entries; return how many.

        Fewer than `limit` say that there are no more.
        """
        ...

    async def stats(self) -> StoreStats:
        """Return what the store holds."""
        ...
