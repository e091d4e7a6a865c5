"""Web and file search.

Source: contract §2.4, §3.6 (web_search_call, file_search_call).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar, Final

from agent_framework import Content

from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

from .draft import Draft
from .hosted import HostedItem
from .results import is_failure
from .source import responses_item

_ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "search": (),
    "open_page": ("url",),
    "find_in_page": ("pattern", "url"),
}


class WebSearchItem(HostedItem):
    """One web search; its action is told at the end only."""

    opening: ClassVar[tuple[str, ...]] = ("in_progress", "searching")

    def initial(self) -> JsonObject:
        """Return the search without its action."""
        return {"id": self.item["id"], "type": self.item_type, "status": "in_progress"}

    def conclude(self, item: JsonObject) -> JsonObject:
        """Tell that the search is over."""
        if item.get("status") == "completed":
            self.progress("completed")
        return {**item, "action": item.get("action") or {"type": "search", "query": ""}}

    def broken(self) -> JsonObject:
        """Return the search with the action as far as it is known."""
        return {"action": {"type": "search", "query": ""}, **self.item, "status": "incomplete"}


class FileSearchItem(HostedItem):
    """One file search; results are told only when the request includes them."""

    opening: ClassVar[tuple[str, ...]] = ("in_progress", "searching")

    def initial(self) -> JsonObject:
        """Return the search without queries and results."""
        return {**self.item, "status": "in_progress", "queries": [], "results": None}

    def conclude(self, item: JsonObject) -> JsonObject:
        """Tell that the search is over."""
        if item.get("status") == "completed":
            self.progress("completed")
        return item


def write_search_call(draft: Draft, content: Content) -> None:
    """Open the item of a search."""
    item = _raw(content)
    if item is None:
        arguments = _mapping(content.arguments)
        item = {"type": _item_type(content), "status": "in_progress"}
        if item["type"] == "web_search_call":
            item["action"] = _action(arguments, content.arguments)
        else:
            item["queries"] = _queries(arguments, content.arguments)
            item["results"] = None
    draft.before_output()
    draft.hosted.open(content.call_id, item, _writer(item))


def write_search_result(draft: Draft, content: Content) -> None:
    """Finish the item of a search."""
    item = _raw(content)
    draft.before_output()
    if item is not None:
        draft.hosted.open(content.call_id, {"status": "completed", **item}, _writer(item))
        return
    item_type = _item_type(content)
    opened = draft.hosted.get(item_type, content.call_id)
    item = dict(opened.item) if opened is not None else {"type": item_type, "queries": [], "results": None}
    item["status"] = "failed" if is_failure(content) else "completed"
    if item_type == "file_search_call":
        item["results"] = _results(content.result)
    elif opened is None:
        item = {"type": item_type, "status": item["status"], "action": _action(_mapping(content.result), None)}
    draft.hosted.end(content.call_id, item, _writer(item))


def _writer(item: JsonObject) -> type[HostedItem]:
    return FileSearchItem if item["type"] == "file_search_call" else WebSearchItem


def _item_type(content: Content) -> str:
    return "file_search_call" if "file" in (content.tool_name or "") else "web_search_call"


def _raw(content: Content) -> JsonObject | None:
    item = responses_item(content.raw_representation)
    return item if item is not None and item["type"] in {"web_search_call", "file_search_call"} else None


def _mapping(value: object) -> Mapping[str, object]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _action(arguments: Mapping[str, object], text: object) -> JsonObject:
    nested = arguments.get("action")
    if isinstance(nested, Mapping):
        arguments = nested
    kind = arguments.get("type")
    if isinstance(kind, str) and kind in _ACTIONS and kind != "search":
        fields: JsonObject = {name: str(arguments.get(name) or "") for name in _ACTIONS[kind]}
        return {"type": kind, **fields}
    queries = _queries(arguments, text)
    action: JsonObject = {"type": "search", "query": queries[0] if queries else ""}
    if len(queries) > 1:
        action["queries"] = queries
    return action


def _queries(arguments: Mapping[str, object], text: object) -> list[JsonValue]:
    queries = arguments.get("queries")
    if isinstance(queries, list):
        return [str(query) for query in queries]
    query = arguments.get("query")
    if isinstance(query, str):
        return [query]
    return [text] if isinstance(text, str) and text and not arguments else []


def _results(value: object) -> JsonValue:
    results = value.get("results") if isinstance(value, Mapping) else value
    if not isinstance(results, list):
        return None
    return [_result(entry) for entry in results if isinstance(entry, Mapping)]


def _result(entry: Mapping[str, object]) -> JsonObject:
    result: JsonObject = {
        name: value for name in ("file_id", "filename", "text") if isinstance(value := entry.get(name), str)
    }
    score = entry.get("score")
    if isinstance(score, int | float):
        result["score"] = score
    attributes = entry.get("attributes")
    if isinstance(attributes, Mapping):
        result["attributes"] = {
            str(name): value for name, value in attributes.items() if isinstance(value, str | int | float)
        }
    return result
