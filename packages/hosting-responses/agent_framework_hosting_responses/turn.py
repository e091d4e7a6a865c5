"""One response while it runs in this process: what its run, its callers and its canceller share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_framework import AgentSession

from agent_framework_hosting.errors import LeaseLost, RunError, StaleWrite
from agent_framework_hosting.isolation import IsolationKeys
from agent_framework_hosting.runs.base import Attempt, LogEntry, RunEngine, RunKey, RunLog
from agent_framework_hosting.stores.base import SessionKey
from agent_framework_hosting.targets.base import Resumption
from agent_framework_hosting.targets.served import ServedTarget
from agent_framework_hosting.types import ChannelRequest

from .protocol.encoder import ResponseEncoder
from .protocol.json import JsonObject
from .stores.base import QuestionKey, ResponseRecord, ResponseStore, Settlements
from .stores.context import EMPTY, Context


@dataclass(slots=True, kw_only=True)
class Turn:
    """One response while it runs in this process.

    `session` is a private copy of the one stored as `session_key`. `waiting` counts the requests that wait for the answer.
    `trace` is the caller's, if the run was accepted by another process. `opened` is set when the log has its first events,
    or never will. `untold` are events that the encoder has made and the log does not have yet. Whoever begins an attempt
    or writes the end holds `ending`: the run's task, its time limit and a caller who cancels may come to the end together.
    `target` is what runs, and is there unless the turn is only to be ended. `answers` are what it gets to know of what it
    has asked; `settles` is what is answered thereby.
    """

    record: ResponseRecord
    request: ChannelRequest
    isolation: IsolationKeys
    encoder: ResponseEncoder
    store: ResponseStore
    log: RunLog
    engine: RunEngine
    context: Context = EMPTY
    session: AgentSession | None = None
    session_key: SessionKey | None = None
    attempt: Attempt | None = None
    resumption: Resumption | None = None
    answers: Mapping[str, object] = field(default_factory=dict)
    settles: Sequence[QuestionKey] = ()
    waiting: int = 1
    target: ServedTarget | None = None
    trace: Mapping[str, str] = field(default_factory=dict)
    has_session: bool = field(default=False, init=False)
    is_given_up: bool = field(default=False, init=False)
    is_handed_back: bool = field(default=False, init=False)
    is_lost: bool = field(default=False, init=False)
    task: asyncio.Task[Any] | None = field(default=None, init=False)
    is_told: bool = field(default=False, init=False)
    untold: list[LogEntry] = field(default_factory=list, init=False)
    opened: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    ending: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    @property
    def key(self) -> RunKey:
        """Whose response it is, and which."""
        return self.record.key

    @property
    def approvals(self) -> dict[str, JsonObject]:
        """The approval requests of the response so far, with what the `target` will recognise their answers by."""
        return {name: {**asked, "target": self.record.target} for name, asked in self.encoder.questions.items()}

    @property
    def is_observed(self) -> bool:
        """Whether events of the run can be read while it runs."""
        return self.record.is_streamed or self.record.is_background

    @property
    def only_owner(self) -> str:
        """The process that alone knows of the response; empty if it is stored."""
        return "" if self.record.is_stored else self.record.owner

    def require_right(self, attempt: Attempt) -> None:
        """Raise `LeaseLost` when somebody else has ended the response, or will."""
        if self.attempt is not attempt:
            raise LeaseLost("Another attempt has begun.")

    async def keep_answers(self, settlements: Settlements) -> None:
        """Have what is answered stay so when this process dies, if nobody else knows of the response.

        Raises:
            RunError: the process was taken for dead meanwhile, so that the run has answered nothing.
        """
        if not (self.settles and self.only_owner) or self.encoder.has_failed:
            return
        try:
            await settlements.confirm(self.settles, by=self.key)
        except StaleWrite as error:  # no other process has the run: it is ended here or never
            raise RunError("What the run answers was opened again.") from error

    async def tell(self, attempt: Attempt, *, closes: bool = False) -> None:
        """Append what the log does not have yet."""
        # Taken out first: a log has them from here on, also if this is cancelled while it writes, and must not get them
        # twice.
        events, self.untold = self.untold, []
        await self.log.append(attempt, events, closes=closes)
