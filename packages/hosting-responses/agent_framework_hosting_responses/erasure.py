"""What else is stored of a response, and is erased before it: whoever dies in between leaves a response that is found again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from agent_framework_hosting.context import ChannelContext
from agent_framework_hosting.errors import StoreError, StoreUnavailable
from agent_framework_hosting.runs.base import RunKey
from agent_framework_hosting.targets.base import Erasable, erase

from .stores.context import response_session_key

logger = logging.getLogger(__name__)


async def erase_session(context: ChannelContext, key: RunKey) -> None:
    """Erase the session stored with a response, and what the target keeps for going on from it.

    Raises:
        StoreError: the session cannot be read, or something could not be erased.
    """
    session_key = response_session_key(key.run_id)
    if isinstance(context.target, Erasable):
        session = await context.session_store.get(key.partition, session_key)
        if session is not None:
            await erase(context.target, key.partition, session)
    # Whatever the response says: a run that failed late has stored one that nobody continues.
    await context.session_store.delete(key.partition, session_key)


def before_pruning(context: ChannelContext) -> Callable[[Sequence[RunKey]], Awaitable[None]]:
    """Return what is to be done before responses are pruned: the same as before one is deleted."""

    async def erase_sessions(keys: Sequence[RunKey]) -> None:
        for key in keys:
            try:
                await erase_session(context, key)
            except StoreUnavailable:
                raise
            except StoreError:
                # Its types may be unknown by now. One such session must not keep everything else from being pruned.
                logger.exception("What a session needed is left to its own retention", extra={"run_id": key.run_id})
                await context.session_store.delete(key.partition, response_session_key(key.run_id))

    return erase_sessions
