"""Runs of workflows that are lost half-way: what is kept of them, and how another attempt goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from agent_framework import (
    AgentResponse,
    AgentResponseUpdate,
    AgentSession,
    CheckpointStorage,
    Content,
    Executor,
    Message,
    Workflow,
    WorkflowBuilder,
    WorkflowCheckpoint,
    WorkflowContext,
    handler,
)

from agent_framework_hosting.checkpoints import Checkpoints, FileCheckpoints, MemoryCheckpoints, ReadOnlyCheckpoints
from agent_framework_hosting.errors import StaleWrite, StoreUnavailable, TargetError
from agent_framework_hosting.isolation import SHARED, Partition
from agent_framework_hosting.sql.checkpoints import SqlCheckpoints
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.tables import checkpoints as table
from agent_framework_hosting.targets.agent import AgentTarget
from agent_framework_hosting.targets.base import HostedRun, Resumable, Resumption, TargetInput, abandon, can_resume
from agent_framework_hosting.targets.turn import RUN_METADATA_KEY, SESSION_STATE_KEY
from agent_framework_hosting.targets.workflow import WorkflowTarget
from agent_framework_hosting.testing.agents import ScriptedAgent

RUN = "resp_1"


class Death(Exception):  # noqa: N818  nothing went wrong
    """What a step raises in whose middle the process dies: the run is given up and nothing of it is tidied."""


class Unregistered:
    """A type that the checkpoint reader does not know."""


class Step(Executor):
    """Notes that it was executed, speaks, and hands on what it was told."""

    def __init__(self, name: str, witness: list[str], dies_in: set[str]) -> None:
        super().__init__(id=name)
        self.witness, self.dies_in = witness, dies_in
        self.heard: list[str] = []

    @handler
    async def step(self, text: str, ctx: WorkflowContext[str, Any]) -> None:
        self.witness.append(self.id)
        self.heard.append(text)
        await self.speak(ctx)
        if self.id in self.dies_in:
            raise Death
        await ctx.send_message(text)

    async def speak(self, ctx: WorkflowContext[str, Any]) -> None:
        await ctx.yield_output(f"{self.id} heard {'+'.join(self.heard)}")

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"heard": list(self.heard)}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.heard = list(state["heard"])


class Streaming(Step):
    async def speak(self, ctx: WorkflowContext[str, Any]) -> None:
        for piece in ("in ", "pieces"):
            await ctx.yield_output(AgentResponseUpdate(contents=[Content.from_text(piece)], role="assistant"))


class Repeating(Step):
    """Puts out as a whole what the one before it has streamed, which counts as told."""

    async def speak(self, ctx: WorkflowContext[str, Any]) -> None:
        await ctx.yield_output(Message("assistant", ["in pieces"], author_name="b"))
        await super().speak(ctx)


class Steps:
    """Workflows of three steps, in processes that share their checkpoints: `executed` tells which were executed."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.executed: list[str] = []
        self.dies_in: set[str] = set()
        self.flushed: list[int] = []

    def build(self) -> Workflow:
        a, b, c = (
            kind(name, self.executed, self.dies_in) for kind, name in ((Step, "a"), (Streaming, "b"), (Repeating, "c"))
        )
        # Without a name: it has another one in every process.
        return WorkflowBuilder(start_executor=a).add_edge(a, b).add_edge(b, c).build()

    def target(self) -> WorkflowTarget:
        return WorkflowTarget(self.build, checkpoints=self.checkpoints)

    async def attempt(
        self,
        session: AgentSession | None = None,
        *,
        number: int = 1,
        resumption: Resumption | None = None,
        run_id: str = RUN,
    ) -> list[str]:
        """Return the texts that an attempt in a process of its own puts out, until it dies if it does."""
        updates: list[AgentResponseUpdate] = []

        async def flush() -> int:
            self.flushed.append(len(updates))
            return len(updates)

        given = TargetInput(
            messages=[Message("user", ["hi"])],
            session=session or AgentSession(),
            run=HostedRun(run_id=run_id, attempt=number, flush=flush, resumption=resumption),
        )
        try:
            async with aclosing(self.target().stream(given)) as stream:
                async for update in stream:
                    updates.append(update)  # noqa: PERF401  what came until it died counts
        except TargetError as error:
            if not isinstance(error.__cause__, Death):
                raise
        return [message.text for message in AgentResponse.from_updates(updates).messages]


async def kept(checkpoints: Checkpoints, run_id: str = RUN) -> list[WorkflowCheckpoint]:
    return await checkpoints.chain(SHARED, run_id).list_checkpoints(workflow_name=run_id)


