"""Where the checkpoints of hosted workflows lie: one chain per run, in memory, in a directory or in a storage of your own.

Every run that can be asked for by its id writes into a chain of its own, where whoever resumes it finds its newest
checkpoint; all others write into the chain of the session they continue. The chain and the checkpoint that a run ended with
are all a session has to carry, and any turn can be continued from them. In a database they are kept by `agent_framework_hosting.sql.checkpoints`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pickle
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol, TypeAlias, TypeGuard

from agent_framework import (
    CheckpointStorage,
    FileCheckpointStorage,
    InMemoryCheckpointStorage,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
)

from .errors import ConfigurationError, StoreError
from .isolation import Partition
from .stores.base import Retention, StoreStats
from .stores.memory import BoundedDict

_READABLE: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_SEGMENT: Final = re.compile(r"[kh]-[a-z0-9_-]{1,64}", re.ASCII)
_CHECKPOINT_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", re.ASCII)
_SAVE_ATTEMPTS: Final = 5
_RETENTION: Final = Retention()

# What pickling and copying raise for a lock, a lambda, a generator, a cycle, a class of a function's own.
NOT_STORABLE: Final = (TypeError, ValueError, AttributeError, RecursionError, pickle.PicklingError)

# What storages refuse with, and what a checkpoint is that no storage takes.
CHECKPOINT_ERRORS: Final = (WorkflowCheckpointException, StoreError, OSError, *NOT_STORABLE)


def path_segment(key: str) -> str:
    """Return one directory name for `key`, whatever is in it: two keys never share a name, at most 66 characters.

    Short lower-case keys stay readable; all others (and so every `..`, separator, control character and case that some
    file system would fold) become a digest.
    """
    if _READABLE.fullmatch(key):
        return f"k-{key}"
    return f"h-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"


def is_checkpoint_id(name: str) -> bool:
    """Return whether `name` can be the id of a stored checkpoint: a plain name that no store could take for a path."""
    return _CHECKPOINT_ID.fullmatch(name) is not None


_TYPE_NAME: Final = re.compile(r"[^\s:]+:[^\s:]+")

AllowedTypes: TypeAlias = Iterable[str | type]
"""Types of an application that checkpoints may hold: the classes, or their names `"module:qualname"`."""


def read_allowed_types(given: AllowedTypes) -> frozenset[str]:
    """Return the names of all types that may be unpickled besides the framework's own list.

    Raises:
        ConfigurationError: something in `given` is neither a class nor such a name.
    """
    names: set[str] = set()
    for one in [given] if isinstance(given, (str, type)) else given:
        name = f"{one.__module__}:{one.__qualname__}" if isinstance(one, type) else one
        if isinstance(given, (str, type)) or not isinstance(name, str) or not _TYPE_NAME.fullmatch(name):
            raise ConfigurationError(
                f"allowed_checkpoint_types has {one!r}: pass a list of classes, or of names such as "
                "'my_app.models:MyState'."
            )
        names.add(name)
    return frozenset(names)


class Checkpoints(Protocol):
    """The checkpoints of all runs of all partitions."""

    def chain(self, partition: Partition, chain: str) -> CheckpointStorage:
        """Return the storage of one chain; nothing is created before its first checkpoint is saved."""
        ...


class LastingCheckpoints(Checkpoints, Protocol):
    """Checkpoints that outlive their workflows, too: one that is not served any more may have left some."""

    async def is_empty(self) -> bool:
        """Whether there is no checkpoint of anybody."""
        ...


CheckpointLocation: TypeAlias = str | Path | CheckpointStorage
"""Where checkpoints can be kept by name: a directory, or a storage of the framework or of your own."""


def is_storage(location: object) -> TypeGuard[CheckpointStorage]:
    """Whether `location` is a `CheckpointStorage`, and not the path of a directory."""
    methods = ("save", "load", "list_checkpoints", "list_checkpoint_ids", "get_latest", "delete")
    return not isinstance(location, type) and all(callable(getattr(location, name, None)) for name in methods)


def outlive_process(checkpoints: Checkpoints) -> bool:
    """Whether the checkpoints are there after a restart: all are taken to be, unless they are known to lie in memory."""
    if isinstance(checkpoints, StorageCheckpoints):
        return not isinstance(checkpoints.storage, InMemoryCheckpointStorage)
    return not isinstance(checkpoints, MemoryCheckpoints)


class MemoryCheckpoints:
    """Checkpoints of one process: at most `max_chains` chains, the oldest forgotten first.

    Of each chain the last `max_per_chain` checkpoints are kept, and none longer than `max_age` seconds after its last one.
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
        """Return the storage of one chain."""
        return _MemoryChain(self._chains, (partition, chain), self._max_per_chain)


