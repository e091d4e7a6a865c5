"""A workflow as a target: every run on a workflow of its own, conversations continued from checkpoints."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from agent_framework import (
    INTERNAL_SOURCE_ID,
    AgentResponseUpdate,
    AgentSession,
    CheckpointStorage,
    Message,
    ResponseStream,
    Workflow,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
    WorkflowEvent,
    WorkflowMessage,
)

from ..checkpoints import (
    CHECKPOINT_ERRORS,
    Checkpoints,
    FileCheckpoints,
    MemoryCheckpoints,
    ReadOnlyCheckpoints,
    RunCheckpoints,
)
from ..errors import ConfigurationError, LeaseLost, StaleWrite, StoreError, StoreUnavailable, TargetError
from ..isolation import Partition
from .agent import AgentTarget
from .base import HostedRun, Question, Resumption, TargetInput, bound_request_context
from .blueprint import WorkflowBlueprint, WorkflowSource, agents_of
from .outputs import IntermediateOutputs, WorkflowOutputs
from .questions import WorkflowQuestion

logger = logging.getLogger(__name__)

SESSION_STATE_KEY: Final = "agent_framework_hosting.workflow"
"""Where a session keeps the position of its conversation: `{"chain": str, "checkpoint_id": str}`.

`"waits": True` stands there, too, if the workflow has asked something and goes on with answers only."""

RUN_METADATA_KEY: Final = "agent_framework_hosting.run"
"""Where a checkpoint keeps what it takes to resume its run: `{"attempt": int, "mark": JSON, "told": JSON}`."""

_ERASE_SECONDS: Final = 10.0


class WorkflowTarget:
    """Runs a workflow, always streamed.

    `workflow` is an instance that has not run, or a builder of one, of which every run gets a copy, or a function, sync or
    async, that builds one per run. An async one is called for the first time when the host starts (`prepare`).
    `name` is what callers may call it: by default the workflow's, or that of an async function.
    A session's conversation continues from the checkpoint its last turn ended with; a session without one starts from
    the workflow's initial state. Checkpoints are kept by `checkpoints`, or in the directory `checkpoint_location`, which
    only the operator may be able to write (see `FileCheckpoints`), or else in memory. `intermediate_outputs` says what
    becomes of intermediate outputs: hidden, or put out as commentary (see `WorkflowOutputs`).

    A run stores the checkpoint that it ends with. One that its channel may resume stores one after each superstep, when
    everything that was put out until then is safe: what a second attempt goes on from it neither puts out again nor misses.
    A superstep that had begun is executed again. All checkpoints but `MemoryCheckpoints` are taken to outlive the process.

    Raises:
        ConfigurationError: the workflow cannot be copied, the location is no directory, or there are two places for
            checkpoints.
    """

    kind: Literal["workflow"] = "workflow"

    def __init__(
        self,
        workflow: WorkflowSource,
        *,
        name: str | None = None,
        checkpoints: Checkpoints | None = None,
        checkpoint_location: str | Path | None = None,
        intermediate_outputs: IntermediateOutputs = "hide",
    ) -> None:
        self._blueprint = WorkflowBlueprint(workflow)
        self.checkpoints: Checkpoints = _pick_checkpoints(checkpoints, checkpoint_location)
        self._intermediate_outputs = intermediate_outputs
        self._given: object = workflow
        sample = self._blueprint.sample
        own_name = getattr(workflow, "__name__", None) if sample is None else sample.name
        self.name: str = name or own_name or "workflow"

    @property
    def hosted(self) -> object:
        """The instance that was given, or one that never runs; the async function before `prepare`."""
        return self._given if isinstance(self._given, Workflow) else self._blueprint.sample or self._given

    async def prepare(self) -> None:
        """Call an async function for the first time. See `Preparable.prepare`."""
        await self._blueprint.prepare()

    def new_session(self) -> AgentSession:
        """Return a session whose first turn starts from the workflow's initial state."""
        return AgentSession()

    def server_tools(self) -> frozenset[str]:
        """Return the names of the tools that the agents in the workflow execute themselves."""
        sample = self._blueprint.sample
        agents = () if sample is None else agents_of(sample)
        return frozenset(name for agent in agents for name in AgentTarget(agent).server_tools())

    async def erase(self, partition: Partition, session: AgentSession) -> None:
        """Erase the checkpoint that `session` continues from. See `Erasable.erase`."""
        await erase_checkpoint(self.checkpoints, partition, session)

    async def questions(self, partition: Partition, session: AgentSession) -> Mapping[str, Question]:
        """Return what the workflow has asked. See `Asking.questions`."""
        position = _Position.of(session)
        if position is None or not position.waits:
            return {}
        try:
            last = await self.checkpoints.chain(partition, position.chain).load(position.checkpoint_id)
        except OSError as error:
            raise StoreUnavailable("The checkpoint at which the workflow waits cannot be read.") from error
        except WorkflowCheckpointException as error:
            raise TargetError("The checkpoint at which the workflow waits is gone or unusable.") from error
        return {name: WorkflowQuestion(event) for name, event in last.pending_request_info_events.items()}

    @property
    def can_resume(self) -> bool:
        """Whether the checkpoints outlive the process. See `Resumable.can_resume`."""
        return not isinstance(self.checkpoints, MemoryCheckpoints)

    async def resumption(self, partition: Partition, run_id: str) -> Resumption | None:
        """Return the newest checkpoint of the run. See `Resumable.resumption`."""
        try:
            stored = await self.checkpoints.chain(partition, run_id).list_checkpoints(workflow_name=run_id)
        except OSError as error:
            raise StoreUnavailable("The checkpoints of the run cannot be read.") from error
        resumable = [checkpoint for checkpoint in stored if RUN_METADATA_KEY in checkpoint.metadata]
        if not resumable:
            return None
        # A process that was taken for dead may have stored one since: its attempt counts less, however late it is.
        newest = max(resumable, key=lambda checkpoint: (_attempt(checkpoint), checkpoint.iteration_count))
        mark = newest.metadata[RUN_METADATA_KEY]["mark"]
        return Resumption(checkpoint_id=newest.checkpoint_id, attempt=_attempt(newest), mark=mark)

    async def abandon(self, partition: Partition, run_id: str) -> None:
        """Erase the checkpoints of the run. See `Resumable.abandon`."""
        chain = self.checkpoints.chain(partition, run_id)

        async def erase() -> None:
            for checkpoint_id in await chain.list_checkpoint_ids(workflow_name=run_id):
                await chain.delete(checkpoint_id)

        await _tidied(erase())

    async def stream(self, run: TargetInput) -> AsyncGenerator[AgentResponseUpdate, None]:
        """Yield the updates of one run. See `Target.stream`.

        The session moves on to the checkpoint that the run ended with when the last update has been taken, and not at
        all when the run failed or was closed before.
        """
        try:
            async with aclosing(self._run(run)) as updates:
                async for update in updates:
                    yield update
        except (TargetError, StaleWrite, LeaseLost):
            raise
        except Exception as error:
            raise TargetError(f"The workflow {self.name!r} failed.") from error

    async def _run(self, run: TargetInput) -> AsyncGenerator[AgentResponseUpdate, None]:
        if run.options:
            # A run hook that lets everything through is legitimate; a workflow has nobody to give options to.
            logger.warning("A workflow takes no options; they are ignored", extra={"options": sorted(run.options)})
        workflow = await self._blueprint.new()
        outputs = WorkflowOutputs(intermediate=self._intermediate_outputs)
        turn = _Turn(self.checkpoints, run, outputs)
        try:
            async with bound_request_context(_bindables(workflow), run.attributes):
                events = await turn.begin(workflow)
                try:
                    async for event in events:
                        turn.observe(event)
                        for update in () if turn.was_told(event) else outputs.feed(event):
                            yield update
                        # Not before the channel has taken what was put out until then.
                        await turn.advance()
                    for event in turn.hidden():
                        for update in outputs.feed(event):
                            yield update
                finally:
                    # Closing is what cancels the executors when the run is given up half-way.
                    await events.close()
            await turn.record()
        except BaseException:
            # Being closed and being cancelled included; the executors have stopped by now.
            await turn.give_up()
            raise


