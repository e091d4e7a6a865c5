"""Responses whose process died: nobody may wait for their end for ever."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeAlias, runtime_checkable

from msgspec.structs import replace

from agent_framework_hosting.errors import StaleWrite, StoreUnavailable
from agent_framework_hosting.runs.base import RunKey, RunStatus

from .protocol.resources import lost_response
from .stores.base import ResponseStore

logger = logging.getLogger(__name__)

# Seconds after which a log that nobody writes to is looked at: the end of its run may have been stored, and never told.
_SILENCE: Final = 10.0

_AT_ONCE: Final = 10_000

Restart: TypeAlias = Callable[[RunKey], Awaitable[None]]
"""Does something about a lost run: has it executed by some process, at least once, or mends what is left of it."""


class OwnedResponses(ResponseStore, Protocol):
    """A store that outlives the processes whose runs are in it."""

    async def running_owners(self) -> set[str]:
        """Return the processes that have running responses or locked conversations."""
        ...

    async def running_of(self, owner: str, *, limit: int) -> Sequence[RunKey]:
        """Return at most `limit` running responses of the process."""
        ...

    async def hand_over(self, key: RunKey, *, owner: str, to: str) -> bool:
        """Make `to` responsible for a running response of `owner`; `False` if it is not the owner's any more."""
        ...


@runtime_checkable
class OwnedLogs(Protocol):
    """Logs that outlive the processes that write them."""

    async def silent(self, *, seconds: float, limit: int) -> Sequence[RunKey]:
        """Return open logs, at most `limit`, to which nobody has written for so long."""
        ...


class OwnedConversations(Protocol):
    """Conversations whose locks outlive the processes that took them."""

    async def release(self, owner: str) -> int:
        """Give back the locks of the process that no running stored response has; return how many."""
        ...


class Recovery:
    """Ends what dead processes left running: as `failed`, for nobody knows what their agents did (contract §5 point 8).

    `is_alone` says that no other process uses the stores: then every run that is found at the start is lost.
    """

    def __init__(
        self,
        responses: OwnedResponses,
        conversations: OwnedConversations,
        *,
        owner: str,
        logs: OwnedLogs | None = None,
        is_alone: bool = False,
    ) -> None:
        self._responses = responses
        self._conversations = conversations
        self._owner = owner
        self._logs = logs
        self._is_alone = is_alone
        self._restart: Restart | None = None
        self._mend: Restart | None = None
        self._forget: Restart | None = None

    def hand_to(self, *, restart: Restart, mend: Restart, forget: Restart) -> None:
        """Have background runs taken over by `restart`, which executes or ends them, and their logs by `mend`.

        `forget` is called for each run that is ended here.
        """
        self._restart = restart
        self._mend = mend
        self._forget = forget

    async def run(self, dead_owners: Callable[[set[str]], Awaitable[set[str]]], *, is_start: bool = False) -> int:
        """End the runs of every process that `dead_owners` returns among those asked for; return how many.

        `is_start` says that this process runs nothing yet: what is in its name is of an earlier start, and lost too.
        """
        ended = 0
        owners = await self._responses.running_owners()
        others = owners - {self._owner}
        dead = await dead_owners(others) if others else set[str]()
        for owner in dead | (owners - others if is_start else set()):
            # One look: what is handed over may still be found under the same name when it is this process's.
            for key in await self._responses.running_of(owner, limit=_AT_ONCE):
                ended += await _attempt(self._take_over(key, owner=owner), key)
            await self._conversations.release(owner)
        if self._logs is not None and self._mend is not None:
            # Whoever has just stored the end of a run is about to tell it.
            seconds = 0 if is_start and self._is_alone else _SILENCE
            for key in await self._logs.silent(seconds=seconds, limit=_AT_ONCE):
                await _attempt(self._mend(key), key)
        return ended

    async def _take_over(self, key: RunKey, *, owner: str) -> None:
        record = await self._responses.get(key)
        if self._restart is not None and record is not None and record.is_background:
            # Whoever starts it has it from now on: if this process dies too, the run is found again.
            # Of two processes that find it at once, one has it.
            if await self._responses.hand_over(key, owner=owner, to=self._owner):
                await self._restart(key)
        else:
            await self._end(key)

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
        if self._forget is not None:
            await self._forget(key)
        logger.warning("A response whose process died has been ended as failed", extra={"run_id": key.run_id})


async def _attempt(work: Awaitable[None], key: RunKey) -> bool:
    """Do the work and return whether it succeeded: one run that cannot be taken over must not keep the others waiting."""
    try:
        await work
    except StoreUnavailable:
        raise
    except Exception:
        logger.exception("A run could not be taken over, it is tried again", extra={"run_id": key.run_id})
        return False
    return True
