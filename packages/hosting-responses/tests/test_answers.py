"""People in the loop: what a workflow asks, and tools that need an approval, answered by the official client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import live
import openai
import pytest
import wire
from agent_framework import (
    Agent,
    AgentExecutor,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    Executor,
    FunctionInvocationLayer,
    FunctionTool,
    Message,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    WorkflowExecutor,
    handler,
    register_checkpoint_type,
    response_handler,
    tool,
)
from pydantic import BaseModel
from states import State, here

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.checkpoints import Checkpoints, FileCheckpoints, MemoryCheckpoints
from agent_framework_hosting.errors import StoreUnavailable
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import RunStatus
from agent_framework_hosting.sql.checkpoints import SqlCheckpoints
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.targets.workflow import WorkflowTarget
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import MemorySettlements, ResponseRecord, ResponsesChannel, ResponsesState
from agent_framework_hosting_responses.answers import names_answered
from agent_framework_hosting_responses.protocol.json import JsonObject
from agent_framework_hosting_responses.stores.context import Context
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore

SECONDS = 60.0


@dataclass
class Refund:
    """What is asked."""

    order: str
    amount: int


@dataclass
class Verdict:
    """An answer with fields."""

    approved: bool
    note: str = ""


class Address(BaseModel):
    """An answer that is a model."""

    street: str
    number: int


class Color(Enum):
    """An answer that is one of two."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Said:
    """An answer for agents."""

    messages: list[Message]


# Forms of types that are no classes, too: the framework takes them all the same.
FORMS: dict[str, Any] = {"maybe": bool | None, "word": Literal["yes", "no"], "color": Color, "said": Said}

for kind in (Refund, Verdict, Address, Color, Said):
    register_checkpoint_type(kind)


class Clerk(Executor):
    """Asks for what it is told to ask, and says what it was answered."""

    def __init__(self, *, confirmation: str | None = "confirmation") -> None:
        super().__init__(id="clerk")
        self.answers: list[str] = []
        # The name of a request; `None` for another one each time.
        self.confirmation = confirmation

    async def _confirm(self, ctx: WorkflowContext[Any, str]) -> None:
        await ctx.request_info("sure?", str, request_id=self.confirmation)

    @handler
    async def ask(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        for word in message.split():
            match word:
                case "bool":
                    await ctx.request_info(Refund("A1", 20), bool)
                case "str":
                    await ctx.request_info("which?", str)
                case "int":
                    await ctx.request_info({"how": "many"}, int)
                case "verdict":
                    await ctx.request_info(Refund("A2", 5), Verdict)
                case "address":
                    await ctx.request_info("where?", Address)
                case "confirm":
                    await self._confirm(ctx)
                case "maybe" | "word" | "color" | "said":
                    await ctx.request_info(7, FORMS[word])
                case "list":
                    await ctx.request_info(["a", "b"], list[str])
                case _:
                    await ctx.yield_output(f"[{word}]")

    async def _note(self, answer: object, ctx: WorkflowContext[Any, str]) -> None:
        if answer == "fail":
            raise ValueError("secret reason")
        self.answers.append(repr(answer))
        await ctx.yield_output("|".join(self.answers))
        if answer == "not yet":
            await self._confirm(ctx)

    @response_handler
    async def on_bool(self, asked: Refund, answer: bool, ctx: WorkflowContext[Any, str]) -> None:
        await self._note((asked.order, answer), ctx)

    @response_handler
    async def on_str(self, asked: str, answer: str, ctx: WorkflowContext[Any, str]) -> None:
        await self._note(answer, ctx)

    @response_handler
    async def on_int(self, asked: dict[str, str], answer: int, ctx: WorkflowContext[Any, str]) -> None:
        await self._note(answer, ctx)

    @response_handler
    async def on_verdict(self, asked: Refund, answer: Verdict, ctx: WorkflowContext[Any, str]) -> None:
        await self._note(answer, ctx)

    @response_handler
    async def on_address(self, asked: str, answer: Address, ctx: WorkflowContext[Any, str]) -> None:
        await self._note(answer, ctx)

    @response_handler
    async def on_seven(
        self, asked: int, answer: bool | Literal["yes", "no"] | Color | Said | None, ctx: WorkflowContext[Any, str]
    ) -> None:
        await self._note([message.text for message in answer.messages] if isinstance(answer, Said) else answer, ctx)

    @response_handler
    async def on_list(self, asked: list[str], answer: list[str], ctx: WorkflowContext[Any, str]) -> None:
        await self._note(answer, ctx)

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"answers": list(self.answers)}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.answers = list(state["answers"])


def asking() -> Workflow:
    return WorkflowBuilder(start_executor=Clerk(), name="clerk").build()


