"""Start and stop of a host: ordered, nobody skipped because a peer failed, every failure reported.

Start: every start-up callback in order, then the engines recover what a dead process left, then the callbacks that
need engines which take runs, then the host is ready.
Stop: readiness goes red, the engines drain, then the callbacks that end what is left of the runs, all while callers are
still answered; then every shutdown callback in reverse order.
A failed start stops at once what it started: *every* shutdown callback runs, so each must bear that its start-up
callback failed or never ran. Then the first start-up error is raised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import partial

from .errors import ConfigurationError
from .hooks import resolve
from .runs.base import RunEngine

logger = logging.getLogger(__name__)

DRAIN_OVERRUN = 5.0
"""Seconds that cancelled runs get, after the grace period, to write down how they ended."""

Callback = Callable[[], Awaitable[None] | None]


class Phase(StrEnum):
    """Where a host stands between start and stop."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Lifecycle:
    """Starts and stops engines and the callbacks of the channels.

    `grace`: seconds that runs get to finish. `notice`: seconds before that, in which a server with red readiness goes on as
    before.

    `shared_engine` is a second engine, for runs that other processes may execute too. `preparation` comes before every
    start-up callback; if it fails, none of them is called. `on_drained` may be called twice: a drain may be cut short.
    """

    def __init__(
        self,
        engine: RunEngine,
        *,
        shared_engine: RunEngine | None = None,
        preparation: Callback | None = None,
        on_startup: Sequence[Callback] = (),
        on_ready: Sequence[Callback] = (),
        on_drained: Sequence[Callback] = (),
        on_shutdown: Sequence[Callback] = (),
        grace: float = 30.0,
        notice: float = 0.0,
        drain_overrun: float = DRAIN_OVERRUN,
    ) -> None:
        self.phase = Phase.NEW
        self._engines = (engine,) if shared_engine is None else (engine, shared_engine)
        self._preparation = preparation
        self._is_prepared = False
        self._on_startup = tuple(on_startup)
        self._on_ready = tuple(on_ready)
        self._on_drained = tuple(on_drained)
        self._on_shutdown = tuple(on_shutdown)
        self.grace = grace
        self.notice = notice
        self._drain_overrun = drain_overrun
        self._stop_errors: list[Exception] = []
        self._is_drained = False

    @property
    def shares_runs(self) -> bool:
        """Whether other processes have the same state, and may execute the same runs."""
        return len(self._engines) > 1

    async def prepare(self) -> None:
        """Do what has to be done before the start; `start` does so itself unless it is done.

        Raises:
            Exception: the preparation failed.
        """
        if self._preparation is not None and not self._is_prepared:
            await resolve(self._preparation())
        self._is_prepared = True

    async def start(self) -> None:
        """Run every start-up callback and recover runs; the host is ready when this returns.

        Raises:
            ConfigurationError: the host is started already.
            Exception: the first error of a callback or of the recovery; everything was stopped again.
        """
        if self.phase not in {Phase.NEW, Phase.STOPPED}:
            raise ConfigurationError(
                "The host is started already: run its lifespan once, either through its own app or in the parent's."
            )
        self.phase, self._is_drained, self._stop_errors = Phase.STARTING, False, []
        errors: list[Exception] = []
        try:
            await self.prepare()
            for callback in self._on_startup:
                await _attempt(callback, errors)
            # Last, so that stores are open and handlers registered when the first recovered run starts.
            for callback in () if errors else (*(engine.recover for engine in self._engines), *self._on_ready):
                await _attempt(callback, errors)
        except BaseException:  # the start was cancelled, or a callback wants the process to exit
            await self._stop()
            raise
        if errors:
            await self._stop()
            _report(errors[1:] + self._stop_errors, "Another callback failed while the host started")
            raise errors[0]
        self.phase = Phase.READY

    def begin_stop(self) -> None:
        """Turn readiness red. Only sets a flag, so a signal handler may call it."""
        if self.phase is Phase.READY:
            self.phase = Phase.STOPPING

    async def drain(self, *, hurried: asyncio.Event | None = None) -> None:
        """Turn readiness red and let the runs end; `stop` does the rest. Once they have ended, does nothing.

        `hurried` takes what is left of the grace period away.
        """
        self.begin_stop()
        if self._is_drained:
            return
        if self._is_prepared and self.phase is not Phase.NEW:  # otherwise it has not begun
            logger.info("The host is stopping", extra={"grace": self.grace})
        drain = asyncio.create_task(self._drain(self.grace))
        hurry = asyncio.create_task((hurried or asyncio.Event()).wait())
        try:
            await asyncio.wait({drain, hurry}, return_when=asyncio.FIRST_COMPLETED)
            if drain.cancel():
                await asyncio.wait({drain})
                # Without grace, but still before the channels stop: cancelled runs write down how they ended.
                await self._drain(0)
        finally:
            hurry.cancel()
            drain.cancel()
            await asyncio.wait({drain, hurry})
        self._is_drained = True

    async def _drain(self, grace: float) -> None:
        try:
            # The engine cancels what the grace period left over and waits for it; a run that ignores its cancellation
            # must not keep the process alive for ever.
            async with asyncio.timeout(grace + self._drain_overrun):
                await asyncio.gather(
                    *(_attempt(partial(engine.drain, grace), self._stop_errors) for engine in self._engines)
                )
        except TimeoutError:  # ours: what the engine raises is collected
            logger.error("Runs did not end after their cancellation", extra={"grace": grace})  # noqa: TRY400  no traceback to show
        for callback in self._on_drained:
            await _attempt(callback, self._stop_errors)

    async def stop(self) -> None:
        """Turn readiness red, let the runs end, run every shutdown callback in reverse order.

        Raises:
            Exception: the first error of the engine or of a callback; the others are logged.
        """
        await self._stop()
        if self._stop_errors:
            _report(self._stop_errors[1:], "Another callback failed while the host stopped")
            raise self._stop_errors[0]

    async def _stop(self) -> None:
        await self.drain()
        self.phase = Phase.STOPPING  # of a start that failed, too
        for callback in reversed(self._on_shutdown):
            await _attempt(callback, self._stop_errors)
        self._is_prepared = False
        self.phase = Phase.STOPPED


async def _attempt(callback: Callback, errors: list[Exception]) -> None:
    try:
        await resolve(callback())
    except Exception as error:  # noqa: BLE001  collected: the first is raised, the others are logged
        errors.append(error)


def _report(errors: Sequence[Exception], message: str) -> None:
    for error in errors:
        logger.error(message, exc_info=error)
