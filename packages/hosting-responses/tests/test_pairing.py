"""Calls and their outputs, approval requests and their answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_framework_hosting_responses.protocol import errors
from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.protocol.pairing import CALL_OF_OUTPUT, check_pairing, without_unanswered_calls

KINDS = [(call, output) for output, call in CALL_OF_OUTPUT.items()]
SAID: Any = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}


def call(name: str = "call_1", kind: str = "function_call", **fields: Any) -> Any:
    return {"type": kind, "id": f"fc_{name}", "call_id": name, **fields}


def output(name: str = "call_1", kind: str = "function_call_output") -> Any:
    return {"type": kind, "id": f"fco_{name}", "call_id": name, "output": "1"}


def approval(name: str = "mcpr_1") -> Any:
    return {"type": "mcp_approval_request", "id": name}


def answered(name: str = "mcpr_1", **fields: Any) -> Any:
    return {
        "type": "mcp_approval_response",
        "id": f"mcpa_{name}",
        "approval_request_id": name,
        "approve": True,
        **fields,
    }


def refusal(items: Any, context: Any = (), must_answer: Any = (), asked: Any = ()) -> str | None:
    try:
        check_pairing(items, context, must_answer=must_answer, asked=asked)
    except RequestError as error:
        return error.message
    return None


@pytest.mark.parametrize(("of_call", "of_output"), KINDS)
def test_an_output_may_answer_a_call_of_the_context_or_of_the_same_request(of_call: str, of_output: str) -> None:
    assert refusal([output(kind=of_output)], [call(kind=of_call)]) is None
    assert refusal([call(kind=of_call), output(kind=of_output)]) is None


@pytest.mark.parametrize(("of_call", "of_output"), KINDS)
def test_an_output_without_its_call_is_refused(of_call: str, of_output: str) -> None:
    message = "No tool call found for function call output with call_id call_2."

    assert refusal([output("call_2", of_output)], [call("call_1", of_call)]) == message


def test_an_output_of_the_wrong_kind_answers_nothing() -> None:
    assert refusal([output()], [call(kind="custom_tool_call")]) is not None
    assert refusal([output(kind="custom_tool_call_output")], [call()]) is not None


def test_a_call_that_the_previous_response_asked_for_must_be_answered() -> None:
    previous = [SAID, call("call_1"), call("call_2")]

    assert refusal([SAID], previous, previous) == "No tool output found for function call call_1."
    assert refusal([output("call_1")], previous, previous) == "No tool output found for function call call_2."
    assert refusal([output("call_2"), output("call_1")], previous, previous) is None


def test_a_call_that_was_cut_off_or_answered_by_the_server_need_not_be_answered() -> None:
    cut = [call(status="incomplete")]
    server_run = [call(), output()]

    assert refusal([SAID], cut, cut) is None
    assert refusal([SAID], server_run, server_run) is None


def test_a_call_of_an_older_response_need_not_be_answered_again() -> None:
    assert refusal([SAID], [call(), output(), SAID], [SAID]) is None


def not_found(request_id: str) -> str:
    return str(errors.approval_request_not_found(request_id))


def test_an_approval_is_answered_once() -> None:
    context = [approval()]
    assert refusal([answered()], context, asked={"mcpr_1"}) is None
    assert refusal([answered("mcpr_2")], context, asked={"mcpr_1"}) == not_found("mcpr_2")
    again = "Approval request with id 'mcpr_1' has already been answered."
    assert refusal([answered()], [*context, answered()], asked={"mcpr_1"}) == again
    assert refusal([answered(), answered(approve=False)], context, asked={"mcpr_1"}) == again


def test_a_refusal_names_the_input() -> None:
    with pytest.raises(RequestError) as caught:
        check_pairing([output()], (), must_answer=(), asked=())

    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "input", None)


def test_an_approval_that_the_caller_wrote_itself_cannot_be_answered() -> None:
    assert refusal([approval(), answered()]) == not_found("mcpr_1")
    assert refusal([answered()], [approval()]) == not_found("mcpr_1")


@pytest.mark.parametrize(
    "odd", [{"type": None}, {"type": ["function_call"]}, {}, {"type": "function_call_output"}, {"type": 7}]
)
def test_odd_items_are_no_calls(odd: Any) -> None:
    assert without_unanswered_calls([odd, SAID], []) == (odd, SAID)


def test_unanswered_calls_are_left_out_and_everything_else_stays_in_its_order() -> None:
    items = [call("call_1"), SAID, call("call_2"), output("call_2"), call("call_3", "custom_tool_call")]

    assert without_unanswered_calls(items, [output("call_1")]) == (items[0], SAID, items[2], items[3])
    assert without_unanswered_calls(items, []) == (SAID, items[2], items[3])


NAMES = st.sampled_from(["a", "b", "c"])
ITEMS = st.lists(st.one_of(NAMES.map(call), NAMES.map(output), st.just(SAID)), max_size=8)


@given(context=ITEMS, items=ITEMS)
def test_what_is_left_has_an_output_for_each_call(context: list[Any], items: list[Any]) -> None:
    left = without_unanswered_calls(context, items)

    outputs = {item["call_id"] for item in (*left, *items) if item["type"] == "function_call_output"}
    assert all(item["call_id"] in outputs for item in left if item["type"] == "function_call")
    assert [item for item in left if item["type"] != "function_call"] == [
        item for item in context if item["type"] != "function_call"
    ]


@given(context=ITEMS, items=ITEMS)
def test_a_request_is_accepted_exactly_when_every_output_has_its_call(context: list[Any], items: list[Any]) -> None:
    calls = {item["call_id"] for item in (*context, *items) if item["type"] == "function_call"}
    outputs = {item["call_id"] for item in items if item["type"] == "function_call_output"}

    assert (refusal(items, context) is None) == (outputs <= calls)


def test_an_answer_to_an_earlier_call_of_the_same_id_answers_no_later_one() -> None:
    earlier, later = [call(), output()], [call()]

    assert refusal([], [*earlier, *later], must_answer=later) == "No tool output found for function call call_1."
    assert refusal([output()], [*earlier, *later], must_answer=later) is None


def test_a_call_whose_output_the_previous_response_shows_is_answered() -> None:
    shown = [call(), output()]

    assert refusal([], shown, must_answer=shown) is None
