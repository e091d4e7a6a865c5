"""targets/agent.py: whatever shape an agent has, updates come out."""

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, cast

import pytest
from agent_framework import (
    Agent,
    AgentResponse,
    AgentResponseUpdate,
    AgentSession,
    ChatResponseUpdate,
    Content,
    ContextProvider,
    FunctionTool,
    Message,
    SupportsAgentRun,
    tool,
)

from agent_framework_hosting import ConfigurationError, TargetError, TargetInput
from agent_framework_hosting.branches import SESSION_STATE_KEY, ContinuesSessions
from agent_framework_hosting.targets.agent import AgentTarget
from agent_framework_hosting.testing.agents import ScriptedAgent, ScriptedChatClient


@tool
def weather(city: str) -> str:
    """Say how the weather is."""
    return city


class BoundAgent(ScriptedAgent):
    """Says what is bound while it runs."""

    bound: dict[str, object] | None = None

    @contextmanager
    def bind_request_context(self, **attributes: object) -> Generator[None, None, None]:
        self.bound = attributes
        try:
            yield
        finally:
            self.bound = None


async def texts(target: AgentTarget, run: TargetInput | None = None) -> list[str]:
    async with aclosing(target.stream(run or TargetInput(messages="hi"))) as updates:
        return [update.text async for update in updates]


def as_agent(agent: object) -> SupportsAgentRun:
    return cast("SupportsAgentRun", agent)


async def test_an_agent_of_the_framework_streams_its_updates() -> None:
    target = AgentTarget(Agent(client=ScriptedChatClient(["Hello ", "you"]), name="greeter"))

    assert await texts(target) == ["Hello ", "you"]
    assert target.name == "greeter"
    assert target.kind == "agent"


@pytest.mark.behaviour("G5")
async def test_an_async_run_that_returns_an_async_generator_streams() -> None:
    class AsyncRun(ScriptedAgent):
        async def run(self, messages: object = None, **kwargs: Any) -> AsyncGenerator[AgentResponseUpdate, None]:
            return cast("AsyncGenerator[AgentResponseUpdate, None]", super().run(messages, **kwargs))

    assert await texts(AgentTarget(as_agent(AsyncRun(["one", "two"])))) == ["one", "two"]


@pytest.mark.behaviour("G5")
async def test_an_agent_that_answers_all_at_once_works_too() -> None:
    class AtOnce(ScriptedAgent):
        async def run(self, messages: object = None, **kwargs: Any) -> AgentResponse[Any]:
            return AgentResponse(messages=[Message("assistant", ["all of it"])])

    assert await texts(AgentTarget(as_agent(AtOnce()))) == ["all of it"]


async def test_what_an_agent_raises_becomes_a_target_error_that_hides_the_text() -> None:
    target = AgentTarget(ScriptedAgent(["one", ValueError("SECRET")]))

    with pytest.raises(TargetError) as caught:
        await texts(target)

    assert isinstance(caught.value.__cause__, ValueError)
    assert "SECRET" not in str(caught.value)


async def test_an_agent_that_returns_no_updates_is_a_target_error() -> None:
    class Wrong(ScriptedAgent):
        def run(self, messages: object = None, **kwargs: Any) -> object:
            return 3

    with pytest.raises(TargetError) as caught:
        await texts(AgentTarget(as_agent(Wrong())))

    assert "returned int" in str(caught.value.__cause__)


async def test_closing_the_updates_cancels_the_agent() -> None:
    agent = ScriptedAgent(["one", "two"])

    async with aclosing(AgentTarget(agent).stream(TargetInput(messages="hi"))) as updates:
        async for _ in updates:
            break

    assert agent.runs[0].is_cancelled


async def test_session_and_options_reach_the_agent() -> None:
    agent = ScriptedAgent(["one"])
    session = AgentSession()

    await texts(AgentTarget(agent), TargetInput(messages="hi", session=session, options={"temperature": 1}))

    assert agent.runs[0].session is session
    assert agent.runs[0].options == {"temperature": 1}


