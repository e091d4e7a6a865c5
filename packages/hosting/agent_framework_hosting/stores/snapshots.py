"""Sessions as bytes: what a store writes of an `AgentSession`, and what is different from the one it has grown from.

A snapshot is made with the framework's public codec (`to_dict`, `from_dict`) and its state types only, so reading one
back runs no other code. Every list that is reached through dicts of `state` is taken out of it, element by element: a
session that has grown by two messages is then its base, the number of elements kept, and two elements.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NewType, TypeAlias, cast
from weakref import WeakKeyDictionary

import msgspec
from agent_framework import AgentSession, Content, Message

from ..errors import StoreError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

ListPath = NewType("ListPath", str)
"""Where a list is in `state`: the keys that lead to it, as a JSON array. A key may hold any character."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session as JSON: `rest` is all of it with `null` for the lists, `lists` are their elements."""

    rest: bytes
    lists: Mapping[ListPath, tuple[bytes, ...]]

    @property
    def size(self) -> int:
        """Bytes of the JSON texts."""
        return len(self.rest) + sum(len(element) for elements in self.lists.values() for element in elements)


@dataclass(frozen=True, slots=True)
class ListDelta:
    """A list that starts with the first `kept` elements of the base's and goes on with `appended`."""

    kept: int
    appended: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """What is different from the base: `rest` if it is, and each list that is; `None` for a list that is gone."""

    rest: bytes | None
    lists: Mapping[ListPath, ListDelta | None]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A snapshot, and whether the session it was made from is what it decodes to (a tuple, say, becomes a list)."""

    snapshot: Snapshot
    is_exact: bool


# --- Differences


def diff(base: Snapshot | None, new: Snapshot) -> Delta:
    """Return what makes `new` of `base`; all of it if there is no base."""
    known: Mapping[ListPath, tuple[bytes, ...]] = {} if base is None else base.lists
    lists: dict[ListPath, ListDelta | None] = {path: None for path in known if path not in new.lists}
    for path, elements in new.lists.items():
        old = known.get(path)
        if old is None:
            lists[path] = ListDelta(0, elements)
        elif old != elements:
            kept = _common(old, elements)
            lists[path] = ListDelta(kept, elements[kept:])
    is_same = base is not None and base.rest == new.rest
    return Delta(None if is_same else new.rest, lists)


def replay(deltas: Iterable[Delta]) -> Snapshot:
    """Return the snapshot that the deltas make, the first one relative to nothing.

    Raises:
        StoreError: they do not follow from each other.
    """
    rest = b""
    lists: dict[ListPath, list[bytes]] = {}
    for delta in deltas:
        rest = rest if delta.rest is None else delta.rest
        for path, change in delta.lists.items():
            if change is None:
                lists.pop(path, None)
                continue
            elements = lists.setdefault(path, [])
            if len(elements) < change.kept:
                raise StoreError("A stored session is incomplete.")
            del elements[change.kept :]
            elements += change.appended
    if not rest:
        raise StoreError("A stored session is incomplete.")
    return Snapshot(rest, {path: tuple(elements) for path, elements in lists.items()})


def trim(delta: Delta, dependants: Sequence[Delta]) -> Delta:
    """Return `delta` without what none of `dependants`, at least one, which are relative to it, makes use of."""
    # Empty, not `None`: to the row's own base it must not look as if the base's were still needed.
    rest = delta.rest if any(dependant.rest is None for dependant in dependants) else b""
    lists = dict(delta.lists)
    # A list that one of them does not mention is taken as it is.
    for path in set.intersection(*(set(dependant.lists) for dependant in dependants)):
        changes = [dependant.lists[path] for dependant in dependants]
        needed = max(0 if change is None else change.kept for change in changes)
        lists[path] = _first(needed, delta.lists.get(path, ListDelta(needed, ())))
    return Delta(rest, lists)


def encode_lists(lists: Mapping[ListPath, ListDelta | None]) -> bytes:
    """Return the lists of a delta as JSON: `{path: [kept, [element, …]]}`, `null` for a list that is gone."""
    return _json.encode(
        {
            path: None if change is None else (change.kept, [msgspec.Raw(element) for element in change.appended])
            for path, change in lists.items()
        }
    )


def decode_lists(data: bytes) -> dict[ListPath, ListDelta | None]:
    """Return what `encode_lists` has encoded."""
    return {
        ListPath(path): None if change is None else ListDelta(change[0], tuple(bytes(raw) for raw in change[1]))
        for path, change in _lists_decoder.decode(data).items()
    }


def _first(needed: int, change: ListDelta | None) -> ListDelta | None:
    """Return the change that gives the first `needed` elements of what `change` gives."""
    if change is None or needed == 0:
        return None
    if needed <= change.kept:
        return ListDelta(needed, ())
    return ListDelta(change.kept, change.appended[: needed - change.kept])


def _common(old: Sequence[bytes], new: Sequence[bytes]) -> int:
    for index, (one, other) in enumerate(zip(old, new, strict=False)):
        if one != other:
            return index
    return min(len(old), len(new))


# --- Values

_SCALARS: Final = frozenset({type(None), bool, int, float, str})

_json = msgspec.json.Encoder()
_lists_decoder = msgspec.json.Decoder(dict[str, tuple[int, list[msgspec.Raw]] | None])

# What UTF-8 or strict JSON cannot carry (half an emoji, NaN) is stored as `{"$json": "<JSON as Python writes it>"}`.
_ESCAPED: Final = b'{"$json":'


def _encode(value: JsonValue, *, has_odd_float: bool) -> bytes:
    if not has_odd_float:
        try:
            data = _json.encode(value)
        except UnicodeEncodeError:
            pass
        else:
            if not data.startswith(_ESCAPED):
                return data
    return _json.encode({"$json": json.dumps(value, separators=(",", ":"))})


def _decode(data: bytes) -> JsonValue:
    value = cast("JsonValue", msgspec.json.decode(data))
    if data.startswith(_ESCAPED):
        return cast("JsonValue", json.loads(cast("dict[str, str]", value)["$json"]))
    return value


def _decode_elements(elements: Sequence[bytes]) -> list[JsonValue]:
    if any(element.startswith(_ESCAPED) for element in elements):
        return [_decode(element) for element in elements]
    return cast("list[JsonValue]", msgspec.json.decode(b"[" + b",".join(elements) + b"]"))


# --- Sessions


class SnapshotCodec:
    """Makes snapshots of sessions and sessions of snapshots; one per store, used from one thread.

    It remembers the bytes of messages that it has seen, as long as they live: the framework's `Message.to_dict` takes
    20 µs, and a long conversation has hundreds of messages that have not changed since the last turn.
    """

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Message, tuple[Fingerprint, bytes]] = WeakKeyDictionary()

    def encode(self, session: AgentSession) -> Encoded:
        """Return the session's snapshot; the session stays as it is.

        Raises:
            StoreError: it holds something that cannot be stored; the message names where.
        """
        if type(session) is not AgentSession:
            # Its class would not come back, and what it overrides with it.
            raise StoreError(f"The session is a {type(session).__name__}: only AgentSession itself can be stored.")
        try:
            return _Encoding(self._seen).session(session)
        except RecursionError:
            raise StoreError("The session's state is nested too deeply, or holds itself.") from None

    def decode(self, snapshot: Snapshot) -> AgentSession:
        """Return a new session.

        Raises:
            StoreError: a registered state type does not read what it has written.
        """
        payload = cast("dict[str, JsonValue]", _decode(snapshot.rest))
        paths = {path: cast("list[str]", json.loads(path)) for path in snapshot.lists}
        for path, keys in paths.items():
            parent = cast("dict[str, JsonValue]", payload["state"])
            for key in keys[:-1]:
                parent = cast("dict[str, JsonValue]", parent[key])
            parent[keys[-1]] = _decode_elements(snapshot.lists[path])
        session = _from_dict(payload, where="state")
        for path, keys in paths.items():
            self._remember(session, keys, snapshot.lists[path])
        return session

    def _remember(self, session: AgentSession, keys: Sequence[str], elements: Sequence[bytes]) -> None:
        """Note what the messages at `keys` were decoded from: unchanged, they need not be encoded again."""
        found: object = session.state
        for key in keys:
            if type(found) is not dict:  # a state type of the application's
                return
            found = found.get(key)
        if type(found) is not list:
            return
        for value, element in zip(found, elements, strict=True):
            if type(value) is Message and (mark := fingerprint(value)) is not None:
                self._seen[value] = (mark, element)


class _Encoding:
    """The encoding of one session: what was taken out of it so far, and whether anything was changed by it."""

    def __init__(self, seen: WeakKeyDictionary[Message, tuple[Fingerprint, bytes]]) -> None:
        self._seen = seen
        self._lists: dict[ListPath, tuple[bytes, ...]] = {}
        self._is_exact = True
        self._has_odd_float = False

    def session(self, session: AgentSession) -> Encoded:
        service_session_id = self._plain(session.service_session_id, "service_session_id")
        state = self._without_lists(session.state, (), "state")
        if not isinstance(state, dict):
            raise StoreError("The session's state is not a dict.")
        rest: JsonValue = {
            "type": "session",
            "session_id": session.session_id,
            "service_session_id": service_session_id,
            "state": state,
        }
        snapshot = Snapshot(self._bytes(rest, "state"), self._lists)
        return Encoded(snapshot, self._is_exact)

    def _without_lists(self, value: object, keys: tuple[str, ...], path: str) -> JsonValue:
        if type(value) in {list, tuple}:
            self._is_exact &= type(value) is list
            elements = cast("Sequence[object]", value)
            encoded = tuple(self._element(element, f"{path}[{index}]") for index, element in enumerate(elements))
            self._lists[ListPath(json.dumps(keys, separators=(",", ":")))] = encoded
            return None
        if type(value) is dict:
            return {
                key: self._without_lists(item, (*keys, key), f"{path}.{key}")
                for key, item in self._items(value, path).items()
            }
        plain = self._plain(value, path)
        # A state type's own lists grow as well (memories, todos).
        return self._without_lists(plain, keys, path) if isinstance(plain, dict) else plain

    def _element(self, value: object, path: str) -> bytes:
        if type(value) is not Message:
            return self._encoded(value, path)
        mark = fingerprint(value)
        known = self._seen.get(value)
        if known is not None and mark is not None and known[0] == mark:
            return known[1]
        data = self._encoded(value, path)
        if mark is not None:
            self._seen[value] = (mark, data)
        return data

    def _encoded(self, value: object, path: str) -> bytes:
        outside, self._has_odd_float = self._has_odd_float, False
        data = self._bytes(self._plain(value, path), path)
        self._has_odd_float = outside
        return data

    def _bytes(self, value: JsonValue, path: str) -> bytes:
        try:
            return _encode(value, has_odd_float=self._has_odd_float)
        except ValueError as error:  # an integer with thousands of digits
            raise StoreError(f"The session's value at {path} cannot be written as JSON.") from error

    def _plain(self, value: object, path: str) -> JsonValue:
        """Return `value` as plain JSON values."""
        kind = type(value)
        if kind in _SCALARS:
            self._has_odd_float |= kind is float and not math.isfinite(cast("float", value))
            return cast("JsonValue", value)
        if kind is dict:
            items = self._items(cast("dict[object, object]", value), path)
            return {key: self._plain(item, f"{path}.{key}") for key, item in items.items()}
        if kind in {list, tuple}:
            self._is_exact &= kind is list
            elements = cast("Sequence[object]", value)
            return [self._plain(element, f"{path}[{index}]") for index, element in enumerate(elements)]
        return self._object(value, path)

    def _object(self, value: object, path: str) -> JsonValue:
        """Return what the framework's codec makes of an object."""
        was_exact = self._is_exact
        if type(value) is Message:
            # What the codec does with messages, without the rest of it.
            plain = self._codec_output(value.to_dict(), path)
            self._is_exact = was_exact
            return plain
        plain = self._codec_output(_to_dict(value, path), path)
        payload: dict[str, JsonValue] = {"session_id": "carrier", "state": {"value": plain}}
        restored = cast("object", _from_dict(payload, where=path).state["value"])
        self._is_exact = was_exact and type(restored) is type(value)
        return plain

    def _codec_output(self, value: object, path: str) -> JsonValue:
        """Return what came out of the codec as plain JSON values; nothing else may be left in it."""
        if value is None or isinstance(value, (str, int, float)):
            # Also a member of an enumeration and the like: its plain value.
            scalar = value if type(value) in _SCALARS else _plain_scalar(cast("str | float", value))
            self._has_odd_float |= isinstance(scalar, float) and not math.isfinite(scalar)
            return cast("JsonValue", scalar)
        if isinstance(value, Mapping):
            items = self._items(value, path)
            return {key: self._codec_output(item, f"{path}.{key}") for key, item in items.items()}
        if isinstance(value, (list, tuple)):
            return [self._codec_output(element, f"{path}[{index}]") for index, element in enumerate(value)]
        raise StoreError(
            f"The session's value at {path} has the type {type(value).__name__!r}, which cannot be stored: call "
            "agent_framework.register_state_type() for it, or keep plain values."
        )

    def _items(self, value: Mapping[object, object], path: str) -> dict[str, object]:
        items = {key if type(key) is str else str(key): item for key, item in value.items()}
        if len(items) != len(value):
            raise StoreError(f"The session's value at {path} has keys that are the same as text.")
        self._is_exact &= all(type(key) is str for key in value)
        return items