def host_of(target: Any, **options: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(target, channels=[ResponsesChannel()], **{**here(), **options})


@asynccontextmanager
async def hosted(target: Any, **options: Any) -> AsyncGenerator[Any, None]:
    async with live.serve(host_of(target, **options).app) as served:
        yield served.client.responses


def calls_of(response: Any) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


def answer(call: Any, text: str) -> Any:
    return {"type": "function_call_output", "call_id": call.call_id, "output": text}


async def refusal(create: Any, **body: Any) -> str:
    with pytest.raises(openai.BadRequestError) as refused:
        await create(model="m", **body)
    return str(refused.value.body["message"])  # type: ignore[index]


@pytest.mark.behaviour("F3")
@pytest.mark.usefixtures("on_every_store")
@pytest.mark.parametrize(
    ("question", "given", "wrong", "taken"),
    [
        ("bool", "true", "perhaps", "('A1', True)"),
        ("str", "7", None, "'7'"),
        ("int", "7", "seven", "7"),
        ("verdict", '{"approved": false, "note": "no"}', '{"note": "no"}', "Verdict(approved=False, note='no')"),
        ("address", '{"street": "Hill", "number": 3}', '{"street": "Hill"}', "Address(street='Hill', number=3)"),
        ("list", '["x", "y"]', '"x"', "['x', 'y']"),
        ("maybe", "null", "perhaps", "None"),
        ("word", "yes", "perhaps", "'yes'"),
        ("color", "red", "green", "<Color.RED: 'red'>"),
        ("said", "shorter", '{"messages": 7}', "['shorter']"),
    ],
)
async def test_what_a_workflow_asks_is_a_call_and_its_output_is_decoded_into_what_it_waits_for(
    question: str, given: str, wrong: str | None, taken: str
) -> None:
    async with hosted(asking) as responses:
        asked = await responses.create(model="m", input=question)
        (call,) = calls_of(asked)
        if wrong is not None:
            message = await refusal(responses.create, input=[answer(call, wrong)], previous_response_id=asked.id)
            assert call.call_id in message
            assert "schema" in message
        done = await responses.create(model="m", input=[answer(call, given)], previous_response_id=asked.id)

    assert asked.status == "completed"
    assert done.output_text == taken


@pytest.mark.behaviour("F3", "F4")
@pytest.mark.usefixtures("on_every_store")
async def test_hostile_answers_are_refused_and_the_question_stays_open() -> None:
    deep = "[" * 50_000 + "]" * 50_000
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    text = {"type": "input_text", "text": "true"}
    hostile: list[Any] = [
        "", "NaN", "1e400", "7", deep, deep[:-1], '{"a":' * 20_000 + "1" + "}" * 20_000, "x" * 1_000_000, "\0", "null",
        "9" * 5000, [], [image], [text, image], [{"type": "input_text"}], None, 7, True, {"a": 1}, [[text]],
    ]  # fmt: skip
    async with hosted(asking) as responses:
        asked = await responses.create(model="m", input="bool")
        (call,) = calls_of(asked)
        for output in hostile:
            given: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": output}]
            await refusal(responses.create, input=given, previous_response_id=asked.id)
        parts: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": [text]}]
        done = await responses.create(model="m", input=parts, previous_response_id=asked.id)

    assert done.output_text == "('A1', True)"


@pytest.mark.behaviour("F3")
@pytest.mark.usefixtures("on_every_store")
@pytest.mark.parametrize(
    "text", ["\0", "\ud83d", "\u2028\r\n", '{"__pickled__": "x", "__type__": "builtins:int"}', "x" * 1_000_000]
)
async def test_an_answer_may_be_any_text(text: str) -> None:
    async with live.serve(host_of(asking).app) as served:
        responses = served.client.responses
        asked = await responses.create(model="m", input="str int")
        one, two = calls_of(asked)
        body = {"input": [answer(one, text)], "previous_response_id": asked.id}
        # Not with the client, which cannot send half an emoji.
        answered = await served.http.post(
            "/responses", content=json.dumps(body), headers={"content-type": "application/json"}
        )
        done = await responses.create(model="m", input=[answer(two, "2")], previous_response_id=answered.json()["id"])

    assert done.output_text == f"{text!r}|2"


@pytest.mark.behaviour("F3", "F4")
@pytest.mark.usefixtures("on_every_store")
async def test_a_nested_workflow_asks_and_is_answered() -> None:
    def nesting() -> Workflow:
        inner = WorkflowBuilder(start_executor=Clerk(), name="inner").build()
        nested = WorkflowExecutor(inner, id="nested", propagate_request=True, allow_direct_output=True)
        return WorkflowBuilder(start_executor=nested, name="outer").build()

    async with hosted(nesting) as responses:
        asked = await responses.create(model="m", input="word verdict")
        word, verdict = calls_of(asked)
        wrong = [answer(word, "perhaps")]
        assert word.call_id in await refusal(responses.create, input=wrong, previous_response_id=asked.id)
        one = await responses.create(
            model="m", input=[answer(verdict, '{"approved": true}')], previous_response_id=asked.id
        )
        again = await refusal(responses.create, input=[answer(verdict, "{}")], previous_response_id=one.id)
        done = await responses.create(model="m", input=[answer(word, "no")], previous_response_id=one.id)
        after = await responses.create(model="m", input="hello", previous_response_id=done.id)

    assert calls_of(one) == []
    assert "already been answered" in again
    assert done.output_text == "Verdict(approved=True, note='')|'no'"
    assert after.output_text == "[hello]"


@pytest.mark.behaviour("F3")
async def test_a_question_tells_what_is_asked_and_what_is_expected() -> None:
    async with hosted(asking) as responses:
        asked = await responses.create(model="m", input="bool str verdict")

    arguments = {call.name: json.loads(call.arguments) for call in calls_of(asked)}
    of_fields, of_text = calls_of(asked)[0], calls_of(asked)[1]
    assert (of_fields.name, of_text.name) == ("Refund", "clerk")
    assert json.loads(of_fields.arguments) == {
        "request": {"order": "A1", "amount": 20},
        "response_schema": {"type": "boolean"},
    }
    assert arguments["clerk"] == {"request": "which?", "response_schema": {"type": "string"}}
    assert set(arguments["Refund"]["response_schema"]["properties"]) == {"approved", "note"}


@pytest.mark.behaviour("F3")
async def test_a_question_survives_a_restart_and_is_answered_on_another_replica(durable_state: State) -> None:
    options = durable_state.options
    async with hosted(asking, **options) as responses:
        asked = await responses.create(model="m", input="verdict")
        async with AsyncExitStack() as stack:
            other = responses
            if durable_state.kind == "postgres":  # several processes
                other = await stack.enter_async_context(hosted(asking, **options))
            second = await other.create(
                model="m", input=[answer(calls_of(asked)[0], '{"approved": true}')], previous_response_id=asked.id
            )
            again = await other.create(model="m", input="str", previous_response_id=second.id)
    async with hosted(asking, **options) as responses:
        third = await responses.create(
            model="m", input=[answer(calls_of(again)[0], "yes")], previous_response_id=again.id
        )

    assert second.output_text == "Verdict(approved=True, note='')"
    assert third.output_text == "Verdict(approved=True, note='')|'yes'"


@pytest.mark.behaviour("F3")
@pytest.mark.usefixtures("on_every_store")
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_questions_are_answered_one_at_a_time_or_together(is_streamed: bool) -> None:
    async with hosted(asking) as responses:
        asked = await responses.create(model="m", input="bool int str")
        first, second, third = calls_of(asked)
        one = await responses.create(model="m", input=[answer(second, "2")], previous_response_id=asked.id)
        assert calls_of(one) == []
        again = [answer(third, "x"), answer(second, "3")]
        assert second.call_id in await refusal(responses.create, input=again, previous_response_id=one.id)
        assert first.call_id in await refusal(responses.create, input="hello", previous_response_id=one.id)
        rest: Any = {"input": [answer(third, "x"), answer(first, "false")], "previous_response_id": one.id}
        if is_streamed:
            async with responses.stream(model="m", **rest) as stream:
                done = await stream.get_final_response()
        else:
            done = await responses.create(model="m", **rest)
        after = await responses.create(model="m", input="hello", previous_response_id=done.id)

    assert "('A1', False)" in done.output_text
    assert "'x'" in done.output_text
    assert one.output_text == "2"
    assert after.output_text == "[hello]"


@pytest.mark.behaviour("F3", "F4")
@pytest.mark.usefixtures("on_every_store")
async def test_a_conversation_goes_on_with_the_answer_and_with_nothing_else() -> None:
    async with live.serve(host_of(asking).app) as served:
        responses = served.client.responses
        conversation = await served.client.conversations.create()
        asked = await responses.create(model="m", input="str", conversation=conversation.id)
        (call,) = calls_of(asked)
        assert call.call_id in await refusal(responses.create, input="hello", conversation=conversation.id)
        done = await responses.create(model="m", input=[answer(call, "this")], conversation=conversation.id)
        again = await refusal(responses.create, input=[answer(call, "that")], conversation=conversation.id)
        after = await responses.create(model="m", input="hello", conversation=conversation.id)

    assert (done.output_text, after.output_text) == ("'this'", "[hello]")
    assert "already been answered" in again


@pytest.mark.behaviour("F3", "F4")
@pytest.mark.usefixtures("on_every_store")
@pytest.mark.parametrize(
    "mode", [{}, {"stream": True}, {"background": True}], ids=["one-shot", "streamed", "background"]
)
async def test_questions_in_a_conversation_are_answered_one_at_a_time_or_together(mode: dict[str, Any]) -> None:
    async with live.serve(host_of(asking).app) as served:
        responses = served.client.responses
        conversation = await served.client.conversations.create()

        async def turn(**body: Any) -> Any:
            made = await responses.create(model="m", conversation=conversation.id, **mode, **body)
            if "stream" in mode:
                return [event async for event in made][-1].response
            return await ended(responses, made)

        first, second, third = calls_of(await turn(input="bool int str"))
        one = await turn(input=[answer(second, "2")])
        assert second.call_id in await refusal(
            responses.create, input=[answer(third, "x"), answer(second, "3")], conversation=conversation.id
        )
        rest = await turn(input=[answer(third, "x"), answer(first, "false")])
        after = await turn(input="hello")

    assert (text_of(one), calls_of(one)) == ("2", [])
    assert "'x'" in text_of(rest)
    assert "('A1', False)" in text_of(rest)
    assert text_of(after) == "[hello]"


@pytest.mark.behaviour("F4", "A9")
async def test_of_two_answers_in_a_conversation_at_the_same_moment_one_is_heard(durable_state: State) -> None:
    async with live.serve(host_of(asking, **durable_state.options).app) as served:
        responses = served.client.responses
        conversation = await served.client.conversations.create()
        asked = await responses.create(model="m", input="str int", conversation=conversation.id)
        one, two = calls_of(asked)
        results = await asyncio.gather(
            *(
                responses.create(model="m", input=[given], conversation=conversation.id)
                for given in (answer(one, "a"), answer(two, "2"), answer(one, "b"))
            ),
            return_exceptions=True,
        )
        items = [item async for item in served.client.conversations.items.list(conversation.id)]

    assert sum(isinstance(result, openai.BadRequestError) for result in results) == 2
    assert len([item for item in items if item.type == "function_call_output"]) == 1


@pytest.mark.behaviour("F4", "A2")
@pytest.mark.usefixtures("on_every_store")
async def test_a_response_that_waits_is_continued_once_and_an_earlier_one_by_anybody() -> None:
    async with hosted(asking) as responses:
        before = await responses.create(model="m", input="hello")
        asked = await responses.create(model="m", input="str", previous_response_id=before.id)
        (call,) = calls_of(asked)
        done = await responses.create(model="m", input=[answer(call, "x")], previous_response_id=asked.id)
        branch = await refusal(responses.create, input=[answer(call, "y")], previous_response_id=asked.id)
        foreign = await refusal(responses.create, input=[answer(call, "y")], previous_response_id=before.id)
        other = await responses.create(model="m", input="str", previous_response_id=before.id)
        there = await responses.create(
            model="m", input=[answer(calls_of(other)[0], "z")], previous_response_id=other.id
        )
        await responses.delete(asked.id)
        after = await responses.create(model="m", input="hello", previous_response_id=done.id)

    assert "already been answered" in branch
    assert call.call_id in foreign
    assert (done.output_text, there.output_text, after.output_text) == ("'x'", "'z'", "[hello]")


@pytest.mark.behaviour("F4", "D5")
@pytest.mark.usefixtures("on_every_store")
async def test_what_a_deleted_response_has_asked_cannot_be_answered() -> None:
    async with live.serve(host_of(asking).app) as served:
        responses, conversations = served.client.responses, served.client.conversations
        asked = await responses.create(model="m", input="str")
        conversation = await conversations.create()
        there = await responses.create(model="m", input="str", conversation=conversation.id)
        (call,) = calls_of(there)
        for response in (asked, there):
            await responses.delete(response.id)
        chained = await refusal(
            responses.create, input=[answer(calls_of(asked)[0], "x")], previous_response_id=asked.id
        )
        answered = await refusal(responses.create, input=[answer(call, "x")], conversation=conversation.id)
        after = await responses.create(model="m", input="hello", conversation=conversation.id)

    assert "not found" in chained
    assert f"Nobody waits for the output of call '{call.call_id}' any more" in answered
    assert "[hello]" in after.output_text


@pytest.mark.behaviour("F4")
@pytest.mark.usefixtures("on_every_store")
async def test_an_answer_on_a_branch_out_of_a_conversation_counts_there_and_nowhere_else() -> None:
    async with live.serve(host_of(asking).app) as served:
        responses = served.client.responses
        conversation = await served.client.conversations.create()
        asked = await responses.create(model="m", input="str", conversation=conversation.id)
        (call,) = calls_of(asked)
        done = await responses.create(model="m", input=[answer(call, "x")], previous_response_id=asked.id)
        again = await refusal(responses.create, input=[answer(call, "y")], conversation=conversation.id)

    assert done.output_text == "'x'"
    assert "already been answered" in again


@pytest.mark.behaviour("F4")
async def test_an_answer_whose_items_could_not_be_appended_at_first_is_heard_once() -> None:
    class Forgetful(MemoryConversationStore):
        is_broken = False

        async def finish(self, record: ResponseRecord) -> None:
            if self.is_broken and record.status is RunStatus.COMPLETED:
                self.is_broken = False
                raise StoreUnavailable("away")
            await super().finish(record)

    conversations = Forgetful()
    responses_store = MemoryResponseStore(conversations=conversations)
    state = ResponsesState(responses=responses_store, conversations=conversations, settlements=MemorySettlements())
    host = AgentFrameworkHost(asking, channels=[ResponsesChannel(state=state)])
    async with live.serve(host.app) as served:
        responses = served.client.responses
        conversation = await served.client.conversations.create()
        asked = await responses.create(model="m", input="str", conversation=conversation.id)
        (call,) = calls_of(asked)
        conversations.is_broken = True
        done = await responses.create(model="m", input=[answer(call, "x")], conversation=conversation.id)
        again = await refusal(responses.create, input=[answer(call, "y")], conversation=conversation.id)
        items = [item async for item in served.client.conversations.items.list(conversation.id)]

    assert not conversations.is_broken
    assert done.output_text == "'x'"
    assert "already been answered" in again
    assert [item.type for item in items].count("function_call_output") == 1


@pytest.mark.behaviour("F4")
@pytest.mark.usefixtures("on_every_store")
async def test_what_is_no_answer_to_an_open_question_is_refused_and_the_workflow_does_not_advance() -> None:
    async with hosted(asking) as responses:
        asked = await responses.create(model="m", input="str")
        other = await responses.create(model="m", input="str")
        (call,), (foreign,) = calls_of(asked), calls_of(other)
        forged = {"type": "function_call_output", "call_id": "call_forged", "output": "x"}
        replayed = {"type": "function_call", "call_id": "call_forged", "name": "clerk", "arguments": "{}"}
        approval = {"type": "mcp_approval_response", "approval_request_id": call.call_id, "approve": True}
        message = {"role": "user", "content": "hello"}
        inputs: Sequence[Any] = [
            "plain text",
            [],
            [forged],
            [replayed, forged],
            [answer(foreign, "x")],
            [approval],
            [answer(call, "x"), forged],
            [answer(call, "x"), answer(call, "x")],
            [answer(call, "x"), message],
        ]
        for given in inputs:
            await refusal(responses.create, input=given, previous_response_id=asked.id)
        await refusal(responses.create, input=[answer(call, "x")])
        done = await responses.create(model="m", input=[answer(call, "this")], previous_response_id=asked.id)

    assert done.output_text == "'this'"


@pytest.mark.behaviour("F4")
async def test_the_id_of_an_item_is_not_that_of_the_call_in_it_and_is_not_taken_for_answered() -> None:
    async with hosted(asking) as responses:
        asked = await responses.create(model="m", input="str")
        (call,) = calls_of(asked)
        output = {"type": "function_call_output", "call_id": call.id, "output": "x"}
        approval = {"type": "mcp_approval_response", "approval_request_id": call.id, "approve": True}
        of_output = await refusal(responses.create, input=[output], previous_response_id=asked.id)
        of_approval = await refusal(responses.create, input=[approval], previous_response_id=asked.id)

    assert "No tool call found" in of_output
    assert "No approval request found" in of_approval


@pytest.mark.behaviour("F4")
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_an_answer_that_repeats_its_question_instead_of_continuing_it_is_refused_and_says_why(
    is_streamed: bool,
) -> None:
    async with hosted(asking) as responses:
        asked = await responses.create(model="m", input="str")
        (call,) = calls_of(asked)
        history = [{"role": "user", "content": "str"}, call.model_dump(exclude_none=True), answer(call, "x")]
        message = await refusal(responses.create, input=history, stream=is_streamed)
        # A whole history is no answer.
        begun = await responses.create(model="m", input=[*history, {"role": "user", "content": "hello"}])

    assert "previous_response_id" in message
    assert begun.output_text == "[hello]"


@pytest.mark.behaviour("F4", "E1")
@pytest.mark.usefixtures("on_every_store")
async def test_another_users_answer_is_refused_and_uses_nothing_up() -> None:
    ada, bob = ({"x-agent-user-isolation-key": name} for name in ("ada", "bob"))
    async with hosted(asking, trust_isolation_headers=True) as responses:
        asked = await responses.create(model="m", input="str", extra_headers=ada)
        own = await responses.create(model="m", input="str", extra_headers=bob)
        given: Any = [answer(calls_of(asked)[0], "mine now")]
        for previous in (asked.id, own.id, None):
            body: Any = {"input": given, "previous_response_id": previous}
            await refusal(responses.create, extra_headers=bob, **body)
        given = [answer(calls_of(asked)[0], "this")]
        done = await responses.create(model="m", input=given, previous_response_id=asked.id, extra_headers=ada)

    assert done.output_text == "'this'"


@pytest.mark.behaviour("F4")
@pytest.mark.usefixtures("on_every_store")
@pytest.mark.parametrize("stored", [True, False])
async def test_an_answer_counts_once_wherever_it_is_sent(stored: bool) -> None:
    async with hosted(asking) as responses:
        asked = await responses.create(model="m", input="str")
        (call,) = calls_of(asked)
        body: Any = {"input": [answer(call, "this")], "previous_response_id": asked.id}
        done = await responses.create(model="m", store=stored, **body)
        messages = [await refusal(responses.create, **body)]
        other: Any = {**body, "input": [answer(call, "that")]}
        messages.append(await refusal(responses.create, **other))
        messages.append(await refusal(responses.create, background=True, **other))
        if stored:
            messages.append(await refusal(responses.create, input=[answer(call, "that")], previous_response_id=done.id))
            after = await responses.create(model="m", input="hello", previous_response_id=done.id)
            assert after.output_text == "[hello]"

    assert done.output_text == "'this'"
    assert all("already been answered" in message for message in messages)


@pytest.mark.behaviour("F4")
async def test_of_many_who_answer_at_the_same_moment_one_is_heard(durable_state: State) -> None:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(hosted(asking, **durable_state.options))]
        if durable_state.kind == "postgres":
            replicas.append(await stack.enter_async_context(hosted(asking, **durable_state.options)))
        asked = await replicas[0].create(model="m", input="str int")
        one, two = calls_of(asked)
        given = [answer(one, "a"), answer(two, "2"), answer(one, "b"), answer(two, "3")]
        results = await asyncio.gather(
            *(
                replica.create(model="m", input=[item], previous_response_id=asked.id)
                for item in given
                for replica in replicas
            ),
            return_exceptions=True,
        )

    heard = [result for result in results if not isinstance(result, BaseException)]
    refused = [result for result in results if isinstance(result, openai.BadRequestError)]
    assert (len(heard), len(refused)) == (1, len(results) - 1)


