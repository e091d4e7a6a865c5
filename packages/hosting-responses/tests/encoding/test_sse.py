"""Frames on the wire, as the official client's decoder reads them."""

from __future__ import annotations

import pytest
from openai._streaming import SSEDecoder

from agent_framework_hosting_responses.protocol.events import Event
from agent_framework_hosting_responses.protocol.sse import DONE, KEEP_ALIVE, frame, frames

EVENT = Event("response.output_text.delta", b'{"type":"response.output_text.delta","delta":"\\u2028"}')


def test_an_event_is_one_frame_with_its_name_and_its_json() -> None:
    assert frame(EVENT) == b"event: response.output_text.delta\ndata: " + EVENT.data + b"\n\n"


@pytest.mark.behaviour("B9", "B12")
def test_the_official_decoder_reads_back_what_was_framed() -> None:
    stream = KEEP_ALIVE + frames([EVENT, EVENT]) + KEEP_ALIVE + DONE

    decoded = list(SSEDecoder().iter_bytes(iter([stream])))

    assert [(event.event, event.data) for event in decoded] == [
        (EVENT.kind, EVENT.data.decode()),
        (EVENT.kind, EVENT.data.decode()),
        (None, "[DONE]"),
    ]


@pytest.mark.behaviour("B9")
def test_no_frame_has_an_id_line() -> None:
    assert b"id:" not in KEEP_ALIVE + frames([EVENT]) + DONE
