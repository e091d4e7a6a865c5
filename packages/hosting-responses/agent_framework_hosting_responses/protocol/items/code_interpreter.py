"""Code interpreter calls.

Source: contract §2.4, §3.6 (code_interpreter_call).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from agent_framework import Content

from agent_framework_hosting_responses.protocol.events import DeltaRun
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

from .draft import Draft
from .hosted import HostedItem
from .output import Output
from .results import failure_text, is_failure, result_text
from .source import responses_item


class CodeInterpreterItem(HostedItem):
    """One call: the code as it is written, then its outputs."""

    opening: ClassVar[tuple[str, ...]] = ("in_progress",)

    def __init__(self, output: Output, item: JsonObject, *, include: frozenset[str]) -> None:
        self._run: DeltaRun | None = None
        super().__init__(output, item, include=include)

    def initial(self) -> JsonObject:
        """Return the call without code and outputs."""
        return {**self.item, "status": "in_progress", "code": "", "outputs": []}

    def start(self) -> None:
        """Write the code if it is known already."""
        self.write_code(self.item.get("code"), replaces=True)

    def write_code(self, code: object, *, replaces: bool) -> None:
        """Write more code, or bring what was written to `code`."""
        if not isinstance(code, str) or not code:
            return
        if self._run is None:
            self._run = DeltaRun(self.output.writer, "response.code_interpreter_call_code.delta", self.place)
        if replaces:
            self._run.replace(code)
        else:
            self._run.append(code)

    def conclude(self, item: JsonObject) -> JsonObject:
        """Finish the code and tell that it ran."""
        self.write_code(item.get("code"), replaces=True)
        code = self._finish_code(item.get("code"))
        if item.get("status") == "completed":
            self.progress("interpreting")
            self.progress("completed")
        return {**item, "code": code}

    def broken(self) -> JsonObject:
        """Return the call with the code that was written."""
        return {**self.item, "status": "incomplete", "code": self._finish_code("")}

    def _finish_code(self, given: JsonValue) -> JsonValue:
        if self._run is None:
            return given
        code = self._run.text
        self.output.writer.emit("response.code_interpreter_call_code.done", {**self.place, "code": code})
        return code


def write_code_interpreter_call(draft: Draft, content: Content) -> None:
    """Open the item of a call, or write more of its code."""
    item = _raw(content)
    draft.before_output()
    opened = draft.hosted.get("code_interpreter_call", content.call_id)
    if opened is None or item is not None:
        opened = draft.hosted.open(content.call_id, item or _call(draft), CodeInterpreterItem)
    if item is None and isinstance(opened, CodeInterpreterItem):
        opened.write_code(_text(content.inputs), replaces=content.merge_mode == "replace")


def write_code_interpreter_result(draft: Draft, content: Content) -> None:
    """Finish the item of a call; a raw item that is still in progress only opens it."""
    item = _raw(content)
    draft.before_output()
    if item is not None:
        draft.hosted.open(content.call_id, item, CodeInterpreterItem)
        return
    opened = draft.hosted.get("code_interpreter_call", content.call_id)
    item = dict(opened.item) if opened is not None else _call(draft)
    if is_failure(content):
        details = draft.options.error_details
        text = failure_text(content.exception or result_text(content.outputs), details=details)
        item |= {"status": "failed", "outputs": [{"type": "logs", "logs": text}]}
    else:
        item |= {"status": "completed", "outputs": _outputs(content.outputs)}
    draft.hosted.end(content.call_id, item, CodeInterpreterItem)


def _raw(content: Content) -> JsonObject | None:
    item = responses_item(content.raw_representation)
    return item if item is not None and item["type"] == "code_interpreter_call" else None


def _call(draft: Draft) -> JsonObject:
    return {
        "type": "code_interpreter_call",
        "status": "in_progress",
        "code": None,
        # The wire wants a container; only OpenAI's own interpreter has one.
        "container_id": draft.new_id("cntr"),
        "outputs": [],
    }


def _text(inputs: Sequence[Content] | None) -> str:
    return "".join(part.text or "" for part in inputs or () if part.type == "text")


def _outputs(outputs: object) -> list[JsonValue]:
    contents = outputs if isinstance(outputs, Sequence) and not isinstance(outputs, str) else [outputs]
    rendered: list[JsonValue] = []
    for content in contents:
        if isinstance(content, Content) and content.uri and content.type in {"data", "uri"}:
            rendered.append({"type": "image", "url": content.uri})
        elif text := result_text(content):
            rendered.append({"type": "logs", "logs": text})
    return rendered
