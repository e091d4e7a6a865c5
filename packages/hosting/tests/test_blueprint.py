"""Workflows made from an instance or a factory: what is copied, what is shared, what is refused."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import pytest
from agent_framework import (
    Agent,
    AgentExecutor,
    AgentSession,
    BaseChatClient,
    ChatResponse,
    ChatResponseUpdate,
    ContextProvider,
    Executor,
    FunctionInvocationContext,
    FunctionMiddleware,
    InMemoryCheckpointStorage,
    MCPStdioTool,
    Message,
    ResponseStream,
    SupportsAgentRun,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    WorkflowExecutor,
    executor,
    handler,
    tool,
)
from agent_framework import workflow as functional_workflow

from agent_framework_hosting.errors import ConfigurationError
from agent_framework_hosting.targets.blueprint import AnyWorkflow, WorkflowBlueprint, agents_of


class LockedClient(BaseChatClient[Any]):
    """Holds a lock, as real clients do: copying it would fail."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        async def answer() -> ChatResponse[Any]:
            return ChatResponse(messages=[Message("assistant", [messages[-1].text])])

        return answer()


class Collecting(Executor):
    """Puts out all it ever heard."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(id="collecting")
        self.heard: list[str] = []
        self.parts = parts

    @handler
    async def hear(self, text: str, ctx: WorkflowContext[Any, str]) -> None:
        self.heard.append(text)
        await ctx.yield_output(" ".join(self.heard))

    @handler
    async def hear_messages(self, messages: list[Message], ctx: WorkflowContext[Any, str]) -> None:
        await self.hear(messages[-1].text, ctx)


class Slotted:
    """Keeps its parts in slots."""

    __slots__ = ("agent", "unset")

    def __init__(self, agent: object) -> None:
        self.agent = agent


def collecting(**parts: Any) -> Workflow:
    return WorkflowBuilder(start_executor=Collecting(**parts), name="collecting").build()


def parts_of(workflow: AnyWorkflow) -> dict[str, Any]:
    assert isinstance(workflow, Workflow)
    start = workflow.get_start_executor()
    assert isinstance(start, Collecting)
    return start.parts


async def outputs(workflow: AnyWorkflow, text: str) -> list[Any]:
    return (await workflow.run(text)).get_outputs()


async def test_every_copy_starts_from_the_initial_state() -> None:
    blueprint = WorkflowBlueprint(collecting())
    first, second = await blueprint.new(), await blueprint.new()

    assert await outputs(first, "a") == ["a"]
    assert await outputs(first, "b") == ["a b"]
    assert await outputs(second, "c") == ["c"]


async def test_a_run_of_the_users_instance_does_not_show_in_later_copies() -> None:
    workflow = collecting()
    blueprint = WorkflowBlueprint(workflow)
    workflow.get_start_executor().heard.append("mine")  # type: ignore[attr-defined]

    assert await outputs(await blueprint.new(), "a") == ["a"]


async def test_copies_have_the_same_name_and_graph_and_ids_of_their_own() -> None:
    workflow = collecting()
    first, second = [await WorkflowBlueprint(workflow).new() for _ in range(2)]

    assert {first.name, second.name} == {"collecting"}
    assert first.graph_signature_hash == workflow.graph_signature_hash
    assert len({made.id for made in (workflow, first, second) if isinstance(made, Workflow)}) == 3


@pytest.mark.parametrize(
    "wrap",
    [
        lambda agent: agent,
        lambda agent: [agent],
        lambda agent: {"deep": ({"deeper": [agent]},)},
        lambda agent: functools.partial(print, agent),
        Slotted,
    ],
)
async def test_agents_are_shared_wherever_an_executor_keeps_them(wrap: Callable[[Any], Any]) -> None:
    hosted = Agent(client=LockedClient(), name="hosted")
    copied = await WorkflowBlueprint(collecting(part=wrap(hosted))).new()

    assert agents_of(copied) == [hosted]
    assert agents_of(copied)[0] is hosted


class Noting(FunctionMiddleware):
    """What an executor has put into its agent, to learn what the agent does."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    async def process(self, context: FunctionInvocationContext, call_next: Callable[[], Awaitable[None]]) -> None:
        self.noted.append(context.function.name)
        await call_next()


class NotingProvider(ContextProvider):
    """The same, where the agent has other context providers."""

    def __init__(self, noting: Noting) -> None:
        super().__init__("noting")
        self.noting = noting


