"""The caller's options in Agent Framework's words.

A run hook decides which of them reach the agent; by default none do.

Source: design, public names; contract §1.1, §1.3, §1.4.
"""

from __future__ import annotations

from typing import Any, Final, cast

from agent_framework import FunctionTool

from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue
from agent_framework_hosting_responses.protocol.request import CreateRequest
from agent_framework_hosting_responses.protocol.tools import allowed_names

_NAMES: Final[dict[str, str]] = {
    "instructions": "instructions",
    "max_output_tokens": "max_tokens",
    "max_tool_calls": "max_tool_calls",
    "metadata": "metadata",
    "parallel_tool_calls": "allow_multiple_tool_calls",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "prompt_cache_key": "prompt_cache_key",
    "prompt_cache_retention": "prompt_cache_retention",
    "safety_identifier": "safety_identifier",
    "store": "store",
    "temperature": "temperature",
    "top_logprobs": "top_logprobs",
    "top_p": "top_p",
    "truncation": "truncation",
    "user": "user",
}
"""Field of the request → key of the options, for values that stay as they are."""

CUSTOM_TOOL_PARAMETER: Final = "input"
"""The one parameter under which a custom tool is offered to the agent: its free-form input, a string."""

_CUSTOM_SCHEMA: Final[JsonObject] = {
    "type": "object",
    "properties": {CUSTOM_TOOL_PARAMETER: {"type": "string"}},
    "required": [CUSTOM_TOOL_PARAMETER],
    "additionalProperties": False,
}
_NO_PARAMETERS: Final[JsonObject] = {"type": "object", "properties": {}}


def chat_options(request: CreateRequest) -> dict[str, object]:
    """Return the options of `request` as Agent Framework's `ChatOptions`, with only the keys that the caller sent.

    `text.format` becomes `response_format` (`{"type": "json_schema", "json_schema": {…}}` or `{"type": "json_object"}`; plain
    text needs none), `text.verbosity` becomes `verbosity`, `tool_choice` a `ToolMode`. `tools` holds a declaration
    without implementation for each client tool, so that a call to one ends the run, and hosted tools as they were sent, if the
    operator passes these on.

    Source: design, public names.
    """
    options: dict[str, object] = {}
    if request.model is not None:
        options["model"] = request.model
    for name, key in _NAMES.items():
        if name in request.sent:
            options[key] = request.echo[name]
    if "service_tier" in request.sent:
        options["service_tier"] = request.raw["service_tier"]
    if "reasoning" in request.sent:
        reasoning = cast("JsonObject", request.echo["reasoning"])
        options["reasoning"] = {key: value for key, value in reasoning.items() if value is not None}
    options.update(_text_options(request))
    tools = [*map(_declaration, request.client_tools), *(dict(tool) for tool in request.hosted_tools)]
    if tools:
        options["tools"] = tools
    if "tool_choice" in request.sent:
        options["tool_choice"] = _tool_mode(request)
    return options


def allowed_tool_names(request: CreateRequest) -> frozenset[str] | None:
    """Return the names of the client tools that `tool_choice` allows to be called, or None if it does not limit them.

    Source: contract §1.3.
    """
    return allowed_names(request.tool_choice)


def _text_options(request: CreateRequest) -> dict[str, object]:
    options: dict[str, object] = {}
    form = cast("JsonObject", request.text["format"])
    if form["type"] == "json_object":
        options["response_format"] = {"type": "json_object"}
    elif form["type"] == "json_schema":
        schema = {key: value for key, value in form.items() if key != "type" and value is not None}
        # The nested form is the one that both of the framework's OpenAI clients read.
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    sent_text = request.raw.get("text")
    is_sent = isinstance(sent_text, dict) and sent_text.get("verbosity") is not None
    if is_sent or "verbosity" in request.sent:
        options["verbosity"] = request.text["verbosity"]
    return options


def _declaration(tool: JsonObject) -> FunctionTool:
    """Return a client tool as a tool without implementation: the framework hands calls to it back instead of running it."""
    is_custom = tool["type"] == "custom"
    schema = _CUSTOM_SCHEMA if is_custom else tool.get("parameters") or _NO_PARAMETERS
    return FunctionTool(
        name=cast("str", tool["name"]),
        description=cast("str | None", tool.get("description")) or "",
        func=None,
        input_model=cast("dict[str, Any]", schema),
    )


def _tool_mode(request: CreateRequest) -> dict[str, object]:
    choice = request.tool_choice
    if isinstance(choice, str):
        # Without tools of its own, the caller can require none: the agent's tools are the agent's business.
        is_empty = choice == "required" and not request.tools
        return {"mode": "auto" if is_empty else choice}
    named = cast("JsonObject", choice)
    if named["type"] in {"function", "custom"}:
        return {"mode": "required", "required_function_name": named["name"]}
    if named["type"] == "allowed_tools":
        return {"mode": named["mode"], "allowed_tools": _listed_names(named["tools"])}
    # The framework has no word for forcing one hosted tool; that some tool is required is the nearest.
    return {"mode": "required"}


def _listed_names(tools: JsonValue) -> list[JsonValue]:
    listed = cast("list[JsonObject]", tools)
    return [tool["name"] for tool in listed if tool["type"] in {"function", "custom"}]
