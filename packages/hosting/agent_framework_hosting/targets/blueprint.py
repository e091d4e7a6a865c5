"""What fresh workflows are made from: a factory, or copies of an instance that never runs."""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import pickle
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping

from agent_framework import (
    AgentSession,
    BaseChatClient,
    ContextProvider,
    FileCheckpointStorage,
    FunctionTool,
    InMemoryCheckpointStorage,
    SupportsAgentRun,
    SupportsChatGetResponse,
    Workflow,
    WorkflowAgent,
)

from ..errors import ConfigurationError
from ..sessions import fork

_SHARED = (BaseChatClient, ContextProvider, FunctionTool, FileCheckpointStorage, InMemoryCheckpointStorage)
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


class WorkflowBlueprint:
    """Makes one workflow per run, each in its initial state.

    A `Workflow` keeps state and refuses a second run while one is under way. Given an instance, which must not have run
    yet, every run gets a deep copy of it: executors and their state are copied, the agents, chat clients, context
    providers and tools in them are shared, and agent sessions begin anew under ids of their own.

    Raises:
        ConfigurationError: the instance cannot be copied, or the factory makes no `Workflow`.
    """

    def __init__(self, source: Workflow | Callable[[], Workflow]) -> None:
        self._factory: Callable[[], Workflow] | None = None
        if isinstance(source, Workflow):
            self.sample = _copied(source)
        elif callable(source):
            self._factory = source
            self.sample = self.new()
        else:
            raise ConfigurationError(f"{type(source).__name__} is neither a Workflow nor a function that makes one.")

    def new(self) -> Workflow:
        """Return a workflow that nobody else has."""
        if self._factory is None:
            return _copied(self.sample)
        made: object = self._factory()
        if not isinstance(made, Workflow):
            raise ConfigurationError(f"The workflow factory returned {type(made).__name__}, not a Workflow.")
        return made


def agents_of(workflow: Workflow) -> list[SupportsAgentRun]:
    """Return the agents in the workflow's executors, each once, those of nested workflows included."""
    return [part for part in _notable_parts(workflow) if isinstance(part, SupportsAgentRun)]


def _copied(workflow: Workflow) -> Workflow:
    memo: dict[int, object] = {}
    try:
        for part in _notable_parts(workflow):
            # Context providers may keep a conversation outside, under the session's id: two chains must not share it.
            memo[id(part)] = fork(copy.deepcopy(part)) if isinstance(part, AgentSession) else part
        made = copy.deepcopy(workflow, memo)
    except _NOT_COPYABLE as error:
        raise ConfigurationError(
            f"The workflow {workflow.name!r} cannot be copied, but every run needs one of its own. Pass a function that "
            "builds it instead of the instance, or an instance that has not run yet."
        ) from error
    made.id = str(uuid.uuid4())
    return made


def _notable_parts(root: object) -> Iterator[object]:
    """Yield what copies share and the agent sessions below `root`, without looking inside either."""
    seen: set[int] = set()
    remaining = [root]
    while remaining:
        part = remaining.pop()
        if isinstance(part, _LEAVES) or id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, AgentSession) or _is_shared(part):
            yield part
        else:
            remaining.extend(_children(part))


def _is_shared(part: object) -> bool:
    # A workflow as an agent keeps the workflow's state: sharing it would share conversations.
    if isinstance(part, WorkflowAgent):
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
