"""Responses whose process died: nobody may wait for their end for ever."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from agent_framework_hosting.errors import StaleWrite
from agent_framework_hosting.runs.base import RunKey, RunStatus

from .protocol.resources import lost_response
from .stores.base import ResponseStore

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 100


class OwnedResponses(ResponseStore, Protocol):
    """A store that outlives the processes whose runs are in it."""

    async def running_owners(self) -> set[str]:
        """Return the processes that have running responses or locked conversations."""
        ...

    async def running_of(self, owner: str, *, limit: int) -> Sequence[RunKey]:
        """Return at most `limit` running responses of the process."""
        ...


class OwnedConversations(Protocol):
    """Conversations whose locks outlive the processes that took them."""

    async def release(self, owner: str) -> int:
        """Give back the locks of the process that no running stored response has; return how many."""
        ...


class Recovery:
    """Ends what dead processes left running: as `failed`, for nobody knows what their agents did (contract §5 point 8)."""

    def __init__(self, responses: OwnedResponses, conversations: OwnedConversations, *, owner: str) -> None:
        self._responses = responses
        self._conversations = conversations
        self._owner = owner

    async def run(self, dead_owners: Callable[[set[str]], Awaitable[set[str]]], *, is_start: bool = False) -> int:
        """End the runs of every process that `dead_owners` returns among those asked for; return how many.

        `is_start` says that this process runs nothing yet: what is in its name is of an earlier start, and lost too.
        """
        ended = 0
        owners = await self._responses.running_owners()
        others = owners - {self._owner}
        dead = await dead_owners(others) if others else set[str]()
        for owner in dead | (owners - others if is_start else set()):
            while keys := await self._responses.running_of(owner, limit=_AT_ONCE):
                for key in keys:
                    await self._end(key)
                    ended += 1
            await self._conversations.release(owner)
        return ended

    async def _end(self, key: RunKey) -> None:
        attempt = await self._responses.begin(key, owner=self._owner)
        record = await self._responses.get(key)
        if attempt is None or record is None:  # somebody else was faster
            return
        lost = replace(record, status=RunStatus.FAILED, body=lost_response(record.body), output=())
        try:
            await self._responses.save(attempt, lost)
        except StaleWrite:  # another process recovers too
            return
        logger.warning("A response whose process died has been ended as failed", extra={"run_id": key.run_id})
