"""Conversations in a SQL database."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, cast

import sqlalchemy as sa

from agent_framework_hosting.errors import AlreadyExists, StoreError
from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.outdated import Outdated
from agent_framework_hosting.stores.base import Retention, StoreStats

from ..protocol.json import JsonObject, decode_json, encode_json
from ..protocol.query import ListQuery
from .base import (
    ConversationHead,
    ConversationId,
    ConversationKey,
    ConversationRecord,
    ResponseRecord,
    UnknownConversation,
)
from .context import EMPTY, Context
from .context_cache import MAX_BYTES, SizedCache, size_of
from .rows import is_text, item_columns, key_text
from .sql_turns import (
    CONTENT,
    COUNT,
    EXISTS,
    ITEMS,
    TAKEN,
    THIS,
    WINDOW,
    extended,
    finish,
    insert_items,
    lock,
    names_of,
)
from .tables import IS_RUNNING, conversation_items, conversations, responses, settlements

_NEWEST: Final = 2**62

_IS_ITEM = sa.and_(ITEMS, conversation_items.c.item_id == sa.bindparam("item"))

_GET = sa.select(conversations.c.created_at, conversations.c.metadata).where(THIS)
_UPDATE = (
    sa.update(conversations)
    .where(THIS)
    .values(metadata=sa.bindparam("new_metadata"), stored_at=sa.bindparam("now"))
    .returning(conversations.c.created_at, conversations.c.metadata)
)
_NAMES: Final[sa.BindParameter[Any]] = sa.bindparam("names", expanding=True)
_IS_NAMED = sa.tuple_(conversations.c.partition, conversations.c.id).in_(_NAMES)
_DELETE = sa.delete(conversations).where(_IS_NAMED)
_DELETE_ITEMS = sa.delete(conversation_items).where(
    sa.tuple_(conversation_items.c.partition, conversation_items.c.conversation_id).in_(_NAMES)
)
# Of responses that were erased before they were answered here: the others take their answers along themselves.
_FORGET_ANSWERS = sa.delete(settlements).where(
    sa.tuple_(settlements.c.partition, settlements.c.response_id).in_(
        sa.select(conversation_items.c.partition, conversation_items.c.response_id).where(
            sa.tuple_(conversation_items.c.partition, conversation_items.c.conversation_id).in_(_NAMES),
            conversation_items.c.response_id.is_not(None),
        )
    ),
    ~sa.exists().where(responses.c.partition == settlements.c.partition, responses.c.id == settlements.c.response_id),
)
_APPEND = (
    sa.update(conversations)
    .where(THIS)
    .values(next_position=conversations.c.next_position + COUNT, stored_at=sa.bindparam("now"))
    .returning(conversations.c.next_position)
)
_POSITION = sa.select(conversation_items.c.position).where(_IS_ITEM)
_PLACE = sa.select(conversation_items.c.position, conversation_items.c.response_id).where(_IS_ITEM)
_ITEM = sa.select(conversation_items.c.item).where(_IS_ITEM)
_NOTE_REMOVAL = (
    sa.update(conversations)
    .where(THIS)
    .values(
        generation=conversations.c.generation + 1,
        next_position=conversations.c.next_position + 1,
        stored_at=sa.bindparam("now"),
    )
)
# The sessions that know the item: those after its own response and after later ones.
_FORGET_SESSIONS = (
    sa.update(conversation_items)
    .where(
        ITEMS,
        sa.or_(
            conversation_items.c.position > sa.bindparam("removed"),
            conversation_items.c.response_id == sa.bindparam("response", type_=sa.Text),
        ),
        conversation_items.c.has_session.is_(sa.true()),
    )
    .values(has_session=False)
)
_REMOVE = sa.delete(conversation_items).where(_IS_ITEM)

_PAGES: Final = {
    order: sa.select(conversation_items.c.item).where(WINDOW).order_by(by).limit(sa.bindparam("most"))
    for order, by in (("asc", conversation_items.c.position.asc()), ("desc", conversation_items.c.position.desc()))
}
_HEAD = sa.select(conversations.c.generation, conversations.c.next_position).where(THIS)

_RUNS = sa.exists().where(
    responses.c.partition == conversations.c.partition,
    responses.c.id == conversations.c.running_response_id,
    IS_RUNNING,
)
_RELEASE = (
    sa.update(conversations)
    .where(conversations.c.running_owner == sa.bindparam("owner"), ~_RUNS)
    .values(running_response_id=None, running_owner=None)
)

_IDLE = conversations.c.running_response_id.is_(None)
_OUTDATED = Outdated(
    sa.select(conversations.c.partition, conversations.c.id, conversations.c.stored_at)
    .where(_IDLE)
    .order_by(conversations.c.stored_at),
    count=sa.select(sa.func.count()).select_from(conversations),
    stored_at=conversations.c.stored_at,
)
# What was found and has not been used since: that gives it another time.
_HOLD = (
    sa.select(conversations.c.partition, conversations.c.id)
    .where(_IS_NAMED, _IDLE, conversations.c.stored_at.in_(sa.bindparam("times", expanding=True)))
    .order_by(conversations.c.partition, conversations.c.id)
    .with_for_update()
)
_COUNT_ALL = sa.select(sa.func.count(), sa.func.min(conversations.c.stored_at)).select_from(conversations)
_ITEM_BYTES = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(conversation_items.c.item)), 0))


class _Read(NamedTuple):
    """The items of a conversation as they were read: right as long as the generation is the same, up to `position`."""

    generation: int
    position: int
    context: Context
    size: int


class SqlConversationStore:
    """Conversations, their items and their locks in a database.

    Forgets what `retention` says when it is pruned, and never a conversation in which a response runs. `clock` gives Unix
    seconds. A turn reads only the items that came since the last one: what was read is kept in memory, `cache_bytes` at
    most.
    """

    def __init__(
        self,
        database: Database,
        *,
        retention: Retention = Retention(),  # noqa: B008  frozen
        clock: Callable[[], float] = time.time,
        cache_bytes: int = MAX_BYTES,
    ) -> None:
        self._database = database
        self._retention = retention
        self._clock = clock
        self._read: SizedCache[ConversationKey, _Read] = SizedCache(max_size=cache_bytes)
        self._create = database.insert(conversations).on_conflict_do_nothing().execution_options(preserve_rowcount=True)

    async def create(self, record: ConversationRecord, items: Sequence[JsonObject]) -> None:
        """Store a new conversation. See `ConversationStore.create`."""
        if not is_text(*record.key):
            raise StoreError("The database cannot hold this id.")
        _check_distinct(items)
        row = {
            "partition": record.key.partition,
            "id": record.key.conversation_id,
            "created_at": record.created_at,
            "stored_at": self._clock(),
            "metadata": encode_json(dict(record.metadata)),
            "next_position": len(items),
            # At random: a cache must not take a conversation for an earlier one of the same id.
            "generation": secrets.randbits(30),
        }
        columns = item_columns(items, approvals={}, call_ids={})

        def create(connection: sa.Connection) -> None:
            if not connection.execute(self._create, row).rowcount:
                raise AlreadyExists("A conversation with this id exists.")
            if columns:
                insert_items(connection, names_of(record.key), columns, first=0)

        await self._database.run(create)

    async def get(self, key: ConversationKey) -> ConversationRecord | None:
        """Return the conversation. See `ConversationStore.get`."""
        return _record(key, await self._first(_GET, key))

    async def update(self, key: ConversationKey, metadata: Mapping[str, str]) -> ConversationRecord | None:
        """Replace the metadata. See `ConversationStore.update`."""
        values = {"new_metadata": encode_json(dict(metadata)), "now": self._clock()}
        return _record(key, await self._first(_UPDATE, key, values))

    async def delete(self, key: ConversationKey) -> bool:
        """Erase the conversation. See `ConversationStore.delete`."""
        if not is_text(*key):
            return False
        is_gone = await self._database.run(partial(_erase, keys=[key]), erases=True) > 0
        self._read.drop(key)
        return is_gone

    async def head(self, key: ConversationKey) -> ConversationHead | None:
        """Return where a new response starts from. See `ConversationStore.head`."""
        if not is_text(*key):
            return None
        read = self._read.get(key)

        def head(connection: sa.Connection) -> tuple[Any, Sequence[Any]] | None:
            row = connection.execute(_HEAD, names_of(key)).first()
            if row is None:
                return None
            low = read.position if read is not None and read.generation == row.generation else 0
            if low == row.next_position:
                return row, ()
            window = {"low": low, "high": row.next_position}
            return row, connection.execute(CONTENT, {**names_of(key), **window}).all()

        found = await self._database.run(head)
        if found is None:
            self._read.drop(key)
            return None
        row, new = found
        if read is None or read.generation != row.generation:
            read = _Read(row.generation, 0, EMPTY, 0)
        if read.position != row.next_position:
            size = read.size + size_of(*(item.item for item in new))
            read = _Read(row.generation, row.next_position, extended(read.context, new), size)
            self._read.put(key, read, size=size)
        return ConversationHead(context=read.context, position=row.next_position)

    async def append(self, key: ConversationKey, items: Sequence[JsonObject]) -> None:
        """Append items. See `ConversationItems.append`."""
        names = names_of(key)
        _check_distinct(items)
        columns = item_columns(items, approvals={}, call_ids={})
        values = {**names, "count": len(columns), "now": self._clock()}

        def append(connection: sa.Connection) -> None:
            end = connection.execute(_APPEND, values).scalar()
            if end is None:
                raise UnknownConversation("There is no such conversation.")
            if not columns:
                return
            if connection.execute(TAKEN, {**names, "ids": [column["item_id"] for column in columns]}).first():
                raise AlreadyExists("An item with this id is in the conversation.")
            insert_items(connection, names, columns, first=end - len(columns))

        await self._database.run(append)

    async def item(self, key: ConversationKey, item_id: str) -> JsonObject | None:
        """Return one item. See `ConversationItems.item`."""
        row = await self._first(_ITEM, key, {"item": key_text(item_id)})
        return None if row is None else cast("JsonObject", decode_json(row.item))

    async def remove(self, key: ConversationKey, item_id: str) -> bool:
        """Erase one item. See `ConversationItems.remove`."""
        if not is_text(*key):
            return False
        names = {**names_of(key), "item": key_text(item_id), "now": self._clock()}

        def remove(connection: sa.Connection) -> bool:
            place = connection.execute(_PLACE, names).first()
            if place is None:
                return False
            # First: whoever ends a response here at this moment is waited for, and its session is seen.
            connection.execute(_NOTE_REMOVAL, names)
            known = {"removed": place.position, "response": place.response_id}
            connection.execute(_FORGET_SESSIONS, {**names_of(key), **known})
            return connection.execute(_REMOVE, names).rowcount > 0

        return await self._database.run(remove, erases=True)

    async def page(self, key: ConversationKey, query: ListQuery) -> tuple[Sequence[JsonObject], bool] | None:
        """Return a page of items. See `ConversationItems.page`."""
        if not is_text(*key):
            return None
        rows = await self._database.run(partial(_page, names=names_of(key), query=query))
        if rows is None:
            return None
        return [decode_json(row.item) for row in rows[: query.limit]], len(rows) > query.limit

    async def lock(self, record: ResponseRecord) -> None:
        """Take the conversation of `record` for it. See `ConversationLocks.lock`."""
        await self._database.run(partial(lock, record=record))

    async def finish(self, record: ResponseRecord) -> None:
        """Give the conversation back. See `ConversationLocks.finish`."""
        if record.conversation_key is not None and is_text(*record.conversation_key):
            await self._database.run(partial(finish, record=record, now=self._clock()))

    async def release(self, owner: str) -> int:
        """Give back the locks of the process that no running stored response has; return how many."""
        return await self._database.run(lambda connection: connection.execute(_RELEASE, {"owner": owner}).rowcount)

    async def prune(self, *, limit: int) -> int:
        """Erase at most `limit` conversations that are older or more than the retention allows."""
        find = partial(_OUTDATED.find, retention=self._retention, now=self._clock(), limit=limit)
        rows = await self._database.run(find)
        if rows:
            await self._database.run(partial(_erase_outdated, rows=rows), erases=True)
            for row in rows:
                self._read.drop(ConversationKey(Partition(row.partition), ConversationId(row.id)))
        return len(rows)

    async def stats(self) -> StoreStats:
        """Return what the store holds; `bytes` are those of the items."""

        def stats(connection: sa.Connection) -> StoreStats:
            entries, oldest = connection.execute(_COUNT_ALL).one()
            size = connection.execute(_ITEM_BYTES).scalar_one()
            age = None if oldest is None else self._clock() - oldest
            return StoreStats(name="conversations", entries=entries, bytes=int(size), oldest=age)

        return await self._database.run(stats)

    async def _first(
        self, statement: sa.Executable, key: ConversationKey, values: Mapping[str, object] | None = None
    ) -> Any:
        if not is_text(*key):
            return None
        names = {**names_of(key), **(values or {})}
        return await self._database.run(lambda connection: connection.execute(statement, names).first())


def _check_distinct(items: Sequence[JsonObject]) -> None:
    if len({item["id"] for item in items}) != len(items):
        raise AlreadyExists("Two items have the same id.")


def _record(key: ConversationKey, row: Any) -> ConversationRecord | None:
    if row is None:
        return None
    return ConversationRecord(key=key, created_at=row.created_at, metadata=decode_json(row.metadata))


def _page(connection: sa.Connection, *, names: Mapping[str, object], query: ListQuery) -> Sequence[Any] | None:
    """Return one row more than the page has, if there is one."""
    if connection.execute(EXISTS, names).first() is None:
        return None
    bounds: list[int | None] = []
    for item_id in (query.after, query.before):
        position = None
        if item_id is not None:
            position = connection.execute(_POSITION, {**names, "item": key_text(item_id)}).scalar()
            if position is None:
                return None
        bounds.append(position)
    older, newer = bounds if query.order == "asc" else reversed(bounds)
    window = {"low": 0 if older is None else older + 1, "high": _NEWEST if newer is None else newer}
    return connection.execute(_PAGES[query.order], {**names, **window, "most": query.limit + 1}).all()


def _erase_outdated(connection: sa.Connection, *, rows: Sequence[Any]) -> None:
    found = {"names": [(row.partition, row.id) for row in rows], "times": [row.stored_at for row in rows]}
    held = connection.execute(_HOLD, found).all()
    if held:
        _erase(connection, keys=[ConversationKey(Partition(row.partition), ConversationId(row.id)) for row in held])


def _erase(connection: sa.Connection, *, keys: Sequence[ConversationKey]) -> int:
    # The rows first: whoever appends at this moment waits for its own, and then finds nothing.
    erased = connection.execute(_DELETE, {"names": keys}).rowcount
    connection.execute(_FORGET_ANSWERS, {"names": keys})
    connection.execute(_DELETE_ITEMS, {"names": keys})
    return erased
