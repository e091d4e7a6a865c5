"""Which rule writes which content: every content type of Agent Framework has exactly one.

Silent on purpose are `usage` (it is counted, see `usage.py`), `function_approval_response` (it is input),
and `hosted_vector_store` (a resource of the agent, not an answer).

Behaviours B4, C2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from agent_framework import Content

from .code_interpreter import write_code_interpreter_call, write_code_interpreter_result
from .computer import write_computer_call, write_computer_result
from .draft import Draft
from .function_call import write_function_call, write_function_result
from .image_generation import write_image_call, write_image_result
from .mcp import write_approval_request, write_mcp_call, write_mcp_result
from .media import ignore, write_consent_request, write_data, write_error, write_link, write_unknown
from .prose import write_reasoning, write_text
from .search import write_search_call, write_search_result
from .shell import write_command_output, write_shell_call, write_shell_result

Rule: TypeAlias = Callable[[Draft, Content], None]
"""Writes one content into the answer."""

RENDERING: Final[Mapping[str, Rule]] = {
    "text": write_text,
    "text_reasoning": write_reasoning,
    "data": write_data,
    "uri": write_link,
    "error": write_error,
    "function_call": write_function_call,
    "function_result": write_function_result,
    "usage": ignore,
    "hosted_file": write_link,
    "hosted_vector_store": ignore,
    "code_interpreter_tool_call": write_code_interpreter_call,
    "code_interpreter_tool_result": write_code_interpreter_result,
    "image_generation_tool_call": write_image_call,
    "image_generation_tool_result": write_image_result,
    "mcp_server_tool_call": write_mcp_call,
    "mcp_server_tool_result": write_mcp_result,
    "search_tool_call": write_search_call,
    "search_tool_result": write_search_result,
    "shell_tool_call": write_shell_call,
    "shell_tool_result": write_shell_result,
    "shell_command_output": write_command_output,
    "computer_tool_call": write_computer_call,
    "computer_tool_result": write_computer_result,
    "function_approval_request": write_approval_request,
    "function_approval_response": ignore,
    "oauth_consent_request": write_consent_request,
}
"""Content type → its rule."""


def write_content(draft: Draft, content: Content) -> None:
    """Write `content` by the rule for its type."""
    RENDERING.get(getattr(content, "type", ""), write_unknown)(draft, content)
