"""Sessions whose history lies elsewhere: with a history provider under the session's id, or at a service.

Rules. A stored session is a value, but what lies elsewhere under its id is not: the first who continues the session goes
on with it, everybody else needs an id of their own.

- A turn ends with a note in the session's state: how far each such history had come.
- Who continues a session first, and finds its histories as noted, goes on with them. Every other continuation (a branch,
  the repetition of a turn that failed) gets a new session id, and each history up to the note is saved under it.
- A service's id that is another one after every turn names a moment, and can be continued any number of times. One that
  stays the same names a conversation that changes; only the first goes on with it.
- What can be neither continued nor copied is given up: the caller tells a new session the context as messages.
- A run that nobody will continue reads histories up to the note, and writes to none.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self, TypeAlias, cast, runtime_checkable

from agent_framework import AgentSession, BaseAgent, HistoryProvider, InMemoryHistoryProvider, Message

from .isolation import Partition
from .sessions import fork, target_of
from .stores.base import SessionKey, SessionStore

logger = logging.getLogger(__name__)

SESSION_STATE_KEY: Final = "agent_framework_hosting.history"
"""Where a session keeps the note: `{"providers": {source_id: {"count": int, "last": str}}, "is_moment": bool}`."""

Claim: TypeAlias = Callable[[], Awaitable[bool]]
"""Says that the session is continued; `True` for the first who does. See `SessionStore.claim`."""

ServiceId: TypeAlias = str | Mapping[str, Any] | None

# Known to change, and known to stay, whatever was seen: https://platform.openai.com/docs/guides/conversation-state
_MOMENTS = ("resp_",)
_CONVERSATIONS = ("conv_", "thread_")


@runtime_checkable
class ContinuesSessions(Protocol):
    """A target with a say in how its stored sessions are continued; those of others go on as they are."""

    async def continued(self, session: AgentSession, claim: Claim | None) -> AgentSession | None:
        """Return the session to run with, `None` if only a new one will do.

        `session` is a private copy of the stored one. `claim` is called at most once, and only if it matters who comes
        first; it is `None` if the run will leave nothing behind.
        """
        ...


async def continue_session(
    target: object,
    store: SessionStore,
    partition: Partition,
    key: SessionKey,
    *,
    target_key: str = "",
    keeps_session: bool = True,
) -> AgentSession | None:
    """Return the session stored under `key` for a run of `target`, whose `ServedTarget.key` is `target_key`.

    `None` if there is none, or if it cannot be continued, or is another target's: begin a new one then, and give it the
    context as messages. Without `keeps_session` nobody will continue from the run, and it leaves what others continue from untouched.

    Raises:
        StoreUnavailable: the store cannot be reached.
    """
    session = await store.get(partition, key)
    if session is None or target_of(session) != target_key:
        return None
    if not isinstance(target, ContinuesSessions):
        return session

    async def claim() -> bool:
        return await store.claim(partition, key)

    return await target.continued(session, claim if keeps_session else None)


def external_histories(agent: object) -> list[HistoryProvider]:
    """Return the agent's history providers that keep what they load outside of the session."""
    providers: Sequence[object] = getattr(agent, "context_providers", None) or ()
    return [
        provider
        for provider in providers
        if isinstance(provider, HistoryProvider)
        and provider.load_messages
        and not isinstance(provider, InMemoryHistoryProvider)
    ]


async def note_history(agent: object, session: AgentSession, *, service_id_before: ServiceId) -> None:
    """Note in the session, at the end of a turn, how far its histories elsewhere have come.

    `service_id_before` is the `service_session_id` that the turn began with.
    """
    providers = external_histories(agent)
    if not providers and not session.service_session_id:
        return
    marks = {provider.source_id: _Mark.of(await _messages(provider, session)) for provider in providers}
    _Note(marks, is_moment=_is_moment(service_id_before, session.service_session_id)).write(session)


async def continue_elsewhere(agent: object, session: AgentSession, claim: Claim | None) -> AgentSession | None:
    """Return the session for a run of `agent` that continues `session`. See `ContinuesSessions.continued`."""
    providers, note = external_histories(agent), _Note.read(session)
    if not note.is_about(providers):
        # The agent was built differently when the session was stored: the history is where it does not look any more.
        return None
    is_conversation = bool(session.service_session_id) and not note.is_moment
    if not providers and not is_conversation:
        return session
    # A run that leaves nothing behind must not add to a service's conversation, be it the first.
    is_first = claim is not None and await claim()
    if is_conversation and not is_first:
        return None
    return await _with_histories(agent, session, note, is_first=is_first, is_kept=claim is not None)


async def _with_histories(
    agent: object, session: AgentSession, note: _Note, *, is_first: bool, is_kept: bool
) -> AgentSession | None:
    """Return the session, or a branch of it, with the agent's histories as noted; `None` if they cannot be had."""
    histories = [
        _History(provider, await _messages(provider, session), note.marks[provider.source_id])
        for provider in external_histories(agent)
    ]
    if is_first and all(history.is_as_noted for history in histories):
        return session
    if not _have_past(histories):
        return None
    # A run that leaves nothing behind is kept apart by `without_saving`, if it can be.
    return session if not is_kept and isinstance(agent, BaseAgent) else await _branch(session, histories)


