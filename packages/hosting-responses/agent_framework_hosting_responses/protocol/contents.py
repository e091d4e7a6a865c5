"""Parts of messages and replayed hosted tool calls as Agent Framework contents.

Each content that stands for an item or part carries it as `raw_representation`, so that a chat client that speaks this API can
send back exactly what it once received.

Source: contract §1.5, §2.4.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

from agent_framework import Annotation, Content

from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

ContentWriter: TypeAlias = Callable[[JsonObject], list[Content]]
"""Takes a stored item, returns its contents, in order."""

_REFUSAL: Final = {"core": {"model_output_kind": "refusal"}, "model_output_kind": "refusal"}
"""How the framework marks text in which a model refuses, in its new form and its old one."""

_REASONING_TEXT: Final = {"openai": {"reasoning_text": True}, "reasoning_text": True}
"""How the framework tells raw reasoning text from a summary of it."""


def part_contents(parts: JsonValue) -> list[Content]:
    """Return the contents of the stored parts of a message or a tool output."""
    return [_part_content(part) for part in cast("list[JsonObject]", parts)]


def output_contents(output: JsonValue) -> list[Content]:
    """Return the contents of the `output` of a call: a string or stored parts."""
    if isinstance(output, str):
        return [Content.from_text(output)]
    return part_contents(output)


def arguments_text(value: JsonValue) -> str:
    """Return `value` as the JSON text that arguments of a call are."""
    return json.dumps(value, separators=(",", ":"))


# --- Parts -------------------------------------------------------------------------------------------------------


def _part_content(part: JsonObject) -> Content:
    match part["type"]:
        case "refusal":
            return Content.from_text(_text(part, "refusal"), additional_properties=dict(_REFUSAL))
        case "output_text":
            annotations = [_annotation(note) for note in cast("list[JsonObject]", part.get("annotations") or [])]
            return Content.from_text(_text(part, "text"), annotations=annotations or None, raw_representation=part)
        case "input_image":
            return _image(part)
        case "input_file":
            return _file(part)
        case _:
            return Content.from_text(_text(part, "text"), additional_properties=_properties(part))


def _image(part: JsonObject) -> Content:
    properties = _properties(part, content_type="input_image")
    if "detail" in part:
        properties["openai"]["image_detail"] = part["detail"]
        properties["detail"] = part["detail"]
    file_id = cast("str | None", part.get("file_id"))
    url = part.get("image_url")
    if not isinstance(url, str):
        return Content.from_hosted_file(
            file_id or "", media_type="image/*", additional_properties=properties, raw_representation=part
        )
    return _uri(
        url,
        media_type=_media_type(url, default="image/*"),
        file_id=file_id,
        additional_properties=properties,
        raw_representation=part,
    )


def _file(part: JsonObject) -> Content:
    filename = cast("str | None", part.get("filename"))
    properties = _properties(part, content_type="input_file")
    if filename is not None:
        properties["filename"] = filename
    if "detail" in part:
        properties["detail"] = part["detail"]
    file_id = cast("str | None", part.get("file_id"))
    url = part.get("file_data") or part.get("file_url")
    if not isinstance(url, str):
        media_type = mimetypes.guess_type(filename)[0] if filename else None
        return Content.from_hosted_file(
            file_id or "",
            media_type=media_type,
            name=filename,
            additional_properties=properties,
            raw_representation=part,
        )
    return _uri(
        url,
        media_type=_media_type(url, default="application/octet-stream"),
        name=filename,
        file_id=file_id,
        additional_properties=properties,
        raw_representation=part,
    )


def _uri(url: str, **members: Any) -> Content:
    # The framework's own constructor raises on addresses that it does not like, and stored items cannot be refused.
    return Content("data" if url.startswith("data:") else "uri", uri=url, **members)


def _media_type(url: str, *, default: str) -> str:
    if url[:5].lower() == "data:":
        return url[5:].split(",", 1)[0].split(";", 1)[0] or default
    # A query behind the path would hide the file's ending.
    return mimetypes.guess_type(url.split("?", 1)[0].split("#", 1)[0])[0] or default


def _properties(part: JsonObject, **openai: JsonValue) -> dict[str, Any]:
    properties: dict[str, Any] = {"openai": openai} if openai else {}
    if "prompt_cache_breakpoint" in part:
        properties["prompt_cache_breakpoint"] = part["prompt_cache_breakpoint"]
    return properties


def _annotation(note: JsonObject) -> Annotation:
    """Return a citation; the framework keeps a file's name where a web page has its address."""
    annotation = Annotation(type="citation", raw_representation=note)
    if isinstance(title := note.get("title"), str):
        annotation["title"] = title
    if isinstance(url := note.get("url", note.get("filename")), str):
        annotation["url"] = url
    if isinstance(file_id := note.get("file_id"), str):
        annotation["file_id"] = file_id
    start, end = note.get("start_index"), note.get("end_index")
    if isinstance(start, int) and isinstance(end, int):
        annotation["annotated_regions"] = [{"type": "text_span", "start_index": start, "end_index": end}]
    extra = {key: note[key] for key in ("container_id", "index") if key in note}
    if extra:
        annotation["additional_properties"] = cast("dict[str, Any]", extra)
    return annotation