@pytest.mark.behaviour("F8")
@pytest.mark.parametrize(
    ("dies_in", "before", "after", "executed"),
    [
        ("a", ["a heard hi"], ["a heard hi", "in pieces", "c heard hi"], "a abc"),
        ("b", ["a heard hi", "in pieces"], ["in pieces", "c heard hi"], "ab bc"),
        ("c", ["a heard hi", "in pieces", "c heard hi"], ["c heard hi"], "abc c"),
    ],
)
async def test_a_lost_run_goes_on_from_its_last_checkpoint(
    checkpoints: Checkpoints, dies_in: str, before: list[str], after: list[str], executed: str
) -> None:
    steps = Steps(checkpoints)
    steps.dies_in.add(dies_in)
    lost = await steps.attempt()
    steps.dies_in.clear()
    steps.executed.append(" ")
    session = AgentSession()

    resumption = await steps.target().resumption(SHARED, RUN)
    resumed = await steps.attempt(session, number=2, resumption=resumption)

    # The step that had begun is executed again, those before it are not, and what they said is not said again: not even
    # by "c", which repeats what it believes nobody has heard.
    assert (lost, resumed, "".join(steps.executed)) == (before, after, executed)
    (last,) = await kept(checkpoints)
    assert session.state[SESSION_STATE_KEY] == {"chain": RUN, "checkpoint_id": last.checkpoint_id}


async def check_that_a_run_is_not_taken_for_one_that_did_nothing(knowing: Checkpoints, ignorant: Checkpoints) -> None:
    state = {"value": Unregistered()}
    await knowing.chain(SHARED, RUN).save(WorkflowCheckpoint(RUN, "hash", state=state))

    with pytest.raises(TargetError, match="cannot be read any more"):
        await Steps(ignorant).target().resumption(SHARED, RUN)


@pytest.mark.behaviour("F8")
async def test_a_lost_run_whose_file_cannot_be_read_any_more_did_something(tmp_path: Path) -> None:
    await check_that_a_run_is_not_taken_for_one_that_did_nothing(
        FileCheckpoints(tmp_path, allowed_checkpoint_types=[Unregistered]), FileCheckpoints(tmp_path)
    )


@pytest.mark.behaviour("F8")
async def test_a_lost_run_whose_row_cannot_be_read_any_more_did_something(database: Database) -> None:
    await check_that_a_run_is_not_taken_for_one_that_did_nothing(
        SqlCheckpoints(database, allowed_checkpoint_types=[Unregistered]), SqlCheckpoints(database)
    )


@pytest.mark.behaviour("F8")
async def test_the_mark_of_a_checkpoint_is_what_was_flushed_before_it(checkpoints: Checkpoints) -> None:
    steps = Steps(checkpoints)
    steps.dies_in.add("c")
    await steps.attempt()

    resumption = await steps.target().resumption(SHARED, RUN)

    # Before anything was executed, after "a", and after the two pieces of "b".
    assert steps.flushed == [0, 1, 3]
    assert resumption is not None
    assert (resumption.mark, resumption.attempt) == (3, 1)


async def test_a_run_that_was_lost_at_its_very_end_has_nothing_more_to_say(checkpoints: Checkpoints) -> None:
    steps = Steps(checkpoints)
    await steps.attempt()
    session = AgentSession()

    said = await steps.attempt(session, number=2, resumption=await steps.target().resumption(SHARED, RUN))

    assert (said, "".join(steps.executed)) == ([], "abc")
    assert len(await kept(checkpoints)) == 1
    assert session.state[SESSION_STATE_KEY]["chain"] == RUN


async def test_a_resumed_turn_can_be_continued_and_branched_like_any_other(checkpoints: Checkpoints) -> None:
    steps = Steps(checkpoints)
    session = AgentSession()
    await steps.attempt(session)
    copy = AgentSession.from_dict(session.to_dict())
    steps.dies_in.add("b")
    await steps.attempt(AgentSession.from_dict(session.to_dict()), run_id="resp_2")
    steps.dies_in.clear()

    resumption = await steps.target().resumption(SHARED, "resp_2")
    await steps.attempt(session, number=2, resumption=resumption, run_id="resp_2")
    third = await steps.attempt(session, run_id="resp_3")
    branch = await steps.attempt(copy, run_id="resp_4")

    assert third[0] == "a heard hi+hi+hi"
    assert branch[0] == "a heard hi+hi"


async def test_of_two_attempts_the_later_one_counts_whatever_the_earlier_one_stores_since(
    checkpoints: Checkpoints,
) -> None:
    steps = Steps(checkpoints)
    steps.dies_in.add("b")
    await steps.attempt()
    resumption = await steps.target().resumption(SHARED, RUN)
    steps.dies_in = {"c"}
    await steps.attempt(number=2, resumption=resumption)
    (newest,) = await kept(checkpoints)
    late = WorkflowCheckpoint(
        workflow_name=RUN,
        graph_signature_hash=newest.graph_signature_hash,
        iteration_count=99,
        metadata={RUN_METADATA_KEY: {"attempt": 1, "mark": 99, "told": []}},
    )
    await checkpoints.chain(SHARED, RUN).save(late)

    found = await steps.target().resumption(SHARED, RUN)
    assert found is not None
    assert (found.checkpoint_id, found.attempt) == (newest.checkpoint_id, 2)
    steps.dies_in.clear()
    await steps.attempt(number=3, resumption=found)

    assert len(await kept(checkpoints)) == 1


