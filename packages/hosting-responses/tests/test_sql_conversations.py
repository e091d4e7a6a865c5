"""Conversations in SQLite and PostgreSQL: the suite for every store, what several processes see, and retention."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import sqlalchemy as sa

from agent_framework_hosting.sql.database import Database
from agent_framework_hosting_responses.stores.sql_conversations import SqlConversationStore
from agent_framework_hosting_responses.testing.conversation_stores import ConversationStoreSuite


class TestSqlConversationStore(ConversationStoreSuite):
    @pytest.fixture
    def store(self, database: Database) -> SqlConversationStore:
        return SqlConversationStore(database)
