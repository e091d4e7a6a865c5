"""The event loop of a process that serves or works, and its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

logger = logging.getLogger(__name__)

PATIENCE: Final = 5.0
"""Seconds that tasks get to end when their event loop does."""


@contextmanager
def ending_runner(
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Generator[asyncio.Runner, None, None]:
    """Yield a runner; at the end of the block cancel what still runs in its loop, and close that.

    A task that ignores its cancellation is left behind with its loop: a runner of asyncio would wait for it for ever.
    """
    runner = asyncio.Runner(loop_factory=loop_factory)
    try:
        yield runner
    finally:
        if runner.run(_end_tasks()):
            runner.close()
        else:
            logger.error("Tasks that ignore their cancellation are left behind")


async def _end_tasks() -> bool:
    """Cancel every other task of the loop; return whether they have ended."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if not tasks:
        return True
    _, left = await asyncio.wait(tasks, timeout=PATIENCE)
    return not left
