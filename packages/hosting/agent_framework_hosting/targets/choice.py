"""Which kind of target an object is that somebody wants to host."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TypeAlias, TypeGuard, cast

from agent_framework import FunctionalWorkflow, FunctionalWorkflowAgent, SupportsAgentRun, Workflow, WorkflowAgent

from ..checkpoints import CheckpointLocation, Checkpoints
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
    checkpoint_location: CheckpointLocation | None,
    checkpoints: Callable[[CheckpointLocation | None], Checkpoints | None],
) -> Target:
    """Return the target that runs `hosted`, which should be a `HostTarget`.

    `checkpoints` makes what a workflow gets, from `checkpoint_location`; nobody else asks for it.

    Raises:
        ConfigurationError: it cannot be hosted.
    """
    if inspect.isclass(hosted):
        raise ConfigurationError(f"The target is the class {hosted.__name__}: pass an instance of it.")
    if _makes_workflows(hosted):
        from .workflow import WorkflowTarget  # noqa: PLC0415  only hosts of workflows load it

        return WorkflowTarget(hosted, checkpoints=checkpoints(checkpoint_location))
    if _is_target(hosted):
        return _placed(hosted, checkpoint_location, checkpoints)
    if callable(getattr(hosted, "run", None)):
        _warn_of_checkpoints(checkpoint_location, "an agent")
        return AgentTarget(_as_agent(hosted))
    raise ConfigurationError(
        f"The target is a {type(hosted).__name__}: pass an agent, a Workflow, a builder of one, or a function without "
        "arguments that returns one."
    )


def _makes_workflows(hosted: object) -> TypeGuard[WorkflowSource]:
    if isinstance(hosted, (Workflow, FunctionalWorkflow)) or callable(getattr(hosted, "build", None)):
        return True
    return callable(hosted) and not _is_target(hosted) and not callable(getattr(hosted, "run", None))


def _placed(
    target: Target,
    location: CheckpointLocation | None,
    checkpoints: Callable[[CheckpointLocation | None], Checkpoints | None],
) -> Target:
    """Return the target with its checkpoints where the host has them, if it is a workflow's and has no place of its own."""
    if target.kind == "workflow":
        from .workflow import WorkflowTarget  # noqa: PLC0415  only hosts of workflows load it

        if isinstance(target, WorkflowTarget) and not target.has_own_checkpoints:
            return target.kept_in(checkpoints(location))
    _warn_of_checkpoints(location, "a target of its own")
    return target


def _is_target(hosted: object) -> TypeGuard[Target]:
    return all(hasattr(hosted, name) for name in ("name", "kind", "hosted", "stream", "new_session", "server_tools"))


def _as_agent(hosted: object) -> SupportsAgentRun:
    if isinstance(hosted, (WorkflowAgent, FunctionalWorkflowAgent)):
        raise ConfigurationError(
            f"The target {hosted.name!r} is a workflow used as an agent, which has one state for everybody: pass the "
            "workflow itself."
        )
    return cast("SupportsAgentRun", hosted)


def _warn_of_checkpoints(location: CheckpointLocation | None, what: str) -> None:
    if location is not None:
        logger.warning("checkpoint_location is for workflows, and the target is %s: it is not used.", what)
