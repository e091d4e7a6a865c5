"""One turn of a conversation: where it continues from, and where the next one will, if there is to be one."""

from __future__ import annotations

import asyncio
import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from agent_framework import (
    AgentSession,
    CheckpointStorage,
    ResponseStream,
    Workflow,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
    WorkflowEvent,
)

from ..checkpoints import CHECKPOINT_ERRORS, Checkpoints, ReadOnlyCheckpoints, RunCheckpoints
from ..errors import StoreError, TargetError
from .base import HostedRun, Resumption, TargetInput
from .inputs import input_for
from .nested import changed
from .outputs import WorkflowOutputs

logger = logging.getLogger(__name__)

SESSION_STATE_KEY: Final = "agent_framework_hosting.workflow"
"""Where a session keeps the position of its conversation: `{"chain": str, "checkpoint_id": str}`.

`"waits": True` stands there, too, if the workflow has asked something and goes on with answers only."""

RUN_METADATA_KEY: Final = "agent_framework_hosting.run"
"""Where a checkpoint keeps what it takes to resume its run: `{"attempt": int, "mark": JSON, "told": JSON}`."""

_ERASE_SECONDS: Final = 10.0


class HeldCheckpoints(ReadOnlyCheckpoints):
    """A chain whose saves are held back: the framework saves at a moment at which nothing can be put out."""

    def __init__(self, chain: CheckpointStorage) -> None:
        super().__init__(chain)
        self._held: WorkflowCheckpoint | None = None
        # What the workflow waits for there, by the names of the requests.
        self.pending: Mapping[str, WorkflowEvent[Any]] = {}

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Keep the checkpoint to be taken, which happens before any executor goes on."""
        self._held, self.pending = checkpoint, checkpoint.pending_request_info_events
        return checkpoint.checkpoint_id

    def take(self) -> WorkflowCheckpoint | None:
        """Return the checkpoint that is to be stored, once."""
        held, self._held = self._held, None
        return held


class _FirstCheckpoints(ReadOnlyCheckpoints):
    """Checkpoints to begin a turn with: the supersteps of the turns before do not count for its limit.

    The framework starts to count anew for a message. It takes an answer for a part of the run that has asked, and a
    workflow that asks again and again would come to its `max_iterations` in the end, and stay there.
    """

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        """Return a copy of the checkpoint, as if nothing had been executed before it, nor in nested workflows."""
        return changed(await super().load(checkpoint_id), lambda checkpoint: replace(checkpoint, iteration_count=0))


class Turn(ABC):
    """What the turns of all kinds of workflows have in common."""

    def __init__(self, checkpoints: Checkpoints, run: TargetInput, outputs: WorkflowOutputs) -> None:
        self._session = run.session
        self._given, self._answers = run.messages, run.answers
        self._run = HostedRun(run_id="") if run.run is None else run.run
        self._outputs = outputs
        self._is_kept = run.session is not None and run.keeps_session
        position = self._position = None if run.session is None else Position.of(run.session)
        continued = uuid.uuid4().hex if position is None else position.chain
        self._earlier = checkpoints.chain(run.partition, continued)
        self._chain_id = self._run.run_id or continued
        self._chain = checkpoints.chain(run.partition, self._chain_id)
        self._saved = RunCheckpoints(self._chain)
        self._held = HeldCheckpoints(self._chain)
        # The number of the last checkpoint that the workflow has come to.
        self._reached: int | None = None
        # What was asked before: a workflow that goes on from a checkpoint asks again.
        self._asked: set[str] = set()

    @abstractmethod
    async def begin(self) -> ResponseStream[WorkflowEvent[Any], Any]:
        """Start the workflow, with what was given, or where an earlier attempt at the run has stopped.

        Raises:
            TargetError: the checkpoint to go on from is not there any more, or the workflow waits for answers.
            ConfigurationError: the workflow does not take what was given.
        """

    @abstractmethod
    def observe(self, event: WorkflowEvent[Any]) -> None:
        """Note how far the workflow has come."""

    def was_told(self, event: WorkflowEvent[Any]) -> bool:
        """Whether the event asks what was asked before this attempt, and is still open."""
        if event.type != "request_info" or event.request_id not in self._asked:
            return False
        self._asked.discard(event.request_id)
        return True

    def hidden(self) -> list[WorkflowEvent[Any]]:
        """Return what the workflow has put out without saying so."""
        return []

    async def advance(self) -> None:
        """Store the checkpoint that the framework has saved since, if the run may be resumed from it."""
        if self._is_kept and self._run.flush is not None:
            await self._store()

    async def _store(self) -> None:
        """Store the checkpoint that the framework has saved, if there is a new one.

        One that cannot be stored is logged, as the framework would: the next one may be.

        Raises:
            TargetError: it is the first of a run that may be resumed. Without one, nobody could tell what was executed.
            StaleWrite, LeaseLost: another process has the run.
        """
        checkpoint = self._held.take()
        if checkpoint is None:
            return
        metadata = {**checkpoint.metadata, **await self._resume_point()}
        try:
            # Under the name of its chain: a workflow that was given none has another one in every process.
            await self._saved.save(replace(checkpoint, workflow_name=self._chain_id, metadata=metadata))
        except CHECKPOINT_ERRORS as error:
            if self._run.flush is not None and self._saved.last_id is None:
                raise self._unsaved() from error
            logger.warning("A checkpoint could not be stored", exc_info=error)

    async def _resume_point(self) -> dict[str, object]:
        """Return what must be in the metadata of a checkpoint that the run may be resumed from."""
        if self._run.flush is None:
            return {}
        mark = await self._run.flush()
        return {RUN_METADATA_KEY: {"attempt": self._run.attempt, "mark": mark, "told": self._outputs.told}}

    async def _resumed(self, resumption: Resumption) -> WorkflowCheckpoint:
        """Return the checkpoint where an earlier attempt has stopped, and take over what that has stored."""
        stored = await self._chain.list_checkpoints(workflow_name=self._chain_id)
        last = next((one for one in stored if one.checkpoint_id == resumption.checkpoint_id), None)
        if last is None:
            raise TargetError("The checkpoint that the run goes on from is gone.")
        self._saved.adopt([one.checkpoint_id for one in stored], last=last)
        self._reached = last.iteration_count
        self._outputs.recall(last.metadata[RUN_METADATA_KEY]["told"])
        return last

    def _require_no_questions(self) -> None:
        if self._position is not None and self._position.waits:
            raise TargetError("The workflow waits for answers, and goes on with nothing else.")

    async def record(self) -> None:
        """Store the checkpoint that this turn ended with, and move the session on to it.

        Raises:
            TargetError: the end of the turn was not saved; the next turn could only continue from somewhere else.
        """
        if self._session is None or not self._is_kept:
            return
        await self._store()
        if self._saved.last_id is None or self._saved.last_iteration != self._reached:
            raise self._unsaved() from self._saved.error
        position = {"chain": self._chain_id, "checkpoint_id": self._saved.last_id}
        self._session.state[SESSION_STATE_KEY] = {**position, "waits": True} if self._held.pending else position

    def _unsaved(self) -> TargetError:
        return TargetError(
            "The last checkpoint of the turn could not be saved, see the log. If an executor keeps values of its "
            "own types, name them in allowed_checkpoint_types, or give them to agent_framework.register_checkpoint_type."
        )

    async def give_up(self) -> None:
        """Leave the conversation where it was: delete what this turn saved, which no session will ever name.

        What the turn continued from stays, and is what a run that failed, was cancelled or was left by its client is
        continued from. A process that is killed does not get here, and who may resume the run decides for itself: then the
        newest checkpoint of the run stays, until the run is resumed, or `WorkflowTarget.abandon` is called for it.
        """
        may_be_resumed = self._run.flush is not None
        await tidied(self._saved.settle() if may_be_resumed else self._saved.discard())


class GraphTurn(Turn):
    """A turn of a `Workflow`, which goes from superstep to superstep."""

    def __init__(
        self, workflow: Workflow, checkpoints: Checkpoints, run: TargetInput, outputs: WorkflowOutputs
    ) -> None:
        super().__init__(checkpoints, run, outputs)
        self._workflow = workflow

    async def begin(self) -> ResponseStream[WorkflowEvent[Any], Any]:
        """Start the workflow. See `Turn.begin`."""
        # Never nothing: what a factory has given a storage of its own would put all callers' states there. Nor less when
        # nothing will be stored: what the workflow waits for stands in what it saves.
        checkpoints = self._held
        workflow = self._workflow
        if self._run.resumption is None:
            if self._answers:
                await self._restore()
                return workflow.run(responses=self._answers, stream=True, checkpoint_storage=checkpoints)
            self._require_no_questions()
            message = input_for(workflow, self._given)
            await self._restore()
            return workflow.run(message, stream=True, checkpoint_storage=checkpoints)
        last = await self._resumed(self._run.resumption)
        # What was pending when it was stored had been put out, or the checkpoint would not be there.
        self._held.pending = last.pending_request_info_events
        self._asked.update(last.pending_request_info_events)
        return workflow.run(stream=True, checkpoint_id=last.checkpoint_id, checkpoint_storage=checkpoints)

    def observe(self, event: WorkflowEvent[Any]) -> None:
        """Note how far the workflow has come."""
        if event.type == "superstep_completed":
            self._reached = event.iteration

    def hidden(self) -> list[WorkflowEvent[Any]]:
        """Return what was asked again under a name that this run has answered: the framework takes it for answered."""
        return [event for name, event in self._held.pending.items() if name in self._answers]

    async def _restore(self) -> None:
        """Bring the workflow into the state that the conversation's last turn left."""
        if self._position is None:
            return
        events = self._workflow.run(
            stream=True,
            checkpoint_id=self._position.checkpoint_id,
            checkpoint_storage=_FirstCheckpoints(self._earlier),
        )
        try:
            async for _ in events:
                pass
        except WorkflowCheckpointException as error:
            if isinstance(error.__cause__, StoreError):
                raise TargetError("The conversation's checkpoint cannot be read now.") from error.__cause__
            raise TargetError("The checkpoint that the conversation continues from is gone or unusable.") from error
        finally:
            await events.close()


