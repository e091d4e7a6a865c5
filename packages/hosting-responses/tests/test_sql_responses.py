"""Responses in SQLite and PostgreSQL: the suite for every store, what several processes see, and retention."""

from __future__ import annotations

import pytest

from agent_framework_hosting.sql.database import Database
from agent_framework_hosting_responses.stores.sql_conversations import SqlConversationStore
from agent_framework_hosting_responses.stores.sql_responses import SqlResponseStore
from agent_framework_hosting_responses.testing.response_stores import ResponseStoreSuite


class TestSqlResponseStore(ResponseStoreSuite):
    @pytest.fixture
    def conversations(self, database: Database) -> SqlConversationStore:
        return SqlConversationStore(database)

    @pytest.fixture
    def store(self, database: Database) -> SqlResponseStore:
        return SqlResponseStore(database)
