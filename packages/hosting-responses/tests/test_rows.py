"""Records as columns: nothing is lost, nothing is stored twice, and no text is more than a column can hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus
from agent_framework_hosting_responses.protocol.json import JsonObject, decode_json, encode_json
from agent_framework_hosting_responses.stores.base import ResponseRecord
from agent_framework_hosting_responses.stores.rows import (
    columns_of,
    decode_items,
    decode_notes,
    encode_items,
    encode_notes,
    is_text,
    item_columns,
    key_text,
    record_of,
)

# Every character there is, surrogates included.
TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ITEMS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=3)


def joined(value: Any) -> Any:
    """`value` with pairs of surrogates as the characters they are in JSON."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    if isinstance(value, list):
        return [joined(each) for each in value]
    if isinstance(value, dict):
        return {joined(key): joined(each) for key, each in value.items()}
    return value


@given(ITEMS, ITEMS, TEXTS)
def test_a_record_comes_back_from_its_columns(inputs: list[Any], outputs: list[Any], text: str) -> None:
    record = ResponseRecord(
        key=RunKey(Partition("p"), RunId("resp_1")),
        status=RunStatus.COMPLETED,
        created_at=1,
        body=encode_json({"id": text, "output": outputs}),
        previous_response_id="resp_0",
        input=tuple(joined(inputs)),
        output=tuple(joined(outputs)),
        approvals={"mcpr_1": {"text": joined(text)}},
        call_ids={"call_1": joined(text)},
    )

    columns = columns_of(record, stored_at=1.5)

    assert record_of(SimpleNamespace(**columns)) == record
    assert columns["stored_at"] == 1.5


@pytest.mark.parametrize("text", ["plain", "é \u2028 👩\u200d👧", "half \ud83d"])
def test_the_output_is_not_stored_twice(text: str) -> None:
    output: tuple[JsonObject, ...] = ({"id": "msg_1", "text": text}, {"id": "msg_2", "text": "plain é"})
    # As the encoder of responses writes it: item by item.
    body = b'{"id":"resp_1","output":[' + b",".join(map(encode_json, output)) + b"]}"
    record = ResponseRecord(
        key=RunKey(Partition("p"), RunId("resp_1")),
        status=RunStatus.COMPLETED,
        created_at=1,
        body=body,
        output=output,
    )

    columns = columns_of(record, stored_at=1)

    assert columns["body"] == b'{"id":"resp_1","output":'
    assert record_of(SimpleNamespace(**columns)).body == body


def test_a_body_with_another_output_stays_whole() -> None:
    record = ResponseRecord(
        key=RunKey(Partition("p"), RunId("resp_1")), status=RunStatus.FAILED, created_at=1, body=b'{"output":[1]}'
    )

    assert columns_of(record, stored_at=1)["body"] == record.body


@given(ITEMS)
def test_items_come_back_as_they_were(items: list[Any]) -> None:
    assert decode_items(encode_items(items)) == tuple(joined(items))


def test_no_notes_take_no_bytes() -> None:
    assert encode_notes({}, {}) is None
    assert decode_notes(None) == ({}, {})
    assert decode_notes(encode_notes({"a": {"b": "\ud800"}}, {"c": "d"})) == ({"a": {"b": "\ud800"}}, {"c": "d"})


@given(TEXTS)
def test_what_a_column_can_hold_is_what_utf_8_can_say_without_nul(text: str) -> None:
    is_fine = "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)

    assert is_text(text) == is_fine
    assert is_text(None, "a", text) == is_fine
    assert is_text(key_text(text))


@pytest.mark.parametrize("text", ["", "é", "\0", "\ud800", "x" * 512, "x" * 513, "é" * 10_000])
def test_a_key_fits_in_an_index(text: str) -> None:
    key = key_text(text)

    # 2,704 bytes are what PostgreSQL takes.
    assert len(key.encode()) <= 2_100
    assert key_text(text + "x") != key


def test_notes_go_with_the_items_they_are_about() -> None:
    items: list[JsonObject] = [{"id": "mcpr_1"}, {"id": "fc_1", "call_id": "call_1"}, {"id": "msg_1"}]

    columns = item_columns(items, approvals={"mcpr_1": {"a": 1}}, call_ids={"call_1": "own", "call_2": "other"})

    assert [column["item_id"] for column in columns] == ["mcpr_1", "fc_1", "msg_1"]
    assert [decode_json(column["item"]) for column in columns if isinstance(column["item"], bytes)] == items
    notes = [column["notes"] for column in columns]
    assert notes == [encode_notes({"mcpr_1": {"a": 1}}, {}), encode_notes({}, {"call_1": "own"}), None]
