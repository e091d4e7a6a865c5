"""Agent sessions of named conversations: load, one run at a time, save after success, fork, reset."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote

from agent_framework import AgentSession

from .isolation import Partition
from .stores.base import SessionKey, SessionStore

TARGET_STATE_KEY: Final = "agent_framework_hosting.target"
"""Where a session keeps the name of the target that has left it; nowhere if the host had but one, without a name."""

_LONGEST_NAME: Final = 500


def target_of(session: AgentSession) -> str:
    """Return the `ServedTarget.key` of the target that has left the session: no other one may be given it."""
    return str(session.state.get(TARGET_STATE_KEY, ""))


def note_target(session: AgentSession, key: str) -> None:
    """Note in the session which target leaves it."""
    if key:
        session.state[TARGET_STATE_KEY] = key


def named_key(isolation_key: str, *, target: str = "") -> SessionKey:
    """Return the store key of the session that `ChannelSession.isolation_key` names: any text, of any length.

    `target` is a `ServedTarget.key`: each target has sessions of its own under the same names.
    """
    # Channels keep snapshots of their own in the same store; the prefix keeps the two name spaces apart. Databases take
    # neither every character nor every length.
    quoted = ":".join(
        quote(name, safe="", errors="surrogatepass")
        for name in ((target, isolation_key) if target else (isolation_key,))
    )
    if len(quoted) > _LONGEST_NAME:
        return SessionKey(f"named-digest:{hashlib.sha256(quoted.encode()).hexdigest()}")
    return SessionKey(f"named:{quoted}")


def fork(session: AgentSession) -> AgentSession:
    """Return `session` under a new session id; the state moves over, so use a private copy and drop it."""
    branch = AgentSession(session_id=str(uuid.uuid4()), service_session_id=session.service_session_id)
    branch.state = session.state
    return branch


class SessionLease:
    """A named session while one run has it. What is not committed is forgotten: a failed run changes nothing."""

    def __init__(self, session: AgentSession) -> None:
        self.session = session
        self.is_committed = False

    def commit(self) -> None:
        """Have the session saved when the lease ends."""
        self.is_committed = True


class Sessions:
    """Named sessions of all partitions over a store. Runs of one session wait for each other, in order of arrival.

    That is inside one process. Of two processes that use the same session at once, the last one to commit is kept.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._locks: dict[tuple[Partition, SessionKey], tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def use(
        self,
        partition: Partition,
        isolation_key: str,
        *,
        new_session: Callable[[], AgentSession] = AgentSession,
        target: str = "",
    ) -> AsyncGenerator[SessionLease, None]:
        """Lend the session named `isolation_key` to one run of the `target`; a new one if it is unknown."""
        key = named_key(isolation_key, target=target)
        async with self._lock(partition, key):
            session = await self._store.get(partition, key)
            lease = SessionLease(new_session() if session is None else session)
            yield lease
            if lease.is_committed:
                await self._store.put(partition, key, lease.session)

    async def reset(self, partition: Partition, isolation_key: str, *, target: str = "") -> bool:
        """Forget the session named `isolation_key`, after a run that uses it has ended; `False` if there was none."""
        key = named_key(isolation_key, target=target)
        # Without the lock a run that started before the reset would save the old conversation again after it.
        async with self._lock(partition, key):
            return await self._store.delete(partition, key)

    @asynccontextmanager
    async def _lock(self, partition: Partition, key: SessionKey) -> AsyncGenerator[None, None]:
        name = (partition, key)
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            # Counted, not tested with `locked()`: between two waiters a lock is free but still theirs.
            lock, users = self._locks[name]
            if users == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, users - 1)
