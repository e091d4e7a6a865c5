"""Responses in the memory of one process, bounded by count and age."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from agent_framework_hosting.errors import AlreadyExists, StaleWrite
from agent_framework_hosting.runs.base import Attempt, Participant, RunId, RunKey, RunStatus
from agent_framework_hosting.stores.memory import BoundedDict

from ..protocol.json import JsonObject
from .base import ConversationKey, Conversations, IdempotencyKey, ResponseRecord, UnknownConversation
from .context import EMPTY, Context


class _Entry(NamedTuple):
    """A response, and the context it started from: held by reference, so it lives as long as anything continues it.

    `root` is the conversation in which the chain of the response begins, and `depth` the number of responses from there
    to this one: the context without its `depth` newest nodes is the conversation's.
    """

    record: ResponseRecord
    before: Context | None
    root: ConversationKey | None = None
    depth: int = 0


class MemoryResponseStore:
    """Running responses, and at most `max_entries` terminal ones, each for at most `max_age` seconds after its end.

    A response that runs is never forgotten: its run could not be finished and its readers would wait for ever.
    `conversations` has the locks of the conversations that responses may belong to.
    """

    def __init__(
        self,
        *,
        conversations: Conversations | None = None,
        max_entries: int = 10_000,
        max_age: float = 30 * 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conversations = conversations
        self._running: dict[RunKey, _Entry] = {}
        self._terminal: BoundedDict[RunKey, _Entry] = BoundedDict(
            max_entries=max_entries, max_age=max_age, clock=clock, on_evict=self._forget
        )
        self._named: dict[IdempotencyKey, RunKey] = {}

    def __len__(self) -> int:
        return len(self._running) + len(self._terminal)

    async def create(
        self,
        record: ResponseRecord,
        context: Context | None = None,
        participants: Sequence[Participant] = (),  # noqa: ARG002  there is no transaction to take part in
    ) -> ResponseRecord | None:
        """Store a new response. See `ResponseStore.create`."""
        creator_key = record.creator_key
        if creator_key is not None and (known := await self.get(creator_key)) is not None:
            return known
        if self._find(record.key) is not None:
            raise AlreadyExists("A response with this id exists.")
        entry = self._new_entry(record, context)
        # Before the lock is waited for: the id is taken from here on.
        self._running[record.key] = entry
        if creator_key is not None:
            self._named[creator_key] = record.key
        try:
            if record.conversation_id is not None:
                await self._locks.lock(record)
                if record.status.is_terminal:
                    await self._locks.finish(record)
        except BaseException:
            self._running.pop(record.key, None)
            self._forget(record.key, entry)
            raise
        self._put(entry)
        return None

    async def get(self, key: RunKey | IdempotencyKey) -> ResponseRecord | None:
        """Return the response. See `ResponseStore.get`."""
        run_key = self._named.get(key) if isinstance(key, IdempotencyKey) else key
        entry = None if run_key is None else self._find(run_key)
        return None if entry is None else entry.record

    async def begin(self, key: RunKey, *, owner: str = "") -> Attempt | None:
        """Start the next attempt. See `ResponseStore.begin`."""
        entry = self._running.get(key)
        if entry is None:
            return None
        attempt = Attempt(key, entry.record.attempt + 1)
        self._running[key] = entry._replace(record=replace(entry.record, attempt=attempt.number, owner=owner))
        return attempt

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        """Replace the response by its next state. See `ResponseStore.save`."""
        entry = self._current(attempt)
        if record.conversation_id is not None and record.status.is_terminal:
            await self._locks.finish(record)
            entry = self._current(attempt)
        self._put(entry._replace(record=replace(record, attempt=attempt.number, owner=entry.record.owner)))

    async def delete(self, key: RunKey) -> bool:
        """Erase the response. See `ResponseStore.delete`."""
        running = self._running.pop(key, None)
        entry = running or self._terminal.pop(key)
        if entry is None:
            return False
        self._forget(key, entry)
        if running is not None and running.record.conversation_id is not None:
            await self._locks.finish(replace(running.record, status=RunStatus.FAILED))
        return True

    async def context(self, key: RunKey) -> Context | None:
        """Return the context that ends with the response. See `ResponseStore.context`."""
        entry = self._find(key)
        if entry is None:
            return None
        before = entry.before
        if before is not None and entry.root is not None:
            head = await self._locks.head(entry.root)
            before = _without_removed(before, entry.depth, kept=EMPTY if head is None else head.context)
        return entry.record.context_after(before)

    def _new_entry(self, record: ResponseRecord, context: Context | None) -> _Entry:
        if record.conversation_id is not None or record.previous_response_id is None:
            return _Entry(record, context, record.conversation_key)
        previous = self._find(RunKey(record.key.partition, RunId(record.previous_response_id)))
        return (
            _Entry(record, context) if previous is None else _Entry(record, context, previous.root, previous.depth + 1)
        )

    @property
    def _locks(self) -> Conversations:
        if self._conversations is None:
            raise UnknownConversation("This store knows no conversations.")
        return self._conversations

    def _current(self, attempt: Attempt) -> _Entry:
        entry = self._running.get(attempt.key)
        if entry is None or entry.record.attempt != attempt.number:
            raise StaleWrite("The response is terminal or gone, or a later attempt has begun.")
        return entry

    def _find(self, key: RunKey) -> _Entry | None:
        return self._running.get(key) or self._terminal.get(key)

    def _put(self, entry: _Entry) -> None:
        key = entry.record.key
        if entry.record.status.is_terminal:
            self._running.pop(key, None)
            self._terminal.set(key, entry)
        else:
            self._running[key] = entry

    def _forget(self, key: RunKey, entry: _Entry) -> None:
        if (creator_key := entry.record.creator_key) is not None and self._named.get(creator_key) == key:
            del self._named[creator_key]


def _without_removed(context: Context, depth: int, *, kept: Context) -> Context:
    """Return the context without the items that have gone from the conversation, which now has those in `kept`."""
    # By identity: a client may have given the id of a removed item to another one.
    live = {id(item) for item in kept.all_items()}
    nodes = list(context.nodes())
    own, of_conversation = nodes[:depth], nodes[depth:]
    if all(id(item) in live for node in of_conversation for item in node.items):
        return context
    rebuilt, is_whole = EMPTY, True
    for node in reversed(of_conversation):
        # Sessions from the first removed item on know it.
        is_whole = is_whole and all(id(item) in live for item in node.items)
        rebuilt = _with_live(rebuilt, node, live, has_session=is_whole and node.has_session)
    for node in reversed(own):
        rebuilt = _on(rebuilt, node, node.items, has_session=node.has_session, approvals=node.approvals)
    return rebuilt


def _with_live(parent: Context, node: Context, live: set[int], *, has_session: bool) -> Context:
    """Return the node on another parent, without the items that are not `live` any more."""
    items = tuple(item for item in node.items if id(item) in live)
    removed = {item["id"] for item in node.items} - {item["id"] for item in items}
    approvals = {key: asked for key, asked in node.approvals.items() if key not in removed}
    return _on(parent, node, items, has_session=has_session, approvals=approvals)


def _on(
    parent: Context,
    node: Context,
    items: tuple[JsonObject, ...],
    *,
    has_session: bool,
    approvals: Mapping[str, JsonObject],
) -> Context:
    """Return the node on another parent, with what is left of it."""
    return Context(
        items,
        parent=parent,
        response_id=node.response_id,
        has_session=has_session,
        approvals=approvals,
        call_ids=node.call_ids,
    )
