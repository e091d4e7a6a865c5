"""The suite for stores of responses, run on the store in memory."""

from __future__ import annotations

import pytest

from agent_framework_hosting_responses.stores.memory import MemoryResponseStore
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore
from agent_framework_hosting_responses.testing.response_stores import ResponseStoreSuite


class TestMemoryResponseStore(ResponseStoreSuite):
    @pytest.fixture
    def conversations(self) -> MemoryConversationStore:
        return MemoryConversationStore()

    @pytest.fixture
    def store(self, conversations: MemoryConversationStore) -> MemoryResponseStore:
        return MemoryResponseStore(conversations=conversations)
