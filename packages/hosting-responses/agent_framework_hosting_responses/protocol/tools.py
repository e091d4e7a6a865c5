"""Tools and tool choice of a request.

`function` and `custom` tools are the client's: the agent may call them, the client runs them. Every other type would have to
be run by a model provider and is refused, ignored or passed on, as the operator decides.

Source: contract §1.3.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, cast
from urllib.parse import urlsplit

import msgspec

from agent_framework_hosting_responses.protocol import errors, fields
from agent_framework_hosting_responses.protocol.fields import Reader
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

HostedToolRule: TypeAlias = Literal["reject", "ignore", "pass"]
"""What becomes of hosted tool types: a 400, nothing, or the agent's chat client gets them as they were sent."""

MAX_TOOLS: Final = 128
REDACTED: Final = "<redacted>"
CLIENT_TOOL_TYPES: Final = frozenset({"function", "custom"})
HOSTED_TOOL_TYPES: Final = (
    "mcp",
    "file_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "code_interpreter",
    "image_generation",
    "shell",
    "local_shell",
    "apply_patch",
    "computer",
    "computer_use_preview",
    "programmatic_tool_calling",
    "namespace",
    "tool_search",
)

_NAME_PATTERN: Final = "^[a-zA-Z0-9_-]+$"
_NAME: Final = re.compile("[a-zA-Z0-9_-]+")
_MAX_NAME: Final = 128
_MODES: Final = ("none", "auto", "required")
_FAMILIES: Final = ("web_search", "computer")
"""Types that come in dated versions; a choice may name another version than the tool."""

_MORE: Final[dict[str, Reader]] = {
    "defer_loading": fields.boolean,
    "async": fields.boolean,
    "output_schema": fields.mapping,
    "allowed_callers": fields.list_of(fields.one_of("direct", "programmatic"), maximum=2),
}
"""Further fields of function and custom tools, kept as sent."""


def _headers(value: JsonValue, path: str) -> JsonValue:
    headers = fields.mapping(value, path)
    return {name: fields.string(header, f"{path}.{name[:64]}") for name, header in headers.items()}


_MCP: Final[dict[str, Reader]] = {
    "server_url": fields.string,
    "authorization": fields.string,
    "headers": _headers,
    "connector_id": fields.string,
    "server_description": fields.string,
}

_CHOICE_TYPES: Final = (
    "function",
    "custom",
    "mcp",
    "allowed_tools",
    "file_search",
    "web_search",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "computer",
    "computer_use",
    "computer_use_preview",
    "image_generation",
    "code_interpreter",
    "apply_patch",
    "shell",
    "programmatic_tool_calling",
)


