"""What fresh workflows are made from: a factory, or copies of an instance that never runs."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import logging
import pickle
import types
import uuid
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, TypeAlias

from agent_framework import (
    Agent,
    AgentSession,
    BaseChatClient,
    ContextProvider,
    Executor,
    FileCheckpointStorage,
    FunctionalWorkflow,
    FunctionalWorkflowAgent,
    FunctionExecutor,
    FunctionTool,
    InMemoryCheckpointStorage,
    MCPStdioTool,
    MCPStreamableHTTPTool,
    MCPWebsocketTool,
    SupportsAgentRun,
    SupportsChatGetResponse,
    Workflow,
    WorkflowAgent,
    WorkflowExecutor,
)

from ..errors import ConfigurationError
from ..hooks import resolve
from ..sessions import fork

_SHARED = (
    BaseChatClient,
    ContextProvider,
    FunctionTool,
    MCPStdioTool,
    MCPStreamableHTTPTool,
    MCPWebsocketTool,
    FileCheckpointStorage,
    InMemoryCheckpointStorage,
)
_LEAVES = (
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    type,
    types.FunctionType,
    types.ModuleType,
    types.GenericAlias,
    logging.Logger,
    # What an event or a lock holds that was waited for; from here everything in the process can be reached.
    asyncio.AbstractEventLoop,
)
# What `deepcopy` raises for a lock, a socket, a generator, an event loop, a class with its own idea of copying.
_NOT_COPYABLE = (TypeError, ValueError, AttributeError, RuntimeError, pickle.PicklingError)


AnyWorkflow: TypeAlias = Workflow | FunctionalWorkflow
"""A workflow of the framework, of either kind."""

_WORKFLOWS: Final = (Workflow, FunctionalWorkflow)
_AS_AGENTS: Final = (WorkflowAgent, FunctionalWorkflowAgent)


class WorkflowBuilding(Protocol):
    """What builds a workflow: a `WorkflowBuilder`, a function that is decorated with the framework's `workflow`."""

    def build(self) -> AnyWorkflow:
        """Return a workflow; the executors in it may be the same each time."""
        ...


WorkflowSource: TypeAlias = AnyWorkflow | WorkflowBuilding | Callable[[], AnyWorkflow | Awaitable[AnyWorkflow]]
"""What workflows are made from: an instance, a builder, or a function, sync or async."""


class WorkflowBlueprint:
    """Makes one workflow per run, each in its initial state.

    A workflow keeps state and refuses a second run while one is under way. Given an instance, which must not have run
    yet, every run gets a deep copy of it: executors and their state are copied, the agents, chat clients, context
    providers and tools in them are shared, and agent sessions begin anew under ids of their own. A builder is asked once,
    and its workflow copied: what it builds a second time has the executors of the first, and their state.

    `sample` is a workflow that never runs, `None` as long as nobody has waited for an async factory; `agents` are those in it.

    Raises:
        ConfigurationError: the instance cannot be copied, has a checkpoint storage of its own, or the factory makes no
            `Workflow`.
    """

    def __init__(self, source: WorkflowSource) -> None:
        self.sample: AnyWorkflow | None = None
        self.agents: Sequence[SupportsAgentRun] = ()
        instance = _instance(source)
        if instance is not None:
            original = _copied(instance)
            self._make: Callable[[], object] = functools.partial(_copied, original)
            self._take_sample(original)
        elif callable(source):
            self._make = source
            self._try_factory()
        else:
            raise ConfigurationError(
                f"{type(source).__name__} is neither a Workflow, nor a builder or a function that makes one."
            )

    def _try_factory(self) -> None:
        """Take a sample, unless that has to be waited for."""
        if inspect.iscoroutinefunction(self._make):
            return
        with _telling("The workflow factory"):
            made = self._make()
        if inspect.iscoroutine(made):
            made.close()  # nothing of it was executed
        elif not inspect.isawaitable(made):
            self._take_sample(_as_workflow(made, "The workflow factory"))

    async def prepare(self) -> None:
        """Make the `sample`, unless it is there.

        Raises:
            ConfigurationError: the factory failed, or makes no `Workflow` that can be hosted.
        """
        if self.sample is not None:
            return
        with _telling("The workflow factory"):
            made = await self._made()
        self._take_sample(made)

    async def new(self) -> AnyWorkflow:
        """Return a workflow that nobody else has.

        Raises:
            ConfigurationError: the factory makes no `Workflow`, or what it makes shares state.
        """
        made = await self._made()
        if made is self.sample:
            raise ConfigurationError(
                "The workflow factory returned the same Workflow again: it must make a new one for every run, or "
                "conversations would share its state. Pass the instance instead to have it copied."
            )
        sample = {id(executor) for executor in _stateful_executors(self.sample)}
        shared = next((executor for executor in _stateful_executors(made) if id(executor) in sample), None)
        if shared is not None:
            raise ConfigurationError(
                f"The workflow factory used the executor {shared.id!r} again: it must make new ones for every run, or "
                "conversations would share their state. Pass the builder or an instance to have them copied."
            )
        return made

    async def _made(self) -> AnyWorkflow:
        return _as_workflow(await resolve(self._make()), "The workflow factory")

    def _take_sample(self, workflow: AnyWorkflow) -> None:
        for part in _parts(workflow):
            if isinstance(part, _WORKFLOWS) and _has_storage(part):
                raise ConfigurationError(
                    f"The workflow {part.name!r} has a checkpoint storage of its own, where the states of all callers "
                    "would meet: build it without, and pass checkpoint_location, or the storage as checkpoint_location."
                )
        self.sample = workflow
        self.agents = agents_of(workflow)


