"""Checkpoints whose workflows wait for `bool | None` or `Literal["yes", "no"]`, in storages that know classes only.

The framework keeps the type of an answer in the checkpoint as a pickle, and its restricted unpickler reads classes. Every other
form of type is stored as what it is made of.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Union, get_args, get_origin

from agent_framework import (
    CheckpointStorage,
    WorkflowCheckpoint,
    WorkflowEvent,
    WorkflowMessage,
    register_checkpoint_type,
)

from ..checkpoints import Checkpoints
from ..isolation import Partition
from . import nested

_UNIONS: Final = (Union, types.UnionType)
_SPECIAL: Final = (Any, ...)


@dataclass(frozen=True, slots=True)
class StoredType:
    """What stands for a type that is no class: its form, and what it is made of."""

    form: Literal["special", "union", "literal", "generic"]
    of: tuple[Any, ...] = ()


register_checkpoint_type(StoredType)


class TypedCheckpoints:
    """`checkpoints` that can hold workflows which wait for any form of type."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def chain(self, partition: Partition, chain: str) -> CheckpointStorage:
        """Return the storage of one chain."""
        return _TypedChain(self._checkpoints.chain(partition, chain))


class _TypedChain:
    def __init__(self, chain: CheckpointStorage) -> None:
        self._chain = chain

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        return await self._chain.save(_mapped(checkpoint, storable))

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        return _mapped(await self._chain.load(checkpoint_id), restored)

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        stored = await self._chain.list_checkpoints(workflow_name=workflow_name)
        return [_mapped(checkpoint, restored) for checkpoint in stored]

    async def delete(self, checkpoint_id: str) -> bool:
        return await self._chain.delete(checkpoint_id)

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        latest = await self._chain.get_latest(workflow_name=workflow_name)
        return None if latest is None else _mapped(latest, restored)

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        return await self._chain.list_checkpoint_ids(workflow_name=workflow_name)


def storable(kind: Any) -> Any:
    """Return the type itself if it is a class, else what stands for it."""
    if kind in _SPECIAL:
        return StoredType("special", (_SPECIAL.index(kind),))
    origin, of = get_origin(kind), get_args(kind)
    if origin is Literal:
        return StoredType("literal", of)
    if origin is None:
        return kind
    made_of = tuple(storable(part) for part in of)
    return StoredType("union", made_of) if origin in _UNIONS else StoredType("generic", (origin, *made_of))


def restored(kind: Any) -> Any:
    """Return the type that `storable` was given."""
    if not isinstance(kind, StoredType):
        return kind
    of = tuple(restored(part) for part in kind.of)
    match kind.form:
        case "special":
            return _SPECIAL[of[0]]
        case "literal":
            return Literal[of]
        case "union":
            return Union[of]  # noqa: UP007  built at run time
        case "generic":
            return of[0][of[1:]]


def _mapped(checkpoint: WorkflowCheckpoint, change: Callable[[Any], Any]) -> WorkflowCheckpoint:
    """Return the checkpoint with every type of an answer changed: open and just given ones, and those of nested workflows."""

    def mapped(one: WorkflowCheckpoint) -> WorkflowCheckpoint:
        pending = {name: _event(event, change) for name, event in one.pending_request_info_events.items()}
        messages = {name: [_message(sent, change) for sent in each] for name, each in one.messages.items()}
        return replace(one, pending_request_info_events=pending, messages=messages)

    return nested.changed(checkpoint, mapped)


def _event(event: WorkflowEvent[Any], change: Callable[[Any], Any]) -> WorkflowEvent[Any]:
    kind = change(event.response_type)
    if kind is event.response_type:
        return event
    return WorkflowEvent.request_info(event.request_id, event.source_executor_id, event.data, kind)


def _message(sent: WorkflowMessage, change: Callable[[Any], Any]) -> WorkflowMessage:
    asked = sent.original_request_info_event
    return sent if asked is None else replace(sent, original_request_info_event=_event(asked, change))
