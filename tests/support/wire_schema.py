"""The wire, field by field: every object the server may write, with exactly the keys it may have.

`OrAbsent` marks an optional key: it is absent or has a value, never null. `X | None` is a key that is always there.

Source: contract §2, §3.5, §4, §6, §7.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

T = TypeVar("T")

OrAbsent: TypeAlias = T | UnsetType
Index: TypeAlias = Annotated[int, Meta(ge=0)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Time: TypeAlias = Annotated[int, Meta(gt=0)]
Id: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]+\Z")]
CallId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Delta: TypeAlias = Annotated[str, Meta(min_length=1)]
Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
Free: TypeAlias = Any  # what the client or a tool decides: JSON schemas, environments, echoes
Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]
ResponseStatus: TypeAlias = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
ErrorCode: TypeAlias = Literal[
    "server_error", "rate_limit_exceeded", "invalid_prompt", "data_residency_mismatch", "bio_policy",
    "misalignment_policy_violation", "vector_store_timeout", "invalid_image", "invalid_image_format",
    "invalid_base64_image", "invalid_image_url", "image_too_large", "image_too_small", "image_parse_error",
    "image_content_policy_violation", "invalid_image_mode", "image_file_too_large", "unsupported_image_media_type",
    "empty_image_file", "failed_to_download_image", "image_file_not_found",
]  # fmt: skip


class Wire(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An object without a discriminator."""


class Typed(Wire, tag_field="type"):
    """An object that `type` tells apart from its neighbours."""


# Annotations and parts, contract §2.4


class UrlCitation(Typed, tag="url_citation"):
    url: str
    title: str
    start_index: Index
    end_index: Index


class FileCitation(Typed, tag="file_citation"):
    file_id: str
    filename: str
    index: Index


class ContainerFileCitation(Typed, tag="container_file_citation"):
    container_id: str
    file_id: str
    filename: str
    start_index: Index
    end_index: Index


class FilePath(Typed, tag="file_path"):
    file_id: str
    index: Index


Annotation: TypeAlias = UrlCitation | FileCitation | ContainerFileCitation | FilePath


class TopLogprob(Wire):
    token: str
    logprob: float
    bytes: OrAbsent[list[int]] = UNSET


class Logprob(Wire):
    token: str
    logprob: float
    top_logprobs: list[TopLogprob]
    bytes: OrAbsent[list[int]] = UNSET


class OutputText(Typed, tag="output_text"):
    text: str
    annotations: list[Annotation]
    logprobs: list[Logprob]


class Refusal(Typed, tag="refusal"):
    refusal: str


class SummaryText(Typed, tag="summary_text"):
    text: str


class ReasoningText(Typed, tag="reasoning_text"):
    text: str


class InputText(Typed, tag="input_text"):
    text: str
    prompt_cache_breakpoint: OrAbsent[Free] = UNSET


class InputImage(Typed, tag="input_image"):
    """Both addresses may be there, one of them null."""

    detail: Literal["low", "high", "auto", "original"]
    image_url: OrAbsent[str | None] = UNSET
    file_id: OrAbsent[str | None] = UNSET
    prompt_cache_breakpoint: OrAbsent[Free] = UNSET


class InputFile(Typed, tag="input_file"):
    file_id: OrAbsent[str] = UNSET
    file_url: OrAbsent[str] = UNSET
    file_data: OrAbsent[str] = UNSET
    filename: OrAbsent[str] = UNSET
    detail: OrAbsent[Literal["auto", "low", "high"]] = UNSET


OutputPart: TypeAlias = OutputText | Refusal
InputPart: TypeAlias = InputText | InputImage | InputFile


# Items, contract §2.4; each kind with the prefix its ids have in `output`, contract §2.6


class Item(Typed):
    id: Id


class Message(Item, tag="message"):
    status: Status
    role: Literal["assistant"]
    content: list[OutputPart]
    phase: OrAbsent[Literal["commentary", "final_answer"]] = UNSET


class StoredMessage(Item, tag="message"):
    """A message of anybody, as lists of items show it (contract §1.5)."""

    status: Status
    role: Literal["user", "assistant", "system", "developer"]
    content: list[OutputText | Refusal | InputText | InputImage | InputFile]
    phase: OrAbsent[Literal["commentary", "final_answer"]] = UNSET

    def __post_init__(self) -> None:
        for part in self.content:
            if isinstance(part, OutputText | Refusal) != (self.role == "assistant"):
                raise ValueError(f"A message of role {self.role!r} has no part {type(part).__name__}")


