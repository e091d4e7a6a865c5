import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from agent_framework import AgentSession, Content, Message

from agent_framework_hosting import (
    ChannelContext,
    ChannelIdentity,
    ChannelRequest,
    ChannelSession,
    ConfigurationError,
    IsolationKeys,
    TargetError,
    reset_current_isolation_keys,
    set_current_isolation_keys,
)
from agent_framework_hosting.runs.memory import MemoryRunEngine, MemoryRunLog
from agent_framework_hosting.sessions import Sessions
from agent_framework_hosting.stores.memory import MemorySessionStore
from agent_framework_hosting.targets.agent import AgentTarget
from agent_framework_hosting.targets.served import ServedTarget, ServedTargets
from agent_framework_hosting.testing.agents import AgentStep, ScriptedAgent


def new_context(agent: ScriptedAgent) -> ChannelContext:
    store = MemorySessionStore()
    log = MemoryRunLog()
    targets = ServedTargets([ServedTarget("", AgentTarget(agent))])
    return ChannelContext(
        targets=targets,
        session_store=store,
        sessions=Sessions(store),
        engine=MemoryRunEngine(),
        run_log=log,
        durable_log=log,
    )


def request(value: object = "hi", **more: Any) -> ChannelRequest:
    return ChannelRequest(channel="chat", operation="message", input=value, **more)


def named(name: str) -> ChannelSession:
    return ChannelSession(isolation_key=name)


class CountingAgent(ScriptedAgent):
    """Counts its turns in the session."""

    def run(self, messages: object = None, **kwargs: Any) -> Any:
        session = kwargs.get("session")
        if session is not None:
            session.state["turns"] = session.state.get("turns", 0) + 1
        return super().run(messages, **kwargs)


async def turns(context: ChannelContext, name: str = "ada") -> int:
    result = await context.run(request(session=named(name)))
    assert result.session is not None
    count: int = result.session.state["turns"]
    return count


async def test_a_run_gives_the_final_response_and_the_session() -> None:
    result = await new_context(ScriptedAgent(["Hello ", "you"])).run(request())

    assert result.result.text == "Hello you"
    assert result.session is not None


async def test_a_stream_gives_the_same_result_once_it_was_read() -> None:
    context = new_context(ScriptedAgent(["Hello ", "you"]))

    async with context.run_stream(request()) as stream:
        texts = [update.text async for update in stream]
        result = stream.result()

    assert texts == ["Hello ", "you"]
    assert result.result.text == "Hello you"
    assert result.session is stream.session


async def test_there_is_no_result_before_the_end() -> None:
    context = new_context(ScriptedAgent(["one", "two"]))

    async with context.run_stream(request()) as stream:
        async for _ in stream:
            break
        with pytest.raises(RuntimeError, match="read to their end"):
            stream.result()


async def test_leaving_the_stream_cancels_the_agent() -> None:
    agent = ScriptedAgent(["one", "two"])

    async with new_context(agent).run_stream(request()) as stream:
        async for _ in stream:
            break

    assert agent.runs[0].is_cancelled


async def test_a_named_session_continues() -> None:
    context = new_context(CountingAgent(["one"]))

    assert [await turns(context), await turns(context), await turns(context, "bob")] == [1, 2, 1]


@pytest.mark.parametrize("turn", [[ValueError("broken")], ["one", ValueError("broken")]])
async def test_a_failed_turn_leaves_the_named_session_as_it_was(turn: Sequence[AgentStep]) -> None:
    context = new_context(CountingAgent(["one"], turn, ["one"]))
    await turns(context)

    with pytest.raises(TargetError):
        await turns(context)

    assert await turns(context) == 2


async def test_a_stream_that_was_left_does_not_change_the_named_session() -> None:
    context = new_context(CountingAgent(["one", "two"]))

    async with context.run_stream(request(session=named("ada"))) as stream:
        async for _ in stream:
            break

    assert await turns(context) == 1