def _text(value: JsonObject, key: str) -> str:
    return cast("str", value.get(key) or "")


# --- Items that are not messages ---------------------------------------------------------------------------------


def reasoning(item: JsonObject) -> list[Content]:
    """Return a reasoning item, one content per text, or nothing if it came without its encrypted form.

    No provider takes reasoning back without it, and the framework's OpenAI client refuses the whole conversation then.
    """
    encrypted = item.get("encrypted_content")
    if not isinstance(encrypted, str) or not encrypted:
        return []
    texts: list[tuple[str, dict[str, Any] | None]] = [
        (_text(part, "text"), dict(_REASONING_TEXT)) for part in cast("list[JsonObject]", item.get("content") or [])
    ]
    texts += [(_text(part, "text"), None) for part in cast("list[JsonObject]", item.get("summary") or [])]
    item_id = cast("str", item["id"])
    return [
        Content.from_text_reasoning(
            id=item_id,
            text=text,
            # One item, one encrypted form: it goes with the first text.
            protected_data=encrypted if index == 0 else None,
            additional_properties=properties,
            raw_representation=item,
        )
        for index, (text, properties) in enumerate(texts or [("", None)])
    ]


def function_call(item: JsonObject) -> list[Content]:
    """Return a call of a client tool."""
    properties = {"namespace": item["namespace"]} if "namespace" in item else None
    return [_call(item, name=_text(item, "name"), arguments=_text(item, "arguments"), properties=properties)]


def custom_tool_call(item: JsonObject) -> list[Content]:
    """Return a call of a custom tool; its free text is the one argument under which the tool is offered."""
    arguments = arguments_text({"input": item.get("input")})
    return [_call(item, name=_text(item, "name"), arguments=arguments, properties={"item_type": "custom_tool_call"})]


def provider_call(name: str, *members: str) -> ContentWriter:
    """Return a writer of calls that a provider made and for which the framework has no content of its own."""

    def write(item: JsonObject) -> list[Content]:
        arguments = arguments_text({member: item[member] for member in members if member in item})
        return [_call(item, name=name, arguments=arguments, is_provider=True)]

    return write


def provider_result(member: str) -> ContentWriter:
    """Return a writer of results to such calls; `member` of the item is the result."""

    def write(item: JsonObject) -> list[Content]:
        output = item.get(member)
        text = output if isinstance(output, str) else "" if output is None else arguments_text(output)
        return [Content.from_function_result(_call_id(item), result=text, raw_representation=item)]

    return write


def function_result(item: JsonObject) -> list[Content]:
    """Return the output of a call of a client tool."""
    outputs = output_contents(item.get("output") or "")
    return [Content.from_function_result(_call_id(item), result=outputs, raw_representation=item)]


