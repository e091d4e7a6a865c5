"""Functional workflows as targets: state per run, conversations, questions, and runs that are lost half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import pytest
from agent_framework import (
    AgentResponse,
    AgentResponseUpdate,
    AgentSession,
    FunctionalWorkflow,
    FunctionalWorkflowDefinition,
    InMemoryCheckpointStorage,
    Message,
    RunContext,
    WorkflowEvent,
    step,
    workflow,
)

from agent_framework_hosting.checkpoints import Checkpoints, MemoryCheckpoints
from agent_framework_hosting.errors import ConfigurationError, TargetError
from agent_framework_hosting.isolation import SHARED, IsolationKeys, Partition
from agent_framework_hosting.targets.base import HostedRun, Resumption, TargetInput
from agent_framework_hosting.targets.turn import SESSION_STATE_KEY
from agent_framework_hosting.targets.workflow import WorkflowTarget

ALICE = IsolationKeys(user_key="alice").partition


# Not in closures, which would count as part of the workflow: steps with a changeable one cannot be replayed.
EXECUTED: list[str] = []
SWITCHES: set[str] = set()


@pytest.fixture(autouse=True)
def nothing_executed() -> None:
    EXECUTED.clear()
    SWITCHES.clear()


class Death(Exception):  # noqa: N818  nothing went wrong
    """What a step raises in whose middle the process dies."""


async def run(
    target: WorkflowTarget,
    given: object,
    session: AgentSession | None = None,
    *,
    partition: Partition = SHARED,
    answers: Mapping[str, object] | None = None,
) -> AgentResponse[Any]:
    messages = [Message("user", [given])] if isinstance(given, str) else given
    turn = TargetInput(messages=messages, session=session, partition=partition, answers=answers or {})
    async with aclosing(target.stream(turn)) as updates:
        return AgentResponse.from_updates([update async for update in updates])


async def say(target: WorkflowTarget, given: object, session: AgentSession | None = None, **options: Any) -> str:
    return (await run(target, given, session, **options)).text


def branch(session: AgentSession) -> AgentSession:
    return AgentSession.from_dict(session.to_dict())


def remembering() -> FunctionalWorkflowDefinition:
    """A workflow that puts out everything that it was told in its conversation."""

    @workflow(name="remembering")
    async def remember(text: str, ctx: RunContext) -> str:
        told = [*ctx.get_state("told", []), text]
        ctx.set_state("told", told)
        if text == "fail":
            raise ValueError("the secret of the function")
        return " ".join(told)

    return remember


# --- what is accepted


@pytest.mark.parametrize("source", [remembering(), remembering().build(), lambda: remembering().build()])
async def test_a_functional_workflow_is_a_target_with_its_name(source: Any) -> None:
    target = WorkflowTarget(source)

    assert (target.name, target.kind) == ("remembering", "workflow")
    assert isinstance(target.hosted, FunctionalWorkflow)
    assert [await say(target, text) for text in ("a", "b")] == ["a", "b"]


def test_one_with_a_checkpoint_storage_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'remembering' has a checkpoint storage of its own"):
        WorkflowTarget(remembering().build(checkpoint_storage=InMemoryCheckpointStorage()))


@pytest.mark.behaviour("F2")
async def test_runs_of_one_functional_workflow_go_on_at_the_same_time() -> None:
    meeting = asyncio.Barrier(3)

    @workflow
    async def meet(text: str) -> str:
        await asyncio.wait_for(meeting.wait(), 60)
        return f"met as {text}"

    target = WorkflowTarget(meet)
    answers = await asyncio.gather(*(say(target, name, AgentSession()) for name in ("ann", "bob", "eve")))

    assert answers == ["met as ann", "met as bob", "met as eve"]


# --- input


@pytest.mark.parametrize(
    ("kind", "taken"),
    [(str, "str: one\ntwo"), (Message, "Message: one two"), (list[Message], "list: 3"), (Any, "list: 3")],
)
async def test_input_takes_the_first_shape_that_the_function_accepts(kind: Any, taken: str) -> None:
    async def take(given: object) -> str:
        said = given.text if isinstance(given, Message) else len(given) if isinstance(given, list) else given
        return f"{type(given).__name__}: {said}"

    take.__annotations__["given"] = kind
    given = [Message("system", ["be kind"]), Message("user", ["one"]), Message("user", ["two"])]

    assert await say(WorkflowTarget(workflow(take)), given) == taken


async def test_a_function_without_a_message_gets_none() -> None:
    @workflow
    async def tick(ctx: RunContext) -> str:
        ctx.set_state("ticks", ctx.get_state("ticks", 0) + 1)
        return str(ctx.get_state("ticks"))

    target, session = WorkflowTarget(tick), AgentSession()

    assert [await say(target, "go on", session) for _ in range(3)] == ["1", "2", "3"]


async def test_input_that_fits_no_shape_fails_the_run_and_says_what_is_accepted() -> None:
    @workflow
    async def add(number: int) -> int:
        return number + 1

    with pytest.raises(TargetError) as failed:
        await say(WorkflowTarget(add), "one")

    assert "The workflow 'add' accepts int, not list" in str(failed.value.__cause__)
    assert await say(WorkflowTarget(add), 1) == "2"


# --- conversations


@pytest.mark.behaviour("A2", "F1")
async def test_chains_start_anew_are_continued_and_branched(checkpoints: Checkpoints) -> None:
    target, first, other = WorkflowTarget(remembering(), checkpoints=checkpoints), AgentSession(), AgentSession()

    answers = [await say(target, "one", first), await say(target, "uno", other)]
    aside = branch(first)
    answers += [await say(target, "two", first), await say(target, "x", aside), await say(target, "three", first)]

    assert answers == ["one", "uno", "one two", "one x", "one two three"]


@pytest.mark.behaviour("A5", "F1")
async def test_a_failed_turn_leaves_the_conversation_and_the_storage_as_they_were(checkpoints: Checkpoints) -> None:
    target, session = WorkflowTarget(remembering(), checkpoints=checkpoints), AgentSession()
    await say(target, "one", session)
    position = session.state[SESSION_STATE_KEY]
    with pytest.raises(TargetError):
        await say(target, "fail", branch(session))

    chain = checkpoints.chain(SHARED, position["chain"])
    kept = await chain.list_checkpoint_ids(workflow_name=position["chain"])

    assert kept == [position["checkpoint_id"]]
    assert await say(target, "two", session) == "one two"


@pytest.mark.behaviour("E1")
async def test_another_partition_does_not_find_the_conversation(checkpoints: Checkpoints) -> None:
    target, session = WorkflowTarget(remembering(), checkpoints=checkpoints), AgentSession()
    await say(target, "one", session, partition=ALICE)

    with pytest.raises(TargetError, match="is gone or unusable"):
        await say(target, "two", branch(session))
    assert await say(target, "two", session, partition=ALICE) == "one two"


async def test_without_a_session_nothing_is_kept() -> None:
    checkpoints = MemoryCheckpoints()

    assert await say(WorkflowTarget(remembering(), checkpoints=checkpoints), "one") == "one"
    assert len(checkpoints) == 0


@pytest.mark.behaviour("F6")
async def test_leaving_cancels_the_function_and_its_steps() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @step
    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    @workflow
    async def waiting(text: str) -> str:
        await wait()
        return text

    task = asyncio.create_task(say(WorkflowTarget(waiting), "one", AgentSession()))
    await asyncio.wait_for(begun.wait(), 60)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


# --- outputs


async def test_events_of_several_steps_are_all_put_out_in_their_order() -> None:
    @step
    async def tell(name: str, ctx: RunContext) -> str:
        await ctx.add_event(WorkflowEvent("output", executor_id=name, data=f"{name} said"))
        return name

    @workflow
    async def telling(_text: str) -> str:
        await asyncio.gather(tell("a"), tell("b"))
        return "done"

    answer = await run(WorkflowTarget(telling), "one")

    assert [message.text for message in answer.messages] == ["a said", "b said", "done"]
    assert [message.author_name for message in answer.messages] == ["a", "b", "telling"]


# --- questions


@step
async def draft(text: str) -> str:
    EXECUTED.append(text)
    return text.upper()


@workflow
async def asking(text: str, ctx: RunContext) -> str:
    """Ask two questions, one after the other, and then say both answers."""
    drafted = await draft(text)
    size = await ctx.request_info({"size of": drafted}, int)
    color = await ctx.request_info({"color of": drafted}, str)
    ctx.set_state("orders", ctx.get_state("orders", 0) + 1)
    return f"{drafted} {size} {color} {ctx.get_state('orders')}"


def asked(answer: AgentResponse[Any]) -> list[str]:
    return [content.call_id or "" for message in answer.messages for content in message.contents]


async def answered(
    target: WorkflowTarget, session: AgentSession, answers: Mapping[str, str], partition: Partition = SHARED
) -> AgentResponse[Any]:
    questions = await target.questions(partition, session)
    decoded = {name: questions[name].answer(answer) for name, answer in answers.items()}
    return await run(target, [], session, partition=partition, answers=decoded)


@pytest.mark.behaviour("F3")
async def test_each_answer_brings_the_function_to_its_next_question_and_steps_are_not_repeated(
    checkpoints: Checkpoints,
) -> None:
    session = AgentSession()

    def target() -> WorkflowTarget:
        """As in a process of its own."""
        return WorkflowTarget(asking, checkpoints=checkpoints)

    (size,) = asked(await run(target(), "shirt", session))
    (color,) = asked(await answered(target(), session, {size: "3"}))
    aside = branch(session)
    done = await answered(target(), session, {color: "red"})
    other = await answered(target(), aside, {color: "blue"})

    assert (done.text, other.text) == ("SHIRT 3 red 1", "SHIRT 3 blue 1")
    assert await target().questions(SHARED, session) == {}
    assert EXECUTED == ["shirt"]


@pytest.mark.behaviour("F3")
async def test_after_the_last_answer_a_message_begins_anew_with_the_state_of_the_conversation() -> None:
    target, session = WorkflowTarget(asking), AgentSession()
    for text in ("shirt", "hat"):
        (size,) = asked(await run(target, text, session))
        (color,) = asked(await answered(target, session, {size: "3"}))
        done = await answered(target, session, {color: "red"})

    assert done.text == "HAT 3 red 2"


@pytest.mark.behaviour("F4")
async def test_a_message_instead_of_an_answer_is_refused_and_nothing_moves(checkpoints: Checkpoints) -> None:
    target, session = WorkflowTarget(asking, checkpoints=checkpoints), AgentSession()
    (size,) = asked(await run(target, "shirt", session))

    with pytest.raises(TargetError, match="waits for answers"):
        await run(target, "hat", branch(session))
    assert list(await target.questions(SHARED, session)) == [size]


@pytest.mark.behaviour("F3")
async def test_questions_that_are_open_at_once_are_answered_one_at_a_time_and_shown_once(
    checkpoints: Checkpoints,
) -> None:
    @step
    async def ask(name: str, ctx: RunContext) -> str:
        return str(await ctx.request_info(f"{name}?", str, request_id=name))

    @workflow
    async def both(_text: str) -> str:
        return " ".join(await asyncio.gather(ask("a"), ask("b")))

    target, session = WorkflowTarget(both, checkpoints=checkpoints), AgentSession()
    first = asked(await run(target, "go", session))
    after_one = await answered(target, session, {first[0]: "one"})
    open_now = list(await target.questions(SHARED, session))
    done = await answered(target, session, dict.fromkeys(open_now, "two"))

    assert sorted({*first, *asked(after_one)}) == ["a", "b"]
    assert len(first) + len(asked(after_one)) == 2
    assert open_now == ["b"]
    assert done.text == "one two"


async def test_a_question_that_the_function_does_not_come_to_any_more_is_not_open() -> None:
    @workflow
    async def maybe(_text: str, ctx: RunContext) -> str:
        if "short" in SWITCHES:
            return "short"
        return str(await ctx.request_info("?", str, request_id="first")) + str(
            await ctx.request_info("?", str, request_id="second")
        )

    target, session = WorkflowTarget(maybe), AgentSession()
    await run(target, "go", session)
    SWITCHES.add("short")
    done = await answered(target, session, {"first": "1"})

    assert done.text == "short"
    assert await target.questions(SHARED, session) == {}


async def test_a_function_that_has_changed_refuses_answers_but_not_messages() -> None:
    checkpoints, session, waiting = MemoryCheckpoints(), AgentSession(), AgentSession()
    old, new = (WorkflowTarget(source, checkpoints=checkpoints) for source in (asking, remembering()))
    await run(old, "shirt", waiting)
    await say(new, "one", session)

    @workflow(name="remembering")
    async def changed(text: str, ctx: RunContext) -> str:
        return f"changed {ctx.get_state('told')} {text}"

    @workflow(name="asking")
    async def other(text: str, ctx: RunContext) -> str:
        return f"{text} {await ctx.request_info('?', int)}"

    with pytest.raises(TargetError, match="The workflow has changed since"):
        await answered(WorkflowTarget(other, checkpoints=checkpoints), waiting, {"auto::0": "3"})
    assert await say(WorkflowTarget(changed, checkpoints=checkpoints), "two", session) == "changed ['one'] two"


# --- runs that are lost


def executed(name: str, text: str) -> str:
    EXECUTED.append(name)
    if name in SWITCHES:
        raise Death
    return f"{text}{name}"


@step
async def a(text: str) -> str:
    return executed("a", text)


@step
async def b(text: str) -> str:
    return executed("b", text)


@step
async def c(text: str) -> str:
    return executed("c", text)


@workflow
async def three_steps(text: str, ctx: RunContext) -> str:
    """Speak before the first step and after the last."""
    await ctx.add_event(WorkflowEvent("output", executor_id="steps", data="first"))
    return await c(await b(await a(text)))


class Steps:
    """A workflow of three steps, in processes that share their checkpoints. A step in `SWITCHES` dies."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def target(self) -> WorkflowTarget:
        return WorkflowTarget(three_steps, checkpoints=self.checkpoints)

    async def attempt(
        self,
        session: AgentSession | None = None,
        *,
        number: int = 1,
        resumption: Resumption | None = None,
        dies_after: int | None = None,
    ) -> list[str]:
        """Return what an attempt in a process of its own puts out, until it dies if it does."""
        updates: list[AgentResponseUpdate] = []

        async def flush() -> int:
            return len(updates)

        hosted = HostedRun(run_id="resp_1", attempt=number, flush=flush, resumption=resumption)
        given = TargetInput(messages=[Message("user", [">"])], session=session or AgentSession(), run=hosted)
        try:
            async with aclosing(self.target().stream(given)) as stream:
                async for update in stream:
                    updates.append(update)
                    if len(updates) == dies_after:
                        break
        except TargetError as error:
            if not isinstance(error.__cause__, Death):
                raise
        return [message.text for message in AgentResponse.from_updates(updates).messages]


