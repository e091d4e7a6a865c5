"""Which store gets the record of a turn, and what the record says."""

from __future__ import annotations

from typing import Any

import pytest

from agent_framework_hosting_responses.protocol.ids import new_id
from agent_framework_hosting_responses.protocol.request import parse_request
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore
from agent_framework_hosting_responses.turns import RESPONSE_ID, TurnStores

STORES = TurnStores(stored=MemoryResponseStore(), one_shots=MemoryResponseStore(), unstored=MemoryResponseStore())


@pytest.mark.parametrize(
    ("body", "is_known_early", "expected"),
    [
        ({}, False, STORES.one_shots),
        ({}, True, STORES.stored),
        ({"stream": True}, False, STORES.stored),
        ({"background": True}, False, STORES.stored),
        ({"conversation": "conv_1"}, False, STORES.stored),
        ({"store": False}, False, STORES.unstored),
        ({"store": False, "conversation": "conv_1"}, True, STORES.unstored),
    ],
)
def test_only_what_nobody_can_know_before_its_end_is_written_at_its_end(
    body: dict[str, Any], is_known_early: bool, expected: MemoryResponseStore
) -> None:
    request = parse_request({"input": "q", **body}, strict=False, hosted_tools="reject", new_id=new_id)

    assert STORES.pick(request, is_known_early=is_known_early) is expected


@pytest.mark.parametrize("name", ["", "../x", "a b", "a\x00", "é", "a" * 257, "a\n"])
def test_what_is_no_id_of_ours_never_gets_to_a_store(name: str) -> None:
    assert RESPONSE_ID.match(name) is None
    assert RESPONSE_ID.match("resp_" + "0" * 48) is not None
