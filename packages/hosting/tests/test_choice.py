from pathlib import Path
from typing import Any

import pytest
from agent_framework import Executor, WorkflowBuilder, WorkflowContext, handler

from agent_framework_hosting import ConfigurationError
from agent_framework_hosting.checkpoints import Checkpoints, MemoryCheckpoints
from agent_framework_hosting.directories import PathName
from agent_framework_hosting.targets.base import Target
from agent_framework_hosting.targets.choice import choose_target
from agent_framework_hosting.testing.agents import ScriptedAgent


class Upper(Executor):
    @handler
    async def upper(self, text: str, ctx: WorkflowContext[None, str]) -> None:
        await ctx.yield_output(text.upper())


def choose(hosted: object, location: PathName | None = None) -> Target:
    def checkpoints(_location: PathName | None) -> Checkpoints:
        return MemoryCheckpoints()

    return choose_target(hosted, checkpoint_location=location, checkpoints=checkpoints)


@pytest.mark.parametrize(
    ("hosted", "message"),
    [
        (3, "The target is a int: pass an agent, a Workflow, or a function"),
        (ScriptedAgent, "The target is the class ScriptedAgent: pass an instance"),
        (WorkflowBuilder(start_executor=Upper(id="u")), "Call its build"),
    ],
)
def test_what_cannot_be_hosted_is_refused_with_what_to_change(hosted: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        choose(hosted)


def test_checkpoints_of_an_agent_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="checkpoint_location is for workflows, and the target is an agent"):
        choose(ScriptedAgent("hi"), tmp_path)