@pytest.mark.parametrize("has_provider", [False, True])
async def test_an_agent_that_its_executor_listens_to_is_copied_with_what_is_listened_to(has_provider: bool) -> None:
    noting, client, other = Noting(), LockedClient(), ContextProvider("other")
    tools = [tool(lambda: "x", name="x"), MCPStdioTool(name="mcp", command="none")]
    options: Any = {"context_providers": [other, NotingProvider(noting)]} if has_provider else {"middleware": [noting]}
    agent = Agent(client=client, name="tied", tools=tools, **options)
    blueprint = WorkflowBlueprint(collecting(agent=agent, noting=noting))

    for parts in [parts_of(await blueprint.new()) for _ in range(2)]:
        copied = parts["agent"]
        held = copied.context_providers[1].noting if has_provider else copied.middleware[0]
        assert (held is parts["noting"], held is noting, copied is agent) == (True, False, False)
        assert copied.client is client
        assert (copied.default_options["tools"], copied.mcp_tools) == (agent.default_options["tools"], agent.mcp_tools)
        assert not has_provider or copied.context_providers[0] is other


async def test_clients_and_checkpoint_storages_are_shared() -> None:
    client, storage = LockedClient(), InMemoryCheckpointStorage()

    parts = parts_of(await WorkflowBlueprint(collecting(client=client, storage=storage)).new())

    assert parts["client"] is client
    assert parts["storage"] is storage


async def test_agent_sessions_keep_their_state_and_get_an_id_of_their_own() -> None:
    session = AgentSession(session_id="fixed")
    session.state["seen"] = ["manual"]
    blueprint = WorkflowBlueprint(collecting(session=session))

    first, second = [parts_of(await blueprint.new())["session"] for _ in range(2)]

    assert len({"fixed", first.session_id, second.session_id}) == 3
    assert first.state == second.state == {"seen": ["manual"]}
    assert first.state["seen"] is not second.state["seen"]


async def test_agents_are_found_once_and_in_nested_workflows_too() -> None:
    inner_agent, outer_agent = (Agent(client=LockedClient(), name=name) for name in ("inner", "outer"))
    nested = WorkflowExecutor(WorkflowBuilder(start_executor=inner_agent).build(), id="nested")
    first, second = AgentExecutor(outer_agent, id="first"), AgentExecutor(outer_agent, id="second")
    workflow = WorkflowBuilder(start_executor=first).add_edge(first, second).add_edge(second, nested).build()

    found = agents_of(await WorkflowBlueprint(workflow).new())

    assert {id(agent) for agent in found} == {id(inner_agent), id(outer_agent)}
    assert len(found) == 2


async def test_agents_are_not_looked_for_in_the_event_loop_that_something_waits_in() -> None:
    event = asyncio.Event()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(event.wait(), 0.001)
    loop = asyncio.get_running_loop()
    # Binds the event to the loop, through which everything in the process can be reached.
    vars(loop)["hidden"] = Agent(client=LockedClient())
    workflow = WorkflowBuilder(start_executor=Collecting(event=event)).build()

    found = agents_of(workflow)
    del vars(loop)["hidden"]

    assert vars(event)["_loop"] is loop
    assert found == []


async def test_nested_workflows_and_workflows_used_as_agents_are_copied() -> None:
    nested = WorkflowExecutor(collecting(), id="nested", allow_direct_output=True)
    as_agent = AgentExecutor(collecting().as_agent("inner"), id="inner")

    for start in (nested, as_agent):
        blueprint = WorkflowBlueprint(WorkflowBuilder(start_executor=start).build())
        texts = [output for text in ("a", "b") for output in await outputs(await blueprint.new(), text)]
        assert [getattr(text, "text", text) for text in texts] == ["a", "b"]


@pytest.mark.parametrize("part", [threading.Lock(), (number for number in range(3))])
def test_what_cannot_be_copied_is_refused_with_the_advice_to_pass_a_factory(part: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"could only be run one at a time.*Pass a function that builds it"):
        WorkflowBlueprint(collecting(part=part))


async def test_a_factory_may_build_what_cannot_be_copied() -> None:
    blueprint = WorkflowBlueprint(lambda: collecting(lock=threading.Lock()))

    assert blueprint.sample is not None
    assert blueprint.sample.name == "collecting"
    assert [await outputs(await blueprint.new(), text) for text in ("a", "b")] == [["a"], ["b"]]


async def test_a_builder_is_asked_once_and_its_executors_are_not_shared() -> None:
    builder = WorkflowBuilder(start_executor=Collecting(), name="collecting")
    # The reason: two workflows of one builder are one.
    assert builder.build().get_start_executor() is builder.build().get_start_executor()
    built: list[Workflow] = []

    class Counting:
        def build(self) -> Workflow:
            built.append(builder.build())
            return built[-1]

    blueprint = WorkflowBlueprint(Counting())

    assert [await outputs(await blueprint.new(), text) for text in ("a", "b")] == [["a"], ["b"]]
    assert len(built) == 1


