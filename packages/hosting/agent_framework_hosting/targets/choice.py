"""Which kind of target an object is that somebody wants to host."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias, TypeGuard, cast

from agent_framework import SupportsAgentRun, Workflow

from ..checkpoints import Checkpoints
from ..directories import PathName
from ..errors import ConfigurationError
from .agent import AgentTarget
from .base import Target

HostTarget: TypeAlias = SupportsAgentRun | Workflow | Callable[[], Workflow] | Target
"""What can be hosted: an agent, a workflow, a function that builds one, or a target of your own."""


def choose_target(
    hosted: object,
    *,
    checkpoint_location: PathName | None,
    checkpoints: Callable[[PathName | None], Checkpoints | None],
) -> Target:
    """Return the target that runs `hosted`, which should be a `HostTarget`.

    `checkpoints` makes what a workflow gets, from `checkpoint_location`; nobody else asks for it.

    Raises:
        ConfigurationError: it cannot be hosted, or has no use for a `checkpoint_location`.
    """
    if inspect.isclass(hosted):
        raise ConfigurationError(f"The target is the class {hosted.__name__}: pass an instance of it.")
    is_workflow = isinstance(hosted, Workflow)
    if not is_workflow and _is_target(hosted):
        _refuse_checkpoints(checkpoint_location, "a target of its own")
        return hosted
    if not is_workflow and callable(getattr(hosted, "run", None)):
        _refuse_checkpoints(checkpoint_location, "an agent")
        return AgentTarget(cast("SupportsAgentRun", hosted))
    if is_workflow or callable(hosted):
        from .workflow import WorkflowTarget  # noqa: PLC0415  only hosts of workflows load it

        return WorkflowTarget(cast("Callable[[], Workflow]", hosted), checkpoints=checkpoints(checkpoint_location))
    hint = " Call its build() first." if callable(getattr(hosted, "build", None)) else ""
    raise ConfigurationError(
        f"The target is a {type(hosted).__name__}: pass an agent, a Workflow, or a function without arguments that "
        f"returns a Workflow.{hint}"
    )


def _is_target(hosted: object) -> TypeGuard[Target]:
    return all(hasattr(hosted, name) for name in ("name", "kind", "hosted", "stream", "new_session", "server_tools"))


def _refuse_checkpoints(location: PathName | None, what: str) -> None:
    if location is not None:
        raise ConfigurationError(
            f"checkpoint_location is for workflows, and the target is {what}: leave checkpoint_location out."
        )
