"""Where the Conversations API lies, and how an error inside of it is answered."""

from __future__ import annotations

from typing import Any

import live
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from agent_framework_hosting_responses.conversation_routes import conversation_routes
from agent_framework_hosting_responses.conversations import ConversationsService
from agent_framework_hosting_responses.stores.base import ConversationKey, ConversationRecord
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore


def service_of(store: MemoryConversationStore) -> ConversationsService:
    return ConversationsService(store, store)


def test_there_are_eight_endpoints() -> None:
    routes: list[Any] = conversation_routes("/v1/agents/a", service_of(MemoryConversationStore()))

    assert all(isinstance(route, Route) for route in routes)
    assert [(sorted(route.methods - {"HEAD"}), route.path.removeprefix("/v1/agents/a/conversations")) for route in routes] == [
        (["POST"], ""),
        (["GET"], "/{conversation_id}"),
        (["POST"], "/{conversation_id}"),
        (["DELETE"], "/{conversation_id}"),
        (["POST"], "/{conversation_id}/items"),
        (["GET"], "/{conversation_id}/items"),
        (["GET"], "/{conversation_id}/items/{item_id}"),
        (["DELETE"], "/{conversation_id}/items/{item_id}"),
    ]  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "/v1", "/v1/agents/a"])
async def test_the_routes_work_in_any_application_under_their_prefix(prefix: str) -> None:
    app = Starlette(routes=conversation_routes(prefix, service_of(MemoryConversationStore())))
    async with live.serve(app) as served:
        made = await served.http.post(f"{prefix}/conversations", json={"metadata": {"a": "1"}})
        found = await served.http.get(f"{prefix}/conversations/{made.json()['id']}")

    assert found.json() == made.json()


async def test_an_error_of_the_store_is_a_500_that_says_nothing_about_it() -> None:
    class Broken(MemoryConversationStore):
        async def get(self, key: ConversationKey) -> ConversationRecord | None:
            raise ValueError("secret inside")

    app = Starlette(routes=conversation_routes("", service_of(Broken())))
    async with live.serve(app) as served:
        answer = await served.http.get("/conversations/conv_1")

    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
