"""A turn of a functional workflow: a function that is called anew each time, and whose steps are not repeated.

The framework goes on with such a function by calling it again, with the message it was called with first: what its steps
have returned is remembered, and so are the answers to what it has asked, and everything else is executed again. A turn is one
call, or several with answers in between. What the function has kept with `set_state` is there in the next turn, too.

All events of a call come when it has ended. So nothing has been put out as long as it may be lost: a second attempt at
a run puts out everything.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import typing
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from agent_framework import (
    FunctionalWorkflow,
    ResponseStream,
    RunContext,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
    WorkflowEvent,
)

# The check that the framework makes for the inputs of executors; it exports none.
from agent_framework._workflows._typing_utils import is_instance_of

from ..checkpoints import Checkpoints, ReadOnlyCheckpoints
from ..errors import StoreError, TargetError
from .base import TargetInput
from .inputs import fitting
from .outputs import WorkflowOutputs
from .turn import Turn

REPLAY_METADATA_KEY: Final = "agent_framework_hosting.replay"
"""Where a checkpoint keeps what it takes to call the function again: `{"answers": {name: answer}, "asked": [name]}`.

`answers` are all that were given since the message, `asked` what was asked before this turn and is still open. The last
checkpoint of a call has `"state"`, too: what `set_state` had kept at the end of the last step, from which a lost run goes on."""

_MESSAGE: Final = "_original_message"
_ANY_VERSION: Final = ""


class FunctionalTurn(Turn):
    """A turn of a `FunctionalWorkflow`."""

    def __init__(
        self, workflow: FunctionalWorkflow, checkpoints: Checkpoints, run: TargetInput, outputs: WorkflowOutputs
    ) -> None:
        super().__init__(checkpoints, run, outputs)
        self._workflow = workflow
        self._all_answers: dict[str, object] = {}
        self._still_asked: list[str] = []
        self._questions: dict[str, WorkflowEvent[Any]] = {}
        self._first_resume_point: dict[str, object] = {}
        self._has_returned = False
        self._state_after_step: dict[str, object] = {}
        # Steps may end at the same time, and each one stores a checkpoint in place of the last.
        self._saving = asyncio.Lock()

    async def begin(self) -> ResponseStream[WorkflowEvent[Any], Any]:
        """Call the function. See `Turn.begin`."""
        resumption = self._run.resumption
        start = await self._new_start() if resumption is None else _before_return(await self._resumed(resumption))
        replayed = start.metadata[REPLAY_METADATA_KEY]
        self._all_answers, self._still_asked = replayed["answers"], replayed["asked"]
        self._asked.update(self._still_asked)
        if self._run.flush is not None and resumption is None:
            # Before anything is executed: without it, nobody could tell whether something was.
            await self._save(start)
        return self._workflow.run(
            stream=True,
            checkpoint_id=start.checkpoint_id,
            responses=self._all_answers or None,
            checkpoint_storage=_ReplayedCheckpoints(start, self._workflow, self._save),
        )

    def observe(self, event: WorkflowEvent[Any]) -> None:
        """Note that the function has returned, and what it has asked."""
        # Its events come then, and before it is called only these.
        self._has_returned = self._has_returned or event.type not in {"started", "status"}
        if event.type == "request_info":
            self._questions[event.request_id] = event

    async def _new_start(self) -> WorkflowCheckpoint:
        """Return the checkpoint before the first step, or where the last turn has stopped to ask."""
        if self._answers:
            last = await self._last()
            answers = {**last.metadata[REPLAY_METADATA_KEY]["answers"], **self._answers}
            asked = [name for name in last.pending_request_info_events if name not in answers]
            replayed = {"answers": answers, "asked": asked}
            return replace(last, checkpoint_id=uuid.uuid4().hex, metadata={REPLAY_METADATA_KEY: replayed})
        self._require_no_questions()
        message = _message_for(self._workflow, self._given)
        kept = {} if self._position is None else (await self._last()).state
        return WorkflowCheckpoint(
            workflow_name=self._workflow.name,
            graph_signature_hash=_ANY_VERSION,
            state={**_users(kept), _MESSAGE: message},
            metadata={REPLAY_METADATA_KEY: {"answers": {}, "asked": []}},
        )

    async def _last(self) -> WorkflowCheckpoint:
        if self._position is None:
            raise TargetError("The workflow has asked nothing.")
        try:
            return await self._earlier.load(self._position.checkpoint_id)
        except (StoreError, OSError) as error:
            raise TargetError("The conversation's checkpoint cannot be read now.") from error
        except WorkflowCheckpointException as error:
            raise TargetError("The checkpoint that the conversation continues from is gone or unusable.") from error

    async def _save(self, checkpoint: WorkflowCheckpoint) -> None:
        if not self._is_kept:
            return
        async with self._saving:
            self._reached = 1 if self._reached is None else self._reached + 1
            replayed: dict[str, object] = {"answers": self._all_answers, "asked": self._still_asked}
            if self._has_returned:
                replayed["state"] = self._state_after_step
            elif self._run.flush is not None:
                # A copy: the function may change what it keeps.
                self._state_after_step = copy.deepcopy(_users(checkpoint.state))
            await self._held.save(
                replace(
                    checkpoint,
                    iteration_count=self._reached,
                    # Not the framework's, which forgets no question that the function does not come to any more.
                    pending_request_info_events=dict(self._questions),
                    metadata={REPLAY_METADATA_KEY: replayed},
                )
            )
            await self.advance()

    async def _resume_point(self) -> dict[str, object]:
        """Return what the first checkpoint of this attempt had: whoever resumes puts out everything that came after it."""
        point = await super()._resume_point()
        self._first_resume_point = self._first_resume_point or point
        return self._first_resume_point


class _ReplayedCheckpoints(ReadOnlyCheckpoints):
    """What the framework is given to call the function again: one checkpoint to load, and a place to save others."""

    def __init__(
        self,
        start: WorkflowCheckpoint,
        workflow: FunctionalWorkflow,
        save: Callable[[WorkflowCheckpoint], Awaitable[None]],
    ) -> None:
        super().__init__()
        self._start = start
        self._workflow = workflow
        self._save = save

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:  # noqa: ARG002  there is one only
        """Return where the call starts.

        Raises:
            TargetError: that is in the middle of another version of the function.
        """
        # Read here and not earlier: the framework computes it when the run begins.
        version = self._workflow.graph_signature_hash
        if self._start.graph_signature_hash not in {version, _ANY_VERSION}:
            raise TargetError("The workflow has changed since the checkpoint that the conversation continues from.")
        return replace(self._start, graph_signature_hash=version)

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Store the checkpoint."""
        await self._save(checkpoint)
        return checkpoint.checkpoint_id


