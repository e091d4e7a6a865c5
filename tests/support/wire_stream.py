"""The order of a stream: what may follow what, and what must equal what.

The events are known to have the right fields here. Source: contract §3.2 to §3.6, and the official client's tool runner
(contract §3.8), which compares each done item with the final output.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]

TERMINAL = {"response.completed", "response.incomplete", "response.failed"}
STATE_FIELDS = {"status", "completed_at", "error", "incomplete_details", "output", "usage", "service_tier"}
"""What may differ between the Responses of one stream; everything else is the echo of the request."""


@dataclass(frozen=True)
class Text:
    """A text that arrives in deltas: the field of its `done` event, its index, and where it is in the done item."""

    done_field: str
    index: str | None = None
    holder: str | None = None
    part_type: str | None = None


TEXTS = {
    "output_text": Text("text", "content_index", "content", "output_text"),
    "refusal": Text("refusal", "content_index", "content", "refusal"),
    "reasoning_text": Text("text", "content_index", "content", "reasoning_text"),
    "reasoning_summary_text": Text("text", "summary_index", "summary", "summary_text"),
    "function_call_arguments": Text("arguments"),
    "custom_tool_call_input": Text("input"),
    "mcp_call_arguments": Text("arguments"),
    "code_interpreter_call_code": Text("code"),
    "shell_call_command": Text("command", "command_index"),
    "shell_call_output_content": Text("output", "command_index"),
}
PARTS = {"content_part": ("content_index", "content"), "reasoning_summary_part": ("summary_index", "summary")}
REQUIRED_TEXT = {
    "function_call": "function_call_arguments",
    "custom_tool_call": "custom_tool_call_input",
    "mcp_call": "mcp_call_arguments",
    "code_interpreter_call": "code_interpreter_call_code",
}
"""Item kinds whose text is always streamed: it is empty in `added` and has a `done` event."""


@dataclass
class OpenText:
    """The deltas so far and, once it came, the text of the `done` event."""

    deltas: list[Any] = field(default_factory=list)
    done: Any = None


@dataclass
class OpenPart:
    """A part between its `added` and its `done` event."""

    added: JsonObject
    text: OpenText = field(default_factory=OpenText)
    annotations: list[JsonObject] = field(default_factory=list)
    done: JsonObject | None = None


@dataclass
class OpenItem:
    """An item between its `added` and its `done` event."""

    added: JsonObject
    parts: dict[str, list[OpenPart]] = field(default_factory=lambda: {"content": [], "summary": []})
    texts: dict[tuple[str, int], OpenText] = field(default_factory=dict)
    done: JsonObject | None = None


def check_order(events: list[JsonObject], *, earlier_items: int = 0, kept_items: Collection[int] = ()) -> None:
    """Check the order of a whole stream; fails with the sequence number of the event that is wrong.

    `earlier_items` are not in an answer, except for `kept_items`: attempts have told them that were lost.
    """
    _require(bool(events), "the stream is empty")
    for number, event in enumerate(events):
        _require(event["sequence_number"] == number, f"event {number} has sequence_number {event['sequence_number']}")
    body = _check_ends(events)
    items: list[OpenItem] = []
    for event in body:
        try:
            _follow(event, items)
        except AssertionError as error:
            raise AssertionError(f"event {event['sequence_number']} ({event['type']}): {error}") from None
    _check_final(events[-1]["response"], items, set(range(earlier_items)) - set(kept_items))


def _require(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _check_ends(events: list[JsonObject]) -> list[JsonObject]:
    """Check the opening and the terminal events and return what is between them."""
    types = [event["type"] for event in events]
    _require(types[-1] in TERMINAL, f"the stream ends with {types[-1]}")
    is_background = events[0].get("response", {}).get("status") == "queued"
    opening = ["response.created", *(["response.queued"] if is_background else []), "response.in_progress"]
    if is_background and events[-1]["response"]["status"] in {"cancelled", "failed"} and len(events) == 3:
        opening.pop()  # It ended while it was still queued.
    _require(types[: len(opening)] == opening, f"the stream begins with {types[:3]} instead of {opening}")
    first = events[0]["response"]
    for event in [*events[: len(opening)], events[-1]]:
        changed = sorted(
            key
            for key in first.keys() | event["response"].keys()
            if key not in STATE_FIELDS and first.get(key) != event["response"].get(key)
        )
        _require(not changed, f"{event['type']}: {changed} changed within the stream")
    return events[len(opening) : -1]


def _follow(event: JsonObject, items: list[OpenItem]) -> None:
    stem, _, step = str(event["type"]).removeprefix("response.").rpartition(".")
    _require("response" not in event and stem, "does not belong here")
    if stem == "output_item" and step == "added":
        _add_item(event, items)
        return
    _require(event["output_index"] < len(items), f"output_index {event['output_index']} was not added")
    item = items[event["output_index"]]
    _require(item.done is None, "the item is done already")
    item_id = event["item"]["id"] if stem == "output_item" else event.get("item_id", item.added["id"])
    _require(item_id == item.added["id"], f"item id {item_id!r}, but it was added as {item.added['id']!r}")
    if stem == "output_item":
        _finish_item(item, event["item"])
    elif stem in PARTS:
        _follow_part(event, item, stem, step)
    elif stem == "output_text.annotation":
        _add_annotation(event, item)
    elif stem in TEXTS:
        _follow_text(event, item, stem, step)


def _add_item(event: JsonObject, items: list[OpenItem]) -> None:
    item = event["item"]
    _require(event["output_index"] == len(items), f"output_index {event['output_index']} instead of {len(items)}")
    _require(item["id"] not in {other.added["id"] for other in items}, f"item id {item['id']!r} was used before")
    if item["type"] in REQUIRED_TEXT:
        name = TEXTS[REQUIRED_TEXT[item["type"]]].done_field
        _require(item[name] == "", f"{name} is not empty in the added item")
    if item["type"] == "message":
        _require(item["content"] == [], "content is not empty in the added item")
        _require(item["status"] == "in_progress", f"an added message is {item['status']!r}")
    if item["type"] == "reasoning":
        _require(item["summary"] == [] and not item.get("content"), "not empty in the added item")
    items.append(OpenItem(item))


def _follow_part(event: JsonObject, item: OpenItem, stem: str, step: str) -> None:
    index, holder = PARTS[stem]
    parts = item.parts[holder]
    part = event["part"]
    if step == "added":
        _require(event[index] == len(parts), f"{index} {event[index]} instead of {len(parts)}")
        _require(not _text_of(part), "the added part has a text")
        _require(not part.get("annotations"), "the added part has annotations")
        parts.append(OpenPart(part))
        return
    _require(event[index] < len(parts), f"{index} {event[index]} was not added")
    opened = parts[event[index]]
    _require(opened.done is None, "the part is done already")
    _require(part["type"] == opened.added["type"], "the part changed its type")
    _require(opened.text.done is not None, "the text of the part is not done")
    _require(_text_of(part) == opened.text.done, "the text of the part differs from its done event")
    _require(part.get("annotations", []) == opened.annotations, "annotations differ from the annotation events")
    opened.done = part


def _text_of(part: JsonObject) -> str:
    return str(part["refusal"] if part["type"] == "refusal" else part["text"])


def _open_part(event: JsonObject, item: OpenItem, text: Text) -> OpenPart:
    parts = item.parts[str(text.holder)]
    position = event[str(text.index)]
    _require(position < len(parts), f"{text.index} {position} was not added")
    part = parts[position]
    _require(part.added["type"] == text.part_type, f"the part is a {part.added['type']}")
    _require(part.text.done is None, "the text is done already")
    return part


def _add_annotation(event: JsonObject, item: OpenItem) -> None:
    part = _open_part(event, item, TEXTS["output_text"])
    position = event["annotation_index"]
    _require(position == len(part.annotations), f"annotation_index {position} instead of {len(part.annotations)}")
    part.annotations.append(event["annotation"])


def _follow_text(event: JsonObject, item: OpenItem, stem: str, step: str) -> None:
    text = TEXTS[stem]
    if text.holder is not None:
        opened = _open_part(event, item, text).text
    else:
        position = event[text.index] if text.index else 0
        opened = item.texts.setdefault((stem, position), OpenText())
        _require(opened.done is None, "the text is done already")
        _require(REQUIRED_TEXT.get(item.added["type"], stem) == stem, f"a {item.added['type']} has no such text")
    if step == "delta":
        opened.deltas.append(event["delta"])
    elif step == "done":
        opened.done = event[text.done_field]
        _require(_joined(opened.deltas) == _whole(opened.done), f"{text.done_field} differs from its deltas")


def _joined(deltas: list[Any]) -> Any:
    if deltas and isinstance(deltas[0], dict):
        return {name: "".join(delta.get(name, "") for delta in deltas) for name in ("stdout", "stderr")}
    return "".join(deltas)


def _whole(done: Any) -> Any:
    if isinstance(done, list):
        whole = {name: "".join(output[name] for output in done) for name in ("stdout", "stderr")}
        return whole if any(whole.values()) else ""
    return done


def _finish_item(item: OpenItem, done: JsonObject) -> None:
    for name in ("id", "type", "call_id", "name", "server_label", "phase"):
        _require(item.added.get(name) == done.get(name), f"{name} differs from the added item")
    _require(done.get("status") != "in_progress", "a done item is in progress")
    for holder, parts in item.parts.items():
        _require(all(part.done is not None for part in parts), f"a part of {holder} is not done")
        if parts or done["type"] in {"message", "reasoning"}:
            streamed = [part.done for part in parts]
            _require((done.get(holder) or []) == streamed, f"{holder} differs from the streamed parts")
    for (stem, position), text in item.texts.items():
        _require(text.done is not None, f"{stem} {position} is not done")
    required = REQUIRED_TEXT.get(done["type"])
    if required is not None:
        streamed_text = item.texts.get((required, 0), OpenText())
        name = TEXTS[required].done_field
        _require(streamed_text.done == done[name], f"{name} differs from the streamed {streamed_text.done!r}")
    item.done = done


def _check_final(response: JsonObject, items: list[OpenItem], left_out: Collection[int]) -> None:
    done = [item.done for item in items if item.done is not None]
    # A cancelled run may drop the item it was in.
    _require(len(done) == len(items) or response["status"] == "cancelled", "an added item was never done")
    is_answer = response["status"] in {"completed", "incomplete"}
    expected = [item for index, item in enumerate(done) if index not in left_out] if is_answer else done
    _require(response["output"] == expected, "the final output differs from the done items")
