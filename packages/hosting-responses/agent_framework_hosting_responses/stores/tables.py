"""The tables of the channel. The migrations in `versions/` must make exactly these."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from agent_framework_hosting.sql.schema import SchemaPart

metadata = sa.MetaData()

responses = sa.Table(
    "afhost_responses",
    metadata,
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    # The process that runs it; of no meaning once the status is terminal.
    sa.Column("owner", sa.Text, nullable=False),
    # Unix seconds; the latter of the last write.
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("stored_at", sa.Float, nullable=False),
    sa.Column("is_background", sa.Boolean, nullable=False),
    sa.Column("is_streamed", sa.Boolean, nullable=False),
    sa.Column("has_session", sa.Boolean, nullable=False),
    # A tombstone: gone for readers, its items kept for the responses that continue it.
    sa.Column("is_deleted", sa.Boolean, nullable=False),
    sa.Column("previous_response_id", sa.Text),
    sa.Column("conversation_id", sa.Text),
    # Items of the conversation below this position are the context.
    sa.Column("conversation_position", sa.BigInteger),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("request_hash", sa.Text),
    # JSON. `body` holds the output too; a tombstone has no body but an output.
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("input", sa.LargeBinary, nullable=False),
    sa.Column("output", sa.LargeBinary),
    sa.Column("notes", sa.LargeBinary),
    sa.Index("afhost_responses_previous", "partition", "previous_response_id"),
    sa.Index("afhost_responses_idempotency", "partition", "idempotency_key", unique=True),
    sa.Index("afhost_responses_age", "stored_at"),
    sa.Index("afhost_responses_status", "status"),
)

conversations = sa.Table(
    "afhost_conversations",
    metadata,
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("stored_at", sa.Float, nullable=False),
    sa.Column("metadata", sa.LargeBinary, nullable=False),
    # The position of the next item; items are never renumbered.
    sa.Column("next_position", sa.BigInteger, nullable=False),
    # How many deletions of items there have been: whoever has read the items before must read them again.
    sa.Column("generation", sa.Integer, nullable=False),
    # The response that runs in it, and in which process.
    sa.Column("running_response_id", sa.Text),
    sa.Column("running_owner", sa.Text),
    # The response whose session knows every item below `known_position`.
    sa.Column("session_response_id", sa.Text),
    sa.Column("known_position", sa.BigInteger, nullable=False),
    sa.Index("afhost_conversations_age", "stored_at"),
    sa.Index("afhost_conversations_running", "running_owner"),
)

conversation_items = sa.Table(
    "afhost_conversation_items",
    metadata,
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("conversation_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("item", sa.LargeBinary, nullable=False),
    # What the context needs besides the item: the answer to an approval request, the agent's own call id.
    sa.Column("notes", sa.LargeBinary),
    sa.Index("afhost_conversation_items_id", "partition", "conversation_id", "item_id", unique=True),
)

SCHEMA: Final = SchemaPart("responses", metadata, Path(__file__).parent / "versions")
"""The channel's part of the schema."""
