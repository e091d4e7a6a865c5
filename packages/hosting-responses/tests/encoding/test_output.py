"""Indexes and ids of the output."""

from __future__ import annotations

import json

import pytest

from agent_framework_hosting_responses.protocol.events import EventWriter
from agent_framework_hosting_responses.protocol.items.output import Output
from agent_framework_hosting_responses.protocol.json import JsonObject


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


def test_items_of_an_earlier_attempt_keep_their_places_and_are_not_told_again() -> None:
    out = output()
    finished: JsonObject = {"type": "message", "id": "msg_a"}

    out.restore(finished, is_finished=True)
    out.restore({"type": "message", "id": "msg_b"}, is_finished=False)

    assert out.writer.take() == []
    assert out.items == [finished]
    assert json.loads(out.encoded) == [finished]
    assert out.add({"type": "message"}) == 2
    assert out.claim_id("message", "msg_b") == "msg_1"


def test_a_call_and_its_output_get_one_new_call_id_if_an_earlier_attempt_has_used_theirs() -> None:
    out = output()
    out.restore({"type": "shell_call", "id": "sh_a", "call_id": "c1"}, is_finished=True)

    call = out.identify({"type": "shell_call", "id": "sh_b", "call_id": "c1"})
    answer = out.identify({"type": "shell_call_output", "id": "sho_b", "call_id": "c1"})
    other = out.identify({"type": "shell_call", "id": "sh_c", "call_id": "c2"})

    assert call == {"id": "sh_b", "call_id": "call_1"}
    assert answer == {"id": "sho_b", "call_id": "call_1"}
    assert other == {"id": "sh_c"}
    assert out.minted_call_ids == {"call_1": "c1"}


def test_the_output_of_a_call_of_an_earlier_attempt_keeps_its_call_id() -> None:
    out = output()
    out.restore({"type": "shell_call", "id": "sh_a", "call_id": "c1"}, is_finished=True)

    assert out.identify({"type": "shell_call_output", "id": "sho_b", "call_id": "c1"}) == {"id": "sho_b"}
