"""Tools and tool choice of a request."""

from typing import Any, get_args

import openai.types.responses.tool as tool_types
import pytest
from openai.types.responses import Tool
from pydantic import TypeAdapter

from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.protocol.tools import (
    CLIENT_TOOL_TYPES,
    HOSTED_TOOL_TYPES,
    ToolSet,
    allowed_names,
    parse_tool_choice,
    parse_tools,
)

ADD: dict[str, Any] = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}
CODE: dict[str, Any] = {"type": "custom", "name": "code"}
MCP: dict[str, Any] = {
    "type": "mcp",
    "server_label": "docs",
    "server_url": "https://user:pw@example.com:8443/secret/path?key=1",
    "authorization": "Bearer 123",
    "headers": {"X-Key": "123"},
}


def read(*tools: dict[str, Any], hosted_tools: Any = "pass") -> ToolSet:
    return parse_tools(list(tools), hosted_tools=hosted_tools)


def test_a_function_is_echoed_with_five_keys_and_its_schema_unchanged() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

    tools = read({"type": "function", "name": "add", "parameters": schema})

    assert tools.declared == (
        {"type": "function", "description": None, "name": "add", "parameters": schema, "strict": None},
    )
    assert tools.client == tools.declared
    assert tools.hosted == ()


def test_what_else_a_function_says_is_kept() -> None:
    tools = read({**ADD, "description": "adds", "defer_loading": True, "output_schema": None})

    assert tools.declared == ({**ADD, "description": "adds", "defer_loading": True},)


def test_a_custom_tool_is_a_client_tool() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: A"}

    tools = read({**CODE, "format": grammar, "description": None})

    assert tools.client == ({**CODE, "format": grammar},)


def test_echoed_tools_validate_against_the_types_of_the_official_client() -> None:
    tools = read(ADD, {"type": "function", "name": "bare"}, {**CODE, "format": {"type": "text"}}, MCP)

    for tool in tools.declared:
        TypeAdapter(Tool).validate_python(tool)


def test_every_tool_type_of_the_official_client_is_named() -> None:
    union = get_args(get_args(tool_types.Tool)[0])
    known = {literal for member in union for literal in get_args(member.model_fields["type"].annotation)}

    assert known <= {*CLIENT_TOOL_TYPES, *HOSTED_TOOL_TYPES}


@pytest.mark.behaviour("C5")
@pytest.mark.parametrize("kind", HOSTED_TOOL_TYPES)
def test_a_hosted_tool_is_refused_ignored_or_passed_on_as_the_operator_says(kind: str) -> None:
    tool = {**MCP, "type": kind}

    with pytest.raises(RequestError) as refused:
        read(ADD, tool, hosted_tools="reject")
    ignored = read(ADD, tool, hosted_tools="ignore")
    passed = read(ADD, tool, hosted_tools="pass")

    assert (refused.value.param, refused.value.code) == ("tools[1].type", "unsupported_parameter")
    assert [entry["type"] for entry in ignored.declared] == ["function", kind]
    assert ignored.hosted == ()
    assert passed.hosted == (tool,)
    assert passed.client == (read(ADD).declared)


def test_secrets_of_a_tool_are_passed_on_but_never_echoed() -> None:
    container = {
        "type": "auto",
        "file_ids": ["file-1"],
        "network_policy": {"domain_secrets": [{"domain": "d", "value": "123"}]},
    }

    tools = read(MCP, {"type": "code_interpreter", "container": container})

    assert tools.declared == (
        {
            **MCP,
            "server_url": "https://example.com:8443/<redacted>",
            "authorization": "<redacted>",
            "headers": {"X-Key": "<redacted>"},
        },
        {
            "type": "code_interpreter",
            "container": {"type": "auto", "file_ids": ["file-1"], "network_policy": {"domain_secrets": "<redacted>"}},
        },
    )
    assert tools.hosted[0] == MCP
    assert MCP["authorization"] == "Bearer 123"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com/", "https://example.com"),
        ("https://example.com?key=1", "https://example.com/<redacted>"),
        ("not a url", "<redacted>"),
        ("https://[broken", "<redacted>"),
        ("https://example.com:port/x", "<redacted>"),
    ],
)
def test_only_the_host_of_an_mcp_server_is_echoed(url: str, shown: str) -> None:
    tools = read({"type": "mcp", "server_label": "docs", "server_url": url})

    assert tools.declared[0]["server_url"] == shown


