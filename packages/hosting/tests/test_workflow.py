"""Workflows as targets: state per run, conversations from checkpoints, input shapes, errors, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from agent_framework import (
    Agent,
    AgentExecutorResponse,
    AgentResponse,
    AgentSession,
    BaseChatClient,
    ChatResponse,
    ChatResponseUpdate,
    CheckpointStorage,
    Content,
    ContextProvider,
    Executor,
    FunctionInvocationLayer,
    InMemoryCheckpointStorage,
    Message,
    ResponseStream,
    Workflow,
    WorkflowBuilder,
    WorkflowCheckpoint,
    WorkflowContext,
    executor,
    handler,
    response_handler,
)

from agent_framework_hosting.checkpoints import MemoryCheckpoints, ReadOnlyCheckpoints
from agent_framework_hosting.errors import ConfigurationError, StoreUnavailable, TargetError
from agent_framework_hosting.isolation import SHARED, Partition
from agent_framework_hosting.sql.checkpoints import SqlCheckpoints
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.tables import checkpoints as table
from agent_framework_hosting.targets.agent import AgentTarget
from agent_framework_hosting.targets.base import Erasable, Target, TargetInput, erase
from agent_framework_hosting.targets.turn import SESSION_STATE_KEY
from agent_framework_hosting.targets.workflow import WorkflowTarget


class EchoClient(FunctionInvocationLayer[Any], BaseChatClient[Any]):
    """Answers `<prefix><number of messages>:<last text>` in two updates, after the gate has opened."""

    def __init__(self, prefix: str = "", *, gate: asyncio.Event | None = None) -> None:
        super().__init__()
        self.prefix = prefix
        self.gate = gate
        self.seen: list[list[str]] = []

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        async def updates() -> AsyncIterable[ChatResponseUpdate]:
            self.seen.append([message.text for message in messages])
            yield ChatResponseUpdate(contents=[Content.from_text(f"{self.prefix}{len(messages)}:")], role="assistant")
            if self.gate is not None:
                await self.gate.wait()
            yield ChatResponseUpdate(contents=[Content.from_text(messages[-1].text)], role="assistant")

        async def answer() -> ChatResponse[Any]:
            return ChatResponse.from_updates([update async for update in updates()])

        return self._build_response_stream(updates()) if stream else answer()


class Remembering(Executor):
    """Puts out everything it was told in this conversation."""

    def __init__(self) -> None:
        super().__init__(id="remembering")
        self.told: list[str] = []

    @handler
    async def hear(self, messages: list[Message], ctx: WorkflowContext[Any, str]) -> None:
        self.told.append(messages[-1].text)
        if messages[-1].text == "fail":
            raise ValueError("the secret of the executor")
        await ctx.yield_output(" ".join(self.told))

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"told": self.told}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.told = state["told"]


def remembering() -> Workflow:
    return WorkflowBuilder(start_executor=Remembering(), name="remembering").build()


def agent(name: str = "echo", **kwargs: Any) -> Agent[Any]:
    return Agent(client=EchoClient(**kwargs), name=name)


async def run(
    target: WorkflowTarget,
    text: object,
    session: AgentSession | None = None,
    *,
    partition: str = "",
    attributes: Mapping[str, object] | None = None,
) -> AgentResponse[Any]:
    messages = [Message("user", [text])] if isinstance(text, str) else text
    given = TargetInput(messages=messages, session=session, partition=Partition(partition), attributes=attributes or {})
    async with aclosing(target.stream(given)) as updates:
        return AgentResponse.from_updates([update async for update in updates])


async def say(target: WorkflowTarget, text: object, session: AgentSession | None = None, **kwargs: Any) -> str:
    return (await run(target, text, session, **kwargs)).text


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def branch(session: AgentSession) -> AgentSession:
    return AgentSession.from_dict(session.to_dict())


@pytest.fixture(params=["memory", "directory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "checkpoints" if request.param == "directory" else None


def test_a_workflow_target_is_a_target_with_the_workflows_name() -> None:
    workflow = remembering()

    target: Target = WorkflowTarget(workflow)

    assert (target.name, target.kind, target.hosted) == ("remembering", "workflow", workflow)


# Runs on their own state


@pytest.mark.behaviour("F2")
@pytest.mark.parametrize("source", ["instance", "factory"])
async def test_three_runs_at_once_run_in_parallel_and_each_puts_out_its_own(source: str) -> None:
    barrier = asyncio.Barrier(3)

    def build() -> Workflow:
        @executor(id="meet")
        async def meet(text: str, ctx: WorkflowContext[Any, str]) -> None:
            # Passes only when all three runs are inside an executor at the same time.
            await asyncio.wait_for(barrier.wait(), 60)
            await ctx.yield_output(f"met {text}")

        return WorkflowBuilder(start_executor=meet).build()

    target = WorkflowTarget(build if source == "factory" else build())

    outputs = await asyncio.gather(*(say(target, text, AgentSession()) for text in ("a", "b", "c")))

    assert outputs == ["met a", "met b", "met c"]


async def test_agents_are_shared_by_all_runs_but_their_sessions_are_not() -> None:
    session_ids: list[str] = []

    class Watching(ContextProvider):
        async def before_run(self, *, agent: Any, session: Any, context: Any, state: dict[str, Any]) -> None:
            session_ids.append(session.session_id)

    client = EchoClient()
    hosted = Agent(client=client, name="echo", context_providers=[Watching("watching")])
    target = WorkflowTarget(WorkflowBuilder(start_executor=hosted).build())

    outputs = [await say(target, "hello", AgentSession()) for _ in range(2)]

    assert outputs == ["1:hello", "1:hello"]
    assert client.seen == [["hello"], ["hello"]]
    assert len(set(session_ids)) == 2


# Conversations


@pytest.mark.behaviour("F1")
async def test_two_new_chains_start_from_the_initial_state(location: Path | None) -> None:
    target = WorkflowTarget(remembering(), checkpoint_location=location)
    first, second = AgentSession(), AgentSession()

    outputs = [await say(target, text, session) for text, session in (("a", first), ("b", second), ("c", first))]

    assert outputs == ["a", "b", "a c"]
    assert first.state[SESSION_STATE_KEY]["chain"] != second.state[SESSION_STATE_KEY]["chain"]


@pytest.mark.behaviour("A2", "F1")
async def test_a_branch_from_turn_one_sees_turn_one_only_and_leaves_turn_two_alone(location: Path | None) -> None:
    target = WorkflowTarget(remembering(), checkpoint_location=location)
    session = AgentSession()
    await say(target, "one", session)
    after_one = branch(session)
    await say(target, "two", session)

    branched = await say(target, "other", after_one)
    continued = await say(target, "three", session)

    assert branched == "one other"
    assert continued == "one two three"


@pytest.mark.behaviour("A2")
async def test_an_agent_in_a_workflow_remembers_its_branch(location: Path | None) -> None:
    client = EchoClient()
    target = WorkflowTarget(
        WorkflowBuilder(start_executor=Agent(client=client, name="echo")).build(), checkpoint_location=location
    )
    session = AgentSession()
    await say(target, "one", session)
    after_one = branch(session)
    await say(target, "two", session)
    await say(target, "other", after_one)

    assert client.seen == [["one"], ["one", "1:one", "two"], ["one", "1:one", "other"]]


@pytest.mark.behaviour("A5", "F1")
async def test_a_failed_turn_leaves_the_session_as_it_was(location: Path | None) -> None:
    target = WorkflowTarget(remembering(), checkpoint_location=location)
    session = AgentSession()
    await say(target, "one", session)
    before = session.to_dict()

    with pytest.raises(TargetError) as caught:
        await say(target, "fail", session)

    assert isinstance(caught.value.__cause__, ValueError)
    assert "secret" not in str(caught.value)
    assert session.to_dict() == before
    assert await say(target, "two", session) == "one two"


async def test_a_conversation_goes_on_in_another_process_over_the_same_directory(tmp_path: Path) -> None:
    session = AgentSession()
    await say(WorkflowTarget(remembering(), checkpoint_location=tmp_path), "one", session)

    continued = await say(WorkflowTarget(remembering, checkpoint_location=tmp_path), "two", branch(session))

    assert continued == "one two"


async def test_another_partition_does_not_find_the_conversation(location: Path | None) -> None:
    target = WorkflowTarget(remembering(), checkpoint_location=location)
    session = AgentSession()
    await say(target, "one", session, partition="=alice/-")

    with pytest.raises(TargetError, match="gone"):
        await say(target, "two", branch(session), partition="=mallory/-")

    assert await say(target, "two", session, partition="=alice/-") == "one two"


async def test_without_a_session_nothing_is_kept(tmp_path: Path) -> None:
    location = tmp_path / "checkpoints"
    target = WorkflowTarget(remembering(), checkpoint_location=location)

    outputs = [await say(target, text) for text in ("a", "b")]

    assert outputs == ["a", "b"]
    assert not location.exists()


async def test_a_storage_that_a_factory_gives_to_later_workflows_sees_nothing_of_callers() -> None:
    own = InMemoryCheckpointStorage()
    built: list[Workflow] = []

    def build() -> Workflow:
        builder = WorkflowBuilder(
            start_executor=Remembering(), name="remembering", checkpoint_storage=own if built else None
        )
        built.append(builder.build())
        return built[-1]

    target = WorkflowTarget(build)

    assert await say(target, "one") == "one"
    assert await say(target, "two", AgentSession()) == "two"
    assert await own.list_checkpoint_ids(workflow_name="remembering") == []


async def test_a_name_that_is_given_wins() -> None:
    async def build() -> Workflow:
        return remembering()

    assert [WorkflowTarget(source, name="mine").name for source in (build, remembering())] == ["mine", "mine"]


async def test_an_async_function_is_what_is_hosted_until_it_has_made_a_workflow() -> None:
    async def build() -> Workflow:
        return WorkflowBuilder(start_executor=agent("inner"), name="built").build()

    target = WorkflowTarget(build)
    before = target.hosted
    await target.prepare()

    assert before is build
    assert isinstance(target.hosted, Workflow)
    assert target.name == "build"


async def test_a_changed_workflow_refuses_the_conversations_of_the_old_one(tmp_path: Path) -> None:
    session = AgentSession()
    await say(WorkflowTarget(remembering(), checkpoint_location=tmp_path), "one", session)
    before = session.to_dict()

    with pytest.raises(TargetError, match="unusable"):
        await say(
            WorkflowTarget(WorkflowBuilder(start_executor=agent()).build(), checkpoint_location=tmp_path),
            "two",
            session,
        )

    assert session.to_dict() == before


async def test_a_turn_leaves_one_checkpoint_however_many_supersteps_it_took(tmp_path: Path) -> None:
    @executor(id="count")
    async def count(text: str, ctx: WorkflowContext[str, str]) -> None:
        await (ctx.send_message(text + "x") if len(text) < 6 else ctx.yield_output(text))

    target = WorkflowTarget(
        WorkflowBuilder(start_executor=count).add_edge(count, count).build(), checkpoint_location=tmp_path
    )

    assert await say(target, "x", AgentSession()) == "xxxxxx"
    assert len(files_below(tmp_path)) == 1


class Unregistered:
    """A type that the checkpoint reader does not know."""


async def test_a_turn_whose_end_cannot_be_saved_fails_instead_of_losing_the_conversation(tmp_path: Path) -> None:
    class Keeping(Remembering):
        async def on_checkpoint_save(self) -> dict[str, Any]:
            return {"told": self.told, "extra": Unregistered() if "extra" in self.told else None}

    target = WorkflowTarget(WorkflowBuilder(start_executor=Keeping()).build(), checkpoint_location=tmp_path)
    session = AgentSession()
    await say(target, "one", session)
    before = session.to_dict()

    with pytest.raises(TargetError, match="register_checkpoint_type") as caught:
        await say(target, "extra", session)

    assert caught.value.__cause__ is not None
    assert session.to_dict() == before


# Input


async def test_options_are_ignored_with_a_warning_because_a_workflow_takes_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    target = WorkflowTarget(remembering())

    updates = [
        update
        async for update in target.stream(TargetInput(messages=[Message("user", ["hi"])], options={"temperature": 1}))
    ]

    assert updates
    assert "A workflow takes no options; they are ignored" in caplog.messages


# Streaming and cancellation


@pytest.mark.behaviour("F7")
async def test_an_agents_text_comes_out_while_it_is_being_written() -> None:
    gate = asyncio.Event()
    target = WorkflowTarget(WorkflowBuilder(start_executor=agent(gate=gate)).build())

    async with aclosing(target.stream(TargetInput(messages=[Message("user", ["hi"])]))) as updates:
        first = await asyncio.wait_for(anext(updates), 60)
        gate.set()
        rest = [update async for update in updates]

    assert [first.text, *(update.text for update in rest)] == ["1:", "hi"]
    assert {update.author_name for update in (first, *rest)} == {"echo"}
    assert len({update.message_id for update in (first, *rest)}) == 1


@pytest.mark.behaviour("F7")
async def test_writer_and_reviewer_are_two_messages_of_two_authors() -> None:
    writer, reviewer = agent("writer", prefix="w"), agent("reviewer", prefix="r")
    workflow = WorkflowBuilder(start_executor=writer).add_edge(writer, reviewer).build()

    response = await run(WorkflowTarget(workflow), "hi")

    assert [(message.author_name, message.text) for message in response.messages] == [
        ("writer", "w1:hi"),
        ("reviewer", "r2:w1:hi"),
    ]


@pytest.mark.behaviour("F7")
@pytest.mark.parametrize(("rule", "phases"), [("hide", [None]), ("commentary", ["commentary", None])])
async def test_intermediate_outputs_are_hidden_or_commentary(rule: Any, phases: list[str | None]) -> None:
    writer = agent("writer")

    @executor(id="formatter")
    async def format_text(response: AgentExecutorResponse, ctx: WorkflowContext[Any, str]) -> None:
        await ctx.yield_output(f"*{response.agent_response.text}*")

    workflow = (
        WorkflowBuilder(start_executor=writer, output_from=[format_text], intermediate_output_from=[writer])
        .add_edge(writer, format_text)
        .build()
    )
    target = WorkflowTarget(workflow, intermediate_outputs=rule)

    updates = [u async for u in target.stream(TargetInput(messages=[Message("user", ["hi"])]))]

    found = list(dict.fromkeys((u.additional_properties or {}).get("phase") for u in updates))
    assert found == phases
    assert "".join(u.text for u in updates if not (u.additional_properties or {}).get("phase")) == "*1:hi*"


@pytest.mark.behaviour("F6")
async def test_leaving_cancels_the_executors_and_the_conversation_can_go_on(location: Path | None) -> None:
    cancelled = asyncio.Event()

    class Slow(Remembering):
        @handler
        async def wait(self, text: str, ctx: WorkflowContext[Any, str]) -> None:
            await ctx.yield_output("started")
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    target = WorkflowTarget(WorkflowBuilder(start_executor=Slow()).build(), checkpoint_location=location)
    session = AgentSession()
    await say(target, "one", session)
    before = session.to_dict()

    async with aclosing(target.stream(TargetInput(messages="slow", session=session))) as updates:
        first = await asyncio.wait_for(anext(updates), 60)

    assert first.text == "started"
    assert cancelled.is_set()
    assert session.to_dict() == before
    assert await say(target, "two", session) == "one two"


class TwoSteps:
    """Builds workflows whose second executor waits until it may `go_on`, so that the first's checkpoint is there."""

    def __init__(self, location: Path | None = None, **options: Any) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self.target = WorkflowTarget(self.build, checkpoint_location=location, **options)

    def build(self) -> Workflow:
        @executor(id="first")
        async def first(text: str, ctx: WorkflowContext[str, str]) -> None:
            await ctx.yield_output("first")
            await ctx.send_message(text)

        @executor(id="second")
        async def second(text: str, ctx: WorkflowContext[Any, str]) -> None:
            await ctx.yield_output("second starts")
            self.reached.set()
            await self.go_on.wait()
            if text == "fail":
                raise ValueError(text)
            await ctx.yield_output(f"second ends with {text}")

        return WorkflowBuilder(start_executor=first, name="two steps").add_edge(first, second).build()


