"""The tables of the host. The migrations in `versions/` must make exactly these."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

sessions = sa.Table(
    "afhost_sessions",
    metadata,
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    # The row this one is relative to, in the same partition; NULL for a whole snapshot.
    sa.Column("base_key", sa.Text),
    # Another one after every write of the key: what a process remembers of the row is true as long as it is the same.
    sa.Column("version", sa.Text, nullable=False),
    # What restoring reads: the bytes of this row and of all below it, and a constant for each.
    sa.Column("cost", sa.BigInteger, nullable=False),
    # The session without its lists, as JSON; NULL when it is that of the base.
    sa.Column("rest", sa.LargeBinary),
    # `{path: [kept, [element, …]]}` as JSON: what becomes of each list of the base; `null` for one that is gone.
    sa.Column("lists", sa.LargeBinary, nullable=False),
    sa.Column("is_claimed", sa.Boolean, nullable=False),
    # A tombstone: gone for readers, kept for the rows based on it, under a key that nobody asks for.
    sa.Column("is_deleted", sa.Boolean, nullable=False),
    sa.Column("stored_at", sa.Float, nullable=False),
    sa.Index("afhost_sessions_base", "partition", "base_key"),
    sa.Index("afhost_sessions_age", "is_deleted", "stored_at"),
)

checkpoints = sa.Table(
    "afhost_checkpoints",
    metadata,
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("chain", sa.Text, primary_key=True),
    sa.Column("checkpoint_id", sa.Text, primary_key=True),
    sa.Column("workflow_name", sa.Text, nullable=False),
    # The order of saving inside the chain.
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("checkpoint", sa.LargeBinary, nullable=False),
    sa.Column("stored_at", sa.Float, nullable=False),
    sa.Index("afhost_checkpoints_order", "partition", "chain", "position"),
    sa.Index("afhost_checkpoints_age", "stored_at"),
)

processes = sa.Table(
    "afhost_processes",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    # Seconds of the database's clock on PostgreSQL: processes compare their own entries with it.
    sa.Column("seen_at", sa.Float, nullable=False),
)

run_logs = sa.Table(
    "afhost_run_logs",
    metadata,
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, primary_key=True),
    # The fence: the highest attempt that has written; lower ones write nothing any more.
    sa.Column("attempt", sa.Integer, nullable=False),
    # The number of events: positions are dense from 0.
    sa.Column("next_position", sa.Integer, nullable=False),
    # When the last event was written; NULL while there may be more.
    sa.Column("closed_at", sa.Float),
    sa.Column("stored_at", sa.Float, nullable=False),
    # Not by `stored_at`: it changes with every batch, and PostgreSQL updates rows in place if no index has to change.
    sa.Index("afhost_run_logs_age", "closed_at"),
)

run_events = sa.Table(
    "afhost_run_events",
    metadata,
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
