"""Stored runs as an operator sees them: what packages tell of theirs to commands that run beside the host.

Packages name what makes their `StoredRuns` over a database in the entry point group `agent_framework_hosting.runs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Protocol, cast

from ..isolation import Partition
from .base import RunId, RunKey, RunStatus

if TYPE_CHECKING:
    from ..context import ChannelContext
    from ..sql.database import Database

RUNS: Final = "agent_framework_hosting.runs"
"""Entry point group in which packages name a function that makes their `StoredRuns` over a database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run in the database, and nothing that a user or a model has said in it.

    `owner` names the process that is responsible for it, `changed_at` is when it got its status; times are Unix seconds.
    `target` is the name of what runs, empty if the host had but one. `error` is what its caller was told of a failure.
    """

    key: RunKey
    status: RunStatus
    attempt: int
    owner: str
    target: str = ""
    is_background: bool
    created_at: float
    changed_at: float
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs are asked for: what is `None` does not matter. `created_before` is in Unix seconds."""

    statuses: frozenset[RunStatus] | None = None
    created_before: float | None = None
    partition: Partition | None = None
    run_id: RunId | None = None
    limit: int


class StoredRuns(Protocol):
    """The runs of one package in a database.

    Raises:
        StoreUnavailable: from every method, when the database cannot be reached.
    """

    async def find(self, query: RunQuery) -> Sequence[StoredRun]:
        """Return the runs that the query asks for; those whose status is the youngest come first."""
        ...

    async def cancel(self, key: RunKey, context: ChannelContext) -> None:
        """Stop a background run, wherever it is, and see to it that it is terminal afterwards.

        `context` is that of a host on the same database that executes nothing.
        """
        ...

    async def release(self, run: StoredRun) -> bool:
        """Take a run away from its owner: the next process that looks after the lost ones takes it over.

        `False` if it is not the owner's any more, or has ended.
        """
        ...


def installed_runs(database: Database) -> list[StoredRuns]:
    """Return what the installed packages tell of the runs in a database, in the order of their names."""
    found = sorted(entry_points(group=RUNS), key=lambda entry_point: entry_point.name)
    return [cast("Callable[[Database], StoredRuns]", entry_point.load())(database) for entry_point in found]