@pytest.mark.behaviour("F4")
@pytest.mark.usefixtures("on_every_store")
@pytest.mark.parametrize("mode", ["one-shot", "streamed", "background"])
async def test_an_answer_whose_run_failed_can_be_given_again(mode: str) -> None:
    async with hosted(asking) as responses:
        asked = await responses.create(model="m", input="str")
        (call,) = calls_of(asked)
        failed_id = await failed_run(responses, mode, input=[answer(call, "fail")], previous_response_id=asked.id)
        message = await refusal(responses.create, input="hello", previous_response_id=failed_id or asked.id)
        done = await responses.create(
            model="m", input=[answer(call, "this")], previous_response_id=failed_id or asked.id
        )
        again = await refusal(responses.create, input=[answer(call, "that")], previous_response_id=asked.id)

    assert call.call_id in message
    assert done.output_text == "'this'"
    assert "already been answered" in again


@pytest.mark.behaviour("F3")
@pytest.mark.usefixtures("on_every_store")
async def test_what_is_asked_again_under_the_same_name_is_another_question() -> None:
    async with hosted(asking) as responses:
        asked = await responses.create(model="m", input="confirm")
        (first,) = calls_of(asked)
        again = await responses.create(model="m", input=[answer(first, "not yet")], previous_response_id=asked.id)
        (second,) = calls_of(again)
        old = await refusal(responses.create, input=[answer(first, "yes")], previous_response_id=again.id)
        done = await responses.create(model="m", input=[answer(second, "yes")], previous_response_id=again.id)

    assert first.call_id != second.call_id
    assert "already been answered" in old
    assert done.output_text == "'not yet'|'yes'"


