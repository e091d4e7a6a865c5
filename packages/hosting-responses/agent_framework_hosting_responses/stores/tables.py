"""The tables of the channel. The migrations in `versions/` must make exactly these."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

metadata = sa.MetaData()

IS_RUNNING: Final = sa.text("status IN ('queued', 'in_progress')")
"""Responses that have not ended. Written out: databases use an index of some rows only if they see the condition."""

HAS_ENDED: Final = sa.text("status NOT IN ('queued', 'in_progress')")
"""The others."""

# Indexes of the few rows that have a value: every index costs every write.
_CONTINUES: Final = sa.text("previous_response_id IS NOT NULL")
_IS_NAMED: Final = sa.text("idempotency_key IS NOT NULL")
_IS_TAKEN: Final = sa.text("running_owner IS NOT NULL")
_IS_CLAIMED: Final = sa.text("owner IS NOT NULL")

responses = sa.Table(
    "afhost_responses",
    metadata,
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    # The process that runs it; of no meaning once the status is terminal.
    sa.Column("owner", sa.Text, nullable=False),
    # What it is a run of: its name among the targets of the host, empty if there was but one.
    sa.Column("target", sa.Text, nullable=False),
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
    # JSON. `body` stops where the output comes last in it; a tombstone has none at all.
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("input", sa.LargeBinary, nullable=False),
    sa.Column("output", sa.LargeBinary, nullable=False),
    # Answers to approval requests, the agent's own call ids.
    sa.Column("notes", sa.LargeBinary),
    # What another process needs to run it; gone when it has ended.
    sa.Column("request", sa.LargeBinary),
    sa.Index(
        "afhost_responses_previous",
        "partition",
        "previous_response_id",
        sqlite_where=_CONTINUES,
        postgresql_where=_CONTINUES,
    ),
    sa.Index(
        "afhost_responses_idempotency",
        "partition",
        "idempotency_key",
        unique=True,
        sqlite_where=_IS_NAMED,
        postgresql_where=_IS_NAMED,
    ),
    sa.Index("afhost_responses_age", "is_deleted", "stored_at"),
    sa.Index("afhost_responses_running", "owner", sqlite_where=IS_RUNNING, postgresql_where=IS_RUNNING),
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
    # Another number after every removal of an item: whoever has read the items before must read them again.
    sa.Column("generation", sa.Integer, nullable=False),
    # The response that runs in it, and in which process.
    sa.Column("running_response_id", sa.Text),
    sa.Column("running_owner", sa.Text),
    sa.Index("afhost_conversations_age", "stored_at"),
    sa.Index("afhost_conversations_running", "running_owner", sqlite_where=_IS_TAKEN, postgresql_where=_IS_TAKEN),
)

conversation_items = sa.Table(
    "afhost_conversation_items",
    metadata,
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("conversation_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("item", sa.LargeBinary, nullable=False),
    # The response whose input or output it is; NULL if it came through the items API.
    sa.Column("response_id", sa.Text),
    # Whether the session after that response knows just the items up to there.
    sa.Column("has_session", sa.Boolean, nullable=False),
    # What the context needs besides the item: the answer to an approval request, the agent's own call id.
    sa.Column("notes", sa.LargeBinary),
    sa.Index("afhost_conversation_items_id", "partition", "conversation_id", "item_id", unique=True),
)

settlements = sa.Table(
    "afhost_settlements",
    metadata,
    sa.Column("partition", sa.Text, primary_key=True),
    # The response that asks; the question is empty where all that it waits for is meant.
    sa.Column("response_id", sa.Text, primary_key=True),
    sa.Column("question", sa.Text, primary_key=True),
    # The response that has answered.
    sa.Column("settled_by", sa.Text, nullable=False),
    # The process that answers without storing the response, until it has.
    sa.Column("owner", sa.Text),
    sa.Index("afhost_settlements_by", "partition", "settled_by"),
    sa.Index("afhost_settlements_running", "owner", sqlite_where=_IS_CLAIMED, postgresql_where=_IS_CLAIMED),
)
