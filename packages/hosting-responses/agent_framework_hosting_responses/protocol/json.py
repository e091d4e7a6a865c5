"""JSON on the wire: one encoder and one decoder for events and stored bodies."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeAlias

import msgspec

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""Any JSON value as Python objects."""

JsonObject: TypeAlias = dict[str, JsonValue]
"""A JSON object as a Python dict."""

_encoder = msgspec.json.Encoder()

# A frame ends at a line break, and some SSE readers split at every line break that Unicode knows.
_LINE_BREAKS = ("\u0085", "\u2028", "\u2029")


def encode_json(value: object) -> bytes:
    """Return `value` as JSON on one line, also for line readers that split at U+2028.

    Lone surrogates, which UTF-8 cannot carry, are written as JSON escapes.

    Raises:
        TypeError: `value` holds something JSON cannot express.
    """
    try:
        data = _encoder.encode(value)
    except UnicodeEncodeError:
        # Models cut emoji in halves; JSON can carry the half as an escape although UTF-8 cannot.
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode("ascii")
    if _has_line_break(data):
        text = data.decode("utf-8")
        for char in _LINE_BREAKS:
            text = text.replace(char, f"\\u{ord(char):04x}")
        return text.encode("utf-8")
    return data


def decode_json(data: bytes) -> Any:
    """Return the value that `encode_json` has written, lone surrogates included. For callers' JSON there is `decode_body`."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        # The halves of a character, which models do cut, are valid JSON only for the standard library.
        return json.loads(data)


def digest_of(value: object) -> str:
    """Return what tells JSON values apart, whatever the order of the members of their objects."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("ascii")).hexdigest()


def _has_line_break(data: bytes) -> bool:
    return b"\xe2\x80\xa8" in data or b"\xe2\x80\xa9" in data or b"\xc2\x85" in data
