"""What a store of the host must do. The suites in `agent_framework_hosting.testing` check that it does."""

from __future__ import annotations

from typing import NewType, Protocol

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

    async def put(self, partition: Partition, key: SessionKey, session: AgentSession) -> None:
        """Store `session`, replacing what was there. The caller gives it away and must not change it afterwards."""
        ...

    async def delete(self, partition: Partition, key: SessionKey) -> bool:
        """Forget the session; `False` if there was none."""
        ...
