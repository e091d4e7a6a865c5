"""Runs of responses: the one path from a target's updates to stored state and encoded events.

    target.stream ─ encoder.feed ─ store ─ log.append

Every mode uses it. A state is stored before the event that announces it can be read; exactly one terminal event is
appended, and it closes the log; nothing is written by an attempt that is no longer the current one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from agent_framework import AgentResponse
from msgspec import to_builtins
from msgspec.structs import replace

from agent_framework_hosting.context import ChannelContext, HostedStream
from agent_framework_hosting.errors import LeaseLost, StaleWrite, StoreError, StoreUnavailable
from agent_framework_hosting.hooks import (
    ChannelResponseHook,
    ChannelStreamUpdateHook,
    apply_response_hook,
)
from agent_framework_hosting.runs.base import Attempt, LogEntry, RunKey, RunStatus
from agent_framework_hosting.targets.base import Asking, HostedRun, abandon
from agent_framework_hosting.types import HostedRunResult

from .portable import on_behalf
from .stores.base import ResponseRecord, ResponseStore, Settlements
from .stores.context import response_session_key
from .turn import Turn

logger = logging.getLogger(__name__)

# An agent that never suspends would keep its readers from being served; longer than this it must not hold the loop.
_LONGEST_HOLD = 0.001

_OVER_TIME = "The run exceeded its time limit."
_SHUT_DOWN = "The server was shut down before the run ended."


class Reviver(Protocol):
    """Makes turns of responses that this process has not started."""

    def may_repeat(self, record: ResponseRecord) -> bool:
        """Whether a run of the response that was begun may be begun again."""
        ...

    async def turn(self, key: RunKey) -> Turn | None:
        """Begin the next attempt of a run and return its turn, ended already if it must not be run; else `None`.

        Raises:
            StaleWrite: another process has taken the run over meanwhile.
        """
        ...

    async def ended(self, key: RunKey) -> Turn | None:
        """Take a run away from whoever has it, and return what is enough to end it; `None` if it has ended.

        Raises:
            StaleWrite: another process has taken the run over meanwhile.
        """
        ...

    async def mend(self, key: RunKey) -> None:
        """End the log of a response that has ended without it, or is gone."""
        ...


class ResponseRuns:
    """Executes turns. `operation` names them in the engine.

    `run_timeout` and `cancel_grace` are in seconds: what a run may take (`None` for no limit), and how long after its
    cancellation it keeps the right to write.
    """

    def __init__(
        self,
        context: ChannelContext,
        *,
        operation: str,
        run_timeout: float | None,
        cancel_grace: float,
        response_hook: ChannelResponseHook | None,
        stream_update_hook: ChannelStreamUpdateHook | None,
        revival: Reviver,
        settlements: Settlements,
    ) -> None:
        self._context = context
        self._operation = operation
        self._run_timeout = run_timeout
        self._cancel_grace = cancel_grace
        self._response_hook = response_hook
        self._update_hook = stream_update_hook
        self._revival = revival
        self._settlements = settlements
        self._turns: dict[RunKey, Turn] = {}
        context.engine.register(operation, self._execute)
        if context.durable_engine is not context.engine:
            context.durable_engine.register(operation, self._execute)

    def find(self, key: RunKey) -> Turn | None:
        """Return the turn if it runs in this process."""
        return self._turns.get(key)

    async def start(self, turn: Turn) -> ResponseRecord | None:
        """Have the turn executed; its record is stored and its opening events can be read when this returns.

        Returns the response that has the same idempotency key already, and starts nothing then.

        Raises:
            AlreadyExists: the response id is taken.
            UnknownConversation: the conversation is gone.
            ConversationLocked: another response runs in the conversation.
            AnsweredAlready: another response has answered what this one answers.
            RunError: the host is shutting down.
        """
        # Whoever executes a run of a shared engine, perhaps this process, finds it in the store. All others are here before
        # they are there, so that a request which repeats this one finds both.
        # Never in the place of another turn: its id may be taken, which the store says.
        if not turn.engine.is_shared:
            self._turns.setdefault(turn.key, turn)
        opening = turn.encoder.open()
        if not turn.record.is_background:  # never queued
            turn.attempt = Attempt(turn.key, turn.record.attempt)
            opening += turn.encoder.start()
        settling = self._settlements.settling(turn.settles, by=turn.key, owner=turn.only_owner)
        participants = [
            # First: whoever may not answer must not run.
            *([settling] if turn.settles else ()),
            turn.log.opening(turn.key, opening),
            turn.engine.starting(self._operation, turn.key),
        ]
        try:
            existing = await turn.store.create(turn.record, turn.context, participants)
        except (asyncio.CancelledError, StoreUnavailable):
            await _uninterrupted(self._take_back(turn))
            raise
        except BaseException:
            self._leave_out(turn)
            raise
        if existing is not None:
            self._leave_out(turn)
            return existing
        try:
            for participant in participants:
                await participant.finish()
        except StaleWrite:
            # This process stood still meanwhile: it was taken for dead, and whoever has the run now tells all of it.
            logger.warning("A run was taken over while it was accepted", extra={"run_id": turn.key.run_id})
            self._leave_out(turn)
        except BaseException:
            self._leave_out(turn)
            await turn.log.drop(turn.key)
            await turn.store.delete(turn.key)
            await self._reopen(turn.key)
            raise
        turn.opened.set()
        return None

    async def _take_back(self, turn: Turn) -> None:
        """Erase what may be stored of a turn all the same: nobody would execute it. What a shared engine has, it executes."""
        try:
            if self._turns.get(turn.key) is not turn:
                return
            record = await turn.store.get(turn.key)
            # The id may have been taken, by what has ended or runs in another process.
            if record is not None and not record.status.is_terminal and record.owner == turn.record.owner:
                await turn.log.drop(turn.key)
                await turn.store.delete(turn.key)
                await self._reopen(turn.key)
        except StoreUnavailable:
            logger.exception("What is stored of a refused request was left", extra={"run_id": turn.key.run_id})
        finally:
            self._leave_out(turn)

    def _leave_out(self, turn: Turn) -> None:
        if self._turns.get(turn.key) is turn:
            del self._turns[turn.key]
        turn.opened.set()

    async def cancel(self, key: RunKey) -> None:
        """Stop the run, if this process has it, and see to it that its response is terminal afterwards."""
        turn = self._turns.get(key)
        if turn is None:
            return
        # What is cancelled without this is stopped by the host: nobody asked for it, so it failed (contract §2.2).
        turn.is_given_up = True
        await turn.engine.cancel(key, grace=self._cancel_grace)
        # If the task never got to its first line, or ignores its cancellation.
        await self._take_over(turn, turn.encoder.cancel)

    async def restart(self, key: RunKey) -> None:
        """Have a background run that its process has lost executed, or ended if it must not be repeated."""
        await self._context.durable_engine.start(self._operation, key)

    async def mend(self, key: RunKey) -> None:
        """End the log of a response that has ended without it, or is gone."""
        await self._revival.mend(key)

    async def forget(self, record: ResponseRecord) -> None:
        """Have the target erase what it keeps of a run that has failed or was cancelled, and wait for answers again.

        A target that does not wait is an agent, and what was approved is a tool, which may have run.
        """
        served = self._context.targets.stored(record.target)
        if served is None:  # what it keeps is left to its own retention
            return
        if isinstance(served.target, Asking):
            await self._reopen(record.key)
        await abandon(served.target, record.key.partition, record.key.run_id)

    async def _reopen(self, key: RunKey) -> None:
        try:
            await self._settlements.reopen(key)
        except StoreError:
            # A store that is shared sees by itself that the response has failed.
            logger.exception("The questions that a run had answered could not be opened again")

    async def missing(self, keys: Iterable[RunKey], *, is_background: bool) -> set[RunKey]:
        """Return those of the runs that no process executes or will execute, unless they are started again."""
        return await (self._context.durable_engine if is_background else self._context.engine).missing(keys)

    def begun(self, store: ResponseStore) -> set[Attempt]:
        """Return what this process executes of the responses in `store`."""
        # Without a task it may not be in the store yet.
        turns = [turn for turn in self._turns.values() if turn.store is store and turn.task is not None]
        return {turn.attempt for turn in turns if turn.attempt is not None}

    def lose(self, attempt: Attempt) -> None:
        """Stop the agent of an attempt that is not the current one any more; nothing of it is written.

        What is just being ended is left alone: the store will not have it.
        """
        turn = self._turns.get(attempt.key)
        if turn is None or turn.task is None or turn.attempt != attempt or turn.encoder.is_terminal:
            return
        # From here on whoever asks for the run here is answered as if it had never been.
        del self._turns[attempt.key]
        turn.is_lost, turn.attempt = True, None
        turn.task.cancel()

    async def cancel_anywhere(self, key: RunKey) -> None:
        """Stop a background run, whichever process has it, and see to it that its response is terminal afterwards."""
        if key in self._turns:
            await self.cancel(key)
            return
        # Not the store first: whoever is just about to begin the run would take it for lost, and end it as failed.
        await self._context.durable_engine.cancel(key, grace=self._cancel_grace)
        # It may be begun by another process at the same moment, but not again and again.
        for pause in (0.1, 0.2, 0.4, 0.8, 1.6):
            with contextlib.suppress(StaleWrite, LeaseLost):  # begun by somebody else meanwhile
                turn = await self._revival.ended(key)
                if turn is None or turn.attempt is None:
                    return
                turn.untold += turn.encoder.cancel()
                async with turn.ending:
                    await self._write_end(turn, turn.attempt)
                return
            # Of several who cancel, whoever began last can end the run, if the others leave it the time.
            await asyncio.sleep(pause)

    async def settle(self, key: RunKey) -> None:
        """Wait until an end that is stored already has been told, if this process has the run."""
        if (turn := self._turns.get(key)) is not None:
            async with turn.ending:
                pass

    async def end_all(self) -> None:
        """End every response whose run ignores the stop of the host, and leave those to others that may be repeated."""
        left = [turn for turn in self._turns.values() if not self._revival.may_repeat(turn.record)]
        for turn in left:
            logger.error("A run ignores the stop of the host", extra={"run_id": turn.key.run_id})
        endings = (self._end_somehow(turn, partial(turn.encoder.fail, message=_SHUT_DOWN)) for turn in left)
        await asyncio.gather(*(_uninterrupted(ending) for ending in endings))

    async def _take_over(self, turn: Turn, ending: Callable[[], Sequence[LogEntry]]) -> None:
        """Take the right to write away from the run's task, and end the response in its place unless it has ended."""
        async with turn.ending:
            if turn.is_told:
                return
            attempt = await turn.store.begin(turn.key, owner=self._context.owner)
            if attempt is None:
                self._turns.pop(turn.key, None)
                if turn.encoder.is_terminal:  # stored by us, but never told
                    await self._cut(turn)
                return
            turn.attempt = attempt
            # An end that was made already, but could not be stored, stays as it was.
            if not turn.encoder.is_terminal:
                turn.untold += ending()
            await self._write_end(turn, attempt)

    async def _execute(self, key: RunKey) -> None:
        turn = self._turns.get(key)
        if turn is None:
            turn = await self._revived(key)
            if turn is None:
                return
            self._turns[key] = turn
        turn.task = asyncio.current_task()
        watch = None if self._run_timeout is None else asyncio.create_task(self._watch(turn, self._run_timeout))
        try:
            with on_behalf(turn.isolation, turn.trace):
                await self._run(turn)
        finally:
            if watch is not None:
                watch.cancel()
                await asyncio.wait({watch})
            # Not before whoever has taken over is done: until then the run can be cancelled, and waited for.
            await self.settle(key)
            self._turns.pop(key, None)

    async def _revived(self, key: RunKey) -> Turn | None:
        try:
            return await self._revival.turn(key)
        except StaleWrite:
            logger.warning("A run was taken over by another process before it began here", extra={"run_id": key.run_id})
            return None

    async def _run(self, turn: Turn) -> None:
        try:
            async with turn.ending:
                attempt = await self._begun(turn)
            if attempt is not None:
                await self._advance(turn, attempt)
        except (LeaseLost, StaleWrite):
            await self._let_go(turn)
        except GeneratorExit:  # the event loop is gone
            raise
        except BaseException:
            if turn.is_handed_back:
                raise
            if turn.is_lost:
                await self._let_go(turn)
                return
            _note_cancellation(turn)
            # A store failed, the run was cancelled between two writes, or the agent raised what is no `Exception`.
            ending = turn.encoder.cancel if turn.is_given_up else turn.encoder.fail
            await _uninterrupted(self._end_somehow(turn, ending))
            raise

    async def _let_go(self, turn: Turn) -> None:
        """Leave the run to whoever has it now."""
        logger.warning("A run lost its right to write and stopped", extra={"run_id": turn.key.run_id})
        async with turn.ending:
            if not turn.is_told:
                await self._cut(turn)

    async def _cut(self, turn: Turn) -> None:
        """Let go of the readers of a log that this process will not end.

        One that outlives the process is left as it is: whoever ends the run ends it, too.
        """
        if turn.log is self._context.run_log:
            await turn.log.drop(turn.key)

    async def _begun(self, turn: Turn) -> Attempt | None:
        """Return the attempt to run as; `None` if there is nothing to do any more. The caller holds `turn.ending`."""
        if turn.is_told:
            return None
        if turn.attempt is None:
            turn.attempt = await turn.store.begin(turn.key, owner=self._context.owner)
        return turn.attempt

    async def _watch(self, turn: Turn, run_timeout: float) -> None:
        """End the response of a run that ignores the cancellation by which its time limit stops it."""
        await asyncio.sleep(run_timeout + self._cancel_grace)
        logger.error("A run ignores its time limit", extra={"run_id": turn.key.run_id})
        await _uninterrupted(self._end_somehow(turn, partial(turn.encoder.fail, message=_OVER_TIME)))

    async def _end_somehow(self, turn: Turn, ending: Callable[[], Sequence[LogEntry]]) -> None:
        """End the response, or let its readers go: nobody may wait for an end that cannot be written."""
        try:
            await self._take_over(turn, ending)
        except StaleWrite:
            logger.warning("A run was ended by another process", extra={"run_id": turn.key.run_id})
        except Exception:
            logger.exception("The end of a run could not be stored", extra={"run_id": turn.key.run_id})
            self._turns.pop(turn.key, None)
            await self._cut(turn)

    async def _advance(self, turn: Turn, attempt: Attempt) -> None:
        """Run the turn to its terminal state."""
        turn.require_right(attempt)
        if turn.encoder.is_terminal:  # revived to be ended
            await _uninterrupted(self._finish(turn, attempt))
            return
        if turn.record.is_background:
            turn.untold += turn.encoder.start()
            await self._save(turn, attempt, RunStatus.IN_PROGRESS)
            await turn.tell(attempt)
        try:
            async with asyncio.timeout(self._run_timeout) as limit:
                await self._stream(turn, attempt)
        except (LeaseLost, StaleWrite):
            raise
        except (Exception, asyncio.CancelledError) as error:
            turn.require_right(attempt)
            _note_cancellation(turn)
            if _is_cancelled() and turn.engine.is_draining and self._revival.may_repeat(turn.record):
                # Whoever executes the run next goes on from what is told by now.
                turn.is_handed_back = not turn.is_given_up
            if turn.is_handed_back:
                raise
            turn.untold += _ending(turn, error, is_over_time=limit.expired())
        await _uninterrupted(self._finish(turn, attempt))

    async def _stream(self, turn: Turn, attempt: Attempt) -> None:
        """Feed the target's updates to the encoder and append what it says; leave the closing events untold."""
        encoder, log = turn.encoder, turn.log
        # What a stream has said cannot be taken back, so only unobserved runs wait for what the hook makes of them.
        waits_for_hook = self._response_hook is not None and not turn.is_observed
        async with self._context.run_stream(
            turn.request,
            target=turn.target,
            session=turn.session,
            keeps_session=turn.record.is_stored,
            keeps_updates=self._response_hook is not None,
            update_hook=self._update_hook,
            run=self._hosted(turn, attempt),
            answers=turn.answers,
        ) as stream:
            yielded_at = time.perf_counter()
            async for update in stream:
                turn.require_right(attempt)
                events = () if waits_for_hook else encoder.feed(update)
                if events:
                    await log.append(attempt, events)
                if time.perf_counter() - yielded_at > _LONGEST_HOLD:
                    await asyncio.sleep(0)
                    yielded_at = time.perf_counter()
            turn.require_right(attempt)
            if _is_cancelled():
                # The agent was told to stop before it had finished; that it finished instead changes nothing.
                raise asyncio.CancelledError
            if self._response_hook is not None:
                await self._hook(self._response_hook, turn, stream.result(), replaces=waits_for_hook)
            await self._keep_session(turn, stream)
        await turn.keep_answers(self._settlements)
        # Last: a session that cannot be stored, named ones included, fails the run instead of leaving it open.
        turn.require_right(attempt)
        turn.untold += encoder.complete()

    def _hosted(self, turn: Turn, attempt: Attempt) -> HostedRun:
        """Return what the target learns of the run, so that another process can go on with it."""

        async def flush() -> object:
            turn.require_right(attempt)
            await turn.log.append(attempt, ())
            return to_builtins(turn.encoder.memo)

        return HostedRun(
            run_id=turn.key.run_id,
            attempt=attempt.number,
            flush=flush if self._revival.may_repeat(turn.record) else None,
            resumption=turn.resumption,
        )

    async def _keep_session(self, turn: Turn, stream: HostedStream) -> None:
        """Store the session that the run leaves, for whoever continues the response."""
        if turn.encoder.has_failed:
            stream.discard_session()
        elif turn.record.is_stored and stream.session is not None:
            key = response_session_key(turn.key.run_id)
            await self._context.session_store.put(turn.key.partition, key, stream.session, base=turn.session_key)
            turn.has_session = True

    async def _hook(
        self, hook: ChannelResponseHook, turn: Turn, result: HostedRunResult[AgentResponse[Any]], *, replaces: bool
    ) -> None:
        hooked = await apply_response_hook(hook, result, request=turn.request, channel_name=turn.request.channel)
        if replaces:
            for update in hooked.result.to_updates():
                turn.encoder.feed(update)

    async def _finish(self, turn: Turn, attempt: Attempt) -> None:
        async with turn.ending:
            turn.require_right(attempt)
            await self._write_end(turn, attempt)

    async def _write_end(self, turn: Turn, attempt: Attempt) -> None:
        """Store the terminal state, then tell. The caller holds `turn.ending`."""
        status = RunStatus(turn.encoder.status)
        has_succeeded = status in {RunStatus.COMPLETED, RunStatus.INCOMPLETE}
        has_session = turn.has_session and has_succeeded
        await self._save(turn, attempt, status, has_session=has_session)
        if not has_succeeded:
            # Before the log is closed: whoever finds it open does this again.
            await self.forget(turn.record)
        await turn.tell(attempt, closes=True)
        turn.is_told = True
        self._turns.pop(turn.key, None)

    @staticmethod
    async def _save(turn: Turn, attempt: Attempt, status: RunStatus, *, has_session: bool = False) -> None:
        output = turn.encoder.response["output"]
        record = replace(
            turn.record,
            status=status,
            body=turn.encoder.encoded,
            output=tuple(item for item in output if isinstance(item, dict)) if isinstance(output, list) else (),
            approvals=turn.approvals,
            call_ids=turn.encoder.minted_call_ids,
            has_session=has_session,
        )
        await turn.store.save(attempt, record)
        # Whoever has taken over meanwhile has put a later state here.
        turn.require_right(attempt)
        turn.record = record


