"""Indexes and ids of the output."""

from __future__ import annotations

import json

import pytest

from agent_framework_hosting_responses.protocol.events import EventWriter
from agent_framework_hosting_responses.protocol.items.output import Output


def output() -> Output:
    numbers = iter(range(1, 99))
    return Output(EventWriter(), lambda prefix: f"{prefix}_{next(numbers)}")


def test_an_id_is_given_out_once() -> None:
    out = output()

    assert out.claim_id("message", "up") == "up"
    assert out.claim_id("message", "up") == "msg_1"
    assert out.claim_id("message", "") == "msg_2"
    assert out.claim_id("message", 7) == "msg_3"
    assert out.claim_id("novel") == "item_4"


@pytest.mark.parametrize("wanted", ["../x", "a b", "call:1", "x" * 257, "é"])
def test_an_id_that_no_request_could_send_back_is_replaced(wanted: str) -> None:
    assert output().claim_id("mcp_call", wanted) == "mcp_1"


def test_an_id_of_the_context_is_not_given_out_again() -> None:
    out = Output(EventWriter(), lambda prefix: f"{prefix}_new", taken=frozenset({"rs_1"}))

    assert out.claim_id("reasoning", "rs_1") == "rs_new"
    assert out.claim_id("reasoning", "rs_2") == "rs_2"


@pytest.mark.behaviour("B5")
def test_items_keep_the_order_in_which_they_were_announced() -> None:
    out = output()
    first, second = out.add({"id": "a"}), out.add({"id": "b"})

    out.finish(second, {"id": "b", "n": 2})
    out.write({"id": "c"})
    assert [item["id"] for item in out.items] == ["b", "c"]

    out.finish(first, {"id": "a", "n": 1})
    assert [item["id"] for item in out.items] == ["a", "b", "c"]
    assert json.loads(out.encoded) == out.items
    assert len(out) == 3


def test_without_events_the_items_are_the_same() -> None:
    out = Output(EventWriter(enabled=False), lambda prefix: prefix)

    out.write({"id": "a"})

    assert out.items == [{"id": "a"}]
    assert out.writer.take() == []