@pytest.mark.behaviour("A5", "F6")
@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_a_run_that_is_given_up_leaves_the_checkpoint_it_continued_and_nothing_else(
    tmp_path: Path, end: str
) -> None:
    steps = TwoSteps(tmp_path)
    session = AgentSession()
    steps.go_on.set()
    await say(steps.target, "hi", session)
    before, continued = files_below(tmp_path), session.to_dict()
    steps.go_on.clear()
    steps.reached.clear()

    run = asyncio.create_task(say(steps.target, "fail" if end == "failed" else "again", session))
    await asyncio.wait_for(steps.reached.wait(), 60)
    during = files_below(tmp_path)
    steps.go_on.set() if end == "failed" else run.cancel()
    await asyncio.wait([run], timeout=60)

    assert run.cancelled() if end == "cancelled" else isinstance(run.exception(), TargetError)
    assert during == files_below(tmp_path) == before
    assert session.to_dict() == continued
    steps.go_on.set()
    assert await say(steps.target, "go on", session) == "firstsecond startssecond ends with go on"


@pytest.mark.behaviour("F6")
async def test_a_first_run_that_is_given_up_leaves_not_even_a_directory(tmp_path: Path) -> None:
    steps = TwoSteps(tmp_path)

    async with aclosing(steps.target.stream(TargetInput(messages="hi", session=AgentSession()))) as updates:
        await asyncio.wait_for(anext(updates), 60)
        await asyncio.wait_for(anext(updates), 60)

    assert list(tmp_path.iterdir()) == []