def _stateful_executors(workflow: AnyWorkflow | None) -> Iterator[Executor]:
    """Yield the executors that may keep something between runs, those of nested workflows included."""
    for executor in workflow.executors.values() if isinstance(workflow, Workflow) else ():
        if isinstance(executor, WorkflowExecutor):
            yield from _stateful_executors(executor.workflow)
        # A decorated function is one object wherever it is used.
        if not isinstance(executor, FunctionExecutor):
            yield executor


def _has_storage(workflow: AnyWorkflow) -> bool:
    # Neither kind can be asked.
    if isinstance(workflow, Workflow):
        return workflow._runner_context.has_checkpointing()  # noqa: SLF001
    return workflow._checkpoint_storage is not None  # noqa: SLF001


def _instance(source: WorkflowSource) -> AnyWorkflow | None:
    if isinstance(source, _WORKFLOWS):
        return source
    build = getattr(source, "build", None)
    if not callable(build):
        return None
    with _telling("build()"):
        return _as_workflow(build(), "build()")


@contextmanager
def _telling(maker: str) -> Generator[None, None, None]:
    """Tell of whatever a user's code raises in the block as of something to change."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{maker} failed: {type(error).__name__}: {error}") from error


def _as_workflow(made: object, maker: str) -> AnyWorkflow:
    if isinstance(made, _WORKFLOWS):
        return made
    hint = ""
    if callable(getattr(made, "build", None)):
        hint = " Let it return what build() returns: the executors must be made anew, too."
    elif callable(getattr(made, "run", None)):
        hint = " Pass an agent itself: it is shared by all runs."
    raise ConfigurationError(f"{maker} returned {type(made).__name__}, not a Workflow.{hint}")


def agents_of(workflow: AnyWorkflow) -> list[SupportsAgentRun]:
    """Return the agents in the workflow's executors, each once, those of nested workflows included."""
    return [part for part in _notable_parts(workflow) if isinstance(part, SupportsAgentRun)]


def _copied(workflow: AnyWorkflow) -> AnyWorkflow:
    try:
        made = copy.deepcopy(workflow, _not_copied(workflow))
    except _NOT_COPYABLE as error:
        raise ConfigurationError(
            f"The workflow {workflow.name!r} cannot be copied, and without copies this instance could only be run one at a "
            "time, with one state for everybody. Pass a function that builds it instead of the instance, or an instance "
            "that has not run yet."
        ) from error
    if isinstance(made, Workflow):
        made.id = str(uuid.uuid4())
    return made


def _not_copied(workflow: AnyWorkflow) -> dict[int, object]:
    """Return what stands in the place of parts that copies share, or that begin anew, by the part's id."""
    parts = list(_parts(workflow))
    own = {id(part) for part in parts if not _is_notable(part)}
    memo: dict[int, object] = {}
    tied: set[int] = set()
    while parts:
        part = parts.pop()
        if isinstance(part, AgentSession):
            # Context providers may keep a conversation outside, under the session's id: two chains must not share it.
            memo[id(part)] = fork(copy.deepcopy(part))
        elif id(part) in tied:
            continue
        elif _is_tied(part, own):
            tied.add(id(part))
            parts.extend(inner for child in _children(part) for inner in _parts(child))
        elif _is_notable(part):
            memo[id(part)] = part
    return memo


def _is_tied(part: object, own: Collection[int]) -> bool:
    """Whether an agent, or a context provider, holds an object of its executor, and is of no use to a copy of that.

    An executor for handoffs learns from a middleware in its agent what the model has chosen.
    """
    if isinstance(part, ContextProvider):
        return any(id(held) in own for held in getattr(part, "__dict__", {}).values())
    if not isinstance(part, Agent):
        return False
    providers: Iterable[object] = part.context_providers or ()
    return any(id(held) in own for held in part.middleware or ()) or any(_is_tied(held, own) for held in providers)


def _notable_parts(root: object) -> Iterator[object]:
    """Yield what copies share and the agent sessions below `root`."""
    return (part for part in _parts(root) if _is_notable(part))


def _parts(root: object) -> Iterator[object]:
    """Yield everything below `root`, without looking inside what is notable."""
    seen: set[int] = set()
    remaining = [root]
    while remaining:
        part = remaining.pop()
        if isinstance(part, _LEAVES) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if not _is_notable(part):
            remaining.extend(_children(part))


def _is_notable(part: object) -> bool:
    return isinstance(part, AgentSession) or _is_shared(part)


def _is_shared(part: object) -> bool:
    # A workflow as an agent keeps the workflow's state: sharing it would share conversations.
    if isinstance(part, _AS_AGENTS):
        return False
    if isinstance(part, _SHARED):
        return True
    # The class is asked first: the protocols' own check evaluates properties of whatever it is given.
    kind = type(part)
    return (hasattr(kind, "run") and isinstance(part, SupportsAgentRun)) or (
        hasattr(kind, "get_response") and isinstance(part, SupportsChatGetResponse)
    )


def _children(part: object) -> Iterable[object]:
    if isinstance(part, Mapping):
        return [*part.keys(), *part.values()]
    if isinstance(part, (list, tuple, set, frozenset)):
        return list(part)
    if isinstance(part, types.MethodType):
        return [part.__self__]
    if isinstance(part, functools.partial):
        return [part.func, *part.args, *part.keywords.values()]
    slots = (name for kind in type(part).__mro__ for name in _slots(kind))
    return [*getattr(part, "__dict__", {}).values(), *(getattr(part, name) for name in slots if hasattr(part, name))]


def _slots(kind: type) -> Iterable[str]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
