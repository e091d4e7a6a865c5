"""What closes what while an answer is written."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import Content

from agent_framework_hosting_responses.protocol.events import EventWriter
from agent_framework_hosting_responses.protocol.items.draft import ERROR_NOTICE, RUN_FAILED, Draft, Failure
from agent_framework_hosting_responses.protocol.items.settings import EncoderOptions


def draft(**options: Any) -> Draft:
    return Draft(EventWriter(), EncoderOptions(**options), lambda prefix: f"{prefix}_1")


@pytest.mark.behaviour("C8")
@pytest.mark.parametrize(
    ("code", "known"), [("rate_limit_exceeded", "rate_limit_exceeded"), ("E1", "server_error"), (None, "server_error")]
)
def test_a_failure_has_a_code_that_the_wire_knows(code: Any, known: str) -> None:
    assert Failure.of(code) == Failure(code=known, message=RUN_FAILED)


def test_plain_text_may_go_straight_to_the_open_part_only() -> None:
    answer = draft()
    runs = [answer.fast_run]

    run = answer.open_message().open_part(refusal=False)
    runs.append(answer.fast_run)
    answer.open_reasoning(Content.from_text_reasoning(text="a"), encrypted=None, is_text=False)
    runs.append(answer.fast_run)
    answer.end_reasoning()
    runs.append(answer.fast_run)
    answer.fail_later(Content.from_error(message="m"))
    runs.append(answer.fast_run)

    assert runs == [None, run, None, run, None]


@pytest.mark.behaviour("C3")
def test_an_error_is_told_when_more_output_follows() -> None:
    answer = draft()
    answer.fail_later(Content.from_error(message="secret"))

    answer.before_output()
    answer.end_message("completed")

    assert answer.failure is None
    assert ERROR_NOTICE in str(answer.output.items)


def test_a_phase_holds_for_one_message() -> None:
    answer = draft()
    answer.enter_phase("commentary")
    answer.open_message()
    answer.end_message("completed")

    assert answer.open_message().phase is None
