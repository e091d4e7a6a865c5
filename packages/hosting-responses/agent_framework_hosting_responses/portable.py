"""What another process needs to run a request: its body, whose it is, and the trace it belongs to."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from opentelemetry import context as trace_context
from opentelemetry import propagate

from agent_framework_hosting.isolation import IsolationKeys, reset_current_isolation_keys, set_current_isolation_keys

from .protocol.json import JsonObject, decode_json, encode_json


class PortableRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that any process with the same target can run. `body` is the caller's, without anything secret."""

    body: JsonObject
    isolation: IsolationKeys
    trace: Mapping[str, str]

    @classmethod
    def of(cls, body: JsonObject, isolation: IsolationKeys) -> PortableRequest:
        """Return the request with the trace that is current."""
        trace: dict[str, str] = {}
        propagate.inject(trace)
        return cls(body=body, isolation=isolation, trace=trace)

    @classmethod
    def decode(cls, data: bytes) -> PortableRequest:
        """Return what `encoded` has written."""
        # Not the decoder of requests: this one is nested one level deeper than its body, which has been checked.
        fields = msgspec.convert(decode_json(data), _Stored)
        return cls(body=fields.body, isolation=IsolationKeys(fields.user_key, fields.chat_key), trace=fields.trace)

    @property
    def encoded(self) -> bytes:
        """The request as JSON."""
        return encode_json(
            {
                "body": self.body,
                "user_key": self.isolation.user_key,
                "chat_key": self.isolation.chat_key,
                "trace": dict(self.trace),
            }
        )


@contextmanager
def on_behalf(isolation: IsolationKeys, trace: Mapping[str, str]) -> Generator[None, None, None]:
    """Make the keys current, and the trace that was carried here, if one was."""
    keys = set_current_isolation_keys(isolation)
    span = trace_context.attach(propagate.extract(trace))
    try:
        yield
    finally:
        trace_context.detach(span)
        reset_current_isolation_keys(keys)


class _Stored(msgspec.Struct, kw_only=True):
    body: dict[str, Any]
    user_key: str | None
    chat_key: str | None
    trace: dict[str, str]