def _users(state: Mapping[str, object]) -> dict[str, object]:
    """Return what the function has kept: what begins with an underscore is the framework's, and of one call."""
    return {name: value for name, value in state.items() if not name.startswith("_")}


def _before_return(last: WorkflowCheckpoint) -> WorkflowCheckpoint:
    """Return the checkpoint with the state that the function had before what is executed again."""
    state = last.metadata[REPLAY_METADATA_KEY].get("state")
    if state is None:
        return last
    frameworks = {name: value for name, value in last.state.items() if name.startswith("_")}
    return replace(last, state={**frameworks, **state})


def _message_for(workflow: FunctionalWorkflow, given: object) -> object:
    """Return `given` in the first of its shapes that the function takes; `None` if it takes nothing."""
    kind = _message_type(getattr(workflow, "__wrapped__"))  # noqa: B009  set by functools, unknown to type checkers
    if kind is None:
        return None
    return fitting(
        given, lambda shape: is_instance_of(shape, kind), taker=f"The workflow {workflow.name!r}", types=[kind]
    )


def _message_type(function: Callable[..., object]) -> Any:
    """Return the type of the parameter that gets the message, as the framework finds it; `None` if there is none."""
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # the framework does without them, too
        hints = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints.get(name, parameter.annotation)
        is_variable = parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        if kind is not RunContext and name != "ctx" and not is_variable:
            return Any if kind is parameter.empty or isinstance(kind, str) else kind
    return None
