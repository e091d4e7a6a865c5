"""The `text` and `reasoning` settings of a request: structured output, verbosity, effort.

Source: contract §1.1, §1.4.
"""

from __future__ import annotations

import re
from typing import Final

from agent_framework_hosting_responses.protocol import errors, fields
from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

VERBOSITIES: Final = ("low", "medium", "high")
_FORMATS: Final = ("text", "json_schema", "json_object")
_EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SUMMARIES: Final = ("auto", "concise", "detailed")
_REASONING: Final[dict[str, tuple[str, ...]]] = {
    "effort": _EFFORTS,
    "summary": _SUMMARIES,
    "generate_summary": _SUMMARIES,
    "context": ("auto", "current_turn", "all_turns"),
    "mode": ("standard", "pro"),
}
_SCHEMA_NAME: Final = re.compile("[a-zA-Z0-9_-]{1,64}")


def parse_text(value: JsonValue, *, verbosity: str | None = None) -> JsonObject:
    """Return `text` as the Response echoes it, defaults filled in; `verbosity` is the top-level field of that name.

    Source: contract §1.1, §1.4.
    """
    text = fields.without_nulls(fields.mapping(value, "text"))
    form: JsonObject = {"type": "text"}
    if "format" in text:
        form = _parse_format(fields.without_nulls(fields.mapping(text["format"], "text.format")))
    if "verbosity" in text:
        verbosity = fields.choice(text["verbosity"], "text.verbosity", VERBOSITIES)
    return {"format": form, "verbosity": verbosity or "medium"}


def _parse_format(form: JsonObject) -> JsonObject:
    path = "text.format"
    kind = fields.choice(fields.required(form, "type", path), f"{path}.type", _FORMATS)
    if kind != "json_schema":
        return {"type": kind}
    name = fields.string(fields.required(form, "name", path), f"{path}.name")
    if _SCHEMA_NAME.fullmatch(name) is None:
        raise errors.pattern_mismatch(f"{path}.name", "^[a-zA-Z0-9_-]{1,64}$")
    read: JsonObject = {"type": kind, "description": None, "name": name}
    if "description" in form:
        read["description"] = fields.string(form["description"], f"{path}.description")
    read["schema"] = fields.mapping(fields.required(form, "schema", path), f"{path}.schema")
    read["strict"] = fields.boolean(form["strict"], f"{path}.strict") if "strict" in form else None
    return read


def parse_reasoning(value: JsonValue) -> JsonObject:
    """Return `reasoning` as the Response echoes it: `effort` and `summary` always, other settings if they were sent.

    Source: contract §1.1, §2.1.
    """
    reasoning = fields.without_nulls(fields.mapping(value, "reasoning"))
    read: JsonObject = {"effort": None, "summary": None}
    for key, options in _REASONING.items():
        if key in reasoning:
            read[key] = fields.choice(reasoning[key], f"reasoning.{key}", options)
    return read
