"""Runs that are resumed: the answer is the one that the run would have given if nobody had lost it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from agent_framework import AgentResponseUpdate, Content

from agent_framework_hosting_responses.protocol.memo import Memo


def text(value: str, **fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_text(value)], role="assistant", message_id=value, **fields)


def update(*contents: Content, **fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=list(contents), role="assistant", **fields)


def call(call_id: str, arguments: Any = None) -> AgentResponseUpdate:
    return update(Content.from_function_call(call_id, "lookup", arguments=arguments))


def usage(**counts: int) -> AgentResponseUpdate:
    return update(Content.from_usage(counts))  # type: ignore[arg-type]


# What a run says, of which each part may be the end of a superstep. Usage of one agent may not be split: it replaces.
STEPS: list[list[AgentResponseUpdate]] = [
    [text("one"), usage(input_token_count=3, output_token_count=4)],
    [call("c1", '{"a": 1}'), call("c2", {"b": 2})],
    [text("two"), usage(input_token_count=5)],
    [update(Content.from_function_approval_request("a1", Content.from_function_call("c3", "other", arguments="{}")))],
    [AgentResponseUpdate(contents=[Content.from_function_result("c1", result="server's")], role="tool")],
    [text("three")],
]


def comparable(encoded: Any) -> dict[str, Any]:
    """Return the response without ids, which are random or used already, and with the approvals by what they ask for."""
    items = [{name: value for name, value in item.items() if name not in {"id", "call_id"}} for item in encoded.output]
    return {**encoded.response, "output": items, "approvals": [*encoded.encoder.approvals.values()]}


@pytest.mark.behaviour("B8", "F8")
@pytest.mark.parametrize("server_calls", ["hide", "function_call", "mcp_call"])
def test_a_run_that_is_resumed_between_any_two_steps_gives_the_same_answer(server_calls: str, encode_only: Any) -> None:
    options = {"server_calls": server_calls, "background": True}
    whole = encode_only(*[one for step in STEPS for one in step], **options)

    for cut in range(len(STEPS) + 1):
        before, after = ([one for step in steps for one in step] for steps in (STEPS[:cut], STEPS[cut:]))
        memo = encode_only(*before, ending="memo", **options).encoder.memo
        # The first attempt went on to say something, which is said again.
        lost = encode_only(*before, *after[:1], ending="memo", **options)

        resumed = encode_only(*after, after=lost.entries, memo=memo, **options)

        assert comparable(resumed) == comparable(whole), cut


@pytest.mark.behaviour("B8")
def test_ids_that_the_wire_does_not_know_are_remembered(encode_only: Any) -> None:
    long = "c" * 1000
    asked = Content.from_function_approval_request(long, Content.from_function_call(long, "other", arguments="{}"))
    first = encode_only(call(long, "{}"), update(asked), ending="memo", client_tools={"lookup"}, background=True)

    resumed = encode_only(text("end"), after=first.entries, memo=first.encoder.memo, background=True)

    assert resumed.encoder.minted_call_ids == first.encoder.minted_call_ids != {}
    assert resumed.encoder.approvals == first.encoder.approvals != {}


@pytest.mark.behaviour("B8")
def test_why_the_model_stopped_is_remembered(encode_only: Any) -> None:
    first = encode_only(text("cut", finish_reason="length"), ending="memo", background=True)

    resumed = encode_only(after=first.entries, memo=first.encoder.memo, background=True)

    assert resumed.response["status"] == "incomplete"
    assert resumed.response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert resumed.text == "cut"


def test_a_memo_is_json_for_a_checkpoint(encode_only: Any) -> None:
    first = encode_only(*[one for step in STEPS[:4] for one in step], ending="memo", background=True)

    memo = msgspec.to_builtins(first.encoder.memo)

    assert json.loads(json.dumps(memo)) == memo
    assert msgspec.convert(memo, Memo) == first.encoder.memo
