"""Whose call: which function calls the client runs, and which the server runs itself.

A call to a tool that the request declared is the client's, as is one that the framework hands over for user
input. A result makes any other call the server's, an approval request absorbs it, and what is still undecided
when the run ends is the client's after all, unless the agent is known to execute that tool. Two calls never
share a `call_id` in one response: the second gets a minted one.

Source: contract §3.6 (Server-executed agent tools), §3.7.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from agent_framework import Content

from .fields import MAX_ID
from .memo import UndecidedCall


class CallItem(Protocol):
    """The item of a call that is written to the client."""

    call_id: str

    def append(self, text: str) -> None:
        """Write the next piece of the arguments."""
        ...

    def close(self, status: str) -> None:
        """Close the item as `completed` or `incomplete`."""
        ...


class Owner(enum.Enum):
    """Who runs a call."""

    UNDECIDED = enum.auto()
    CLIENT = enum.auto()
    SERVER = enum.auto()
    APPROVAL = enum.auto()  # shown as an approval request, run by the server in a later response
    REFUSED = enum.auto()  # the client's, but `tool_choice` does not allow it: never emitted


class Call:
    """One function call of the run and what is known of it so far."""

    __slots__ = (
        "_chunks",
        "content_id",
        "earlier",
        "has_result",
        "is_closed",
        "is_complete",
        "item",
        "name",
        "owner",
        "source_id",
    )

    def __init__(self, *, name: str, source_id: str, owner: Owner, earlier: Call | None = None) -> None:
        self.name = name
        self.source_id = source_id
        # The undecided call before this one that has the same id.
        self.earlier = earlier
        self.content_id: str | None = None
        self.owner = owner
        self.item: CallItem | None = None
        self.has_result = False
        self.is_complete = False
        self.is_closed = False
        self._chunks: list[str] = []

    @property
    def arguments(self) -> str:
        """The arguments so far, as text."""
        text = "".join(self._chunks)
        self._chunks = [text]
        return text

    @property
    def is_undecided(self) -> bool:
        """Whether a result, an approval request or the end of the run will say whose call it is."""
        return self.owner is Owner.UNDECIDED and not self.has_result

    @property
    def is_whole(self) -> bool:
        """Whether nothing can follow the arguments: they came as an object, or their text is one."""
        # Parsing at every chunk would make the work grow with the arguments.
        if self.is_complete or not self._chunks or not self._chunks[-1].rstrip().endswith("}"):
            return self.is_complete
        try:
            json.loads(self.arguments)
        except ValueError:
            return False
        return True

    def take(self, content: Content) -> str:
        """Add what `content` says about the arguments and return what it adds to them.

        Arguments given as an object, or to replace, are whole. If they contradict what the client has
        already seen, what it has seen stands: deltas cannot be taken back.
        """
        value = content.arguments
        if value is None:
            return ""
        text = value if isinstance(value, str) else json_text(value)
        is_whole = not isinstance(value, str) or content.merge_mode == "replace" or bool(content.user_input_request)
        if not is_whole:
            self._chunks.append(text)
            return text
        self.is_complete = True
        seen = self.arguments
        if text.startswith(seen):
            self._chunks.append(text[len(seen) :])
            return text[len(seen) :]
        if self.item is None:
            self._chunks = [text]
        return ""


class Calls:
    """All function calls of one response."""

    __slots__ = (
        "_by_content_id",
        "_by_index",
        "_by_source_id",
        "_last",
        "_mint",
        "_owner_of",
        "_taken",
        "_wire_ids",
        "all",
        "minted",
    )

    def __init__(
        self, *, owner_of: Callable[[str], Owner], mint: Callable[[], str], taken: Collection[str] = frozenset()
    ) -> None:
        """Create an empty book; `mint` returns a new `call_id`, `taken` are those that the context has already."""
        self._owner_of = owner_of
        self._mint = mint
        self._taken = taken
        self._by_content_id: dict[str, Call] = {}
        self._by_source_id: dict[str, Call] = {}
        self._by_index: dict[int, Call] = {}
        self._last: Call | None = None
        self._wire_ids: set[str] = set()
        self.all: list[Call] = []
        self.minted: dict[str, str] = {}

    def match(self, content: Content) -> Call | None:
        """Return the call that a `function_call` content belongs to; None for a nameless chunk of no known call."""
        call = self._find(content)
        if call is None:
            if not content.name:
                return None
            call = self._new(content, content.name)
        if content.id:
            call.content_id = content.id
            self._by_content_id[content.id] = call
        if content.call_id:
            self._by_source_id[content.call_id] = call
        index = _tool_call_index(content)
        if index is not None:
            self._by_index[index] = call
        self._last = call
        return call

    def settle(self, content: Content) -> Call | None:
        """Return the call that a `function_result` content answers, if it had no answer yet."""
        call = self._oldest(content)
        if call is None or call.has_result:
            return None
        call.has_result = True
        return call

    def absorb(self, content: Content) -> None:
        """Let an approval request take over the call it embeds."""
        call = self._oldest(content)
        if call is not None and call.item is None:
            call.owner = Owner.APPROVAL

    def end_message(self) -> None:
        """Forget what only holds within one message."""
        self._by_index.clear()
        self._last = None

    def claim_call_id(self, source_id: str) -> str:
        """Return the `call_id` for the wire: the agent's own one if neither response nor context has used it."""
        call_id = source_id
        # Some providers hide whole signatures in their ids; the client could not send such an id back.
        is_usable = 0 < len(call_id) <= MAX_ID
        if not is_usable or call_id in self._wire_ids or call_id in self._taken:
            call_id = self._mint()
            if source_id:
                self.minted[call_id] = source_id
        self._wire_ids.add(call_id)
        return call_id

    def reserve(self, call_ids: Iterable[str]) -> None:
        """Keep `call_ids` from being used: an earlier attempt at the response has."""
        self._wire_ids.update(call_ids)

    def undecided(self) -> list[UndecidedCall]:
        """Return the calls of which nobody was told yet."""
        return [
            UndecidedCall(name=call.name, source_id=call.source_id, arguments=call.arguments)
            for call in self.all
            if call.is_undecided
        ]

    def restore(self, calls: Iterable[UndecidedCall], minted: Mapping[str, str]) -> None:
        """Take over what an earlier attempt knew: calls that were undecided, and ids that it has minted."""
        for call in calls:
            content = Content.from_function_call(call.source_id, call.name, arguments=call.arguments)
            restored = self._new(content, call.name)
            restored.take(content)
        self.minted.update(minted)

    def _new(self, content: Content, name: str) -> Call:
        # The framework names a call without a `call_id` by the id of its content.
        source_id = content.call_id or content.id or ""
        earlier = self._by_source_id.get(source_id)
        if earlier is not None and not earlier.is_undecided:
            earlier = None
        call = Call(name=name, source_id=source_id, owner=self._owner_of(name), earlier=earlier)
        self._by_source_id[source_id] = call
        self.all.append(call)
        return call

    def _oldest(self, content: Content) -> Call | None:
        """Return the call with the id of `content`: of several undecided ones, results answer the oldest first."""
        if content.id and content.id in self._by_content_id:
            return self._by_content_id[content.id]
        call = self._by_source_id.get(content.call_id or "")
        while call is not None and call.earlier is not None and call.earlier.is_undecided:
            call = call.earlier
        return call

    def _find(self, content: Content) -> Call | None:
        if content.id and content.id in self._by_content_id:
            return self._by_content_id[content.id]
        if content.call_id:
            call = self._by_source_id.get(content.call_id)
            return call if call is not None and _is_same(call, content) else None
        index = _tool_call_index(content)
        if index is not None:
            return self._by_index.get(index)
        if self._last is not None and (not content.name or _continues(self._last, content)):
            return self._last
        return None


def json_text(value: Any) -> str:
    """Return `value` as JSON text; what JSON cannot express is written as its `str`, NaN and infinities as null."""
    try:
        return _dump(value)
    except (TypeError, ValueError):
        return _dump(_expressible(value))


def _dump(value: Any) -> str:
    return json.dumps(value, default=str, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _expressible(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _expressible(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_expressible(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_same(call: Call, content: Content) -> bool:
    """Tell a further chunk or an echo of `call` from a new call that reuses its id."""
    if call.has_result:
        return False
    if content.user_input_request:
        return True
    if call.content_id and content.id and call.content_id != content.id:
        return False
    if not call.is_closed and not call.is_complete:
        return True
    value = content.arguments
    text = value if isinstance(value, str) else "" if value is None else json_text(value)
    return text in {"", call.arguments}


def _continues(last: Call, content: Content) -> bool:
    return last.name == content.name and isinstance(content.arguments, str) and not last.is_whole


def _tool_call_index(content: Content) -> int | None:
    """Chat Completions streams parallel calls by index: later chunks carry neither id nor name."""
    properties = content.additional_properties.get("openai")
    index = properties.get("tool_call_index") if isinstance(properties, Mapping) else None
    return index if isinstance(index, int) else None
