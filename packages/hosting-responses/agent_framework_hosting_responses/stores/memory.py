"""Responses in the memory of one process, bounded by count and age."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from agent_framework_hosting.errors import AlreadyExists, StaleWrite
from agent_framework_hosting.runs.base import Attempt, RunKey
from agent_framework_hosting.stores.memory import BoundedDict

from .base import ResponseRecord


class MemoryResponseStore:
    """At most `max_entries` responses, each for at most `max_age` seconds after it was last written."""

    def __init__(
        self, *, max_entries: int = 10_000, max_age: float = 86_400.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._records: BoundedDict[RunKey, ResponseRecord] = BoundedDict(
            max_entries=max_entries, max_age=max_age, clock=clock
        )

    async def create(self, record: ResponseRecord) -> None:
        """Store a new response. See `ResponseStore.create`."""
        if self._records.get(record.key) is not None:
            raise AlreadyExists("A response with this id exists.")
        self._records.set(record.key, record)

    async def get(self, key: RunKey) -> ResponseRecord | None:
        """Return the response. See `ResponseStore.get`."""
        return self._records.get(key)

    async def begin(self, key: RunKey) -> Attempt | None:
        """Start the next attempt. See `ResponseStore.begin`."""
        record = self._records.get(key)
        if record is None or record.status.is_terminal:
            return None
        attempt = Attempt(key, record.attempt + 1)
        self._records.set(key, replace(record, attempt=attempt.number))
        return attempt

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        """Replace the response by its next state. See `ResponseStore.save`."""
        current = self._records.get(attempt.key)
        if current is None or current.status.is_terminal or current.attempt != attempt.number:
            raise StaleWrite("The response is terminal or gone, or a later attempt has begun.")
        self._records.set(attempt.key, replace(record, attempt=attempt.number))

    async def delete(self, key: RunKey) -> bool:
        """Forget the response. See `ResponseStore.delete`."""
        return self._records.pop(key) is not None
