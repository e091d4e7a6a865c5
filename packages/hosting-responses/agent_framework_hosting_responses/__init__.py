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
        ConversationHead,
        ConversationKey,
        ConversationLocked,
        ConversationRecord,
        Conversations,
        IdempotencyKey,
        ResponseRecord,
        ResponseStore,
        UnknownConversation,
    )
    from .stores.context import Context

__all__ = [
    "Context",
    "ConversationHead",
    "ConversationKey",
    "ConversationLocked",
    "ConversationRecord",
    "Conversations",
    "ConversationsService",
    "IdempotencyKey",
    "ResponseIdFactory",
    "ResponseRecord",
    "ResponseStore",
    "ResponsesChannel",
    "ResponsesService",
    "ResponsesSettings",
    "ResponsesState",
    "Started",
    "UnknownConversation",
]

# Loaded on first use: whoever imports the protocol core alone must not pay for a web framework.
_HOMES = {
    "Context": ".stores.context",
    "ConversationHead": ".stores.base",
    "ConversationKey": ".stores.base",
    "ConversationLocked": ".stores.base",
    "ConversationRecord": ".stores.base",
    "Conversations": ".stores.base",
    "ConversationsService": ".conversations",
    "IdempotencyKey": ".stores.base",
    "ResponseIdFactory": ".settings",
    "ResponseRecord": ".stores.base",
    "ResponseStore": ".stores.base",
    "ResponsesChannel": ".channel",
    "ResponsesService": ".service",
    "ResponsesSettings": ".settings",
    "ResponsesState": ".state",
    "Started": ".service",
    "UnknownConversation": ".stores.base",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
