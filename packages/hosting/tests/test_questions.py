"""What workflows ask, and what becomes of answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

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


class Odd:
    """What no JSON can be decoded into."""


def question(response_type: Any, asked: object = "which?") -> WorkflowQuestion:
    return WorkflowQuestion(
        WorkflowEvent.request_info(
            request_id="r1", source_executor_id="a clerk/1", request_data=asked, response_type=response_type
        )
    )


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        (str, '"7"', '"7"'),
        (bool, "true", True),
        (bool, "no", False),
        (int, "7", 7),
        (float, "0.5", 0.5),
        (list[str], '["x"]', ["x"]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (dict, '{"a": [1]}', {"a": [1]}),
        (Verdict, '{"approved": true}', Verdict(approved=True)),
        (Address, '{"street": "Hill"}', Address(street="Hill")),
        (Color, "blue", Color.BLUE),
        (Color, '"blue"', Color.BLUE),
        (Literal["a", "b"], "b", "b"),
        (bool | None, "null", None),
        (int | str, "some", "some"),
        (object, "[1]", [1]),
        (Any, "text", "text"),
    ],
)
def test_an_answer_is_decoded_into_what_the_workflow_waits_for(kind: Any, given: str, taken: object) -> None:
    decoded = question(kind).answer(given)

    assert (type(decoded), decoded) == (type(taken), taken)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (bool, "perhaps"),
        (bool, "7"),
        (int, "1.5"),
        (int, ""),
        (list[str], "[1]"),
        (list[str], "x"),
        (Verdict, "{}"),
        (Address, '{"street": 7}'),
        (Address, "Hill"),
        (Color, "green"),
        (Odd, "{}"),
        (int, Approval(is_approved=True)),
    ],
)
def test_a_wrong_answer_is_refused_with_words_for_the_caller(kind: Any, given: Any) -> None:
    with pytest.raises(WrongAnswer) as refused:
        question(kind).answer(given)

    assert "pydantic" not in str(refused.value)


def test_what_is_said_to_an_agent_is_said_by_the_user() -> None:
    messages: Any = question(list[Message]).answer("{}")
    message: Any = question(Message).answer("hi")
    content: Any = question(Content).answer("ho")

    assert [(message.role, message.text) for message in messages] == [("user", "{}")]
    assert (message.text, content.text) == ("hi", "ho")


@pytest.mark.parametrize(
    ("asked", "name", "shown"),
    [
        ("which?", "a_clerk_1", "which?"),
        ({"a": Color.RED}, "a_clerk_1", {"a": "Color.RED"}),
        (Verdict(approved=False), "Verdict", {"approved": False, "note": ""}),
        (Address(street="Hill"), "Address", {"street": "Hill"}),
    ],
)
def test_a_question_is_a_call_that_tells_what_is_asked_and_expected(asked: object, name: str, shown: object) -> None:
    content = question(bool, asked).content

    assert (content.type, content.call_id, content.name) == ("function_call", "r1", name)
    assert json.loads(str(content.arguments)) == {"request": shown, "response_schema": {"type": "boolean"}}
    assert json.loads(str(question(Odd).content.arguments))["response_schema"] == {}


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
