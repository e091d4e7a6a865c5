"""Tables of version 1."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.create_table(
        "afhost_conversation_items",
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("item", sa.LargeBinary(), nullable=False),
        sa.Column("response_id", sa.Text(), nullable=True),
        sa.Column("has_session", sa.Boolean(), nullable=False),
        sa.Column("notes", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("partition", "conversation_id", "position"),
    )
    with op.batch_alter_table("afhost_conversation_items", schema=None) as batch_op:
        batch_op.create_index("afhost_conversation_items_id", ["partition", "conversation_id", "item_id"], unique=True)

    op.create_table(
        "afhost_conversations",
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("stored_at", sa.Float(), nullable=False),
        sa.Column("metadata", sa.LargeBinary(), nullable=False),
        sa.Column("next_position", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("running_response_id", sa.Text(), nullable=True),
        sa.Column("running_owner", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("partition", "id"),
    )
    with op.batch_alter_table("afhost_conversations", schema=None) as batch_op:
        batch_op.create_index("afhost_conversations_age", ["stored_at"], unique=False)
        batch_op.create_index(
            "afhost_conversations_running",
            ["running_owner"],
            unique=False,
            sqlite_where=sa.text("running_owner IS NOT NULL"),
            postgresql_where=sa.text("running_owner IS NOT NULL"),
        )

    op.create_table(
        "afhost_responses",
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("stored_at", sa.Float(), nullable=False),
        sa.Column("is_background", sa.Boolean(), nullable=False),
        sa.Column("is_streamed", sa.Boolean(), nullable=False),
        sa.Column("has_session", sa.Boolean(), nullable=False),
        sa.Column("is_deleted", sa.Boolean(), nullable=False),
        sa.Column("previous_response_id", sa.Text(), nullable=True),
        sa.Column("conversation_id", sa.Text(), nullable=True),
        sa.Column("conversation_position", sa.BigInteger(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_hash", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("input", sa.LargeBinary(), nullable=False),
        sa.Column("output", sa.LargeBinary(), nullable=False),
        sa.Column("notes", sa.LargeBinary(), nullable=True),
        sa.Column("request", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("partition", "id"),
    )
    with op.batch_alter_table("afhost_responses", schema=None) as batch_op:
        batch_op.create_index("afhost_responses_age", ["is_deleted", "stored_at"], unique=False)
        batch_op.create_index(
            "afhost_responses_idempotency",
            ["partition", "idempotency_key"],
            unique=True,
            sqlite_where=sa.text("idempotency_key IS NOT NULL"),
            postgresql_where=sa.text("idempotency_key IS NOT NULL"),
        )
        batch_op.create_index(
            "afhost_responses_previous",
            ["partition", "previous_response_id"],
            unique=False,
            sqlite_where=sa.text("previous_response_id IS NOT NULL"),
            postgresql_where=sa.text("previous_response_id IS NOT NULL"),
        )
        batch_op.create_index(
            "afhost_responses_running",
            ["owner"],
            unique=False,
            sqlite_where=sa.text("status IN ('queued', 'in_progress')"),
            postgresql_where=sa.text("status IN ('queued', 'in_progress')"),
        )

    op.create_table(
        "afhost_settlements",
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("response_id", sa.Text(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("settled_by", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("partition", "response_id", "question"),
    )
    with op.batch_alter_table("afhost_settlements", schema=None) as batch_op:
        batch_op.create_index("afhost_settlements_by", ["partition", "settled_by"], unique=False)
        batch_op.create_index(
            "afhost_settlements_running",
            ["owner"],
            unique=False,
            sqlite_where=sa.text("owner IS NOT NULL"),
            postgresql_where=sa.text("owner IS NOT NULL"),
        )
