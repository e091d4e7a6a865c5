"""Which output belongs to which shell call.

Clients tell shell calls and their outputs apart by `call_id`: a response must not have two of one kind with
the same one.

Source: contract §3.7.
"""

from __future__ import annotations

from agent_framework_hosting_responses.protocol.calls import Calls


class ShellCalls:
    """The `call_id`s of shell calls on the wire."""

    __slots__ = ("_answered", "_calls", "_last", "_wire_ids")

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._wire_ids: dict[str, str] = {}
        self._answered: set[str] = set()
        self._last: str | None = None

    def claim(self, source_id: str | None) -> str:
        """Return the `call_id` for a further call, which the agent calls `source_id`."""
        wire_id = self._calls.claim_call_id(source_id or "")
        if source_id:
            self._wire_ids[source_id] = wire_id
        self._last = wire_id
        return wire_id

    def answer(self, source_id: str | None) -> str:
        """Return the `call_id` for the output of `source_id`; without one, of the last call."""
        wire_id = self._wire_ids.get(source_id, source_id) if source_id else self._last
        if not wire_id or wire_id in self._answered:
            wire_id = self._calls.claim_call_id("")
        self._answered.add(wire_id)
        return wire_id
