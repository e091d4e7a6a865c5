"""What the stores of the channel must do. The suites in `agent_framework_hosting_responses.testing` check that they do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NewType, Protocol

import msgspec

from agent_framework_hosting.errors import StoreError
from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import Attempt, Participant, RunId, RunKey, RunStatus

from ..protocol.json import JsonObject
from ..protocol.query import ListQuery
from .context import Context

ConversationId = NewType("ConversationId", str)
"""Which conversation inside a partition."""


class ConversationKey(NamedTuple):
    """Name a conversation: whose it is and which."""

    partition: Partition
    conversation_id: ConversationId


class IdempotencyKey(NamedTuple):
    """Name a response by what its creator called it (`Idempotency-Key`)."""

    partition: Partition
    key: str


class OwnedRun(NamedTuple):
    """A running response as its owner finds it. `created_at` is in Unix seconds."""

    attempt: Attempt
    is_background: bool
    created_at: int

    @property
    def key(self) -> RunKey:
        """Whose response it is, and which."""
        return self.attempt.key

    @classmethod
    def of(cls, row: Any) -> OwnedRun:
        """Return the run of a row of responses."""
        attempt = Attempt(RunKey(Partition(row.partition), RunId(row.id)), row.attempt)
        return cls(attempt, row.is_background, row.created_at)


APPROVALS: Final = "approvals"
"""The question that names an answer to any of the approvals for which an agent waits after a response."""


class QuestionKey(NamedTuple):
    """Name what a response asks: one question, or, without a name, all that it waits for."""

    partition: Partition
    response_id: str
    question: str = ""


class AnsweredAlready(StoreError):  # noqa: N818  what it says
    """Another response has answered the question, or is about to; nothing was written."""

    def __init__(self, question: QuestionKey) -> None:
        super().__init__("Another response has answered the question.")
        self.question = question


class UnknownConversation(StoreError):  # noqa: N818  what it says
    """There is no such conversation in this partition."""


class ConversationLocked(StoreError):  # noqa: N818  the wire's word
    """Another response runs in the conversation, or has just ended there; nothing was written."""


class ResponseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One response: a snapshot of its state, never changed in place (`msgspec.structs.replace` makes the next one).

    `body` is the Response object as JSON (contract §2.1). `input` holds the items of its own request, `output` those of
    `body`; both as stored items (contract §1.5). What was before them is the `Context` of the store. `approvals` maps the
    ids of the approval requests in the output to what the target needs for the answer; `call_ids` maps `call_id`s of
    the output that had to be made up for the wire to the target's own. `has_session` says that the agent session after
    this response is stored under its id. `created_at` is in Unix seconds. `owner` names the process that runs it, `target`
    is the `ServedTarget.key` of what it is a run of.

    The context of a response in a conversation are the items of the conversation below `conversation_position`.
    `idempotency_key` is the caller's, `request_hash` tells its requests apart. `request` is what another process needs to
    run the response; a store drops it when the response is terminal.
    """

    key: RunKey
    status: RunStatus
    created_at: int
    body: bytes
    attempt: int = 0
    owner: str = ""
    target: str = ""
    is_background: bool = False
    is_streamed: bool = False
    is_stored: bool = True
    previous_response_id: str | None = None
    conversation_id: str | None = None
    conversation_position: int = 0
    idempotency_key: str | None = None
    request_hash: str | None = None
    input: tuple[JsonObject, ...] = ()
    output: tuple[JsonObject, ...] = ()
    approvals: Mapping[str, JsonObject] = msgspec.field(default_factory=dict)
    call_ids: Mapping[str, str] = msgspec.field(default_factory=dict)
    has_session: bool = False
    request: bytes | None = None

    @property
    def creator_key(self) -> IdempotencyKey | None:
        """What its creator called it."""
        return None if self.idempotency_key is None else IdempotencyKey(self.key.partition, self.idempotency_key)

    @property
    def conversation_key(self) -> ConversationKey | None:
        """The conversation it belongs to."""
        if self.conversation_id is None:
            return None
        return ConversationKey(self.key.partition, ConversationId(self.conversation_id))

    def context_after(self, parent: Context | None) -> Context:
        """Return the context that ends with this response, given the one it started from."""
        return Context(
            (*self.input, *self.output),
            parent=parent,
            response_id=self.key.run_id,
            has_session=self.has_session,
            approvals=self.approvals,
            call_ids=self.call_ids,
        )


class ResponseStore(Protocol):
    """Responses by partition and id. Terminal responses never change, and the latest attempt alone may write.

    Raises:
        StoreUnavailable: from every method, when the store cannot be reached.
    """

    async def create(
        self, record: ResponseRecord, context: Context | None = None, participants: Sequence[Participant] = ()
    ) -> ResponseRecord | None:
        """Store a new response, which continues from `context`. A record that is terminal already is stored whole.

        A store with a database has the `participants` write in the same transaction; others leave them alone.

        Returns the response that has the same idempotency key already, and stores nothing then. A response in a
        conversation takes the conversation's lock until it is terminal or deleted; one that is terminal already
        appends its items, as `save` does.

        Raises:
            AlreadyExists: the id is taken in this partition; the stored response stays as it is.
            UnknownConversation: there is no conversation `record.conversation_id`.
            ConversationLocked: another response runs in it, or it has changed since `record.conversation_position` was read.
        """
        ...

    async def get(self, key: RunKey | IdempotencyKey) -> ResponseRecord | None:
        """Return the response, `None` if it is unknown, deleted or expired."""
        ...

    async def begin(self, key: RunKey, *, owner: str = "") -> Attempt | None:
        """Start the next attempt, which takes the right to write from the one before; `None` if there is nothing to do.

        There is nothing to do when the response is unknown or terminal. `owner` names the process from now on.
        """
        ...

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        """Replace the response by its next state.

        In the same step a terminal state gives back the lock of the response's conversation, and appends its input and
        output to it if the status is `completed` or `incomplete` (contract §6.4).

        Raises:
            StaleWrite: the response is terminal or gone, or a later attempt has begun.
        """
        ...

    async def delete(self, key: RunKey) -> bool:
        """Erase the response; `False` if there was none.

        Responses that continue it keep their context, as long as they live themselves.
        """
        ...

    async def context(self, key: RunKey) -> Context | None:
        """Return the context that ends with this response's output; `None` if the response is unknown."""
        ...