class ToolSet(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of one request, read.

    `declared` is what the response echoes, in the order sent and without secrets. `client` are the function and custom
    tools among them. `hosted` is what the agent's chat client gets: as sent, secrets included, so never stored; it is empty
    unless the rule is `pass`.
    """

    declared: tuple[JsonObject, ...] = ()
    client: tuple[JsonObject, ...] = ()
    hosted: tuple[JsonObject, ...] = ()


def parse_tools(value: JsonValue, *, hosted_tools: HostedToolRule) -> ToolSet:
    """Return the tools of a request.

    Raises:
        RequestError: A tool is malformed, has the name of another one, or is of a type that the rule refuses.

    Source: contract §1.3.
    """
    declared: list[JsonObject] = []
    client: list[JsonObject] = []
    hosted: list[JsonObject] = []
    names: set[str] = set()
    for index, raw in enumerate(fields.array(value, "tools", maximum=MAX_TOOLS)):
        path = f"tools[{index}]"
        tool = fields.without_nulls(fields.mapping(raw, path))
        kind = fields.string(fields.required(tool, "type", path), f"{path}.type")
        if kind in CLIENT_TOOL_TYPES:
            read = _function(tool, path) if kind == "function" else _custom(tool, path)
            _claim_name(cast("str", read["name"]), path, names)
            client.append(read)
            declared.append(read)
            continue
        _check_hosted(tool, kind, path, hosted_tools)
        declared.append(redact(tool))
        if hosted_tools == "pass":
            hosted.append(tool)
    return ToolSet(declared=tuple(declared), client=tuple(client), hosted=tuple(hosted))


def _claim_name(name: str, path: str, names: set[str]) -> None:
    if name in names:
        raise errors.duplicate_tool(f"{path}.name", name)
    names.add(name)


def _function(tool: JsonObject, path: str) -> JsonObject:
    # The service rewrites schemas into strict form; ours go out as they came in, which every client accepts too.
    read: JsonObject = {"type": "function", "description": None, "name": None, "parameters": None, "strict": None}
    read["name"] = _tool_name(tool, path)
    if "description" in tool:
        read["description"] = fields.string(tool["description"], f"{path}.description")
    if "parameters" in tool:
        read["parameters"] = fields.mapping(tool["parameters"], f"{path}.parameters")
    if "strict" in tool:
        read["strict"] = fields.boolean(tool["strict"], f"{path}.strict")
    return {**read, **_more(tool, path)}


def _custom(tool: JsonObject, path: str) -> JsonObject:
    read: JsonObject = {"type": "custom", "name": _tool_name(tool, path)}
    if "description" in tool:
        read["description"] = fields.string(tool["description"], f"{path}.description")
    if "format" in tool:
        where = f"{path}.format"
        form = fields.mapping(tool["format"], where)
        kind = fields.choice(fields.required(form, "type", where), f"{where}.type", ("text", "grammar"))
        if kind == "grammar":
            fields.choice(fields.required(form, "syntax", where), f"{where}.syntax", ("lark", "regex"))
            fields.string(fields.required(form, "definition", where), f"{where}.definition")
        read["format"] = form
    return {**read, **_more(tool, path)}


def _more(tool: JsonObject, path: str) -> JsonObject:
    return {key: read(tool[key], f"{path}.{key}") for key, read in _MORE.items() if key in tool}


def _tool_name(tool: JsonObject, path: str) -> str:
    where = f"{path}.name"
    name = fields.string(fields.required(tool, "name", path), where, maximum=_MAX_NAME)
    if _NAME.fullmatch(name) is None:
        raise errors.pattern_mismatch(where, _NAME_PATTERN)
    return name


def _check_hosted(tool: JsonObject, kind: str, path: str, rule: HostedToolRule) -> None:
    if kind not in HOSTED_TOOL_TYPES:
        raise errors.invalid_value(f"{path}.type", kind, ("function", "custom", *HOSTED_TOOL_TYPES))
    if rule == "reject":
        raise errors.unsupported_value(f"{path}.type", kind)
    if kind == "mcp":
        fields.string(fields.required(tool, "server_label", path), f"{path}.server_label", maximum=256)
        for key, read in _MCP.items():
            if key in tool:
                read(tool[key], f"{path}.{key}")


# --- Secrets -----------------------------------------------------------------------------------------------------


def redact(tool: JsonObject) -> JsonObject:
    """Return a hosted tool without its secrets, so that it can be echoed and stored.

    Of an MCP tool: each header value, `authorization`, and everything of `server_url` behind its host. Of containers: the
    values of `domain_secrets`.

    Source: contract §1.3, §11.14.
    """
    safe = _without_domain_secrets(tool)
    if "authorization" in safe:
        safe["authorization"] = REDACTED
    if "headers" in safe:
        safe["headers"] = _redact_headers(safe["headers"])
    if "server_url" in safe:
        safe["server_url"] = _redact_url(safe["server_url"])
    return safe


def _redact_headers(headers: JsonValue) -> JsonValue:
    return dict.fromkeys(headers, REDACTED) if isinstance(headers, dict) else REDACTED


def _redact_url(url: JsonValue) -> str:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return REDACTED
    if not parts.scheme or not parts.hostname:
        return REDACTED
    rest = f"/{REDACTED}" if parts.path.strip("/") or parts.query or parts.fragment else ""
    return f"{parts.scheme}://{parts.hostname}{port}{rest}"


def _without_domain_secrets(value: JsonObject) -> JsonObject:
    return {key: _redact_member(key, member) for key, member in value.items()}


def _redact_member(key: str, value: JsonValue) -> JsonValue:
    if key == "domain_secrets":
        return REDACTED
    if isinstance(value, dict):
        return _without_domain_secrets(value)
    if isinstance(value, list):
        return [_redact_member("", member) for member in value]
    return value


# --- Choice ------------------------------------------------------------------------------------------------------


def parse_tool_choice(value: JsonValue, tools: ToolSet) -> JsonValue:
    """Return `tool_choice` as sent, after checking that it names tools of this request.

    Raises:
        RequestError: It is malformed, or names a tool that `tools` does not have.

    Source: contract §1.2, §1.3.
    """
    if isinstance(value, str):
        return fields.choice(value, "tool_choice", _MODES)
    if not isinstance(value, dict):
        raise errors.invalid_type("tool_choice", "one of an object or string", value)
    kind = fields.choice(fields.required(value, "type", "tool_choice"), "tool_choice.type", _CHOICE_TYPES)
    if kind == "allowed_tools":
        fields.choice(fields.required(value, "mode", "tool_choice"), "tool_choice.mode", ("auto", "required"))
        allowed = fields.array(fields.required(value, "tools", "tool_choice"), "tool_choice.tools", maximum=MAX_TOOLS)
        for index, raw in enumerate(allowed):
            where = f"tool_choice.tools[{index}]"
            tool = fields.mapping(raw, where)
            tool_type = fields.string(fields.required(tool, "type", where), f"{where}.type")
            _check_named(tool, tool_type, where, tools)
    else:
        _check_named(value, kind, "tool_choice", tools)
    return value


def _check_named(named: JsonObject, kind: str, path: str, tools: ToolSet) -> None:
    key = "name" if kind in CLIENT_TOOL_TYPES else "server_label" if kind == "mcp" else "type"
    wanted = fields.string(fields.required(named, key, path), f"{path}.{key}")
    for tool in tools.declared:
        if key == "type":
            if _family(wanted) == _family(cast("str", tool["type"])):
                return
        elif tool["type"] == kind and tool.get(key) == wanted:
            return
    raise errors.tool_choice_not_in_tools(wanted)


def _family(kind: str) -> str:
    return next((family for family in _FAMILIES if kind.startswith(family)), kind)


def allowed_names(tool_choice: JsonValue) -> frozenset[str] | None:
    """Return the names of the function and custom tools that `tool_choice` allows, or None if it does not limit them.

    `none` allows no tool at all.

    Source: contract §1.3: calls to other tools are neither emitted nor run.
    """
    if tool_choice == "none":
        return frozenset()
    if not isinstance(tool_choice, dict) or tool_choice.get("type") != "allowed_tools":
        return None
    allowed = cast("list[JsonObject]", tool_choice["tools"])
    return frozenset(cast("str", tool["name"]) for tool in allowed if tool["type"] in CLIENT_TOOL_TYPES)
