"""The bodies of the API's objects, judged by the official client's types."""

from typing import Any

import pytest
from openai.types import Model
from openai.types.conversations import Conversation, ConversationDeletedResource
from openai.types.responses import Response

from agent_framework_hosting_responses.protocol.request import CreateRequest, parse_request
from agent_framework_hosting_responses.protocol.resources import (
    conversation_object,
    deleted_conversation,
    deleted_response,
    item_page,
    model_list,
    model_object,
    new_response,
)

# The keys of the canonical body of contract §2.1, in its order.
CANONICAL = [
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "background",
    "error",
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "model",
    "output",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "truncation",
    "usage",
    "user",
    "metadata",
]

FUNCTION = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}

BODIES: list[dict[str, Any]] = [
    {"input": "hi"},
    {"input": "hi", "conversation": "conv_1"},
    {"input": "hi", "previous_response_id": "resp_0", "background": True, "store": False},
    {"input": "hi", "temperature": 0, "top_p": 1, "top_logprobs": 3, "max_output_tokens": 16, "max_tool_calls": 1},
    {"input": "hi", "tools": [FUNCTION], "tool_choice": {"type": "function", "name": "add"}},
    {"input": "hi", "tools": [{"type": "custom", "name": "code", "format": {"type": "text"}}]},
    {
        "input": "hi",
        "tools": [FUNCTION],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "add"}]},
    },
    {
        "input": "hi",
        "text": {
            "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
            "verbosity": "low",
        },
    },
    {"input": "hi", "text": {"format": {"type": "json_object"}}},
    {"input": "hi", "reasoning": {"effort": "high", "summary": "auto", "context": "auto", "mode": "pro"}},
    {"input": "hi", "user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "prompt_cache_retention": "24h"},
    {"input": "hi", "metadata": {"a": "b"}, "truncation": "auto", "instructions": "be brief"},
]


def respond(request: CreateRequest) -> dict[str, Any]:
    return new_response(request, response_id="resp_1", created_at=1_767_225_600, model="agent-a")


@pytest.mark.parametrize("body", BODIES)
def test_a_new_response_validates_against_the_types_of_the_official_client(body: dict[str, Any]) -> None:
    response = respond(parse_request(body))

    # Strict: an integer for a timestamp passes, a string for a number does not.
    parsed = Response.model_validate(response, strict=True)
    assert parsed.id == "resp_1"
    assert parsed.output_text == ""


def test_a_new_response_has_every_key_in_canonical_order() -> None:
    response = respond(parse_request({"input": "hi"}))

    assert list(response) == CANONICAL


@pytest.mark.behaviour("C4")
def test_a_new_response_says_what_a_request_that_says_nothing_gets() -> None:
    response = respond(parse_request({"input": "hi"}))

    assert response == {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_767_225_600,
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": "agent-a",
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "prompt_cache_retention": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "auto",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
    }


@pytest.mark.behaviour("C4")
def test_a_new_response_echoes_what_the_request_said() -> None:
    body: dict[str, Any] = {
        "input": "hi",
        "instructions": "be brief",
        "max_output_tokens": 100,
        "max_tool_calls": 2,
        "parallel_tool_calls": False,
        "previous_response_id": "resp_0",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "store": False,
        "temperature": 0.5,
        "tool_choice": "none",
        "top_logprobs": 2,
        "top_p": 0.25,
        "frequency_penalty": -1,
        "presence_penalty": 1,
        "truncation": "auto",
        "user": "u",
        "metadata": {"k": "v"},
    }

    response = respond(parse_request(body))

    assert {key: response[key] for key in body if key != "input"} == {k: v for k, v in body.items() if k != "input"}


def test_a_background_response_starts_queued() -> None:
    response = respond(parse_request({"input": "hi", "background": True}))

    assert response["status"] == "queued"
    assert response["background"] is True


def test_only_a_response_of_a_conversation_has_the_key_conversation() -> None:
    used = respond(parse_request({"input": "hi", "conversation": {"id": "conv_1"}}))
    unused = respond(parse_request({"input": "hi"}))

    assert used["conversation"] == {"id": "conv_1"}
    assert used["previous_response_id"] is None
    assert "conversation" not in unused


def test_a_page_names_its_first_and_last_item() -> None:
    page = item_page([{"id": "msg_1"}, {"id": "msg_2"}], has_more=True)

    assert page == {
        "object": "list",
        "data": [{"id": "msg_1"}, {"id": "msg_2"}],
        "first_id": "msg_1",
        "last_id": "msg_2",
        "has_more": True,
    }


def test_an_empty_page_has_no_first_and_last_item() -> None:
    page = item_page([], has_more=False)

    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_deleted_response_says_so() -> None:
    assert deleted_response("resp_1") == {"id": "resp_1", "object": "response", "deleted": True}


def test_a_conversation_validates_against_the_types_of_the_official_client() -> None:
    metadata = {"a": "1"}
    body: dict[str, Any] = conversation_object("conv_1", created_at=1_767_225_600, metadata=metadata)

    assert list(body) == ["id", "object", "created_at", "metadata"]
    assert Conversation.model_validate(body, strict=True).id == "conv_1"
    assert body["metadata"] == metadata
    assert body["metadata"] is not metadata


def test_a_deleted_conversation_says_so() -> None:
    body = deleted_conversation("conv_1")

    assert body == {"id": "conv_1", "object": "conversation.deleted", "deleted": True}
    assert ConversationDeletedResource.model_validate(body, strict=True).deleted


def test_models_validate_against_the_types_of_the_official_client() -> None:
    models: dict[str, Any] = model_list([model_object("agent-a", created=1_767_225_600)])

    assert models["object"] == "list"
    assert Model.model_validate(models["data"][0], strict=True).id == "agent-a"
