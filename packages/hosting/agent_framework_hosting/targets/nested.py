"""Checkpoints of workflows with workflows in them: a `WorkflowExecutor` keeps that of its own in its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from agent_framework import WorkflowCheckpoint

_STATES: Final = "_executor_state"
_NESTED: Final = "sub_workflow_checkpoint"


def changed(
    checkpoint: WorkflowCheckpoint, change: Callable[[WorkflowCheckpoint], WorkflowCheckpoint]
) -> WorkflowCheckpoint:
    """Return the checkpoint changed, and those of the workflows in it; what was given stays as it is."""
    states = {name: _state(state, change) for name, state in checkpoint.state.get(_STATES, {}).items()}
    if states:
        checkpoint = replace(checkpoint, state={**checkpoint.state, _STATES: states})
    return change(checkpoint)


def _state(state: Any, change: Callable[[WorkflowCheckpoint], WorkflowCheckpoint]) -> Any:
    nested = state.get(_NESTED) if isinstance(state, dict) else None
    return {**state, _NESTED: changed(nested, change)} if isinstance(nested, WorkflowCheckpoint) else state