@pytest.mark.behaviour("F8")
@pytest.mark.parametrize(("dies_in", "done"), [("a", "a abc"), ("b", "ab bc"), ("c", "abc c")])
async def test_a_lost_run_goes_on_after_its_last_step_and_puts_out_everything(
    checkpoints: Checkpoints, dies_in: str, done: str
) -> None:
    steps, session = Steps(checkpoints), AgentSession()
    SWITCHES.add(dies_in)
    await steps.attempt()
    SWITCHES.clear()
    EXECUTED.append(" ")

    resumption = await steps.target().resumption(SHARED, "resp_1")
    assert resumption is not None
    resumed = await steps.attempt(session, number=2, resumption=resumption)

    assert (resumption.mark, resumption.attempt) == (0, 1)
    assert resumed == ["first", ">abc"]
    assert "".join(EXECUTED) == done
    chain = checkpoints.chain(SHARED, "resp_1")
    assert await chain.list_checkpoint_ids(workflow_name="resp_1") == [
        session.state[SESSION_STATE_KEY]["checkpoint_id"]
    ]


@pytest.mark.behaviour("F8")
@pytest.mark.parametrize("dies_after", [1, 2])
async def test_a_run_that_is_lost_while_it_puts_out_has_put_out_nothing_that_counts(dies_after: int) -> None:
    steps = Steps(MemoryCheckpoints())
    lost = await steps.attempt(dies_after=dies_after)
    resumption = await steps.target().resumption(SHARED, "resp_1")
    assert resumption is not None
    resumed = await steps.attempt(number=2, resumption=resumption)

    assert (len(lost), resumption.mark, resumed) == (dies_after, 0, ["first", ">abc"])
    assert EXECUTED == ["a", "b", "c"]


