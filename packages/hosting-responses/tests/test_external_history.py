"""Agents whose history lies elsewhere, seen through a served host and the official client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import live
import openai
import pytest
from agent_framework import Agent, ChatResponseUpdate, Content, ContextProvider, FileHistoryProvider
from states import State

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import ChatStep, Gate, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel

pytestmark = pytest.mark.filterwarnings(r"ignore:\[FILE_HISTORY\]:FutureWarning")

SECONDS = 60.0


class FailsLate(ContextProvider):
    """Fails after a run that hears "fail late", when the history has saved it already."""

    def __init__(self) -> None:
        super().__init__("fails_late")

    async def after_run(self, *, context: Any, **_: Any) -> None:
        if context.input_messages[-1].text == "fail late":
            raise ValueError("too late")


@pytest.fixture
def histories(tmp_path: Path) -> Path:
    """Where the agents of a test keep their histories: elsewhere than the host keeps its state."""
    return tmp_path / "histories"


def host_of(model: ScriptedChatClient, histories: Path | None, state: State, **options: Any) -> AgentFrameworkHost:
    providers: list[ContextProvider] = [FailsLate()]
    if histories is not None:
        providers.append(FileHistoryProvider(histories))
    agent = Agent(client=model, name="teller", context_providers=providers, **options)
    return AgentFrameworkHost(agent, channels=[ResponsesChannel()], **state.options)


def heard(model: ScriptedChatClient, call: int) -> list[str]:
    return [message.text for message in model.calls[call].messages]


def in_memory() -> State:
    return State("memory")


def lines(histories: Path) -> list[int]:
    return sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in histories.iterdir())


@pytest.mark.behaviour("A1")
async def test_a_chain_keeps_its_history_in_files_over_a_restart(durable_state: State, histories: Path) -> None:
    before, after = ScriptedChatClient(["one"], ["two"]), ScriptedChatClient(["three"], ["four"])
    async with live.serve(host_of(before, histories, durable_state).app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        second = await create(model="m", input="b", previous_response_id=first.id)
    async with live.serve(host_of(after, histories, durable_state).app) as served:
        create = served.client.responses.create
        third = await create(model="m", input="c", previous_response_id=second.id)
        await create(model="m", input="d", previous_response_id=third.id)

    assert heard(after, 1) == ["a", "one", "b", "two", "c", "three", "d"]
    assert lines(histories) == [8]


@pytest.mark.behaviour("A1", "A2", "A3")
async def test_a_branch_of_a_history_in_files_hears_its_own_past_only(state: State, histories: Path) -> None:
    model = ScriptedChatClient(["one"], ["two"], ["branch"], ["after two"], ["after branch"])
    async with live.serve(host_of(model, histories, state).app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        second = await create(model="m", input="b", previous_response_id=first.id)
        async with served.client.responses.stream(model="m", input="x", previous_response_id=first.id) as stream:
            branch = await stream.get_final_response()
        await create(model="m", input="c", previous_response_id=second.id)
        await create(model="m", input="y", previous_response_id=branch.id)

    assert heard(model, 1) == ["a", "one", "b"]
    assert heard(model, 2) == ["a", "one", "x"]
    assert heard(model, 3) == ["a", "one", "b", "two", "c"]
    assert heard(model, 4) == ["a", "one", "x", "branch", "y"]


BROKEN = ValueError("broken")


@pytest.mark.behaviour("A5", "A6")
@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("says", "answer"),
    [("fail", [BROKEN]), ("fail", ["half", BROKEN]), ("fail late", ["all of it"])],
    ids=["before the first token", "mid-stream", "after it was saved"],
)
async def test_a_failed_turn_leaves_a_history_in_files_as_it_was(
    state: State, histories: Path, says: str, answer: Sequence[ChatStep], is_streamed: bool
) -> None:
    model = ScriptedChatClient(["one"], answer, ["two"], ["three"])
    async with live.serve(host_of(model, histories, state).app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        if is_streamed:
            async with served.client.responses.stream(model="m", input=says, previous_response_id=first.id) as stream:
                events = [event async for event in stream]
            assert events[-1].type == "response.failed"
        else:
            with pytest.raises(openai.InternalServerError):
                await create(model="m", input=says, previous_response_id=first.id)
        second = await create(model="m", input="b", previous_response_id=first.id)
        await create(model="m", input="c", previous_response_id=second.id)

    assert heard(model, 2) == ["a", "one", "b"]
    assert heard(model, 3) == ["a", "one", "b", "two", "c"]


@pytest.mark.behaviour("A2")
async def test_two_continuations_at_once_of_one_response_do_not_hear_each_other(state: State, histories: Path) -> None:
    left, right = Gate(), Gate()
    model = ScriptedChatClient(["one"], [left, "two"], [right, "three"], ["four"], ["five"])
    async with live.serve(host_of(model, histories, state).app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        one = asyncio.create_task(create(model="m", input="left", previous_response_id=first.id))
        await asyncio.wait_for(left.reached.wait(), SECONDS)
        other = asyncio.create_task(create(model="m", input="right", previous_response_id=first.id))
        await asyncio.wait_for(right.reached.wait(), SECONDS)
        right.open()
        after_right = await create(model="m", input="c", previous_response_id=(await other).id)
        left.open()
        after_left = await create(model="m", input="d", previous_response_id=(await one).id)

    assert (after_right.output_text, after_left.output_text) == ("four", "five")
    assert heard(model, 3) == ["a", "one", "right", "three", "c"]
    assert heard(model, 4) == ["a", "one", "left", "two", "d"]


@pytest.mark.behaviour("A5")
async def test_a_cancelled_turn_leaves_a_history_in_files_as_it_was(histories: Path) -> None:
    gate = Gate()
    model = ScriptedChatClient(["one"], ["half", gate], ["two"])
    async with live.serve(host_of(model, histories, in_memory()).app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        second = await create(model="m", input="stop", previous_response_id=first.id, background=True)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        await served.client.responses.cancel(second.id)
        await create(model="m", input="b", previous_response_id=first.id)

    assert heard(model, 2) == ["a", "one", "b"]


@pytest.mark.behaviour("A6")
async def test_from_a_failed_turn_the_chain_goes_on_with_its_question_told_again(histories: Path) -> None:
    model = ScriptedChatClient(["one"], ["half", BROKEN], ["two"])
    async with live.serve(host_of(model, histories, in_memory()).app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        async with served.client.responses.stream(model="m", input="fail", previous_response_id=first.id) as stream:
            events = [event async for event in stream]
        assert events[-1].type == "response.failed"
        await create(model="m", input="b", previous_response_id=events[-1].response.id)

    assert heard(model, 2) == ["a", "one", "fail", "half", "b"]


@pytest.mark.behaviour("A7")
async def test_a_turn_that_is_not_stored_leaves_nothing_in_the_agents_own_files(histories: Path) -> None:
    model = ScriptedChatClient(["one"], ["unkept"], ["two"], ["alone"])
    async with live.serve(host_of(model, histories, in_memory()).app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        await create(model="m", input="x", previous_response_id=first.id, store=False)
        await create(model="m", input="b", previous_response_id=first.id)
        await create(model="m", input="y", store=False)

    assert heard(model, 1) == ["a", "one", "x"]
    assert heard(model, 2) == ["a", "one", "b"]
    assert lines(histories) == [4]


@pytest.mark.behaviour("A5")
async def test_a_conversation_keeps_its_history_in_files_without_the_turns_that_failed(
    state: State, histories: Path
) -> None:
    model = ScriptedChatClient(["one"], ["said too much"], ["two"], ["three"])
    async with live.serve(host_of(model, histories, state).app) as served:
        create = served.client.responses.create
        conversation = (await served.client.conversations.create()).id
        await create(model="m", input="a", conversation=conversation)
        with pytest.raises(openai.InternalServerError):
            await create(model="m", input="fail late", conversation=conversation)
        await create(model="m", input="b", conversation=conversation)
        await create(model="m", input="c", conversation=conversation)

    assert heard(model, 3) == ["a", "one", "b", "two", "c"]


async def test_a_history_that_was_erased_is_told_again_from_what_the_host_has(histories: Path) -> None:
    model = ScriptedChatClient(["one"], ["two"], ["three"])
    async with live.serve(host_of(model, histories, in_memory()).app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        second = await create(model="m", input="b", previous_response_id=first.id)
        for path in histories.iterdir():
            path.unlink()
        await create(model="m", input="c", previous_response_id=second.id)

    assert heard(model, 2) == ["a", "one", "b", "two", "c"]
    assert lines(histories) == [6]


def at_service(text: str, id_: str) -> list[ChatStep]:
    return [ChatResponseUpdate(contents=[Content.from_text(text)], role="assistant", conversation_id=id_)]


@pytest.mark.behaviour("A1", "A2", "A5")
async def test_a_conversation_at_a_service_goes_on_once_and_is_told_again_to_a_branch(state: State) -> None:
    model = ScriptedChatClient(
        at_service("one", "conv_1"),
        [*at_service("half", "conv_1"), BROKEN],
        at_service("two", "conv_2"),
        at_service("three", "conv_2"),
        at_service("branch", "conv_3"),
    )
    host = host_of(model, None, state, default_options={"store": True})
    async with live.serve(host.app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        with pytest.raises(openai.InternalServerError):
            await create(model="m", input="fail", previous_response_id=first.id)
        second = await create(model="m", input="b", previous_response_id=first.id)
        await create(model="m", input="c", previous_response_id=second.id)
        await create(model="m", input="x", previous_response_id=second.id)

    told = [(call.options.get("conversation_id"), heard(model, number)) for number, call in enumerate(model.calls)]
    assert told == [
        (None, ["a"]),
        ("conv_1", ["fail"]),
        (None, ["a", "one", "b"]),
        ("conv_2", ["c"]),
        (None, ["a", "one", "b", "two", "x"]),
    ]


@pytest.mark.behaviour("A1", "A2")
async def test_responses_stored_at_a_service_are_continued_and_branched_by_their_ids(state: State) -> None:
    model = ScriptedChatClient(
        at_service("one", "resp_1"),
        at_service("two", "resp_2"),
        at_service("branch", "resp_3"),
        at_service("three", "resp_4"),
    )
    host = host_of(model, None, state, default_options={"store": True})
    async with live.serve(host.app) as served:
        create = served.client.responses.create
        first = await create(model="m", input="a")
        second = await create(model="m", input="b", previous_response_id=first.id)
        await create(model="m", input="x", previous_response_id=first.id)
        await create(model="m", input="c", previous_response_id=second.id)

    told = [(call.options.get("conversation_id"), heard(model, number)) for number, call in enumerate(model.calls)]
    assert told == [(None, ["a"]), ("resp_1", ["b"]), ("resp_1", ["x"]), ("resp_2", ["c"])]