def test_what_looks_like_a_secret_is_hidden_in_tools_of_any_shape() -> None:
    tools = read({"type": "shell", "server_url": 7, "headers": "Bearer 123", "authorization": {"key": "123"}})

    assert tools.declared == (
        {"type": "shell", "server_url": "<redacted>", "headers": "<redacted>", "authorization": "<redacted>"},
    )


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize(
    ("tool", "param", "code"),
    [
        ("add", "tools[0]", "invalid_type"),
        ({}, "tools[0].type", "missing_required_parameter"),
        ({"type": 1}, "tools[0].type", "invalid_type"),
        ({"type": "magic"}, "tools[0].type", "invalid_value"),
        ({"type": "function"}, "tools[0].name", "missing_required_parameter"),
        ({"type": "function", "function": {"name": "f"}}, "tools[0].name", "missing_required_parameter"),
        ({"type": "function", "name": "two words"}, "tools[0].name", "invalid_value"),
        ({"type": "function", "name": "f\n"}, "tools[0].name", "invalid_value"),
        ({"type": "function", "name": "x" * 129}, "tools[0].name", "string_above_max_length"),
        ({**ADD, "parameters": "object"}, "tools[0].parameters", "invalid_type"),
        ({**ADD, "strict": "true"}, "tools[0].strict", "invalid_type"),
        ({**ADD, "description": 1}, "tools[0].description", "invalid_type"),
        ({"type": "custom"}, "tools[0].name", "missing_required_parameter"),
        ({**CODE, "description": 1}, "tools[0].description", "invalid_type"),
        ({**CODE, "format": {"type": "xml"}}, "tools[0].format.type", "invalid_value"),
        ({**CODE, "format": {"type": "grammar"}}, "tools[0].format.syntax", "missing_required_parameter"),
        (
            {**CODE, "format": {"type": "grammar", "syntax": "regex"}},
            "tools[0].format.definition",
            "missing_required_parameter",
        ),
        ({**ADD, "defer_loading": 1}, "tools[0].defer_loading", "invalid_type"),
        ({**ADD, "output_schema": []}, "tools[0].output_schema", "invalid_type"),
        ({**CODE, "async": "no"}, "tools[0].async", "invalid_type"),
        ({**CODE, "allowed_callers": ["nobody"]}, "tools[0].allowed_callers[0]", "invalid_value"),
        ({"type": "mcp"}, "tools[0].server_label", "missing_required_parameter"),
        ({**MCP, "server_url": 7}, "tools[0].server_url", "invalid_type"),
        ({**MCP, "headers": []}, "tools[0].headers", "invalid_type"),
        ({**MCP, "headers": {"a": 1}}, "tools[0].headers.a", "invalid_type"),
        ({**MCP, "authorization": 1}, "tools[0].authorization", "invalid_type"),
    ],
)
def test_a_malformed_tool_is_refused_with_its_path(tool: Any, param: str, code: str) -> None:
    with pytest.raises(RequestError) as refused:
        read(tool)

    assert (refused.value.param, refused.value.code) == (param, code)


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(RequestError) as refused:
        read(ADD, {"type": "custom", "name": "add"})

    assert refused.value.param == "tools[1].name"


def test_more_tools_than_the_limit_are_refused() -> None:
    with pytest.raises(RequestError) as refused:
        read(*({"type": "function", "name": f"f{index}"} for index in range(129)))

    assert (refused.value.param, refused.value.code) == ("tools", "array_above_max_length")


@pytest.mark.parametrize(
    "choice",
    [
        "none",
        "auto",
        "required",
        {"type": "function", "name": "add"},
        {"type": "custom", "name": "code"},
        {"type": "mcp", "server_label": "docs", "name": "search"},
        {"type": "web_search_preview_2025_03_11"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "add"}]},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp", "server_label": "docs"}]},
    ],
)
def test_a_tool_choice_is_kept_as_sent(choice: Any) -> None:
    tools = read(ADD, CODE, MCP, {"type": "web_search"})

    assert parse_tool_choice(choice, tools) == choice


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize(
    ("choice", "param", "code"),
    [
        (1, "tool_choice", "invalid_type"),
        ("any", "tool_choice", "invalid_value"),
        ({}, "tool_choice.type", "missing_required_parameter"),
        ({"type": "magic"}, "tool_choice.type", "invalid_value"),
        ({"type": "function"}, "tool_choice.name", "missing_required_parameter"),
        ({"type": "function", "name": 1}, "tool_choice.name", "invalid_type"),
        ({"type": "function", "name": "sub"}, "tool_choice", None),
        ({"type": "custom", "name": "add"}, "tool_choice", None),
        ({"type": "mcp", "server_label": "other"}, "tool_choice", None),
        ({"type": "file_search"}, "tool_choice", None),
        ({"type": "allowed_tools"}, "tool_choice.mode", "missing_required_parameter"),
        ({"type": "allowed_tools", "mode": "none"}, "tool_choice.mode", "invalid_value"),
        ({"type": "allowed_tools", "mode": "auto"}, "tool_choice.tools", "missing_required_parameter"),
        ({"type": "allowed_tools", "mode": "auto", "tools": ["add"]}, "tool_choice.tools[0]", "invalid_type"),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "sub"}]},
            "tool_choice",
            None,
        ),
    ],
)
def test_a_tool_choice_that_is_malformed_or_names_no_tool_is_refused(choice: Any, param: str, code: str | None) -> None:
    with pytest.raises(RequestError) as refused:
        parse_tool_choice(choice, read(ADD))

    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("auto", None),
        ("required", None),
        ("none", frozenset()),
        ({"type": "function", "name": "add"}, None),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "add"}, {"type": "image_generation"}],
            },
            frozenset({"add"}),
        ),
    ],
)
def test_allowed_tools_limit_which_client_tools_may_be_called(choice: Any, names: frozenset[str] | None) -> None:
    assert allowed_names(choice) == names
