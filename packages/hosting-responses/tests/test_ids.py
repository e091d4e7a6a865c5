"""Ids of the wire."""

from __future__ import annotations

import re

import pytest

from agent_framework_hosting_responses.protocol.ids import PREFIXES, new_id, new_item_id


@pytest.mark.parametrize("item_type", sorted(PREFIXES))
def test_an_item_id_begins_with_the_prefix_of_its_kind(item_type: str) -> None:
    assert re.fullmatch(rf"{PREFIXES[item_type]}_[0-9a-f]{{48}}", new_item_id(item_type))


def test_prefixes_do_not_collide() -> None:
    assert len(set(PREFIXES.values())) == len(PREFIXES)


def test_a_kind_without_a_prefix_gets_the_general_one() -> None:
    assert new_item_id("something_new").startswith("item_")


def test_ids_do_not_repeat() -> None:
    assert len({new_id("msg") for _ in range(10_000)}) == 10_000