class Stubborn:
    """Checkpoints that are saved and deleted while they `may_save` and `may_delete` only, deleted not if it `refuses`."""

    def __init__(self) -> None:
        self.stored = MemoryCheckpoints()
        self.saving, self.may_save = asyncio.Event(), asyncio.Event()
        self.deleting, self.may_delete = asyncio.Event(), asyncio.Event()
        self.refuses = False

    def chain(self, partition: Partition, chain: str) -> CheckpointStorage:
        return StubbornChain(self, self.stored.chain(partition, chain))


class StubbornChain(ReadOnlyCheckpoints):
    def __init__(self, owner: Stubborn, chain: CheckpointStorage) -> None:
        super().__init__(chain)
        self.owner, self.chain = owner, chain

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        self.owner.saving.set()
        await self.owner.may_save.wait()
        return await self.chain.save(checkpoint)

    async def delete(self, checkpoint_id: str) -> bool:
        self.owner.deleting.set()
        await self.owner.may_delete.wait()
        if self.owner.refuses:
            raise StoreUnavailable("the store's secret")
        return await self.chain.delete(checkpoint_id)


async def cancelled_while_saving(checkpoints: Stubborn) -> asyncio.Task[str]:
    """Return a run that is cancelled while its end is being saved, and that the storage saves all the same."""
    run = asyncio.create_task(say(WorkflowTarget(remembering(), checkpoints=checkpoints), "hi", AgentSession()))
    await asyncio.wait_for(checkpoints.saving.wait(), 60)
    run.cancel()
    checkpoints.may_save.set()
    await asyncio.wait_for(checkpoints.deleting.wait(), 60)
    return run


