"""What a channel keeps, and where: in memory, in the host's database, or in stores of the user's own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent_framework_hosting.context import ChannelContext
from agent_framework_hosting.stores.base import Prunable, Retention

from .erasure import before_pruning, keeps_more
from .recovery import OwnedLogs, Recovery
from .settings import ResponsesSettings
from .stores.base import Conversations, ResponseStore, Settlements
from .stores.held import HeldResponses
from .stores.memory import MemoryResponseStore
from .stores.memory_conversations import MemoryConversationStore
from .stores.memory_settlements import MemorySettlements

_IN_MEMORY = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesState:
    """The stores of one channel.

    Bring your own with `ResponsesChannel(state=ResponsesState(responses=…, conversations=…, settlements=…))`: `save` of the
    response store must append to the conversations of the conversation store. `one_shots` holds foreground one-shot responses while
    they run, and writes them into `responses` when they have ended; by default they are in `responses` from the start.
    `settlements` keeps what was answered of what responses ask. It must live as long as they do: `MemorySettlements` beside
    responses that outlive the process would let everything be answered, and approved tools run, again after a restart.
    """

    responses: ResponseStore
    conversations: Conversations
    settlements: Settlements
    one_shots: ResponseStore | None = None
    prunable: tuple[Prunable, ...] = ()
    recovery: Recovery | None = None


def state_of(context: ChannelContext, settings: ResponsesSettings) -> ResponsesState:
    """Return the stores that the host's state calls for: in its database, or in memory without one."""
    if context.database is None:
        conversations = memory_conversations(settings)
        responses = memory_responses(settings, conversations)
        settlements = MemorySettlements(max_age=_seconds(settings.max_response_age))
        return ResponsesState(responses=responses, conversations=conversations, settlements=settlements)
    # Only here: SQLAlchemy is an optional dependency.
    from agent_framework_hosting.stores.sql import SqlSessionStore  # noqa: PLC0415

    from .stores.sql_conversations import SqlConversationStore  # noqa: PLC0415
    from .stores.sql_erasure import erasing_checkpoints  # noqa: PLC0415
    from .stores.sql_responses import SqlResponseStore  # noqa: PLC0415
    from .stores.sql_settlements import SqlSettlements  # noqa: PLC0415

    kept_conversations = SqlConversationStore(
        context.database,
        retention=Retention(max_age=settings.max_conversation_age, max_entries=settings.max_conversations),
    )
    # An agent's sessions in the same database go with their responses, many at once; checkpoints are of workflows that
    # were served before.
    is_all = isinstance(context.session_store, SqlSessionStore) and not keeps_more(context.targets)
    left = context.left_checkpoints
    erasing_left = None if left is None else erasing_checkpoints(context.session_store, left)
    kept_responses = SqlResponseStore(
        context.database,
        retention=Retention(max_age=settings.max_response_age, max_entries=settings.max_responses),
        before_pruning=erasing_left if is_all else before_pruning(context),
    )
    logs, answered = context.durable_log, SqlSettlements(context.database)
    return ResponsesState(
        responses=kept_responses,
        conversations=kept_conversations,
        one_shots=HeldResponses(kept_responses),
        prunable=(kept_responses, kept_conversations),
        recovery=Recovery(
            kept_responses,
            kept_conversations,
            owner=context.owner,
            logs=logs if isinstance(logs, OwnedLogs) else None,
            settlements=answered,
            is_alone=context.database.is_sqlite,
        ),
        settlements=answered,
    )


def memory_conversations(settings: ResponsesSettings) -> MemoryConversationStore:
    """Return a store of conversations in memory, bounded as the settings say."""
    return MemoryConversationStore(
        max_entries=settings.max_conversations or _IN_MEMORY, max_age=_seconds(settings.max_conversation_age)
    )


def memory_responses(settings: ResponsesSettings, conversations: Conversations) -> MemoryResponseStore:
    """Return a store of responses in memory, bounded as the settings say."""
    return MemoryResponseStore(
        conversations=conversations,
        max_entries=settings.max_responses or _IN_MEMORY,
        max_age=_seconds(settings.max_response_age),
    )


def _seconds(age: float | None) -> float:
    return math.inf if age is None else age
