"""An agent as a target: whatever shape its `run` has, updates come out."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any, Literal, cast

from agent_framework import (
    AgentResponse,
    AgentResponseUpdate,
    AgentSession,
    FunctionTool,
    ResponseStream,
    SupportsAgentRun,
)

from ..branches import Claim, continue_elsewhere, note_history, without_saving
from ..errors import ConfigurationError, TargetError
from .base import TargetInput, bound_request_context
from .turn import SESSION_STATE_KEY as WORKFLOW_STATE_KEY

logger = logging.getLogger(__name__)


class AgentTarget:
    """Runs anything that satisfies `SupportsAgentRun`, always streamed: one-shot answers collect the same updates."""

    kind: Literal["agent"] = "agent"

    def __init__(self, agent: SupportsAgentRun) -> None:
        if not callable(getattr(agent, "run", None)):
            raise ConfigurationError(f"{type(agent).__name__} is no agent: it has no run().")
        self._agent = agent
        self._takes_options = _accepts(agent.run, "options")
        self.name: str = getattr(agent, "name", None) or getattr(agent, "id", None) or type(agent).__name__
        self.hosted: object = agent

    def new_session(self) -> AgentSession:
        """Return a session made by the agent itself."""
        create = getattr(self._agent, "create_session", None)
        return cast("AgentSession", create()) if create is not None else AgentSession()

    async def continued(self, session: AgentSession, claim: Claim | None) -> AgentSession | None:
        """Return the session to run with, `None` if only a new one will do. See `ContinuesSessions`."""
        if WORKFLOW_STATE_KEY in session.state:  # of a workflow that was served in the agent's place
            return None
        return await continue_elsewhere(self._agent, session, claim)

    def server_tools(self) -> frozenset[str]:
        """Return the names of the agent's configured function tools that have an implementation."""
        options = getattr(self._agent, "default_options", None) or {}
        tools = options.get("tools") or ()
        return frozenset(tool.name for tool in tools if isinstance(tool, FunctionTool) and not tool.declaration_only)

    async def stream(self, run: TargetInput) -> AsyncGenerator[AgentResponseUpdate, None]:
        """Yield the updates of one run. See `Target.stream`."""
        candidates = (self._agent, *(getattr(self._agent, "context_providers", None) or ()))
        bindables = [candidate for candidate in candidates if hasattr(candidate, "bind_request_context")]
        async with AsyncExitStack() as stack:
            if bindables:
                await stack.enter_async_context(bound_request_context(bindables, run.attributes))
            session = run.session
            service_id_before = None if session is None else session.service_session_id
            try:
                async for update in await self._start(run, stack):
                    yield update
                if session is not None and run.keeps_session:
                    await note_history(self._agent, session, service_id_before=service_id_before)
            except Exception as error:
                raise TargetError(f"The agent {self.name!r} failed.") from error

    def _agent_of(self, run: TargetInput) -> SupportsAgentRun:
        if run.keeps_session:
            return self._agent
        return cast("SupportsAgentRun", without_saving(self._agent, run.session))

    async def _start(self, run: TargetInput, stack: AsyncExitStack) -> AsyncIterable[AgentResponseUpdate]:
        """Call the agent and return its updates; `stack` closes what has to be closed when the run ends early."""
        kwargs: dict[str, Any] = {"stream": True, "session": run.session}
        if run.options and self._takes_options:
            kwargs["options"] = dict(run.options)
        elif run.options:
            # A run hook that lets everything through is legitimate; this agent has no use for options.
            logger.warning("The agent takes no options; they are ignored", extra={"options": sorted(run.options)})
        started: object = self._agent_of(run).run(cast("Any", run.messages), **kwargs)
        # A ResponseStream is awaitable too, but awaiting it would finish it before the first update is out.
        if not isinstance(started, AsyncIterable) and isinstance(started, Awaitable):
            started = await started
        if isinstance(started, AgentResponse):
            return _Updates(started.to_updates())
        if isinstance(started, ResponseStream):
            stack.push_async_callback(started.close)
        elif isinstance(started, AsyncGenerator):
            await stack.enter_async_context(aclosing(started))
        elif not isinstance(started, AsyncIterable):
            raise TypeError(f"run(stream=True) returned {type(started).__name__}: no async iterable and no response.")
        return cast("AsyncIterable[AgentResponseUpdate]", started)


class _Updates(AsyncIterable[AgentResponseUpdate]):
    """The updates of an agent that answered all at once."""

    def __init__(self, updates: list[AgentResponseUpdate]) -> None:
        self._updates = updates

    async def __aiter__(self) -> AsyncGenerator[AgentResponseUpdate, None]:
        for update in self._updates:
            yield update


def _accepts(function: Callable[..., object], parameter: str) -> bool:
    parameters = inspect.signature(function).parameters
    return parameter in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
