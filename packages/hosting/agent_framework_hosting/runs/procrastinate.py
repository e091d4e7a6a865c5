"""Runs on many machines: Procrastinate's queue, in the PostgreSQL database that the stores use.

Procrastinate delivers runs to its worker, one in every process that works, tells it of cancellations, and knows by their
heart-beats which workers are dead. It is never the truth about a run: that is in the channel's store, which also keeps a
worker from writing that was only taken for dead.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import sqlalchemy as sa
from procrastinate import App, JobContext
from procrastinate.jobs import Job
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from procrastinate.worker import Worker
from sqlalchemy.exc import IntegrityError

from .. import telemetry
from ..errors import ConfigurationError, RunError, StoreUnavailable
from ..sql.database import Database
from ..sql.queue import jobs
from ..sql.queue.connector import PAUSE, QueueConnector, QueueManager
from .base import Participant, QueueDepth, RunHandler, RunKey

__all__ = ["ProcrastinateRunEngine", "QueueDepth"]

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

POLL: Final = 1.0
"""Seconds after which a worker looks for jobs and cancellations by itself: notifications are lost with a connection."""

BEAT: Final = 2.0
"""Seconds between two signs of life of a worker."""

STALLED_AFTER: Final = 10.0
"""Seconds after its last sign of life for which a worker counts as alive."""

KEEP_HOURS: Final = 24
"""Hours for which a job that could not be executed is kept, for an operator to see."""

CONNECTIONS: Final = 4
"""Connections of the queue's own, beside one that listens."""

MOST_FAILURES: Final = 5
"""How often a run whose handler raised is delivered again. The waiting doubles, from one second."""

CLOSE_SECONDS: Final = 5.0
"""Seconds that runs which ignored their cancellation get once more, when the engine is closed."""

_CLEAN_SECONDS: Final = 3_600.0
_LOOK_SECONDS: Final = 0.05
_STALE_SECONDS: Final = 30.0

# Never: the engine sends the signs of life.
_NEVER: Final = 86_400.0


class _HandedBackError(Exception):
    """The run goes back to the queue: this process is stopping."""


class _HandlerFailedError(Exception):
    """The handler raised."""


class _Redelivery(BaseRetryStrategy):
    """Says which jobs that did not succeed go back to the queue."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Return when the job may run again, `None` for never."""
        if isinstance(exception, _HandedBackError):
            return RetryDecision()
        if isinstance(exception, _HandlerFailedError) and job.attempts < MOST_FAILURES:
            return RetryDecision(retry_in={"seconds": 2**job.attempts})
        return None


class _Run:
    """A handler that runs in this process."""

    def __init__(self, handler: RunHandler, key: RunKey) -> None:
        self.key = key
        self.is_given_up = False
        self.was_interrupted = False
        self.has_failed = False
        self._is_cancelled = False
        # Nothing travels with a run but its key, not even from whoever started the host.
        self.task = asyncio.create_task(self._execute(handler), name=f"run {key.run_id}", context=contextvars.Context())

    def cancel(self, *, gives_up: bool = False, again: bool = False) -> None:
        """Cancel the handler, once: a second cancellation would disturb it while it writes down the first.

        `gives_up` says that nobody is to execute the run any more.
        """
        self.is_given_up |= gives_up
        if again or not self._is_cancelled:
            self._is_cancelled = True
            self.task.cancel()

    async def _execute(self, handler: RunHandler) -> None:
        try:
            await handler(self.key)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.was_interrupted = self._is_cancelled and isinstance(error, asyncio.CancelledError)
            if not self.was_interrupted:
                # The run boundary, as in `MemoryRunEngine`.
                self.has_failed = True
                logger.exception("A run handler failed", extra={"run_id": self.key.run_id})


