"""The builders of `agent-framework-orchestrations` behind the Responses API: what several agents make together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import live
import openai
import pytest
import wire
from agent_framework import (
    Agent,
    AgentContext,
    AgentResponseUpdate,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    ContextProvider,
    FunctionInvocationLayer,
    Message,
    tool,
)
from agent_framework_orchestrations import (
    ConcurrentBuilder,
    GroupChatBuilder,
    HandoffBuilder,
    MagenticBuilder,
    MagenticContext,
    MagenticManagerBase,
    MagenticProgressLedger,
    MagenticProgressLedgerItem,
    SequentialBuilder,
)
from states import State

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.targets.workflow import WorkflowTarget
from agent_framework_hosting_responses import ResponsesChannel

Said = Sequence[str | Content]


class Speaker(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """A model that says what a function makes of what it is sent, in pieces: many chains use it in any order."""

    def __init__(self, says: Callable[[list[Message]], Said]) -> None:
        super().__init__()
        self._says = says

    def _inner_get_response(self, *, messages: Sequence[Message], stream: bool, **kwargs: Any) -> Any:
        del kwargs
        said = [Content.from_text(one) if isinstance(one, str) else one for one in self._says(list(messages))]

        async def updates() -> AsyncGenerator[ChatResponseUpdate, None]:
            for content in said:
                await asyncio.sleep(0)
                yield ChatResponseUpdate(contents=[content], role="assistant")

        async def response() -> ChatResponse[Any]:
            return ChatResponse.from_updates([update async for update in updates()])

        return self._build_response_stream(updates()) if stream else response()


def heard_from_user(messages: Sequence[Message]) -> str:
    """Return what the user has said in the conversation."""
    return "+".join(m.text for m in messages if m.role == "user" and m.author_name is None and m.text)


def speaker(name: str, says: Callable[[list[Message]], Said] | None = None, **options: Any) -> Agent[Any]:
    """Return an agent that says its name and all that the user has said."""
    client = Speaker(says or (lambda messages: [f"{name}:", heard_from_user(messages)]))
    return Agent(client=client, name=name, description=name, **options)


def looks_up(messages: list[Message]) -> Said:
    """Use a tool before saying anything."""
    if any(content.type == "function_result" for content in messages[-1].contents):
        return ["draft"]
    return [Content.from_function_call("call_1", "look_up", arguments="{}")]


def sequential() -> SequentialBuilder:
    @tool(approval_mode="never_require")
    def look_up() -> str:
        """Look something up."""
        return "found"

    return SequentialBuilder(participants=[speaker("writer", looks_up, tools=[look_up]), speaker("editor")])


def concurrent() -> ConcurrentBuilder:
    return ConcurrentBuilder(participants=[speaker("optimist"), speaker("pessimist")])


def aggregated() -> ConcurrentBuilder:
    return concurrent().with_aggregator(lambda results: " / ".join(one.agent_response.text for one in results))


def group_chat(**options: Any) -> GroupChatBuilder:
    return GroupChatBuilder(
        participants=[speaker("alice"), speaker("bob")],
        selection_func=lambda state: "bob" if last_author(state.conversation) == "alice" else "alice",
        # Not `max_rounds`: it counts the rounds of all turns of a conversation.
        termination_condition=lambda conversation: last_author(conversation) == "bob",
        **options,
    )


def group_chat_with_all() -> GroupChatBuilder:
    return group_chat(output_from=["alice", "bob"])


def last_author(conversation: Sequence[Message]) -> str | None:
    return conversation[-1].author_name if conversation else None


def led_group_chat() -> GroupChatBuilder:
    def decides(messages: list[Message]) -> Said:
        texts = [message.text for message in messages]
        last = max(index for index, text in enumerate(texts) if text.startswith("Decide"))
        is_said = texts[last - 1].startswith("alice:")
        decision = {
            "terminate": is_said,
            "reason": "-",
            "next_speaker": "alice",
            "final_message": f"so {texts[last - 1]}",
        }
        return [json.dumps(decision)]

    return GroupChatBuilder(
        participants=[speaker("alice"), speaker("bob")], orchestrator_agent=speaker("boss", decides)
    )


class Manager(MagenticManagerBase):
    """Has one agent speak, and repeats what it said."""

    async def plan(self, magentic_context: MagenticContext) -> Message:
        return Message("assistant", ["ask alice"], author_name="manager")

    async def replan(self, magentic_context: MagenticContext) -> Message:
        return await self.plan(magentic_context)

    async def create_progress_ledger(self, magentic_context: MagenticContext) -> MagenticProgressLedger:
        is_said = last_author(magentic_context.chat_history) == "alice"
        yes, no = (MagenticProgressLedgerItem("-", answer) for answer in (True, False))
        return MagenticProgressLedger(
            is_request_satisfied=yes if is_said else no,
            is_in_loop=no,
            is_progress_being_made=yes,
            next_speaker=MagenticProgressLedgerItem("-", "alice"),
            instruction_or_question=MagenticProgressLedgerItem("-", heard_from_user(magentic_context.chat_history)),
        )

    async def prepare_final_answer(self, magentic_context: MagenticContext) -> Message:
        return Message("assistant", [f"so {magentic_context.chat_history[-1].text}"], author_name="manager")


def magentic() -> MagenticBuilder:
    return MagenticBuilder(participants=[speaker("alice")], manager=Manager())


# What the framework says when nobody sums up.
ENDED = "The group chat has reached its termination condition."

ALL: dict[str, tuple[Callable[[], Any], Callable[[str], list[str]]]] = {
    "sequential": (sequential, lambda heard: [f"editor:{heard}"]),
    "concurrent": (concurrent, lambda heard: [f"optimist:{heard}", f"pessimist:{heard}"]),
    "aggregated": (aggregated, lambda heard: [f"optimist:{heard} / pessimist:{heard}"]),
    "group chat": (group_chat_with_all, lambda heard: [f"alice:{heard}", f"bob:{heard}", ENDED]),
    "led group chat": (led_group_chat, lambda heard: [f"so alice:{heard}"]),
}
"""Builder, and the messages of its answer by what the user has said in the conversation."""

EACH = pytest.mark.parametrize("kind", ALL)


@asynccontextmanager
async def hosted(target: Any, **options: Any) -> AsyncGenerator[Any, None]:
    host = AgentFrameworkHost(target, channels=[ResponsesChannel()], **options)
    async with live.serve(host.app) as served:
        yield served


def messages_of(response: Any) -> list[str]:
    return ["".join(part.text for part in item.content) for item in response.output if item.type == "message"]


def calls_of(response: Any) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


def answered(response: Any, text: str) -> Any:
    """Return the arguments that answer everything that is asked."""
    calls = calls_of(response)
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": text} for call in calls]
    return {"model": "m", "input": outputs, "previous_response_id": response.id}


@EACH
@pytest.mark.behaviour("A2", "F1", "F7")
async def test_each_orchestration_has_turns_branches_and_many_chains_at_once(kind: str) -> None:
    build, says = ALL[kind]

    async def chain(name: str) -> list[list[str]]:
        first = await create(model="m", input=name)
        second = await create(model="m", input="more", previous_response_id=first.id)
        branch = await create(model="m", input="other", previous_response_id=first.id)
        return [messages_of(response) for response in (first, second, branch)]

    async with hosted(build()) as served:
        create = served.client.responses.create
        names = ["ann", "bob", "eve"]
        chains = await asyncio.gather(*map(chain, names))

    assert chains == [[says(name), says(f"{name}+more"), says(f"{name}+other")] for name in names]


@EACH
@pytest.mark.behaviour("A1", "A2", "F1")
async def test_each_orchestration_goes_on_after_a_restart(kind: str, durable_state: State) -> None:
    build, says = ALL[kind]
    async with hosted(build(), **durable_state.options) as served:
        first = await served.client.responses.create(model="m", input="one")
    async with hosted(build(), **durable_state.options) as served:
        create = served.client.responses.create
        second = await create(model="m", input="two", previous_response_id=first.id)
        branch = await create(model="m", input="other", previous_response_id=first.id)

    assert messages_of(second) == says("one+two")
    assert messages_of(branch) == says("one+other")


@EACH
@pytest.mark.behaviour("B1", "F7")
async def test_each_orchestration_streams_what_it_answers_one_shot(kind: str) -> None:
    build, says = ALL[kind]
    async with hosted(build()) as served:
        raw = await served.http.post("/responses", json={"input": "one", "stream": True})
        async with served.client.responses.stream(model="m", input="one") as stream:
            final = await stream.get_final_response()

    events = wire.parse_sse(raw.content)
    wire.check_stream(events)
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "".join(says("one"))
    assert messages_of(final) == says("one")


@pytest.mark.behaviour("F7")
async def test_what_others_say_on_the_way_is_commentary_if_the_operator_shows_it() -> None:
    builder = SequentialBuilder(
        participants=[speaker("writer"), speaker("editor")],
        output_from=["editor"],
        intermediate_output_from="all_other",
    )
    async with hosted(WorkflowTarget(builder, intermediate_outputs="commentary")) as served:
        said = await served.client.responses.create(model="m", input="one")

    assert messages_of(said) == ["writer:one", "editor:one"]
    assert [item.phase for item in said.output] == ["commentary", None]


async def test_the_notice_with_which_a_group_chat_ends_can_be_left_out() -> None:
    def without_notice(update: AgentResponseUpdate) -> AgentResponseUpdate | None:
        return None if update.author_name == "moderator" else update

    channel = ResponsesChannel(stream_update_hook=without_notice)
    host = AgentFrameworkHost(
        group_chat(output_from=["alice", "bob"], orchestrator_name="moderator"), channels=[channel]
    )
    async with live.serve(host.app) as served:
        said = await served.client.responses.create(model="m", input="one")

    assert messages_of(said) == ["alice:one", "bob:one"]


async def test_what_the_framework_does_not_begin_anew_in_a_second_turn_is_as_documented() -> None:
    two_rounds = GroupChatBuilder(
        participants=[speaker("alice"), speaker("bob")],
        selection_func=lambda state: "bob" if last_author(state.conversation) == "alice" else "alice",
        max_rounds=2,
        output_from=["alice", "bob"],
    )
    async with hosted(two_rounds) as served:
        create = served.client.responses.create
        first = await create(model="m", input="one")
        second = await create(model="m", input="two", previous_response_id=first.id)
    async with hosted(magentic()) as served:
        create = served.client.responses.create
        done = await create(model="m", input="one")
        with pytest.raises(openai.InternalServerError):
            await create(model="m", input="two", previous_response_id=done.id)

    assert [text.partition(":")[0] for text in messages_of(first)[:-1]] == ["alice", "bob"]
    assert [text.partition(":")[0] for text in messages_of(second)[:-1]] == ["alice"]
    assert messages_of(done) == ["so alice:one"]


# --- Handoff -----------------------------------------------------------------------------------------------------


def handoff() -> HandoffBuilder:
    """Begin with `triage`, which hands off to `refunds` when it hears of one, which says so until it hears `bye`."""

    def triages(messages: list[Message]) -> Said:
        if "refund" not in messages[-1].text:
            return ["triage:", heard_from_user(messages)]
        return ["one moment", Content.from_function_call("call_1", "handoff_to_refunds", arguments="{}")]

    options: dict[str, Any] = {"require_per_service_call_history_persistence": True}
    triage, refunds = speaker("triage", triages, **options), speaker("refunds", **options)
    builder = HandoffBuilder(name="help", participants=[triage, refunds])
    return builder.with_start_agent(triage).with_termination_condition(lambda said: said[-1].text.endswith("bye"))


FORMS = pytest.mark.parametrize(
    "target",
    [handoff, lambda: handoff().build(), lambda: lambda: handoff().build()],
    ids=["builder", "instance", "factory"],
)


@FORMS
@pytest.mark.behaviour("F1", "F3")
async def test_agents_hand_off_to_each_other_and_ask_the_user_in_every_chain(target: Callable[[], Any]) -> None:
    async def chain(name: str) -> list[list[str]]:
        first = await create(model="m", input=f"I am {name}")
        second = await create(**answered(first, f"refund {name}"))
        third = await create(**answered(second, "thanks"))
        end = await create(**answered(third, "bye"))
        after = await create(model="m", input="hello", previous_response_id=end.id)
        branch = await create(model="m", input="I am back", previous_response_id=end.id)
        assert [len(calls_of(one)) for one in (first, second, third, end, after, branch)] == [1, 1, 1, 0, 1, 1]
        return [messages_of(one) for one in (first, second, third, end, after)]

    async with hosted(target()) as served:
        create = served.client.responses.create
        names = ["ann", "bob", "eve"]
        chains = await asyncio.gather(*map(chain, names))

    assert chains == [
        [
            [f"triage:I am {name}"],
            ["one moment", f"refunds:I am {name}+refund {name}"],
            [f"refunds:I am {name}+refund {name}+thanks"],
            [],
            [f"triage:I am {name}+refund {name}+thanks+bye+hello"],
        ]
        for name in names
    ]


@pytest.mark.behaviour("F3", "F4")
async def test_whom_a_handoff_waits_for_answers_after_a_restart(durable_state: State) -> None:
    async with hosted(handoff(), **durable_state.options) as served:
        asked = await served.client.responses.create(model="m", input="I am ann")
    async with hosted(handoff(), **durable_state.options) as served:
        create = served.client.responses.create
        with pytest.raises(openai.BadRequestError):
            await create(model="m", input="refund", previous_response_id=asked.id)
        moved = await create(**answered(asked, "refund"))
    async with hosted(handoff(), **durable_state.options) as served:
        create = served.client.responses.create
        async with served.client.responses.stream(**answered(moved, "thanks")) as stream:
            thanked = await stream.get_final_response()

    (call,) = calls_of(asked)
    assert (call.name, json.loads(call.arguments)["request"]) == (
        "HandoffAgentUserRequest",
        {"agent_response": "triage:I am ann"},
    )
    assert messages_of(moved)[-1] == "refunds:I am ann+refund"
    assert messages_of(thanked) == ["refunds:I am ann+refund+thanks"]


# --- People who look over what agents say ------------------------------------------------------------------------


REVIEWED: dict[str, tuple[Callable[[], Any], list[int], list[str]]] = {
    "sequential": (lambda: sequential().with_request_info(), [1, 1, 0], ["editor:one"]),
    "concurrent": (lambda: concurrent().with_request_info(), [2, 0], ["optimist:one", "pessimist:one"]),
    "group chat": (lambda: group_chat().with_request_info(), [1, 1, 0], []),
}
"""Builder, how many are asked in each turn, and the end of the answer."""


@pytest.mark.behaviour("F3")
@pytest.mark.parametrize("kind", REVIEWED)
async def test_what_each_agent_says_is_looked_over_before_it_counts(kind: str, durable_state: State) -> None:
    build, asked, says = REVIEWED[kind]
    approved = '{"messages": []}'
    async with hosted(build(), **durable_state.options) as served:
        responses = [await served.client.responses.create(model="m", input="one")]
    async with hosted(build(), **durable_state.options) as served:
        while calls_of(responses[-1]):
            responses.append(await served.client.responses.create(**answered(responses[-1], approved)))

    assert [len(calls_of(response)) for response in responses] == asked
    assert messages_of(responses[-1])[: len(says)] == says


@pytest.mark.behaviour("F3")
async def test_an_agent_that_is_told_more_speaks_again() -> None:
    async with hosted(concurrent().with_request_info(agents=["optimist"])) as served:
        create = served.client.responses.create
        first = await create(model="m", input="one")
        second = await create(**answered(first, "shorter, please"))
        third = await create(**answered(second, '{"messages": []}'))

    (call,) = calls_of(first)
    shown = json.loads(call.arguments)["request"]
    assert (shown["executor_id"], shown["agent_response"]) == ("optimist", "optimist:one")
    assert json.loads(calls_of(second)[0].arguments)["request"]["agent_response"] == "optimist:one+shorter, please"
    assert messages_of(third) == ["optimist:one+shorter, please", "pessimist:one"]


@pytest.mark.behaviour("F3")
async def test_a_person_changes_and_approves_the_plan_of_a_magentic_manager(durable_state: State) -> None:
    async with hosted(magentic().with_plan_review(), **durable_state.options) as served:
        asked = await served.client.responses.create(model="m", input="one")
    async with hosted(magentic().with_plan_review(), **durable_state.options) as served:
        again = await served.client.responses.create(**answered(asked, "ask twice"))
        done = await served.client.responses.create(**answered(again, '{"review": []}'))

    plans = [json.loads(calls_of(response)[0].arguments)["request"]["plan"] for response in (asked, again)]
    assert all("ask alice" in plan for plan in plans)
    assert messages_of(done) == ["so alice:one+ask twice"]


# --- Approvals ---------------------------------------------------------------------------------------------------


class Mailer:
    """Makes orchestrations in which one agent wants to send a mail, which needs an approval. `sent` is what it did."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def agent(self, name: str, **options: Any) -> Agent[Any]:
        @tool(approval_mode="always_require")
        def send_mail() -> str:
            """Send a mail."""
            self.sent.append(name)
            return "sent"

        def says(messages: list[Message]) -> Said:
            if any(content.type == "function_result" for content in messages[-1].contents):
                return [f"{name} sent"]
            return [Content.from_function_call(f"call_{name}", "send_mail", arguments="{}")]

        return speaker(name, says, tools=[send_mail], **options)

    def sequential(self) -> SequentialBuilder:
        return SequentialBuilder(participants=[speaker("writer"), self.agent("mailer")])

    def concurrent(self) -> ConcurrentBuilder:
        return ConcurrentBuilder(participants=[speaker("writer"), self.agent("mailer")])

    def group_chat(self) -> GroupChatBuilder:
        return GroupChatBuilder(
            participants=[self.agent("mailer")],
            selection_func=lambda _: "mailer",
            termination_condition=lambda conversation: last_author(conversation) == "mailer",
            output_from=["mailer"],
        )

    def handoff(self) -> HandoffBuilder:
        options: dict[str, Any] = {
            "require_per_service_call_history_persistence": True,
            "context_providers": [ContextProvider("own")],
        }
        handing = Content.from_function_call("call_1", "handoff_to_mailer", arguments="{}")
        triage = speaker("triage", lambda _: [handing], **options)
        return HandoffBuilder(participants=[triage, self.agent("mailer", **options)]).with_start_agent(triage)

    def magentic(self) -> MagenticBuilder:
        return MagenticBuilder(participants=[self.agent("alice")], manager=Manager())


