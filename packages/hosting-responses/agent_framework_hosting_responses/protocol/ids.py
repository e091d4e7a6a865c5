"""Ids of the wire: a prefix that names the kind, then 48 random hex digits.

Source: contract §2.6. Clients must not parse ids, and item ids never repeat, not even across responses.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Final

IdFactory = Callable[[str], str]
"""Returns a new id for a prefix of `PREFIXES`, for example `msg` → `msg_5f…`."""

PREFIXES: Final[dict[str, str]] = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcpa",
    "web_search_call": "ws",
    "file_search_call": "fs",
    "code_interpreter_call": "ci",
    "image_generation_call": "ig",
    "shell_call": "sh",
    "shell_call_output": "sho",
    "local_shell_call": "lsh",
    "local_shell_call_output": "lsho",
    "apply_patch_call": "ap",
    "apply_patch_call_output": "apo",
    "computer_call": "cu",
    "computer_call_output": "cuo",
    "compaction": "cmp",
    "program": "prog",
}
"""Item type → id prefix."""


_BYTES: Final = 24


_AT_ONCE: Final = 100

# Fetched for many ids at a time, for each fetch is a system call. `pop` is atomic: threads never share a token.
_tokens: list[str] = []

if hasattr(os, "register_at_fork"):
    # Two processes that share what is left of a fetch would make the same ids.
    os.register_at_fork(after_in_child=_tokens.clear)


def _token() -> str:
    while True:
        try:
            return _tokens.pop()
        except IndexError:
            digits = secrets.token_hex(_BYTES * _AT_ONCE)
            _tokens.extend(digits[start : start + 2 * _BYTES] for start in range(0, len(digits), 2 * _BYTES))


def new_id(prefix: str) -> str:
    """Return a new, globally unique id such as `resp_…` or `msg_…`."""
    return f"{prefix}_{_token()}"


def new_item_id(item_type: str, factory: IdFactory = new_id) -> str:
    """Return a new id for an item of `item_type`; kinds without a prefix of their own get `item_…`."""
    return factory(PREFIXES.get(item_type, "item"))
