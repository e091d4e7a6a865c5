"""Message items: text, refusals and annotations.

All text of one message goes into one item. Text of the same kind continues the open part; text after
another kind opens a new one.

Source: contract §3.6 (Text, Annotations, Refusal).
"""

from __future__ import annotations

from agent_framework_hosting_responses.protocol.events import DeltaRun
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

from .output import Output


class MessageItem:
    """One open message item; closed exactly once."""

    __slots__ = ("_annotations", "_item", "_output", "_parts", "_place", "_told", "is_refusal", "phase", "run")

    def __init__(self, output: Output, *, phase: str | None = None) -> None:
        self._output = output
        self._item: JsonObject = {
            "id": output.claim_id("message"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        if phase is not None:
            self._item["phase"] = phase
        self.phase = phase
        self._place: JsonObject = {"item_id": self._item["id"], "output_index": output.add(self._item)}
        self._parts: list[JsonObject] = []
        self._annotations: list[JsonObject] = []
        self._told: set[tuple[JsonValue, ...]] = set()
        self.is_refusal = False
        self.run: DeltaRun | None = None

    def append(self, text: str, *, refusal: bool) -> None:
        """Write one delta; `text` is not empty."""
        self.open_part(refusal=refusal).append(text)

    def replace(self, text: str, *, refusal: bool) -> bool:
        """Bring the message to `text` as far as deltas can, and return whether they could."""
        if self.run is not None and self.is_refusal is refusal and self.run.replace(text):
            return True
        parts = [part["refusal" if refusal else "text"] for part in self._parts if _is_refusal(part) is refusal]
        # The message may have gone on to another part since.
        return text in parts or "".join(map(str, parts)) == text

    def open_part(self, *, refusal: bool) -> DeltaRun:
        """Return the run of the open part, after opening one if the open part is of the other kind."""
        if self.run is not None and self.is_refusal is refusal:
            return self.run
        self.end_part()
        place: JsonObject = {**self._place, "content_index": len(self._parts)}
        self._output.writer.emit("response.content_part.added", {**place, "part": _part("", [], refusal=refusal)})
        if refusal:
            self.run = DeltaRun(self._output.writer, "response.refusal.delta", place)
        else:
            self.run = DeltaRun(self._output.writer, "response.output_text.delta", {**place, "logprobs": []})
        self.is_refusal = refusal
        return self.run

    def annotate(self, annotations: list[JsonObject]) -> None:
        """Attach annotations to the open text part; a message without one gets an empty part."""
        self.open_part(refusal=False)
        for annotation in annotations:
            key = tuple(annotation.values())
            if key in self._told:
                # The framework tells some annotations once as they come and once more with their part.
                continue
            self._told.add(key)
            self._output.writer.emit(
                "response.output_text.annotation.added",
                {
                    **self._place,
                    "content_index": len(self._parts),
                    "annotation_index": len(self._annotations),
                    "annotation": annotation,
                },
            )
            self._annotations.append(annotation)

    def write_part(self, text: str, annotations: list[JsonObject]) -> None:
        """Write a text part of its own, whole."""
        self.end_part()
        self.append(text, refusal=False)
        self.annotate(annotations)
        self.end_part()

    def end_part(self) -> None:
        """Close the open part, if there is one."""
        if self.run is None:
            return
        text = self.run.text
        place: JsonObject = {**self._place, "content_index": len(self._parts)}
        part = _part(text, self._annotations, refusal=self.is_refusal)
        if self.is_refusal:
            self._output.writer.emit("response.refusal.done", {**place, "refusal": text})
        else:
            self._output.writer.emit("response.output_text.done", {**place, "text": text, "logprobs": []})
        self._output.writer.emit("response.content_part.done", {**place, "part": part})
        self._parts.append(part)
        self._annotations = []
        self._told = set()
        self.run = None

    def close(self, status: str) -> None:
        """Close the item as `completed` or `incomplete`."""
        self.end_part()
        index = self._place["output_index"]
        assert isinstance(index, int)  # noqa: S101  narrows what the constructor put there
        self._output.finish(index, {**self._item, "status": status, "content": list(self._parts)})


def _part(text: str, annotations: list[JsonObject], *, refusal: bool) -> JsonObject:
    if refusal:
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": []}


def _is_refusal(part: JsonObject) -> bool:
    return part["type"] == "refusal"