def _plain_scalar(value: str | float) -> str | float:
    # `str(value)` would give an enumeration member's name.
    if isinstance(value, str):
        return str.__str__(value)
    return int.__int__(value) if isinstance(value, int) else float.__float__(value)


def _to_dict(value: object, path: str) -> object:
    carrier = AgentSession(session_id="carrier")
    carrier.state = {"value": value}
    with warnings.catch_warnings():
        # "Unsupported type": the framework leaves the value as it is and says so; here it is refused.
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            return carrier.to_dict()["state"]["value"]
        except RecursionError:
            raise
        except Exception as error:  # the application's encoder has raised it
            raise StoreError(f"The session's value at {path} cannot be encoded by its type.") from error


def _from_dict(payload: dict[str, JsonValue], *, where: str) -> AgentSession:
    try:
        return AgentSession.from_dict(payload)
    except (ValueError, RecursionError) as error:  # the framework's name for whatever the application's decoder raised
        raise StoreError(f"The session's value at {where} cannot be restored by its type.") from error


# --- Fingerprints of messages

Fingerprint: TypeAlias = tuple[bytes, tuple[str, ...]]
"""All fields of a message: its texts, and the rest as bytes (of long ones a digest)."""

_DIGEST_FROM: Final = 1_024
_MESSAGE_FIELDS: Final = len(vars(Message("user")))
_CONTENT_FIELDS: Final = tuple(vars(Content("text")))
_TEXT: Final = _CONTENT_FIELDS.index("text")
_RAW: Final = _CONTENT_FIELDS.index("raw_representation")


