"""The caller's options in Agent Framework's words, judged by the framework and its OpenAI clients."""

from typing import Any

import pytest
from agent_framework import FunctionTool, Message
from agent_framework._types import validate_chat_options, validate_tool_mode
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient
from openai import AsyncOpenAI

from agent_framework_hosting_responses.protocol.options import allowed_tool_names, chat_options
from agent_framework_hosting_responses.protocol.request import parse_request

ADD: dict[str, Any] = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}
CODE = {"type": "custom", "name": "code"}
MCP = {"type": "mcp", "server_label": "docs", "server_url": "https://example.com/x", "authorization": "Bearer 123"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def options(**body: Any) -> dict[str, Any]:
    return chat_options(parse_request({"input": "hi", **body}, hosted_tools="pass"))


@pytest.mark.parametrize(
    "body", [{}, {"temperature": None, "tools": None, "text": None, "stream": True, "background": True}]
)
def test_what_the_caller_did_not_say_is_no_option(body: dict[str, Any]) -> None:
    assert options(**body) == {}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"model": "agent-a"}, {"model": "agent-a"}),
        ({"instructions": "be brief"}, {"instructions": "be brief"}),
        ({"temperature": 1, "top_p": 0.5}, {"temperature": 1.0, "top_p": 0.5}),
        ({"presence_penalty": -2, "frequency_penalty": 2}, {"presence_penalty": -2.0, "frequency_penalty": 2.0}),
        ({"max_output_tokens": 16}, {"max_tokens": 16}),
        ({"max_tool_calls": 3}, {"max_tool_calls": 3}),
        ({"parallel_tool_calls": False}, {"allow_multiple_tool_calls": False}),
        ({"store": False}, {"store": False}),
        ({"user": "u", "safety_identifier": "s"}, {"user": "u", "safety_identifier": "s"}),
        ({"metadata": {"a": "b"}}, {"metadata": {"a": "b"}}),
        ({"top_logprobs": 2, "truncation": "auto"}, {"top_logprobs": 2, "truncation": "auto"}),
        ({"service_tier": "flex"}, {"service_tier": "flex"}),
        (
            {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
            {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
        ),
        ({"reasoning": {"effort": "low", "summary": None}}, {"reasoning": {"effort": "low"}}),
        ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
        ({"verbosity": "high"}, {"verbosity": "high"}),
        ({"text": {"format": {"type": "text"}}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        ({"tool_choice": "none"}, {"tool_choice": {"mode": "none"}}),
        ({"tool_choice": "required"}, {"tool_choice": {"mode": "auto"}}),
    ],
)
def test_an_option_has_the_frameworks_name(body: dict[str, Any], expected: dict[str, Any]) -> None:
    assert options(**body) == expected


@pytest.mark.parametrize(
    ("choice", "mode"),
    [
        ("auto", {"mode": "auto"}),
        ("required", {"mode": "required"}),
        ({"type": "function", "name": "add"}, {"mode": "required", "required_function_name": "add"}),
        ({"type": "custom", "name": "code"}, {"mode": "required", "required_function_name": "code"}),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "add"}]},
            {"mode": "auto", "allowed_tools": ["add"]},
        ),
        ({"type": "mcp", "server_label": "docs"}, {"mode": "required"}),
    ],
)
def test_a_tool_choice_is_a_tool_mode(choice: Any, mode: dict[str, Any]) -> None:
    result = options(tools=[ADD, CODE, MCP], tool_choice=choice)["tool_choice"]

    assert result == mode
    assert validate_tool_mode(result) == mode


def test_client_tools_are_declarations_that_nobody_here_can_run() -> None:
    add, code = options(tools=[ADD, CODE])["tools"]

    assert isinstance(add, FunctionTool)
    assert isinstance(code, FunctionTool)
    assert (add.declaration_only, code.declaration_only) == (True, True)
    assert (add.name, add.description, add.parameters()) == ("add", "Adds.", ADD["parameters"])
    assert code.parameters()["properties"] == {"input": {"type": "string"}}
    assert code.parameters()["required"] == ["input"]


def test_a_function_without_parameters_takes_none() -> None:
    (tool,) = options(tools=[{"type": "function", "name": "now"}])["tools"]

    assert tool.parameters() == {"type": "object", "properties": {}}


def test_hosted_tools_reach_the_chat_client_as_sent() -> None:
    assert options(tools=[MCP])["tools"] == [MCP]


def test_allowed_tools_are_told_to_the_encoder() -> None:
    choice: dict[str, Any] = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "add"}],
    }
    limited = parse_request({"input": "hi", "tools": [ADD], "tool_choice": choice})

    assert allowed_tool_names(limited) == frozenset({"add"})
    assert allowed_tool_names(parse_request({"input": "hi"})) is None


EVERYTHING: dict[str, Any] = {
    "model": "m",
    "temperature": 0.5,
    "top_p": 0.5,
    "max_output_tokens": 100,
    "parallel_tool_calls": True,
    "user": "u",
    "metadata": {"a": "b"},
    "tools": [ADD, CODE],
    "tool_choice": {"type": "function", "name": "add"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}, "verbosity": "low"},
    "reasoning": {"effort": "low"},
}


async def test_the_frameworks_responses_client_sends_on_what_the_caller_said() -> None:
    client = OpenAIChatClient(model="m", async_client=AsyncOpenAI(api_key="none"))
    checked = await validate_chat_options(options(**EVERYTHING))

    sent = await client._prepare_options([Message("user", ["hi"])], checked)

    assert sent["text"] == EVERYTHING["text"]
    assert sent["tool_choice"] == EVERYTHING["tool_choice"]
    assert [tool["name"] for tool in sent["tools"]] == ["add", "code"]
    assert sent["max_output_tokens"] == 100
    assert sent["parallel_tool_calls"] is True
    assert sent["reasoning"] == {"effort": "low"}


def test_the_frameworks_chat_completions_client_sends_on_what_the_caller_said() -> None:
    client = OpenAIChatCompletionClient(model="m", async_client=AsyncOpenAI(api_key="none"))

    sent = client._prepare_options([Message("user", ["hi"])], options(**EVERYTHING))

    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA
    assert sent["tool_choice"]["function"]["name"] == "add"


def test_the_request_stays_as_it_was_when_a_client_changes_its_options() -> None:
    request = parse_request({"input": "hi", "tools": [ADD], "reasoning": {"effort": "low"}})

    mutable: dict[str, Any] = chat_options(request)
    mutable["tools"][0].parameters()["additionalProperties"] = False
    mutable["reasoning"]["effort"] = "high"

    assert request.echo["reasoning"] == {"effort": "low", "summary": None}
    assert request.tools[0]["parameters"] == ADD["parameters"]