class Reasoning(Item, tag="reasoning"):
    summary: list[SummaryText]
    content: OrAbsent[list[ReasoningText]] = UNSET
    encrypted_content: OrAbsent[str] = UNSET


class DirectCaller(Typed, tag="direct"):
    pass


class ProgramCaller(Typed, tag="program"):
    caller_id: str


Caller: TypeAlias = DirectCaller | ProgramCaller


class FunctionCall(Item, tag="function_call"):
    status: Status
    call_id: CallId
    name: str
    arguments: str
    namespace: OrAbsent[str] = UNSET
    caller: OrAbsent[Caller] = UNSET
    is_async: OrAbsent[bool] = msgspec.field(default=UNSET, name="async")
    created_by: OrAbsent[str] = UNSET


class FunctionCallOutput(Item, tag="function_call_output"):
    status: Status
    call_id: CallId
    output: str | list[InputPart]
    name: OrAbsent[str] = UNSET
    namespace: OrAbsent[str] = UNSET
    caller: OrAbsent[Caller] = UNSET
    created_by: OrAbsent[str] = UNSET


class CustomToolCall(Item, tag="custom_tool_call"):
    call_id: CallId
    name: str
    input: str
    namespace: OrAbsent[str] = UNSET
    caller: OrAbsent[Caller] = UNSET
    is_async: OrAbsent[bool] = msgspec.field(default=UNSET, name="async")


class CustomToolCallOutput(Item, tag="custom_tool_call_output"):
    call_id: CallId
    output: str | list[InputPart]
    status: OrAbsent[Status] = UNSET


class McpTool(Wire):
    name: str
    input_schema: Free
    description: OrAbsent[str | None] = UNSET
    annotations: OrAbsent[Free] = UNSET


class McpListTools(Item, tag="mcp_list_tools"):
    server_label: str
    tools: list[McpTool]
    error: OrAbsent[str] = UNSET


class McpApprovalRequest(Item, tag="mcp_approval_request"):
    server_label: str
    name: str
    arguments: str


class McpApprovalResponse(Item, tag="mcp_approval_response"):
    approval_request_id: Id
    approve: bool
    reason: OrAbsent[str] = UNSET


class McpProtocolError(Typed, tag="mcp_protocol_error"):
    code: int
    message: str


class McpToolExecutionError(Typed, tag="mcp_tool_execution_error"):
    content: Free


class HttpError(Typed, tag="http_error"):
    code: int
    message: str


class McpCall(Item, tag="mcp_call"):
    status: Literal["in_progress", "completed", "incomplete", "calling", "failed"]
    server_label: str
    name: str
    arguments: str
    output: str | None
    error: McpProtocolError | McpToolExecutionError | HttpError | None
    approval_request_id: Id | None


class UrlSource(Typed, tag="url"):
    url: str


class Search(Typed, tag="search"):
    query: OrAbsent[str] = UNSET
    queries: OrAbsent[list[str]] = UNSET
    sources: OrAbsent[list[UrlSource]] = UNSET


class OpenPage(Typed, tag="open_page"):
    url: str


class FindInPage(Typed, tag="find_in_page"):
    pattern: str
    url: str


class WebSearchCall(Item, tag="web_search_call"):
    status: Literal["in_progress", "searching", "completed", "failed", "incomplete"]
    action: OrAbsent[Search | OpenPage | FindInPage] = UNSET


class FileSearchResult(Wire):
    file_id: str
    filename: str
    score: float
    text: str
    attributes: Free


class FileSearchCall(Item, tag="file_search_call"):
    status: Literal["in_progress", "searching", "completed", "incomplete", "failed"]
    queries: list[str]
    results: list[FileSearchResult] | None


class Logs(Typed, tag="logs"):
    logs: str


class CodeImage(Typed, tag="image"):
    url: str


class CodeInterpreterCall(Item, tag="code_interpreter_call"):
    status: Literal["in_progress", "interpreting", "completed", "incomplete", "failed"]
    container_id: str
    code: str | None
    outputs: list[Logs | CodeImage] | None


class ImageGenerationCall(Item, tag="image_generation_call"):
    status: Literal["in_progress", "generating", "completed", "failed"]
    result: str | None
    action: OrAbsent[str] = UNSET
    background: OrAbsent[str] = UNSET
    output_format: OrAbsent[str] = UNSET
    quality: OrAbsent[str] = UNSET
    revised_prompt: OrAbsent[str] = UNSET
    size: OrAbsent[str] = UNSET
    error: OrAbsent[Free] = UNSET
    svg_usage: OrAbsent[Free] = UNSET


