"""Contexts: the items that a request continues from, as linked lists that share what they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Self

from agent_framework_hosting.stores.base import SessionKey

from ..protocol.json import JsonObject


class Context:
    """Items, oldest first, that end with those of one turn; `parent` has the ones before. Never changed.

    Two responses that continue the same one share its context, so that memory and work grow with what is new.
    `response_id` names the response whose input and output the items of this node are, `None` for items that a
    conversation got from its API; `has_session` says that the agent session after that response is stored.
    `approvals` and `call_ids` are those of `ResponseRecord`, of this node alone.
    """

    __slots__ = ("approvals", "call_ids", "has_session", "items", "length", "parent", "response_id")

    def __init__(
        self,
        items: Sequence[JsonObject],
        *,
        parent: Context | None = None,
        response_id: str | None = None,
        has_session: bool = False,
        approvals: Mapping[str, JsonObject] | None = None,
        call_ids: Mapping[str, str] | None = None,
    ) -> None:
        self.items = tuple(items)
        self.parent = parent
        self.response_id = response_id
        self.has_session = has_session
        self.approvals: Mapping[str, JsonObject] = approvals or {}
        self.call_ids: Mapping[str, str] = call_ids or {}
        self.length: int = len(self.items) + (0 if parent is None else parent.length)

    def nodes(self) -> Iterator[Context]:
        """Yield this node and those before it, the newest first."""
        node: Context | None = self
        while node is not None:
            yield node
            node = node.parent

    def all_items(self) -> tuple[JsonObject, ...]:
        """Return every item, oldest first. Costs time for each of them: a turn that can do without should."""
        nodes = list(self.nodes())
        return tuple(item for node in reversed(nodes) for item in node.items)

    def all_approvals(self) -> dict[str, JsonObject]:
        """Return the approval requests of all nodes by id."""
        return {key: value for node in self.nodes() for key, value in node.approvals.items()}

    def all_call_ids(self) -> dict[str, str]:
        """Return `call_id`s of the wire → the target's own, of all nodes."""
        return {key: value for node in self.nodes() for key, value in node.call_ids.items()}

    def extended(self, items: Sequence[JsonObject]) -> Self:
        """Return this context with items of nobody's turn after it."""
        return type(self)(items, parent=self) if items else self


EMPTY: Final = Context(())
"""The context of a first request."""


def response_session_key(response_id: str) -> SessionKey:
    """Return the key of the session snapshot that belongs to a response."""
    return SessionKey(f"response:{response_id}")
