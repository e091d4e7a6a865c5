"""What workflows ask, and what becomes of answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest
from agent_framework import Content, Message, WorkflowEvent
from pydantic import BaseModel

from agent_framework_hosting.errors import WrongAnswer
from agent_framework_hosting.targets.base import Approval
from agent_framework_hosting.targets.questions import WorkflowQuestion


class Color(Enum):
    """One of two."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Verdict:
    """Fields, one of them optional."""

    approved: bool
    note: str = ""


class Address(BaseModel):
    """A model."""

    street: str


@dataclass
class Plan:
    """What an agent has said."""

    steps: list[Message]


class Odd:
    """What no JSON can be decoded into."""


def question(response_type: Any, asked: object = "which?") -> WorkflowQuestion:
    return WorkflowQuestion(
        WorkflowEvent.request_info(
            request_id="r1", source_executor_id="a clerk/1", request_data=asked, response_type=response_type
        )
    )


def test_an_answer_is_decoded_into_what_the_workflow_waits_for() -> None:
    assert question(Verdict).answer('{"approved": true}') == Verdict(approved=True)
    with pytest.raises(WrongAnswer):
        question(Verdict).answer("true")
    with pytest.raises(WrongAnswer):
        question(int).answer(Approval(is_approved=True))


@pytest.mark.parametrize(
    ("asked", "name", "shown"),
    [
        ("which?", "a_clerk_1", "which?"),
        ({"a": Color.RED}, "a_clerk_1", {"a": "Color.RED"}),
        (Verdict(approved=False), "Verdict", {"approved": False, "note": ""}),
        (Address(street="Hill"), "Address", {"street": "Hill"}),
        (Plan([Message("assistant", ["first"])]), "Plan", {"steps": ["first"]}),
    ],
)
def test_a_question_is_a_call_that_tells_what_is_asked_and_expected(asked: object, name: str, shown: object) -> None:
    content = question(bool, asked).content

    assert (content.type, content.call_id, content.name) == ("function_call", "r1", name)
    assert json.loads(str(content.arguments)) == {"request": shown, "response_schema": {"type": "boolean"}}


def test_an_approval_stays_one_and_is_answered_with_the_call_that_was_asked_for() -> None:
    call = Content.from_function_call("c1", "send", arguments="{}")
    asked = question(Content, Content.from_function_approval_request("r1", call))

    given: Any = asked.answer(Approval(is_approved=True, reason="fine"))

    assert asked.content.type == "function_approval_request"
    assert (given.type, given.approved, given.function_call.name) == ("function_approval_response", True, "send")
    assert given.additional_properties["reason"] == "fine"
    with pytest.raises(WrongAnswer):
        asked.answer("yes")


def test_a_call_of_an_agent_is_answered_with_its_result() -> None:
    asked = question(Content, Content.from_function_call("c1", "look_up", arguments='{"a": 1}'))

    given: Any = asked.answer("found")

    assert (asked.content.call_id, asked.content.name, asked.content.arguments) == ("r1", "look_up", '{"a": 1}')
    assert (given.type, given.call_id, given.result) == ("function_result", "c1", "found")


def test_a_question_that_nobody_can_answer_is_shown_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    content = question(Odd).content

    assert json.loads(str(content.arguments))["response_schema"] == {}
    assert "no text can be decoded into" in caplog.text