def without_saving(agent: object, session: AgentSession | None) -> object:
    """Return an agent that answers like `agent`, but adds nothing to its histories elsewhere.

    It reads them as far as the session's note says: others may have gone on from there. Agents that are no `BaseAgent`
    of the framework are returned as they are.
    """
    providers = external_histories(agent)
    if not providers or not isinstance(agent, BaseAgent):
        return agent
    marks = {} if session is None else _Note.read(session).marks
    twins = {id(provider): _unsaved(provider, marks.get(provider.source_id)) for provider in providers}
    twin = copy.copy(agent)
    twin.context_providers = [twins.get(id(provider), provider) for provider in agent.context_providers]
    return twin


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far a history had come: the number of its messages, and what the last of them was.

    Providers that forget their oldest messages keep the number and change the last. An edit in between changes neither:
    what an operator has taken out of a history stays out of its branches.
    """

    count: int
    last: str

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Self:
        return cls(len(messages), _digest(messages[-1]) if messages else "")


@dataclass(frozen=True, slots=True)
class _Note:
    marks: Mapping[str, _Mark] = field(default_factory=dict)
    is_moment: bool = False

    @classmethod
    def read(cls, session: AgentSession) -> Self:
        stored = cast("Mapping[str, Any]", session.state.get(SESSION_STATE_KEY) or {})
        marks = {source: _Mark(mark["count"], mark["last"]) for source, mark in stored.get("providers", {}).items()}
        return cls(marks, is_moment=stored.get("is_moment", False))

    def is_about(self, providers: Sequence[HistoryProvider]) -> bool:
        return self.marks.keys() == {provider.source_id for provider in providers}

    def write(self, session: AgentSession) -> None:
        # No lists: stores take the lists of a session's state for what grows.
        session.state[SESSION_STATE_KEY] = {
            "providers": {source: {"count": mark.count, "last": mark.last} for source, mark in self.marks.items()},
            "is_moment": self.is_moment,
        }


@dataclass(frozen=True, slots=True)
class _History:
    """The messages that a provider has under a session's id, and how many of them belong to the session."""

    provider: HistoryProvider
    messages: list[Message]
    noted: _Mark

    @property
    def past(self) -> list[Message]:
        return self.messages[: self.noted.count]

    @property
    def is_as_noted(self) -> bool:
        return _Mark.of(self.messages) == self.noted

    @property
    def has_past(self) -> bool:
        return _Mark.of(self.past) == self.noted


def _have_past(histories: Sequence[_History]) -> bool:
    lost = [history.provider.source_id for history in histories if not history.has_past]
    if lost:
        logger.warning("A history is not what it was; the context is told again", extra={"providers": lost})
    return not lost


async def _branch(session: AgentSession, histories: Sequence[_History]) -> AgentSession | None:
    """Return the session under an id of its own, with the histories saved under it up to the note."""
    branch = fork(session)
    for history in histories:
        provider = history.provider
        if await _messages(provider, branch):
            # What a new id finds lies in the session's own state, or belongs to no session: both are not to be copied.
            continue
        state = branch.state.setdefault(provider.source_id, {})
        # Copies: a provider that keeps message objects would have one object in two histories.
        await provider.save_messages(branch.session_id, copy.deepcopy(history.past), state=state)
        if _Mark.of(await _messages(provider, branch)) != history.noted:
            logger.warning("A history could not be copied", extra={"provider": provider.source_id})
            return None
    return branch


async def _messages(provider: HistoryProvider, session: AgentSession) -> list[Message]:
    return await provider.get_messages(session.session_id, state=session.state.setdefault(provider.source_id, {}))


def _unsaved(provider: HistoryProvider, noted: _Mark | None) -> HistoryProvider:
    """Return a copy of the provider that only seems to save; a run may ask for what it has saved itself."""
    twin = copy.copy(provider)
    said: list[Message] = []

    async def get_messages(session_id: str | None, **kwargs: Any) -> list[Message]:
        messages = await provider.get_messages(session_id, **kwargs)
        return [*(messages if noted is None else messages[: noted.count]), *said]

    async def save_messages(session_id: str | None, messages: Sequence[Message], **kwargs: Any) -> None:
        del session_id, kwargs
        said.extend(messages)

    # On the copy itself, so that a class's own `before_run` and `after_run` keep working, and use these.
    vars(twin).update(get_messages=get_messages, save_messages=save_messages)
    return twin


def _is_moment(before: ServiceId, after: ServiceId) -> bool:
    """Whether a service's id names a moment of a conversation. What was seen once only is not known to."""
    if not isinstance(after, str):
        # A structured id may have one part that changes with every turn beside one that stays.
        return False
    if after.startswith(_MOMENTS):
        return True
    return before is not None and before != after and not after.startswith(_CONVERSATIONS)


def _digest(message: Message) -> str:
    content = [message.role, message.message_id, [part.to_dict() for part in message.contents]]
    encoded = json.dumps(content, sort_keys=True, default=lambda value: type(value).__name__)
    return hashlib.sha256(encoded.encode()).hexdigest()[:16]