@pytest.mark.behaviour("E2")
async def test_a_named_session_belongs_to_the_partition_of_the_request() -> None:
    context = new_context(CountingAgent(["one"]))
    await turns(context)

    token = set_current_isolation_keys(IsolationKeys("somebody"))
    count = await turns(context)
    reset_current_isolation_keys(token)

    assert count == 1


async def test_a_named_session_wins_over_one_the_channel_brings() -> None:
    context = new_context(CountingAgent(["one"]))
    own = AgentSession()

    result = await context.run(request(session=named("ada")), session=own)

    assert result.session is not own
    assert own.state == {}


async def test_a_session_the_channel_brings_is_used_and_returned() -> None:
    agent = ScriptedAgent(["one"])
    own = AgentSession()

    result = await new_context(agent).run(request(), session=own)

    assert agent.runs[0].session is own
    assert result.session is own


async def test_a_disabled_session_is_no_session() -> None:
    agent = ScriptedAgent(["one"])

    result = await new_context(agent).run(
        request(session=named("ada"), session_mode="disabled"), session=AgentSession()
    )

    assert agent.runs[0].session is None
    assert result.session is None


async def test_a_required_session_that_is_missing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="session_mode='required'"):
        await new_context(ScriptedAgent(["one"])).run(request(session_mode="required"))


async def test_options_and_attributes_reach_the_target() -> None:
    agent = ScriptedAgent(["one"])

    await new_context(agent).run(request(options={"temperature": 1}, attributes={"response_id": "r"}))

    assert agent.runs[0].options == {"temperature": 1}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", [["text"]]),
        (Content.from_text("content"), [["content"]]),
        (Message("user", ["message"]), [["message"]]),
        (["a", Content.from_text("b")], [["a", "b"]]),
        ([Message("user", ["a"]), Message("assistant", ["b"])], [["a"], ["b"]]),
        (("a", Message("assistant", ["b"]), "c", "d"), [["a"], ["b"], ["c", "d"]]),
    ],
)
async def test_every_shape_of_input_keeps_all_its_content(value: object, expected: list[list[str]]) -> None:
    agent = ScriptedAgent(["one"])

    await new_context(agent).run(request(value))

    messages = agent.runs[0].messages
    assert isinstance(messages, list)
    assert [[content.text for content in message.contents] for message in messages] == expected


async def test_channel_and_identity_are_on_the_last_message_and_on_no_stored_one() -> None:
    agent = ScriptedAgent(["one"])
    messages = [Message("user", ["first"]), Message("user", ["last"], additional_properties={"mine": 1})]
    identity = ChannelIdentity("chat", "7", {"name": "Ada"})

    await new_context(agent).run(request(messages, identity=identity))

    sent = agent.runs[0].messages
    assert isinstance(sent, list)
    assert "hosting" not in sent[0].additional_properties
    assert sent[1].additional_properties == {
        "mine": 1,
        "hosting": {
            "channel": "chat",
            "identity": {"channel": "chat", "native_id": "7", "attributes": {"name": "Ada"}},
        },
    }
    assert messages[1].additional_properties == {"mine": 1}


async def test_a_caller_without_identity_has_none() -> None:
    agent = ScriptedAgent(["one"])

    await new_context(agent).run(request("hi"))

    sent = agent.runs[0].messages
    assert isinstance(sent, list)
    assert sent[0].additional_properties["hosting"] == {"channel": "chat", "identity": None}


@pytest.mark.parametrize("value", [{"topic": "x"}, [], [1, 2], 7])
async def test_inputs_of_workflows_stay_as_they_are(value: object) -> None:
    agent = ScriptedAgent(["one"])

    await new_context(agent).run(request(value))

    assert agent.runs[0].messages is value


async def test_a_request_that_cannot_be_run_gives_its_session_back() -> None:
    context = new_context(CountingAgent(["hi"]))
    broken = Message("user", ["hi"])
    broken.additional_properties = None  # type: ignore[assignment]

    with pytest.raises(TypeError) as caught:
        await context.run(request(broken, session=named("ada")))

    # The exception keeps what it went through alive, so that no garbage collector gives the session back.
    assert caught.tb is not None
    assert await asyncio.wait_for(turns(context), timeout=60) == 1
