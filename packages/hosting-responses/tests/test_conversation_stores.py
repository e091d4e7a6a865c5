"""The suite for stores of conversations, run on the store in memory."""

from __future__ import annotations

import pytest

from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore
from agent_framework_hosting_responses.testing.conversation_stores import ConversationStoreSuite


class TestMemoryConversationStore(ConversationStoreSuite):
    @pytest.fixture
    def store(self) -> MemoryConversationStore:
        return MemoryConversationStore()
