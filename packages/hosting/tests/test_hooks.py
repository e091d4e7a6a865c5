from dataclasses import replace

import pytest
from agent_framework import AgentResponse

from agent_framework_hosting import ChannelRequest, HostedRunResult
from agent_framework_hosting.hooks import apply_response_hook, apply_run_hook, default_run_hook, resolve

REQUEST = ChannelRequest(channel="chat", operation="message", input="hello", options={"temperature": 2})
RESULT = HostedRunResult(AgentResponse(messages=[]))


@pytest.mark.behaviour("E4")
async def test_without_a_run_hook_no_caller_option_reaches_the_target() -> None:
    request = await apply_run_hook(None, REQUEST, target=None, protocol_request=None)

    assert request == replace(REQUEST, options=None)


def test_a_request_without_options_passes_the_default_hook_as_it_is() -> None:
    request = replace(REQUEST, options=None)

    assert default_run_hook(request) is request


@pytest.mark.behaviour("E4")
async def test_a_run_hook_replaces_the_default_one_and_sees_everything() -> None:
    seen: dict[str, object] = {}

    def hook(request: ChannelRequest, *, target: object, protocol_request: object | None) -> ChannelRequest:
        seen.update(target=target, body=protocol_request, options=request.options)
        return request

    request = await apply_run_hook(hook, REQUEST, target="agent", protocol_request={"model": "m"})

    assert request is REQUEST
    assert seen == {"target": "agent", "body": {"model": "m"}, "options": {"temperature": 2}}


async def test_a_run_hook_may_be_async() -> None:
    async def hook(request: ChannelRequest, *, target: object, protocol_request: object | None) -> ChannelRequest:
        return replace(request, input="changed")

    assert (await apply_run_hook(hook, REQUEST, target=None, protocol_request=None)).input == "changed"


async def test_without_a_response_hook_the_result_is_the_result() -> None:
    assert await apply_response_hook(None, RESULT, request=REQUEST, channel_name="chat") is RESULT


async def test_a_response_hook_sees_request_and_channel_and_replaces_the_result() -> None:
    other = HostedRunResult(AgentResponse(messages=[]))
    seen: list[object] = []

    async def hook(
        result: HostedRunResult[AgentResponse], *, request: ChannelRequest, channel_name: str
    ) -> HostedRunResult[AgentResponse]:
        seen.extend((result, request, channel_name))
        return other

    assert await apply_response_hook(hook, RESULT, request=REQUEST, channel_name="chat") is other
    assert seen == [RESULT, REQUEST, "chat"]


async def test_a_plain_value_and_an_awaitable_resolve_to_the_same() -> None:
    async def later() -> int:
        return 3

    plain: int = await resolve(3)
    awaited: int = await resolve(later())

    assert plain == awaited == 3
