"""What a target must do: session in, updates out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from agent_framework import AgentResponseUpdate, AgentRunInputs, AgentSession

from ..errors import ConfigurationError
from ..isolation import SHARED, Partition

TargetKind = Literal["agent", "workflow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """Where a run that its process has lost goes on: the last checkpoint of it that was stored.

    `mark` is what `HostedRun.flush` returned before that. `attempt` is the one that stored it.
    """

    checkpoint_id: str
    attempt: int
    mark: object


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedRun:
    """What a channel knows of a run, for targets that keep something of it.

    `flush` is there if another process goes on with the run when this one dies. It waits until everything that the target
    has yielded is stored, and returns a mark, a JSON value, to be stored with the checkpoint; it raises `StaleWrite`
    or `LeaseLost` if another process has the run already. `resumption` is where this attempt goes on, `None` from the start.
    """

    run_id: str
    attempt: int = 1
    flush: Callable[[], Awaitable[object]] | None = None
    resumption: Resumption | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetInput:
    """One run of a target.

    `messages` is any shape of `AgentRunInputs`, or any object of the workflow's input type. `session` is the run's own
    copy: the target changes it, and what it leaves in it is what the next turn continues from; without `keeps_session`
    there will be no next turn, and the run must leave nothing behind. `answers` are there if the run goes on with answers to
    what the last one has asked (see `Asking`), instead of `messages`: id of the request → `Question.answer`. `options` are chat options in Agent Framework's
    words; `attributes` are bound through `bind_request_context`. `run` is `None` if nobody will ask for it by its id.
    """

    messages: AgentRunInputs | object
    partition: Partition = SHARED
    session: AgentSession | None = None
    keeps_session: bool = True
    options: Mapping[str, object] = field(default_factory=dict)
    attributes: Mapping[str, object] = field(default_factory=dict)
    run: HostedRun | None = None
    answers: Mapping[str, object] = field(default_factory=dict)


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


@runtime_checkable
class Preparable(Protocol):
    """What a target is, too, if it has something to do before the host serves."""

    async def prepare(self) -> None:
        """Do it, each time the host starts.

        Raises:
            ConfigurationError: the target cannot be hosted; the message says what to change.
        """
        ...


async def prepare(target: Target) -> None:
    """Have `target` prepare itself, if it is `Preparable`."""
    if isinstance(target, Preparable):
        await target.prepare()


@runtime_checkable
class Resumable(Protocol):
    """What a target is, too, if it keeps of its runs what it takes to go on with them."""

    @property
    def can_resume(self) -> bool:
        """Whether that outlives the process."""
        ...

    async def resumption(self, partition: Partition, run_id: str) -> Resumption | None:
        """Return where the run goes on; `None` if nothing of it was executed.

        Raises:
            StoreError: it cannot be read now.
            TargetError: it cannot be read any more.
        """
        ...

    async def abandon(self, partition: Partition, run_id: str) -> None:
        """Erase what is kept of a run that nobody will go on with, nor continue: it failed, or was cancelled.

        What cannot be erased is logged and left to retention: the run has its end already.
        """
        ...


def can_resume(target: Target) -> bool:
    """Whether another process can go on with runs of `target` that this one has lost."""
    return isinstance(target, Resumable) and target.can_resume


async def abandon(target: Target, partition: Partition, run_id: str) -> None:
    """Have `target` erase what it keeps of a run that has failed or was cancelled, if it is `Resumable`."""
    if isinstance(target, Resumable):
        await target.abandon(partition, run_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A person's decision whether a tool may run."""

    is_approved: bool
    reason: str | None = None


class Question(Protocol):
    """What a run has asked, and the next one needs an answer to."""

    def answer(self, given: str | Approval) -> object:
        """Return what the target gets for what the caller has `given`.

        Raises:
            WrongAnswer: it is not what the target waits for.
        """
        ...


@runtime_checkable
class Asking(Protocol):
    """What a target is, too, if its runs may end with questions, without whose answers it does not go on."""

    async def questions(self, partition: Partition, session: AgentSession) -> Mapping[str, Question]:
        """Return the questions that a run which goes on from `session` may answer: all of them, or some.

        They are named by the `call_id` of a function call, or the `id` of an approval request, that a run has put out.
        Without any, the session is continued with messages.

        Raises:
            StoreError: they cannot be read now.
            TargetError: they cannot be read any more.
        """
        ...


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
