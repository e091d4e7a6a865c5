"""The shapes in which a workflow is offered what a caller has sent."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import Content, Message, Workflow, WorkflowBuilder, WorkflowContext, executor

from agent_framework_hosting.errors import ConfigurationError
from agent_framework_hosting.targets.inputs import input_for

CONVERSATION = [Message("system", ["be brief"]), Message("user", ["one"]), Message("user", ["two"])]


def taking(kind: Any) -> Workflow:
    @executor(id="taking", input=kind, workflow_output=str)
    async def take(given: Any, ctx: WorkflowContext[Any, str]) -> None:
        await ctx.yield_output(str(given))

    return WorkflowBuilder(start_executor=take).build()


def shown(shape: object) -> str:
    text = shape.text if isinstance(shape, Message) else shape
    return "list" if isinstance(shape, list) else f"{type(shape).__name__} {text}"


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        (list[Message], CONVERSATION, "list"),
        (Message, [Message("user", ["hi"])], "Message hi"),
        (Message, CONVERSATION, "Message one two"),
        (str, CONVERSATION, "str one\ntwo"),
        (str, [Message("assistant", ["mine"])], "str mine"),
        (str | int, 7, "int 7"),
        (dict[str, int], {"a": 1}, "dict {'a': 1}"),
    ],
)
def test_input_takes_the_first_shape_that_the_start_executor_accepts(kind: Any, given: Any, taken: str) -> None:
    assert shown(input_for(taking(kind), given)) == taken


@pytest.mark.parametrize(
    ("kind", "given"),
    [(int, CONVERSATION), (str, [Message("user", [Content.from_uri("https://x/i.png", media_type="image/png")])])],
)
def test_input_that_fits_no_shape_is_refused_with_what_is_accepted(kind: Any, given: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"The start executor 'taking' accepts {kind.__name__}, not list"):
        input_for(taking(kind), given)


def test_contents_that_a_text_workflow_cannot_take_are_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = Content.from_uri("https://x/i.png", media_type="image/png")

    assert input_for(taking(str), [Message("user", ["look", image])]) == "look"
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "The workflow takes text only; other contents were left out."
    ]