def attempt_of(checkpoint: WorkflowCheckpoint) -> int:
    """Return which attempt at its run has stored a checkpoint that may be resumed from."""
    return int(checkpoint.metadata[RUN_METADATA_KEY]["attempt"])


async def tidied(work: Coroutine[object, object, None]) -> None:
    """Do `work` for a run that has an outcome already, which this must not replace; retention takes what is left."""

    async def tidy() -> None:
        try:
            await asyncio.wait_for(work, _ERASE_SECONDS)
        except Exception:
            logger.exception("The checkpoints of a run that was given up could not be deleted")

    await _undisturbed(tidy())


async def _undisturbed(work: Coroutine[object, object, None]) -> None:
    """Do `work` to its end even if the waiting task is cancelled meanwhile, and only then let the cancellation through."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


@dataclass(frozen=True, slots=True)
class Position:
    """Where a conversation stands: the checkpoint to go on from."""

    chain: str
    checkpoint_id: str
    waits: bool

    @classmethod
    def of(cls, session: AgentSession) -> Position | None:
        """Return the position that the session carries."""
        state = session.state.get(SESSION_STATE_KEY)
        if state is None:
            return None
        return cls(
            chain=str(state["chain"]), checkpoint_id=str(state["checkpoint_id"]), waits=state.get("waits") is True
        )
