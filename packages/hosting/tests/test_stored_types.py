"""Types of answers in checkpoints, in storages that read classes only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, List, Literal, Optional, Union  # noqa: UP035  the older form, too

import pytest
from agent_framework import WorkflowCheckpoint, WorkflowEvent, WorkflowMessage, register_checkpoint_type

from agent_framework_hosting.checkpoints import FileCheckpoints
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.targets.stored_types import TypedCheckpoints, restored, storable


class Color(Enum):
    """One of two."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Verdict:
    """Fields."""

    approved: bool


for kind in (Color, Verdict):
    register_checkpoint_type(kind)

TYPES: list[Any] = [
    bool,
    Verdict,
    list[str],
    Any,
    bool | None,
    Optional[Verdict],  # noqa: UP045  the older form, too
    Union[int, str],  # noqa: UP007  the older form, too
    Literal["yes", "no", 1],
    Literal[Color.RED],
    list[int | None],
    dict[str, Any],
    list[Verdict],
    list[list[Literal["a"]]] | None,
    tuple[int, ...],
]


def asked(kind: Any) -> WorkflowEvent[Any]:
    return WorkflowEvent.request_info("r1", "clerk", "which?", kind)


def checkpoint_of(kind: Any, *, nested: WorkflowCheckpoint | None = None) -> WorkflowCheckpoint:
    """Return a checkpoint with a request that is open, another that was just answered, and a nested workflow."""
    given = WorkflowMessage(data=True, source_id="clerk", original_request_info_event=asked(kind))
    plain = WorkflowMessage(data="text", source_id="clerk")
    states = {"clerk": {"heard": ["a"]}, "nested": {"sub_workflow_checkpoint": nested}}
    return WorkflowCheckpoint(
        workflow_name="run",
        graph_signature_hash="same",
        pending_request_info_events={"r1": asked(kind)},
        messages={"clerk": [given, plain]},
        state={"_executor_state": states, "own": [1]},
    )


def types_in(checkpoint: WorkflowCheckpoint) -> list[Any]:
    """Return the types of everything that was asked."""
    events = list(checkpoint.pending_request_info_events.values())
    sent = [message for messages in checkpoint.messages.values() for message in messages]
    events += [message.original_request_info_event for message in sent if message.original_request_info_event]
    found = [event.response_type for event in events]
    nested = checkpoint.state["_executor_state"]["nested"]["sub_workflow_checkpoint"]
    return found if nested is None else found + types_in(nested)


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_what_stands_for_a_type_is_that_type_again(kind: Any) -> None:
    assert restored(storable(kind)) == kind


def test_older_forms_become_newer_ones() -> None:
    assert restored(storable(List[Verdict])) == list[Verdict]  # noqa: UP006  it is the older form


@pytest.mark.parametrize("kind", TYPES, ids=str)
async def test_a_checkpoint_keeps_the_types_of_answers_in_a_storage_that_reads_classes(
    kind: Any, tmp_path: Path
) -> None:
    saved = checkpoint_of(kind, nested=checkpoint_of(kind))
    chain = TypedCheckpoints(FileCheckpoints(tmp_path)).chain(SHARED, "run")

    await chain.save(saved)

    chain = TypedCheckpoints(FileCheckpoints(tmp_path)).chain(SHARED, "run")
    loaded = await chain.load(saved.checkpoint_id)
    (listed,) = await chain.list_checkpoints(workflow_name="run")
    latest = await chain.get_latest(workflow_name="run")
    assert latest is not None
    for found in (loaded, listed, latest):
        assert types_in(found) == [kind] * 4
        assert found.state["own"] == [1]
        assert found.state["_executor_state"]["clerk"] == {"heard": ["a"]}
        assert [message.data for message in found.messages["clerk"]] == [True, "text"]
    # What the framework goes on with is not changed.
    assert types_in(saved) == [kind] * 4


async def test_a_chain_is_that_of_the_storage(tmp_path: Path) -> None:
    chain = TypedCheckpoints(FileCheckpoints(tmp_path)).chain(SHARED, "run")
    saved = checkpoint_of(bool)
    await chain.save(saved)

    assert await chain.list_checkpoint_ids(workflow_name="run") == [saved.checkpoint_id]
    assert await chain.delete(saved.checkpoint_id)
    assert await chain.get_latest(workflow_name="run") is None
