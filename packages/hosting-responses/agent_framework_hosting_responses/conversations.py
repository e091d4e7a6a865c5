"""What the Conversations API means, in async calls, for any web framework.

Every method works inside the partition of the current isolation keys (`set_current_isolation_keys`); ids of another
partition are unknown ids. Errors are `RequestError`s: `protocol.errors.error_body` makes the API's envelope of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from agent_framework_hosting.context import current_partition
from agent_framework_hosting.errors import AlreadyExists

from .protocol import errors, fields
from .protocol.conversations import parse_additions, parse_creation, parse_update
from .protocol.errors import RequestError
from .protocol.ids import new_id
from .protocol.json import JsonObject
from .protocol.query import ListQuery
from .protocol.resources import conversation_object, deleted_conversation, item_page
from .settings import ResponsesSettings
from .stores.base import (
    ConversationId,
    ConversationItems,
    ConversationKey,
    ConversationRecord,
    ConversationStore,
    UnknownConversation,
)


class ConversationsService:
    """The Conversations API over a store. `conversations` and `items` are two views of the same one."""

    def __init__(
        self,
        conversations: ConversationStore,
        items: ConversationItems,
        *,
        settings: ResponsesSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings or ResponsesSettings()
        self._conversations = conversations
        self._items = items
        self._clock = clock

    async def create(self, body: JsonObject) -> JsonObject:
        """Make a conversation, with its first items if the body has some, and return it.

        Raises:
            RequestError: the body is malformed; nothing was stored.
        """
        parsed = parse_creation(body, strict=self.settings.strict_fields)
        record = ConversationRecord(
            key=ConversationKey(current_partition(), ConversationId(new_id("conv"))),
            created_at=int(self._clock()),
            metadata=parsed.metadata,
        )
        await self._conversations.create(record, parsed.items)
        return _body(record)

    async def retrieve(self, conversation_id: str) -> JsonObject:
        """Return the conversation.

        Raises:
            RequestError: 404, the conversation is unknown.
        """
        return _body(await self._find(conversation_id))

    async def update(self, conversation_id: str, body: JsonObject) -> JsonObject:
        """Replace the metadata and return the conversation.

        Raises:
            RequestError: the body is malformed, or the conversation is unknown.
        """
        metadata = parse_update(body, strict=self.settings.strict_fields)
        record = await self._conversations.update(_key(conversation_id), metadata)
        if record is None:
            raise errors.conversation_not_found(conversation_id)
        return _body(record)

    async def delete(self, conversation_id: str) -> JsonObject:
        """Erase the conversation with its items. Its responses stay; one that still runs in it is not appended.

        Raises:
            RequestError: 404, the conversation is unknown.
        """
        if not await self._conversations.delete(_key(conversation_id)):
            raise errors.conversation_not_found(conversation_id)
        return deleted_conversation(conversation_id)

    async def create_items(self, conversation_id: str, body: JsonObject) -> JsonObject:
        """Append items and return the list of them, in the given order.

        Raises:
            RequestError: the body is malformed, an item's id is taken, or the conversation is unknown; nothing was
                appended.
        """
        items = parse_additions(body, strict=self.settings.strict_fields)
        key = _key(conversation_id)
        try:
            await self._items.append(key, items)
        except UnknownConversation:
            raise errors.conversation_not_found(conversation_id) from None
        except AlreadyExists:
            raise await self._duplicate(key, items) from None
        return item_page(items, has_more=False)

    async def items(self, conversation_id: str, query: ListQuery) -> JsonObject:
        """Return a page of the items.

        Raises:
            RequestError: 404, the conversation or the item in `after` or `before` is unknown.
        """
        key = (await self._find(conversation_id)).key
        cursors = [cursor for cursor in (query.after, query.before) if cursor is not None]
        for cursor in cursors:
            if not fields.is_plain(cursor):
                raise errors.item_not_found(cursor)
        found = await self._items.page(key, query)
        if found is None:
            for cursor in cursors:
                if await self._items.item(key, cursor) is None:
                    raise errors.item_not_found(cursor)
            # Somebody has deleted it in this moment.
            raise errors.conversation_not_found(conversation_id)
        data, has_more = found
        return item_page(data, has_more=has_more)

    async def item(self, conversation_id: str, item_id: str) -> JsonObject:
        """Return one item.

        Raises:
            RequestError: 404, the conversation or the item is unknown.
        """
        key = (await self._find(conversation_id)).key
        found = await self._items.item(key, item_id) if fields.is_plain(item_id) else None
        if found is None:
            raise errors.conversation_item_not_found(item_id)
        return found

    async def delete_item(self, conversation_id: str, item_id: str) -> JsonObject:
        """Erase one item and return the conversation (contract §6.1).

        Raises:
            RequestError: 404, the conversation or the item is unknown.
        """
        record = await self._find(conversation_id)
        if not fields.is_plain(item_id) or not await self._items.remove(record.key, item_id):
            raise errors.conversation_item_not_found(item_id)
        return _body(record)

    async def _find(self, conversation_id: str) -> ConversationRecord:
        record = await self._conversations.get(_key(conversation_id))
        if record is None:
            raise errors.conversation_not_found(conversation_id)
        return record

    async def _duplicate(self, key: ConversationKey, items: Sequence[JsonObject]) -> RequestError:
        """Return the error that names which of the items is there already."""
        for index, item in enumerate(items):
            if await self._items.item(key, str(item["id"])) is not None:
                return errors.duplicate_item(f"items[{index}].id", str(item["id"]))
        # Somebody has removed it meanwhile.
        return errors.duplicate_item("items", str(items[0]["id"]))


def _key(conversation_id: str) -> ConversationKey:
    # Ids that cannot be ours do not reach the store: not every database can even look for them.
    if not fields.is_plain(conversation_id):
        raise errors.conversation_not_found(conversation_id)
    return ConversationKey(current_partition(), ConversationId(conversation_id))


def _body(record: ConversationRecord) -> JsonObject:
    return conversation_object(record.key.conversation_id, created_at=record.created_at, metadata=record.metadata)
