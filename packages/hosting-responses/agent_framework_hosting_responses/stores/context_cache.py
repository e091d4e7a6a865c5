"""Contexts in memory, so that a turn of a chain does not read what the turns before it have written."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from agent_framework_hosting.runs.base import RunId, RunKey

from ..protocol.json import JsonObject
from .base import ResponseRecord
from .context import Context

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")

MAX_BYTES: Final = 64 * 1024 * 1024
"""Estimated bytes of contexts that one store keeps in memory."""

# JSON as Python objects, and what an entry costs besides.
_OBJECTS_PER_BYTE: Final = 3
_PER_ENTRY: Final = 600

_MOST_STARTED: Final = 10_000


def size_of(*encoded: bytes) -> int:
    """Return about how many bytes the values of these JSON texts take in memory."""
    return _PER_ENTRY + _OBJECTS_PER_BYTE * sum(map(len, encoded))


class SizedCache(Generic[KeyT, ValueT]):
    """Keeps what was used last, up to `max_size` in all. Not for several threads."""

    def __init__(self, *, max_size: int) -> None:
        self._max_size = max_size
        self._entries: OrderedDict[KeyT, tuple[ValueT, int]] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: KeyT) -> ValueT | None:
        """Return what is kept for the key."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: KeyT, value: ValueT, *, size: int) -> None:
        """Keep `value`; what does not fit any more is dropped, the least recently used first."""
        self.drop(key)
        self._entries[key] = (value, size)
        self.size += size
        while self.size > self._max_size:
            _, (_, dropped) = self._entries.popitem(last=False)
            self.size -= dropped

    def drop(self, key: KeyT) -> None:
        """Forget the key."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry[1]


class ChainContext(Context):
    """A context of responses alone, which nothing can change; `size` estimates its bytes, those before included."""

    __slots__ = ("size",)

    def __init__(
        self,
        items: Sequence[JsonObject],
        *,
        parent: Context | None = None,
        response_id: str | None = None,
        has_session: bool = False,
        approvals: Mapping[str, JsonObject] | None = None,
        call_ids: Mapping[str, str] | None = None,
        own_size: int = _PER_ENTRY,
    ) -> None:
        super().__init__(
            items,
            parent=parent,
            response_id=response_id,
            has_session=has_session,
            approvals=approvals,
            call_ids=call_ids,
        )
        self.size: int = own_size + (parent.size if isinstance(parent, ChainContext) else 0)


class _Kept(NamedTuple):
    """A context, and when its response was written: a later response of the same id is another one."""

    context: ChainContext
    stored_at: float


class ContextCache:
    """The contexts of the responses written or continued last, by key.

    Terminal responses never change, so a context is right as long as its response exists. Contexts that begin in a
    conversation are not kept: their items can be removed.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._kept: SizedCache[RunKey, _Kept] = SizedCache(max_size=max_bytes)
        # Running response → what it continues from.
        self._started: OrderedDict[RunKey, ChainContext] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: RunKey) -> ChainContext | None:
        """Return the context that ends with the response."""
        kept = self._kept.get(key)
        return None if kept is None else kept.context

    def start(self, record: ResponseRecord, context: Context | None) -> None:
        """Remember what a running response continues from."""
        parent = self._parent(record, context)
        if parent is not None:
            self._started[record.key] = parent
            if len(self._started) > _MOST_STARTED:
                self._started.popitem(last=False)

    def end(self, record: ResponseRecord, context: Context | None, *, size: int, stored_at: float) -> None:
        """Keep the context that ends with a terminal response, in place of the one that it continues."""
        parent = self._started.pop(record.key, None) or self._parent(record, context)
        is_whole = parent is not None or record.previous_response_id is None
        if record.conversation_id is not None or not is_whole:
            return
        ending = ChainContext(
            (*record.input, *record.output),
            parent=parent,
            response_id=record.key.run_id,
            has_session=record.has_session,
            approvals=record.approvals,
            call_ids=record.call_ids,
            own_size=size,
        )
        self.put(record.key, ending, stored_at=stored_at)
        if record.previous_response_id is not None:
            # A chain in memory counts once. Whoever branches off reads it again.
            self._kept.drop(_previous_key(record, record.previous_response_id))

    def put(self, key: RunKey, context: ChainContext, *, stored_at: float) -> None:
        """Keep the context that ends with a response that was written at `stored_at`."""
        self._kept.put(key, _Kept(context, stored_at), size=context.size)

    def check(self, key: RunKey, *, stored_at: float | None) -> None:
        """Forget the context unless its response was written at `stored_at`; `None` says that there is none."""
        kept = self._kept.get(key)
        if kept is not None and kept.stored_at != stored_at:
            self._kept.drop(key)

    def forget(self, key: RunKey) -> None:
        """Forget a response that was deleted."""
        self._kept.drop(key)
        self._started.pop(key, None)

    def _parent(self, record: ResponseRecord, context: Context | None) -> ChainContext | None:
        if record.previous_response_id is None or record.conversation_id is not None:
            return None
        parent = context or self.get(_previous_key(record, record.previous_response_id))
        is_parent = isinstance(parent, ChainContext) and parent.response_id == record.previous_response_id
        return parent if is_parent and isinstance(parent, ChainContext) else None


def _previous_key(record: ResponseRecord, previous_response_id: str) -> RunKey:
    return RunKey(record.key.partition, RunId(previous_response_id))
