"""Reasoning items: summaries, raw reasoning text, encrypted content.

One item per reasoning id, or per run of reasoning without ids; other output closes it. The summary form is
the default because the most clients understand it.

Source: contract §3.6 (Reasoning).
"""

from __future__ import annotations

from collections.abc import Mapping

from agent_framework import Content

from agent_framework_hosting_responses.protocol.events import DeltaRun
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

from .output import Output


class ReasoningItem:
    """One open reasoning item; it never has a status."""

    __slots__ = (
        "_content",
        "_index",
        "_is_text",
        "_item",
        "_output",
        "_run",
        "_summary",
        "_upstream_part",
        "encrypted",
        "key",
    )

    def __init__(
        self, output: Output, *, key: str | None, wanted_id: str | None, encrypted: str | None, is_text: bool
    ) -> None:
        self.key = key
        self.encrypted = encrypted
        self._output = output
        self._item: JsonObject = {
            "id": output.claim_id("reasoning", wanted_id),
            "type": "reasoning",
            "summary": [],
        }
        if is_text:
            self._item["content"] = []
        if encrypted is not None:
            self._item["encrypted_content"] = encrypted
        self._index = output.add(self._item)
        self._summary: list[JsonValue] = []
        self._content: list[JsonValue] | None = [] if is_text else None
        self._is_text = is_text
        self._upstream_part: object = None
        self._run: DeltaRun | None = None

    def append(self, text: str, *, is_text: bool, upstream_part: object) -> None:
        """Write one delta; a new index of the provider's own part opens a new part."""
        if text:
            self._open_part(is_text=is_text, upstream_part=upstream_part).append(text)

    def replace(self, text: str, *, is_text: bool, upstream_part: object) -> None:
        """Bring the open part to `text`, or write `text` as a part of its own if deltas cannot."""
        if text and not self._open_part(is_text=is_text, upstream_part=upstream_part).replace(text):
            self._end_part()
            self._open_part(is_text=is_text, upstream_part=upstream_part).append(text)

    def close(self) -> None:
        """Close the item."""
        self._end_part()
        item: JsonObject = {**self._item, "summary": self._summary}
        if self._content is not None:
            item["content"] = self._content
        if self.encrypted is not None:
            item["encrypted_content"] = self.encrypted
        self._output.finish(self._index, item)

    @property
    def _place(self) -> JsonObject:
        place: JsonObject = {"item_id": self._item["id"], "output_index": self._index}
        if self._is_text:
            return {**place, "content_index": len(self._content or ())}
        return {**place, "summary_index": len(self._summary)}

    def _open_part(self, *, is_text: bool, upstream_part: object) -> DeltaRun:
        if self._run is not None and self._is_text is is_text and self._upstream_part == upstream_part:
            return self._run
        self._end_part()
        self._is_text = is_text
        self._upstream_part = upstream_part
        if is_text and self._content is None:
            self._content = []
        kind = "content_part" if is_text else "reasoning_summary_part"
        self._output.writer.emit(f"response.{kind}.added", {**self._place, "part": self._part("")})
        kind = "reasoning_text" if is_text else "reasoning_summary_text"
        self._run = DeltaRun(self._output.writer, f"response.{kind}.delta", self._place)
        return self._run

    def _end_part(self) -> None:
        if self._run is None:
            return
        text = self._run.text
        part = self._part(text)
        kind = "reasoning_text" if self._is_text else "reasoning_summary_text"
        self._output.writer.emit(f"response.{kind}.done", {**self._place, "text": text})
        kind = "content_part" if self._is_text else "reasoning_summary_part"
        self._output.writer.emit(f"response.{kind}.done", {**self._place, "part": part})
        if self._is_text and self._content is not None:
            self._content.append(part)
        else:
            self._summary.append(part)
        self._run = None

    def _part(self, text: str) -> JsonObject:
        return {"type": "reasoning_text" if self._is_text else "summary_text", "text": text}


def is_reasoning_text(content: Content) -> bool:
    """Tell whether the provider marked this as raw reasoning, not as a summary."""
    properties = content.additional_properties
    namespace = properties.get("openai")
    return "reasoning_text" in properties or (isinstance(namespace, Mapping) and "reasoning_text" in namespace)
