"""Shell calls and what their commands printed.

Source: contract §2.4, §3.6 (shell_call). The command events carry no `item_id`.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent_framework import Content

from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

from .draft import Draft
from .hosted import HostedItem
from .source import responses_item


class ShellCallItem(HostedItem):
    """One call with its commands."""

    def initial(self) -> JsonObject:
        """Return the call without commands."""
        action: JsonObject = {"commands": [], "timeout_ms": None, "max_output_length": None}
        return {**self.item, "status": "in_progress", "action": action}

    def conclude(self, item: JsonObject) -> JsonObject:
        """Write each command."""
        given = item.get("action")
        action: JsonObject = {
            "timeout_ms": None,
            "max_output_length": None,
            **(given if isinstance(given, dict) else {}),
        }
        commands = action.get("commands")
        commands = commands if isinstance(commands, list) else []
        for index, command in enumerate(commands):
            self._write_command(index, str(command))
        return {**item, "action": {**action, "commands": commands}}

    def _write_command(self, index: int, command: str) -> None:
        emit = self.output.writer.emit
        place = {"output_index": self.index, "command_index": index}
        emit("response.shell_call_command.added", {**place, "command": ""})
        if command:
            emit("response.shell_call_command.delta", {**place, "delta": command})
        emit("response.shell_call_command.done", {**place, "command": command})


class ShellOutputItem(HostedItem):
    """What the commands of one call printed."""

    def initial(self) -> JsonObject:
        """Return the output before anything was printed."""
        return {**self.item, "status": "in_progress", "output": []}

    def conclude(self, item: JsonObject) -> JsonObject:
        """Write what each command printed."""
        outputs = item.get("output")
        for index, output in enumerate(outputs if isinstance(outputs, list) else []):
            if isinstance(output, dict):
                self._write_output(index, output)
        return item

    def _write_output(self, index: int, output: JsonObject) -> None:
        place = {**self.place, "command_index": index}
        delta = {name: output[name] for name in ("stdout", "stderr") if output.get(name)}
        if delta:
            self.output.writer.emit("response.shell_call_output_content.delta", {**place, "delta": delta})
        self.output.writer.emit("response.shell_call_output_content.done", {**place, "output": [output]})


def write_shell_call(draft: Draft, content: Content) -> None:
    """Write a shell call, whole: the framework reports it when its commands are known."""
    item = responses_item(content.raw_representation)
    draft.before_output()
    if item is not None and item["type"] in {"shell_call", "local_shell_call"}:
        writer = ShellCallItem if item["type"] == "shell_call" else HostedItem
        draft.hosted.end(str(item.get("id") or content.call_id or ""), {"status": "completed", **item}, writer)
        return
    commands: list[JsonValue] = list(content.commands or [])
    call: JsonObject = {
        "type": "shell_call",
        "status": "completed",
        "call_id": draft.shell.claim(content.call_id),
        "action": {
            "commands": commands,
            "timeout_ms": content.timeout_ms,
            "max_output_length": content.max_output_length,
        },
        "environment": None,
    }
    ShellCallItem(draft.output, call, include=draft.options.include).end(call)


def write_shell_result(draft: Draft, content: Content) -> None:
    """Write what a shell call printed."""
    item = responses_item(content.raw_representation)
    draft.before_output()
    if item is not None and item["type"] == "shell_call_output":
        draft.hosted.end(str(item.get("id") or content.call_id or ""), {"status": "completed", **item}, ShellOutputItem)
        return
    outputs = content.outputs if isinstance(content.outputs, Sequence) else ()
    _write_outputs(draft, content, [output for output in outputs if isinstance(output, Content)])


def write_command_output(draft: Draft, content: Content) -> None:
    """Write what a single command printed, as the output of the last shell call."""
    draft.before_output()
    _write_outputs(draft, content, [content])


def _write_outputs(draft: Draft, content: Content, outputs: list[Content]) -> None:
    rendered: list[JsonValue] = [_output(output) for output in outputs]
    item: JsonObject = {
        "type": "shell_call_output",
        "status": "completed",
        "call_id": draft.shell.answer(content.call_id),
        "max_output_length": content.max_output_length,
        "output": rendered,
    }
    ShellOutputItem(draft.output, item, include=draft.options.include).end(item)


def _output(output: Content) -> JsonObject:
    outcome: JsonObject = {"type": "timeout"}
    if not output.timed_out and output.exit_code is not None:
        outcome = {"type": "exit", "exit_code": output.exit_code}
    return {"stdout": output.stdout or output.text or "", "stderr": output.stderr or "", "outcome": outcome}