async def test_of_a_run_that_never_began_nothing_is_found(checkpoints: Checkpoints) -> None:
    target = Steps(checkpoints).target()

    assert await target.resumption(SHARED, RUN) is None
    await Steps(checkpoints).attempt()
    assert await target.resumption(Partition("other"), RUN) is None
    assert await target.resumption(SHARED, "resp_2") is None


async def test_what_a_run_keeps_is_erased_when_it_is_abandoned(checkpoints: Checkpoints) -> None:
    steps = Steps(checkpoints)
    await steps.attempt(run_id="resp_other")
    steps.dies_in.add("b")
    await steps.attempt()

    await abandon(steps.target(), SHARED, RUN)
    await abandon(steps.target(), SHARED, RUN)

    assert await kept(checkpoints) == []
    assert len(await kept(checkpoints, "resp_other")) == 1


async def test_a_run_that_nobody_may_resume_stores_nothing_before_its_end(checkpoints: Checkpoints) -> None:
    steps = Steps(checkpoints)
    given = TargetInput(messages=[Message("user", ["hi"])], session=AgentSession(), run=HostedRun(run_id=RUN))
    during: list[WorkflowCheckpoint] = []

    async for _ in steps.target().stream(given):
        during += await kept(checkpoints)

    assert during == []
    assert len(await kept(checkpoints)) == 1


async def test_a_process_that_has_lost_the_run_stores_nothing_and_stops(checkpoints: Checkpoints) -> None:
    steps = Steps(checkpoints)

    async def flush() -> int:
        if steps.executed:
            raise StaleWrite("Another process has the run.")
        return 0

    given = TargetInput(
        messages=[Message("user", ["hi"])], session=AgentSession(), run=HostedRun(run_id=RUN, flush=flush)
    )

    with pytest.raises(StaleWrite):
        async for _ in steps.target().stream(given):
            pass

    assert steps.executed == ["a"]
    assert [checkpoint.iteration_count for checkpoint in await kept(checkpoints)] == [0]


async def test_nothing_is_executed_of_a_run_whose_beginning_cannot_be_stored(database: Database) -> None:
    class Unstorable(Step):
        async def on_checkpoint_save(self) -> dict[str, Any]:
            return {"extra": Unregistered()}

    executed: list[str] = []
    target = WorkflowTarget(
        lambda: WorkflowBuilder(start_executor=Unstorable("a", executed, set())).build(),
        checkpoints=SqlCheckpoints(database),
    )

    async def flush() -> int:
        return 0

    given = TargetInput(
        messages=[Message("user", ["hi"])], session=AgentSession(), run=HostedRun(run_id=RUN, flush=flush)
    )
    with pytest.raises(TargetError, match="register_checkpoint_type"):
        async for _ in target.stream(given):
            pass

    assert executed == []


async def test_a_checkpoint_that_has_gone_since_it_was_found_fails_the_run(checkpoints: Checkpoints) -> None:
    steps = Steps(checkpoints)
    gone = Resumption(checkpoint_id="gone", attempt=1, mark=0)

    with pytest.raises(TargetError, match="goes on from is gone"):
        await steps.attempt(number=2, resumption=gone)

    assert steps.executed == []


class Broken:
    """Checkpoints that can neither be read nor erased."""

    def chain(self, partition: Partition, chain: str) -> CheckpointStorage:
        del partition, chain
        return BrokenChain()


class BrokenChain(ReadOnlyCheckpoints):
    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        raise OSError(workflow_name)

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        raise OSError(workflow_name)


async def test_checkpoints_that_cannot_be_read_now_are_not_taken_for_none() -> None:
    with pytest.raises(StoreUnavailable):
        await Steps(Broken()).target().resumption(SHARED, RUN)


async def test_what_cannot_be_erased_of_an_abandoned_run_is_left_to_retention(caplog: pytest.LogCaptureFixture) -> None:
    await Steps(Broken()).target().abandon(SHARED, RUN)

    assert "The checkpoints of a run that was given up could not be deleted" in caplog.messages


@pytest.mark.parametrize(
    ("make", "outlives"),
    [
        (lambda _: MemoryCheckpoints(), False),
        (FileCheckpoints, True),
    ],
)
def test_workflows_can_be_resumed_if_their_checkpoints_outlive_the_process(
    make: Callable[[Path], Checkpoints], outlives: bool, tmp_path: Path
) -> None:
    assert can_resume(Steps(make(tmp_path)).target()) is outlives


async def test_agents_cannot_be_resumed_and_have_nothing_to_abandon() -> None:
    target = AgentTarget(ScriptedAgent(["x"]))

    assert not can_resume(target)
    assert not isinstance(target, Resumable)
    await abandon(target, SHARED, RUN)


async def test_every_turn_leaves_one_row(database: Database) -> None:
    steps = Steps(SqlCheckpoints(database))
    session = AgentSession()

    for number in range(20):
        await steps.attempt(session, run_id=f"resp_{number}")

    assert await database.run(lambda c: c.scalar(sa.select(sa.func.count()).select_from(table))) == 20
