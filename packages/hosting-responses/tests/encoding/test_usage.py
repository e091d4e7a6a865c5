"""Usage: summed over model calls, whichever way the framework reports it."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import Content, UsageDetails
from openai.types.responses import ResponseUsage

from agent_framework_hosting_responses.protocol.usage import UsageMeter

FIRST: UsageDetails = {"input_token_count": 10, "output_token_count": 5, "total_token_count": 15}
BOTH: UsageDetails = {"input_token_count": 30, "output_token_count": 12, "total_token_count": 42}


def totals(meter: UsageMeter) -> tuple[Any, ...]:
    body: dict[str, Any] = dict(meter.body or {})
    return body["input_tokens"], body["output_tokens"], body["total_tokens"]


@pytest.mark.behaviour("C1")
def test_nothing_reported_is_null() -> None:
    meter = UsageMeter()
    meter.add(None)
    meter.add({})
    meter.add({"provider.special": 3})

    assert meter.body is None


@pytest.mark.behaviour("C1")
def test_missing_counters_are_zero_and_the_total_is_their_sum() -> None:
    meter = UsageMeter()

    meter.add({"input_token_count": 3, "output_token_count": 4, "cache_read_input_token_count": None, "x": True})

    assert meter.body == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    }
    ResponseUsage.model_validate(meter.body)


def test_details_come_from_the_frameworks_own_names() -> None:
    meter = UsageMeter()

    meter.add(
        {
            "input_token_count": 1,
            "cache_read_input_token_count": 2,
            "cache_creation_input_token_count": 3,
            "reasoning_output_token_count": 4,
        }
    )

    body: dict[str, Any] = dict(meter.body or {})
    assert body["input_tokens_details"] == {"cached_tokens": 2, "cache_write_tokens": 3}
    assert body["output_tokens_details"] == {"reasoning_tokens": 4}


@pytest.mark.behaviour("C1")
def test_reports_add_up() -> None:
    meter = UsageMeter()

    meter.add(FIRST)
    meter.add(FIRST)

    assert totals(meter) == (20, 10, 30)


@pytest.mark.behaviour("C1")
def test_the_function_loops_cumulative_report_replaces_the_earlier_one() -> None:
    meter = UsageMeter()

    meter.add(FIRST, response_id="r1", replaces=True)
    meter.note_tool_result(None)
    meter.add(BOTH, response_id="r2", replaces=True)

    assert totals(meter) == (30, 12, 42)


def test_a_correction_of_the_same_model_call_replaces_even_downwards() -> None:
    meter = UsageMeter()

    meter.add(BOTH, response_id="r1", replaces=True)
    meter.add(FIRST, response_id="r1", replaces=True)

    assert totals(meter) == (10, 5, 15)


@pytest.mark.behaviour("C1")
def test_a_further_run_of_the_same_agent_adds() -> None:
    meter = UsageMeter()

    meter.add(FIRST, response_id="r1", replaces=True)
    meter.add(BOTH, response_id="r2", replaces=True)

    assert totals(meter) == (40, 17, 57)


def test_a_report_without_ids_that_counts_less_is_a_further_run() -> None:
    meter = UsageMeter()

    meter.add(BOTH, replaces=True)
    meter.add(FIRST, replaces=True)

    assert totals(meter) == (40, 17, 57)


@pytest.mark.behaviour("C1")
def test_agents_do_not_replace_each_others_reports() -> None:
    meter = UsageMeter()

    meter.add(FIRST, source="writer", replaces=True)
    meter.add(BOTH, source="editor", replaces=True)

    assert totals(meter) == (40, 17, 57)


@pytest.mark.behaviour("C1")
def test_usage_is_in_the_final_response_and_is_no_item(encode: Any, say: Any, send: Any) -> None:
    encoded = encode(say("a"), send(Content.from_usage(FIRST)), say("b"), send(Content.from_usage(FIRST)))

    assert encoded.response["usage"]["total_tokens"] == 30
    assert [item["type"] for item in encoded.output] == ["message"]
    assert encoded.text == "ab"
