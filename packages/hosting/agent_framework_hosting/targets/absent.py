"""A target for tools: they use what a host has, and execute nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from agent_framework import AgentResponseUpdate, AgentSession

from ..errors import ConfigurationError
from .base import TargetInput, TargetKind


class AbsentTarget:
    """Takes the place of an agent that is not there."""

    name: Final = "nobody"
    kind: Final[TargetKind] = "agent"
    hosted: Final[object] = None

    def stream(self, run: TargetInput) -> AsyncGenerator[AgentResponseUpdate, None]:
        """Refuse to run.

        Raises:
            ConfigurationError: always.
        """
        del run
        raise ConfigurationError("There is no agent here.")

    def new_session(self) -> AgentSession:
        """Return an empty session."""
        return AgentSession()

    def server_tools(self) -> frozenset[str]:
        """Return nothing: it has no tools."""
        return frozenset()
