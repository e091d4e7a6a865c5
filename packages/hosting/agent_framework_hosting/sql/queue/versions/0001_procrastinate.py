"""Procrastinate's schema, and one waiting or running job for each run."""

from __future__ import annotations

from alembic import op

from agent_framework_hosting.sql.queue.part import bring_up_to_date

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade the schema."""
    bring_up_to_date(op.get_bind())
    # Procrastinate sees to it that no two jobs with the same lock wait. A run that is running must not be queued again
    # either: its second job would take the run away from the first.
    op.execute(
        "CREATE UNIQUE INDEX afhost_jobs_run ON procrastinate_jobs (queueing_lock) "
        "WHERE task_name = 'afhost.run' AND status IN ('todo', 'doing')"
    )