class Settlements(Protocol):
    """Which questions have been answered, each by one response: whoever answers, says so first.

    A named question is settled for good. What a response waits for as a whole is settled unless the one that has answered
    it fails: without an answer nobody could go on.

    Raises:
        StoreUnavailable: from every method, and the participant, when the store cannot be reached.
    """

    def settling(self, questions: Collection[QuestionKey], *, by: RunKey, owner: str = "") -> Participant:
        """Return what settles all of the questions when the response `by` is stored, or none.

        It raises `AnsweredAlready` if one of them is settled by another response. `owner` is there if `by` is not stored:
        the process that alone knows of it. If that dies before `confirm`, what is waited for as a whole is open again.
        """
        ...

    async def is_settled(self, question: QuestionKey) -> bool:
        """Whether a response has answered the question, or is about to."""
        ...

    async def confirm(self, questions: Collection[QuestionKey], *, by: RunKey) -> None:
        """Say that a response which is not stored ends well: what it has settled stays so when its process dies.

        Nothing stays of questions that are gone with the response that has asked them.

        Raises:
            StaleWrite: its process was taken for dead, and the questions were opened again.
        """
        ...

    async def reopen(self, by: RunKey) -> None:
        """Say that the questions have not been answered that were settled by this response: nothing came of it."""
        ...


class ConversationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation (contract §6.1) without its items. `created_at` is in Unix seconds."""

    key: ConversationKey
    created_at: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationHead:
    """Where a conversation stands: `context` are all its items, `position` is the number of the next one.

    The session after a response in it knows the items up to there; `Context.has_session` says so only if these are exactly
    the items that it knows.
    """

    context: Context
    position: int


class ConversationStore(Protocol):
    """Conversations by partition and id.

    Raises:
        StoreUnavailable: from every method, when the store cannot be reached.
    """

    async def create(self, record: ConversationRecord, items: Sequence[JsonObject]) -> None:
        """Store a new conversation with its first items.

        Raises:
            AlreadyExists: the id is taken in this partition, or two items have the same id.
        """
        ...

    async def get(self, key: ConversationKey) -> ConversationRecord | None:
        """Return the conversation, `None` if it is unknown."""
        ...

    async def update(self, key: ConversationKey, metadata: Mapping[str, str]) -> ConversationRecord | None:
        """Replace the metadata and return the conversation, `None` if it is unknown."""
        ...

    async def delete(self, key: ConversationKey) -> bool:
        """Erase the conversation and its items; `False` if there was none. Its responses stay."""
        ...

    async def head(self, key: ConversationKey) -> ConversationHead | None:
        """Return where a new response in the conversation starts from, `None` if the conversation is unknown."""
        ...


class ConversationItems(Protocol):
    """The items of conversations, in the order in which they were appended.

    Raises:
        StoreUnavailable: from every method, when the store cannot be reached.
    """

    async def append(self, key: ConversationKey, items: Sequence[JsonObject]) -> None:
        """Append items, all of them or none.

        Raises:
            UnknownConversation: there is no such conversation.
            AlreadyExists: an item's id is taken in the conversation.
        """
        ...

    async def item(self, key: ConversationKey, item_id: str) -> JsonObject | None:
        """Return one item, `None` if the conversation has none of that id."""
        ...

    async def remove(self, key: ConversationKey, item_id: str) -> bool:
        """Erase one item; `False` if there was none. No session that knows it is continued in the conversation."""
        ...

    async def page(self, key: ConversationKey, query: ListQuery) -> tuple[Sequence[JsonObject], bool] | None:
        """Return the items that `query` asks for, in its order, and whether there are more.

        `None` if there is no item with the id in `after` or `before`.
        """
        ...


class ConversationLocks(Protocol):
    """One running response at a time in each conversation, for response stores that are not the conversations' own.

    Raises:
        StoreUnavailable: from every method, when the store cannot be reached.
    """

    async def lock(self, record: ResponseRecord) -> None:
        """Take the conversation of `record` for it.

        Raises:
            UnknownConversation: there is no such conversation.
            ConversationLocked: another response has it, or it has changed since `record.conversation_position` was read:
                the response would not know what was said meanwhile.
        """
        ...

    async def finish(self, record: ResponseRecord) -> None:
        """Give the conversation back, and append the input and output of `record` if it is completed or incomplete.

        Does nothing if the response does not have the conversation any more, or the conversation is gone.
        """
        ...


class Conversations(ConversationStore, ConversationItems, ConversationLocks, Protocol):
    """Everything about conversations, as one object: what a host is given."""
