"""What travels to another process with a request."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from agent_framework_hosting import IsolationKeys, get_current_isolation_keys
from agent_framework_hosting_responses.portable import PortableRequest, on_behalf
from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.protocol.json import encode_json
from agent_framework_hosting_responses.protocol.request import MAX_DEPTH, decode_body

BODIES: list[dict[str, Any]] = [
    {"input": "hello"},
    {"input": [{"role": "user", "content": "half an emoji \ud83d"}], "metadata": {"a": "\u2028\x00"}},
    {"input": "q", "nested": {"deep": [1, 2.5, None, True]}},
]


@pytest.mark.parametrize("body", BODIES)
def test_a_request_comes_out_as_it_went_in(body: dict[str, Any]) -> None:
    request = PortableRequest.of(body, IsolationKeys("ada", "chat"))

    assert PortableRequest.decode(request.encoded) == request


def test_a_body_that_is_nested_as_deeply_as_one_may_be_comes_out() -> None:
    inner: Any = []
    for _ in range(MAX_DEPTH - 2):
        inner = [inner]
    body = decode_body(encode_json({"input": inner}))

    assert PortableRequest.decode(PortableRequest.of(body, IsolationKeys()).encoded).body == body
    with pytest.raises(RequestError):
        decode_body(encode_json({"input": [inner]}))


@pytest.mark.behaviour("E5")
@pytest.mark.parametrize(
    "keys", [IsolationKeys(), IsolationKeys("ada"), IsolationKeys("ada", "x/y"), IsolationKeys("")]
)
def test_whoever_runs_it_does_so_for_its_creator(keys: IsolationKeys) -> None:
    stored = PortableRequest.of({"input": "q"}, keys).encoded

    request = PortableRequest.decode(stored)
    with on_behalf(request.isolation, request.trace):
        assert get_current_isolation_keys() == keys
    assert get_current_isolation_keys() is None


def test_the_trace_of_the_request_goes_on() -> None:
    span = SpanContext(trace_id=7, span_id=9, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    with trace.use_span(NonRecordingSpan(span)):
        stored = PortableRequest.of({"input": "q"}, IsolationKeys()).encoded

    request = PortableRequest.decode(stored)
    with on_behalf(request.isolation, request.trace):
        found = trace.get_current_span().get_span_context()
    assert (found.trace_id, found.span_id) == (7, 9)
    assert trace.get_current_span().get_span_context().trace_id == 0