async def test_an_agent_that_takes_no_options_runs_without_them(caplog: pytest.LogCaptureFixture) -> None:
    class Plain:
        id = "plain"
        name: str | None = None

        async def run(
            self, messages: object = None, *, stream: bool = False, session: object = None
        ) -> AgentResponse[Any]:
            return AgentResponse(messages=[Message("assistant", ["plain"])])

    target = AgentTarget(as_agent(Plain()))

    assert await texts(target) == ["plain"]
    assert target.name == "plain"
    assert isinstance(target.new_session(), AgentSession)
    assert await texts(target, TargetInput(messages="hi", options={"temperature": 1})) == ["plain"]
    assert "The agent takes no options; they are ignored" in caplog.messages


async def test_request_attributes_are_bound_while_the_stream_lasts() -> None:
    agent = BoundAgent(["one"])
    run = TargetInput(messages="hi", attributes={"response_id": "resp_1"})
    seen: list[Mapping[str, object] | None] = []

    async with aclosing(AgentTarget(agent).stream(run)) as updates:
        async for _ in updates:
            seen.append(agent.bound)  # noqa: PERF401  what is bound at this moment

    assert seen == [{"response_id": "resp_1"}]
    assert agent.bound is None


async def test_the_binding_is_released_when_run_raises_at_once() -> None:
    class Raising(BoundAgent):
        def run(self, messages: object = None, **kwargs: Any) -> object:
            assert self.bound is not None
            raise ValueError("at once")

    agent = Raising()

    with pytest.raises(TargetError):
        await texts(AgentTarget(as_agent(agent)))

    assert agent.bound is None


async def test_the_binding_is_released_when_the_stream_is_left() -> None:
    agent = BoundAgent(["one", "two"])

    async with aclosing(AgentTarget(agent).stream(TargetInput(messages="hi"))) as updates:
        async for _ in updates:
            break

    assert agent.bound is None


async def test_context_providers_are_bound_as_well() -> None:
    class Provider(ContextProvider):
        def __init__(self) -> None:
            super().__init__(source_id="provider")
            self.seen: list[object] = []

        @contextmanager
        def bind_request_context(self, **attributes: object) -> Generator[None, None, None]:
            self.seen.append(attributes)
            yield
            self.seen.append("released")

    provider = Provider()
    agent = Agent(client=ScriptedChatClient(["one"]), context_providers=[provider])

    await texts(AgentTarget(agent), TargetInput(messages="hi", attributes={"response_id": "r"}))

    assert provider.seen == [{"response_id": "r"}, "released"]


def test_only_tools_with_an_implementation_are_the_servers() -> None:
    declared = FunctionTool(
        name="client_tool", description="", func=None, input_model={"type": "object", "properties": {}}
    )
    agent = Agent(client=ScriptedChatClient(), tools=[weather, declared])

    assert AgentTarget(agent).server_tools() == {"weather"}
    assert AgentTarget(ScriptedAgent()).server_tools() == frozenset()


def test_sessions_are_made_by_the_agent() -> None:
    session = AgentSession()

    class Own(ScriptedAgent):
        def create_session(self, *, session_id: str | None = None) -> AgentSession:
            return session

    assert AgentTarget(Own()).new_session() is session


def test_something_without_run_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="int is no agent"):
        AgentTarget(as_agent(3))


async def test_a_turn_that_succeeds_notes_where_its_history_elsewhere_has_come_to() -> None:
    stored = ChatResponseUpdate(contents=[Content.from_text("hi")], role="assistant", conversation_id="resp_1")
    target = AgentTarget(Agent(client=ScriptedChatClient([stored], [stored], [stored, ValueError("broken")])))
    kept, unkept, failed = AgentSession(), AgentSession(), AgentSession()
    options = {"store": True}

    await texts(target, TargetInput(messages="hi", session=kept, options=options))
    await texts(target, TargetInput(messages="hi", session=unkept, options=options, keeps_session=False))
    with pytest.raises(TargetError):
        await texts(target, TargetInput(messages="hi", session=failed, options=options))

    assert isinstance(target, ContinuesSessions)
    assert kept.state[SESSION_STATE_KEY] == {"providers": {}, "is_moment": True}
    assert SESSION_STATE_KEY not in failed.state
    assert SESSION_STATE_KEY not in unkept.state