class FileCheckpoints:
    """Checkpoints in a directory: `<location>/<partition>/<chain>/<checkpoint id>.json`.

    The framework's file format keeps values that JSON does not know as pickles inside the JSON and unpickles with a list
    of allowed types: its own, OpenAI's, plain Python values, those given to `register_checkpoint_type` and
    `allowed_checkpoint_types`. That list is no wall: whoever can write into the directory can run code in this process, so only the operator may. What callers
    send gets in as values only.

    The age of a checkpoint is that of its file. A directory goes with its last checkpoint. Other files in the location
    are left alone.
    """

    def __init__(
        self,
        location: str | Path,
        *,
        retention: Retention = _RETENTION,
        allowed_checkpoint_types: AllowedTypes = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        # A later chdir must not move the conversations.
        self._location = Path(location).absolute()
        self._retention = retention
        self._clock = clock
        self._directories = _ChainDirectories()
        self._allowed_types = read_allowed_types(allowed_checkpoint_types)
        if self._location.exists() and not self._location.is_dir():
            raise ConfigurationError("checkpoint_location must be a directory, or a path where one can be made.")

    def chain(self, partition: Partition, chain: str) -> CheckpointStorage:
        """Return the storage of one chain.

        Raises:
            ConfigurationError: the path leads out of the location, over a link that somebody put there.
        """
        path = self._location / path_segment(partition) / path_segment(chain)
        if not path.resolve().is_relative_to(self._location.resolve()):
            raise ConfigurationError("A link below checkpoint_location leads out of it; remove the link.")
        return _FileChain(path, self._directories, self._allowed_types)

    async def is_empty(self) -> bool:
        """Whether there is no checkpoint of anybody."""
        return await asyncio.to_thread(lambda: next(self._chains(), None) is None)

    async def prune(self, *, limit: int) -> int:
        """Erase what the retention no longer covers, at most `limit` checkpoints; return how many."""
        return await asyncio.to_thread(self._prune, limit)

    async def stats(self) -> StoreStats:
        """Return what lies in the directory."""
        files = await asyncio.to_thread(lambda: list(self._files()))
        oldest = min((stored_at for stored_at, _, _ in files), default=None)
        return StoreStats(
            name="checkpoints",
            entries=len(files),
            bytes=sum(size for _, size, _ in files),
            oldest=None if oldest is None else max(0.0, self._clock() - oldest),
        )

    def _prune(self, limit: int) -> int:
        files = sorted(self._files())
        max_age, max_entries = self._retention.max_age, self._retention.max_entries
        too_old = float("-inf") if max_age is None else self._clock() - max_age
        too_many = 0 if max_entries is None else len(files) - max_entries
        outdated = [path for rank, (stored_at, _, path) in enumerate(files) if stored_at < too_old or rank < too_many]
        for path in outdated[:limit]:
            path.unlink(missing_ok=True)
        for chain in self._chains():
            self._directories.remove_if_empty(chain)
        return len(outdated[:limit])

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when it was written (Unix seconds), the size in bytes and the path of every file of every chain."""
        for chain in self._chains():
            for entry in _entries(chain):
                # What a killed process was writing holds text, too, and has nobody else to remove it.
                if entry.is_file(follow_symlinks=False) and entry.name.endswith((".json", ".tmp")):
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # erased since the directory was read
                        continue
                    yield found.st_mtime, found.st_size, Path(entry.path)

    def _chains(self) -> Iterator[Path]:
        for partition in _directories(self._location):
            yield from _directories(partition)


def _directories(parent: Path) -> Iterator[Path]:
    """Yield the directories that `path_segment` has named; what a link leads to is not ours."""
    for entry in _entries(parent):
        if _SEGMENT.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except FileNotFoundError:  # nothing saved yet, or removed since its parent was read
        return []


class _ChainDirectories:
    """Removes the directories of chains when they are empty, and never between a save's making one and its writing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_use: Counter[Path] = Counter()

    @contextmanager
    def in_use(self, chain: Path) -> Generator[None, None, None]:
        """Keep the directory, and its partition's, until the block ends."""
        directories = (chain, chain.parent)
        with self._lock:
            self._in_use.update(directories)
        try:
            yield
        finally:
            with self._lock:
                self._in_use.subtract(directories)
                self._in_use += Counter()  # drops what is at zero

    def remove_if_empty(self, chain: Path) -> None:
        """Remove the directory, and then its partition's, unless something is in it or will be."""
        with self._lock:
            for directory in (chain, chain.parent):
                if self._in_use[directory]:
                    return
                try:
                    directory.rmdir()
                except OSError:  # not empty, or another process was faster
                    return


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
        stored = self._chains.get(self._key)
        return _BoundedStorage(self._max_checkpoints) if stored is None else stored

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        stored = self._stored()
        # Before the await: two runs that open a chain at once must not each bring a storage of their own.
        self._chains.set(self._key, stored)
        return await stored.save(checkpoint)

    async def delete(self, checkpoint_id: str) -> bool:
        stored = self._stored()
        is_deleted = await stored.delete(checkpoint_id)
        # No await since: a run that saves into the chain now opens it anew.
        if not len(stored):
            self._chains.pop(self._key)
        return is_deleted


class _BoundedStorage(InMemoryCheckpointStorage):
    """The framework's storage in memory that keeps the last `max_checkpoints`."""

    def __init__(self, max_checkpoints: int) -> None:
        super().__init__()
        self._max_checkpoints = max_checkpoints
        # By workflow name the framework could list them, but a factory may name every workflow it builds differently.
        self._oldest_first: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._oldest_first)

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
    def __init__(self, path: Path, directories: _ChainDirectories, allowed_types: Iterable[str]) -> None:
        self._path = path
        self._directories = directories
        self._allowed_types = allowed_types

    def _stored(self) -> CheckpointStorage:
        # The framework's storage makes its directory when it is constructed.
        if not self._path.is_dir():
            return InMemoryCheckpointStorage()
        return self._files()

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        _check_id(checkpoint.checkpoint_id)
        with self._directories.in_use(self._path):
            for _ in range(_SAVE_ATTEMPTS - 1):
                try:
                    return await self._save(checkpoint)
                except (FileNotFoundError, FileExistsError):
                    # Another process erased the last checkpoint in the directory, and it with it, while it was made
                    # here ("exists", but is no directory any more) or before it was written into.
                    continue
            return await self._save(checkpoint)

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        _check_id(checkpoint_id)
        return await super().load(checkpoint_id)

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        # The framework's storage leaves out what it cannot read, and a run would look as if it had not begun.
        found: list[WorkflowCheckpoint] = []
        for path in await asyncio.to_thread(lambda: sorted(self._path.glob("*.json"))):
            try:
                found.append(await self.load(path.stem))
            except WorkflowCheckpointException:
                if path.exists():
                    raise
                # Erased since the directory was read.
        return [checkpoint for checkpoint in found if checkpoint.workflow_name == workflow_name]

    async def delete(self, checkpoint_id: str) -> bool:
        is_deleted = is_checkpoint_id(checkpoint_id) and await super().delete(checkpoint_id)
        if is_deleted:
            await asyncio.to_thread(self._directories.remove_if_empty, self._path)
        return is_deleted

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        # Also of what cannot be read: it has to be found to be erased.
        return await asyncio.to_thread(self._ids, workflow_name)

    def _ids(self, workflow_name: str) -> list[str]:
        files = [Path(entry.path) for entry in _entries(self._path) if entry.name.endswith(".json")]
        return [path.stem for path in files if _name_in(path) in {workflow_name, None}]

    async def _save(self, checkpoint: WorkflowCheckpoint) -> str:
        storage = await asyncio.to_thread(self._files)
        return await storage.save(checkpoint)

    def _files(self) -> FileCheckpointStorage:
        return FileCheckpointStorage(self._path, allowed_checkpoint_types=sorted(self._allowed_types))


