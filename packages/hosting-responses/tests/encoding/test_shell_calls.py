"""Call ids of shell calls: unique per kind, shared by a call and its output."""

from __future__ import annotations

import itertools

from agent_framework_hosting_responses.protocol.calls import Calls, Owner
from agent_framework_hosting_responses.protocol.items.shell_calls import ShellCalls


def book() -> ShellCalls:
    numbers = itertools.count(1)
    return ShellCalls(Calls(owner_of=lambda _name: Owner.CLIENT, mint=lambda: f"call_{next(numbers)}"))


def test_an_output_has_the_id_of_its_call() -> None:
    shells = book()

    assert shells.claim("s1") == "s1"
    assert shells.answer("s1") == "s1"


def test_an_id_used_twice_is_minted_for_call_and_output() -> None:
    shells = book()
    shells.claim("s1")
    shells.answer("s1")

    assert shells.claim("s1") == "call_1"
    assert shells.answer("s1") == "call_1"


def test_an_output_without_an_id_answers_the_last_call() -> None:
    shells = book()
    shells.claim(None)

    assert shells.answer(None) == "call_1"
    assert shells.answer(None) == "call_2"
