"""Which kind of target an object is that somebody wants to host."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TypeAlias, TypeGuard, cast

from agent_framework import FunctionalWorkflow, FunctionalWorkflowAgent, SupportsAgentRun, Workflow, WorkflowAgent

from ..checkpoints import Checkpoints
from ..directories import PathName
from ..errors import ConfigurationError
from .agent import AgentTarget
from .base import Target
from .blueprint import WorkflowSource

logger = logging.getLogger(__name__)

HostTarget: TypeAlias = SupportsAgentRun | WorkflowSource | Target
"""What can be hosted: an agent, a workflow, a builder or a function that makes one, or a target of your own."""


def choose_target(
    hosted: object,
    *,
    checkpoint_location: PathName | None,
    checkpoints: Callable[[PathName | None], Checkpoints | None],
) -> Target:
    """Return the target that runs `hosted`, which should be a `HostTarget`.

    `checkpoints` makes what a workflow gets, from `checkpoint_location`; nobody else asks for it.

    Raises:
        ConfigurationError: it cannot be hosted.
    """
    if inspect.isclass(hosted):
        raise ConfigurationError(f"The target is the class {hosted.__name__}: pass an instance of it.")
    makes_workflows = isinstance(hosted, (Workflow, FunctionalWorkflow)) or callable(getattr(hosted, "build", None))
    if not makes_workflows and _is_target(hosted):
        _warn_of_checkpoints(checkpoint_location, "a target of its own")
        return hosted
    if not makes_workflows and callable(getattr(hosted, "run", None)):
        _warn_of_checkpoints(checkpoint_location, "an agent")
        return AgentTarget(_as_agent(hosted))
    if makes_workflows or callable(hosted):
        from .workflow import WorkflowTarget  # noqa: PLC0415  only hosts of workflows load it

        return WorkflowTarget(cast("WorkflowSource", hosted), checkpoints=checkpoints(checkpoint_location))
    raise ConfigurationError(
        f"The target is a {type(hosted).__name__}: pass an agent, a Workflow, a builder of one, or a function without "
        "arguments that returns one."
    )


def _is_target(hosted: object) -> TypeGuard[Target]:
    return all(hasattr(hosted, name) for name in ("name", "kind", "hosted", "stream", "new_session", "server_tools"))


def _as_agent(hosted: object) -> SupportsAgentRun:
    if isinstance(hosted, (WorkflowAgent, FunctionalWorkflowAgent)):
        raise ConfigurationError(
            f"The target {hosted.name!r} is a workflow used as an agent, which has one state for everybody: pass the "
            "workflow itself."
        )
    return cast("SupportsAgentRun", hosted)


def _warn_of_checkpoints(location: PathName | None, what: str) -> None:
    if location is not None:
        logger.warning("checkpoint_location is for workflows, and the target is %s: it is not used.", what)
