"""Defaults of the encoder."""

from __future__ import annotations

from agent_framework_hosting_responses.protocol.items.settings import EncoderOptions


def test_the_defaults_show_nothing_of_the_inside() -> None:
    options = EncoderOptions()

    assert options.server_calls == "hide"
    assert options.error_details is False
    assert options.include == frozenset()
    assert options.reasoning == "summary"
    assert options.allowed_tools is None
