"""Bodies of the API's objects: the Response, conversations, lists, deletions, models.

Source: contract §2.1, §4.3, §4.5, §6.1, §7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from agent_framework_hosting_responses.protocol.json import JsonObject, decode_json, encode_json
from agent_framework_hosting_responses.protocol.request import CreateRequest

_KEYS: Final = (
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
)
"""The keys after `incomplete_details`, in canonical order."""


def new_response(request: CreateRequest, *, response_id: str, created_at: int, model: str) -> JsonObject:
    """Return the Response as it stands before the run: every key, no output, `queued` or `in_progress`.

    `created_at` is in Unix seconds. The key `conversation` is there only if the request used one. The result shares its
    members with `request.echo`; replace them, do not change them.

    Source: contract §2.1, §2.2.
    """
    body: JsonObject = {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": "queued" if request.background else "in_progress",
        "background": request.background,
    }
    if request.conversation_id is not None:
        body["conversation"] = {"id": request.conversation_id}
    body["error"] = None
    body["incomplete_details"] = None
    own: JsonObject = {"model": model, "output": [], "service_tier": "auto", "usage": None}
    for key in _KEYS:
        body[key] = own[key] if key in own else request.echo[key]
    return body


def decode_response(body: bytes) -> JsonObject:
    """Return the Response in a stored body."""
    response: JsonObject = decode_json(body)
    return response


def lost_response(body: bytes) -> bytes:
    """Return the Response in `body`, which ran in a process that died, as failed: nothing of it was stored.

    Source: contract §2.3, §5 point 8.
    """
    response = decode_response(body)
    response.update(
        status="failed",
        completed_at=None,
        error={"code": "server_error", "message": "The server stopped while the response was generated."},
        service_tier="default",
    )
    return encode_json(response)


def item_page(items: Sequence[JsonObject], *, has_more: bool) -> JsonObject:
    """Return one page of a list of items; every item has an `id`, by which clients ask for the next page.

    Source: contract §4.5.
    """
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }


def deleted_response(response_id: str) -> JsonObject:
    """Return the answer to a `DELETE` of a response. Source: contract §4.1, §4.3."""
    return {"id": response_id, "object": "response", "deleted": True}


def conversation_object(conversation_id: str, *, created_at: int, metadata: Mapping[str, str]) -> JsonObject:
    """Return the Conversation, which has exactly these keys; `created_at` is in Unix seconds. Source: contract §6.1."""
    return {"id": conversation_id, "object": "conversation", "created_at": created_at, "metadata": {**metadata}}


def deleted_conversation(conversation_id: str) -> JsonObject:
    """Return the answer to a `DELETE` of a conversation. Source: contract §6.1."""
    return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}


def model_object(model: str, *, created: int, owned_by: str = "local") -> JsonObject:
    """Return the model object of one hosted agent; `created` is in Unix seconds. Source: contract §7."""
    return {"id": model, "object": "model", "created": created, "owned_by": owned_by}


def model_list(models: Sequence[JsonObject]) -> JsonObject:
    """Return the answer to `GET /models`, which has no pages. Source: contract §7."""
    return {"object": "list", "data": list(models)}
