"""Events of a workflow as updates: shapes, messages, repetitions, turns."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pytest
from agent_framework import (
    AgentExecutorResponse,
    AgentResponse,
    AgentResponseUpdate,
    Content,
    Message,
    WorkflowEvent,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agent_framework_hosting.targets.outputs import WorkflowOutputs

Event = WorkflowEvent[Any]


def output(data: object, executor: str = "writer", *, kind: Any = "output") -> Event:
    return WorkflowEvent(kind, data=data, executor_id=executor)


def completed(executor: str = "writer") -> Event:
    return WorkflowEvent("executor_completed", executor_id=executor)


END: Event = WorkflowEvent("superstep_completed", iteration=1)


def delta(text: str, **values: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_text(text)], **{"role": "assistant", **values})


def assistant(text: str, **values: Any) -> Message:
    return Message("assistant", [text], **values)


def fed(events: Iterable[Event], *, intermediate: Any = "hide") -> list[AgentResponseUpdate]:
    outputs = WorkflowOutputs(intermediate=intermediate)
    return [update for event in events for update in outputs.feed(event)]


def messages(updates: Iterable[AgentResponseUpdate]) -> list[tuple[str | None, str]]:
    """Return author and text of each message, cut where a client of the host sees a new one."""
    runs = groupby(updates, key=lambda update: (update.author_name, update.message_id, update.role))
    return [(key[0], "".join(update.text for update in run)) for key, run in runs]


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    name: str
    size: int = 1


@dataclass
class Brief:
    topic: str
    models: list[Model] = field(default_factory=list)
    tags: frozenset[str] = frozenset()
    colour: Colour = Colour.RED


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("text", [("writer", "text")]),
        (Content.from_text("content"), [("writer", "content")]),
        (assistant("message"), [("writer", "message")]),
        (assistant("message", author_name="ann"), [("ann", "message")]),
        (delta("update"), [("writer", "update")]),
        (AgentResponse(messages=[assistant("one"), assistant("two")]), [("writer", "one"), ("writer", "two")]),
        (
            AgentExecutorResponse("agent", AgentResponse(messages=[assistant("one")]), []),
            [("writer", "one")],
        ),
        (["a", assistant("b"), Content.from_text("c")], [("writer", "a"), ("writer", "b"), ("writer", "c")]),
        ([Content.from_text("a"), Content.from_text("b")], [("writer", "ab")]),
        ([], []),
        (None, []),
        (7, [("writer", "7")]),
        (Colour.RED, [("writer", "Colour.RED")]),
    ],
)
def test_every_shape_of_output_becomes_messages_of_its_executor(data: object, expected: list[Any]) -> None:
    assert messages(fed([output(data)])) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"name": "é", "n": [1, None, True]}, {"name": "é", "n": [1, None, True]}),
        ([1, {"a": 2}], [1, {"a": 2}]),
        (Model(name="m"), {"name": "m", "size": 1}),
        (
            Brief("t", [Model(name="m")], frozenset({"x"})),
            {"topic": "t", "models": [{"name": "m", "size": 1}], "tags": ["x"], "colour": "Colour.RED"},
        ),
    ],
)
def test_structures_come_out_as_json(data: object, expected: object) -> None:
    (update,) = fed([output(data)])

    assert json.loads(update.text) == expected


def test_a_type_is_no_structure() -> None:
    assert [update.text for update in fed([output(Brief), output(Model)])] == [str(Brief), str(Model)]


def test_pieces_without_an_id_belong_to_the_message_in_progress() -> None:
    updates = fed([output(delta("a")), output(delta("b")), output(delta("c", role=None))])

    assert messages(updates[:2]) == [("writer", "ab")]
    assert len({update.message_id for update in updates}) == 1


def test_a_piece_without_an_id_after_one_with_an_id_keeps_it() -> None:
    updates = fed([output(delta("a", message_id="m1")), output(delta("b")), output(delta("c", message_id="m2"))])

    assert [update.message_id for update in updates] == ["m1", "m1", "m2"]


def test_two_answers_of_one_executor_are_two_messages() -> None:
    events = [output(delta("a")), completed(), END, output(delta("b")), completed(), END]

    assert messages(fed(events)) == [("writer", "a"), ("writer", "b")]


def test_a_piece_after_a_whole_output_begins_a_message() -> None:
    events = [output(delta("a")), output("whole"), output(delta("b"))]

    assert messages(fed(events)) == [("writer", "a"), ("writer", "whole"), ("writer", "b")]


def test_a_tool_result_between_two_texts_parts_them() -> None:
    result = AgentResponseUpdate(contents=[Content.from_function_result("c1", result="42")], role="tool")

    updates = fed([output(delta("a")), output(result), output(delta("b"))])

    assert len({update.message_id for update in updates}) == 3


def test_the_executors_own_update_is_not_changed() -> None:
    update = delta("a")

    fed([output(update)])
    fed([output(update, kind="intermediate")], intermediate="commentary")

    assert (update.author_name, update.message_id, update.additional_properties) == (None, None, None)


@pytest.mark.behaviour("F7")
@pytest.mark.parametrize("teller", ["writer", "aggregator"])
@pytest.mark.parametrize("message_id", [None, "m1"])
def test_the_whole_response_after_its_stream_is_not_told_again(teller: str, message_id: str | None) -> None:
    streamed = [output(delta(text, author_name="ann", message_id=message_id)) for text in ("hel", "lo")]
    whole = AgentResponse(messages=[assistant("hello", author_name="ann", message_id=message_id)])
    events = [*streamed, completed(), output(whole, teller)] if teller != "writer" else [*streamed, output(whole)]

    assert messages(fed(events)) == [("ann", "hello")]


def test_calls_and_results_of_a_streamed_turn_are_not_told_again() -> None:
    turn = [
        AgentResponseUpdate(contents=[Content.from_function_call("c1", "look", arguments='{"a"')], role="assistant"),
        AgentResponseUpdate(contents=[Content.from_function_call("c1", "look", arguments=":1}")], role="assistant"),
        AgentResponseUpdate(contents=[Content.from_function_result("c1", result="42")], role="tool"),
        delta("It is 42."),
    ]

    updates = fed([*(output(update) for update in turn), output(AgentResponse.from_updates(turn))])

    assert [content.type for update in updates for content in update.contents] == [
        "function_call",
        "function_call",
        "function_result",
        "text",
    ]


def test_a_conversation_put_out_at_the_end_adds_only_what_was_not_told() -> None:
    conversation = [Message("user", ["hi"]), assistant("one", author_name="a"), assistant("two", author_name="b")]
    events = [output(delta("one", author_name="a"), "a"), completed("a"), output(conversation, "end")]

    assert messages(fed(events)) == [("a", "one"), ("b", "two")]


@pytest.mark.parametrize(
    "other",
    [
        assistant("hello!", author_name="ann"),
        assistant("hello", author_name="bob"),
        assistant("hello", author_name="ann", message_id="m2"),
        "hello",
    ],
)
def test_another_message_is_told_even_if_it_resembles_an_earlier_one(other: object) -> None:
    events = [output(delta("hello", author_name="ann", message_id="m1")), completed(), output(other, "other")]

    assert len(messages(fed(events))) == 2


def test_one_telling_excuses_one_repetition_only() -> None:
    whole = assistant("ok", author_name="ann")
    events = [output(delta("ok", author_name="ann")), completed(), output(whole, "b"), output(whole, "c")]

    assert [text for _, text in messages(fed(events))] == ["ok", "ok"]


def test_intermediate_outputs_are_hidden_by_default_and_do_not_count_as_told() -> None:
    events = [output(delta("a"), kind="intermediate"), completed(), output(assistant("a"), "end")]

    assert messages(fed(events)) == [("end", "a")]


@pytest.mark.parametrize("kind", ["intermediate", "data"])
def test_intermediate_outputs_are_marked_as_commentary_on_request(kind: str) -> None:
    updates = fed([output("thinking", kind=kind), completed(), output("answer", "end")], intermediate="commentary")

    assert [(u.text, (u.additional_properties or {}).get("phase")) for u in updates] == [
        ("thinking", "commentary"),
        ("answer", None),
    ]


def test_commentary_keeps_the_properties_that_were_there() -> None:
    (update,) = fed(
        [output(delta("a", additional_properties={"x": 1}), kind="intermediate")], intermediate="commentary"
    )

    assert update.additional_properties == {"x": 1, "phase": "commentary"}


def test_executors_that_speak_at_once_come_out_one_after_the_other() -> None:
    events = [
        output(delta("a1"), "a"),
        output(delta("b1"), "b"),
        output("c", "c"),
        output(delta("a2"), "a"),
        completed("c"),
        output(delta("b2"), "b"),
        completed("a"),
        output(delta("b3"), "b"),
        completed("b"),
        END,
    ]
    outputs = WorkflowOutputs(intermediate="hide")

    told = [[update.text for update in outputs.feed(event)] for event in events]

    # b's text comes live again as soon as a is done.
    assert told == [["a1"], [], [], ["a2"], [], [], ["b1", "b2"], ["b3"], ["c"], []]


def test_an_executor_that_waits_and_speaks_again_is_heard_live_once_it_is_its_turn() -> None:
    outputs = WorkflowOutputs(intermediate="hide")
    events = [
        output(delta("a1"), "a"),
        output(delta("b1"), "b"),
        completed("b"),
        output(delta("b2"), "b"),
        output(delta("c1"), "c"),
        completed("a"),
        output(delta("b3"), "b"),
    ]

    told = [[update.text for update in outputs.feed(event)] for event in events]

    assert told == [["a1"], [], [], [], [], ["b1", "b2"], ["b3"]]


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=40),
)
def test_however_executors_interleave_nothing_is_lost_cut_or_reordered(steps: list[tuple[str, bool]]) -> None:
    events: list[Event] = []
    expected: dict[str, list[str]] = {}
    finished: set[str] = set()
    for number, (executor, is_last) in enumerate(steps):
        if executor in finished:
            continue
        events.append(output(delta(f"{executor}{number} "), executor))
        expected.setdefault(executor, []).append(f"{executor}{number} ")
        if is_last:
            finished.add(executor)
            events.append(completed(executor))

    told = messages(fed([*events, END]))

    assert dict(told) == {executor: "".join(texts) for executor, texts in expected.items()}
    assert len(told) == len(expected)


def test_a_request_for_input_is_a_call_of_its_own_by_whoever_asks() -> None:
    request: Event = WorkflowEvent.request_info(
        request_id="r1", source_executor_id="writer", request_data="which?", response_type=str
    )

    (update,) = fed([request])
    (call,) = update.contents
    assert (update.author_name, call.type, call.call_id, call.name) == ("writer", "function_call", "r1", "writer")
    assert call.user_input_request


def test_an_error_that_an_executor_reports_and_survives_is_logged_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = [WorkflowEvent.error(ValueError("recoverable")), output("answer")]

    assert messages(fed(events)) == [("writer", "answer")]
    assert [record.message for record in caplog.records] == ["An executor reported an error."]


def test_other_events_say_nothing() -> None:
    events: list[Event] = [
        WorkflowEvent.started(),
        WorkflowEvent.executor_invoked("writer"),
        WorkflowEvent.warning("careful"),
        END,
    ]

    assert fed(events) == []
