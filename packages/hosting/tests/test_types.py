import dataclasses

import pytest

from agent_framework_hosting import (
    ChannelIdentity,
    ChannelRequest,
    ChannelSession,
    HostedRunResult,
    HostStatePaths,
)


def test_a_request_needs_no_more_than_its_channel_operation_and_input() -> None:
    request = ChannelRequest(channel="chat", operation="message", input="hello")

    assert request.session is None
    assert request.options is None
    assert request.session_mode == "auto"
    assert request.identity is None
    assert not request.stream
    assert request.metadata == {}
    assert request.attributes == {}


def test_values_cannot_be_changed_under_a_reader() -> None:
    request = ChannelRequest(channel="chat", operation="message", input="hello")

    with pytest.raises(dataclasses.FrozenInstanceError):
        request.channel = "other"  # type: ignore[misc]


def test_equal_identities_are_equal() -> None:
    assert ChannelIdentity("chat", "7", {"name": "Ada"}) == ChannelIdentity("chat", "7", {"name": "Ada"})
    assert ChannelIdentity("chat", "7") != ChannelIdentity("mail", "7")


def test_a_session_without_a_name_belongs_to_nobody_in_particular() -> None:
    assert ChannelSession().isolation_key is None


def test_a_result_may_come_without_a_session() -> None:
    assert HostedRunResult("done").session is None


def test_each_part_of_the_state_may_be_left_out() -> None:
    assert HostStatePaths() == {}
    assert HostStatePaths.__optional_keys__ == {"sessions", "checkpoints"}