async def test_cancelling_again_does_not_stop_what_was_saved_from_being_deleted() -> None:
    checkpoints = Stubborn()
    run = await cancelled_while_saving(checkpoints)
    stored_during = len(checkpoints.stored)

    run.cancel()
    checkpoints.may_delete.set()
    await asyncio.wait([run], timeout=60)

    assert run.cancelled()
    assert (stored_during, len(checkpoints.stored)) == (1, 0)


async def test_a_run_ends_for_its_own_reason_when_what_it_saved_cannot_be_deleted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkpoints = Stubborn()
    checkpoints.refuses = True
    run = await cancelled_while_saving(checkpoints)

    checkpoints.may_delete.set()
    await asyncio.wait([run], timeout=60)

    assert run.cancelled()
    assert "The checkpoints of a run that was given up could not be deleted" in caplog.messages


# Erasing


async def test_a_workflow_target_is_erasable_and_an_agent_target_keeps_nothing_to_erase() -> None:
    hosted = AgentTarget(agent())

    assert isinstance(WorkflowTarget(remembering()), Erasable)
    assert not isinstance(hosted, Erasable)
    await erase(hosted, Partition(""), AgentSession())


@pytest.mark.behaviour("D5")
async def test_erasing_the_only_turn_leaves_no_file_and_no_directory(tmp_path: Path) -> None:
    target = WorkflowTarget(remembering(), checkpoint_location=tmp_path)
    session = AgentSession()
    await say(target, "my secret", session, partition="=alice/-")
    stored = [path.read_text() for path in files_below(tmp_path)]

    await erase(target, Partition("=alice/-"), session)
    await erase(target, Partition("=alice/-"), session)

    assert len(stored) == 1
    assert "my secret" in stored[0]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TargetError, match="gone"):
        await say(target, "two", session, partition="=alice/-")


