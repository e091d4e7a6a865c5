"""What the operator and the request decided about the answer's form."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec


class EncoderOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Whose tools are whose, and what is shown of the run."""

    client_tools: frozenset[str] = frozenset()
    """Function tools that the request declared and that were offered to the agent."""

    custom_tools: frozenset[str] = frozenset()
    """Tools of type `custom` that the request declared: calls to them are `custom_tool_call` items."""

    server_tools: frozenset[str] = frozenset()
    """Tools that the agent is known to execute itself."""

    allowed_tools: frozenset[str] | None = None
    """The hard rule of `tool_choice`: calls to other client tools are not emitted."""

    taken_ids: Collection[str] = frozenset()
    """Ids of items and calls that the context has already: this response uses none of them again (contract §3.8)."""

    server_calls: Literal["hide", "function_call", "mcp_call"] = "hide"
    """The form of calls that the server ran itself."""

    server_label: str = "agent"
    """The `server_label` of approval requests and shown server calls."""

    reasoning: Literal["summary", "text"] = "summary"
    """The form of reasoning that the provider did not mark as raw text."""

    include: frozenset[str] = frozenset()
    """The request's `include`. Source: contract §1.6."""

    error_details: bool = False
    """Whether messages of errors and failed tools may leave the server."""
