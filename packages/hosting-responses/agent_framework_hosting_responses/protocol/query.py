"""Query parameters of the GET endpoints, and the pages they ask for.

Source: contract §1.6, §4.2, §4.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias, cast

import msgspec

from agent_framework_hosting_responses.protocol import errors, fields
from agent_framework_hosting_responses.protocol.json import JsonObject
from agent_framework_hosting_responses.protocol.resources import item_page

QueryPairs: TypeAlias = Iterable[tuple[str, str]]
"""The decoded parameters of a query string, in order, repeated names included."""

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
_MAX_POSITION: Final = 2**53
_INTEGER: Final = re.compile("-?[0-9]{1,18}")
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


class RetrieveQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How a response is asked for; `starting_after` is the last sequence number the client has, -1 for none."""

    stream: bool = False
    starting_after: int = -1
    include: frozenset[str] = frozenset()
    include_obfuscation: bool | None = None


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of a list is asked for; `after` and `before` are item ids, exclusive, in list order."""

    limit: int = DEFAULT_LIMIT
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    before: str | None = None
    include: frozenset[str] = frozenset()


def parse_retrieve_query(pairs: QueryPairs) -> RetrieveQuery:
    """Return the query of `GET /responses/{id}`. Unknown parameters are ignored.

    `starting_after` without `stream=true` is checked and then has no effect.

    Raises:
        RequestError: A parameter has the wrong type or is out of range.

    Source: contract §4.2.
    """
    given, include = _read(pairs)
    starting_after = -1
    if "starting_after" in given:
        starting_after = _integer(given["starting_after"], "starting_after", minimum=0, maximum=_MAX_POSITION)
    return RetrieveQuery(
        stream=_boolean(given["stream"], "stream") if "stream" in given else False,
        starting_after=starting_after,
        include=include,
        include_obfuscation=(
            _boolean(given["include_obfuscation"], "include_obfuscation") if "include_obfuscation" in given else None
        ),
    )


def parse_list_query(pairs: QueryPairs) -> ListQuery:
    """Return the query of a list endpoint. Unknown parameters are ignored.

    Raises:
        RequestError: A parameter has the wrong type or is out of range.

    Source: contract §4.5.
    """
    given, include = _read(pairs)
    limit = DEFAULT_LIMIT
    if "limit" in given:
        limit = _integer(given["limit"], "limit", minimum=1, maximum=MAX_LIMIT)
    order = fields.choice(given.get("order", "desc"), "order", ("asc", "desc"))
    return ListQuery(
        limit=limit,
        order=cast("Literal['asc', 'desc']", order),
        after=given.get("after"),
        before=given.get("before"),
        include=include,
    )


def page(items: Sequence[JsonObject], query: ListQuery) -> JsonObject:
    """Return the page of `items` (oldest first, as stored) that `query` asks for.

    Raises:
        RequestError: 404, no item has the id in `after` or `before`.

    Source: contract §4.5.
    """
    ordered = list(items) if query.order == "asc" else list(reversed(items))
    start = _position(ordered, query.after) + 1 if query.after is not None else 0
    end = _position(ordered, query.before) if query.before is not None else len(ordered)
    window = ordered[start:end]
    return item_page(window[: query.limit], has_more=len(window) > query.limit)


def _position(items: Sequence[JsonObject], item_id: str) -> int:
    for index, item in enumerate(items):
        if item["id"] == item_id:
            return index
    raise errors.item_not_found(item_id)


def _read(pairs: QueryPairs) -> tuple[dict[str, str], frozenset[str]]:
    given: dict[str, str] = {}
    include: set[str] = set()
    for name, value in pairs:
        if name in {"include", "include[]"}:
            include.add(value)
        elif value:
            # A parameter without a value, as in `?after=&limit=5`, says nothing.
            given[name] = value
    return given, frozenset(include)


def _boolean(text: str, name: str) -> bool:
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise errors.invalid_type(name, "a boolean", text)
    return value


def _integer(text: str, name: str, *, minimum: int, maximum: int) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise errors.invalid_type(name, "an integer", text)
    return fields.integer(int(text), name, minimum=minimum, maximum=maximum)
