"""Annotations of output text.

Agent Framework has citations; the wire has four kinds, told apart by what the citation points to. Every
member is there and non-null. A citation that points to neither a URL nor a file has no form on the wire
and is left out.

Source: contract §2.4 (Annotations).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent_framework import Annotation

from agent_framework_hosting_responses.protocol.json import JsonObject

from .source import member

_MEMBERS: Final[Mapping[str, Mapping[str, type]]] = {
    "url_citation": {"url": str, "title": str, "start_index": int, "end_index": int},
    "file_citation": {"file_id": str, "filename": str, "index": int},
    "container_file_citation": {
        "container_id": str,
        "file_id": str,
        "filename": str,
        "start_index": int,
        "end_index": int,
    },
    "file_path": {"file_id": str, "index": int},
}


def wire_annotations(annotation: Annotation) -> list[JsonObject]:
    """Return `annotation` in the wire's form, once for each region of text it covers."""
    raw = _raw(annotation.get("raw_representation"))
    if raw is not None:
        return [raw]
    properties: Mapping[str, Any] = annotation.get("additional_properties") or {}
    fields: dict[str, Any] = {
        "url": annotation.get("url"),
        "title": annotation.get("title"),
        "file_id": annotation.get("file_id"),
        "filename": annotation.get("url") or annotation.get("title"),
        "container_id": properties.get("container_id"),
        "index": properties.get("index"),
    }
    kind = _kind(fields)
    if kind is None:
        return []
    regions = annotation.get("annotated_regions") or [{}]
    if kind in {"file_citation", "file_path"}:
        regions = regions[:1]
    return [_shape(kind, _at(fields, region)) for region in regions]


def _at(fields: Mapping[str, Any], region: Mapping[str, Any]) -> Mapping[str, Any]:
    index = fields["index"] if fields["index"] is not None else region.get("start_index")
    return {**fields, **region, "index": index}


def _kind(fields: Mapping[str, Any]) -> str | None:
    if fields["file_id"]:
        if fields["container_id"]:
            return "container_file_citation"
        return "file_citation" if fields["filename"] else "file_path"
    return "url_citation" if fields["url"] else None


def _raw(raw: object) -> JsonObject | None:
    kind = member(raw, "type")
    if not isinstance(kind, str) or kind not in _MEMBERS:
        return None
    return _shape(kind, {name: member(raw, name) for name in _MEMBERS[kind]})


def _shape(kind: str, fields: Mapping[str, Any]) -> JsonObject:
    shaped: JsonObject = {"type": kind}
    for name, wanted in _MEMBERS[kind].items():
        value = fields.get(name)
        is_wanted = isinstance(value, wanted) and not isinstance(value, bool)
        shaped[name] = value if is_wanted else wanted()
    return shaped
