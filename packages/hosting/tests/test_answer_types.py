"""What becomes of the text that people send, by the type that a workflow waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from agent_framework import Content, Message
from pydantic import BaseModel

from agent_framework_hosting.errors import WrongAnswer
from agent_framework_hosting.targets.answer_types import AnswerType


class Color(Enum):
    """One of two."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Verdict:
    """Fields, one of them optional."""

    approved: bool
    note: str = ""


@dataclass
class Report:
    """Dataclasses in a dataclass."""

    verdict: Verdict
    others: list[Verdict] = field(default_factory=list)


@dataclass
class Tree:
    """A type that names itself."""

    children: list[Tree]


class Address(BaseModel):
    """A model."""

    street: str


@dataclass
class Feedback:
    """What is said to an agent."""

    messages: list[Message]


@dataclass
class Note:
    """One message, and more that need not be said."""

    text: Message
    others: list[Message] = field(default_factory=list)
    stars: int = 3


@dataclass
class Graded:
    """A message, and something else that is needed."""

    text: Message
    grade: int


class Odd:
    """What no JSON can be decoded into."""


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        (str, '"7"', '"7"'),
        (str, "", ""),
        (bool, "true", True),
        (bool, "no", False),
        (int, "7", 7),
        (float, "0.5", 0.5),
        (float, "7", 7.0),
        (list[str], '["x"]', ["x"]),
        (list[int | None], "[1, null]", [1, None]),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (dict, '{"a": [1]}', {"a": [1]}),
        (Verdict, '{"approved": true}', Verdict(approved=True)),
        (
            Report,
            '{"verdict": {"approved": true}, "others": [{"approved": false}]}',
            Report(Verdict(True), [Verdict(False)]),
        ),
        (Tree, '{"children": [{"children": []}]}', Tree([Tree([])])),
        (Address, '{"street": "Hill"}', Address(street="Hill")),
        (Color, "blue", Color.BLUE),
        (Color, '"blue"', Color.BLUE),
        (date, "2026-11-22", date(2026, 11, 22)),
        (Literal["a", "b"], "b", "b"),
        (bool | None, "null", None),
        (Optional[bool], "false", False),  # noqa: UP045  the older form, too
        (Union[int, str], "some", "some"),  # noqa: UP007  the older form, too
        (Address | Color, "red", Color.RED),
        (Annotated[int, "years"], "7", 7),
        (object, "[1]", [1]),
        (Any, "text", "text"),
        (Any, "NaN", "NaN"),
        (Any, "[" * 100_000, "[" * 100_000),
    ],
)
def test_text_is_decoded_into_the_type(kind: Any, given: str, taken: object) -> None:
    decoded = AnswerType(kind).decode(given)

    assert (type(decoded), decoded) == (type(taken), taken)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (bool, "perhaps"),
        (bool, "7"),
        (bool | None, ""),
        (int, "1.5"),
        (int, ""),
        (int, "NaN"),
        (int, "1e400"),
        (int, "9" * 5000),
        (int, "\0"),
        (float, "NaN"),
        (float, "nan"),
        (float, "-inf"),
        (float, "1e400"),
        (list[float], "[NaN]"),
        (list[float], "[1e400]"),
        (list[str], "[1]"),
        (list[str], "x"),
        (Verdict, "{}"),
        (Verdict, "[" * 100_000 + "]" * 100_000),
        (Tree, '{"children": [' * 10_000 + "]}" * 10_000),
        (dict, '{"a":' * 500 + "1" + "}" * 500),
        (Address, '{"street": 7}'),
        (Address, "Hill"),
        (Color, "green"),
        (Literal["a", "b"], "c"),
        (Graded, "good"),
        (Graded, '{"text": "good"}'),
        (Odd, "{}"),
    ],
)
def test_a_wrong_answer_is_refused_with_words_for_the_caller(kind: Any, given: str) -> None:
    with pytest.raises(WrongAnswer) as refused:
        AnswerType(kind).decode(given)

    assert "pydantic" not in str(refused.value)


def said(value: Any) -> object:
    """Return the value with texts in the place of messages."""
    match value:
        case Message() | Content():
            return value.text
        case list():
            return [said(item) for item in value]
        case dict():
            return {name: said(item) for name, item in value.items()}
        case Feedback() | Note() | Graded():
            return {name: said(item) for name, item in vars(value).items()}
    return value


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        (Message, '"7"', '"7"'),
        (Content, "{}", "{}"),
        (Message | None, '"hi"', "hi"),
        (list[Message], "hi", ["hi"]),
        (list[Message], '["a", "b"]', ["a", "b"]),
        (list[Message], "[]", []),
        (list[Message], "{}", ["{}"]),
        (list[Message], "[1]", ["[1]"]),
        (list[Content], '["a"]', ["a"]),
        (dict[str, Message], '{"a": "b"}', {"a": "b"}),
        (Feedback, "shorter, please", {"messages": ["shorter, please"]}),
        (Feedback, '{"messages": ["a", "b"]}', {"messages": ["a", "b"]}),
        (Feedback, '{"messages": []}', {"messages": []}),
        (Feedback, "7", {"messages": ["7"]}),
        (Note, "good", {"text": "good", "others": [], "stars": 3}),
        (Note, '{"text": "good", "stars": 5}', {"text": "good", "others": [], "stars": 5}),
        (Graded, '{"text": "good", "grade": 1}', {"text": "good", "grade": 1}),
        (list[Graded], '[{"text": "good", "grade": 1}]', [{"text": "good", "grade": 1}]),
    ],
)
def test_messages_are_their_text_wherever_they_are_waited_for(kind: Any, given: str, taken: object) -> None:
    assert said(AnswerType(kind).decode(given)) == taken


@pytest.mark.parametrize("given", ['{"messages": [7]}', '{"other": []}', "{}"])
def test_fields_that_do_not_fit_are_not_taken_for_what_is_said(given: str) -> None:
    with pytest.raises(WrongAnswer):
        AnswerType(Feedback).decode(given)


def test_messages_are_said_by_the_user() -> None:
    decoded: Any = AnswerType(Feedback).decode("hi")

    assert [message.role for message in decoded.messages] == ["user"]


def test_the_schema_has_text_in_the_place_of_messages() -> None:
    assert AnswerType(Message).schema == {"type": "string"}
    assert AnswerType(str).schema == {"type": "string"}
    assert AnswerType(list[Message]).schema == {"type": "array", "items": {"type": "string"}}
    feedback = AnswerType(Feedback).schema
    assert (feedback["title"], feedback["properties"]["messages"]["items"]) == ("Feedback", {"type": "string"})
    assert AnswerType(Odd).schema == {}


def test_what_no_text_can_be_decoded_into_is_known_before_it_is_asked() -> None:
    assert not AnswerType(Odd).is_decodable
    assert AnswerType(Feedback).is_decodable
    assert AnswerType(str).is_decodable
