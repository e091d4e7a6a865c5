"""Numbering, JSON and runs of deltas."""

from __future__ import annotations

import json

import pytest

from agent_framework_hosting_responses.protocol.events import DeltaRun, EventWriter

PLACE = {"item_id": "msg_1", "output_index": 0}


def run_of(writer: EventWriter, *chunks: str) -> DeltaRun:
    run = DeltaRun(writer, "response.output_text.delta", PLACE)
    for chunk in chunks:
        run.append(chunk)
    return run


@pytest.mark.behaviour("B5")
def test_numbers_are_dense_across_all_ways_to_write_an_event() -> None:
    writer = EventWriter()

    writer.emit("response.a", {"x": 1})
    run_of(writer, "a")
    writer.emit_response("response.b", b"{}")

    events = writer.take()
    assert [json.loads(event.data)["sequence_number"] for event in events] == [0, 1, 2]
    assert [json.loads(event.data)["type"] for event in events] == [event.kind for event in events]


def test_numbers_can_go_on_after_those_of_an_earlier_attempt() -> None:
    writer = EventWriter(first=7)

    writer.emit("response.a", {})
    run_of(writer, "a")

    assert [json.loads(event.data)["sequence_number"] for event in writer.take()] == [7, 8]


def test_events_are_taken_once() -> None:
    writer = EventWriter()
    writer.emit("response.a", {})

    assert len(writer.take()) == 1
    assert writer.take() == []


def test_a_delta_has_the_members_of_its_place() -> None:
    writer = EventWriter()

    run_of(writer, "a")

    assert json.loads(writer.take()[0].data) == {
        "type": "response.output_text.delta",
        "sequence_number": 0,
        "delta": "a",
        **PLACE,
    }


@pytest.mark.behaviour("B11")
def test_a_delta_costs_as_many_bytes_at_the_end_of_a_long_text_as_at_its_beginning() -> None:
    writer = EventWriter()
    run = run_of(writer, "word ")
    first = writer.take()[0]

    for _ in range(5000):
        run.append("word ")

    last = writer.take()[-1]
    assert len(last.data) - len(first.data) == len("5000") - len("0")
    assert len(last.data) < 300


@pytest.mark.behaviour("B12")
@pytest.mark.parametrize("text", ["a\u2028b", "a\u2029b", "a\x85b", "x\r\ny", "😀", "\ud83d", "a\ud83db", 'q"\\', "\0"])
def test_any_text_survives_on_one_line(text: str) -> None:
    writer = EventWriter()

    run_of(writer, text)

    data = writer.take()[0].data
    assert len(data.decode("utf-8").splitlines()) == 1
    assert json.loads(data)["delta"] == text


@pytest.mark.behaviour("B13")
@pytest.mark.parametrize(
    ("sent", "replacement", "rest"),
    [
        (["Hel", "lo"], "Hello", []),
        (["Hel"], "Hello", ["lo"]),
        (["Hello "], "Hello", []),
        ([], "Hello", ["Hello"]),
    ],
)
def test_a_replacement_adds_only_what_was_not_sent(sent: list[str], replacement: str, rest: list[str]) -> None:
    writer = EventWriter()
    run = run_of(writer, *sent)
    writer.take()

    assert run.replace(replacement)
    assert [json.loads(event.data)["delta"] for event in writer.take()] == rest
    assert run.text == "".join(sent + rest)


@pytest.mark.behaviour("B13")
def test_a_replacement_may_stand_for_what_came_since_the_last_one() -> None:
    writer = EventWriter()
    run = run_of(writer, "one ")
    run.replace("one ")
    run.append("tw")

    assert run.replace("two")
    assert run.text == "one two"


def test_a_replacement_that_contradicts_what_was_sent_writes_nothing() -> None:
    writer = EventWriter()
    run = run_of(writer, "yes")
    writer.take()

    assert not run.replace("no")
    assert writer.take() == []
    assert run.text == "yes"


def test_a_writer_that_is_not_enabled_keeps_texts_and_builds_nothing() -> None:
    writer = EventWriter(enabled=False)

    writer.emit("response.a", {})
    writer.emit_response("response.b", b"{}")
    run = run_of(writer, "a", "b")

    assert writer.take() == []
    assert run.text == "ab"
