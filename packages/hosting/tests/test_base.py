"""The parts of stores/base, runs/base and targets/base that are more than a protocol."""

from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager

import pytest

from agent_framework_hosting import ConfigurationError, RunEngine, RunLog, SessionStore, Target
from agent_framework_hosting.runs.base import TRANSITIONS, RunStatus
from agent_framework_hosting.runs.memory import MemoryRunEngine, MemoryRunLog
from agent_framework_hosting.stores.memory import MemorySessionStore
from agent_framework_hosting.targets.agent import AgentTarget
from agent_framework_hosting.targets.base import bound_request_context
from agent_framework_hosting.testing.agents import ScriptedAgent


class Bindable:
    def __init__(self) -> None:
        self.bound: dict[str, object] | None = None
        self.bindings = 0

    def bind_request_context(self, **attributes: object) -> AbstractContextManager[None]:
        @contextmanager
        def binding() -> Generator[None, None, None]:
            self.bound = attributes
            self.bindings += 1
            try:
                yield
            finally:
                self.bound = None

        return binding()


def test_the_memory_implementations_satisfy_the_protocols_of_the_type_checker() -> None:
    engine: RunEngine = MemoryRunEngine()
    log: RunLog = MemoryRunLog()
    store: SessionStore = MemorySessionStore()
    target: Target = AgentTarget(ScriptedAgent())

    assert all((engine, log, store, target))


def test_terminal_states_never_change() -> None:
    terminal = {status for status in RunStatus if status.is_terminal}

    assert terminal == {RunStatus.COMPLETED, RunStatus.INCOMPLETE, RunStatus.FAILED, RunStatus.CANCELLED}
    assert all(not TRANSITIONS[status] for status in terminal)


def test_a_run_that_is_not_over_can_end_in_every_way() -> None:
    for status in (RunStatus.QUEUED, RunStatus.IN_PROGRESS):
        assert {after for after in TRANSITIONS[status] if after.is_terminal} == {
            after for after in RunStatus if after.is_terminal
        }


def test_no_status_comes_before_queued() -> None:
    assert all(RunStatus.QUEUED not in after for after in TRANSITIONS.values())


async def test_attributes_are_bound_for_the_block_and_released_after_it() -> None:
    bindable = Bindable()

    async with bound_request_context([bindable, object()], {"response_id": "resp_1"}):
        assert bindable.bound == {"response_id": "resp_1"}

    assert bindable.bound is None


async def test_a_binding_is_released_when_the_block_raises() -> None:
    bindable = Bindable()

    with pytest.raises(ValueError, match="inside"):
        async with bound_request_context([bindable], {}):
            raise ValueError("inside")

    assert bindable.bound is None
    assert bindable.bindings == 1


async def test_a_binding_may_be_async() -> None:
    seen: list[str] = []

    class AsyncBindable:
        @asynccontextmanager
        async def bind_request_context(self, **attributes: object) -> AsyncGenerator[None, None]:
            seen.append(f"bound {attributes}")
            yield
            seen.append("released")

    async with bound_request_context([AsyncBindable()], {"response_id": "r"}):
        pass

    assert seen == ["bound {'response_id': 'r'}", "released"]


async def test_a_binding_that_is_no_context_manager_is_the_operators_mistake() -> None:
    class Wrong:
        def bind_request_context(self, **attributes: object) -> None:
            pass

    with pytest.raises(ConfigurationError, match="bind_request_context of Wrong must return a context manager"):
        async with bound_request_context([Wrong()], {}):
            pass


async def test_bindings_made_before_a_broken_one_are_released() -> None:
    bindable = Bindable()

    class Wrong:
        def bind_request_context(self, **attributes: object) -> None:
            pass

    with pytest.raises(ConfigurationError):
        async with bound_request_context([bindable, Wrong()], {}):
            pass

    assert bindable.bound is None
