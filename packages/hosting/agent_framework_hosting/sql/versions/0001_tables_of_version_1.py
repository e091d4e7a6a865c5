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
        "afhost_checkpoints",
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("checkpoint_id", sa.Text(), nullable=False),
        sa.Column("workflow_name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("checkpoint", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("partition", "chain", "checkpoint_id"),
    )
    with op.batch_alter_table("afhost_checkpoints", schema=None) as batch_op:
        batch_op.create_index("afhost_checkpoints_age", ["stored_at"], unique=False)
        batch_op.create_index("afhost_checkpoints_order", ["partition", "chain", "position"], unique=False)

    op.create_table(
        "afhost_processes",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("owner"),
    )
    op.create_table(
        "afhost_run_events",
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("partition", "run_id", "position"),
    )
    op.create_table(
        "afhost_run_logs",
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("next_position", sa.Integer(), nullable=False),
        sa.Column("closed_at", sa.Float(), nullable=True),
        sa.Column("stored_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("partition", "run_id"),
    )
    with op.batch_alter_table("afhost_run_logs", schema=None) as batch_op:
        batch_op.create_index("afhost_run_logs_age", ["closed_at"], unique=False)

    op.create_table(
        "afhost_sessions",
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("base_key", sa.Text(), nullable=True),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("rest", sa.LargeBinary(), nullable=True),
        sa.Column("lists", sa.LargeBinary(), nullable=False),
        sa.Column("is_claimed", sa.Boolean(), nullable=False),
        sa.Column("is_deleted", sa.Boolean(), nullable=False),
        sa.Column("stored_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("partition", "key"),
    )
    with op.batch_alter_table("afhost_sessions", schema=None) as batch_op:
        batch_op.create_index("afhost_sessions_age", ["is_deleted", "stored_at"], unique=False)
        batch_op.create_index("afhost_sessions_base", ["partition", "base_key"], unique=False)
