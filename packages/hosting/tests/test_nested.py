"""Checkpoints in checkpoints."""

from __future__ import annotations

from dataclasses import replace

from agent_framework import WorkflowCheckpoint

from agent_framework_hosting.targets.nested import changed


def checkpoint_of(nested: WorkflowCheckpoint | None, count: int) -> WorkflowCheckpoint:
    """Return a checkpoint after `count` supersteps with another one in the state of an executor."""
    states = {"plain": {"heard": ["a"]}, "odd": "text", "nested": {"sub_workflow_checkpoint": nested, "more": 1}}
    return WorkflowCheckpoint(
        workflow_name="w", graph_signature_hash="h", iteration_count=count, state={"_executor_state": states, "own": 2}
    )


def counts_in(checkpoint: WorkflowCheckpoint) -> list[int]:
    """Return the supersteps of the checkpoint and of those in it."""
    nested = checkpoint.state["_executor_state"]["nested"]["sub_workflow_checkpoint"]
    return [checkpoint.iteration_count, *([] if nested is None else counts_in(nested))]


def test_all_levels_are_changed_and_what_was_given_is_not() -> None:
    given = checkpoint_of(checkpoint_of(checkpoint_of(None, 3), 2), 1)

    made = changed(given, lambda checkpoint: replace(checkpoint, iteration_count=0))

    assert (counts_in(made), counts_in(given)) == ([0, 0, 0], [1, 2, 3])
    states = made.state["_executor_state"]
    assert (states["plain"], states["odd"], states["nested"]["more"]) == ({"heard": ["a"]}, "text", 1)
    assert made.state["own"] == 2


def test_a_checkpoint_without_executors_is_changed() -> None:
    empty = WorkflowCheckpoint(workflow_name="w", graph_signature_hash="h", iteration_count=1)

    assert changed(empty, lambda checkpoint: replace(checkpoint, iteration_count=0)).iteration_count == 0
