"""The end of a stream whose response has ended in the store, and not in the log."""

from __future__ import annotations

import json
from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, Content

from agent_framework_hosting_responses.protocol.encoder import ResponseEncoder
from agent_framework_hosting_responses.protocol.epilogue import epilogue
from agent_framework_hosting_responses.protocol.events import Event
from agent_framework_hosting_responses.protocol.ids import new_id
from agent_framework_hosting_responses.protocol.replay import replay
from agent_framework_hosting_responses.protocol.request import parse_request
from agent_framework_hosting_responses.protocol.resources import new_response


def whole_run(*, fails: bool = False) -> tuple[list[Event], bytes]:
    request = parse_request({"input": "q", "background": True}, strict=False, hosted_tools="reject", new_id=new_id)
    encoder = ResponseEncoder(new_response(request, response_id="resp_1", created_at=1, model="a"), clock=lambda: 1)
    events = [*encoder.open(), *encoder.start()]
    for text in ("Hel", "lo"):
        events += encoder.feed(AgentResponseUpdate(contents=[Content.from_text(text)], role="assistant"))
    events += encoder.feed(AgentResponseUpdate(contents=[Content.from_text_reasoning(text="hm")], role="assistant"))
    events += encoder.fail() if fails else encoder.complete()
    return events, encoder.encoded


@pytest.mark.parametrize("fails", [False, True])
def test_wherever_the_log_ends_its_end_is_that_of_the_stored_response(*, fails: bool) -> None:
    events, body = whole_run(fails=fails)

    for cut in range(1, len(events)):
        ending = epilogue(replay(events[:cut]), body)
        stream: list[dict[str, Any]] = [json.loads(event.data) for event in (*events[:cut], *ending)]
        ends = [event for event in stream if event["type"] == "response.output_item.done"]
        done = [event["item"] for event in sorted(ends, key=lambda event: event["output_index"])]
        added = [event["output_index"] for event in stream if event["type"] == "response.output_item.added"]

        assert [event["sequence_number"] for event in stream] == list(range(len(stream)))
        assert ending[-1].kind == ("response.failed" if fails else "response.completed")
        assert stream[-1]["response"] == json.loads(body)
        assert done == json.loads(body)["output"]
        assert added == list(range(len(done)))
