"""The end of a stream whose response has ended without it: its process died between the store and the log.

The response is stored with its whole output. What the log misses of it is told in the shortest standard form: every item
that was not finished is announced, if it was not, and finished as it is stored; then comes the terminal event.

Source: contract §3.3, §3.6.
"""

from __future__ import annotations

from typing import Final

from .events import Event, EventWriter
from .items.unfinished import UnfinishedItem
from .replay import Replay
from .resources import decode_response

_KINDS: Final = {"completed": "response.completed", "incomplete": "response.incomplete"}


def epilogue(told: Replay, body: bytes) -> list[Event]:
    """Return the events from the last one that was told to the terminal one of the Response in `body`."""
    response = decode_response(body)
    writer = EventWriter(first=told.next_number)
    output = response["output"] if isinstance(response["output"], list) else []
    for index, item in enumerate(output):
        if index >= len(told.items):
            writer.emit("response.output_item.added", {"output_index": index, "item": item})
        elif not isinstance(told.items[index], UnfinishedItem):
            continue
        writer.emit("response.output_item.done", {"output_index": index, "item": item})
    writer.emit_response(_KINDS.get(str(response["status"]), "response.failed"), body)
    return writer.take()
