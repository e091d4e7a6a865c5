"""Items that an earlier attempt left open: what the client was told of them, and how they are closed.

What was told stands. A text ends where its deltas ended, whatever lacks its last event gets it, and the item says that it
was cut: `incomplete`, or `failed` where its kind has no such status. Kinds without a status just end. An item that was
announced whole, with a status that is final, ends as it was announced: nothing else could have followed.

Nothing is added to the half arguments of a call, nor an empty object to none: they shall not parse, and the call shall not
be run. The official client accumulates such a call, its tool runner refuses it by its status, and a client that lets it
parse the arguments of strict functions gets an error if the response completes nevertheless.

Source: contract §3.3, §3.6; design, "Runs".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from agent_framework_hosting_responses.protocol.events import EventWriter
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

from .output import Output


class _Form(NamedTuple):
    """How one kind of text is told: the member of its last event, its index, and the list of parts that it is in."""

    member: str
    index_name: str | None = None
    holder: str | None = None


_FORMS: Final[Mapping[str, _Form]] = {
    "output_text": _Form("text", "content_index", "content"),
    "refusal": _Form("refusal", "content_index", "content"),
    "reasoning_text": _Form("text", "content_index", "content"),
    "reasoning_summary_text": _Form("text", "summary_index", "summary"),
    "function_call_arguments": _Form("arguments"),
    "custom_tool_call_input": _Form("input"),
    "mcp_call_arguments": _Form("arguments"),
    "code_interpreter_call_code": _Form("code"),
    "shell_call_command": _Form("command", "command_index"),
    "shell_call_output_content": _Form("output", "command_index"),
}
_PART_EVENTS: Final = {"content": "content_part", "summary": "reasoning_summary_part"}
_TEXT_OF_PART: Final = {
    "output_text": "output_text",
    "refusal": "refusal",
    "reasoning_text": "reasoning_text",
    "summary_text": "reasoning_summary_text",
}
# Items that have exactly one text, whose end is told even if it is empty.
_TEXT_OF_ITEM: Final = {
    "function_call": "function_call_arguments",
    "custom_tool_call": "custom_tool_call_input",
    "mcp_call": "mcp_call_arguments",
    "code_interpreter_call": "code_interpreter_call_code",
}
_FINAL: Final = frozenset({"completed", "failed", "incomplete"})
_CUT: Final[Mapping[str, str]] = {"image_generation_call": "failed"}


class ItemEvent(msgspec.Struct):
    """The members of an event that say what has become of an item."""

    output_index: int | None = None
    item_id: str | None = None
    content_index: int | None = None
    summary_index: int | None = None
    command_index: int | None = None
    item: dict[str, Any] | None = None
    part: dict[str, Any] | None = None
    annotation: dict[str, Any] | None = None
    # Text; of a shell output, text by stream.
    delta: str | dict[str, str] | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None
    input: str | None = None
    code: str | None = None
    command: str | None = None
    output: list[Any] | None = None


class _Text:
    """One text of an open item, with the part that it is in, if it is in one."""

    __slots__ = ("annotations", "chunks", "form", "is_part_done", "kind", "part", "place", "value")

    def __init__(self, kind: str, place: JsonObject) -> None:
        self.kind = kind
        self.form = _FORMS[kind]
        self.place = place
        self.chunks: list[str | dict[str, str]] = []
        self.value: JsonValue = None
        self.part: JsonObject | None = None
        self.annotations: list[JsonValue] = []
        self.is_part_done = False

    def end(self, writer: EventWriter) -> JsonValue:
        """Write the events that the text and its part still lack, and return the part, or the text if it is in none."""
        value = self.value
        if value is None:
            value = _command_output(self.chunks) if self.kind == "shell_call_output_content" else _joined(self.chunks)
            extra: JsonObject = {"logprobs": []} if self.kind == "output_text" else {}
            writer.emit(f"response.{self.kind}.done", {**self.place, self.form.member: value, **extra})
        if self.form.holder is None or self.part is None:
            return value
        if self.is_part_done:
            return self.part
        part: JsonObject = {**self.part, self.form.member: value}
        if self.kind == "output_text":
            part["annotations"] = list(self.annotations)
        writer.emit(f"response.{_PART_EVENTS[self.form.holder]}.done", {**self.place, "part": part})
        return part

    def complete(self, writer: EventWriter, value: str, part: JsonObject | None) -> None:
        """Write the events that bring the text to `value`, and its part, if it is in one, to `part`."""
        stem = "" if self.form.holder is None else f"response.{_PART_EVENTS[self.form.holder]}"
        if part is not None and self.part is None:
            empty: JsonObject = {"annotations": []} if "annotations" in part else {}
            writer.emit(f"{stem}.added", {**self.place, "part": {**part, self.form.member: "", **empty}})
        if self.value is None:
            self._complete_text(writer, value, part)
        if part is not None and not self.is_part_done:
            writer.emit(f"{stem}.done", {**self.place, "part": part})

    def _complete_text(self, writer: EventWriter, value: str, part: JsonObject | None) -> None:
        extra: JsonObject = {"logprobs": []} if self.kind == "output_text" else {}
        told = _joined(self.chunks)
        if value.startswith(told) and value != told:
            writer.emit(f"response.{self.kind}.delta", {**self.place, "delta": value[len(told) :], **extra})
        annotations = part.get("annotations") if part is not None else None
        for index, annotation in enumerate(annotations if isinstance(annotations, list) else []):
            if index >= len(self.annotations):
                place = {**self.place, "annotation_index": index}
                writer.emit("response.output_text.annotation.added", {**place, "annotation": annotation})
        writer.emit(f"response.{self.kind}.done", {**self.place, self.form.member: value, **extra})


class UnfinishedItem:
    """One item that was announced and not finished."""

    __slots__ = ("_texts", "index", "item")

    def __init__(self, index: int, item: JsonObject) -> None:
        """Begin with `item` as it was announced at `index`, its `output_index`."""
        self.index = index
        self.item = item
        self._texts: dict[tuple[str, int], _Text] = {}

    @property
    def hides_its_cut(self) -> bool:
        """Whether a client will take half of the closed item for the whole, and act on it."""
        # Calls of custom tools have no status, and any text is an input. The other kinds without a status ask for nothing,
        # or, as approval requests do, are announced whole.
        if self.item["type"] != "custom_tool_call":
            return False
        return all(text.value is None for text in self._texts.values())

    def follow(self, kind: str, event: ItemEvent) -> None:
        """Take note of what an event of the item says; progress events say nothing about what it holds."""
        name, _, step = kind.removeprefix("response.").rpartition(".")
        if event.part is not None:
            text = self._text(_TEXT_OF_PART[event.part["type"]], event)
            text.part = event.part
            text.is_part_done = step == "done"
        elif event.annotation is not None:
            self._text("output_text", event).annotations.append(event.annotation)
        elif name in _FORMS:
            text = self._text(name, event)
            if event.delta is not None:
                text.chunks.append(event.delta)
            elif step == "done":
                text.value = getattr(event, text.form.member)

    def close(self, output: Output, *, is_whole: bool = False) -> None:
        """Write the events that the item still lacks; `is_whole` says that only its end was not told."""
        parts: dict[str, list[JsonValue]] = {}
        members: JsonObject = {}
        for text in self._all_texts():
            value = text.end(output.writer)
            if text.kind == "shell_call_output_content":
                parts.setdefault("output", []).extend(value if isinstance(value, list) else [])
            elif text.form.index_name is not None:
                parts.setdefault(text.form.holder or "commands", []).append(value)
            else:
                members[text.form.member] = value
        output.finish(self.index, {**self.item, **members, **self._with(parts), **self._ending(is_whole=is_whole)})

    def complete(self, writer: EventWriter, item: JsonObject) -> None:
        """Write the events that the item still lacks to become `item`, as which it was finished where nobody heard of it."""
        completed: set[tuple[str, int]] = set()
        for kind, position, value, part in _texts_in(item):
            place: JsonObject = {"item_id": item["id"], "output_index": self.index}
            if (index_name := _FORMS[kind].index_name) is not None:
                place[index_name] = position
            text = self._texts.get((kind, position)) or _Text(kind, place)
            text.complete(writer, value, part)
            completed.add((kind, position))
        for at, text in self._texts.items():
            if at not in completed:  # what shells say, and are told
                text.end(writer)
        writer.emit("response.output_item.done", {"output_index": self.index, "item": item})

    def _text(self, kind: str, event: ItemEvent) -> _Text:
        index_name = _FORMS[kind].index_name
        position: int = getattr(event, index_name) if index_name is not None else 0
        text = self._texts.get((kind, position))
        if text is None:
            place: JsonObject = {"output_index": self.index}
            if event.item_id is not None:  # the events of shell commands have none
                place = {"item_id": event.item_id, **place}
            if index_name is not None:
                place[index_name] = position
            text = self._texts[kind, position] = _Text(kind, place)
        return text

    def _all_texts(self) -> Iterator[_Text]:
        yield from self._texts.values()
        kind = _TEXT_OF_ITEM.get(str(self.item["type"]))
        if kind is not None and not self._texts:
            yield _Text(kind, {"item_id": self.item["id"], "output_index": self.index})

    def _with(self, parts: dict[str, list[JsonValue]]) -> JsonObject:
        action = self.item.get("action")
        if "commands" in parts and isinstance(action, dict):
            return {"action": {**action, "commands": parts["commands"]}}
        return {**parts}

    def _ending(self, *, is_whole: bool) -> JsonObject:
        """Return the members that say how the item ended."""
        kind = str(self.item["type"])
        if "status" not in self.item or self.item["status"] in _FINAL:
            return {}
        ending: JsonObject = {"status": "completed" if is_whole else _CUT.get(kind, "incomplete")}
        if kind == "web_search_call" and "action" not in self.item:
            # Clients demand one of a search that is over, and nobody was told which it was.
            ending["action"] = {"type": "search", "query": ""}
        return ending


def announced(item: JsonObject) -> JsonObject:
    """Return a finished item as it would have been announced, before anything of it was told."""
    kind = _TEXT_OF_ITEM.get(str(item["type"]))
    if kind is None and item["type"] not in {"message", "reasoning"}:
        return item
    start = {name: value for name, value in item.items() if not (item["type"] == "reasoning" and name == "content")}
    for name, empty in (("content", []), ("summary", []), ("status", "in_progress")):
        if name in start:
            start[name] = empty
    return start if kind is None else {**start, _FORMS[kind].member: ""}


def _texts_in(item: JsonObject) -> Iterator[tuple[str, int, str, JsonObject | None]]:
    """Yield the texts of a finished item: kind, position, text, and the part that it is in."""
    for holder in _PART_EVENTS:
        parts = item.get(holder)
        for position, part in enumerate(parts if isinstance(parts, list) else []):
            if isinstance(part, dict) and (kind := _TEXT_OF_PART.get(str(part["type"]))) is not None:
                yield kind, position, str(part[_FORMS[kind].member]), part
    kind = _TEXT_OF_ITEM.get(str(item["type"]))
    if kind is not None:
        yield kind, 0, str(item[_FORMS[kind].member]), None


def _joined(chunks: list[str | dict[str, str]]) -> str:
    return "".join(chunk for chunk in chunks if isinstance(chunk, str))


def _command_output(chunks: list[str | dict[str, str]]) -> list[JsonValue]:
    """Return what a command had printed; the wire knows no other outcome for one whose end nobody saw."""
    told = [chunk for chunk in chunks if isinstance(chunk, dict)]
    printed: JsonObject = {stream: "".join(chunk.get(stream, "") for chunk in told) for stream in ("stdout", "stderr")}
    return [{**printed, "outcome": {"type": "timeout"}}]
