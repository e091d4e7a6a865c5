from pathlib import Path
from typing import Any

import pytest
from agent_framework import Executor, Workflow, WorkflowBuilder, WorkflowContext, handler, workflow

from agent_framework_hosting import ConfigurationError
from agent_framework_hosting.checkpoints import (
    CheckpointLocation,
    Checkpoints,
    FileCheckpoints,
    MemoryCheckpoints,
)
from agent_framework_hosting.targets.base import Target
from agent_framework_hosting.targets.choice import choose_target
from agent_framework_hosting.targets.workflow import WorkflowTarget
from agent_framework_hosting.testing.agents import ScriptedAgent


class Upper(Executor):
    @handler
    async def upper(self, text: str, ctx: WorkflowContext[None, str]) -> None:
        await ctx.yield_output(text.upper())


def upper() -> WorkflowBuilder:
    return WorkflowBuilder(start_executor=Upper(id="upper"), name="upper")


async def later() -> Workflow:
    return upper().build()


@workflow
async def shout(text: str) -> str:
    """Say it as a functional workflow."""
    return text.upper()


IN_THE_HOST = MemoryCheckpoints()


def choose(hosted: object, location: CheckpointLocation | None = None) -> Target:
    def checkpoints(given: CheckpointLocation | None) -> Checkpoints:
        assert given is location
        return IN_THE_HOST

    return choose_target(hosted, checkpoint_location=location, checkpoints=checkpoints)


@pytest.mark.parametrize(
    ("hosted", "message"),
    [
        (3, "The target is a int: pass an agent, a Workflow, a builder of one, or a function"),
        (ScriptedAgent, "The target is the class ScriptedAgent: pass an instance"),
        (
            WorkflowBuilder(start_executor=ScriptedAgent("hi")).build().as_agent("inner"),
            "'inner' is a workflow used as an agent",
        ),
    ],
)
def test_what_cannot_be_hosted_is_refused_with_what_to_change(hosted: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        choose(hosted)


@pytest.mark.parametrize("hosted", [upper().build(), upper(), lambda: upper().build(), later, shout, shout.build()])
def test_a_workflow_a_builder_and_functions_are_workflows(hosted: Any) -> None:
    assert choose(hosted).kind == "workflow"


def test_an_async_function_gives_its_name() -> None:
    assert choose(later).name == "later"


def test_checkpoints_of_an_agent_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = choose(ScriptedAgent("hi"), tmp_path)

    assert target.kind == "agent"
    assert "checkpoint_location is for workflows, and the target is an agent: it is not used." in caplog.messages


def test_a_workflow_target_keeps_its_checkpoints_in_the_host_unless_it_has_a_place_of_its_own(tmp_path: Path) -> None:
    plain, filed = WorkflowTarget(upper(), name="plain"), WorkflowTarget(upper(), checkpoint_location=tmp_path)

    chosen, kept = choose(plain), choose(filed)

    assert isinstance(chosen, WorkflowTarget)
    assert (chosen.checkpoints, chosen.name) == (IN_THE_HOST, "plain")
    # Another host may have it, too.
    assert plain.checkpoints is not IN_THE_HOST
    assert kept is filed
    assert isinstance(filed.checkpoints, FileCheckpoints)


def test_a_checkpoint_location_beside_one_that_a_target_has_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    choose(WorkflowTarget(upper(), checkpoint_location=tmp_path), tmp_path)

    assert "the target is a target of its own: it is not used." in caplog.text
