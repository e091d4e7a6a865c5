"""How text and reasoning contents continue, replace or open items."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from agent_framework import Content

from agent_framework_hosting_responses.protocol.items.prose import is_refusal, replacing


@pytest.mark.behaviour("B13")
@pytest.mark.parametrize("replacement", ["Hello", "Hello world", "Hel"])
def test_a_replacement_of_the_same_text_stays_in_its_item(replacement: str, encode: Any, say: Any) -> None:
    encoded = encode(say("Hel"), say("lo"), say(replacement, merge_mode="replace"), say("!"))

    longest = max(("Hello", replacement), key=len)
    assert encoded.text == longest + "!"
    assert len(encoded.output) == 1


@pytest.mark.behaviour("B13")
def test_snapshots_of_a_growing_text_become_deltas(encode: Any, say: Any) -> None:
    encoded = encode(*[say(text, merge_mode="replace") for text in ("a", "ab", "abc")])

    assert encoded.deltas() == ["a", "b", "c"]


@pytest.mark.behaviour("B13")
def test_another_text_instead_is_another_item(encode: Any, say: Any) -> None:
    encoded = encode(say("yes"), say("no", merge_mode="replace"))

    assert [item["content"][0]["text"] for item in encoded.output] == ["yes", "no"]


def test_the_providers_next_part_is_a_part(encode: Any, say: Any) -> None:
    added = SimpleNamespace(type="response.content_part.added")

    encoded = encode(
        say("one"),
        say("one", merge_mode="replace"),
        say("", raw_representation=added),
        say("two"),
        say("two", merge_mode="replace"),
    )

    assert [part["text"] for part in encoded.output[0]["content"]] == ["one", "two"]


def test_replacing_joins_texts_and_leaves_the_given_contents_alone() -> None:
    given = [Content.from_text("a"), Content.from_function_result("c"), Content.from_text("b")]

    contents = replacing(given)

    assert [(content.type, content.text, content.merge_mode) for content in contents] == [
        ("text", "ab", "replace"),
        ("function_result", None, None),
    ]
    assert [content.text for content in given] == ["a", None, "b"]


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        (None, False),
        ({"core": {"model_output_kind": "refusal"}}, True),
        ({"model_output_kind": "refusal"}, True),
        ({"core": "x"}, False),
        ({"model_output_kind": "text"}, False),
    ],
)
def test_a_refusal_is_known_by_its_marker(properties: Any, expected: bool) -> None:
    assert is_refusal(Content.from_text("a", additional_properties=properties)) is expected