async def erase_checkpoint(checkpoints: Checkpoints, partition: Partition, session: AgentSession) -> None:
    """Erase the checkpoint that `session` continues from, if it is one of a workflow and the checkpoint is there.

    Raises:
        StoreUnavailable: it could not be erased; erasing again may work.
    """
    position = _Position.of(session)
    if position is None:
        return
    try:
        await checkpoints.chain(partition, position.chain).delete(position.checkpoint_id)
    except OSError as error:
        raise StoreUnavailable("The checkpoint could not be erased.") from error


def _pick_checkpoints(given: Checkpoints | None, location: str | Path | None) -> Checkpoints:
    if given is not None and location is not None:
        raise ConfigurationError(
            "checkpoints and checkpoint_location both say where checkpoints lie: pass one of them."
        )
    if given is not None:
        return given
    return MemoryCheckpoints() if location is None else FileCheckpoints(location)


def _bindables(workflow: Workflow) -> list[object]:
    agents = agents_of(workflow)
    providers = [provider for agent in agents for provider in getattr(agent, "context_providers", None) or ()]
    return [workflow, *agents, *providers]


class _HeldCheckpoints(ReadOnlyCheckpoints):
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


class _Turn:
    """One turn of a conversation: where it continues from, and where the next one will, if there is to be one."""

    def __init__(self, checkpoints: Checkpoints, run: TargetInput, outputs: WorkflowOutputs) -> None:
        self._session = run.session
        self._given, self._answers = run.messages, run.answers
        self._run = HostedRun(run_id="") if run.run is None else run.run
        self._outputs = outputs
        self._is_kept = run.session is not None and run.keeps_session
        position = self._position = None if run.session is None else _Position.of(run.session)
        continued = uuid.uuid4().hex if position is None else position.chain
        self._earlier = checkpoints.chain(run.partition, continued)
        self._chain_id = self._run.run_id or continued
        self._chain = checkpoints.chain(run.partition, self._chain_id)
        self._saved = RunCheckpoints(self._chain)
        self._held = _HeldCheckpoints(self._chain)
        self._supersteps: int | None = None
        # What was asked before: a workflow that goes on from a checkpoint asks again.
        self._asked: set[str] = set()

    async def begin(self, workflow: Workflow) -> ResponseStream[WorkflowEvent[Any], Any]:
        """Start the workflow, with what was given, or where an earlier attempt at the run has stopped.

        Raises:
            TargetError: the checkpoint to go on from is not there any more, or the workflow waits for answers.
            ConfigurationError: the workflow does not take what was given.
        """
        # Never nothing: what a factory has given a storage of its own would put all callers' states there.
        checkpoints = self._held if self._is_kept else ReadOnlyCheckpoints()
        resumption = self._run.resumption
        if resumption is None:
            if self._answers:
                await self._restore(workflow)
                return workflow.run(responses=self._answers, stream=True, checkpoint_storage=checkpoints)
            if self._position is not None and self._position.waits:
                raise TargetError("The workflow waits for answers, and goes on with nothing else.")
            message = _input_for(workflow, self._given)
            await self._restore(workflow)
            return workflow.run(message, stream=True, checkpoint_storage=checkpoints)
        stored = await self._chain.list_checkpoints(workflow_name=self._chain_id)
        last = next((one for one in stored if one.checkpoint_id == resumption.checkpoint_id), None)
        if last is None:
            raise TargetError("The checkpoint that the run goes on from is gone.")
        self._saved.adopt([one.checkpoint_id for one in stored], last=last)
        self._supersteps = last.iteration_count
        # What was pending when it was stored had been put out, or the checkpoint would not be there.
        self._held.pending = last.pending_request_info_events
        self._asked.update(last.pending_request_info_events)
        self._outputs.recall(last.metadata[RUN_METADATA_KEY]["told"])
        return workflow.run(stream=True, checkpoint_id=last.checkpoint_id, checkpoint_storage=checkpoints)

    async def _restore(self, workflow: Workflow) -> None:
        """Bring the workflow into the state that the conversation's last turn left."""
        if self._position is None:
            return
        events = workflow.run(
            stream=True,
            checkpoint_id=self._position.checkpoint_id,
            checkpoint_storage=ReadOnlyCheckpoints(self._earlier),
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

    def was_told(self, event: WorkflowEvent[Any]) -> bool:
        """Whether the event asks what was asked before this attempt, and is still open."""
        if event.type != "request_info" or event.request_id not in self._asked:
            return False
        self._asked.discard(event.request_id)
        return True

    def hidden(self) -> list[WorkflowEvent[Any]]:
        """Return what was asked again under a name that this run has answered: the framework takes it for answered."""
        return [event for name, event in self._held.pending.items() if name in self._answers]

    def observe(self, event: WorkflowEvent[Any]) -> None:
        """Note how far the workflow has come."""
        if event.type == "superstep_completed":
            self._supersteps = event.iteration

    async def advance(self) -> None:
        """Store the checkpoint that the framework has saved since, if the run may be resumed from it."""
        if self._run.settle is not None:
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
        metadata = dict(checkpoint.metadata)
        if self._run.settle is not None:
            mark = await self._run.settle()
            metadata[RUN_METADATA_KEY] = {"attempt": self._run.attempt, "mark": mark, "told": self._outputs.told}
        try:
            # Under the name of its chain: a workflow that was given none has another one in every process.
            await self._saved.save(replace(checkpoint, workflow_name=self._chain_id, metadata=metadata))
        except CHECKPOINT_ERRORS as error:
            if self._run.settle is not None and self._saved.last_id is None:
                raise self._unsaved() from error
            logger.warning("A checkpoint could not be stored", exc_info=error)

    async def record(self) -> None:
        """Store the checkpoint that this turn ended with, and move the session on to it.

        Raises:
            TargetError: the end of the turn was not saved; the next turn could only continue from somewhere else.
        """
        if self._session is None or not self._is_kept:
            return
        await self._store()
        if self._saved.last_id is None or self._saved.last_iteration != self._supersteps:
            raise self._unsaved() from self._saved.error
        position = {"chain": self._chain_id, "checkpoint_id": self._saved.last_id}
        self._session.state[SESSION_STATE_KEY] = {**position, "waits": True} if self._held.pending else position

    def _unsaved(self) -> TargetError:
        return TargetError(
            "The last checkpoint of the turn could not be saved, see the log. If an executor keeps values of its "
            "own types, register them with agent_framework.register_checkpoint_type."
        )

    async def give_up(self) -> None:
        """Leave the conversation where it was: delete what this turn saved, which no session will ever name.

        What the turn continued from stays, and is what a run that failed, was cancelled or was left by its client is
        continued from. A process that is killed does not get here, and who may resume the run decides for itself: then the
        newest checkpoint of the run stays, until the run is resumed, or `WorkflowTarget.abandon` is called for it.
        """
        may_be_resumed = self._run.settle is not None
        await _tidied(self._saved.settle() if may_be_resumed else self._saved.discard())


def _attempt(checkpoint: WorkflowCheckpoint) -> int:
    return int(checkpoint.metadata[RUN_METADATA_KEY]["attempt"])


async def _tidied(work: Coroutine[object, object, None]) -> None:
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
class _Position:
    chain: str
    checkpoint_id: str
    waits: bool

    @classmethod
    def of(cls, session: AgentSession) -> _Position | None:
        state = session.state.get(SESSION_STATE_KEY)
        if state is None:
            return None
        return cls(
            chain=str(state["chain"]), checkpoint_id=str(state["checkpoint_id"]), waits=state.get("waits") is True
        )


def _input_for(workflow: Workflow, given: object) -> object:
    """Return `given` in the first of its shapes that the start executor accepts.

    Messages are offered as the list they are, as one message, and as text. The latter two are made of the messages
    after the last one that is not the user's.

    Raises:
        ConfigurationError: it accepts none of them.
    """
    start = workflow.get_start_executor()
    for shape in _shapes(given):
        if start.can_handle(WorkflowMessage(data=shape, source_id=INTERNAL_SOURCE_ID(start.id), target_id=start.id)):
            _warn_of_loss(given, shape)
            return shape
    accepted = ", ".join(getattr(kind, "__name__", str(kind)) for kind in start.input_types)
    raise ConfigurationError(
        f"The start executor {start.id!r} accepts {accepted}, not {type(given).__name__} (nor a message or text made of "
        "it); convert the input in a run hook."
    )


def _shapes(given: object) -> list[object]:
    if not isinstance(given, (list, tuple)) or not given or not all(isinstance(item, Message) for item in given):
        return [given]
    messages: Sequence[Message] = given
    spoken = _last_spoken(messages)
    shapes: list[object] = [list(messages), spoken]
    texts = [content.text or "" for content in spoken.contents if content.type == "text"]
    if texts:
        shapes.append("\n".join(texts))
    return shapes


def _last_spoken(messages: Sequence[Message]) -> Message:
    """Return what the user said last as one message; the last message if it is nobody's of the user."""
    spoken: list[Message] = []
    for message in reversed(messages):
        if message.role != "user":
            break
        spoken.insert(0, message)
    if len(spoken) <= 1:
        return messages[-1]
    return Message(
        "user",
        [content for message in spoken for content in message.contents],
        additional_properties={
            key: value for message in spoken for key, value in message.additional_properties.items()
        },
    )


def _warn_of_loss(given: object, shape: object) -> None:
    if isinstance(shape, str) and isinstance(given, (list, tuple)):
        types = {content.type for content in _last_spoken(given).contents} - {"text"}
        if types:
            logger.warning(
                "The workflow takes text only; other contents were left out.", extra={"types": sorted(types)}
            )
