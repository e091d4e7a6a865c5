"""Where the checkpoints of hosted workflows lie: one chain per conversation, in memory or in a directory.

A chain is a conversation with all its branches. Every run writes into the chain of its conversation and remembers which
checkpoint it ended with; that pair is all a session has to carry, and any turn of the chain can be continued from it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from agent_framework import (
    CheckpointStorage,
    FileCheckpointStorage,
    InMemoryCheckpointStorage,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
)

from .errors import ConfigurationError
from .isolation import Partition
from .stores.memory import BoundedDict

_READABLE = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)


def path_segment(key: str) -> str:
    """Return one directory name for `key`, whatever is in it: two keys never share a name, at most 66 characters.

    Short lower-case keys stay readable; all others (and so every `..`, separator, control character and case that some
    file system would fold) become a digest.
    """
    if _READABLE.fullmatch(key):
        return f"k-{key}"
    return f"h-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"


class Checkpoints(Protocol):
    """The checkpoints of all conversations of all partitions."""

    def chain(self, partition: Partition, chain: str) -> CheckpointStorage:
        """Return the storage of one conversation; nothing is created before its first checkpoint is saved."""
        ...


class MemoryCheckpoints:
    """Checkpoints of one process: at most `max_chains` conversations, the oldest forgotten first.

    Of each conversation the last `max_per_chain` checkpoints are kept, and none longer than `max_age` seconds after the
    conversation's last one.
    """

    def __init__(
        self,
        *,
        max_chains: int = 10_000,
        max_per_chain: int = 100,
        max_age: float = 30 * 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chains: BoundedDict[tuple[Partition, str], _BoundedStorage] = BoundedDict(
            max_entries=max_chains, max_age=max_age, clock=clock
        )
        self._max_per_chain = max_per_chain

    def __len__(self) -> int:
        return len(self._chains)

    def chain(self, partition: Partition, chain: str) -> CheckpointStorage:
        """Return the storage of one conversation."""
        return _MemoryChain(self._chains, (partition, chain), self._max_per_chain)


class FileCheckpoints:
    """Checkpoints in a directory: `<location>/<partition>/<chain>/<checkpoint id>.json`.

    The framework's file format keeps values that JSON does not know as pickles inside the JSON and unpickles with a list
    of allowed types: its own, OpenAI's, plain Python values and those given to `register_checkpoint_type`. That list is
    no wall: whoever can write into the directory can run code in this process, so only the operator may. What callers
    send gets in as values only.
    """

    def __init__(self, location: str | Path) -> None:
        # A later chdir must not move the conversations.
        self._location = Path(location).absolute()
        if self._location.exists() and not self._location.is_dir():
            raise ConfigurationError("checkpoint_location must be a directory, or a path where one can be made.")

    def chain(self, partition: Partition, chain: str) -> CheckpointStorage:
        """Return the storage of one conversation.

        Raises:
            ConfigurationError: the path leads out of the location, over a link that somebody put there.
        """
        path = self._location / path_segment(partition) / path_segment(chain)
        if not path.resolve().is_relative_to(self._location.resolve()):
            raise ConfigurationError("A link below checkpoint_location leads out of it; remove the link.")
        return _FileChain(path)


class _Chain(ABC):
    """A `CheckpointStorage` over one of the framework's, which may not exist yet."""

    @abstractmethod
    def _stored(self) -> CheckpointStorage:
        """Return what is stored; reading must not create anything."""

    @abstractmethod
    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Store a copy of the checkpoint and return its id."""

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        """Return a copy of the checkpoint; `WorkflowCheckpointException` if there is none."""
        return await self._stored().load(checkpoint_id)

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        """Return copies of the checkpoints of the workflow."""
        return await self._stored().list_checkpoints(workflow_name=workflow_name)

    async def delete(self, checkpoint_id: str) -> bool:
        """Forget the checkpoint; `False` if there was none."""
        return await self._stored().delete(checkpoint_id)

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        """Return a copy of the youngest checkpoint of the workflow."""
        return await self._stored().get_latest(workflow_name=workflow_name)

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        """Return the ids of the checkpoints of the workflow."""
        return await self._stored().list_checkpoint_ids(workflow_name=workflow_name)


class _MemoryChain(_Chain):
    def __init__(
        self,
        chains: BoundedDict[tuple[Partition, str], _BoundedStorage],
        key: tuple[Partition, str],
        max_checkpoints: int,
    ) -> None:
        self._chains = chains
        self._key = key
        self._max_checkpoints = max_checkpoints

    def _stored(self) -> _BoundedStorage:
        return self._chains.get(self._key) or _BoundedStorage(self._max_checkpoints)

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        stored = self._stored()
        # Before the await: two runs that open a chain at once must not each bring a storage of their own.
        self._chains.set(self._key, stored)
        return await stored.save(checkpoint)


class _BoundedStorage(InMemoryCheckpointStorage):
    """The framework's storage in memory that keeps the last `max_checkpoints`."""

    def __init__(self, max_checkpoints: int) -> None:
        super().__init__()
        self._max_checkpoints = max_checkpoints
        # By workflow name the framework could list them, but a factory may name every workflow it builds differently.
        self._oldest_first: dict[str, None] = {}

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        checkpoint_id = await super().save(checkpoint)
        self._oldest_first[checkpoint_id] = None
        while len(self._oldest_first) > self._max_checkpoints:
            await self.delete(next(iter(self._oldest_first)))
        return checkpoint_id

    async def delete(self, checkpoint_id: str) -> bool:
        self._oldest_first.pop(checkpoint_id, None)
        return await super().delete(checkpoint_id)