def mcp_call(item: JsonObject) -> list[Content]:
    """Return a call that an MCP server answered, with its output or its error."""
    call_id = cast("str", item["id"])
    contents = [
        Content.from_mcp_server_tool_call(
            call_id,
            _text(item, "name"),
            server_name=_text(item, "server_label"),
            arguments=_text(item, "arguments"),
            raw_representation=item,
        )
    ]
    result = item.get("output") if item.get("error") is None else item.get("error")
    if result is not None:
        text = result if isinstance(result, str) else arguments_text(result)
        output = [Content.from_text(text)]
        contents.append(Content.from_mcp_server_tool_result(call_id, output=output, raw_representation=item))
    return contents


def search_call(item: JsonObject) -> list[Content]:
    """Return a web or file search and what it found."""
    call_id = cast("str", item["id"])
    kind = cast("str", item["type"])
    tool = kind.removesuffix("_call")
    status = cast("str | None", item.get("status"))
    question = item.get("action") if kind == "web_search_call" else {"queries": item.get("queries")}
    found = item.get("results")
    return [
        Content.from_search_tool_call(
            call_id,
            tool_name=tool,
            arguments=cast("dict[str, Any] | None", question),
            status=status,
            raw_representation=item,
        ),
        Content.from_search_tool_result(call_id, tool_name=tool, result=found, status=status, raw_representation=item),
    ]


def code_interpreter_call(item: JsonObject) -> list[Content]:
    """Return a piece of code that a provider ran, and its outputs."""
    call_id = cast("str", item["id"])
    status = cast("str | None", item.get("status"))
    outputs = [
        _uri(_text(output, "url"), media_type="image/*", raw_representation=output)
        if output.get("url")
        else Content.from_text(_text(output, "logs"), raw_representation=output)
        for output in cast("list[JsonObject]", item.get("outputs") or [])
    ]
    return [
        Content.from_code_interpreter_tool_call(
            call_id=call_id,
            inputs=[Content.from_text(_text(item, "code"))],
            status=status,
            raw_representation=item,
        ),
        Content.from_code_interpreter_tool_result(
            call_id=call_id, outputs=outputs, status=status, raw_representation=item
        ),
    ]


def image_generation_call(item: JsonObject) -> list[Content]:
    """Return an image that a provider made."""
    image_id = cast("str", item["id"])
    contents = [Content.from_image_generation_tool_call(image_id=image_id, raw_representation=item)]
    if isinstance(data := item.get("result"), str):
        form = item.get("output_format")
        media_type = f"image/{form}" if isinstance(form, str) else "image/png"
        image = _uri(f"data:{media_type};base64,{data}", media_type=media_type)
        contents.append(
            Content.from_image_generation_tool_result(image_id=image_id, outputs=image, raw_representation=item)
        )
    return contents


def shell_call(item: JsonObject) -> list[Content]:
    """Return commands for a shell."""
    action = cast("JsonObject", item["action"])
    # A local shell gets one command as its words, the other one a list of commands.
    commands = action.get("commands")
    if not isinstance(commands, list):
        commands = [" ".join(str(word) for word in cast("list[JsonValue]", action.get("command") or []))]
    return [
        Content.from_shell_tool_call(
            call_id=_call_id(item),
            commands=[str(command) for command in commands],
            timeout_ms=cast("int | None", action.get("timeout_ms")),
            max_output_length=cast("int | None", action.get("max_output_length")),
            status=cast("str | None", item.get("status")),
            raw_representation=item,
        )
    ]


def shell_call_output(item: JsonObject) -> list[Content]:
    """Return what a shell printed."""
    output = item.get("output")
    outputs = (
        [Content.from_shell_command_output(stdout=output)]
        if isinstance(output, str)
        else [_command_output(entry) for entry in cast("list[JsonObject]", output or [])]
    )
    return [
        Content.from_shell_tool_result(
            call_id=_call_id(item),
            outputs=outputs,
            max_output_length=cast("int | None", item.get("max_output_length")),
            raw_representation=item,
        )
    ]


