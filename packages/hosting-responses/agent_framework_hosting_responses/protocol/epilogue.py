"""The end of a stream whose response has ended without it: its process died between the store and the log.

The response is stored with its whole output. What the log misses of it is told in the shortest standard form: an item
that was not finished is announced, if it was not, its texts get what they lack as one delta each, and it is finished as
it is stored; then comes the terminal event. An item that is not stored was dropped when the run was cancelled.

Source: contract §3.3, §3.6.
"""

from __future__ import annotations

from typing import Final

from .events import Event, EventWriter
from .items.unfinished import UnfinishedItem, announced
from .json import JsonObject
from .replay import Replay
from .resources import decode_response

# What a Response says before its end.
_UNENDED: Final[JsonObject] = {
    "output": [],
    "error": None,
    "incomplete_details": None,
    "usage": None,
    "completed_at": None,
    "service_tier": "auto",
}
_KINDS: Final = {"completed": "response.completed", "incomplete": "response.incomplete"}


def epilogue(told: Replay, body: bytes) -> list[Event]:
    """Return the events from the last one that was told to the terminal one of the Response in `body`."""
    response = decode_response(body)
    writer = EventWriter(first=told.next_number)
    _open(writer, told, response)
    output = (
        [item for item in response["output"] if isinstance(item, dict)] if isinstance(response["output"], list) else []
    )
    stored = {item["id"]: item for item in output}
    for item in told.items:
        if isinstance(item, UnfinishedItem):
            finished = stored.pop(item.item["id"], None)
            if finished is not None:
                item.complete(writer, finished)
        else:
            stored.pop(item["id"], None)
    for index, item in enumerate(stored.values(), len(told.items)):
        start = announced(item)
        writer.emit("response.output_item.added", {"output_index": index, "item": start})
        UnfinishedItem(index, start).complete(writer, item)
    writer.emit_response(_KINDS.get(str(response["status"]), "response.failed"), body)
    return writer.take()


def _open(writer: EventWriter, told: Replay, response: JsonObject) -> None:
    """Write the opening events that are missing; a response that ended while it was queued was never in progress."""
    is_background = bool(response["background"])
    opening = [
        ("response.created", "queued" if is_background else "in_progress", told.response is not None),
        ("response.queued", "queued", told.is_queued or not is_background),
        ("response.in_progress", "in_progress", told.is_started or (is_background and not response["output"])),
    ]
    for kind, status, is_told in opening:
        if not is_told:
            writer.emit(kind, {"response": {**response, **_UNENDED, "status": status}})