@pytest.mark.behaviour("F8")
async def test_a_step_that_always_dies_does_not_look_like_progress() -> None:
    steps = Steps(MemoryCheckpoints())
    SWITCHES.add("b")
    await steps.attempt()
    for number in (2, 3):
        resumption = await steps.target().resumption(SHARED, "resp_1")
        await steps.attempt(number=number, resumption=resumption)

    last = await steps.target().resumption(SHARED, "resp_1")

    assert last is not None
    assert last.attempt == 1


@pytest.mark.behaviour("F3", "F8")
async def test_a_run_that_is_lost_after_an_answer_keeps_the_answers_and_hides_what_was_asked_before() -> None:
    SWITCHES.add("a")
    session = AgentSession()

    @workflow
    async def asking_both(_text: str, ctx: RunContext) -> str:
        first = await a(await ctx.request_info("?", str, request_id="first"))
        return first + str(await ctx.request_info("?", str, request_id="second"))

    target = WorkflowTarget(asking_both)
    await run(target, "go", session)

    async def flush() -> str:
        return "mark"

    async def attempt(number: int, resumption: Resumption | None) -> AgentResponse[Any]:
        hosted = HostedRun(run_id="resp_2", attempt=number, flush=flush, resumption=resumption)
        turn = TargetInput(messages=[], session=session, run=hosted, answers={"first": "one"})
        async with aclosing(target.stream(turn)) as updates:
            return AgentResponse.from_updates([update async for update in updates])

    with pytest.raises(TargetError):
        await attempt(1, None)
    SWITCHES.clear()
    resumed = await attempt(2, await target.resumption(SHARED, "resp_2"))

    assert asked(resumed) == ["second"]
    assert (await answered(target, session, {"second": "two"})).text == "oneatwo"