@pytest.mark.behaviour("D5")
async def test_erasing_the_only_turn_leaves_no_row(database: Database) -> None:
    target = WorkflowTarget(remembering(), checkpoints=SqlCheckpoints(database))
    session = AgentSession()
    await say(target, "my secret", session)
    stored = await database.run(lambda connection: connection.scalars(sa.select(table.c.checkpoint)).all())

    await erase(target, Partition(""), session)

    assert len(stored) == 1
    assert b"my secret" in stored[0]
    assert await database.run(lambda connection: connection.scalars(sa.select(table.c.checkpoint)).all()) == []


@pytest.mark.behaviour("E1", "E2")
async def test_erasing_in_another_partition_erases_nothing(location: Path | None) -> None:
    target = WorkflowTarget(remembering(), checkpoint_location=location)
    session = AgentSession()
    await say(target, "one", session, partition="=alice/-")

    await erase(target, Partition("=mallory/-"), session)

    assert await say(target, "two", session, partition="=alice/-") == "one two"


async def test_erasing_one_turn_leaves_its_branches_and_what_it_continued(location: Path | None) -> None:
    target = WorkflowTarget(remembering(), checkpoint_location=location)
    session = AgentSession()
    await say(target, "one", session)
    after_one = branch(session)
    await say(target, "two", session)
    after_two = branch(session)
    await say(target, "three", session)

    await erase(target, Partition(""), after_two)

    assert await say(target, "four", session) == "one two three four"
    assert await say(target, "other", after_one) == "one other"


