"""Hooks: where the operator of a host decides what callers may ask for and what they see. Sync or async, all three."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from agent_framework import AgentResponseUpdate

from .types import ChannelRequest, HostedRunResult

ValueT = TypeVar("ValueT")


class ChannelRunHook(Protocol):
    """Decide what reaches the target. Replaces `default_run_hook`, so it sees every option the caller sent."""

    def __call__(
        self, request: ChannelRequest, *, target: object, protocol_request: object | None
    ) -> ChannelRequest | Awaitable[ChannelRequest]:
        """Return the request to run; `protocol_request` is the caller's body as the channel received it."""
        ...


class ChannelResponseHook(Protocol):
    """See, and for one-shot answers replace, the final result of a run."""

    def __call__(
        self, result: HostedRunResult[Any], *, request: ChannelRequest, channel_name: str
    ) -> HostedRunResult[Any] | Awaitable[HostedRunResult[Any]]:
        """Return the result to answer with; what a stream has already said cannot be taken back."""
        ...


class ChannelStreamUpdateHook(Protocol):
    """See, change or drop each update before it is encoded, whatever the mode of the request."""

    def __call__(
        self, update: AgentResponseUpdate
    ) -> AgentResponseUpdate | Awaitable[AgentResponseUpdate | None] | None:
        """Return the update to encode, or `None` to drop it."""
        ...


def default_run_hook(request: ChannelRequest, **_: object) -> ChannelRequest:
    """Strip every caller option: what an agent does is its operator's choice until a run hook says otherwise."""
    return replace(request, options=None) if request.options else request


async def resolve(value: ValueT | Awaitable[ValueT]) -> ValueT:
    """Return what a sync or async hook returned."""
    return await value if inspect.isawaitable(value) else value


async def apply_run_hook(
    hook: ChannelRunHook | None, request: ChannelRequest, *, target: object, protocol_request: object | None
) -> ChannelRequest:
    """Return the request that `hook`, or the default one, lets through."""
    if hook is None:
        return default_run_hook(request)
    return await resolve(hook(request, target=target, protocol_request=protocol_request))


async def apply_response_hook(
    hook: ChannelResponseHook | None, result: HostedRunResult[Any], *, request: ChannelRequest, channel_name: str
) -> HostedRunResult[Any]:
    """Return the result that `hook` makes of `result`; without a hook, `result` itself."""
    if hook is None:
        return result
    return await resolve(hook(result, request=request, channel_name=channel_name))