class ProcrastinateRunEngine:
    """Executes runs in any of the processes that share the database at `url` (`sql.database.postgres_url`).

    `works` says whether this process executes any, at most `concurrency` at once; if not, it only starts and cancels.
    `beat`: seconds between two signs of life. A worker that gave none for `stalled_after` seconds is dead for the others,
    who put its runs back into the queue. They do not while the database, or they themselves, were away: then everybody's
    signs are late.

    A run is called again after its process died, after it was handed back by `drain`, and after its handler raised. A
    handler that returns, or is cancelled because `cancel` was called, has ended.

    A run that is cancelled before its handler was called, or whose worker dies while being cancelled, is never called:
    who cancels sees to it that the run is ended.
    """

    is_shared = True
    kind = "shared"

    def __init__(
        self,
        url: sa.URL,
        *,
        works: bool = True,
        concurrency: int = 10,
        beat: float = BEAT,
        stalled_after: float = STALLED_AFTER,
    ) -> None:
        if beat <= 0 or stalled_after < 3 * beat:
            raise ConfigurationError("stalled_after must be three times the beat, at least, and the beat more than 0.")
        if concurrency < 1:
            raise ConfigurationError("concurrency must be 1 or more.")
        self.works = works
        self.is_draining = False
        self._concurrency = concurrency
        self._beat = beat
        self._stalled_after = stalled_after
        # Not the stores' own: signs of life must not queue behind their transactions.
        self._database = Database(url, connections=CONNECTIONS)
        self._database.open()  # contacts nobody
        self._connector = QueueConnector(self._database)
        self._app = self._new_app()
        self._handlers: dict[str, RunHandler] = {}
        self._runs: dict[RunKey, _Run] = {}
        self._deliveries: set[int] = set()
        self._worker: Worker | None = None
        self._working: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._seen: tuple[float, QueueDepth] | None = None
        self._is_watched = False
        telemetry.observe(self)

    def register(self, operation: str, handler: RunHandler) -> None:
        """Say who executes runs of `operation`. See `RunEngine.register`."""
        if operation in self._handlers:
            raise ConfigurationError(f"Runs of {operation!r} have a handler already: give each channel its own name.")
        if len(operation) > jobs.MAX_OPERATION or not operation.isascii():
            raise ConfigurationError(
                f"{operation!r} is no name for runs in a queue: {jobs.MAX_OPERATION} ASCII characters at most."
            )
        self._handlers[operation] = handler

    async def start(self, operation: str, key: RunKey) -> None:
        """Queue the run; does nothing if it waits or runs already, wherever that is. See `RunEngine.start`.

        Raises:
            RunError: the engine is draining.
            StoreUnavailable: the queue cannot be reached.
        """
        self._require_open()
        with suppress(IntegrityError):
            await self._database.run(lambda connection: jobs.add(connection, operation, key))

    def starting(self, operation: str, key: RunKey) -> Participant:
        """Return what queues a new run. See `RunEngine.starting`."""

        def queue(connection: sa.Connection) -> None:
            self._require_open()
            jobs.add(connection, operation, key)

        return Participant(alone=partial(self.start, operation, key), within=queue, url=self._database.url)

    def _require_open(self) -> None:
        if self.is_draining:
            raise RunError("The host is shutting down and takes no new runs.")

    async def cancel(self, key: RunKey, *, grace: float) -> bool:
        """Cancel the run wherever it is. See `RunEngine.cancel`.

        Raises:
            StoreUnavailable: the queue cannot be reached, and the run is not in this process.
        """
        deadline = asyncio.get_running_loop().time() + grace
        run, worker_id = self._runs.get(key), None
        if run is not None:
            await _let_start()
            run.cancel(gives_up=True)
            worker_id = None if self._worker is None else self._worker.worker_id
        is_elsewhere = False
        try:
            is_elsewhere = await self._database.run(
                lambda connection: jobs.cancel(connection, key, except_of=worker_id)
            )
        except StoreUnavailable:
            if run is None:
                raise
        if run is not None:
            await asyncio.wait({run.task}, timeout=_left(deadline))
        has_ended = not is_elsewhere or await self._has_ended(key, deadline)
        return has_ended and (run is None or run.task.done())

    async def _has_ended(self, key: RunKey, deadline: float) -> bool:
        """Wait until another process is done with the run, at most until `deadline`."""
        while left := _left(deadline):
            await asyncio.sleep(min(_LOOK_SECONDS, left))
            if await self._database.run(lambda connection: jobs.find(connection, key)) is None:
                return True
        return False

    async def recover(self) -> None:
        """Begin to work, if this process does; what dead processes left is delivered by and by."""
        self.is_draining = self._connector.is_closed = False
        self._database.open()
        if self.works and self._working is None:
            # A context of its own: whatever is current where the host is started must not be so in runs.
            context = contextvars.Context()
            self._working = asyncio.create_task(self._work(), name="queue worker", context=context)
            self._beating = asyncio.create_task(self._give_signs(), name="queue signs of life", context=context)

    async def drain(self, grace: float) -> None:
        """Take and begin no new runs, wait at most `grace` seconds for those here, then hand back what is left.

        What is handed back is cancelled, and executed by another process unless its handler returns all the same.
        """
        self.is_draining = True
        if self._worker is not None:
            self._worker.stop()  # type: ignore[no-untyped-call]
        if self._runs and grace > 0:
            await asyncio.wait({run.task for run in self._runs.values()}, timeout=grace)
        await _let_start()
        for run in tuple(self._runs.values()):
            run.cancel()
        # Waiting, not awaiting: cancelling the drain, to give less grace, must not disturb the worker.
        if self._runs:
            await asyncio.wait({run.task for run in self._runs.values()})
        if self._working is not None:
            # It still has to tell the queue, which may be away. Then others will find that this process is gone.
            done, _ = await asyncio.wait({self._working}, timeout=CLOSE_SECONDS)
            if done:
                self._working = self._worker = None
        await self._stop_signs()

    async def close(self) -> None:
        """Let go of every connection, after a drain; runs that ignored their cancellation are given up."""
        self._connector.is_closed = True
        for run in tuple(self._runs.values()):
            run.cancel(again=True)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.drain(0)
        except TimeoutError:
            logger.error("Runs did not end after their cancellation", extra={"runs": len(self._runs)})  # noqa: TRY400  ours
            await self._stop_signs()
        # One that still waits for such runs, or for a database that is away, ends by itself: a later start has its own.
        self._working = self._worker = None
        await self._database.close()
        self._seen = None

    async def missing(self, keys: Iterable[RunKey]) -> set[RunKey]:
        """Return those of the runs that no process executes or will execute. See `RunEngine.missing`.

        Raises:
            StoreUnavailable: the queue cannot be reached.
        """
        # A run that goes on here does so whatever became of its job.
        asked = tuple(key for key in keys if key not in self._runs)
        return await self._database.run(lambda connection: jobs.missing(connection, asked)) if asked else set()

    async def depth(self) -> QueueDepth:
        """Return how many runs wait and run in all processes, and for how long the oldest has waited.

        Raises:
            StoreUnavailable: the queue cannot be reached.
        """
        return await self._database.run(jobs.depth)

    async def look(self) -> None:
        """Look how much there is to do, for metrics, if somebody collects them.

        Raises:
            StoreUnavailable: the queue cannot be reached.
        """
        if self._is_watched:
            self._seen = time.monotonic(), await self.depth()

    def seen_depth(self) -> QueueDepth | None:
        """Return what there was to do at the last `look`, unless that was too long ago. See `telemetry.Observed`."""
        self._is_watched = True
        seen = self._seen
        return None if seen is None or time.monotonic() - seen[0] > _STALE_SECONDS else seen[1]

    # --- The worker

    def _new_app(self) -> App:
        app = App(connector=self._connector)
        app.job_manager = QueueManager(self._connector)

        @app.task(name=jobs.TASK, pass_context=True, retry=_Redelivery())
        async def deliver(
            context: JobContext,
            *,
            operation: str,
            partition: str,  # noqa: ARG001  this and the next name the run, for `jobs.key_of`
            run_id: str,  # noqa: ARG001
            queued_at: float,
        ) -> None:
            if context.job.attempts == 0:
                telemetry.waited(self, operation, time.time() - queued_at)
            await self._deliver(context, operation)

        return app

    async def _work(self) -> None:
        """Keep a worker working until the drain."""
        me = asyncio.current_task()
        while self._is_wanted(me):
            self._worker = Worker(
                self._app,
                queues=[jobs.queue_of(operation) for operation in self._handlers],
                name="afhost",
                concurrency=self._concurrency,
                fetch_job_polling_interval=POLL,
                abort_job_polling_interval=POLL,
                delete_jobs="successful",
                install_signal_handlers=False,
                update_heartbeat_interval=_NEVER,
                stalled_worker_timeout=_CLEAN_SECONDS,
            )
            try:
                await self._worker.run()  # type: ignore[no-untyped-call]
            except Exception:  # the boundary of the task: runs must be executed whatever it was
                logger.exception("The worker failed, another one is started")
            if self._is_wanted(me):
                logger.error("The worker stopped, another one is started")
                await asyncio.sleep(PAUSE)

    def _is_wanted(self, working: asyncio.Task[None] | None) -> bool:
        # A task of an earlier start may still wait for runs that ignore their cancellation.
        return not self.is_draining and self._working is working

    async def _deliver(self, context: JobContext, operation: str) -> None:
        """Have the handler called, and return when the job is done; raise for it to be put back."""
        job = context.job
        assert job.id is not None  # noqa: S101  it comes from the queue
        key = jobs.key_of(job)
        self._deliveries.add(job.id)
        try:
            # Delivered again while it runs: the others took this process for dead. Its handler is not called twice at
            # once; the job ends when it does.
            run = self._runs.get(key) or self._begin(operation, key)
            while not run.task.done():
                try:
                    await asyncio.wait({run.task})
                except asyncio.CancelledError:
                    # Procrastinate's way to say that somebody called `cancel`; otherwise the event loop is ending.
                    run.cancel(gives_up=context.should_abort())
        finally:
            self._deliveries.discard(job.id)
        if run.was_interrupted and not run.is_given_up:
            raise _HandedBackError
        if run.has_failed:
            raise _HandlerFailedError

    def _begin(self, operation: str, key: RunKey) -> _Run:
        if self.is_draining:  # fetched at the moment at which the drain began
            raise _HandedBackError
        run = self._runs[key] = _Run(self._handlers[operation], key)
        began = time.perf_counter()

        def end(_task: asyncio.Task[None]) -> None:
            telemetry.lasted(self, operation, time.perf_counter() - began)
            del self._runs[key]

        run.task.add_done_callback(end)
        return run

    # --- Signs of life

    async def _give_signs(self) -> None:
        """Give signs of life, and look after the jobs of those who give none."""
        keeper = _Keeper(self._connector, self._stalled_after, self._beat)
        async with asyncio.TaskGroup() as group:
            # On its own: nothing that takes long may put off a sign of life.
            group.create_task(self._repeat(keeper.give_sign), name="queue signs of life")
            group.create_task(
                self._repeat(lambda worker_id: keeper.tidy(worker_id, self._deliveries)), name="queue tidy"
            )

    async def _repeat(self, work: Callable[[int], Awaitable[None]]) -> None:
        """Do the work for the worker with every beat."""
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            worker_id = None if self._worker is None else self._worker.worker_id
            if worker_id is not None:
                try:
                    await work(worker_id)
                except Exception:  # the boundary of the task: the next beat comes whatever it was
                    logger.exception("Looking after the queue failed, it is tried again")
            await asyncio.sleep(max(0.0, began + self._beat - clock()))

    async def _stop_signs(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})
            self._beating = None