@pytest.mark.behaviour("F3")
@pytest.mark.parametrize("is_background", [False, True])
async def test_what_is_asked_again_under_the_same_name_is_said_by_a_response_that_is_not_stored_too(
    *, is_background: bool
) -> None:
    async with hosted(asking) as responses:
        asked = await responses.create(model="m", input="confirm")
        (first,) = calls_of(asked)
        body: Any = {"input": [answer(first, "not yet")], "previous_response_id": asked.id, "store": False}
        again = await ended(responses, await responses.create(model="m", background=is_background, **body))

    (second,) = calls_of(again)
    assert (again.output_text, first.call_id != second.call_id) == ("'not yet'", True)


@pytest.mark.behaviour("F3", "F8")
async def test_an_answer_whose_process_stops_is_heard_by_the_next_one_and_counts_once(durable_state: State) -> None:
    class Slow(Clerk):
        async def _note(self, answer: object, ctx: WorkflowContext[Any, str]) -> None:
            if not is_heard.is_set():
                is_heard.set()
                await asyncio.Event().wait()
            await super()._note(answer, ctx)

    def slow() -> Workflow:
        return WorkflowBuilder(start_executor=Slow(), name="clerk").build()

    is_heard = asyncio.Event()
    async with hosted(slow, shutdown_grace=0, **durable_state.options) as responses:
        asked = await responses.create(model="m", input="str int")
        one, two = calls_of(asked)
        body: Any = {"input": [answer(one, "this")], "previous_response_id": asked.id}
        begun = await responses.create(model="m", background=True, **body)
        await asyncio.wait_for(is_heard.wait(), SECONDS)
    async with hosted(slow, **durable_state.options) as responses:
        again = await refusal(responses.create, **body)
        done = await ended(responses, begun)
        after = await responses.create(model="m", input=[answer(two, "2")], previous_response_id=done.id)

    assert "already been answered" in again
    assert (done.status, done.output_text, calls_of(done)) == ("completed", "'this'", [])
    assert after.output_text == "'this'|2"


