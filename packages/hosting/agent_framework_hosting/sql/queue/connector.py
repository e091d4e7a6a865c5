"""Procrastinate over this package's database: how its worker reaches the queue.

The worker's statements wait for a database that is away. Procrastinate's own connector raises then, the worker stops,
and does not start again before everything that it runs has ended.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import psycopg
from procrastinate.connector import BaseAsyncConnector, Notify
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.types import JSONDict
from psycopg.sql import SQL, Identifier
from sqlalchemy.exc import IntegrityError

from ...errors import StoreUnavailable
from ..database import Database, Work
from . import jobs

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

PAUSE: Final = 0.5
"""Seconds between two tries to reach a database that is away."""

# A connection that only listens is not told when the other end is gone: it asks. In seconds.
_SILENCE: Final = 30.0
_PATIENCE: Final = 10.0


class QueueConnector(BaseAsyncConnector):
    """Gives Procrastinate's worker an open `Database`; every statement is a transaction.

    `is_closed` ends the waiting for a database that is away. `notices` counts what the queue has told the worker.
    """

    def __init__(self, database: Database) -> None:
        self.is_closed = False
        self.notices = 0
        self._database = database

    async def run(self, work: Work[ResultT]) -> ResultT:
        """Return what `work` returns, as soon as the database can be reached. See `Database.run`.

        Raises:
            StoreUnavailable: the connector is closed.
        """
        has_warned = False
        while True:
            try:
                return await self._database.run(work)
            except StoreUnavailable as error:
                if self.is_closed:
                    raise
                if not has_warned:
                    has_warned = True
                    logger.warning("The queue cannot be reached, it is tried again", extra={"reason": str(error)})
            await asyncio.sleep(PAUSE)

    async def execute_query_async(self, query: str, **arguments: Any) -> None:
        """Execute a query."""
        await self.run(lambda connection: jobs.ask(connection, query, arguments))

    async def execute_query_one_async(self, query: str, **arguments: Any) -> dict[str, Any]:
        """Return the one row of a query."""
        return (await self.execute_query_all_async(query, **arguments))[0]

    async def execute_query_all_async(self, query: str, **arguments: Any) -> jobs.Rows:
        """Return the rows of a query."""
        return await self.run(lambda connection: jobs.ask(connection, query, arguments))

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        """Call `on_notification` for whatever is told in the channels, until cancelled.

        What is told while the connection is lost is not heard: the worker looks by itself, too.
        """
        listens = [SQL("LISTEN {}").format(Identifier(channel)) for channel in channels]
        while True:
            try:
                async with asyncio.timeout(_PATIENCE):
                    connection = await psycopg.AsyncConnection.connect(**self._database.arguments(), autocommit=True)
                async with connection:
                    for listen in listens:
                        await connection.execute(listen)
                    await self._listen(connection, on_notification)
            except (psycopg.OperationalError, TimeoutError) as error:
                logger.info("Not listening to the queue, it is tried again", extra={"reason": str(error)})
            await asyncio.sleep(PAUSE)

    async def _listen(self, connection: psycopg.AsyncConnection[Any], on_notification: Notify) -> None:
        while True:
            async for notification in connection.notifies(timeout=_SILENCE):
                self.notices += 1
                await on_notification(channel=notification.channel, payload=notification.payload)
            async with asyncio.timeout(_PATIENCE):
                await connection.execute("SELECT 1")


class QueuedJob(Job):
    """A job that does not say in Procrastinate's log messages whose run it is."""

    @property
    def call_string(self) -> str:
        """Name the job."""
        return f"{self.task_name}[{self.id}]"

    def log_context(self) -> JSONDict:
        """Describe the job."""
        return {"id": self.id, "queue": self.queue, "task_name": self.task_name, "attempts": self.attempts}


class QueueManager(JobManager):
    """What the worker does with jobs; it ends only those that it still has."""

    def __init__(self, connector: QueueConnector) -> None:
        super().__init__(connector)
        self._connector = connector

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        """Take the next job."""
        while True:
            notices = self._connector.notices
            try:
                job = await super().fetch_job(queues, worker_id)
            except IntegrityError:  # the worker stood still, and was forgotten: its next sign of life brings it back
                return None
            if job is not None:
                return QueuedJob(**job.asdict())
            # The worker forgets what it is told while it looks: the job would wait until it looks by itself.
            if notices == self._connector.notices:
                return None

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:  # noqa: FBT001  Procrastinate's signature
        """End a job, unless it is another worker's by now."""
        await self._end(job, lambda connection: jobs.finish(connection, job, status, delete_job=delete_job))

    async def retry_job(
        self,
        job: Job,
        retry_at: dt.datetime | None = None,
        priority: int | None = None,  # noqa: ARG002  Procrastinate's signature, as are the next two
        queue: str | None = None,  # noqa: ARG002
        lock: str | None = None,  # noqa: ARG002
    ) -> None:
        """Put a job back, unless it is another worker's by now; where and how it waits does not change."""
        await self._end(job, lambda connection: jobs.put_back(connection, job, retry_at=retry_at))

    async def _end(self, job: Job, work: Work[bool]) -> None:
        if not await self._connector.run(work):
            logger.warning("A job was taken over by another worker", extra={"job_id": job.id})
