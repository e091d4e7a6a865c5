"""Reasoning items in both forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, Content

ENCRYPTED = frozenset({"reasoning.encrypted_content"})


def think(text: str | None = None, **fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_text_reasoning(text=text, **fields)], role="assistant")


@pytest.mark.behaviour("B4")
def test_reasoning_is_a_summary_by_default(encode: Any, say: Any) -> None:
    encoded = encode(think("a "), think("b"), say("answer"))

    assert encoded.output[0] == {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "a b"}],
    }
    assert encoded.kinds[2:9] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]


@pytest.mark.behaviour("B4")
@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"additional_properties": {"reasoning_text": True}}, {}),
        ({"additional_properties": {"openai": {"reasoning_text": True}}}, {}),
        ({}, {"reasoning": "text"}),
    ],
    ids=["marker", "namespaced marker", "option"],
)
def test_raw_reasoning_is_content(fields: Any, options: Any, encode: Any) -> None:
    encoded = encode(think("a", **fields), think("b", **fields), **options)

    assert encoded.output[0]["content"] == [{"type": "reasoning_text", "text": "ab"}]
    assert encoded.output[0]["summary"] == []
    assert encoded.deltas("reasoning_text") == ["a", "b"]


def test_another_id_is_another_item(encode: Any) -> None:
    encoded = encode(think("a", id="x"), think("b", id="y"), think("c", id="y"))

    assert [item["summary"][0]["text"] for item in encoded.output] == ["a", "bc"]


def test_text_and_summary_of_one_item_are_parts_of_two_kinds(encode: Any) -> None:
    encoded = encode(think("raw", additional_properties={"reasoning_text": True}), think("short"))

    assert encoded.output[0]["content"][0]["text"] == "raw"
    assert encoded.output[0]["summary"][0]["text"] == "short"


def test_other_output_ends_reasoning_and_more_of_it_is_a_new_item(encode: Any, say: Any) -> None:
    encoded = encode(think("a", id="x"), say("answer"), think("b", id="x"))

    assert [item["type"] for item in encoded.output] == ["reasoning", "message", "reasoning"]


@pytest.mark.behaviour("B13")
def test_the_whole_summary_at_the_end_does_not_double_it(encode: Any) -> None:
    encoded = encode(think("a "), think("b"), think("a b", merge_mode="replace"))

    assert encoded.output[0]["summary"] == [{"type": "summary_text", "text": "a b"}]


def test_another_summary_instead_is_another_part(encode: Any) -> None:
    encoded = encode(think("a"), think("b", merge_mode="replace"))

    assert [part["text"] for part in encoded.output[0]["summary"]] == ["a", "b"]


def test_encrypted_content_is_told_only_when_included(encode: Any) -> None:
    included = encode(think("a", protected_data="cipher"), include=ENCRYPTED)
    hidden = encode(think("a", protected_data="cipher"))

    assert included.output[0]["encrypted_content"] == "cipher"
    assert included.events[2]["item"]["encrypted_content"] == "cipher"
    assert "encrypted_content" not in hidden.output[0]


def test_encrypted_content_alone_is_an_item_when_included(encode: Any) -> None:
    assert encode(think(protected_data="cipher"), include=ENCRYPTED).output[0]["summary"] == []
    assert encode(think(protected_data="cipher")).output == []


def test_the_last_encrypted_content_counts(encode: Any) -> None:
    encoded = encode(think(protected_data="early", id="x"), think("", protected_data="late", id="x"), include=ENCRYPTED)

    assert encoded.output[0]["encrypted_content"] == "late"


def test_encrypted_content_that_comes_after_its_item_is_left_out(encode: Any, say: Any) -> None:
    encoded = encode(think("a", id="x"), say("b"), think(protected_data="late", id="x"), include=ENCRYPTED)

    assert [item["type"] for item in encoded.output] == ["reasoning", "message"]


def test_the_providers_id_is_kept_because_encrypted_content_belongs_to_it(encode: Any) -> None:
    raw = SimpleNamespace(type="response.reasoning_summary_text.delta", summary_index=0)

    assert encode(think("a", id="rs_up", raw_representation=raw)).output[0]["id"] == "rs_up"
    assert encode(think("a", id="rs_up")).output[0]["id"] == "rs_1"
    assert encode(think("a", id="other", raw_representation=raw)).output[0]["id"] == "rs_1"


def test_empty_reasoning_is_no_item(encode: Any) -> None:
    assert encode(think(""), think(None)).output == []
