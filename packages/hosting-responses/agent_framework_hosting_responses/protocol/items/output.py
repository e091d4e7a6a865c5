"""The `output` of a response: indexes, ids, and the first and last event of every item.

Source: contract §2.4, §3.2, §3.6.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from agent_framework_hosting_responses.protocol.events import EventWriter
from agent_framework_hosting_responses.protocol.fields import is_identifier
from agent_framework_hosting_responses.protocol.ids import IdFactory, new_item_id
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue, encode_json


class Output:
    """Items in the order of their first event; an index is never reused."""

    __slots__ = ("_calls", "_encoded", "_ids", "_items", "_new_id", "_renamed", "_taken", "writer")

    def __init__(self, writer: EventWriter, new_id: IdFactory, *, taken: Collection[str] = frozenset()) -> None:
        self.writer = writer
        self._new_id = new_id
        self._taken = taken
        self._items: list[JsonObject | None] = []
        self._encoded: list[bytes] = []
        self._ids: set[str] = set()
        # Type and `call_id` of the items of an earlier attempt, and the ids that replace those in this one.
        self._calls: set[tuple[JsonValue, JsonValue]] = set()
        self._renamed: dict[str, str] = {}

    @property
    def minted_call_ids(self) -> dict[str, str]:
        """`call_id` on the wire → the provider's id of the call, where an earlier attempt has used that one."""
        return {wire_id: call_id for call_id, wire_id in self._renamed.items()}

    def restore(self, item: JsonObject, *, is_finished: bool) -> None:
        """Take over the next item of an earlier attempt: it was told already, at least that it began."""
        self._ids.add(str(item["id"]))
        if "call_id" in item:
            self._calls.add((item["type"], item["call_id"]))
        self._items.append(item if is_finished else None)
        self._encoded.append(encode_json(item) if is_finished else b"")

    def identify(self, item: JsonObject) -> JsonObject:
        """Return the `id` for an item of the provider; with a `call_id` if an item of an earlier attempt has its own.

        Clients tell calls, and outputs, apart by it (contract §3.7). A call and its output get the same one.
        """
        item_type = str(item["type"])
        identity: JsonObject = {"id": self.claim_id(item_type, item.get("id"))}
        call_id = item.get("call_id")
        if isinstance(call_id, str) and (call_id in self._renamed or (item_type, call_id) in self._calls):
            if call_id not in self._renamed:
                self._renamed[call_id] = self._new_id("call")
            identity["call_id"] = self._renamed[call_id]
        return identity

    def claim_id(self, item_type: str, wanted: object = None) -> str:
        """Return `wanted` if it is an id that neither this response nor its context has used, otherwise a new one."""
        # What no request could send back is no id, wherever it came from.
        item_id = wanted if isinstance(wanted, str) and is_identifier(wanted) else None
        if item_id is None or item_id in self._ids or item_id in self._taken:
            item_id = new_item_id(item_type, self._new_id)
        self._ids.add(item_id)
        return item_id

    def add(self, item: JsonObject) -> int:
        """Announce `item` as it is at its start and return its `output_index`."""
        index = len(self._items)
        self._items.append(None)
        self._encoded.append(b"")
        self.writer.emit("response.output_item.added", {"output_index": index, "item": item})
        return index

    def finish(self, index: int, item: JsonObject) -> None:
        """Write the last event of the item at `index`; the final output holds exactly `item`."""
        self._items[index] = item
        # Encoded once: the terminal event and the stored body carry the same bytes.
        data = self._encoded[index] = encode_json(item)
        self.writer.emit("response.output_item.done", {"output_index": index, "item": msgspec.Raw(data)})

    def write(self, item: JsonObject) -> None:
        """Announce and finish an item that has no life in between."""
        self.finish(self.add(item), item)

    def leave_out(self, indexes: Iterable[int]) -> None:
        """Take items out of the final output, which have been told; nobody else gets their indexes."""
        for index in indexes:
            self._items[index] = None
            self._encoded[index] = b""

    @property
    def items(self) -> list[JsonObject]:
        """The finished items, in the order of their `output_index`."""
        return [item for item in self._items if item is not None]

    @property
    def encoded(self) -> bytes:
        """The finished items as a JSON array."""
        return b"[%b]" % b",".join([data for data in self._encoded if data])

    def __len__(self) -> int:
        return len(self._items)