class _Keeper:
    """Keeps a worker alive in the eyes of the others, and the queue in order."""

    def __init__(self, connector: QueueConnector, stalled_after: float, beat: float) -> None:
        self._connector = connector
        self._stalled_after = stalled_after
        self._beat = beat
        self._clock = asyncio.get_running_loop().time
        # The others need time for their first sign, if all of them could not give one until now.
        self._quiet_until = self._clock() + 2 * beat
        self._clean_at = self._clock()
        self._suspects: set[int] = set()

    async def give_sign(self, worker_id: int) -> None:
        """Give a sign of life; if it is late, those of the others may be, too."""

        def sign(connection: sa.Connection) -> None:
            if self._is_late(jobs.beat(connection, worker_id)):
                # Before the sign can be seen: who takes over looks first whether its own is there.
                self._quiet_until = self._clock() + self._stalled_after

        await self._connector.run(sign)

    async def tidy(self, worker_id: int, deliveries: set[int]) -> None:
        """Put back what dead workers have, and what got lost; clean up from time to time."""
        if self._clock() >= self._quiet_until:
            await self._take_over(worker_id)
        await self._find_lost(worker_id, deliveries)
        if self._clock() >= self._clean_at:
            self._clean_at = self._clock() + _CLEAN_SECONDS
            await self._connector.run(
                lambda connection: jobs.clean(connection, keep_hours=KEEP_HOURS, keep_workers=_CLEAN_SECONDS)
            )

    async def _take_over(self, worker_id: int) -> None:
        def take_over(connection: sa.Connection) -> list[int]:
            # While no sign of its own gets through, that of another may not have, either.
            if self._is_late(jobs.silence(connection, worker_id)) or self._clock() < self._quiet_until:
                return []
            return jobs.take_over(connection, self._stalled_after)

        if taken := await self._connector.run(take_over):
            logger.warning("Jobs of dead workers were put back", extra={"job_ids": taken})

    def _is_late(self, age: float | None) -> bool:
        return age is None or age > self._stalled_after / 2

    async def _find_lost(self, worker_id: int, deliveries: set[int]) -> None:
        """Put back jobs that the worker took, but does not have; found twice, for others are on their way.

        The connection was lost when they were fetched, or they were cancelled before they came to their first line.
        """
        held = await self._connector.run(lambda connection: jobs.held_by(connection, worker_id))
        found = held - deliveries
        lost = found & self._suspects
        self._suspects = found - lost
        if lost:
            logger.warning("Jobs that were lost on their way were put back", extra={"job_ids": sorted(lost)})
            await self._connector.run(lambda connection: jobs.put_back_lost(connection, worker_id, lost))


def _left(deadline: float) -> float:
    """Return the seconds until a time of the event loop."""
    return max(0.0, deadline - asyncio.get_running_loop().time())


async def _let_start() -> None:
    """Let every task that was created before get to its first line: cancelled sooner, it would never call its handler."""
    await asyncio.sleep(0)
