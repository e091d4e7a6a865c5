"""Conversations in the memory of one process, bounded by count and age."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from agent_framework_hosting.errors import AlreadyExists
from agent_framework_hosting.runs.base import RunId, RunStatus
from agent_framework_hosting.stores.memory import BoundedDict

from ..protocol.ids import new_item_id
from ..protocol.json import JsonObject
from ..protocol.query import ListQuery
from .base import (
    ConversationHead,
    ConversationKey,
    ConversationLocked,
    ConversationRecord,
    ResponseRecord,
    UnknownConversation,
)
from .context import EMPTY, Context


class MemoryConversationStore:
    """At most `max_entries` conversations in which nothing runs, each for at most `max_age` seconds after its last change.

    A conversation in which a response runs is never forgotten: the response could not be appended. Does all that
    `ConversationStore`, `ConversationItems` and `ConversationLocks` ask for; no method waits, so each is one step.
    """

    def __init__(
        self, *, max_entries: int = 10_000, max_age: float = 30 * 86_400.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._running: dict[ConversationKey, _Conversation] = {}
        self._idle: BoundedDict[ConversationKey, _Conversation] = BoundedDict(
            max_entries=max_entries, max_age=max_age, clock=clock
        )

    def __len__(self) -> int:
        return len(self._running) + len(self._idle)

    # --- Conversations -------------------------------------------------------------------------------------------

    async def create(self, record: ConversationRecord, items: Sequence[JsonObject]) -> None:
        """Store a new conversation with its first items. See `ConversationStore.create`."""
        if self._find(record.key) is not None:
            raise AlreadyExists("A conversation with this id exists.")
        conversation = _Conversation(record)
        conversation.append(items)
        self._idle.set(record.key, conversation)

    async def get(self, key: ConversationKey) -> ConversationRecord | None:
        """Return the conversation. See `ConversationStore.get`."""
        conversation = self._find(key)
        return None if conversation is None else conversation.record

    async def update(self, key: ConversationKey, metadata: Mapping[str, str]) -> ConversationRecord | None:
        """Replace the metadata. See `ConversationStore.update`."""
        conversation = self._find(key)
        if conversation is None:
            return None
        conversation.record = replace(conversation.record, metadata=dict(metadata))
        self._refresh(conversation)
        return conversation.record

    async def delete(self, key: ConversationKey) -> bool:
        """Forget the conversation and its items. See `ConversationStore.delete`."""
        running = self._running.pop(key, None)
        idle = self._idle.pop(key)
        return running is not None or idle is not None

    async def head(self, key: ConversationKey) -> ConversationHead | None:
        """Return where a new response starts from. See `ConversationStore.head`."""
        conversation = self._find(key)
        return None if conversation is None else conversation.head()

    # --- Items ---------------------------------------------------------------------------------------------------

    async def append(self, key: ConversationKey, items: Sequence[JsonObject]) -> None:
        """Append items, all of them or none. See `ConversationItems.append`."""
        conversation = self._find(key)
        if conversation is None:
            raise UnknownConversation("There is no such conversation.")
        conversation.append(items)
        self._refresh(conversation)

    async def item(self, key: ConversationKey, item_id: str) -> JsonObject | None:
        """Return one item. See `ConversationItems.item`."""
        conversation = self._find(key)
        return None if conversation is None else conversation.items.get(item_id)

    async def remove(self, key: ConversationKey, item_id: str) -> bool:
        """Forget one item. See `ConversationItems.remove`."""
        conversation = self._find(key)
        if conversation is None or not conversation.remove(item_id):
            return False
        self._refresh(conversation)
        return True

    async def page(self, key: ConversationKey, query: ListQuery) -> tuple[Sequence[JsonObject], bool] | None:
        """Return one page of the items, `None` if the conversation is unknown too. See `ConversationItems.page`."""
        conversation = self._find(key)
        return None if conversation is None else conversation.page(query)

    # --- Locks ---------------------------------------------------------------------------------------------------

    async def lock(self, record: ResponseRecord) -> None:
        """Take the conversation for a response; again for the same response is fine. See `ConversationLocks.lock`."""
        key = record.conversation_key
        conversation = None if key is None else self._find(key)
        if key is None or conversation is None:
            raise UnknownConversation("There is no such conversation.")
        if conversation.running not in {None, record.key.run_id}:
            raise ConversationLocked("Another response runs in the conversation.")
        if conversation.running is None and conversation.position != record.conversation_position:
            raise ConversationLocked("The conversation has changed since the response was prepared.")
        conversation.running = record.key.run_id
        self._idle.pop(key)
        self._running[key] = conversation

    async def finish(self, record: ResponseRecord) -> None:
        """Give the conversation back and append what the response has brought. See `ConversationLocks.finish`."""
        key = record.conversation_key
        conversation = None if key is None else self._running.get(key)
        if key is None or conversation is None or conversation.running != record.key.run_id:
            return
        conversation.running = None
        if record.status in {RunStatus.COMPLETED, RunStatus.INCOMPLETE}:
            conversation.append_turn(record)
        del self._running[key]
        self._idle.set(key, conversation)

    # -------------------------------------------------------------------------------------------------------------

    def _find(self, key: ConversationKey) -> _Conversation | None:
        return self._running.get(key) or self._idle.get(key)

    def _refresh(self, conversation: _Conversation) -> None:
        if conversation.running is None:
            self._idle.set(conversation.record.key, conversation)


class _Conversation:
    """One conversation as it stands.

    `items` and `context` hold the same items, by id and as turns. `position` grows with every change of them, also with
    a removal: a response that started from a position finds it again only if nobody else changed anything meanwhile.
    """

    __slots__ = ("context", "items", "position", "record", "running")

    def __init__(self, record: ConversationRecord) -> None:
        self.record = record
        self.items: dict[str, JsonObject] = {}
        self.context = EMPTY
        self.position = 0
        self.running: RunId | None = None

    def head(self) -> ConversationHead:
        return ConversationHead(context=self.context, position=self.position)

    def append(self, items: Sequence[JsonObject]) -> None:
        """Append items of nobody's turn, all of them or none.

        Raises:
            AlreadyExists: an id is taken, or comes twice.
        """
        new = {_id(item): item for item in items}
        if len(new) < len(items) or not self.items.keys().isdisjoint(new):
            raise AlreadyExists("The conversation has an item with this id.")
        self._grow(self.context.extended(items), new)

    def append_turn(self, record: ResponseRecord) -> None:
        """Append the input and output of a response, with its session if that knows every item."""
        is_alone = self.position == record.conversation_position
        record = replace(self._with_free_ids(record), has_session=record.has_session and is_alone)
        turn = record.context_after(self.context)
        self._grow(turn, {_id(item): item for item in turn.items})

    def remove(self, item_id: str) -> bool:
        """Remove an item, and forget the sessions that know it; `False` if there is no such item."""
        if self.items.pop(item_id, None) is None:
            return False
        self.context = _without(self.context, item_id)
        self.position += 1
        return True

    def page(self, query: ListQuery) -> tuple[Sequence[JsonObject], bool] | None:
        """Return the items that `query` asks for and whether there are more, `None` for an unknown `after` or `before`."""
        if any(cursor is not None and cursor not in self.items for cursor in (query.after, query.before)):
            return None
        found: list[JsonObject] = []
        has_begun = query.after is None
        for item_id in self.items if query.order == "asc" else reversed(self.items):
            if item_id == query.before or len(found) > query.limit:
                break
            if has_begun:
                found.append(self.items[item_id])
            elif item_id == query.after:
                has_begun = True
        return found[: query.limit], len(found) > query.limit

    def _grow(self, context: Context, new: Mapping[str, JsonObject]) -> None:
        self.context = context
        self.items.update(new)
        self.position += len(new)

    def _with_free_ids(self, record: ResponseRecord) -> ResponseRecord:
        """Give new ids to items whose ids are taken: clients send items again, and a run must not fail for that."""
        taken: set[str] = set()

        def free(item: JsonObject) -> JsonObject:
            if _id(item) in self.items or _id(item) in taken:
                item = {**item, "id": new_item_id(str(item["type"]))}
            taken.add(_id(item))
            return item

        # The output first, for its ids are on the wire already.
        output = tuple(free(item) for item in record.output)
        return replace(record, input=tuple(free(item) for item in record.input), output=output)


def _without(context: Context, item_id: str) -> Context:
    """Return the context without one item. What comes before it is shared; sessions of turns after it know it."""
    newer: list[Context] = []
    for node in context.nodes():
        newer.append(node)
        if any(item["id"] == item_id for item in node.items):
            break
    rebuilt = newer[-1].parent or EMPTY
    for node in reversed(newer):
        items = tuple(item for item in node.items if item["id"] != item_id)
        if items or node.response_id is not None:
            rebuilt = Context(
                items,
                parent=rebuilt,
                response_id=node.response_id,
                approvals={key: asked for key, asked in node.approvals.items() if key != item_id},
                call_ids=node.call_ids,
            )
    return rebuilt


def _id(item: JsonObject) -> str:
    return str(item["id"])
