"""Responses whose process died: nobody may wait for their end for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol, runtime_checkable

from msgspec.structs import replace

from agent_framework_hosting.errors import StaleWrite, StoreUnavailable
from agent_framework_hosting.runs.base import Attempt, RunKey, RunStatus

from .protocol.resources import lost_response
from .stores.base import OwnedRun, ResponseRecord, ResponseStore

logger = logging.getLogger(__name__)

# Seconds after which a log that nobody writes to is looked at: the end of its run may have been stored, and never told.
_SILENCE: Final = 10.0

_AT_ONCE: Final = 10_000

MISSING_AFTER: Final = 30.0
"""Seconds after its creation from which on a running response must be executed, or wait for it."""

MOST_ATTEMPTS: Final = 50
"""How often a run may be begun, at the most, that always gets lost: then it is ended without anything that may fail."""


class Runner(Protocol):
    """Executes the responses of this process."""

    async def restart(self, key: RunKey) -> None:
        """Have a background run executed by some process, at least once, or ended if it must not be repeated."""
        ...

    async def mend(self, key: RunKey) -> None:
        """End the log of a response that has ended without it, or is gone."""
        ...

    async def forget(self, record: ResponseRecord) -> None:
        """Have the target erase what it keeps of a run that has failed or was cancelled."""
        ...

    async def missing(self, keys: Iterable[RunKey], *, is_background: bool) -> set[RunKey]:
        """Return those of the runs that no process executes or will execute, unless they are started again."""
        ...

    def begun(self, store: ResponseStore) -> set[Attempt]:
        """Return what this process executes of the responses in `store`."""
        ...

    def lose(self, attempt: Attempt) -> None:
        """Stop the agent of an attempt that is not the current one any more; nothing of it is written."""
        ...


class OwnedResponses(ResponseStore, Protocol):
    """A store that outlives the processes whose runs are in it."""

    async def running_owners(self) -> set[str]:
        """Return the processes that have running responses, locked conversations or answers that are not stored."""
        ...

    async def running_of(self, owner: str, *, limit: int) -> Sequence[OwnedRun]:
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


class OwnedSettlements(Protocol):
    """Answered questions that outlive the processes that have answered."""

    async def release(self, owner: str) -> int:
        """Open again what the process was about to answer with responses that are not stored; return how many questions."""
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
        settlements: OwnedSettlements | None = None,
        is_alone: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._responses = responses
        self._conversations = conversations
        self._owner = owner
        self._logs = logs
        self._settlements = settlements
        self._is_alone = is_alone
        self._clock = clock
        self._runner: Runner | None = None

    def hand_to(self, runner: Runner) -> None:
        """Have background runs executed or ended by `runner`, and what this process executes looked after, too."""
        self._runner = runner

    def lose(self) -> None:
        """Stop everything that other processes may take over: they have not heard of this one for too long."""
        if self._runner is not None:
            for attempt in self._runner.begun(self._responses):
                self._runner.lose(attempt)

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
            for run in await self._responses.running_of(owner, limit=_AT_ONCE):
                ended += await _attempt(self._take_over(run, owner=owner), run.key)
            await self._conversations.release(owner)
            if self._settlements is not None:
                await self._settlements.release(owner)
        if self._runner is not None:
            await self._look_after_own(self._runner)
            # Whoever has just stored the end of a run is about to tell it.
            await self._mend(self._runner, silence=0 if is_start and self._is_alone else _SILENCE)
        return ended

    async def _look_after_own(self, runner: Runner) -> None:
        # In this order: whatever has been begun by now is in the name of this process, until somebody takes it over.
        here = runner.begun(self._responses)
        own = await self._responses.running_of(self._owner, limit=_AT_ONCE)
        if len(own) < _AT_ONCE:  # all of them: what else is executed here is another's by now
            for attempt in here - {run.attempt for run in own}:
                runner.lose(attempt)
        await self._start_missing(runner, own)

    async def _start_missing(self, runner: Runner, own: Sequence[OwnedRun]) -> None:
        """Start what is in this process's name and executed nowhere, or end it."""
        before = self._clock() - MISSING_AFTER
        old = {run.key: run for run in own if run.created_at < before}
        for is_background in (True, False):
            asked = [key for key, run in old.items() if run.is_background is is_background]
            for key in await runner.missing(asked, is_background=is_background) if asked else ():
                logger.warning("A run was executed nowhere", extra={"run_id": key.run_id})
                may_restart = is_background and old[key].attempt.number < MOST_ATTEMPTS
                await _attempt(runner.restart(key) if may_restart else self._end(key), key)

    async def _mend(self, runner: Runner, *, silence: float) -> None:
        """End the logs, silent for so many seconds, of runs that have ended without them."""
        if self._logs is not None:
            for key in await self._logs.silent(seconds=silence, limit=_AT_ONCE):
                await _attempt(runner.mend(key), key)

    async def _take_over(self, run: OwnedRun, *, owner: str) -> None:
        if self._runner is not None and run.is_background:
            # Whoever starts it has it from now on: if this process dies too, the run is found again.
            # Of two processes that find it at once, one has it.
            if await self._responses.hand_over(run.key, owner=owner, to=self._owner):
                await self._runner.restart(run.key)
        else:
            await self._end(run.key)

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
        if self._runner is not None:
            await self._runner.forget(record)
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