class ShellAction(Wire):
    commands: list[str]
    timeout_ms: int | None
    max_output_length: int | None


class ShellCall(Item, tag="shell_call"):
    status: Status
    call_id: CallId
    action: ShellAction
    environment: dict[str, Free] | None
    caller: OrAbsent[Caller] = UNSET
    created_by: OrAbsent[str] = UNSET


class Exit(Typed, tag="exit"):
    exit_code: int


class Timeout(Typed, tag="timeout"):
    pass


class ShellOutput(Wire):
    stdout: str
    stderr: str
    outcome: Exit | Timeout


class ShellCallOutput(Item, tag="shell_call_output"):
    status: Status
    call_id: CallId
    max_output_length: int | None
    output: list[ShellOutput]


class LocalShellAction(Typed, tag="exec"):
    command: list[str]
    env: dict[str, str]
    timeout_ms: OrAbsent[int] = UNSET
    user: OrAbsent[str] = UNSET
    working_directory: OrAbsent[str] = UNSET


class LocalShellCall(Item, tag="local_shell_call"):
    status: Status
    call_id: CallId
    action: LocalShellAction


class LocalShellCallOutput(Item, tag="local_shell_call_output"):
    output: str
    status: OrAbsent[Status] = UNSET


class CreateFile(Typed, tag="create_file"):
    diff: str
    path: str


class UpdateFile(Typed, tag="update_file"):
    diff: str
    path: str


class DeleteFile(Typed, tag="delete_file"):
    path: str


class ApplyPatchCall(Item, tag="apply_patch_call"):
    status: Literal["in_progress", "completed"]
    call_id: CallId
    operation: CreateFile | UpdateFile | DeleteFile


class ApplyPatchCallOutput(Item, tag="apply_patch_call_output"):
    status: Literal["completed", "failed"]
    call_id: CallId
    output: OrAbsent[str] = UNSET


class ComputerCall(Item, tag="computer_call"):
    status: Status
    call_id: CallId
    pending_safety_checks: list[Free]
    action: OrAbsent[Free] = UNSET
    actions: OrAbsent[list[Free]] = UNSET


class ComputerScreenshot(Typed, tag="computer_screenshot"):
    file_id: OrAbsent[str] = UNSET
    image_url: OrAbsent[str] = UNSET


class ComputerCallOutput(Item, tag="computer_call_output"):
    call_id: CallId
    output: ComputerScreenshot
    status: OrAbsent[Status] = UNSET


class Compaction(Item, tag="compaction"):
    encrypted_content: str
    created_by: OrAbsent[str] = UNSET


class Program(Item, tag="program"):
    call_id: CallId
    code: str
    fingerprint: str


class ProgramOutput(Item, tag="program_output"):
    call_id: CallId
    result: str
    status: Status


class ToolSearchCall(Item, tag="tool_search_call"):
    call_id: CallId
    arguments: Free
    execution: Literal["server", "client"]
    status: Status


class ToolSearchOutput(Item, tag="tool_search_output"):
    call_id: CallId
    tools: list[Free]
    execution: Literal["server", "client"]
    status: Status


class AdditionalTools(Item, tag="additional_tools"):
    role: str
    tools: list[Free]


OtherItem: TypeAlias = (
    Reasoning | FunctionCall | FunctionCallOutput | CustomToolCall | CustomToolCallOutput | McpListTools
    | McpApprovalRequest | McpApprovalResponse | McpCall | WebSearchCall | FileSearchCall | CodeInterpreterCall
    | ImageGenerationCall | ShellCall | ShellCallOutput | LocalShellCall | LocalShellCallOutput | ApplyPatchCall
    | ApplyPatchCallOutput | ComputerCall | ComputerCallOutput | Compaction | Program | ProgramOutput | ToolSearchCall
    | ToolSearchOutput | AdditionalTools
)  # fmt: skip
OutputItem: TypeAlias = Message | OtherItem
StoredItem: TypeAlias = StoredMessage | OtherItem

