"""Checkpoints of hosted workflows in a SQL database.

What is stored is the framework's encoding, the same as in the files of `FileCheckpoints`: JSON for everything that JSON
can say, and for all other values a pickle inside the JSON. Reading uses the framework's restricted unpickler:

- A pickle can name plain Python value types (`datetime`, `Decimal`, `deque`, …), classes of `agent_framework`,
  `agent_framework_orchestrations` and `openai.types`, and classes given to `agent_framework.register_checkpoint_type` or
  to `allowed_checkpoint_types`.
  Functions and all other classes are refused. The same list holds for writing: what could not be read back is not saved.
- What callers send is never read as a pickle, whatever it looks like: it gets in as values.
- The list is no wall against whoever can write into the table: classes on it may be made with any arguments, and do what
  they do when they are made or unpickled. Only the host may be able to write into its database.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from agent_framework import CheckpointStorage, WorkflowCheckpoint, WorkflowCheckpointException

# The framework exports its codec only inside of `FileCheckpointStorage`; a second encoding of the same values would be worse.
from agent_framework._workflows._checkpoint_encoding import decode_checkpoint_value, encode_checkpoint_value

from ..checkpoints import NOT_STORABLE, AllowedTypes, is_checkpoint_id, path_segment, read_allowed_types
from ..isolation import Partition
from ..stores.base import Retention, StoreStats
from .database import Database
from .outdated import Outdated
from .tables import checkpoints as table

_RETENTION: Final = Retention()
_MAX_PER_CHAIN: Final = 100
# Fits into an index of PostgreSQL, and has no NUL and no lone surrogate, which databases refuse.
_STORABLE: Final = re.compile(r"[\x01-\ud7ff\ue000-\U0010ffff]{0,500}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class SqlCheckpoints:
    """Checkpoints in a database, each until `retention` forgets it; of each chain the last `max_per_chain`.

    Age is counted from when a checkpoint was saved, by `clock` (Unix seconds).
    """

    def __init__(
        self,
        database: Database,
        *,
        retention: Retention = _RETENTION,
        max_per_chain: int = _MAX_PER_CHAIN,
        allowed_checkpoint_types: AllowedTypes = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._codec = _Codec(read_allowed_types(allowed_checkpoint_types))
        self._retention = retention
        self._max_per_chain = max_per_chain
        self._clock = clock

    def chain(self, partition: Partition, chain: str) -> CheckpointStorage:
        """Return the storage of one chain."""
        return _SqlChain(
            self._database, partition, chain, codec=self._codec, max_checkpoints=self._max_per_chain, clock=self._clock
        )

    async def is_empty(self) -> bool:
        """Whether there is no checkpoint of anybody."""
        query = sa.select(table.c.position).limit(1)
        return await self._database.run(lambda connection: connection.scalar(query)) is None

    async def prune(self, *, limit: int) -> int:
        """Erase what the retention no longer covers, at most `limit` checkpoints; return how many."""
        find = partial(_OUTDATED.find, retention=self._retention, now=self._clock(), limit=limit)
        rows = await self._database.run(find)
        if rows:
            # One that was saved again since has another time.
            found = {"names": [tuple(row)[:3] for row in rows], "times": [row.stored_at for row in rows]}
            await self._database.run(lambda connection: connection.execute(_ERASE, found), erases=True)
        return len(rows)

    async def stats(self) -> StoreStats:
        """Return what the table holds."""
        query = sa.select(
            sa.func.count(), sa.func.sum(sa.func.length(table.c.checkpoint)), sa.func.min(table.c.stored_at)
        )
        entries, size, oldest = await self._database.run(lambda connection: connection.execute(query).one())
        return StoreStats(
            name="checkpoints",
            entries=entries,
            bytes=int(size or 0),
            oldest=None if oldest is None else max(0.0, self._clock() - oldest),
        )


_KEY: Final = (table.c.partition, table.c.chain, table.c.checkpoint_id)
_ORDER: Final = (table.c.position, table.c.stored_at, table.c.checkpoint_id)

_OUTDATED: Final = Outdated(
    sa.select(*_KEY, table.c.stored_at).order_by(table.c.stored_at, table.c.position),
    count=sa.select(sa.func.count()).select_from(table),
    stored_at=table.c.stored_at,
)
_ERASE: Final = sa.delete(table).where(
    sa.tuple_(*_KEY).in_(sa.bindparam("names", expanding=True)),
    table.c.stored_at.in_(sa.bindparam("times", expanding=True)),
)


class _SqlChain:
    """One chain as a `CheckpointStorage` of the framework."""

    def __init__(
        self,
        database: Database,
        partition: Partition,
        chain: str,
        *,
        codec: _Codec,
        max_checkpoints: int,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._codec = codec
        self._partition = _storable(partition)
        self._chain = path_segment(chain)
        self._max_checkpoints = max_checkpoints
        self._clock = clock

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Store a copy of the checkpoint and return its id.

        Raises:
            WorkflowCheckpointException: it holds something that could not be read back, or has no usable id.
            StoreUnavailable: the database cannot be reached.
        """
        _check_id(checkpoint.checkpoint_id)
        # Before the first await: the workflow may go on while the database is busy.
        encoded = self._codec.encoded(checkpoint)
        name, checkpoint_id, stored_at = checkpoint.workflow_name, checkpoint.checkpoint_id, self._clock()

        def save(connection: sa.Connection) -> None:
            # Two saves at once may get the same position on PostgreSQL: then neither is later, and both stay.
            last = sa.select(sa.func.max(table.c.position)).where(*self._is_mine)
            insert = self._database.insert(table).values(
                partition=self._partition,
                chain=self._chain,
                checkpoint_id=checkpoint_id,
                workflow_name=name,
                position=(connection.scalar(last) or 0) + 1,
                checkpoint=encoded,
                stored_at=stored_at,
            )
            changed = ("workflow_name", "position", "checkpoint", "stored_at")
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=list(_KEY), set_={column: insert.excluded[column] for column in changed}
                )
            )
            connection.execute(self._beyond_the_last())

        await self._database.run(save)
        return checkpoint_id

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        """Return the checkpoint.

        Raises:
            WorkflowCheckpointException: there is none, or it holds something that may not be read.
            StoreUnavailable: the database cannot be reached.
        """
        _check_id(checkpoint_id)
        query = self._select(table.c.checkpoint).where(table.c.checkpoint_id == checkpoint_id)
        stored = await self._database.run(lambda connection: connection.scalar(query))
        if stored is None:
            raise WorkflowCheckpointException(f"There is no checkpoint {checkpoint_id}.")
        return self._codec.decoded(stored)

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        """Return the checkpoints of the workflow in the order of saving."""
        query = self._select(table.c.checkpoint).where(table.c.workflow_name == workflow_name).order_by(*_ORDER)
        stored = await self._database.run(lambda connection: connection.scalars(query).all())
        return [self._codec.decoded(checkpoint) for checkpoint in stored]

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        """Return the ids of the checkpoints of the workflow in the order of saving."""
        query = self._select(table.c.checkpoint_id).where(table.c.workflow_name == workflow_name).order_by(*_ORDER)
        return await self._database.run(lambda connection: list(connection.scalars(query)))

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        """Return the checkpoint of the workflow that was saved last."""
        newest_first = [column.desc() for column in _ORDER]
        query = self._select(table.c.checkpoint).where(table.c.workflow_name == workflow_name).order_by(*newest_first)
        stored = await self._database.run(lambda connection: connection.scalar(query.limit(1)))
        return None if stored is None else self._codec.decoded(stored)

    async def delete(self, checkpoint_id: str) -> bool:
        """Erase the checkpoint; `False` if there was none."""
        if not is_checkpoint_id(checkpoint_id):
            return False
        erase = sa.delete(table).where(*self._is_mine, table.c.checkpoint_id == checkpoint_id)
        return await self._database.run(lambda connection: connection.execute(erase).rowcount > 0, erases=True)

    @property
    def _is_mine(self) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
        return table.c.partition == self._partition, table.c.chain == self._chain

    def _select(self, column: sa.Column[Any]) -> sa.Select[tuple[Any]]:
        return sa.select(column).where(*self._is_mine)

    def _beyond_the_last(self) -> sa.Delete:
        oldest_kept = (
            self._select(table.c.position).order_by(table.c.position.desc()).limit(1).offset(self._max_checkpoints - 1)
        )
        return sa.delete(table).where(*self._is_mine, table.c.position < oldest_kept.scalar_subquery())