@pytest.mark.behaviour("F8", "D5")
@pytest.mark.parametrize("kind", ["answer", "message", "conversation"])
async def test_a_workflow_is_resumed_although_what_it_continued_was_deleted_while_it_ran(
    durable_state: State, kind: str
) -> None:
    class Slow(Clerk):
        async def _wait(self) -> None:
            if not is_begun.is_set():
                is_begun.set()
                await asyncio.Event().wait()

        @handler
        async def ask(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
            if "slowly" in message:
                await self._wait()
            await super().ask(message, ctx)

        async def _note(self, answer: object, ctx: WorkflowContext[Any, str]) -> None:
            await self._wait()
            await super()._note(answer, ctx)

    def slow() -> Workflow:
        return WorkflowBuilder(start_executor=Slow(), name="clerk").build()

    is_begun = asyncio.Event()
    async with live.serve(host_of(slow, shutdown_grace=0, **durable_state.options).app) as served:
        responses, conversations = served.client.responses, served.client.conversations
        place = await conversations.create()
        first = await responses.create(model="m", input="confirm" if kind == "answer" else "hello")
        body: dict[str, Any] = {"input": "slowly confirm", "previous_response_id": first.id}
        if kind == "answer":
            body["input"] = [answer(calls_of(first)[0], "not yet")]
        if kind == "conversation":
            body = {"input": "slowly confirm", "conversation": place.id}
        begun = await responses.create(model="m", background=True, **body)
        await asyncio.wait_for(is_begun.wait(), SECONDS)
        await (conversations.delete(place.id) if kind == "conversation" else responses.delete(first.id))
    async with hosted(slow, **durable_state.options) as responses:
        done = await ended(responses, begun)
        last = await responses.create(model="m", input=[answer(calls_of(done)[0], "yes")], previous_response_id=done.id)

    assert (done.status, done.output_text) == ("completed", "'not yet'" if kind == "answer" else "[slowly]")
    assert last.output_text == ("'not yet'|'yes'" if kind == "answer" else "'yes'")


def test_what_is_answered_has_the_names_of_whoever_asked() -> None:
    asked = Context((), approvals={"mcpr_1": {"request_id": "one"}}, call_ids={"call_2": "two"})
    items: list[JsonObject] = [
        {"type": "message", "role": "user", "content": "hello"},
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        {"type": "function_call_output", "call_id": "call_2", "output": "yes"},
        {"type": "function_call_output", "call_id": "call_3", "output": "yes"},
    ]

    names = names_answered(items, asked)

    assert names == ["one", "two", "call_3"]


@pytest.mark.behaviour("F3")
@pytest.mark.parametrize("kind", ["memory", "files"])
async def test_a_response_whose_checkpoint_is_gone_cannot_be_answered_and_says_so(kind: str, tmp_path: Path) -> None:
    await check_what_is_gone(MemoryCheckpoints() if kind == "memory" else FileCheckpoints(tmp_path))


@pytest.mark.behaviour("F3")
async def test_nor_can_one_whose_checkpoint_is_gone_from_a_database(database: Database) -> None:
    await check_what_is_gone(SqlCheckpoints(database))


async def check_what_is_gone(checkpoints: Checkpoints) -> None:
    """Have checkpoints erased at which a workflow waits, and answer."""
    async with live.serve(host_of(WorkflowTarget(asking, checkpoints=checkpoints)).app) as served:
        responses = served.client.responses
        before = await responses.create(model="m", input="hello")
        asked = await responses.create(model="m", input="str", previous_response_id=before.id)
        conversation = await served.client.conversations.create()
        there = await responses.create(model="m", input="str", conversation=conversation.id)
        for response in (asked, there):
            chain = checkpoints.chain(SHARED, response.id)
            for checkpoint_id in await chain.list_checkpoint_ids(workflow_name=response.id):
                await chain.delete(checkpoint_id)
        given: Any = {"input": [answer(calls_of(asked)[0], "x")], "previous_response_id": asked.id}
        messages = [
            await refusal(responses.create, **given),
            await refusal(responses.create, **given, stream=True),
            await refusal(responses.create, input="hello", previous_response_id=asked.id),
            await refusal(responses.create, input=[answer(calls_of(there)[0], "x")], conversation=conversation.id),
        ]
        after = await responses.create(model="m", input="again", previous_response_id=before.id)

    assert all("is gone" in message for message in messages)
    assert after.output_text == "[again]"


@pytest.mark.behaviour("F3")
@pytest.mark.parametrize("is_nested", [False, True])
async def test_a_workflow_asks_more_often_than_a_run_may_have_supersteps(*, is_nested: bool) -> None:
    def impatient() -> Workflow:
        # The framework loses what a nested workflow asks again under the same name.
        clerk = Clerk(confirmation=None)
        asks = WorkflowBuilder(start_executor=clerk, name="clerk", max_iterations=4).build()
        if not is_nested:
            return asks
        nested = WorkflowExecutor(asks, id="nested", propagate_request=True, allow_direct_output=True)
        return WorkflowBuilder(start_executor=nested, name="outer", max_iterations=4).build()

    async with hosted(impatient) as responses:
        response = await responses.create(model="m", input="confirm")
        for _ in range(6):
            given = [answer(calls_of(response)[0], "not yet")]
            response = await responses.create(model="m", input=given, previous_response_id=response.id)
        done = await responses.create(
            model="m", input=[answer(calls_of(response)[0], "yes")], previous_response_id=response.id
        )

    assert done.output_text.count("not yet") == 6
    assert done.output_text.endswith("'yes'")


def text_of(response: Any) -> str:
    """Return the text of a response, however the client got it."""
    return "".join(part.text for item in response.output if item.type == "message" for part in item.content)


class Waiter(Clerk):
    """Hears the answer `wait` when it is let through."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    async def _note(self, answer: object, ctx: WorkflowContext[Any, str]) -> None:
        if answer == "wait":
            await self._gate.wait()
        await super()._note(answer, ctx)


async def result(responses: Any, mode: str, **body: Any) -> Any:
    """Return the terminal response of a run in the mode."""
    if mode == "streamed":
        events = [event async for event in await responses.create(model="m", stream=True, **body)]
        return events[-1].response
    return await ended(responses, await responses.create(model="m", background=mode == "background", **body))


@pytest.mark.behaviour("F4")
@pytest.mark.usefixtures("on_every_store")
@pytest.mark.parametrize("mode", ["one-shot", "streamed", "background"])
async def test_an_answer_that_is_not_stored_ends_though_what_asked_is_deleted_meanwhile(mode: str) -> None:
    gate = Gate()
    async with hosted(lambda: WorkflowBuilder(start_executor=Waiter(gate), name="clerk").build()) as responses:
        asked = await responses.create(model="m", input="str")
        given: Any = {"input": [answer(calls_of(asked)[0], "wait")], "previous_response_id": asked.id, "store": False}
        answering = asyncio.create_task(result(responses, mode, **given))
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        await responses.delete(asked.id)
        gate.open()
        done = await asyncio.wait_for(answering, SECONDS)

    assert (done.status, done.output_text) == ("completed", "'wait'")


@pytest.mark.behaviour("F4")
@pytest.mark.parametrize("mode", ["one-shot", "streamed", "background"])
async def test_an_answer_that_is_not_stored_fails_when_its_process_was_taken_for_dead(
    mode: str, durable_state: State
) -> None:
    gate, channel = Gate(), ResponsesChannel()
    waiting = WorkflowTarget(lambda: WorkflowBuilder(start_executor=Waiter(gate), name="clerk").build())
    async with live.serve(AgentFrameworkHost(waiting, channels=[channel], **durable_state.options).app) as served:
        responses = served.client.responses
        asked = await responses.create(model="m", input="str")
        given: Any = {"previous_response_id": asked.id, "store": False}
        (call,) = calls_of(asked)
        answering = asyncio.create_task(failed_run(responses, mode, input=[answer(call, "wait")], **given))
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        state: Any = channel.service.state
        for owner in await state.responses.running_owners():
            await state.settlements.release(owner)
        gate.open()
        await asyncio.wait_for(answering, SECONDS)
        again = await responses.create(model="m", input=[answer(call, "again")], **given)

    assert again.output_text == "'again'"


async def ended(responses: Any, response: Any) -> Any:
    """Return a background response as soon as it is terminal."""
    async with asyncio.timeout(SECONDS):
        while response.status in wire.RUNNING:
            await asyncio.sleep(0.01)
            response = await responses.retrieve(response.id)
    return response


async def failed_run(responses: Any, mode: str, **body: Any) -> str | None:
    """Return the id of a response that has failed, if the client gets to know it."""
    if mode == "one-shot":
        with pytest.raises(openai.InternalServerError):
            await responses.create(model="m", **body)
        return None
    if mode == "streamed":
        events = [event async for event in await responses.create(model="m", stream=True, **body)]
        assert events[-1].type == "response.failed"
        return str(events[-1].response.id)
    response = await ended(responses, await responses.create(model="m", background=True, **body))
    assert response.status == "failed"
    return str(response.id)


class Secretary(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """A model that wants to send a mail to everybody whom the user names, and says `done` when it knows the results."""

    def _inner_get_response(self, *, messages: Sequence[Message], stream: bool, **kwargs: Any) -> Any:
        del kwargs
        last = messages[-1]
        results = [str(content.result) for content in last.contents if content.type == "function_result"]
        if "sent to crash" in results:
            raise RuntimeError("secret reason")
        if results:
            contents = [Content.from_text("done")]
        else:
            contents = [
                Content.from_function_call(f"call_{to}", "send_mail", arguments=json.dumps({"to": to}))
                for to in last.text.split()
                if to != "hello"
            ] or [Content.from_text("hello")]

        async def updates() -> AsyncGenerator[ChatResponseUpdate, None]:
            yield ChatResponseUpdate(contents=contents, role="assistant")

        async def response() -> ChatResponse[Any]:
            return ChatResponse.from_updates([update async for update in updates()])

        return self._build_response_stream(updates()) if stream else response()


class Mailer:
    """Makes agents, or workflows with one, whose tool needs an approval. `sent` is what the tool has done."""

    def __init__(self, kind: str) -> None:
        self.sent: list[str] = []
        self._kind = kind

    @property
    def target(self) -> Any:
        """What a host is given."""
        return self._workflow if self._kind == "workflow" else self._agent()

    def _agent(self) -> Agent[Any]:
        @tool(approval_mode="always_require")
        async def send_mail(to: str) -> str:
            """Send a mail."""
            self.sent.append(to)
            await asyncio.sleep(0)
            return f"sent to {to}"

        return Agent(client=Secretary(), tools=[send_mail], name="mailer")

    def _workflow(self) -> Workflow:
        return WorkflowBuilder(start_executor=AgentExecutor(self._agent()), name="mailer").build()


def approvals_of(response: Any) -> list[Any]:
    return [item for item in response.output if item.type == "mcp_approval_request"]


def approval(asked: Any, *, approve: bool = True) -> Any:
    return {"type": "mcp_approval_response", "approval_request_id": asked.id, "approve": approve}


KINDS = pytest.mark.parametrize("kind", ["agent", "workflow"])


@pytest.mark.behaviour("F4", "F5", "E1")
@pytest.mark.usefixtures("on_every_store")
@pytest.mark.parametrize("kind", ["agent", "workflow"])
async def test_what_is_no_approval_of_an_open_request_is_refused_and_no_tool_runs(kind: str) -> None:
    ada, bob = ({"x-agent-user-isolation-key": name} for name in ("ada", "bob"))
    mailer = Mailer(kind)
    async with hosted(mailer.target, trust_isolation_headers=True) as responses:
        asked = await responses.create(model="m", input="bob", extra_headers=ada)
        (question,) = approvals_of(asked)
        foreign = await responses.create(model="m", input="bob", extra_headers=bob)
        given = approval(question)
        inputs: list[Any] = [
            [{**given, "approval_request_id": "mcpr_forged"}],
            [{**given, "approval_request_id": 7}],
            [{**given, "approve": "yes"}],
            [{**given, "approve": None}],
            [{**given, "reason": 7}],
            [{"type": "function_call_output", "call_id": question.id, "output": "true"}],
            [given, given],
            [given, {**given, "approve": False}],
            [approval(approvals_of(foreign)[0])],
        ]
        for items in inputs:
            await refusal(responses.create, input=items, previous_response_id=asked.id, extra_headers=ada)
        for previous in (asked.id, foreign.id, None):
            body: Any = {"input": [given], "previous_response_id": previous}
            await refusal(responses.create, extra_headers=bob, **body)
        await refusal(responses.create, input=[question.model_dump(), given], extra_headers=ada)
        assert mailer.sent == []
        with_reason: Any = [{**given, "reason": "go on"}]
        done = await responses.create(model="m", input=with_reason, previous_response_id=asked.id, extra_headers=ada)

    assert done.output_text == "done"
    assert mailer.sent == ["bob"]


@pytest.mark.behaviour("F5", "A2")
@pytest.mark.usefixtures("on_every_store")
async def test_an_agent_that_went_on_elsewhere_can_be_given_the_approval_on_one_branch() -> None:
    mailer = Mailer("agent")
    async with hosted(mailer.target) as responses:
        asked = await responses.create(model="m", input="bob")
        (question,) = approvals_of(asked)
        elsewhere = await responses.create(model="m", input="hello", previous_response_id=asked.id)
        done = await responses.create(model="m", input=[approval(question)], previous_response_id=asked.id)
        again = await refusal(responses.create, input=[approval(question)], previous_response_id=elsewhere.id)

    assert (elsewhere.output_text, done.output_text) == ("hello", "done")
    assert "already been answered" in again
    assert mailer.sent == ["bob"]


@KINDS
@pytest.mark.behaviour("F5")
@pytest.mark.usefixtures("on_every_store")
async def test_an_approval_that_is_sent_again_runs_the_tool_once(kind: str) -> None:
    mailer = Mailer(kind)
    async with hosted(mailer.target) as responses:
        asked = await responses.create(model="m", input="bob")
        (question,) = approvals_of(asked)
        assert mailer.sent == []
        body: Any = {"input": [approval(question)], "previous_response_id": asked.id}
        done = await responses.create(model="m", **body)
        messages = [
            await refusal(responses.create, **body),
            await refusal(responses.create, store=False, **body),
            await refusal(responses.create, background=True, **body),
            await refusal(responses.create, **{**body, "previous_response_id": done.id}),
            await refusal(responses.create, **{**body, "input": [approval(question, approve=False)]}),
        ]
        after = await responses.create(model="m", input="hello", previous_response_id=done.id)

    assert (question.name, json.loads(question.arguments)) == ("send_mail", {"to": "bob"})
    assert done.output_text == "done"
    assert all("already been answered" in message for message in messages)
    assert approvals_of(after) == []
    assert mailer.sent == ["bob"]


@pytest.mark.behaviour("F5")
@pytest.mark.usefixtures("on_every_store")
async def test_what_is_asked_again_after_half_of_the_answers_runs_no_tool_twice() -> None:
    mailer = Mailer("agent")
    async with hosted(mailer.target) as responses:
        asked = await responses.create(model="m", input="bob eve")
        bob, eve = approvals_of(asked)
        talk = await responses.create(model="m", input="hello", previous_response_id=asked.id)
        (half_body, *others) = [
            {"input": [approval(one)], "previous_response_id": place.id}
            for one in (bob, eve)
            for place in (asked, talk)
        ]
        half = await responses.create(model="m", **half_body)
        (eve_again,) = approvals_of(half)
        branch = await responses.create(model="m", input="hello", previous_response_id=half.id)
        (eve_in_branch,) = approvals_of(branch)
        siblings = [await refusal(responses.create, **body) for body in others]
        at_half: Any = {"previous_response_id": half.id}
        outdated = [
            await refusal(responses.create, input=[approval(eve)], **at_half),
            await refusal(responses.create, input=[approval(eve), approval(eve_again)], **at_half),
        ]
        assert mailer.sent == []
        done = await responses.create(model="m", input=[approval(eve_again)], **at_half)
        repeated = await refusal(responses.create, input=[approval(eve_again)], **at_half)
        siblings.append(
            await refusal(responses.create, input=[approval(eve_in_branch)], previous_response_id=branch.id)
        )
        outdated.append(await refusal(responses.create, input=[approval(eve)], previous_response_id=done.id))

    assert eve_again.id != eve.id
    assert done.output_text == "done"
    assert all("already been answered" in message for message in (*siblings, repeated))
    assert all("has been asked again" in message and eve_again.id in message for message in outdated)
    assert sorted(mailer.sent) == ["bob", "eve"]


@pytest.mark.behaviour("F5")
@pytest.mark.usefixtures("on_every_store")
@pytest.mark.parametrize("second", ["bob", "eve"])
async def test_an_approval_is_refused_when_the_agent_has_asked_for_others_since(second: str) -> None:
    mailer = Mailer("agent")
    async with live.serve(host_of(mailer.target).app) as served:
        responses = served.client.responses
        for is_conversation in (False, True):
            mailer.sent.clear()
            conversation = (await served.client.conversations.create()).id if is_conversation else None
            first = await responses.create(model="m", input="bob", conversation=conversation)
            place: Any = {"conversation": conversation} if conversation else {"previous_response_id": first.id}
            newer = await responses.create(model="m", input=second, **place)
            place = place if conversation else {"previous_response_id": newer.id}
            old, new = approvals_of(first)[0], approvals_of(newer)[0]
            late = await refusal(responses.create, input=[approval(old)], **place)
            both = await refusal(responses.create, input=[approval(new), approval(old)], **place)
            done = await responses.create(model="m", input=[approval(new)], **place)

            assert (done.output_text, mailer.sent) == ("done", [second])
            assert late == both
            assert "any more" in late


@pytest.mark.behaviour("F5")
@pytest.mark.usefixtures("on_every_store")
async def test_what_was_half_approved_in_a_run_that_failed_is_not_done_again() -> None:
    mailer = Mailer("agent")
    async with hosted(mailer.target) as responses:
        asked = await responses.create(model="m", input="bob crash")
        bob, _ = approvals_of(asked)
        half = await responses.create(model="m", input=[approval(bob)], previous_response_id=asked.id)
        (crash,) = approvals_of(half)
        failed = await failed_run(responses, "streamed", input=[approval(crash)], previous_response_id=half.id)
        after = await responses.create(model="m", input="hello", previous_response_id=failed)
        (crash_again,) = approvals_of(after)
        message = await refusal(responses.create, input=[approval(crash_again)], previous_response_id=after.id)

    assert "already been answered" in message
    assert sorted(mailer.sent) == ["bob", "crash"]


@pytest.mark.behaviour("F5")
@pytest.mark.usefixtures("on_every_store")
async def test_an_agent_may_ask_for_another_approval_under_the_id_that_was_answered() -> None:
    question = Content.from_function_approval_request("sure?", Content.from_function_call("call_0", "act"))
    async with hosted(ScriptedAgent([question], [question], ["done"])) as responses:
        first = await responses.create(model="m", input="hello")
        given: Any = {"input": [approval(first.output[0])], "previous_response_id": first.id}
        second = await responses.create(model="m", **given)
        again = await refusal(responses.create, **given)
        third = await responses.create(model="m", input=[approval(second.output[0])], previous_response_id=second.id)

    assert third.output_text == "done"
    assert "already been answered" in again


@pytest.mark.behaviour("F5")
@pytest.mark.usefixtures("on_every_store")
async def test_approvals_beside_calls_for_the_client_may_come_one_after_the_other() -> None:
    sent: list[str] = []

    @tool(approval_mode="always_require")
    def send_mail(to: str) -> str:
        """Send a mail."""
        sent.append(to)
        return "sent"

    lookup = FunctionTool(name="lookup", description="Look up.", func=None, input_model={"type": "object"})
    calls = [
        Content.from_function_call("call_bob", "send_mail", arguments='{"to": "bob"}'),
        Content.from_function_call("call_eve", "send_mail", arguments='{"to": "eve"}'),
        Content.from_function_call("call_x", "lookup", arguments="{}"),
    ]
    model = ScriptedChatClient(calls, ["done"])
    async with hosted(Agent(client=model, tools=[send_mail, lookup], name="mailer")) as responses:
        asked = await responses.create(model="m", input="hello")
        bob, eve = approvals_of(asked)
        (call,) = calls_of(asked)
        first: Any = {"input": [answer(call, "x"), approval(bob)], "previous_response_id": asked.id}
        half = await responses.create(model="m", **first)
        sibling: Any = [answer(call, "x"), approval(eve)]
        other = await refusal(responses.create, input=sibling, previous_response_id=asked.id)
        assert (half.output, sent) == ([], [])
        done = await responses.create(model="m", input=[approval(eve)], previous_response_id=half.id)
        again = await refusal(responses.create, input=[approval(eve)], previous_response_id=half.id)

    assert all("already been answered" in message for message in (other, again))
    assert done.output_text == "done"
    assert sorted(sent) == ["bob", "eve"]


@KINDS
@pytest.mark.behaviour("F5")
async def test_an_approval_that_repeats_its_request_instead_of_continuing_it_is_refused_and_says_why(kind: str) -> None:
    mailer = Mailer(kind)
    async with hosted(mailer.target) as responses:
        asked = await responses.create(model="m", input="bob")
        (question,) = approvals_of(asked)
        history = [{"role": "user", "content": "bob"}, question.model_dump(exclude_none=True), approval(question)]
        message = await refusal(responses.create, input=history)

    assert question.id in message
    assert "previous_response_id" in message
    assert mailer.sent == []


@KINDS
@pytest.mark.behaviour("F5")
@pytest.mark.usefixtures("on_every_store")
async def test_a_tool_that_is_refused_does_not_run(kind: str) -> None:
    mailer = Mailer(kind)
    async with hosted(mailer.target) as responses:
        asked = await responses.create(model="m", input="bob")
        (question,) = approvals_of(asked)
        done = await responses.create(
            model="m", input=[approval(question, approve=False)], previous_response_id=asked.id
        )

    assert done.status == "completed"
    assert mailer.sent == []


@KINDS
@pytest.mark.behaviour("F5")
async def test_an_approval_that_two_send_at_the_same_moment_runs_the_tool_once(kind: str, durable_state: State) -> None:
    mailer = Mailer(kind)
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(hosted(mailer.target, **durable_state.options))]
        if durable_state.kind == "postgres":
            hosts.append(await stack.enter_async_context(hosted(mailer.target, **durable_state.options)))
        for _ in range(3):
            mailer.sent.clear()
            asked = await hosts[0].create(model="m", input="bob")
            (question,) = approvals_of(asked)
            results = await asyncio.gather(
                *(
                    host.create(model="m", input=[approval(question)], previous_response_id=asked.id)
                    for _ in range(3)
                    for host in hosts
                ),
                return_exceptions=True,
            )

            refused = [result for result in results if isinstance(result, openai.BadRequestError)]
            assert len(refused) == len(results) - 1
            assert mailer.sent == ["bob"]


@KINDS
@pytest.mark.behaviour("F5")
async def test_an_approval_survives_a_restart_and_is_used_up_after_another(kind: str, durable_state: State) -> None:
    mailer = Mailer(kind)
    async with hosted(mailer.target, **durable_state.options) as responses:
        asked = await responses.create(model="m", input="bob")
    (question,) = approvals_of(asked)
    body: Any = {"input": [approval(question)], "previous_response_id": asked.id}
    async with hosted(mailer.target, **durable_state.options) as responses:
        done = await responses.create(model="m", **body)
    async with hosted(mailer.target, **durable_state.options) as responses:
        again = await refusal(responses.create, **body)

    assert done.output_text == "done"
    assert "already been answered" in again
    assert mailer.sent == ["bob"]


@pytest.mark.behaviour("F3")
@pytest.mark.usefixtures("on_every_store")
async def test_an_agent_in_a_workflow_goes_on_when_all_its_approvals_are_there() -> None:
    mailer = Mailer("workflow")
    async with hosted(mailer.target) as responses:
        asked = await responses.create(model="m", input="bob eve")
        first, second = approvals_of(asked)
        waits = await responses.create(model="m", input=[approval(second)], previous_response_id=asked.id)
        assert (waits.output, mailer.sent) == ([], [])
        assert first.id in await refusal(responses.create, input="hello", previous_response_id=waits.id)
        done = await responses.create(model="m", input=[approval(first, approve=False)], previous_response_id=waits.id)

    assert done.output_text == "done"
    assert mailer.sent == ["eve"]


@pytest.mark.behaviour("F5")
@pytest.mark.usefixtures("on_every_store")
async def test_an_approval_whose_run_failed_is_used_up_and_the_agent_can_be_asked_again() -> None:
    mailer = Mailer("agent")
    async with hosted(mailer.target) as responses:
        asked = await responses.create(model="m", input="crash")
        (question,) = approvals_of(asked)
        body: Any = {"input": [approval(question)], "previous_response_id": asked.id}
        failed = await failed_run(responses, "streamed", **body)
        assert mailer.sent == ["crash"]
        messages = [
            await refusal(responses.create, **body),
            await refusal(responses.create, **{**body, "previous_response_id": failed}),
        ]
        # What was approved in the turn that failed is not approved now.
        after = await responses.create(model="m", input="hello", previous_response_id=failed)
        assert (after.output_text, mailer.sent) == ("hello", ["crash"])
        again = await responses.create(model="m", input="bob", previous_response_id=failed)
        (second,) = approvals_of(again)
        done = await responses.create(model="m", input=[approval(second)], previous_response_id=again.id)

    assert all("already been answered" in message for message in messages)
    assert done.output_text == "done"
    assert mailer.sent == ["crash", "bob"]
