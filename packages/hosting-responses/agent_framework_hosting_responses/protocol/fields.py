"""Readers of typed fields: a JSON value and its path in, the value narrowed out, or a `RequestError` that names the path.

A path is written as clients see it, for example `input[3].content[0].type`. An explicit null equals absence, so readers never
see null except inside free-form objects.

Source: contract §0.3, §1.1, §4.8 E8-E12d.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from agent_framework_hosting_responses.protocol import errors
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

Reader: TypeAlias = Callable[[JsonValue, str], JsonValue]
"""Takes a value and its path, returns the value as it is kept."""

MAX_TEXT: Final = 10_485_760
"""Characters of one text. Source: contract §1.1."""

MAX_ID: Final = 256
"""Characters of an id that a caller sends; ours have at most 64, other servers' ids may be longer."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]+")


def without_nulls(value: JsonObject) -> JsonObject:
    """Return `value` without its null members: an explicit null equals absence."""
    return {key: member for key, member in value.items() if member is not None}


def required(fields: JsonObject, key: str, path: str) -> JsonValue:
    """Return the member `key` of the object at `path`; E8 if it is absent or null."""
    value = fields.get(key)
    if value is None:
        raise errors.missing_parameter(f"{path}.{key}" if path else key)
    return value


def string(value: JsonValue, path: str, *, maximum: int = MAX_TEXT) -> str:
    """Return a string of at most `maximum` characters."""
    if not isinstance(value, str):
        raise errors.invalid_type(path, "a string", value)
    if len(value) > maximum:
        raise errors.string_too_long(path, maximum, len(value))
    return value


def boolean(value: JsonValue, path: str) -> bool:
    """Return a boolean; the strings `"true"` and `"false"` are none."""
    if not isinstance(value, bool):
        raise errors.invalid_type(path, "a boolean", value)
    return value


def integer(value: JsonValue, path: str, *, minimum: int, maximum: int | None = None) -> int:
    """Return an integer within its bounds; booleans and decimals are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise errors.invalid_type(path, "an integer", value)
    if value < minimum:
        raise errors.integer_too_small(path, minimum, value)
    if maximum is not None and value > maximum:
        raise errors.integer_too_big(path, maximum, value)
    return value


def decimal(value: JsonValue, path: str, *, minimum: float, maximum: float) -> float:
    """Return a number within its bounds as a float; integers are decimals, booleans are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise errors.invalid_type(path, "a decimal", value)
    if value < minimum:
        raise errors.decimal_too_small(path, minimum, value)
    if value > maximum:
        raise errors.decimal_too_big(path, maximum, value)
    return float(value)


def choice(value: JsonValue, path: str, options: Sequence[str]) -> str:
    """Return one of the strings in `options`."""
    text = string(value, path)
    if text not in options:
        raise errors.invalid_value(path, text, options)
    return text


def mapping(value: JsonValue, path: str) -> JsonObject:
    """Return an object."""
    if not isinstance(value, dict):
        raise errors.invalid_type(path, "an object", value)
    return value


def array(value: JsonValue, path: str, *, maximum: int) -> list[JsonValue]:
    """Return an array of at most `maximum` elements."""
    if not isinstance(value, list):
        raise errors.invalid_type(path, "an array", value)
    if len(value) > maximum:
        raise errors.array_too_long(path, maximum, len(value))
    return value


def identifier(value: JsonValue, path: str) -> str:
    """Return an id: letters, digits, `_` and `-`, so that it is safe as a key, a file name and a path segment."""
    text = string(value, path)
    if len(text) > MAX_ID:
        raise errors.id_too_long(path, MAX_ID, len(text))
    if not is_identifier(text):
        raise errors.invalid_id(path, text)
    return text


def is_identifier(value: str) -> bool:
    """Return whether `value` is a plausible id."""
    return len(value) <= MAX_ID and _ID.fullmatch(value) is not None


def is_plain(value: str) -> bool:
    """Return whether `value` can be the id of anything stored: short printable text, which every database can hold."""
    return len(value) <= MAX_ID and value.isprintable()


# --- Readers made of readers -------------------------------------------------------------------------------------


def text_of(maximum: int) -> Reader:
    """Return a reader of non-empty strings of at most `maximum` characters."""

    def read(value: JsonValue, path: str) -> JsonValue:
        text = string(value, path, maximum=maximum)
        if not text:
            raise errors.pattern_mismatch(path, ".+")
        return text

    return read


def one_of(*options: str) -> Reader:
    """Return a reader of the strings in `options`."""
    return lambda value, path: choice(value, path, options)


def list_of(element: Reader, *, maximum: int = 10_000) -> Reader:
    """Return a reader of arrays whose elements `element` reads."""

    def read(value: JsonValue, path: str) -> JsonValue:
        values = array(value, path, maximum=maximum)
        return [element(member, f"{path}[{index}]") for index, member in enumerate(values)]

    return read


def anything(value: JsonValue, path: str) -> JsonValue:  # noqa: ARG001  a Reader
    """Accept any value as it is."""
    return value
