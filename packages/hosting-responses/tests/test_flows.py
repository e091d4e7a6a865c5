"""Whole stories with the official client: every way to run a workflow and to answer it, with a restart between any two steps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import live
import openai
import pytest
import wire
from agent_framework import (
    Agent,
    Content,
    Executor,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
    register_checkpoint_type,
    response_handler,
    tool,
)
from pydantic import BaseModel
from states import State

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import Gate, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel

SECONDS = 60.0

Step = Callable[[openai.AsyncOpenAI], Awaitable[None]]


@asynccontextmanager
async def hosted(target: Any, state: State) -> AsyncGenerator[openai.AsyncOpenAI, None]:
    host = AgentFrameworkHost(target, channels=[ResponsesChannel()], **state.options)
    async with live.serve(host.app) as served:
        yield served.client


async def play(target: Any, state: State, steps: Sequence[Step]) -> None:
    """Play the steps, each on a host of its own if the state outlives it."""
    if not state.is_durable:
        async with hosted(target, state) as client:
            for step in steps:
                await step(client)
        return
    for step in steps:
        async with hosted(target, state) as client:
            await step(client)


async def ended(client: openai.AsyncOpenAI, response: Any) -> Any:
    """Poll a background response until it is terminal."""
    async with asyncio.timeout(SECONDS):
        while response.status in wire.RUNNING:
            await asyncio.sleep(0.01)
            response = await client.responses.retrieve(response.id)
    return response


async def events_of(stream: Any) -> list[Any]:
    async with asyncio.timeout(SECONDS):
        return [event async for event in stream]


def calls_of(response: Any) -> dict[str, Any]:
    return {item.name: item for item in response.output if item.type == "function_call"}


def texts_of(response: Any) -> list[str]:
    return [item.content[0].text for item in response.output]


def answer(call: Any, text: str) -> Any:
    return {"type": "function_call_output", "call_id": call.call_id, "output": text}


# --- Workflows ---------------------------------------------------------------------------------------------------


class Diary(Executor):
    """Says all that it was told in the conversation; what is `slow` waits in the middle."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(id="diary")
        self.gate = gate
        self.told: list[str] = []

    @handler
    async def note(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        self.told.append(message)
        await ctx.yield_output("so far: ")
        if message == "slow":
            await self.gate.wait()
        await ctx.yield_output(" ".join(self.told))

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"told": list(self.told)}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.told = list(state["told"])