async def test_erasing_a_session_without_a_turn_does_nothing() -> None:
    target = WorkflowTarget(remembering())

    await erase(target, Partition(""), target.new_session())


async def test_what_cannot_be_erased_now_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = WorkflowTarget(remembering(), checkpoint_location=tmp_path)
    session = AgentSession()
    await say(target, "one", session)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(StoreUnavailable):
            await erase(target, Partition(""), session)

    assert await say(target, "two", session) == "one two"


# Checkpoints in a database


@pytest.mark.behaviour("A2", "F1")
async def test_a_conversation_in_a_database_is_continued_and_branched_by_another_target(database: Database) -> None:
    session = AgentSession()
    await say(WorkflowTarget(remembering(), checkpoints=SqlCheckpoints(database)), "one", session)
    after_one = branch(session)
    target = WorkflowTarget(remembering, checkpoints=SqlCheckpoints(database))

    continued = [await say(target, text, session) for text in ("two", "three")]
    branched = await say(target, "other", after_one)

    assert continued == ["one two", "one two three"]
    assert branched == "one other"


@pytest.mark.behaviour("A5")
async def test_a_failed_turn_leaves_no_row_behind(database: Database) -> None:
    target = WorkflowTarget(remembering(), checkpoints=SqlCheckpoints(database))
    session = AgentSession()
    await say(target, "one", session)
    count = sa.select(sa.func.count()).select_from(table)
    before = await database.run(lambda connection: connection.scalar(count))

    with pytest.raises(TargetError):
        await say(target, "fail", session)

    assert await database.run(lambda connection: connection.scalar(count)) == before == 1


async def test_a_database_that_cannot_be_reached_fails_the_turn_and_keeps_the_conversation(database: Database) -> None:
    target = WorkflowTarget(remembering(), checkpoints=SqlCheckpoints(database))
    session = AgentSession()
    await say(target, "one", session)
    await database.close()

    with pytest.raises(TargetError, match="cannot be read now") as reading:
        await say(target, "two", session)
    with pytest.raises(TargetError, match="could not be saved") as writing:
        await say(target, "first", AgentSession())
    database.open()

    assert isinstance(reading.value.__cause__, StoreUnavailable)
    assert isinstance(writing.value.__cause__, StoreUnavailable)
    assert await say(target, "three", session) == "one three"


def test_two_places_for_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="pass one of them"):
        WorkflowTarget(remembering(), checkpoints=MemoryCheckpoints(), checkpoint_location=tmp_path)


