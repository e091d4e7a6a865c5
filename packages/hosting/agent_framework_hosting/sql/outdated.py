"""Which rows of a table its retention no longer covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ..stores.base import Retention


@dataclass(frozen=True, slots=True)
class Outdated:
    """Finds the rows that may go.

    `oldest` selects all rows that may ever go, the oldest first, and `count` how many rows there are. `stored_at` is the
    column with their age (Unix seconds).
    """

    oldest: sa.Select[*tuple[Any, ...]]
    count: sa.Select[int]
    stored_at: sa.ColumnElement[float]

    def find(self, connection: sa.Connection, retention: Retention, *, now: float, limit: int) -> Sequence[Any]:
        """Return the oldest rows that are too old or too many, at most `limit`, as `oldest` selects them.

        Nothing is locked: whoever erases them makes sure that they are still the same. Of processes that prune at once
        all find the same rows, so that together they do not erase more than is too much.
        """
        rows: Sequence[Any] = ()
        if retention.max_age is not None:
            is_too_old = self.stored_at < now - retention.max_age
            rows = connection.execute(self.oldest.where(is_too_old).limit(limit)).all()
        if retention.max_entries is not None:
            surplus = min(limit, connection.execute(self.count).scalar_one() - retention.max_entries)
            # Both are the oldest ones.
            if surplus > len(rows):
                rows = connection.execute(self.oldest.limit(surplus)).all()
        return rows
