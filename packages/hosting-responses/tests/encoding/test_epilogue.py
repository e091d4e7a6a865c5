"""The end of a stream whose response has ended in the store, and not in the log."""

from __future__ import annotations

import json

import pytest
import wire
from agent_framework import AgentResponseUpdate, Content

from agent_framework_hosting_responses.protocol.encoder import ResponseEncoder
from agent_framework_hosting_responses.protocol.epilogue import epilogue
from agent_framework_hosting_responses.protocol.events import Event
from agent_framework_hosting_responses.protocol.ids import new_id
from agent_framework_hosting_responses.protocol.replay import replay
from agent_framework_hosting_responses.protocol.request import parse_request
from agent_framework_hosting_responses.protocol.resources import new_response


def whole_run(*, ending: str = "complete", background: bool = True) -> tuple[list[Event], bytes]:
    request = parse_request(
        {"input": "q", "background": background, "stream": True}, strict=False, hosted_tools="reject", new_id=new_id
    )
    encoder = ResponseEncoder(new_response(request, response_id="resp_1", created_at=1, model="a"), clock=lambda: 1)
    events = [*encoder.open(), *encoder.start()]
    for content in (
        Content.from_text("Hel"),
        Content.from_text("lo", annotations=[{"type": "citation", "title": "t", "url": "https://a.example"}]),
        Content.from_text_reasoning(text="hm"),
        Content.from_function_call("call_1", "look", arguments='{"a":'),
        Content.from_function_call("call_1", "look", arguments="1}"),
    ):
        events += encoder.feed(AgentResponseUpdate(contents=[content], role="assistant"))
    events += getattr(encoder, ending)()
    return events, encoder.encoded


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("ending", ["complete", "fail", "cancel"])
def test_wherever_the_log_ends_it_gets_the_standard_end_of_the_stored_response(
    ending: str, *, background: bool
) -> None:
    events, body = whole_run(ending=ending, background=background)

    for cut in range(len(events)):
        stream = [json.loads(event.data) for event in (*events[:cut], *epilogue(replay(events[:cut]), body))]

        wire.check_stream(stream)
        assert stream[-1]["response"] == json.loads(body)
        assert "".join(event["delta"] for event in stream if event["type"] == "response.output_text.delta") == "Hello"
