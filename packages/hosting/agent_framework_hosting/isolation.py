"""Whose data: isolation keys, the partition made of them, and how they travel with a request.

The hosting environment in front of the host (Foundry, a gateway) authenticates callers and names them in two headers.
The host reads the headers only when its operator said that the sender can be trusted; see `middleware.py`.
"""

from __future__ import annotations

import hashlib
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Final, NewType
from urllib.parse import quote

ISOLATION_HEADER_USER: Final = "x-agent-user-isolation-key"
ISOLATION_HEADER_CHAT: Final = "x-agent-chat-isolation-key"

Partition = NewType("Partition", str)
"""Whose data. Part of every key of every store; two partitions never see each other."""

SHARED: Final = Partition("")
"""The partition of everybody who comes without isolation keys."""

MAX_PARTITION: Final = 200
"""Characters of a partition that is written out; a longer one is replaced by its digest."""


@dataclass(frozen=True, slots=True)
class IsolationKeys:
    """Name the user and the chat that a request belongs to, as the trusted hosting environment names them."""

    user_key: str | None = None
    chat_key: str | None = None

    @property
    def partition(self) -> Partition:
        """The partition of these keys; no key at all gives the partition `SHARED`."""
        if self.user_key is None and self.chat_key is None:
            return SHARED
        # Quoting keeps "a/b" + "c" apart from "a" + "b/c", and "-" (no key) apart from a key named "-".
        written = "/".join(_segment(key) for key in (self.user_key, self.chat_key))
        if len(written) <= MAX_PARTITION:
            return Partition(written)
        # It is part of every primary key, and PostgreSQL cannot index a row of more than 2704 bytes. No partition that is
        # written out begins with an "h".
        return Partition(f"h:{hashlib.sha256(written.encode()).hexdigest()}")


def _segment(key: str | None) -> str:
    return "-" if key is None else "=" + quote(key, safe="", errors="surrogatepass")


_current: ContextVar[IsolationKeys | None] = ContextVar("agent_framework_hosting_isolation_keys", default=None)


def get_current_isolation_keys() -> IsolationKeys | None:
    """Return the isolation keys of the request or run that is being served, `None` outside of one."""
    return _current.get()


def set_current_isolation_keys(keys: IsolationKeys | None) -> Token[IsolationKeys | None]:
    """Set the isolation keys of the current context; give the token to `reset_current_isolation_keys`."""
    return _current.set(keys)


def reset_current_isolation_keys(token: Token[IsolationKeys | None]) -> None:
    """Restore the isolation keys that were current before `set_current_isolation_keys` returned `token`."""
    _current.reset(token)
