"""Events of the stream: their numbering, their JSON, and runs of deltas.

Sequence numbers are dense from 0 and belong to the response. A writer that is not enabled keeps the
same state and builds nothing: that is how a one-shot answer shares the encoder with a stream.

Source: contract §3.2, §3.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from .json import encode_json

_encode_ascii = msgspec.json.Encoder().encode
_new_tuple = tuple.__new__


class Event(NamedTuple):
    """One event of a response; `data` is its JSON on one line, `sequence_number` included."""

    kind: str
    data: bytes


class EventWriter:
    """Numbers events and builds their JSON."""

    __slots__ = ("_events", "_next", "enabled")

    def __init__(self, *, enabled: bool = True, first: int = 0) -> None:
        """Begin with the number `first`: another one than 0 goes on where the log of an earlier attempt ends."""
        self.enabled = enabled
        self._events: list[Event] = []
        self._next = first

    def emit(self, kind: str, fields: Mapping[str, object]) -> None:
        """Append the event `kind`; `fields` are its members besides `type` and `sequence_number`."""
        if not self.enabled:
            return
        data = encode_json({"type": kind, "sequence_number": self._next, **fields})
        self._next += 1
        self._events.append(Event(kind, data))

    def emit_response(self, kind: str, body: bytes) -> None:
        """Append the lifecycle event `kind`, whose `response` is already encoded as `body`."""
        if not self.enabled:
            return
        data = b'{"type":"%b","sequence_number":%d,"response":%b}' % (kind.encode("ascii"), self._next, body)
        self._next += 1
        self._events.append(Event(kind, data))

    def emit_delta(self, kind: str, prefix: bytes, text: str) -> None:
        """Append a delta from its precomputed `prefix`, the JSON up to the sequence number."""
        if self.enabled:
            self._events.append(self._delta(kind, prefix, text))

    def only_delta(self, kind: str, prefix: bytes, text: str) -> list[Event]:
        """Return a delta as `emit_delta` writes it; nothing else may wait to be taken."""
        return [self._delta(kind, prefix, text)] if self.enabled else []

    def _delta(self, kind: str, prefix: bytes, text: str) -> Event:
        # A pure ASCII text holds neither line breaks of Unicode nor surrogates.
        delta = _encode_ascii(text) if text.isascii() else encode_json(text)
        number = self._next
        self._next = number + 1
        # What Event() does too, at half the price: a third of what a delta costs here.
        return _new_tuple(Event, (kind, b'%b%d,"delta":%b}' % (prefix, number, delta)))

    def take(self) -> list[Event]:
        """Return the events written since the last call."""
        events = self._events
        self._events = []
        return events


class DeltaRun:
    """The deltas of one text: each costs the same, however long the text has become."""

    __slots__ = ("_chunks", "_kind", "_prefix", "_settled", "_writer")

    def __init__(self, writer: EventWriter, kind: str, place: Mapping[str, object]) -> None:
        """Start an empty run of `kind` events at `place`, their members besides number and delta."""
        self._writer = writer
        self._kind = kind
        self._prefix = encode_json({"type": kind, **place})[:-1] + b',"sequence_number":'
        self._chunks: list[str] = []
        self._settled = 0

    @property
    def text(self) -> str:
        """All deltas so far; costs as much as the text is long, so ask at the end."""
        text = "".join(self._chunks)
        self._chunks = [text]
        return text

    def append(self, text: str) -> None:
        """Write one delta; `text` must not be empty (contract §3.4)."""
        self._chunks.append(text)
        self._writer.emit_delta(self._kind, self._prefix, text)

    def only(self, text: str) -> list[Event]:
        """Write one delta, as `append` does, and return its event: the way of every update that is nothing else."""
        self._chunks.append(text)
        return self._writer.only_delta(self._kind, self._prefix, text)

    def replace(self, text: str) -> bool:
        """Bring the run to `text` as far as deltas can, and return whether they could.

        A replacement counts for everything since the last one, or for the whole run. One that equals or
        shortens what was sent needs no delta, one that extends it needs the rest, and anything else cannot
        be told with deltas: nothing is written then.
        """
        whole = self.text
        since = whole[self._settled :]
        if text.startswith(whole):
            rest = text[len(whole) :]
        elif since and text.startswith(since):
            rest = text[len(since) :]
        elif whole.startswith(text) or since.startswith(text):
            rest = ""
        else:
            return False
        if rest:
            self.append(rest)
        self._settled = len(whole) + len(rest)
        return True
