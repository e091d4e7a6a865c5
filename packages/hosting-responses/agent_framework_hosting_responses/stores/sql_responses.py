"""Responses in a SQL database.

A deleted response that others continue stays as a tombstone, without its body and gone for every reader, until the
last of them is deleted too. Nobody else may take its id.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from agent_framework_hosting.errors import AlreadyExists, StaleWrite, StoreError
from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import Attempt, Participant, RunId, RunKey, RunStatus
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.stores.base import Retention, StoreStats

from . import sql_turns
from .base import ConversationId, ConversationKey, IdempotencyKey, OwnedRun, ResponseRecord, UnknownConversation
from .context import EMPTY, Context
from .context_cache import MAX_BYTES, ChainContext, ContextCache, size_of
from .rows import (
    TOMBSTONE,
    columns_of,
    decode_items,
    decode_notes,
    encode_items,
    encode_notes,
    is_text,
    key_text,
    record_of,
    state_of,
)
from .sql_erasure import OUTDATED, erase, erase_outdated
from .tables import IS_RUNNING, conversations, responses, settlements

_IS_LIVE = responses.c.is_deleted.is_(sa.false())
_THIS = sa.and_(responses.c.partition == sa.bindparam("p"), responses.c.id == sa.bindparam("r"))

_GET = sa.select(responses).where(_THIS, _IS_LIVE)
_GET_NAMED = sa.select(responses).where(
    responses.c.partition == sa.bindparam("p"), responses.c.idempotency_key == sa.bindparam("name"), _IS_LIVE
)
_BEGIN = (
    sa.update(responses)
    .where(_THIS, _IS_LIVE, IS_RUNNING)
    .values(attempt=responses.c.attempt + 1, owner=sa.bindparam("new_owner"))
    .returning(responses.c.attempt, responses.c.conversation_id)
)
_HAND_OVER = (
    sa.update(responses)
    .where(_THIS, responses.c.owner == sa.bindparam("old_owner"), _IS_LIVE, IS_RUNNING)
    .values(owner=sa.bindparam("new_owner"))
    .returning(responses.c.conversation_id)
)
_SAVE = (
    sa.update(responses)
    .where(_THIS, responses.c.attempt == sa.bindparam("mine"), _IS_LIVE, IS_RUNNING)
    .values(
        {
            name: sa.bindparam(name)
            for name in ("status", "stored_at", "has_session", "body", "output", "notes", "request")
        },
    )
)

# Whoever erases the parent at this moment waits, and then sees that it is continued.
_HOLD_PARENT = sa.select(responses.c.id).where(_THIS).with_for_update(read=True)

_FIND = sa.select(responses.c.status, responses.c.conversation_id).where(_THIS, _IS_LIVE).with_for_update()


def _chain() -> sa.Select[Any]:
    """Select a response and everything it continues."""
    chain = (
        sa.select(responses.c.id, responses.c.previous_response_id.label("previous"))
        .where(_THIS)
        .cte("chain", recursive=True)
    )
    before = responses.alias("before")
    # UNION leaves out what was there: even a chain that ends in itself would end.
    chain = chain.union(
        sa.select(before.c.id, before.c.previous_response_id)
        .select_from(before.join(chain, before.c.id == chain.c.previous))
        .where(before.c.partition == sa.bindparam("p"))
    )
    columns = (
        "id",
        "status",
        "stored_at",
        "is_deleted",
        "has_session",
        "previous_response_id",
        "conversation_id",
        "conversation_position",
        "input",
        "output",
        "notes",
    )
    return (
        sa.select(*(responses.c[name] for name in columns))
        .select_from(responses.join(chain, responses.c.id == chain.c.id))
        .where(responses.c.partition == sa.bindparam("p"))
    )


_CHAIN = _chain()

_OWNERS = sa.union(
    sa.select(responses.c.owner).where(IS_RUNNING),
    sa.select(conversations.c.running_owner).where(conversations.c.running_owner.is_not(None)),
    sa.select(settlements.c.owner).where(settlements.c.owner.is_not(None)),
)
_RUNNING_OF = (
    sa.select(*(responses.c[name] for name in ("partition", "id", "attempt", "is_background", "created_at")))
    .where(responses.c.owner == sa.bindparam("owner"), IS_RUNNING)
    .order_by(responses.c.created_at)
    .limit(sa.bindparam("most"))
)

_COUNT = sa.select(sa.func.count(), sa.func.min(responses.c.stored_at)).where(_IS_LIVE)
_BYTES = sa.select(
    sa.func.coalesce(
        sa.func.sum(
            sa.func.length(responses.c.body) + sa.func.length(responses.c.input) + sa.func.length(responses.c.output)
        ),
        0,
    )
)


class SqlResponseStore:
    """Responses in a database.

    Forgets what `retention` says when it is pruned, and never a response that runs. `clock` gives Unix seconds. Contexts
    of chains are kept in memory, about `cache_bytes` of them, so that a turn does not read the turns before it. When
    another process has deleted a response, `get` knows at once and `context` from the next `get` on. `before_pruning`
    erases what others keep of responses that are about to go; until it has returned they stay, to be found again.
    """

    def __init__(
        self,
        database: Database,
        *,
        retention: Retention = Retention(),  # noqa: B008  frozen
        clock: Callable[[], float] = time.time,
        cache_bytes: int = MAX_BYTES,
        before_pruning: Callable[[Sequence[RunKey]], Awaitable[None]] | None = None,
    ) -> None:
        self._database = database
        self._retention = retention
        self._clock = clock
        self._before_pruning = before_pruning
        self._contexts = ContextCache(max_bytes=cache_bytes)
        self._insert = database.insert(responses).on_conflict_do_nothing().execution_options(preserve_rowcount=True)

    async def create(
        self, record: ResponseRecord, context: Context | None = None, participants: Sequence[Participant] = ()
    ) -> ResponseRecord | None:
        """Store a new response. See `ResponseStore.create`."""
        if not is_text(*record.key, record.previous_response_id):
            raise StoreError("The database cannot hold this id.")
        if not is_text(record.conversation_id):
            raise UnknownConversation("There is no such conversation.")
        now = self._clock()
        columns = columns_of(record, stored_at=now)
        create = partial(self._create, record=record, columns=columns, context=context, participants=participants)
        known = await self._database.run(create)
        if known is not None:
            return record_of(known)
        if record.status.is_terminal:
            self._contexts.end(record, context, size=_size(columns), stored_at=now)
        else:
            self._contexts.start(record, context)
        return None

    async def get(self, key: RunKey | IdempotencyKey) -> ResponseRecord | None:
        """Return the response. See `ResponseStore.get`."""
        if not is_text(key.partition):
            return None
        if isinstance(key, IdempotencyKey):
            named = {"p": key.partition, "name": key_text(key.key)}
            row = await self._database.run(lambda connection: connection.execute(_GET_NAMED, named).first())
            return None if row is None else record_of(row)
        if not is_text(key.run_id):
            return None
        row = await self._database.run(lambda connection: connection.execute(_GET, _names(key)).first())
        self._contexts.check(key, stored_at=None if row is None else row.stored_at)
        return None if row is None else record_of(row)

    async def begin(self, key: RunKey, *, owner: str = "") -> Attempt | None:
        """Start the next attempt. See `ResponseStore.begin`."""
        if not is_text(*key):
            return None

        def begin(connection: sa.Connection) -> int | None:
            row = _own(connection, _BEGIN, key, {"new_owner": owner})
            return None if row is None else int(row.attempt)

        number = await self._database.run(begin)
        return None if number is None else Attempt(key, number)

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        """Replace the response by its next state. See `ResponseStore.save`.

        What it was asked, and what it continues, stays as it was created.
        """
        now = self._clock()
        state = state_of(record, stored_at=now)
        values = {**_names(attempt.key), "mine": attempt.number, **state}

        def save(connection: sa.Connection) -> None:
            if not is_text(*attempt.key) or not connection.execute(_SAVE, values).rowcount:
                raise StaleWrite("The response is terminal or gone, or a later attempt has begun.")
            if record.status.is_terminal and record.conversation_id is not None:
                sql_turns.finish(connection, record, now=now)

        await self._database.run(save)
        if record.status.is_terminal:
            size = _size({**state, "input": encode_items(record.input)})
            self._contexts.end(record, None, size=size, stored_at=now)

    async def delete(self, key: RunKey) -> bool:
        """Erase the response, and its session if it is in the database. See `ResponseStore.delete`."""
        if not is_text(*key):
            return False

        def delete(connection: sa.Connection) -> bool:
            row = connection.execute(_FIND, _names(key)).first()
            if row is None:
                return False
            if row.conversation_id is not None and not RunStatus(row.status).is_terminal:
                sql_turns.unlock(connection, _runner_names(key, row.conversation_id))
            erase(connection, [key])
            return True

        try:
            return await self._database.run(delete, erases=True)
        finally:
            # Also when cancelled: it may be done nevertheless.
            self._contexts.forget(key)

    async def context(self, key: RunKey) -> Context | None:
        """Return the context that ends with this response. See `ResponseStore.context`."""
        if not is_text(*key):
            return None
        kept = self._contexts.get(key)
        if kept is not None:
            return kept
        found = await self._database.run(partial(_read_context, key=key))
        if found is None:
            return None
        context, stored_at = found
        if isinstance(context, ChainContext) and stored_at is not None:
            self._contexts.put(key, context, stored_at=stored_at)
        return context

    async def running_owners(self) -> set[str]:
        """Return the processes that have running responses, locked conversations or answers that are not stored."""
        rows = await self._database.run(lambda connection: connection.execute(_OWNERS).scalars().all())
        return set(rows)

    async def hand_over(self, key: RunKey, *, owner: str, to: str) -> bool:
        """Make `to` responsible for a running response of `owner`, and for the lock of its conversation.

        `False` if it is not the owner's any more.
        """
        owners = {"old_owner": owner, "new_owner": to}
        return await self._database.run(lambda connection: _own(connection, _HAND_OVER, key, owners)) is not None

    async def running_of(self, owner: str, *, limit: int) -> Sequence[OwnedRun]:
        """Return at most `limit` running responses of the process, the oldest first."""
        values = {"owner": owner, "most": limit}
        rows = await self._database.run(lambda connection: connection.execute(_RUNNING_OF, values).all())
        return [OwnedRun.of(row) for row in rows]

    async def prune(self, *, limit: int) -> int:
        """Erase at most `limit` responses that are older or more than the retention allows, with their sessions."""
        find = partial(OUTDATED.find, retention=self._retention, now=self._clock(), limit=limit)
        rows = await self._database.run(find)
        keys = [RunKey(Partition(row.partition), RunId(row.id)) for row in rows]
        if keys and self._before_pruning is not None:
            await self._before_pruning(keys)
        if keys:
            try:
                await self._database.run(partial(erase_outdated, rows=rows), erases=True)
            finally:
                for key in keys:
                    self._contexts.forget(key)
        return len(keys)

    async def stats(self) -> StoreStats:
        """Return what the store holds; `bytes` includes what is kept for responses that continue deleted ones."""

        def stats(connection: sa.Connection) -> StoreStats:
            entries, oldest = connection.execute(_COUNT).one()
            size = connection.execute(_BYTES).scalar_one()
            age = None if oldest is None else self._clock() - oldest
            return StoreStats(name="responses", entries=entries, bytes=int(size), oldest=age)

        return await self._database.run(stats)

    def _create(
        self,
        connection: sa.Connection,
        *,
        record: ResponseRecord,
        columns: Mapping[str, object],
        context: Context | None,
        participants: Sequence[Participant],
    ) -> Any:
        """Insert the row; return the one that has its idempotency key already, instead."""
        if not connection.execute(self._insert, columns).rowcount:
            if record.idempotency_key is not None:
                named = {"p": record.key.partition, "name": columns["idempotency_key"]}
                known = connection.execute(_GET_NAMED, named).first()
                if known is not None:
                    return known
            raise AlreadyExists("A response with this id exists.")
        if record.previous_response_id is not None:
            self._hold_parent(connection, record, columns, context)
        if record.conversation_id is not None:
            sql_turns.lock(connection, record)
            if record.status.is_terminal:
                sql_turns.finish(connection, record, now=self._clock())
        for participant in participants:
            participant.write(connection, self._database.url)
        return None

    def _hold_parent(
        self,
        connection: sa.Connection,
        record: ResponseRecord,
        columns: Mapping[str, object],
        context: Context | None,
    ) -> None:
        """See to it that the response continues something that is there, if only as a tombstone.

        It may have been deleted since the response began: as nothing continued it yet, it is gone altogether.
        """
        names = {"p": record.key.partition, "r": record.previous_response_id}
        if context is None or connection.execute(_HOLD_PARENT, names).first() is not None:
            return
        tombstone = {
            **TOMBSTONE,
            "partition": record.key.partition,
            "id": record.previous_response_id,
            "created_at": record.created_at,
            "stored_at": columns["stored_at"],
            "input": encode_items(context.all_items()),
            "notes": encode_notes(context.all_approvals(), context.all_call_ids()),
        }
        connection.execute(self._insert, tombstone)


def _own(connection: sa.Connection, update: sa.UpdateBase, key: RunKey, owners: Mapping[str, str]) -> Any:
    """Make `new_owner` responsible for a running response and for the lock of its conversation; return what changed."""
    row = connection.execute(update, {**_names(key), **owners}).first()
    if row is not None and row.conversation_id is not None:
        sql_turns.hand_over(connection, _runner_names(key, row.conversation_id), owner=owners["new_owner"])
    return row


def _names(key: RunKey) -> dict[str, object]:
    return {"p": key.partition, "r": key.run_id}


def _runner_names(key: RunKey, conversation_id: str) -> dict[str, object]:
    return {"p": key.partition, "c": conversation_id, "response": key.run_id}


def _size(columns: Mapping[str, object]) -> int:
    return size_of(*(value for name in ("input", "output") if isinstance(value := columns[name], bytes)))


def _read_context(connection: sa.Connection, *, key: RunKey) -> tuple[Context, float | None] | None:
    """Return the context, and when its response was written if that was its end."""
    rows = {row.id: row for row in connection.execute(_CHAIN, _names(key))}
    last = rows.pop(key.run_id, None)
    if last is None or last.is_deleted:
        return None
    newest_first: list[Any] = []
    row: Any = last
    while row is not None:
        newest_first.append(row)
        row = rows.pop(row.previous_response_id, None)
    context = _linked(connection, key.partition, newest_first)
    return context, last.stored_at if RunStatus(last.status).is_terminal else None


def _linked(connection: sa.Connection, partition: Partition, newest_first: Sequence[Any]) -> Context:
    """Return the context of a chain of rows: a `ChainContext` unless it begins in a conversation."""
    first = newest_first[-1]
    is_chain = first.conversation_id is None
    context = EMPTY
    if not is_chain:
        conversation = ConversationKey(partition, ConversationId(first.conversation_id))
        context = sql_turns.items_before(connection, conversation, first.conversation_position)
    for row in reversed(newest_first):
        notes = decode_notes(row.notes)
        make = partial(ChainContext, own_size=size_of(row.input, row.output)) if is_chain else Context
        context = make(
            (*decode_items(row.input), *decode_items(row.output)),
            parent=None if context is EMPTY else context,
            response_id=row.id,
            has_session=row.has_session,
            approvals=notes.approvals,
            call_ids=notes.call_ids,
        )
    return context
