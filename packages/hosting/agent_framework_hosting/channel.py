"""Channels: what speaks a protocol to callers, and what the host offers to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

if TYPE_CHECKING:
    from .context import ChannelContext

LifecycleCallback: TypeAlias = Callable[[], Awaitable[None] | None]
"""Called when the host starts or stops; sync or async."""

ExceptionHandler: TypeAlias = Callable[[Request, Exception], Response | Awaitable[Response]]
"""Answers what the web framework raised; the same shape as Starlette's."""


@dataclass(frozen=True, slots=True)
class ChannelCommandContext:
    """What a command gets: the channel's context, and the text that followed the command's name."""

    context: ChannelContext
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class ChannelCommand:
    """A command that a channel with a command line of its own (a chat, say) can offer its users."""

    name: str
    description: str
    handle: Callable[[ChannelCommandContext], Awaitable[str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelContribution:
    """What a channel adds to the host.

    `routes` are relative to the channel's `path` (an empty route path is that path itself, answered without a
    redirect); `root_routes` are absolute. `exception_handlers` map an HTTP status or an exception class to a handler,
    as Starlette does; the first channel to claim one keeps it. Start-up callbacks run in order, shutdown callbacks in
    reverse. `on_ready` callbacks run after all start-up callbacks, when the engines take runs. `on_drained` callbacks run
    when the host stops and every run has had its time, while readers are still served: what still runs ignores that it
    was cancelled.
    """

    routes: Sequence[BaseRoute] = ()
    root_routes: Sequence[BaseRoute] = ()
    commands: Sequence[ChannelCommand] = ()
    on_startup: Sequence[LifecycleCallback] = ()
    on_shutdown: Sequence[LifecycleCallback] = ()
    on_ready: Sequence[LifecycleCallback] = ()
    on_drained: Sequence[LifecycleCallback] = ()
    exception_handlers: Mapping[int | type[Exception], ExceptionHandler] = field(default_factory=dict[Any, Any])


class Channel(Protocol):
    """Something that speaks a protocol to callers.

    `name` is unique in a host and appears in logs and in the metadata of input messages. `path` is where its routes are
    mounted: starts with `/`, or is empty for the root.
    """

    name: str
    path: str

    def contribute(self, context: ChannelContext) -> ChannelContribution:
        """Return what the channel adds; called once, when the host builds its app."""
        ...
