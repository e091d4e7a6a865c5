"""What a target must do: session in, updates out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from agent_framework import AgentResponseUpdate, AgentRunInputs, AgentSession

from ..errors import ConfigurationError
from ..isolation import SHARED, Partition

TargetKind = Literal["agent", "workflow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetInput:
    """One run of a target.

    `messages` is any shape of `AgentRunInputs`, or any object of the workflow's input type. `session` is the run's own
    copy: the target changes it, and what it leaves in it is what the next turn continues from; without `keeps_session`
    there will be no next turn, and the run must leave nothing behind. `options` are chat options in Agent Framework's
    words; `attributes` are bound through `bind_request_context`.
    """

    messages: AgentRunInputs | object
    partition: Partition = SHARED
    session: AgentSession | None = None
    keeps_session: bool = True
    options: Mapping[str, object] = field(default_factory=dict)
    attributes: Mapping[str, object] = field(default_factory=dict)


class Target(Protocol):
    """An agent or a workflow as the host runs it."""

    @property
    def name(self) -> str:
        """What callers may call it; never empty."""
        ...

    @property
    def kind(self) -> TargetKind:
        """Whether it is an agent or a workflow."""
        ...

    @property
    def hosted(self) -> object:
        """The user's own object, for hooks."""
        ...

    def stream(self, run: TargetInput) -> AsyncGenerator[AgentResponseUpdate, None]:
        """Yield the updates of one run; close the generator to cancel it (`aclosing`).

        Raises:
            TargetError: the agent or workflow raised; its exception is the cause.
        """
        ...

    def new_session(self) -> AgentSession:
        """Return a session for a new conversation."""
        ...

    def server_tools(self) -> frozenset[str]:
        """Return the names of the tools that the target is known to execute itself."""
        ...


@runtime_checkable
class Erasable(Protocol):
    """What a target is, too, if it keeps something of a conversation outside of the session."""

    async def erase(self, partition: Partition, session: AgentSession) -> None:
        """Erase what is kept for going on from `session`; do nothing if that is gone already.

        Copies of the session go on from the same place: erase it with the last of them that is stored.

        Raises:
            StoreError: it could not be erased; erasing again may work.
        """
        ...


async def erase(target: Target, partition: Partition, session: AgentSession) -> None:
    """Have `target` erase what it keeps for going on from `session`, if it is `Erasable`."""
    if isinstance(target, Erasable):
        await target.erase(partition, session)


@contextlib.asynccontextmanager
async def bound_request_context(
    bindables: Iterable[object], attributes: Mapping[str, object]
) -> AsyncGenerator[None, None]:
    """Bind `attributes` to every object that has `bind_request_context`, until the block ends on whatever path.

    Raises:
        ConfigurationError: `bind_request_context` returned something that is no context manager.
    """
    async with contextlib.AsyncExitStack() as stack:
        for bindable in bindables:
            bind = getattr(bindable, "bind_request_context", None)
            if bind is None:
                continue
            binding = bind(**attributes)
            if isinstance(binding, contextlib.AbstractAsyncContextManager):
                await stack.enter_async_context(binding)
            elif isinstance(binding, contextlib.AbstractContextManager):
                stack.enter_context(binding)
            else:
                raise ConfigurationError(
                    f"bind_request_context of {type(bindable).__name__} must return a context manager."
                )
        yield
