"""Responses in the memory of one process, bounded by count and age."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec.structs import replace

from agent_framework_hosting.errors import AlreadyExists, StaleWrite
from agent_framework_hosting.runs.base import Attempt, RunKey
from agent_framework_hosting.stores.memory import BoundedDict

from .base import ResponseRecord


class MemoryResponseStore:
    """Running responses, and at most `max_entries` terminal ones, each for at most `max_age` seconds after its end.

    A response that runs is never forgotten: its run could not be finished and its readers would wait for ever.
    """

    def __init__(
        self, *, max_entries: int = 10_000, max_age: float = 30 * 86_400.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._running: dict[RunKey, ResponseRecord] = {}
        self._terminal: BoundedDict[RunKey, ResponseRecord] = BoundedDict(
            max_entries=max_entries, max_age=max_age, clock=clock
        )

    def __len__(self) -> int:
        return len(self._running) + len(self._terminal)

    async def create(self, record: ResponseRecord) -> None:
        """Store a new response. See `ResponseStore.create`."""
        if self._find(record.key) is not None:
            raise AlreadyExists("A response with this id exists.")
        self._put(record)

    async def get(self, key: RunKey) -> ResponseRecord | None:
        """Return the response. See `ResponseStore.get`."""
        return self._find(key)

    async def begin(self, key: RunKey) -> Attempt | None:
        """Start the next attempt. See `ResponseStore.begin`."""
        record = self._running.get(key)
        if record is None:
            return None
        attempt = Attempt(key, record.attempt + 1)
        self._running[key] = replace(record, attempt=attempt.number)
        return attempt

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        """Replace the response by its next state. See `ResponseStore.save`."""
        current = self._running.get(attempt.key)
        if current is None or current.attempt != attempt.number:
            raise StaleWrite("The response is terminal or gone, or a later attempt has begun.")
        self._put(replace(record, attempt=attempt.number))

    async def delete(self, key: RunKey) -> bool:
        """Forget the response. See `ResponseStore.delete`."""
        running = self._running.pop(key, None)
        terminal = self._terminal.pop(key)
        return running is not None or terminal is not None

    def _find(self, key: RunKey) -> ResponseRecord | None:
        return self._running.get(key) or self._terminal.get(key)

    def _put(self, record: ResponseRecord) -> None:
        if record.status.is_terminal:
            self._running.pop(record.key, None)
            self._terminal.set(record.key, record)
        else:
            self._running[record.key] = record