def _name_in(path: Path) -> str | None:
    """Return the workflow name in a file, `None` if it is damaged or gone."""
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    name = stored.get("workflow_name") if isinstance(stored, dict) else None
    return name if isinstance(name, str) else None


def _check_id(checkpoint_id: str) -> None:
    if not is_checkpoint_id(checkpoint_id):
        raise WorkflowCheckpointException("No checkpoint has such an id.")


class StorageCheckpoints:
    """Checkpoints in one `storage` for everybody, under ids and workflow names that nobody else's have.

    The storage decides what it reads, and when it forgets: pruning is its own. A failure of it to be reached is an
    `OSError` or a `StoreError`; of a checkpoint it does not have, a `WorkflowCheckpointException`.
    """

    def __init__(self, storage: CheckpointStorage) -> None:
        self.storage = storage

    def chain(self, partition: Partition, chain: str) -> CheckpointStorage:
        """Return the storage of one chain."""
        return _StorageChain(self.storage, json.dumps([partition, chain]))


class _StorageChain(_Chain):
    """Finds in a storage what one chain has saved, by a prefix: a digest, so that no key can be taken for a path."""

    def __init__(self, storage: CheckpointStorage, key: str) -> None:
        self._storage = storage
        self._prefix = f"{hashlib.sha256(key.encode()).hexdigest()}-"

    def _stored(self) -> CheckpointStorage:
        return self._storage

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        _check_id(checkpoint.checkpoint_id)
        stored = replace(
            checkpoint,
            checkpoint_id=self._prefix + checkpoint.checkpoint_id,
            workflow_name=self._prefix + checkpoint.workflow_name,
        )
        await self._storage.save(stored)
        return checkpoint.checkpoint_id

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        _check_id(checkpoint_id)
        return self._own(await super().load(self._prefix + checkpoint_id))

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        found = await super().list_checkpoints(workflow_name=self._prefix + workflow_name)
        return [self._own(checkpoint) for checkpoint in found]

    async def delete(self, checkpoint_id: str) -> bool:
        return is_checkpoint_id(checkpoint_id) and await super().delete(self._prefix + checkpoint_id)

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        found = await super().get_latest(workflow_name=self._prefix + workflow_name)
        return None if found is None else self._own(found)

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        found = await super().list_checkpoint_ids(workflow_name=self._prefix + workflow_name)
        return [checkpoint_id.removeprefix(self._prefix) for checkpoint_id in found]

    def _own(self, checkpoint: WorkflowCheckpoint) -> WorkflowCheckpoint:
        return replace(
            checkpoint,
            checkpoint_id=checkpoint.checkpoint_id.removeprefix(self._prefix),
            workflow_name=checkpoint.workflow_name.removeprefix(self._prefix),
        )


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

    A run goes on when a checkpoint cannot be saved. The conversation cannot be continued from there, so it asks at its end: `last_id` and `last_iteration` tell the last checkpoint that was saved, `error` why a later
    one was not.
    """

    def __init__(self, chain: CheckpointStorage) -> None:
        self._chain = chain
        # Everything that may be stored now, also what was being saved when the run was cancelled.
        self._left: dict[str, None] = {}
        self._saving: asyncio.Future[str] | None = None
        self.last_id: str | None = None
        self.last_iteration: int | None = None
        self.error: Exception | None = None

    def _stored(self) -> CheckpointStorage:
        return self._chain

    def adopt(self, stored: Iterable[str], *, last: WorkflowCheckpoint) -> None:
        """Take over what an earlier attempt at this run has stored, and `last` as what was saved last."""
        self._left.update(dict.fromkeys(stored))
        self.last_id, self.last_iteration = last.checkpoint_id, last.iteration_count

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Store the checkpoint in place of those this run saved before."""
        self._left[checkpoint.checkpoint_id] = None
        try:
            # Shielded: a cancelled run does not stop a storage that is writing, so `discard` waits for it.
            self._saving = asyncio.ensure_future(self._chain.save(checkpoint))
            checkpoint_id = await asyncio.shield(self._saving)
        except CHECKPOINT_ERRORS as error:
            self.error = error
            raise
        self.last_id, self.last_iteration = checkpoint_id, checkpoint.iteration_count
        self._left[checkpoint_id] = None
        self.error = None
        # Only after the new one is safe: a run that is killed in between must leave one to resume from.
        await self._delete([left for left in self._left if left != checkpoint_id])
        return checkpoint_id

    async def discard(self) -> None:
        """Delete everything that the run has saved; the run must have ended."""
        await self.settle()
        self.last_id = self.last_iteration = None
        await self._delete(list(self._left))

    async def settle(self) -> None:
        """Wait until nothing is being saved any more; the run must have ended."""
        if self._saving is not None:
            await asyncio.wait([self._saving])

    async def _delete(self, checkpoint_ids: Iterable[str]) -> None:
        for checkpoint_id in checkpoint_ids:
            await self._chain.delete(checkpoint_id)
            del self._left[checkpoint_id]
