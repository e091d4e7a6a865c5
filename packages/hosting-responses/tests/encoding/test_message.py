"""Message items: one life, parts of two kinds."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import Content

from agent_framework_hosting_responses.protocol.events import EventWriter
from agent_framework_hosting_responses.protocol.items.message import MessageItem
from agent_framework_hosting_responses.protocol.items.output import Output

REFUSAL = {"core": {"model_output_kind": "refusal"}}


@pytest.mark.behaviour("B2")
def test_text_goes_on_in_its_item_after_reasoning_and_calls(encode: Any, say: Any, send: Any) -> None:
    encoded = encode(
        say("one "),
        send(Content.from_text_reasoning(text="hm")),
        say("two "),
        send(Content.from_function_call("c1", "client", arguments="{}")),
        say("three"),
        client_tools=frozenset({"client"}),
    )

    assert [item["type"] for item in encoded.output] == ["message", "reasoning", "function_call"]
    assert encoded.text == "one two three"
    assert len(encoded.output[0]["content"]) == 1


@pytest.mark.behaviour("B4")
@pytest.mark.parametrize("marker", [REFUSAL, {"model_output_kind": "refusal"}])
def test_a_refusal_is_a_part_of_its_own_kind(marker: Any, encode: Any, say: Any) -> None:
    encoded = encode(
        say("Well. "), say("I can", additional_properties=marker), say("not.", additional_properties=marker)
    )

    assert encoded.output[0]["content"] == [
        {"type": "output_text", "text": "Well. ", "annotations": [], "logprobs": []},
        {"type": "refusal", "refusal": "I cannot."},
    ]
    assert encoded.deltas("refusal") == ["I can", "not."]


@pytest.mark.behaviour("B13")
def test_a_replaced_refusal_is_not_doubled(encode: Any, say: Any) -> None:
    encoded = encode(
        say("No", additional_properties=REFUSAL),
        say("No.", additional_properties=REFUSAL, merge_mode="replace"),
        say("Sorry"),
        say("No.", additional_properties=REFUSAL, merge_mode="replace"),
    )

    assert [part.get("refusal", part.get("text")) for part in encoded.output[0]["content"]] == ["No.", "Sorry"]


@pytest.mark.parametrize("place", ["content", "update"])
def test_the_phase_is_on_the_item_from_its_first_event(place: str, encode: Any, say: Any, send: Any) -> None:
    properties = {"phase": "commentary"}
    update = (
        say("a", additional_properties=properties)
        if place == "content"
        else send(Content.from_text("a"), additional_properties=properties)
    )

    encoded = encode(update)

    assert encoded.events[2]["item"]["phase"] == "commentary"
    assert encoded.output[0]["phase"] == "commentary"


def test_another_phase_is_another_item(encode: Any, say: Any) -> None:
    encoded = encode(
        say("hm", additional_properties={"phase": "commentary"}),
        say(" hm"),
        say("yes", additional_properties={"phase": "final_answer"}),
    )

    assert [(item["phase"], item["content"][0]["text"]) for item in encoded.output] == [
        ("commentary", "hm hm"),
        ("final_answer", "yes"),
    ]


def test_an_unknown_phase_is_left_out(encode: Any, say: Any) -> None:
    assert "phase" not in encode(say("a", additional_properties={"phase": "x"})).output[0]


def test_a_part_of_its_own_has_its_whole_life() -> None:
    writer = EventWriter()
    message = MessageItem(Output(writer, lambda prefix: f"{prefix}_1"))

    message.write_part("a", [])
    message.append("b", refusal=False)
    message.close("completed")

    kinds = [event.kind.removeprefix("response.") for event in writer.take()]
    part = ["content_part.added", "output_text.delta", "output_text.done", "content_part.done"]
    assert kinds == ["output_item.added", *part, *part, "output_item.done"]