def _command_output(entry: JsonObject) -> Content:
    outcome = entry.get("outcome")
    ending = outcome if isinstance(outcome, dict) else {}
    return Content.from_shell_command_output(
        stdout=_text(entry, "stdout"),
        stderr=_text(entry, "stderr"),
        exit_code=cast("int | None", ending.get("exit_code")),
        timed_out=ending.get("type") == "timeout",
        raw_representation=entry,
    )


def computer_call(item: JsonObject) -> list[Content]:
    """Return actions for a computer. The framework's constructor warns that they are experimental, so it is not used."""
    actions = item.get("actions") or [item.get("action")]
    return [
        Content(
            "computer_tool_call",
            id=cast("str", item["id"]),
            call_id=_call_id(item),
            actions=cast("list[dict[str, Any]]", actions),
            status=cast("str | None", item.get("status")),
            pending_safety_checks=cast("Any", item.get("pending_safety_checks")),
            user_input_request=True,
            # The preview tool has one `action` where the current one has `actions`.
            additional_properties=None if item.get("actions") else {"openai": {"computer_action_format": "single"}},
            raw_representation=item,
        )
    ]


def computer_call_output(item: JsonObject) -> list[Content]:
    """Return the screenshot after actions on a computer."""
    output = cast("JsonObject", item["output"])
    has_picture = "image_url" in output or "file_id" in output
    screenshot = _image({"type": "input_image", **output}) if has_picture else None
    return [
        Content(
            "computer_tool_result",
            id=cast("str", item["id"]),
            call_id=_call_id(item),
            status=cast("str | None", item.get("status")),
            screenshot=screenshot,
            acknowledged_safety_checks=cast("Any", item.get("acknowledged_safety_checks")),
            raw_representation=item,
        )
    ]


def approval_request(item: JsonObject, known: JsonObject) -> Content:
    """Return the question of an approval request as the target asked it; see `approval_response`."""
    request_id, call = _approval(item, known)
    return Content.from_function_approval_request(request_id, call, raw_representation=item)


def approval_response(item: JsonObject, known: JsonObject) -> Content:
    """Return the caller's answer to an approval request.

    `known` is the request's item. What the target needs to recognise its own question and the wire does not show may stand
    in it too: `request_id` (the framework's id of the question), `call_id`, and `hosted` (the agent's provider asks, not the
    framework).

    Source: contract §3.6, approvals.
    """
    request_id, call = _approval(known, known)
    return Content.from_function_approval_response(
        item["approve"] is True,
        request_id,
        call,
        additional_properties={"reason": item["reason"]} if "reason" in item else None,
        raw_representation=item,
    )


def _approval(item: JsonObject, known: JsonObject) -> tuple[str, Content]:
    request_id = cast("str", known.get("request_id", item["id"]))
    is_hosted = known.get("hosted") is True
    call = Content.from_function_call(
        cast("str", known.get("call_id", request_id)),
        _text(item, "name"),
        arguments=_text(item, "arguments"),
        # The framework finds a local question by the id of its call.
        id=None if is_hosted else request_id,
        hosted=is_hosted,
        server_name=_text(item, "server_label") or None,
        raw_representation=item,
    )
    return request_id, call


def _call(
    item: JsonObject,
    *,
    name: str,
    arguments: str,
    properties: dict[str, Any] | None = None,
    is_provider: bool = False,
) -> Content:
    return Content.from_function_call(
        _call_id(item),
        name,
        arguments=arguments,
        informational_only=is_provider,
        hosted=is_provider,
        status=cast("str | None", item.get("status")),
        additional_properties=properties,
        raw_representation=item,
    )


def _call_id(item: JsonObject) -> str:
    return cast("str", item.get("call_id") or item["id"])
