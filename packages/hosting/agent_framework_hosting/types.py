"""The values that cross between a channel and the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypedDict, TypeVar

from agent_framework import AgentRunInputs, AgentSession

ResultT = TypeVar("ResultT")

SessionMode = Literal["auto", "required", "disabled"]
"""`auto`: use a session if there is one; `required`: refuse to run without; `disabled`: run without any."""


@dataclass(frozen=True, slots=True)
class ChannelSession:
    """Name the session a request belongs to.

    `isolation_key` is chosen by the channel or by a run hook, never by a caller. Requests with the same key in the same
    partition share one agent session, one at a time; `AgentFrameworkHost.reset_session` forgets it.
    """

    isolation_key: str | None = None


@dataclass(frozen=True, slots=True)
class ChannelIdentity:
    """Say who speaks, in the words of the channel: for example a Telegram user id or an OpenAI `safety_identifier`."""

    channel: str
    native_id: str
    attributes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRequest:
    """One request as a channel hands it to the host, and as run hooks see it.

    `input` is what the target gets: any shape of `AgentRunInputs` for an agent, also an object of the start executor's
    input type for a workflow. `options` are chat options in Agent Framework's words. `attributes` are bound to the
    target for the run (`bind_request_context`).
    """

    channel: str
    operation: str
    input: AgentRunInputs | object
    session: ChannelSession | None = None
    options: Mapping[str, object] | None = None
    session_mode: SessionMode = "auto"
    metadata: Mapping[str, object] = field(default_factory=dict)
    attributes: Mapping[str, object] = field(default_factory=dict)
    stream: bool = False
    identity: ChannelIdentity | None = None


@dataclass(frozen=True, slots=True)
class HostedRunResult(Generic[ResultT]):
    """What a run gave: the target's final result, and the session it used (the same for streamed and one-shot runs)."""

    result: ResultT
    session: AgentSession | None = None


class HostStatePaths(TypedDict, total=False):
    """Name the directories that the parts of the host's state lie in; unknown keys are refused.

    Without `sessions` everything but the checkpoints lives in memory. `checkpoints` are those of workflows; agents have
    none.
    """

    sessions: str | Path
    checkpoints: str | Path
