"""OpenAI's Responses API for agents and workflows of Microsoft Agent Framework."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .channel import ResponsesChannel
    from .conversations import ConversationsService
    from .service import ResponsesService, Started
    from .settings import ResponseIdFactory, ResponsesSettings
    from .state import ResponsesState
    from .stores.base import (
        AnsweredAlready,
        ConversationHead,
        ConversationKey,
        ConversationLocked,
        ConversationRecord,
        Conversations,
        IdempotencyKey,
        QuestionKey,
        ResponseRecord,
        ResponseStore,
        Settlements,
        UnknownConversation,
    )
    from .stores.context import Context
    from .stores.memory_settlements import MemorySettlements

__all__ = [
    "AnsweredAlready",
    "Context",
    "ConversationHead",
    "ConversationKey",
    "ConversationLocked",
    "ConversationRecord",
    "Conversations",
    "ConversationsService",
    "IdempotencyKey",
    "MemorySettlements",
    "QuestionKey",
    "ResponseIdFactory",
    "ResponseRecord",
    "ResponseStore",
    "ResponsesChannel",
    "ResponsesService",
    "ResponsesSettings",
    "ResponsesState",
    "Settlements",
    "Started",
    "UnknownConversation",
]

# Loaded on first use: whoever imports the protocol core alone must not pay for a web framework.
_HOMES = {
    "AnsweredAlready": ".stores.base",
    "Context": ".stores.context",
    "ConversationHead": ".stores.base",
    "ConversationKey": ".stores.base",
    "ConversationLocked": ".stores.base",
    "ConversationRecord": ".stores.base",
    "Conversations": ".stores.base",
    "ConversationsService": ".conversations",
    "IdempotencyKey": ".stores.base",
    "MemorySettlements": ".stores.memory_settlements",
    "QuestionKey": ".stores.base",
    "ResponseIdFactory": ".settings",
    "ResponseRecord": ".stores.base",
    "ResponseStore": ".stores.base",
    "ResponsesChannel": ".channel",
    "ResponsesService": ".service",
    "ResponsesSettings": ".settings",
    "ResponsesState": ".state",
    "Settlements": ".stores.base",
    "Started": ".service",
    "UnknownConversation": ".stores.base",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
