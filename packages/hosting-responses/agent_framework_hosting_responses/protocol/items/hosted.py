"""Items of tools that the provider or the framework runs: their common life, and those that are open.

A hosted item is announced, reports progress, and is finished with what became of it. Its kind decides
which events lie in between; the base class has none.

Source: contract §3.6.
"""

from __future__ import annotations

from typing import ClassVar, Final

from agent_framework_hosting_responses.protocol.json import JsonObject

from .output import Output
from .source import visible

_OVER: Final = frozenset({"completed", "failed", "incomplete"})


class HostedItem:
    """One open item. Subclasses say what it looks like at its start and which events follow."""

    opening: ClassVar[tuple[str, ...]] = ()

    def __init__(self, output: Output, item: JsonObject, *, include: frozenset[str]) -> None:
        self.output = output
        self.include = include
        self.item_type = str(item["type"])
        self._identity = output.identify(item)
        self.item: JsonObject = {**item, **self._identity}
        self.index = output.add(visible(self.initial(), include))
        for name in self.opening:
            self.progress(name)
        self.start()

    @property
    def place(self) -> JsonObject:
        """The members that every event about this item has."""
        return {"item_id": self.item["id"], "output_index": self.index}

    def initial(self) -> JsonObject:
        """Return the item as it is announced."""
        return self.item

    def start(self) -> None:
        """Write what is known of the item at its start, after its opening events."""

    def conclude(self, item: JsonObject) -> JsonObject:
        """Write the events before the last one and return the finished item."""
        return item

    def broken(self) -> JsonObject:
        """Return the item for a run that ends before the tool did."""
        return {**self.item, "status": "incomplete"} if "status" in self.item else self.item

    def progress(self, name: str) -> None:
        """Write the progress event `name`, for example `in_progress`."""
        self.output.writer.emit(f"response.{self.item_type}.{name}", self.place)

    def end(self, item: JsonObject) -> None:
        """Finish the item as `item`."""
        final = self.conclude({**item, **self._identity})
        self.output.finish(self.index, visible(final, self.include))

    def abort(self) -> None:
        """Finish the item of a run that ends before the tool did."""
        self.output.finish(self.index, visible(self.broken(), self.include))


class HostedItems:
    """The open hosted items, by the id that calls and results share."""

    def __init__(self, output: Output, *, include: frozenset[str]) -> None:
        self._output = output
        self._include = include
        self._open: dict[str, HostedItem] = {}
        self._ended: set[str] = set()

    def get(self, kind: str, call_id: str | None) -> HostedItem | None:
        """Return the open item of `kind` for `call_id`."""
        return self._open.get(_key(kind, call_id))

    def open(self, call_id: str | None, item: JsonObject, writer: type[HostedItem]) -> HostedItem | None:
        """Announce `item` unless it is open already; finish it if it says that it is over.

        Returns None for a raw item that has been finished before.
        """
        key = _key(str(item["type"]), call_id)
        if key in self._ended:
            if "id" in item:
                return None
            # Without an id of its own this is a further call of a provider that reuses call ids.
            self._ended.discard(key)
        opened = self._open.get(key)
        if opened is None:
            opened = self._open[key] = writer(self._output, item, include=self._include)
        if item.get("status") in _OVER:
            self._end(key, opened, item)
        return opened

    def end(self, call_id: str | None, item: JsonObject, writer: type[HostedItem]) -> None:
        """Finish `item`, announcing it first if nothing did."""
        key = _key(str(item["type"]), call_id)
        if key in self._ended:
            return
        opened = self._open.get(key) or writer(self._output, item, include=self._include)
        self._end(key, opened, item)

    def close(self) -> None:
        """Finish every open item as cut off: the run ends and no result came."""
        for opened in self._open.values():
            opened.abort()
        self._open.clear()

    def _end(self, key: str, opened: HostedItem, item: JsonObject) -> None:
        self._open.pop(key, None)
        if not key.endswith("#"):
            self._ended.add(key)
        opened.end(item)


def _key(kind: str, call_id: str | None) -> str:
    return f"{kind}#{call_id or ''}"