class WorkflowStory:
    """One chain, its branch and a conversation, in every mode."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.ids: dict[str, str] = {}

    def target(self) -> Workflow:
        return WorkflowBuilder(start_executor=Diary(self.gate), name="diary").build()

    @property
    def steps(self) -> list[Step]:
        return [
            self.begins,
            self.is_streamed,
            self.branches,
            self.converses,
            self.runs_in_the_background,
            self.is_left_and_read_again,
            self.is_replayed,
            self.is_cancelled,
            self.goes_on_after_all,
        ]

    async def begins(self, client: openai.AsyncOpenAI) -> None:
        models = [model.id async for model in client.models.list()]
        first = await client.responses.create(model="diary", input="a")
        self.ids["first"] = first.id

        assert (models, first.output_text) == (["diary"], "so far: a")

    async def is_streamed(self, client: openai.AsyncOpenAI) -> None:
        manager = client.responses.stream(model="diary", input="b", previous_response_id=self.ids["first"])
        async with manager as stream:
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            second = await stream.get_final_response()
        self.ids["second"] = second.id
        stored = await client.responses.retrieve(second.id)

        assert deltas == ["so far: ", "a b"]
        assert stored.output_text == second.output_text == "so far: a b"

    async def branches(self, client: openai.AsyncOpenAI) -> None:
        create = client.responses.create
        branch = await create(model="diary", input="x", previous_response_id=self.ids["first"])
        third = await create(model="diary", input="c", previous_response_id=self.ids["second"])
        self.ids["third"] = third.id
        heard = [item async for item in client.responses.input_items.list(third.id, order="asc")]

        assert (branch.output_text, third.output_text) == ("so far: a x", "so far: a b c")
        assert len(heard) == 7

    async def converses(self, client: openai.AsyncOpenAI) -> None:
        conversation = await client.conversations.create()
        for text, said in (("1", "so far: 1"), ("2", "so far: 1 2")):
            response = await client.responses.create(model="diary", input=text, conversation=conversation.id)
            assert response.output_text == said
        items = [item async for item in client.conversations.items.list(conversation.id, order="asc")]

        assert len(items) == 6

    async def runs_in_the_background(self, client: openai.AsyncOpenAI) -> None:
        begun = await client.responses.create(
            model="diary", input="d", previous_response_id=self.ids["third"], background=True
        )
        done = await ended(client, begun)
        self.ids["fourth"] = done.id

        assert begun.status in wire.RUNNING
        assert (done.status, done.output_text) == ("completed", "so far: a b c d")

    async def is_left_and_read_again(self, client: openai.AsyncOpenAI) -> None:
        previous = self.ids["fourth"]
        stream = await client.responses.create(
            model="diary", input="slow", previous_response_id=previous, background=True, stream=True
        )
        seen = -1
        async for event in stream:
            seen = event.sequence_number
            if event.type == "response.created":
                self.ids["slow"] = event.response.id
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        self.gate.open()
        rest = await events_of(await client.responses.retrieve(self.ids["slow"], stream=True, starting_after=seen))

        assert rest[0].sequence_number == seen + 1
        assert rest[-1].response.output_text == "so far: a b c d slow"

    async def is_replayed(self, client: openai.AsyncOpenAI) -> None:
        response_id = self.ids["slow"]
        whole = await events_of(await client.responses.retrieve(response_id, stream=True))
        tail = await events_of(await client.responses.retrieve(response_id, stream=True, starting_after=3))
        async with client.responses.stream(response_id=response_id) as stream:
            final = await stream.get_final_response()

        assert [event.sequence_number for event in whole] == [*range(len(whole))]
        assert tail == whole[4:]
        assert final.output_text == "so far: a b c d slow"

    async def is_cancelled(self, client: openai.AsyncOpenAI) -> None:
        self.gate = Gate()  # for the workflows that are built from now on
        begun = await client.responses.create(
            model="diary", input="slow", previous_response_id=self.ids["slow"], background=True
        )
        await asyncio.wait_for(self.gate.reached.wait(), SECONDS)
        cancelled = await client.responses.cancel(begun.id)
        self.ids["cancelled"] = begun.id

        assert cancelled.status == "cancelled"

    async def goes_on_after_all(self, client: openai.AsyncOpenAI) -> None:
        last = await client.responses.create(model="diary", input="e", previous_response_id=self.ids["cancelled"])
        await client.responses.delete(last.id)
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model="diary", input="f", previous_response_id=last.id)

        assert last.output_text.startswith("so far: a b c d slow")
        assert refused.value.code == "previous_response_not_found"


@pytest.mark.behaviour("A1", "A2", "A3", "D1", "D3", "D4", "F1", "F7")
async def test_a_workflow_is_run_in_every_way(state: State) -> None:
    story = WorkflowStory()

    await play(story.target, state, story.steps)


# --- Questions ---------------------------------------------------------------------------------------------------


@dataclass
class Trip:
    """What is asked."""

    to: str


class Ticket(BaseModel):
    """An answer with fields."""

    seat: str
    price: int


for kind in (Trip, Ticket):
    register_checkpoint_type(kind)


class Agency(Executor):
    """Asks three things of different types, and lists the answers."""

    def __init__(self) -> None:
        super().__init__(id="agency")
        self.answers: list[str] = []

    @handler
    async def ask(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        self.answers.append(message)
        if message.startswith("go to "):
            await ctx.request_info(Trip(message.removeprefix("go to ")), bool)
            await ctx.request_info("When?", str)
            await ctx.request_info(["window", "aisle"], Ticket)
        else:
            await ctx.yield_output(" ".join(self.answers))

    @response_handler
    async def on_trip(self, asked: Trip, is_right: bool, ctx: WorkflowContext[Any, str]) -> None:
        await self._note(f"{asked.to}={is_right}", ctx)

    @response_handler
    async def on_day(self, asked: str, day: str, ctx: WorkflowContext[Any, str]) -> None:
        await self._note(f"on={day}", ctx)

    @response_handler
    async def on_ticket(self, asked: list[str], ticket: Ticket, ctx: WorkflowContext[Any, str]) -> None:
        await self._note(f"{asked[0]}={ticket.price}", ctx)

    async def _note(self, text: str, ctx: WorkflowContext[Any, str]) -> None:
        self.answers.append(text)
        await ctx.yield_output(text)

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"answers": list(self.answers)}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.answers = list(state["answers"])


def agency() -> Workflow:
    return WorkflowBuilder(start_executor=Agency(), name="agency").build()


class QuestionStory:
    """What is asked in the background is answered in a stream, in the background and in a conversation."""

    def __init__(self) -> None:
        self.asked: Any = None
        self.last: Any = None
        self.conversation = ""

    @property
    def steps(self) -> list[Step]:
        return [
            self.asks_in_the_background,
            self.reads_what_is_asked_again,
            self.answers_one_in_a_stream,
            self.answers_the_rest_in_the_background,
            self.goes_on,
            self.asks_in_a_conversation,
            self.answers_all_there,
        ]

    async def asks_in_the_background(self, client: openai.AsyncOpenAI) -> None:
        begun = await client.responses.create(model="agency", input="go to Bern", background=True)
        self.asked = await ended(client, begun)

        assert self.asked.status == "completed"
        assert set(calls_of(self.asked)) == {"Trip", "agency"}

    async def reads_what_is_asked_again(self, client: openai.AsyncOpenAI) -> None:
        events = await events_of(await client.responses.retrieve(self.asked.id, stream=True))
        done = [event.item for event in events if event.type == "response.output_item.done"]

        assert done == self.asked.output
        assert json.loads(calls_of(self.asked)["Trip"].arguments)["request"] == {"to": "Bern"}

    async def answers_one_in_a_stream(self, client: openai.AsyncOpenAI) -> None:
        given = [answer(calls_of(self.asked)["Trip"], "true")]
        async with client.responses.stream(model="agency", input=given, previous_response_id=self.asked.id) as stream:
            self.last = await stream.get_final_response()
        with pytest.raises(openai.BadRequestError, match="already been answered"):
            await client.responses.create(model="agency", input=given, previous_response_id=self.asked.id)

        assert self.last.output_text == "Bern=True"

    async def answers_the_rest_in_the_background(self, client: openai.AsyncOpenAI) -> None:
        day, ticket = [item for item in self.asked.output if item.name == "agency"]
        given = [answer(ticket, '{"seat": "3A", "price": 20}'), answer(day, "Monday")]
        begun = await client.responses.create(
            model="agency", input=given, previous_response_id=self.last.id, background=True
        )
        self.last = await ended(client, begun)

        assert sorted(texts_of(self.last)) == ["on=Monday", "window=20"]

    async def goes_on(self, client: openai.AsyncOpenAI) -> None:
        after = await client.responses.create(model="agency", input="thanks", previous_response_id=self.last.id)

        assert set(after.output_text.split()) >= {"Bern=True", "on=Monday", "window=20", "thanks"}

    async def asks_in_a_conversation(self, client: openai.AsyncOpenAI) -> None:
        conversation = await client.conversations.create()
        self.conversation = conversation.id
        self.asked = await client.responses.create(model="agency", input="go to Rome", conversation=conversation.id)
        with pytest.raises(openai.BadRequestError):
            await client.responses.create(model="agency", input="hello", conversation=conversation.id)

    async def answers_all_there(self, client: openai.AsyncOpenAI) -> None:
        trip, day, ticket = self.asked.output
        given = [answer(trip, "false"), answer(day, "Friday"), answer(ticket, '{"seat": "1A", "price": 9}')]
        done = await client.responses.create(model="agency", input=given, conversation=self.conversation)
        after = await client.responses.create(model="agency", input="thanks", conversation=self.conversation)

        assert sorted(texts_of(done)) == ["Rome=False", "on=Friday", "window=9"]
        assert set(after.output_text.split()) >= {"Rome=False", "on=Friday", "window=9", "thanks"}


@pytest.mark.behaviour("D3", "F3", "F4")
async def test_a_workflow_is_answered_in_every_way(state: State) -> None:
    await play(agency, state, QuestionStory().steps)


# --- Approvals ---------------------------------------------------------------------------------------------------


class ApprovalStory:
    """What needs an approval is approved and rejected, in each mode."""

    def __init__(self) -> None:
        self.booked: list[str] = []
        self.model = ScriptedChatClient(
            [self._call("c1", "Bern"), self._call("c2", "Rome")],
            ["booked both"],
            [self._call("c3", "Oslo")],
            ["not booked"],
            [self._call("c4", "Riga")],
            ["booked"],
        )
        self.asked: Any = None
        self.conversation = ""

    @staticmethod
    def _call(call_id: str, city: str) -> Content:
        return Content.from_function_call(call_id, "book", arguments=json.dumps({"city": city}))

    def target(self) -> Agent[Any]:
        @tool(approval_mode="always_require")
        def book(city: str) -> str:
            """Book a trip."""
            self.booked.append(city)
            return f"booked {city}"

        return Agent(client=self.model, tools=[book], name="agency")

    @property
    def steps(self) -> list[Step]:
        return [
            self.asks_in_a_stream,
            self.is_approved_in_the_background,
            self.asks_in_the_background,
            self.is_rejected_in_a_stream,
            self.asks_in_a_conversation,
            self.is_approved_there,
        ]

    def decisions(self, *, approve: bool) -> list[Any]:
        asked = [item for item in self.asked.output if item.type == "mcp_approval_request"]
        return [{"type": "mcp_approval_response", "approval_request_id": one.id, "approve": approve} for one in asked]

    async def asks_in_a_stream(self, client: openai.AsyncOpenAI) -> None:
        async with client.responses.stream(model="agency", input="Bern and Rome") as stream:
            self.asked = await stream.get_final_response()

        assert [item.arguments for item in self.asked.output] == ['{"city": "Bern"}', '{"city": "Rome"}']
        assert self.booked == []

    async def is_approved_in_the_background(self, client: openai.AsyncOpenAI) -> None:
        given = self.decisions(approve=True)
        body: Any = {"model": "agency", "input": given, "previous_response_id": self.asked.id}
        self.asked = await ended(client, await client.responses.create(background=True, **body))
        with pytest.raises(openai.BadRequestError, match="already been answered"):
            await client.responses.create(**body)

        assert self.asked.output_text == "booked both"
        assert sorted(self.booked) == ["Bern", "Rome"]

    async def asks_in_the_background(self, client: openai.AsyncOpenAI) -> None:
        begun = await client.responses.create(
            model="agency", input="Oslo", previous_response_id=self.asked.id, background=True
        )
        self.asked = await ended(client, begun)
        events = await events_of(await client.responses.retrieve(begun.id, stream=True, starting_after=1))

        assert [event.item.type for event in events if event.type == "response.output_item.done"] == [
            "mcp_approval_request"
        ]

    async def is_rejected_in_a_stream(self, client: openai.AsyncOpenAI) -> None:
        given: Any = self.decisions(approve=False)
        async with client.responses.stream(model="agency", input=given, previous_response_id=self.asked.id) as stream:
            final = await stream.get_final_response()

        assert final.output_text == "not booked"
        assert "Oslo" not in self.booked

    async def asks_in_a_conversation(self, client: openai.AsyncOpenAI) -> None:
        conversation = await client.conversations.create()
        self.conversation = conversation.id
        self.asked = await client.responses.create(model="agency", input="Riga", conversation=conversation.id)

    async def is_approved_there(self, client: openai.AsyncOpenAI) -> None:
        given: Any = self.decisions(approve=True)
        done = await client.responses.create(model="agency", input=given, conversation=self.conversation)
        items = [item.type async for item in client.conversations.items.list(self.conversation, order="asc")]

        assert done.output_text == "booked"
        assert self.booked[-1] == "Riga"
        assert items == ["message", "mcp_approval_request", "mcp_approval_response", "message"]


@pytest.mark.behaviour("D3", "F4", "F5")
async def test_an_agent_is_given_approvals_in_every_way(state: State) -> None:
    story = ApprovalStory()

    await play(story.target(), state, story.steps)
