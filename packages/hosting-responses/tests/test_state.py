"""Where a channel keeps what it keeps."""

from __future__ import annotations

from typing import Any

import live
import pytest
from states import State

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings
from agent_framework_hosting_responses.state import ResponsesState
from agent_framework_hosting_responses.stores.held import HeldResponses
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore
from agent_framework_hosting_responses.stores.memory_settlements import MemorySettlements
from agent_framework_hosting_responses.stores.sql_conversations import SqlConversationStore
from agent_framework_hosting_responses.stores.sql_responses import SqlResponseStore


def state_in(state: State) -> ResponsesState:
    channel = ResponsesChannel()
    assert AgentFrameworkHost(ScriptedAgent(["x"]), channels=[channel], **state.options).app
    return channel.service.state


def test_without_configured_state_everything_is_in_memory() -> None:
    made = state_in(State("memory"))

    assert isinstance(made.responses, MemoryResponseStore)
    assert isinstance(made.conversations, MemoryConversationStore)
    assert made.one_shots is None
    assert made.prunable == ()


def test_with_a_database_everything_is_in_it(durable_state: State) -> None:
    made = state_in(durable_state)

    assert isinstance(made.responses, SqlResponseStore)
    assert isinstance(made.conversations, SqlConversationStore)
    assert isinstance(made.one_shots, HeldResponses)
    assert made.prunable == (made.responses, made.conversations)


async def test_a_user_may_bring_stores_of_their_own() -> None:
    class Counting(MemoryResponseStore):
        created = 0

        async def create(self, *args: Any, **kwargs: Any) -> Any:
            self.created += 1
            return await super().create(*args, **kwargs)

    conversations = MemoryConversationStore()
    responses = Counting(conversations=conversations)
    channel = ResponsesChannel(
        state=ResponsesState(responses=responses, conversations=conversations, settlements=MemorySettlements())
    )
    async with live.serve(AgentFrameworkHost(ScriptedAgent(["hello"]), channels=[channel]).app) as served:
        conversation = await served.client.conversations.create()
        response = await served.client.responses.create(model="a", input="q", conversation=conversation.id)
        stored = await served.client.responses.retrieve(response.id)

    assert stored.output_text == "hello"
    assert responses.created == 1


@pytest.mark.parametrize("kind", ["responses", "conversations"])
async def test_retention_in_a_database_is_the_settings(durable_state: State, kind: str) -> None:
    channel = ResponsesChannel(settings=ResponsesSettings(max_responses=2, max_conversations=2))
    host = AgentFrameworkHost(ScriptedAgent(["hello"]), channels=[channel], **durable_state.options)
    async with live.serve(host.app) as served:
        if kind == "responses":
            made = [(await served.client.responses.create(model="a", input="q")).id for _ in range(4)]
        else:
            made = [(await served.client.conversations.create()).id for _ in range(4)]
        for store in channel.service.state.prunable:
            while await store.prune(limit=1):
                pass
        found = [(await served.http.get(f"/v1/{kind}/{name}")).status_code for name in made]

    assert found == [404, 404, 200, 200]