class _FileChain(_Chain):
    def __init__(self, path: Path) -> None:
        self._path = path

    def _stored(self) -> CheckpointStorage:
        # The framework's storage makes its directory when it is constructed.
        return FileCheckpointStorage(self._path) if self._path.is_dir() else InMemoryCheckpointStorage()

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        storage = await asyncio.to_thread(FileCheckpointStorage, self._path)
        return await storage.save(checkpoint)


class ReadOnlyCheckpoints(_Chain):
    """A chain from which a workflow is restored, or that a run without a session gets: what is saved is dropped.

    Restoring makes the framework save the restored state again under a new id. Answering with the id of the checkpoint
    it was restored from says that nothing has changed.
    """

    def __init__(self, chain: CheckpointStorage | None = None) -> None:
        self._chain = chain if chain is not None else InMemoryCheckpointStorage()

    def _stored(self) -> CheckpointStorage:
        return self._chain

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Return the id of the checkpoint before this one; store nothing."""
        return checkpoint.previous_checkpoint_id or checkpoint.checkpoint_id


class RunCheckpoints(_Chain):
    """The chain as one run writes it: only its newest checkpoint stays, and what went wrong is remembered.

    The framework logs a checkpoint that cannot be saved and goes on. A conversation cannot be continued from there, so
    the run asks at its end: `last_id` and `last_iteration` tell the last checkpoint that was saved, `error` why a later
    one was not.
    """

    def __init__(self, chain: CheckpointStorage) -> None:
        self._chain = chain
        self.last_id: str | None = None
        self.last_iteration: int | None = None
        self.error: Exception | None = None

    def _stored(self) -> CheckpointStorage:
        return self._chain

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Store the checkpoint in place of the one this run saved before."""
        try:
            checkpoint_id = await self._chain.save(checkpoint)
        except (WorkflowCheckpointException, OSError, TypeError) as error:
            # What files and copies refuse. Anything else is in the framework's log only, and seen by `last_iteration`.
            self.error = error
            raise
        superseded, self.last_id = self.last_id, checkpoint_id
        self.last_iteration = checkpoint.iteration_count
        self.error = None
        if superseded is not None:
            # Only after the new one is safe: a run that is killed in between must leave one to resume from.
            await self._chain.delete(superseded)
        return checkpoint_id
