"""Responses that nobody can know before they end."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from agent_framework_hosting.errors import StaleWrite
from agent_framework_hosting.runs.base import Attempt, Participant, RunKey

from .base import IdempotencyKey, ResponseRecord, ResponseStore
from .context import Context


class HeldResponses:
    """Holds foreground one-shot responses in memory while they run, and writes each once into `stored`, when it ends.

    Their ids are told with the answer, so nobody misses them before, and a process that is killed leaves nothing half
    done. Only for ids that nobody can have taken: a taken one would show when the run is over.
    """

    def __init__(self, stored: ResponseStore) -> None:
        self._stored = stored
        self._running: dict[RunKey, tuple[ResponseRecord, Context | None]] = {}

    async def create(
        self,
        record: ResponseRecord,
        context: Context | None = None,
        participants: Sequence[Participant] = (),  # noqa: ARG002  nothing is written before the end
    ) -> ResponseRecord | None:
        """Hold a new response. See `ResponseStore.create`."""
        self._running[record.key] = (record, context)
        return None

    async def get(self, key: RunKey | IdempotencyKey) -> ResponseRecord | None:
        """Return a response that runs. See `ResponseStore.get`."""
        held = None if isinstance(key, IdempotencyKey) else self._running.get(key)
        return None if held is None else held[0]

    async def begin(self, key: RunKey, *, owner: str = "") -> Attempt | None:
        """Start the next attempt. See `ResponseStore.begin`."""
        held = self._running.get(key)
        if held is None:
            return None
        record, context = held
        attempt = Attempt(key, record.attempt + 1)
        self._running[key] = (replace(record, attempt=attempt.number, owner=owner), context)
        return attempt

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        """Replace the response by its next state; a terminal one is stored. See `ResponseStore.save`."""
        held = self._running.get(attempt.key)
        if held is None or held[0].attempt != attempt.number:
            raise StaleWrite("The response has ended, or a later attempt has begun.")
        record = replace(record, attempt=attempt.number, owner=held[0].owner)
        if not record.status.is_terminal:
            self._running[attempt.key] = (record, held[1])
            return
        # Taken out first: who begins another attempt while this is written must not write a second end.
        del self._running[attempt.key]
        try:
            await self._stored.create(record, held[1])
        except BaseException:
            self._running[attempt.key] = held
            raise

    async def delete(self, key: RunKey) -> bool:
        """Forget a response that runs. See `ResponseStore.delete`."""
        return self._running.pop(key, None) is not None

    async def context(self, key: RunKey) -> Context | None:
        """Return the context that ends with the response. See `ResponseStore.context`."""
        held = self._running.get(key)
        return None if held is None else held[0].context_after(held[1])
