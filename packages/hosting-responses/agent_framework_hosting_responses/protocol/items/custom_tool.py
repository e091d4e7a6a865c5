"""Calls of custom tools that the agent's own model made, passed through as they are.

Source: contract §2.4, §3.6 (Custom tool call).
"""

from __future__ import annotations

from agent_framework_hosting_responses.protocol.events import DeltaRun
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

from .hosted import HostedItem


class CustomToolItem(HostedItem):
    """One call with its free text input."""

    def initial(self) -> JsonObject:
        """Return the call without its input."""
        return {**self.item, "input": ""}

    def start(self) -> None:
        """Prepare for the input."""
        self._run = DeltaRun(self.output.writer, "response.custom_tool_call_input.delta", self.place)

    def append(self, text: str) -> None:
        """Write the next piece of the input."""
        if text:
            self._run.append(text)

    def conclude(self, item: JsonObject) -> JsonObject:
        """Write the rest of the input."""
        self._run.replace(str(item.get("input") or ""))
        return {**item, "input": self._finish_input()}

    def broken(self) -> JsonObject:
        """Return the call with the input that was written."""
        return {**super().broken(), "input": self._finish_input()}

    def _finish_input(self) -> JsonValue:
        text = self._run.text
        self.output.writer.emit("response.custom_tool_call_input.done", {**self.place, "input": text})
        return text
