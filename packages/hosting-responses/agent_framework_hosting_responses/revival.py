"""Runs that this process has not started: accepted by another one, or lost by one that died.

Whoever revives a run begins its next attempt, in the store and in the log, so that nobody who still believes to have it
can write; then it reads what was told, and goes on from there: with the run, or with its end.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from agent_framework_hosting.context import ChannelContext
from agent_framework_hosting.errors import StaleWrite, StoreUnavailable, TargetError
from agent_framework_hosting.isolation import IsolationKeys
from agent_framework_hosting.runs.base import Attempt, RunKey, RunStatus
from agent_framework_hosting.targets.base import Resumable, Resumption, abandon, can_resume
from agent_framework_hosting.targets.served import ServedTarget

from .history import History
from .portable import PortableRequest, on_behalf
from .protocol.epilogue import epilogue
from .protocol.ids import new_id
from .protocol.replay import Replay, replay
from .protocol.request import parse_request
from .settings import ResponsesSettings
from .stores.base import ResponseRecord, ResponseStore
from .turn import Turn
from .turns import TurnBuilder

logger = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 3
"""How often a run is tried at most from its start, and from each checkpoint."""

_LOST: Final = "The server stopped while the response was generated."
_UNSERVED: Final = "The model of the response is not served any more."
_UNFIT: Final = "The request can no longer be run."


class Revival:
    """Makes turns of stored responses. See `agent_framework_hosting_responses.runs.Reviver`."""

    def __init__(
        self,
        context: ChannelContext,
        *,
        responses: ResponseStore,
        history: History,
        turns: TurnBuilder,
        settings: ResponsesSettings,
    ) -> None:
        self._context = context
        self._responses = responses
        self._history = history
        self._turns = turns
        self._settings = settings

    def may_repeat(self, record: ResponseRecord) -> bool:
        """Whether a run of the response that was begun may be begun again."""
        served = self._context.targets.stored(record.target)
        if served is None:
            return False
        rule = self._settings.rule_for_lost(served.name)
        goes_on = rule == "retry" or (rule == "resume" and can_resume(served.target))
        return goes_on and record.request is not None and record.is_background

    async def turn(self, key: RunKey) -> Turn | None:
        """Begin the next attempt of a run and return its turn, ended already if it must not be run.

        `None` if there is nothing to do.

        Raises:
            StaleWrite: another process has taken the run over meanwhile.
        """
        taken = await self._take(key)
        if taken is None:
            return None
        record, attempt, told = taken
        served = self._context.targets.stored(record.target)
        if served is None:
            logger.error("The target of a run is not served", extra={"run_id": key.run_id, "target": record.target})
            turn = self._failed(record, told, _UNSERVED)
        else:
            turn = await self._revived(record, attempt, served, told)
        turn.attempt = attempt
        return turn

    async def _revived(self, record: ResponseRecord, attempt: Attempt, served: ServedTarget, told: Replay) -> Turn:
        try:
            resumption = await self._resumption(record, attempt, served)
        except TargetError:
            # Nobody can tell what was executed, so nothing may be executed again.
            logger.exception("A lost run cannot be resumed any more", extra={"run_id": record.key.run_id})
            return self._failed(record, told, _LOST)
        if record.request is None or not self._may_run(record, attempt, served, told, resumption):
            logger.warning("A lost run has been ended as failed", extra={"run_id": record.key.run_id})
            return self._failed(record, told, _LOST)
        return await self._rebuilt(record, record.request, served, told, resumption)

    async def ended(self, key: RunKey) -> Turn | None:
        """Take a run away from whoever has it, and return what is enough to end it; `None` if it has ended.

        Raises:
            StaleWrite: another process has taken the run over meanwhile.
        """
        taken = await self._take(key)
        if taken is None:
            return None
        record, attempt, told = taken
        turn = self._turns.remnant(record, isolation=IsolationKeys(), told=told)
        turn.attempt = attempt
        return turn

    async def mend(self, key: RunKey) -> None:
        """End the log of a run that has ended without it, and drop that of a response which is gone."""
        log = self._context.durable_log
        record = await self._responses.get(key)
        if record is None:
            await log.drop(key)
        elif record.status.is_terminal:
            attempt = Attempt(key, record.attempt)
            served = self._context.targets.stored(record.target)
            if served is not None and record.status in {RunStatus.FAILED, RunStatus.CANCELLED}:
                await abandon(served.target, key.partition, key.run_id)
            try:
                told = await self._fence(attempt)
                await log.append(attempt, () if told.is_terminal else epilogue(told, record.body), closes=True)
            except StaleWrite:  # whoever stored the end, or another process that mends, has told it meanwhile
                return
            logger.warning("The log of a run that had ended has been ended too", extra={"run_id": key.run_id})

    async def _resumption(self, record: ResponseRecord, attempt: Attempt, served: ServedTarget) -> Resumption | None:
        target = served.target
        if attempt.number == 1 or not self.may_repeat(record) or not isinstance(target, Resumable):
            return None
        return await target.resumption(record.key.partition, record.key.run_id)

    def _may_run(
        self,
        record: ResponseRecord,
        attempt: Attempt,
        served: ServedTarget,
        told: Replay,
        resumption: Resumption | None,
    ) -> bool:
        if attempt.number == 1:
            return True
        first = 1 if resumption is None else resumption.attempt
        if not self.may_repeat(record) or attempt.number - first >= MAX_ATTEMPTS or not told.can_complete:
            return False
        # Who stores checkpoints stores one before anything is executed. What has said something had one, and it is gone.
        return resumption is not None or not told.items or self._settings.rule_for_lost(served.name) == "retry"

    async def _take(self, key: RunKey) -> tuple[ResponseRecord, Attempt, Replay] | None:
        attempt = await self._responses.begin(key, owner=self._context.owner)
        record = await self._responses.get(key)
        if attempt is None or record is None:
            return None
        told = await self._fence(attempt)
        if told.is_terminal:  # this process stood still before it read what was told
            raise StaleWrite("Another attempt has ended the run.")
        return record, attempt, told

    async def _fence(self, attempt: Attempt) -> Replay:
        # First the fence: what an earlier attempt tells after this would get the numbers of this one.
        await self._context.durable_log.append(attempt, ())
        return replay(await self._context.durable_log.entries(attempt.key))

    async def _rebuilt(
        self, record: ResponseRecord, stored: bytes, served: ServedTarget, told: Replay, resumption: Resumption | None
    ) -> Turn:
        portable = PortableRequest.decode(stored)
        with on_behalf(portable.isolation, portable.trace):
            try:
                request = parse_request(
                    portable.body,
                    strict=self._settings.strict_fields,
                    hosted_tools=self._settings.hosted_tools,
                    new_id=new_id,
                )
                if resumption is None:
                    continuation = await self._history.resolve(request, record.key.partition, served)
                else:
                    continuation = await self._history.resume(request, record, served)
                turn = await self._turns.rebuild(
                    record,
                    request,
                    # The items as they were stored: their ids have been told.
                    replace(continuation, input=record.input),
                    target=served,
                    isolation=portable.isolation,
                    told=told,
                    resumption=resumption,
                )
            except StoreUnavailable:
                raise
            except Exception:  # the boundary of the run: a hook, or a session that cannot be read
                # It was accepted once: what it continues has been deleted, or this process serves another target.
                logger.exception("A stored request cannot be run any more", extra={"run_id": record.key.run_id})
                return self._failed(record, told, _UNFIT)
            turn.trace = portable.trace
            return turn

    def _failed(self, record: ResponseRecord, told: Replay, message: str) -> Turn:
        turn = self._turns.remnant(record, isolation=IsolationKeys(), told=told)
        turn.untold += turn.encoder.fail(message=message)
        return turn