@pytest.mark.behaviour("F3", "F5")
@pytest.mark.parametrize("kind", ["sequential", "concurrent", "group_chat", "handoff", "magentic"])
async def test_a_tool_of_a_participant_waits_for_its_approval_over_a_restart(kind: str, durable_state: State) -> None:
    mailer = Mailer()
    build = getattr(mailer, kind)
    async with hosted(build(), **durable_state.options) as served:
        asked = await served.client.responses.create(model="m", input="write")
    (question,) = [item for item in asked.output if item.type == "mcp_approval_request"]
    assert mailer.sent == []
    approval: Any = {"type": "mcp_approval_response", "approval_request_id": question.id, "approve": True}
    body: Any = {"model": "m", "input": [approval], "previous_response_id": asked.id}
    async with hosted(build(), **durable_state.options) as served:
        done = await served.client.responses.create(**body)
        with pytest.raises(openai.BadRequestError, match="already been answered"):
            await served.client.responses.create(**body)

    assert len(mailer.sent) == 1
    assert any(text.endswith("sent") for text in messages_of(done))


# --- Processes that stop -----------------------------------------------------------------------------------------


@pytest.mark.behaviour("F8")
@pytest.mark.parametrize("kind", ["sequential", "group chat"])
async def test_an_orchestration_goes_on_where_its_process_has_stopped(kind: str, durable_state: State) -> None:
    spoken: list[str] = []
    reached = asyncio.Event()

    def participant(name: str, *, is_slow: bool = False) -> Agent[Any]:
        def says(messages: list[Message]) -> Said:
            spoken.append(name)
            return [f"{name}:", heard_from_user(messages)]

        async def wait_once(context: AgentContext, call_next: Callable[[], Awaitable[None]]) -> None:
            del context
            if not reached.is_set():
                reached.set()
                await asyncio.Event().wait()
            await call_next()

        return speaker(name, says, middleware=[wait_once] if is_slow else [])

    def build() -> Any:
        first, last = participant("first"), participant("last", is_slow=True)
        if kind == "sequential":
            return SequentialBuilder(participants=[first, last])
        return GroupChatBuilder(
            participants=[first, last],
            selection_func=lambda state: "last" if last_author(state.conversation) == "first" else "first",
            termination_condition=lambda conversation: last_author(conversation) == "last",
            output_from=["last"],
        )

    async with hosted(build(), shutdown_grace=0, **durable_state.options) as served:
        begun = await served.client.responses.create(model="m", input="one", background=True)
        await asyncio.wait_for(reached.wait(), 60)
    async with hosted(build(), **durable_state.options) as served:
        async with asyncio.timeout(60):
            events = [event async for event in await served.client.responses.retrieve(begun.id, stream=True)]
        after = await served.client.responses.create(model="m", input="two", previous_response_id=begun.id)

    assert events[-1].type == "response.completed"
    assert messages_of(events[-1].response)[0] == "last:one"
    assert messages_of(after)[0] == "last:one+two"
    # The participant that had spoken does not speak again for the first turn.
    assert spoken == ["first", "last", "first", "last"]
