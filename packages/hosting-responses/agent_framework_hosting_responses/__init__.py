"""OpenAI's Responses API for agents and workflows of Microsoft Agent Framework."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .channel import ResponsesChannel
    from .service import ResponsesService, Started
    from .settings import ResponseIdFactory, ResponsesSettings
    from .stores.base import ResponseRecord, ResponseStore

__all__ = [
    "ResponseIdFactory",
    "ResponseRecord",
    "ResponseStore",
    "ResponsesChannel",
    "ResponsesService",
    "ResponsesSettings",
    "Started",
]

# Loaded on first use: whoever imports the protocol core alone must not pay for a web framework.
_HOMES = {
    "ResponseIdFactory": ".settings",
    "ResponseRecord": ".stores.base",
    "ResponseStore": ".stores.base",
    "ResponsesChannel": ".channel",
    "ResponsesService": ".service",
    "ResponsesSettings": ".settings",
    "Started": ".service",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