ID_PREFIXES = {
    "message": "msg_", "reasoning": "rs_", "function_call": "fc_", "function_call_output": "fco_",
    "custom_tool_call": "ctc_", "custom_tool_call_output": "ctco_", "mcp_call": "mcp_", "mcp_list_tools": "mcpl_",
    "mcp_approval_request": "mcpr_", "mcp_approval_response": "mcpa_", "web_search_call": "ws_",
    "file_search_call": "fs_", "code_interpreter_call": "ci_", "image_generation_call": "ig_", "shell_call": "sh_",
    "shell_call_output": "sho_", "local_shell_call": "lsh_", "local_shell_call_output": "lsho_",
    "apply_patch_call": "ap_", "apply_patch_call_output": "apo_", "computer_call": "cu_",
    "computer_call_output": "cuo_", "compaction": "cmp_", "program": "prog_",
    # The contract names no prefix for these.
    "program_output": "", "tool_search_call": "", "tool_search_output": "", "additional_tools": "",
}  # fmt: skip


# The Response, contract §2.1 to §2.5


class InputTokensDetails(Wire):
    cached_tokens: Count
    cache_write_tokens: Count


class OutputTokensDetails(Wire):
    reasoning_tokens: Count


class Usage(Wire):
    input_tokens: Count
    input_tokens_details: InputTokensDetails
    output_tokens: Count
    output_tokens_details: OutputTokensDetails
    total_tokens: Count


class FailedError(Wire):
    code: ErrorCode
    message: str


class IncompleteDetails(Wire):
    reason: Literal["max_output_tokens", "content_filter", "max_messages", "steered"]


class ConversationRef(Wire):
    id: Id


class ReasoningSettings(Wire):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    summary: Literal["auto", "concise", "detailed"] | None
    context: OrAbsent[Literal["auto", "current_turn", "all_turns"] | None] = UNSET
    mode: OrAbsent[Literal["standard", "pro"] | None] = UNSET
    # Deprecated in requests; §1.1 has the whole object echoed.
    generate_summary: OrAbsent[Literal["auto", "concise", "detailed"] | None] = UNSET


class TextFormat(Typed, tag="text"):
    pass


class JsonObjectFormat(Typed, tag="json_object"):
    pass


class JsonSchemaFormat(Typed, tag="json_schema"):
    name: str
    schema: dict[str, Free]
    strict: bool | None
    description: str | None


class TextSettings(Wire):
    format: TextFormat | JsonObjectFormat | JsonSchemaFormat
    verbosity: Literal["low", "medium", "high"]


class FunctionTool(Typed, tag="function"):
    """The echo of a function: the five keys, and what else the request said."""

    name: str
    description: str | None
    parameters: dict[str, Free] | None
    strict: bool | None
    defer_loading: OrAbsent[Free] = UNSET
    allowed_callers: OrAbsent[Free] = UNSET
    output_schema: OrAbsent[Free] = UNSET
    is_async: OrAbsent[Free] = msgspec.field(default=UNSET, name="async")


TOOL_TYPES = frozenset({
    "function", "custom", "mcp", "file_search", "web_search", "web_search_2025_08_26", "web_search_preview",
    "web_search_preview_2025_03_11", "code_interpreter", "image_generation", "shell", "local_shell", "apply_patch",
    "computer", "computer_use_preview", "programmatic_tool_calling", "namespace", "tool_search",
})  # fmt: skip
TOOL_CHOICES = frozenset({"none", "auto", "required"})
TOOL_CHOICE_TYPES = (TOOL_TYPES | {"allowed_tools", "computer_use"}) - {"namespace", "tool_search", "local_shell"}


class Response(Wire, tag_field="object", tag="response"):
    id: Annotated[str, Meta(pattern=r"\Aresp_[A-Za-z0-9_-]+\Z")]
    created_at: Time
    completed_at: Time | None
    status: ResponseStatus
    background: bool
    error: FailedError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: Metadata
    model: Annotated[str, Meta(min_length=1)]
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: Id | None
    prompt_cache_key: str | None
    prompt_cache_retention: Literal["in_memory", "24h"] | None
    reasoning: ReasoningSettings | None
    safety_identifier: str | None
    service_tier: Literal["auto", "default"]
    store: bool
    temperature: Annotated[float, Meta(ge=0, le=2)]
    top_p: Annotated[float, Meta(ge=0, le=1)]
    top_logprobs: Annotated[int, Meta(ge=0, le=20)]
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)]
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)]
    text: TextSettings
    tool_choice: str | dict[str, Free]
    tools: list[dict[str, Free]]
    truncation: Literal["auto", "disabled"]
    usage: Usage | None
    user: str | None
    conversation: OrAbsent[ConversationRef] = UNSET
