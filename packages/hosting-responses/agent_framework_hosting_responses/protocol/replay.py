"""What an earlier attempt at a response has told: the state of its stream, read from the log it left.

The log may end anywhere: in the opening, within a text, between the last events of an item. A second attempt goes on from
there (see `encoder.py`): its numbers and indexes follow those of the first, and ids of the first are never used again.

Source: contract §3.2, §3.3; design, "Runs".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from .errors import EncoderStateError
from .items.unfinished import ItemEvent, UnfinishedItem
from .json import JsonObject, decode_json

_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The state of a stream. The default is a stream of which nothing was told."""

    next_number: int = 0
    """The `sequence_number` of the next event."""

    response: JsonObject | None = None
    """The Response as it was told last; None if not even `response.created` was."""

    is_queued: bool = False
    """Whether `response.queued` was told."""

    is_started: bool = False
    """Whether `response.in_progress` was told."""

    is_terminal: bool = False
    """Whether the end was told: nothing may follow."""

    items: tuple[JsonObject | UnfinishedItem, ...] = ()
    """By `output_index`: the item that `response.output_item.done` told, or what was told of one that is open."""

    @property
    def can_complete(self) -> bool:
        """Whether a further attempt may end as `completed`.

        Not if a call of a custom tool was cut: it has no status that could say so, and any text is an input for such a
        tool. A client would take half of it for the whole.
        """
        return not any(isinstance(item, UnfinishedItem) and item.hides_its_cut for item in self.items)


class _Event(ItemEvent):
    sequence_number: int = -1
    response: dict[str, Any] | None = None


_decoder: Final = msgspec.json.Decoder(_Event)


def replay(entries: Iterable[tuple[str, bytes]]) -> Replay:
    """Return the state of the stream that begins with `entries`, the kinds and data of all its events so far.

    Raises:
        EncoderStateError: these events are not the beginning of one stream.
    """
    number = 0
    response: JsonObject | None = None
    kinds: set[str] = set()
    items: list[JsonObject | UnfinishedItem] = []
    for kind, data in entries:
        event = _decode(data)
        if event.sequence_number != number:
            raise EncoderStateError(f"Event {number} of the log has the number {event.sequence_number}.")
        number += 1
        if event.response is not None:
            response = event.response
            kinds.add(kind)
        elif event.output_index is not None:
            _follow(items, kind, event, event.output_index)
    return Replay(
        next_number=number,
        response=response,
        is_queued="response.queued" in kinds,
        is_started="response.in_progress" in kinds,
        is_terminal=not kinds.isdisjoint(_ENDS),
        items=tuple(items),
    )


def _follow(items: list[JsonObject | UnfinishedItem], kind: str, event: _Event, index: int) -> None:
    is_new = kind == "response.output_item.added"
    if not 0 <= index < len(items) + is_new or (is_new and index < len(items)):
        raise EncoderStateError(f"{kind} {event.sequence_number} of the log is about item {index} of {len(items)}.")
    if event.item is not None:
        if is_new:
            items.append(UnfinishedItem(index, event.item))
        else:
            items[index] = event.item
        return
    opened = items[index]
    if isinstance(opened, UnfinishedItem):
        opened.follow(kind, event)


def _decode(data: bytes) -> _Event:
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        return msgspec.convert(decode_json(data), _Event)
