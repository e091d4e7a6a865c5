"""What responses do to the conversations in which they run, in transactions of their own.

One row says where a conversation stands; whoever appends, removes or deletes changes it first, so that processes wait
for each other at that row. Positions only grow: an item gets the next one, and a removal takes one too, so that a response
that began before it can see that its session knows something else than the conversation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from agent_framework_hosting.runs.base import RunStatus

from ..protocol.ids import new_item_id
from ..protocol.json import JsonObject, decode_json
from .base import ConversationKey, ConversationLocked, ResponseRecord, UnknownConversation
from .context import EMPTY, Context
from .rows import decode_notes, is_text, item_columns, key_text
from .tables import conversation_items, conversations

THIS = sa.and_(conversations.c.partition == sa.bindparam("p"), conversations.c.id == sa.bindparam("c"))
"""The conversation `c` of the partition `p`."""

ITEMS = sa.and_(
    conversation_items.c.partition == sa.bindparam("p"), conversation_items.c.conversation_id == sa.bindparam("c")
)
"""Its items."""

WINDOW = sa.and_(
    ITEMS, conversation_items.c.position >= sa.bindparam("low"), conversation_items.c.position < sa.bindparam("high")
)
"""Its items from position `low` up to, but without, `high`."""


EXISTS = sa.select(conversations.c.next_position).where(THIS)
"""Whether the conversation is there."""

CONTENT = (
    sa.select(*(conversation_items.c[name] for name in ("item", "notes", "response_id", "has_session")))
    .where(WINDOW)
    .order_by(conversation_items.c.position)
)
"""What `extended` makes a context of."""

TAKEN = sa.select(conversation_items.c.item_id).where(
    ITEMS, conversation_items.c.item_id.in_(sa.bindparam("ids", expanding=True))
)
"""Which of `ids` items of the conversation have."""

COUNT = sa.bindparam("count", type_=sa.BigInteger)
"""How many items are appended."""

_INSERT = sa.insert(conversation_items)

_LOCK = (
    sa.update(conversations)
    .where(
        THIS,
        sa.or_(
            sa.and_(
                conversations.c.running_response_id.is_(None),
                conversations.c.next_position == sa.bindparam("position"),
            ),
            conversations.c.running_response_id == sa.bindparam("response"),
        ),
    )
    .values(running_response_id=sa.bindparam("response"), running_owner=sa.bindparam("owner"))
)
_IS_RUNNER = sa.and_(THIS, conversations.c.running_response_id == sa.bindparam("response"))
_UNLOCK = sa.update(conversations).where(_IS_RUNNER).values(running_response_id=None, running_owner=None)
_HAND_OVER = sa.update(conversations).where(_IS_RUNNER).values(running_owner=sa.bindparam("owner"))

_FINISH = (
    sa.update(conversations)
    .where(_IS_RUNNER)
    .values(
        running_response_id=None,
        running_owner=None,
        stored_at=sa.bindparam("now"),
        next_position=conversations.c.next_position + COUNT,
    )
    .returning(conversations.c.next_position)
)


def lock(connection: sa.Connection, record: ResponseRecord) -> None:
    """Take the conversation of `record` for it. See `ConversationLocks.lock`."""
    names = {
        **names_of(record.conversation_key),
        "response": record.key.run_id,
        "owner": record.owner,
        "position": record.conversation_position,
    }
    if connection.execute(_LOCK, names).rowcount:
        return
    if connection.execute(EXISTS, names).first() is None:
        raise UnknownConversation("There is no such conversation.")
    raise ConversationLocked("Another response runs in the conversation, or has just ended there.")


def finish(connection: sa.Connection, record: ResponseRecord, *, now: float) -> None:
    """Give the conversation back, and append the items of a good end. See `ConversationLocks.finish`."""
    names = names_of(record.conversation_key)
    is_kept = record.status in {RunStatus.COMPLETED, RunStatus.INCOMPLETE}
    count = len(record.input) + len(record.output) if is_kept else 0
    values = {"response": record.key.run_id, "now": now, "count": count}
    end = connection.execute(_FINISH, {**names, **values}).scalar()
    if end is None or not count:
        return
    items = _with_free_ids(connection, names, record)
    columns = item_columns(items, approvals=record.approvals, call_ids=record.call_ids)
    first = end - count
    # Its session knows the conversation up to there only if nothing has happened in it since the response began.
    has_session = record.has_session and first == record.conversation_position
    insert_items(connection, names, columns, first=first, response_id=record.key.run_id, has_session=has_session)


def unlock(connection: sa.Connection, record_names: Mapping[str, object]) -> None:
    """Give a conversation back without a word; `record_names` are `p`, `c` and `response`."""
    connection.execute(_UNLOCK, record_names)


def hand_over(connection: sa.Connection, record_names: Mapping[str, object], *, owner: str) -> None:
    """Say which process runs the response now that has the conversation."""
    connection.execute(_HAND_OVER, {**record_names, "owner": owner})


def items_before(connection: sa.Connection, key: ConversationKey, position: int) -> Context:
    """Return the items of the conversation below the position as a context."""
    rows = connection.execute(CONTENT, {**names_of(key), "low": 0, "high": position}).all()
    return extended(EMPTY, rows)


def _with_free_ids(connection: sa.Connection, names: Mapping[str, object], record: ResponseRecord) -> list[JsonObject]:
    """Return what a response has brought, with new ids for items whose ids are taken.

    Clients send items again or refer to them, and a run that has ended must not fail for that.
    """
    # The output first, for its ids are on the wire already.
    items = (*record.output, *record.input)
    keys = sorted({_key(item) for item in items})
    taken = set(connection.execute(TAKEN, {**names, "ids": keys}).scalars())
    free: list[JsonObject] = []
    for item in items:
        is_taken = _key(item) in taken
        free.append({**item, "id": new_item_id(str(item["type"]))} if is_taken else item)
        taken.add(_key(free[-1]))
    outputs = len(record.output)
    return [*free[outputs:], *free[:outputs]]


def _key(item: JsonObject) -> str:
    return key_text(str(item["id"]))


def insert_items(
    connection: sa.Connection,
    names: Mapping[str, object],
    columns: Sequence[Mapping[str, object]],
    *,
    first: int,
    response_id: str | None = None,
    has_session: bool = False,
) -> None:
    """Insert items at the positions from `first` on, which the transaction has taken in the conversation's row."""
    turn = {"response_id": response_id, "has_session": has_session}
    place = {"partition": names["p"], "conversation_id": names["c"], **turn}
    rows = [{**place, **column, "position": first + index} for index, column in enumerate(columns)]
    connection.execute(_INSERT, rows)


def extended(context: Context, rows: Sequence[Any]) -> Context:
    """Return the context with the items of `rows` after it, one node for each response."""
    for (response_id, has_session), group in groupby(rows, key=attrgetter("response_id", "has_session")):
        items: list[JsonObject] = []
        approvals: dict[str, JsonObject] = {}
        call_ids: dict[str, str] = {}
        for row in group:
            items.append(decode_json(row.item))
            notes = decode_notes(row.notes)
            approvals.update(notes.approvals)
            call_ids.update(notes.call_ids)
        parent = context if context.length else None
        context = Context(
            items,
            parent=parent,
            response_id=response_id,
            has_session=has_session,
            approvals=approvals,
            call_ids=call_ids,
        )
    return context


def names_of(key: ConversationKey | None) -> dict[str, object]:
    """Return what statements call the conversation.

    Raises:
        UnknownConversation: no database can hold such a name.
    """
    if key is None or not is_text(*key):
        raise UnknownConversation("There is no such conversation.")
    return {"p": key.partition, "c": key.conversation_id}