def fingerprint(message: Message) -> Fingerprint | None:
    """Return what is another one as soon as any field of the message is, however deep; `None` if that is unknown.

    `raw_representation` does not count: it is not stored.
    """
    texts: list[str] = []
    # Marshal, only written, never read: it takes exactly the types of plain values and refuses all others, it tells
    # 1 from True and a list from a tuple, and is fast. Version 0 has no references: equal values give equal bytes.
    try:
        mark = marshal.dumps(
            cast("Any", _fields(message, [_content(content, texts) for content in message.contents])), 0
        )
    except ValueError:
        texts = []
        try:
            mark = marshal.dumps(cast("Any", _expand(message)), 0)
        except (ValueError, RecursionError):
            return None
    return (mark if len(mark) < _DIGEST_FROM else hashlib.blake2b(mark, digest_size=32).digest(), tuple(texts))


def _fields(message: Message, contents: list[object]) -> object:
    fields = {**vars(message), "contents": contents, "raw_representation": None}
    # The values alone: a message has the same attributes in the same order all its life, except for added ones.
    return [*fields.values()] if len(fields) == _MESSAGE_FIELDS else fields


def _content(content: Content, texts: list[str]) -> object:
    if type(content) is not Content:
        raise ValueError
    fields = vars(content)
    values: list[object] = [*fields.values()]
    text, raw = content.text, content.raw_representation
    if len(values) != len(_CONTENT_FIELDS) or values[_TEXT] is not text or values[_RAW] is not raw:
        return {**fields, "raw_representation": None}
    # As for messages. A content's dict is large: copying it with its keys takes as long as all the rest.
    values[_RAW] = None
    if type(text) is str:
        # Not written: a text is compared faster as it is, and need not be in memory twice.
        texts.append(text)
        values[_TEXT] = True
    return values


def _expand(value: object) -> object:
    """Return a message with contents inside of contents (a call inside of its approval) as plain values."""
    kind = type(value)
    if kind in {Message, Content}:
        return (kind.__name__, {key: _expand(item) for key, item in vars(value).items() if key != "raw_representation"})
    if kind is list:
        return [_expand(item) for item in cast("list[object]", value)]
    if kind is dict:
        return {key: _expand(item) for key, item in cast("dict[object, object]", value).items()}
    return value
