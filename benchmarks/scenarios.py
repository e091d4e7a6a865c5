"""What is measured: answers of so many deltas, for so many callers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONNECTIONS: Final = (1, 16, 64)
SHORT: Final = 50
LONG: Final = 500
LONGEST: Final = 5_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """`deltas` text deltas an answer, streamed or not, for `connections` callers that ask again and again."""

    deltas: int
    connections: int
    stream: bool = True

    @property
    def body(self) -> bytes:
        """The request: an input whose text tells the agent how many updates to yield."""
        return b'{"model":"counting","input":"%d","stream":%b}' % (self.deltas, b"true" if self.stream else b"false")

    @property
    def kind(self) -> str:
        """The answer's name in reports and in paths: `one-shot`, `stream-50`, …"""
        return f"stream-{self.deltas}" if self.stream else "one-shot"


ONE_SHOT: Final = tuple(Scenario(1, connections, stream=False) for connections in CONNECTIONS)
STREAMS: Final = tuple(Scenario(deltas, connections) for deltas in (SHORT, LONG) for connections in CONNECTIONS)
GROWTH: Final = Scenario(LONGEST, 1)
SCENARIOS: Final = (*ONE_SHOT, *STREAMS, GROWTH)
