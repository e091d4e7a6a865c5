"""What else is stored of a response, and is erased before it: whoever dies in between leaves a response that is found again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from agent_framework import AgentSession

from agent_framework_hosting.context import ChannelContext
from agent_framework_hosting.errors import StoreError, StoreUnavailable
from agent_framework_hosting.runs.base import RunKey
from agent_framework_hosting.sessions import target_of
from agent_framework_hosting.targets.base import Erasable
from agent_framework_hosting.targets.served import ServedTargets

from .stores.context import response_session_key

logger = logging.getLogger(__name__)


async def erase_session(context: ChannelContext, key: RunKey) -> None:
    """Erase the session stored with a response, and what the target keeps for going on from it.

    Raises:
        StoreError: the session cannot be read, or something could not be erased.
    """
    session_key = response_session_key(key.run_id)
    if keeps_more(context.targets):
        session = await context.session_store.get(key.partition, session_key)
        if session is not None:
            await _erase_more(context, key, session)
    elif context.left_checkpoints is not None and context.database is not None:
        from .stores.sql_erasure import erasing_checkpoints  # noqa: PLC0415  optional dependency

        # Of workflows that are not served any more.
        await erasing_checkpoints(context.session_store, context.left_checkpoints)([key])
    # Whatever the response says: a run that failed late has stored one that nobody continues.
    await context.session_store.delete(key.partition, session_key)


def keeps_more(targets: ServedTargets) -> bool:
    """Whether one of the targets keeps something of its conversations outside of the sessions."""
    return any(isinstance(served.target, Erasable) for served in targets)


async def _erase_more(context: ChannelContext, key: RunKey, session: AgentSession) -> None:
    served = context.targets.stored(target_of(session))
    if served is not None and isinstance(served.target, Erasable):
        await served.target.erase(key.partition, session)
    elif context.left_checkpoints is not None:
        from agent_framework_hosting.targets.workflow import erase_checkpoint  # noqa: PLC0415  workflows only

        # Of a target that is not served any more, or not as a workflow; what it has elsewhere is left to its retention.
        await erase_checkpoint(context.left_checkpoints, key.partition, session)


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
