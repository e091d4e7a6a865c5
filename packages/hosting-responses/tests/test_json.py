"""JSON on one line, whatever the text holds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_framework_hosting_responses.protocol.json import decode_json, digest_of, encode_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(codec=None)),
    lambda children: st.lists(children) | st.dictionaries(st.text(st.characters(codec=None)), children),
    max_leaves=20,
)


@pytest.mark.behaviour("B12")
@pytest.mark.parametrize(
    "text", ["a\u2028b", "a\u2029b", "a\u0085b", "a\r\nb", "👩‍👩‍👧", "\ud83d", "half \udc00 and \u2028", "\x00\x1f"]
)
def test_every_text_stays_on_one_line_and_comes_back(text: str) -> None:
    data = encode_json({"delta": text})

    assert len(data.decode("utf-8").splitlines()) == 1
    assert json.loads(data) == {"delta": text}


@given(VALUES)
def test_every_value_comes_back(value: object) -> None:
    data = encode_json(value)

    assert json.loads(data) == decode_json(data) == value
    assert len(data.decode("utf-8").splitlines()) == 1


@given(st.dictionaries(st.text(st.characters(codec=None)), VALUES))
def test_values_are_told_apart_whatever_the_order_of_their_members(value: dict[str, object]) -> None:
    turned = dict(reversed(value.items()))

    assert digest_of(value) == digest_of(turned)
    assert digest_of(value) != digest_of({**value, "one": "more"} if "one" not in value else {})


def test_what_json_cannot_express_is_refused() -> None:
    with pytest.raises(TypeError):
        encode_json({"value": object()})