# Cancelling


@pytest.mark.behaviour("F6")
async def test_cancelling_the_task_cancels_the_executors() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    @executor(id="slow")
    async def slow(text: str, ctx: WorkflowContext[Any, str]) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    target = WorkflowTarget(WorkflowBuilder(start_executor=slow).build())
    task = asyncio.create_task(say(target, "hi"))
    await asyncio.wait_for(started.wait(), 60)
    task.cancel()
    await asyncio.wait([task], timeout=60)

    assert task.cancelled()
    assert cancelled.is_set()


def asking() -> Workflow:
    class Ask(Executor):
        @handler
        async def ask(self, text: str, ctx: WorkflowContext[Any, str]) -> None:
            await ctx.request_info("which one?", str)
            await ctx.request_info("how many?", int)

        @response_handler
        async def on_text(self, asked: str, answer: str, ctx: WorkflowContext[Any, str]) -> None:
            await ctx.yield_output(f"the {answer}")

        @response_handler
        async def on_number(self, asked: str, answer: int, ctx: WorkflowContext[Any, str]) -> None:
            await ctx.yield_output(f"{answer} of them")

    return WorkflowBuilder(start_executor=Ask(id="asking")).build()


async def test_what_a_workflow_asked_is_open_until_a_run_answers_it() -> None:
    target = WorkflowTarget(asking())
    session = AgentSession()
    start = TargetInput(messages=[Message("user", ["hi"])], session=session)
    asked = [content.call_id async for update in target.stream(start) for content in update.contents]
    first, second = await target.questions(SHARED, session)
    given = {first: "red", second: 2}

    assert asked == [first, second]
    for name, answer, still_open in [(second, "2 of them", [first]), (first, "the red", [])]:
        with pytest.raises(TargetError, match="waits for answers"):
            await say(target, "hi", session)
        run = TargetInput(messages=[], session=session, answers={name: given[name]})
        assert "".join([update.text async for update in target.stream(run)]) == answer
        assert list(await target.questions(SHARED, session)) == still_open


# Request context and tools

_bound: ContextVar[Mapping[str, object] | None] = ContextVar("bound", default=None)


class Binding(ContextProvider):
    """A provider that shows what is bound while the agent runs."""

    def __init__(self) -> None:
        super().__init__("binding")
        self.seen: list[Mapping[str, object] | None] = []

    @contextmanager
    def bind_request_context(self, **attributes: object) -> Any:
        token = _bound.set(attributes)
        try:
            yield
        finally:
            _bound.reset(token)

    async def before_run(self, *, agent: Any, session: Any, context: Any, state: dict[str, Any]) -> None:
        self.seen.append(_bound.get())


@pytest.mark.parametrize("source", ["instance", "factory"])
async def test_attributes_are_bound_to_the_providers_of_agents_in_the_workflow(source: str) -> None:
    provider = Binding()

    def build() -> Workflow:
        hosted = Agent(client=EchoClient(), name="echo", context_providers=[provider])
        return WorkflowBuilder(start_executor=hosted).build()

    target = WorkflowTarget(build if source == "factory" else build())

    await say(target, "hi", attributes={"response_id": "resp_1"})

    assert provider.seen == [{"response_id": "resp_1"}]
    assert _bound.get() is None


def test_server_tools_are_those_of_all_agents_in_the_workflow() -> None:
    def look_up(word: str) -> str:
        """Look a word up."""
        return word

    hosted = Agent(client=EchoClient(), name="echo", tools=[look_up])

    assert WorkflowTarget(WorkflowBuilder(start_executor=hosted).build()).server_tools() == {"look_up"}


def test_a_new_session_has_no_position() -> None:
    assert SESSION_STATE_KEY not in WorkflowTarget(remembering()).new_session().state


@pytest.mark.behaviour("A7")
async def test_a_run_whose_session_is_not_kept_leaves_no_checkpoint(tmp_path: Path) -> None:
    target = WorkflowTarget(remembering(), checkpoint_location=tmp_path)
    session = target.new_session()
    run = TargetInput(messages=[Message("user", ["hi"])], session=session, keeps_session=False)

    updates = [update async for update in target.stream(run)]

    assert updates
    assert list(tmp_path.rglob("*")) == []
    assert session.state == {}
