"""Server-sent events: how events look on the wire.

No `id:` lines, ever: after one, a comment breaks the official client. Source: contract §3.1, §9.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .events import Event

KEEP_ALIVE: Final = b": keep-alive\n\n"
"""A comment frame; clients skip it."""

DONE: Final = b"data: [DONE]\n\n"
"""The terminator some clients of Open Responses wait for; OpenAI's own API does not send it."""


# Kind → what comes before the data; there are some fifty kinds, fixed by the contract.
_heads: dict[str, bytes] = {}


def frame(event: Event) -> bytes:
    """Return `event` as one frame, its closing blank line included."""
    return b"event: %b\ndata: %b\n\n" % (event.kind.encode("ascii"), event.data)


def frames(events: Iterable[tuple[str, bytes]]) -> bytes:
    """Return events, or the entries of a run log that they became, as consecutive frames."""
    parts: list[bytes] = []
    for kind, data in events:
        head = _heads.get(kind)
        if head is None:
            head = _heads[kind] = b"event: %b\ndata: " % kind.encode("ascii")
        parts += (head, data, b"\n\n")
    return b"".join(parts)
