"""Which state a conversation goes on from: a workflow says what it knows, an agent's model what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import live
import openai
import pytest
from agent_framework import Agent
from hearsay import Listener, conversing
from states import State

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import Gate, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel

SECONDS = 60.0


class Talk:
    """One conversation with a host, and everything that happens in it or branches off."""

    def __init__(self, client: openai.AsyncOpenAI, conversation_id: str) -> None:
        self.client = client
        self.id = conversation_id

    async def say(self, given: Any, *, after: Any = None, **more: Any) -> Any:
        """Say something in the conversation, or `after` a response."""
        place = {"conversation": self.id} if after is None else {"previous_response_id": after.id}
        return await self.client.responses.create(model="m", input=given, **place, **more)

    async def broken_off(self, gate: Gate, given: str) -> Any:
        """Say something, wait until it is heard, and cancel the response."""
        running = await self.say(given, background=True)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        return await self.client.responses.cancel(running.id)

    async def failed(self, given: str) -> Any:
        """Say something that fails, and return the response."""
        events = [event async for event in await self.say(given, stream=True)]
        assert events[-1].type == "response.failed"
        return events[-1].response

    async def refused(self, given: Any, **more: Any) -> str:
        """Return why what is said is refused."""
        with pytest.raises(openai.BadRequestError) as refused:
            await self.say(given, **more)
        body: Any = refused.value.body
        return str(body["message"])

    async def add(self, text: str) -> str:
        """Add a message, and return its id."""
        message: Any = {"type": "message", "role": "user", "content": text}
        added = await self.client.conversations.items.create(self.id, items=[message])
        return str(added.data[0].id)

    async def remove(self, item_id: str) -> None:
        await self.client.conversations.items.delete(item_id, conversation_id=self.id)

    async def item(self, text: str) -> str:
        """Return the id of the item that says just that."""
        async for item in self.client.conversations.items.list(self.id):
            if text in [getattr(part, "text", None) for part in getattr(item, "content", None) or ()]:
                return str(item.id)
        raise AssertionError(text)


@asynccontextmanager
async def talking(target: Any, state: State) -> AsyncGenerator[Talk, None]:
    host = AgentFrameworkHost(target, channels=[ResponsesChannel()], **state.options)
    async with live.serve(host.app) as served:
        yield Talk(served.client, (await served.client.conversations.create()).id)


def heard(response: Any) -> list[str]:
    """What the workflow knows after the response."""
    known = json.loads(response.output_text.splitlines()[-1])
    assert known["heard"] == known["shared"]
    return list(known["heard"])


def calls_of(response: Any) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


def answer(call: Any, text: str) -> list[Any]:
    return [{"type": "function_call_output", "call_id": call.call_id, "output": text}]


# --- A turn that came to nothing


@pytest.mark.behaviour("A5", "A6", "F1")
@pytest.mark.parametrize("end", ["failed", "cancelled"])
@pytest.mark.parametrize("change", ["nothing", "added", "added and removed", "added before"])
async def test_what_follows_a_turn_that_came_to_nothing_goes_on_from_the_state_before_it(
    state: State, end: str, change: str
) -> None:
    async with talking(conversing, state) as talk:
        await talk.say("1. tell")
        if change == "added before":
            await talk.add("added. tell")
        if end == "failed":
            broken = await talk.failed("2. fail")
        else:
            Listener.gates["2. wait"] = gate = Gate()
            broken = await talk.broken_off(gate, "2. wait")
        if change.startswith("added and"):
            await talk.remove(await talk.add("removed. tell"))
        elif change == "added":
            await talk.add("added. tell")
        branch = heard(await talk.say("3. tell", after=broken))
        here = heard(await talk.say("4. tell"))

    added = ["added. tell"]
    lost = ["2. fail" if end == "failed" else "2. wait"]
    assert branch == ["1. tell", *(added if change == "added before" else []), *lost, "3. tell"]
    assert here == ["1. tell", *(added if change in {"added", "added before"} else []), "4. tell"]


@pytest.mark.behaviour("A5", "A6")
async def test_an_agent_hears_everything_once_after_a_turn_that_failed(state: State) -> None:
    model = ScriptedChatClient(["one"], ["two"], ["half", RuntimeError("secret")], ["branch"], ["here"])
    async with talking(Agent(client=model), state) as talk:
        await talk.say("q1")
        await talk.add("added")
        await talk.say("q2")
        failed = await talk.failed("q3")
        await talk.say("q4", after=failed)
        await talk.say("q5")

    said = ["q1", "one", "added", "q2", "two"]
    assert [message.text for message in model.calls[3].messages] == [*said, "q3", "half", "q4"]
    assert [message.text for message in model.calls[4].messages] == [*said, "q5"]


@pytest.mark.behaviour("A5")
async def test_after_a_removal_the_state_before_the_removed_item_goes_on(state: State) -> None:
    async with talking(conversing, state) as talk:
        for line in ("1. tell", "2. tell", "3. tell"):
            await talk.say(line)
        failed = await talk.failed("4. fail")
        await talk.remove(await talk.item("2. tell"))
        branch = heard(await talk.say("5. tell", after=failed))
        here = heard(await talk.say("6. tell"))

    # What the workflow said is not told to it, and what it heard before that neither.
    assert branch == ["1. tell", "4. fail", "5. tell"]
    assert here == ["1. tell", "6. tell"]


# --- Questions whose answer cannot come any more


@pytest.mark.behaviour("F4")
async def test_a_question_whose_response_is_deleted_cannot_be_answered_and_the_conversation_goes_on(
    state: State,
) -> None:
    async with talking(conversing, state) as talk:
        await talk.say("1. tell")
        asked = await talk.say("2. text")
        (call,) = calls_of(asked)
        await talk.client.responses.delete(asked.id)

        late = await talk.refused(answer(call, "3. tell"))
        here = heard(await talk.say("4. tell"))
        later = await talk.refused(answer(call, "5. tell"))
        after = heard(await talk.say("6. tell"))

    assert call.call_id in late
    assert "waits for no answer" in later
    assert here == ["1. tell", "4. tell"]
    assert after == ["1. tell", "4. tell", "6. tell"]


@pytest.mark.behaviour("F4")
@pytest.mark.parametrize("how", ["on a branch", "unstored", "unstored here", "deleted here"])
async def test_a_question_that_was_answered_elsewhere_leaves_the_conversation_usable(state: State, how: str) -> None:
    async with talking(conversing, state) as talk:
        await talk.say("1. tell")
        asked = await talk.say("2. text+bool")
        text, other = sorted(calls_of(asked), key=lambda call: "text?" not in call.arguments)
        given = answer(text, "3. tell")
        assert text.call_id in await talk.refused("too early") or other.call_id in await talk.refused("too early")
        if how == "on a branch":
            await talk.say(given, after=asked)
        elif how == "unstored":
            await talk.say(given, after=asked, store=False)
        elif how == "unstored here":
            await talk.say(given, store=False)
        else:
            await talk.client.responses.delete((await talk.say(given)).id)

        late = [await talk.refused(answer(text, "x tell")), await talk.refused(answer(other, "true"))]
        here = heard(await talk.say("4. tell"))
        again = await talk.say("5. text")
        done = heard(await talk.say(answer(calls_of(again)[0], "6. tell")))

    assert all("any more" in reason or "answered" in reason for reason in late)
    assert here[0] == "1. tell"
    assert here[-1] == "4. tell"
    assert done == [*here, "5. text", "6. tell"]


@pytest.mark.behaviour("F4")
async def test_a_question_that_is_open_again_is_not_passed_over(state: State) -> None:
    async with talking(conversing, state) as talk:
        await talk.say("1. tell")
        asked = await talk.say("2. text")
        (call,) = calls_of(asked)
        with pytest.raises(openai.InternalServerError):
            await talk.say(answer(call, "3. fail"), after=asked)

        assert call.call_id in await talk.refused("4. tell")
        done = heard(await talk.say(answer(call, "5. tell")))

    assert done == ["1. tell", "2. text", "5. tell"]