def _storable(partition: Partition) -> str:
    """Return what stands for `partition` in its column: itself, or a digest if no database takes it."""
    if _STORABLE.fullmatch(partition) and not _DIGEST.fullmatch(partition):
        return partition
    return f"sha256:{hashlib.sha256(partition.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _check_id(checkpoint_id: str) -> None:
    if not is_checkpoint_id(checkpoint_id):
        raise WorkflowCheckpointException("No checkpoint has such an id.")


class _Codec:
    """Checkpoints as bytes, in which no type can be named but the framework's and the allowed ones."""

    def __init__(self, allowed_types: frozenset[str]) -> None:
        self._allowed_types = allowed_types

    def encoded(self, checkpoint: WorkflowCheckpoint) -> bytes:
        try:
            encoded = json.dumps(encode_checkpoint_value(checkpoint.to_dict()), separators=(",", ":")).encode()
        except NOT_STORABLE as error:
            raise WorkflowCheckpointException("The checkpoint holds something that cannot be stored.") from error
        # Better refused now than found to be unreadable when the conversation is to go on.
        self.decoded(encoded)
        return encoded

    def decoded(self, stored: bytes) -> WorkflowCheckpoint:
        try:
            encoded = json.loads(stored)
        except ValueError as error:
            raise WorkflowCheckpointException("The stored checkpoint is damaged.") from error
        # Never without a list, which would mean that everything may be unpickled; the framework adds the registered types.
        return WorkflowCheckpoint.from_dict(decode_checkpoint_value(encoded, allowed_types=self._allowed_types))
