"""Every event of a stream with exactly its fields, as a table from `type` to shape. Source: contract §3.5."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta
from wire_schema import (
    Annotation,
    Delta,
    Free,
    Id,
    Index,
    Logprob,
    OrAbsent,
    OutputItem,
    OutputText,
    ReasoningText,
    Refusal,
    ShellOutput,
    SummaryText,
    Wire,
)

Partial: TypeAlias = Annotated[str, Meta(min_length=1)]


class Event(Wire):
    type: str
    sequence_number: Index


class Lifecycle(Event):
    """`response` is the whole Response; its own rules are checked apart from its shape."""

    response: dict[str, Free]


class ItemEvent(Event):
    output_index: Index
    item: OutputItem


class Progress(Event):
    item_id: Id
    output_index: Index


class ContentPart(Progress):
    content_index: Index
    part: OutputText | Refusal | ReasoningText


class TextDelta(Progress):
    content_index: Index
    delta: Delta
    logprobs: list[Logprob]


class TextDone(Progress):
    content_index: Index
    text: str
    logprobs: list[Logprob]


class AnnotationAdded(Progress):
    content_index: Index
    annotation_index: Index
    annotation: Annotation


class ContentDelta(Progress):
    content_index: Index
    delta: Delta


class RefusalDone(Progress):
    content_index: Index
    refusal: str


class ReasoningTextDone(Progress):
    content_index: Index
    text: str


class SummaryPartAdded(Progress):
    summary_index: Index
    part: SummaryText


class SummaryPartDone(SummaryPartAdded):
    status: OrAbsent[Literal["incomplete"]] = UNSET


class SummaryTextDelta(Progress):
    summary_index: Index
    delta: Delta


class SummaryTextDone(Progress):
    summary_index: Index
    text: str


class ItemDelta(Progress):
    delta: Delta


class ArgumentsDone(Progress):
    arguments: str


class NamedArgumentsDone(ArgumentsDone):
    name: OrAbsent[str] = UNSET


class InputDone(Progress):
    input: str


class CodeDone(Progress):
    code: str


class PartialImage(Progress):
    partial_image_index: Index
    partial_image_b64: Partial
    size: OrAbsent[str] = UNSET
    quality: OrAbsent[str] = UNSET
    background: OrAbsent[str] = UNSET
    output_format: OrAbsent[str] = UNSET


class ShellCommand(Event):
    """The shell command events alone have no `item_id`."""

    output_index: Index
    command_index: Index
    command: str


class ShellCommandDelta(Event):
    output_index: Index
    command_index: Index
    delta: Delta


class ShellChunk(Wire):
    stdout: OrAbsent[str] = UNSET
    stderr: OrAbsent[str] = UNSET


class ShellOutputDelta(Progress):
    command_index: Index
    delta: ShellChunk


class ShellOutputDone(Progress):
    command_index: Index
    output: list[ShellOutput]


class ErrorEvent(Event):
    """The flat form of HTTP; a nested `error` would make the official client raise."""

    code: str | None
    message: str
    param: str | None


EVENTS: dict[str, type[Event]] = {
    "response.created": Lifecycle,
    "response.queued": Lifecycle,
    "response.in_progress": Lifecycle,
    "response.completed": Lifecycle,
    "response.incomplete": Lifecycle,
    "response.failed": Lifecycle,
    "response.output_item.added": ItemEvent,
    "response.output_item.done": ItemEvent,
    "response.content_part.added": ContentPart,
    "response.content_part.done": ContentPart,
    "response.output_text.delta": TextDelta,
    "response.output_text.done": TextDone,
    "response.output_text.annotation.added": AnnotationAdded,
    "response.refusal.delta": ContentDelta,
    "response.refusal.done": RefusalDone,
    "response.reasoning_summary_part.added": SummaryPartAdded,
    "response.reasoning_summary_part.done": SummaryPartDone,
    "response.reasoning_summary_text.delta": SummaryTextDelta,
    "response.reasoning_summary_text.done": SummaryTextDone,
    "response.reasoning_text.delta": ContentDelta,
    "response.reasoning_text.done": ReasoningTextDone,
    "response.function_call_arguments.delta": ItemDelta,
    "response.function_call_arguments.done": NamedArgumentsDone,
    "response.custom_tool_call_input.delta": ItemDelta,
    "response.custom_tool_call_input.done": InputDone,
    "response.mcp_list_tools.in_progress": Progress,
    "response.mcp_list_tools.completed": Progress,
    "response.mcp_list_tools.failed": Progress,
    "response.mcp_call.in_progress": Progress,
    "response.mcp_call.completed": Progress,
    "response.mcp_call.failed": Progress,
    "response.mcp_call_arguments.delta": ItemDelta,
    "response.mcp_call_arguments.done": ArgumentsDone,
    "response.web_search_call.in_progress": Progress,
    "response.web_search_call.searching": Progress,
    "response.web_search_call.completed": Progress,
    "response.file_search_call.in_progress": Progress,
    "response.file_search_call.searching": Progress,
    "response.file_search_call.completed": Progress,
    "response.code_interpreter_call.in_progress": Progress,
    "response.code_interpreter_call.interpreting": Progress,
    "response.code_interpreter_call.completed": Progress,
    "response.code_interpreter_call_code.delta": ItemDelta,
    "response.code_interpreter_call_code.done": CodeDone,
    "response.image_generation_call.in_progress": Progress,
    "response.image_generation_call.generating": Progress,
    "response.image_generation_call.completed": Progress,
    "response.image_generation_call.partial_image": PartialImage,
    "response.shell_call_command.added": ShellCommand,
    "response.shell_call_command.done": ShellCommand,
    "response.shell_call_command.delta": ShellCommandDelta,
    "response.shell_call_output_content.delta": ShellOutputDelta,
    "response.shell_call_output_content.done": ShellOutputDone,
    "response.compaction.compacting": Progress,
    "error": ErrorEvent,
}
