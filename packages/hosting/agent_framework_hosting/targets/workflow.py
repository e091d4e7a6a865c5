"""A workflow as a target: every run on a workflow of its own, conversations continued from checkpoints."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from copy import copy
from typing import Literal

from agent_framework import AgentResponseUpdate, AgentSession, FunctionalWorkflow, Workflow, WorkflowCheckpointException

from ..branches import Claim
from ..checkpoints import (
    CheckpointLocation,
    Checkpoints,
    FileCheckpoints,
    MemoryCheckpoints,
    StorageCheckpoints,
    is_storage,
    outlive_process,
)
from ..directories import read_directory
from ..errors import ConfigurationError, LeaseLost, StaleWrite, StoreError, StoreUnavailable, TargetError
from ..isolation import Partition
from .agent import AgentTarget
from .base import Question, Resumption, TargetInput, bound_request_context
from .blueprint import AnyWorkflow, WorkflowBlueprint, WorkflowSource, agents_of
from .functional import FunctionalTurn
from .outputs import IntermediateOutputs, WorkflowOutputs
from .questions import WorkflowQuestion
from .stored_types import TypedCheckpoints
from .turn import RUN_METADATA_KEY, GraphTurn, Position, Turn, attempt_of, tidied

logger = logging.getLogger(__name__)


class WorkflowTarget:
    """Runs a workflow, always streamed.

    `workflow` is an instance that has not run, or a builder of one, of which every run gets a copy, or a function, sync or
    async, that builds one per run. An async one is called for the first time when the host starts (`prepare`).
    `name` is what callers may call it: by default the workflow's, or that of an async function.
    A session's conversation continues from the checkpoint its last turn ended with; a session without one starts from
    the workflow's initial state. Checkpoints are kept by `checkpoints`, or in `checkpoint_location`: a directory, which only
    the operator may be able to write (see `FileCheckpoints`), or a `CheckpointStorage`. Without these they are where the
    host keeps its state, and without a host in memory. `intermediate_outputs` says what
    becomes of intermediate outputs: hidden, or put out as commentary (see `WorkflowOutputs`).

    A run stores the checkpoint that it ends with. One that its channel may resume stores one after each superstep, when
    everything that was put out until then is safe: what a second attempt goes on from it neither puts out again nor misses.
    A superstep that had begun is executed again. All checkpoints but those in memory are taken to outlive the process.

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
        checkpoint_location: CheckpointLocation | None = None,
        intermediate_outputs: IntermediateOutputs = "hide",
    ) -> None:
        self._blueprint = WorkflowBlueprint(workflow)
        own = _pick_checkpoints(checkpoints, checkpoint_location)
        self.has_own_checkpoints = own is not None
        self.checkpoints: Checkpoints = MemoryCheckpoints() if own is None else own
        self._intermediate_outputs = intermediate_outputs
        self._given: object = workflow
        sample = self._blueprint.sample
        own_name = getattr(workflow, "__name__", None) if sample is None else sample.name
        self.name: str = name or own_name or "workflow"

    @property
    def hosted(self) -> object:
        """The instance that was given, or one that never runs; the async function before `prepare`."""
        return (
            self._given
            if isinstance(self._given, (Workflow, FunctionalWorkflow))
            else self._blueprint.sample or self._given
        )

    async def prepare(self) -> None:
        """Call an async function for the first time. See `Preparable.prepare`."""
        await self._blueprint.prepare()

    def kept_in(self, checkpoints: Checkpoints | None) -> WorkflowTarget:
        """Return this target with its checkpoints in another place; `None` for memory."""
        target = copy(self)
        target.checkpoints = MemoryCheckpoints() if checkpoints is None else checkpoints
        return target

    def new_session(self) -> AgentSession:
        """Return a session whose first turn starts from the workflow's initial state."""
        return AgentSession()

    def server_tools(self) -> frozenset[str]:
        """Return the names of the tools that the agents in the workflow execute themselves."""
        return frozenset(name for agent in self._blueprint.agents for name in AgentTarget(agent).server_tools())

    async def erase(self, partition: Partition, session: AgentSession) -> None:
        """Erase the checkpoint that `session` continues from. See `Erasable.erase`."""
        await erase_checkpoint(self.checkpoints, partition, session)

    async def continued(self, session: AgentSession, claim: Claim | None) -> AgentSession | None:
        """Return the session, unless an agent has left it that was served in the workflow's place."""
        del claim
        return None if Position.of(session) is None else session

    async def questions(self, partition: Partition, session: AgentSession) -> Mapping[str, Question]:
        """Return what the workflow has asked. See `Asking.questions`."""
        position = Position.of(session)
        if position is None or not position.waits:
            return {}
        try:
            last = await self._typed.chain(partition, position.chain).load(position.checkpoint_id)
        except OSError as error:
            raise StoreUnavailable("The checkpoint at which the workflow waits cannot be read.") from error
        except (WorkflowCheckpointException, ConfigurationError) as error:
            raise TargetError("The checkpoint at which the workflow waits is gone or unusable.") from error
        return {name: WorkflowQuestion(event) for name, event in last.pending_request_info_events.items()}

    @property
    def _typed(self) -> TypedCheckpoints:
        return TypedCheckpoints(self.checkpoints)

    @property
    def can_resume(self) -> bool:
        """Whether the checkpoints outlive the process. See `Resumable.can_resume`."""
        return outlive_process(self.checkpoints)

    async def resumption(self, partition: Partition, run_id: str) -> Resumption | None:
        """Return the newest checkpoint of the run. See `Resumable.resumption`."""
        try:
            stored = await self._typed.chain(partition, run_id).list_checkpoints(workflow_name=run_id)
        except OSError as error:
            raise StoreUnavailable("The checkpoints of the run cannot be read.") from error
        except (WorkflowCheckpointException, ConfigurationError) as error:
            raise TargetError("The checkpoints of the run cannot be read any more.") from error
        resumable = [checkpoint for checkpoint in stored if RUN_METADATA_KEY in checkpoint.metadata]
        if not resumable:
            return None
        # A process that was taken for dead may have stored one since: its attempt counts less, however late it is.
        newest = max(resumable, key=lambda checkpoint: (attempt_of(checkpoint), checkpoint.iteration_count))
        mark = newest.metadata[RUN_METADATA_KEY]["mark"]
        return Resumption(checkpoint_id=newest.checkpoint_id, attempt=attempt_of(newest), mark=mark)

    async def abandon(self, partition: Partition, run_id: str) -> None:
        """Erase the checkpoints of the run. See `Resumable.abandon`."""

        async def erase() -> None:
            chain = self.checkpoints.chain(partition, run_id)
            for checkpoint_id in await chain.list_checkpoint_ids(workflow_name=run_id):
                await chain.delete(checkpoint_id)

        await tidied(erase())

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
        turn = _new_turn(workflow, self._typed, run, outputs)
        try:
            async with bound_request_context(_bindables(workflow), run.attributes):
                events = await turn.begin()
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
                    for update in outputs.end():
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
        StoreError: somebody has to see to the place where it lies first.
    """
    position = Position.of(session)
    if position is None:
        return
    try:
        await checkpoints.chain(partition, position.chain).delete(position.checkpoint_id)
    except OSError as error:
        raise StoreUnavailable("The checkpoint could not be erased.") from error
    except ConfigurationError as error:
        raise StoreError("The checkpoint cannot be erased.") from error


def _pick_checkpoints(given: Checkpoints | None, location: CheckpointLocation | None) -> Checkpoints | None:
    if location is None:
        return given
    if given is not None:
        raise ConfigurationError(
            "checkpoints and checkpoint_location both say where checkpoints lie: pass one of them."
        )
    if is_storage(location):
        return StorageCheckpoints(location)
    return FileCheckpoints(read_directory("checkpoint_location", location))


def _new_turn(workflow: AnyWorkflow, checkpoints: Checkpoints, run: TargetInput, outputs: WorkflowOutputs) -> Turn:
    if isinstance(workflow, Workflow):
        return GraphTurn(workflow, checkpoints, run, outputs)
    return FunctionalTurn(workflow, checkpoints, run, outputs)


def _bindables(workflow: AnyWorkflow) -> list[object]:
    agents = agents_of(workflow)
    providers = [provider for agent in agents for provider in getattr(agent, "context_providers", None) or ()]
    return [workflow, *agents, *providers]
