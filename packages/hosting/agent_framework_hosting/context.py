"""What the host offers a channel: running the targets, sessions, runs and their logs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from copy import copy
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agent_framework import AgentResponse, AgentResponseUpdate, AgentSession, Content, Message

from .checkpoints import LastingCheckpoints
from .errors import ConfigurationError
from .hooks import ChannelStreamUpdateHook, resolve
from .isolation import IsolationKeys, Partition, get_current_isolation_keys
from .retention import Pruner
from .runs.base import RunEngine, RunLog
from .sessions import SessionLease, Sessions, note_target
from .stores.base import Prunable, SessionStore
from .targets.base import HostedRun, TargetInput
from .targets.served import ServedTarget, ServedTargets
from .types import ChannelRequest, HostedRunResult

if TYPE_CHECKING:  # SQLAlchemy is an optional dependency
    from .sql.database import Database
    from .sql.presence import Presence


class HostedStream:
    """One run of a target: its updates as they come, and its result once they have been read to the end.

    An async context manager: the run's session is there inside the block, leaving the block early cancels the run. A
    named session is saved when the block ends without an error, the updates were read to their end and the session was
    not discarded.
    """

    def __init__(
        self,
        context: ChannelContext,
        request: ChannelRequest,
        session: AgentSession | None,
        *,
        served: ServedTarget,
        keeps_session: bool,
        keeps_updates: bool,
        update_hook: ChannelStreamUpdateHook | None,
        run: HostedRun | None,
        answers: Mapping[str, object] | None,
    ) -> None:
        self.session = session
        self.is_finished = False
        self.is_discarded = False
        self._context = context
        self._request = request
        self._served = served
        self._keeps_session = keeps_session
        self._keeps_updates = keeps_updates
        self._update_hook = update_hook
        self._run = run
        self._answers = answers or {}
        self._lease: AbstractAsyncContextManager[SessionLease] | None = None
        self._lent: SessionLease | None = None
        self._updates: AsyncGenerator[AgentResponseUpdate, None] | None = None
        self._seen: list[AgentResponseUpdate] = []

    async def __aenter__(self) -> Self:
        request, context, target = self._request, self._context, self._served.target
        partition = current_partition()
        # Before the session is borrowed: whoever fails to enter never leaves, and would never give it back.
        messages = _with_hosting_metadata(request)
        if request.session_mode == "disabled":
            self.session = None
        elif request.session is not None and request.session.isolation_key is not None:
            self._lease = context.sessions.use(
                partition, request.session.isolation_key, new_session=target.new_session, target=self._served.key
            )
            self._lent = await self._lease.__aenter__()
            self.session = self._lent.session
        elif self.session is None:
            if request.session_mode == "required":
                raise ConfigurationError("The request has session_mode='required' but names no session.")
            self.session = target.new_session()
        self._updates = target.stream(
            TargetInput(
                messages=messages,
                partition=partition,
                session=self.session,
                keeps_session=self._keeps_session or self._lent is not None,
                options=request.options or {},
                attributes=request.attributes,
                run=self._run,
                answers=self._answers,
            )
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._updates is not None:
                await self._updates.aclose()
        finally:
            if self._lease is not None and self._lent is not None:
                if error is None and self.is_finished and not self.is_discarded:
                    self._lent.commit()
                await self._lease.__aexit__(kind, error, trace)

    async def __aiter__(self) -> AsyncIterator[AgentResponseUpdate]:
        if self._updates is None:
            raise RuntimeError("The updates can be read inside the block only.")
        hook = self._update_hook
        async for update in self._updates:
            shown = update if hook is None else await resolve(hook(update))
            if shown is not None:
                if self._keeps_updates:
                    self._seen.append(shown)
                yield shown
        if self.session is not None:
            note_target(self.session, self._served.key)
        self.is_finished = True

    def discard_session(self) -> None:
        """Have the run leave no trace in its session: it was read to the end, but counts as failed."""
        self.is_discarded = True

    def result(self) -> HostedRunResult[AgentResponse[Any]]:
        """Return the final response, built the framework's way, and the session.

        Raises:
            RuntimeError: the updates have not been read to their end, or were not kept.
        """
        if not self.is_finished or not self._keeps_updates:
            raise RuntimeError("The result exists only after updates that are kept have been read to their end.")
        return HostedRunResult(AgentResponse.from_updates(self._seen), self.session)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelContext:
    """The host as a channel sees it. Everything here is a protocol or a value; the host chose the implementations.

    `run_log` and `engine` live as long as the process, `durable_log` and `durable_engine` as long as the host's state:
    without configured state they are the same. On a database that several processes share, the durable engine may have a
    run executed by another one (`shared_engine`).

    `database` is there if the host keeps its state in one, and open from before the first start-up callback until after
    the last shutdown callback. `owner` names this process in it, `presence` tells which owners are still alive.
    `left_checkpoints` are where workflows that are not served any more may have left some.
    """

    targets: ServedTargets
    session_store: SessionStore
    sessions: Sessions
    engine: RunEngine
    run_log: RunLog
    durable_log: RunLog
    shared_engine: RunEngine | None = None
    database: Database | None = None
    owner: str = ""
    presence: Presence | None = None
    left_checkpoints: LastingCheckpoints | None = None
    pruner: Pruner = field(default_factory=Pruner)
    debug: bool = False

    @property
    def durable_engine(self) -> RunEngine:
        """Executes runs that outlive the process that has accepted them."""
        return self.engine if self.shared_engine is None else self.shared_engine

    def keep_pruned(self, store: Prunable) -> None:
        """Have a store that does not forget by itself pruned in the background while the host runs."""
        self.pruner.add(store)

    async def run(
        self,
        request: ChannelRequest,
        *,
        target: ServedTarget | None = None,
        session: AgentSession | None = None,
        update_hook: ChannelStreamUpdateHook | None = None,
    ) -> HostedRunResult[AgentResponse[Any]]:
        """Run a target to its end and return its final response. `target` is one of `targets`, as in `run_stream`.

        Raises:
            TargetError: the agent or workflow raised; its exception is the cause.
        """
        async with self.run_stream(request, target=target, session=session, update_hook=update_hook) as stream:
            async for _ in stream:
                pass
            return stream.result()

    def run_stream(
        self,
        request: ChannelRequest,
        *,
        target: ServedTarget | None = None,
        session: AgentSession | None = None,
        keeps_session: bool = True,
        keeps_updates: bool = True,
        update_hook: ChannelStreamUpdateHook | None = None,
        run: HostedRun | None = None,
        answers: Mapping[str, object] | None = None,
    ) -> HostedStream:
        """Return a run of a target; enter it to start, iterate over it for the updates.

        `target` is one of `targets`, and may be left out if there is one alone. A session that `request.session` names wins
        over `session`, which the caller must own and which nobody will continue unless `keeps_session`. Without
        `keeps_updates` there is no result to ask for at the end. With `run`, what a target keeps of the run is found by its
        id; a run that is resumed yields only what it had not before. `answers` are those of `TargetInput`, to what the last
        run of `session` has asked.

        Raises:
            ConfigurationError: there are several targets and none was named. Or on entering: `session_mode` is `required`
                and there is no session.
            TargetError: while iterating; the agent or workflow raised, its exception is the cause.
        """
        served = self.targets.only if target is None else target
        if served is None:
            raise ConfigurationError("The host has several targets: say with target=… which of them is to run.")
        return HostedStream(
            self,
            request,
            session,
            served=served,
            keeps_session=keeps_session,
            keeps_updates=keeps_updates,
            update_hook=update_hook,
            run=run,
            answers=answers,
        )


def current_partition() -> Partition:
    """Return the partition of the request or run that is being served."""
    return (get_current_isolation_keys() or IsolationKeys()).partition


def _with_hosting_metadata(request: ChannelRequest) -> object:
    """Return the input with channel and identity on its last message; other inputs (of workflows) stay as they are."""
    messages = _as_messages(request.input)
    if not messages:
        return request.input
    identity = request.identity
    hosting: dict[str, object] = {"channel": request.channel, "identity": None}
    if identity is not None:
        hosting["identity"] = {
            "channel": identity.channel,
            "native_id": identity.native_id,
            "attributes": dict(identity.attributes),
        }
    # A copy: the message may belong to the caller of the host, or be stored.
    last = copy(messages[-1])
    last.additional_properties = {**last.additional_properties, "hosting": hosting}
    return [*messages[:-1], last]


def _as_messages(value: object) -> list[Message] | None:
    """Return any shape of `AgentRunInputs` as messages; neighbouring `str` and `Content` share one user message."""
    if isinstance(value, Message):
        return [value]
    if isinstance(value, (str, Content)):
        return [Message("user", [value])]
    if not isinstance(value, (list, tuple)) or not all(isinstance(part, (str, Content, Message)) for part in value):
        return None
    messages: list[Message] = []
    loose: list[str | Content] = []
    for part in value:
        if isinstance(part, Message):
            _flush(loose, messages)
            messages.append(part)
        else:
            loose.append(part)
    _flush(loose, messages)
    return messages


def _flush(loose: list[str | Content], messages: list[Message]) -> None:
    if loose:
        messages.append(Message("user", list(loose)))
        loose.clear()