async def test_a_functional_workflow_used_as_an_agent_is_copied() -> None:
    meeting = asyncio.Barrier(2)

    @functional_workflow
    async def meet(messages: list[Message]) -> str:
        await asyncio.wait_for(meeting.wait(), 60)
        return f"met {messages[-1].text}"

    # The framework's own types do not know that it is an agent.
    as_agent = cast("SupportsAgentRun", meet.build().as_agent("inner"))
    blueprint = WorkflowBlueprint(WorkflowBuilder(start_executor=as_agent).build())
    first, second = [await blueprint.new() for _ in range(2)]

    # One instance for both would refuse the second run.
    met = await asyncio.gather(outputs(first, "a"), outputs(second, "b"))

    assert [output.text for (output,) in met] == ["met a", "met b"]


async def collecting_later() -> Workflow:
    await asyncio.sleep(0)
    return collecting()


def plainly_later() -> Awaitable[Workflow]:
    return collecting_later()


@pytest.mark.parametrize("factory", [collecting_later, plainly_later, functools.partial(collecting_later)])
async def test_an_async_factory_is_called_when_somebody_waits(factory: Any) -> None:
    blueprint = WorkflowBlueprint(factory)
    samples = [blueprint.sample]
    for _ in range(2):
        await blueprint.prepare()
        samples.append(blueprint.sample)

    assert samples[0] is None
    assert isinstance(samples[1], Workflow)
    assert samples[1] is samples[2]
    assert [await outputs(await blueprint.new(), text) for text in ("a", "b")] == [["a"], ["b"]]


async def broken() -> Workflow:
    raise ValueError("no address of the server")


async def agent_later() -> Any:
    return Agent(client=LockedClient(), name="hosted")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (broken, "The workflow factory failed: ValueError: no address of the server"),
        (agent_later, "The workflow factory returned Agent, not a Workflow. Pass an agent itself"),
    ],
)
async def test_an_async_factory_that_makes_no_workflow_is_refused_when_it_is_waited_for(
    factory: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await WorkflowBlueprint(factory).prepare()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: "no workflow", "The workflow factory returned str, not a Workflow"),
        (lambda: WorkflowBuilder(start_executor=Collecting()), "Let it return what build"),
        (lambda: Agent(client=LockedClient()), "Pass an agent itself"),
        ("no workflow", "str is neither a Workflow, nor a builder"),
    ],
)
def test_what_is_no_workflow_is_refused_with_what_to_change(source: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        WorkflowBlueprint(source)


class Broken:
    """A builder that cannot build."""

    def build(self) -> Workflow:
        raise LookupError("no such participant")


@pytest.mark.parametrize(("source", "maker"), [(Broken(), r"build\(\)"), (Broken().build, "The workflow factory")])
def test_a_builder_or_a_function_that_fails_is_refused_with_what_it_said(source: Any, maker: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{maker} failed: LookupError: no such participant"):
        WorkflowBlueprint(source)


async def test_a_factory_that_returns_the_same_workflow_again_is_refused() -> None:
    only_one = collecting()
    blueprint = WorkflowBlueprint(lambda: only_one)

    with pytest.raises(ConfigurationError, match="returned the same Workflow again"):
        await blueprint.new()


def nesting(workflow: Workflow) -> Workflow:
    return WorkflowBuilder(start_executor=WorkflowExecutor(workflow, id="nested")).build()


@pytest.mark.parametrize("wrap", [lambda workflow: workflow, nesting])
async def test_a_factory_that_uses_an_executor_again_is_refused(wrap: Callable[[Workflow], Workflow]) -> None:
    only_one = Collecting()
    blueprint = WorkflowBlueprint(lambda: wrap(WorkflowBuilder(start_executor=only_one).build()))

    with pytest.raises(ConfigurationError, match=f"used the executor '{only_one.id}' again"):
        await blueprint.new()


async def test_a_factory_may_use_a_function_again() -> None:
    @executor(id="says")
    async def says(message: str, ctx: WorkflowContext[Any, str]) -> None:
        await ctx.yield_output(message)

    blueprint = WorkflowBlueprint(WorkflowBuilder(start_executor=says).build)

    made = await blueprint.new()

    assert isinstance(made, Workflow)
    assert list(made.executors) == ["says"]


def stored() -> Workflow:
    return WorkflowBuilder(
        start_executor=Collecting(), name="stored", checkpoint_storage=InMemoryCheckpointStorage()
    ).build()


def using_as_agent(workflow: Workflow) -> Workflow:
    return WorkflowBuilder(start_executor=AgentExecutor(workflow.as_agent("inner"), id="inner")).build()


@pytest.mark.parametrize("wrap", [lambda workflow: workflow, nesting, using_as_agent])
@pytest.mark.parametrize("source", ["instance", "factory"])
def test_a_workflow_with_a_checkpoint_storage_of_its_own_is_refused(
    wrap: Callable[[Workflow], Workflow], source: str
) -> None:
    workflow = wrap(stored())

    with pytest.raises(ConfigurationError, match="'stored' has a checkpoint storage of its own"):
        WorkflowBlueprint(workflow if source == "instance" else lambda: workflow)
