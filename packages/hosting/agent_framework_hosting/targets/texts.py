"""Any object as text: JSON where it has fields or items."""

from __future__ import annotations

import dataclasses
import json
from typing import cast

from agent_framework import Message
from pydantic_core import to_json


def as_text(output: object) -> str:
    """Return JSON for what has fields or items, for anything else what `str` makes of it."""
    try:
        structure = _structure(output)
    except TypeError:
        return str(output)
    return as_json(structure)


def as_json(value: object) -> str:
    """Return JSON as everybody reads it, of whatever is in the value: numbers that are none are `null`.

    Raises:
        ValueError: the value contains itself.
    """
    try:
        return json.dumps(value, default=_structure_or_text, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):  # keys that JSON does not know, numbers that are none
        return to_json(value, inf_nan_mode="null", bytes_mode="base64", fallback=_structure_or_text).decode()


def _structure_or_text(value: object) -> object:
    """Return the value one level closer to what `json` knows: its fields, its items, or its text."""
    try:
        return _structure(value)
    except TypeError:
        return value.text if isinstance(value, Message) else str(value)


def _structure(value: object) -> object:
    """Return the value in terms that `json` knows, one level deep; `TypeError` if it has no structure."""
    if isinstance(value, (dict, list, tuple)):
        return value
    if isinstance(value, (set, frozenset)):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    # Pydantic models, without importing pydantic for it.
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return cast("object", dump(mode="json"))
    raise TypeError