def _ending(turn: Turn, error: BaseException, *, is_over_time: bool) -> Sequence[LogEntry]:
    """End a run that `error` broke off. What went wrong is for the log; callers learn that it went wrong."""
    is_stopped = _is_cancelled()
    if not (is_stopped and isinstance(error, asyncio.CancelledError)):
        extra = {"run_id": turn.key.run_id, "is_timeout": is_over_time}
        logger.error("A run failed", exc_info=error, extra=extra)
    if turn.is_given_up:
        # Some agents answer their cancellation with an exception of their own.
        return turn.encoder.cancel()
    if is_stopped:
        return turn.encoder.fail(message=_SHUT_DOWN)
    # Here also an agent that gives up because something it waited for was cancelled.
    return turn.encoder.fail(message=_OVER_TIME if is_over_time else "The agent failed to answer.")


def _note_cancellation(turn: Turn) -> None:
    """A shared engine cancels a run because somebody asked for it, in whichever process, unless it stops itself."""
    turn.is_given_up |= _is_cancelled() and turn.engine.is_shared and not turn.engine.is_draining


def _is_cancelled() -> bool:
    """Whether the cancellation of the current task was asked for, also when the agent has swallowed it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _uninterrupted(work: Awaitable[None]) -> None:
    """Wait for `work` to its end, whoever cancels meanwhile: a terminal state is written once begun, or not at all."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    task.result()
