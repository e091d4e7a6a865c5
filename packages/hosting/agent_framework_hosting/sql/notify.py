"""Notifications between the processes that share a PostgreSQL database.

They are hints: whoever gets one looks into the database, and whoever depends on them polls as well, for they get lost with
a connection, and in front of connection poolers. They are sent outside of transactions, few at a time: PostgreSQL commits
transactions that notify one after the other. Measured elsewhere: 32 writers get a third of the transactions per second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from ..errors import StoreUnavailable
from .database import Database

logger = logging.getLogger(__name__)

INTERVAL: Final = 0.01
"""Seconds between two notifications of one process; what comes in between goes together."""

RETRY: Final = 1.0
"""Seconds until a lost connection is tried again."""

_MOST_BYTES: Final = 7_900  # PostgreSQL takes less than 8,000

# A server that is gone without a word is noticed after half a minute: nobody writes on a listening connection.
_KEEPALIVES: Final = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}

Connection = psycopg.AsyncConnection[TupleRow]


class Notifier:
    """Sends and receives notifications on one channel, on a connection each, which are made when they are needed.

    A notification is a name and a value without spaces and colons; of one name only the last value is sent. `on_news` gets
    each of them in the event loop, those of this process included. `on_connect` is called whenever it begins to listen:
    what was sent before is lost.
    """

    def __init__(
        self,
        database: Database,
        channel: str,
        *,
        on_news: Callable[[str, str], None],
        on_connect: Callable[[], None],
        interval: float = INTERVAL,
        retry: float = RETRY,
    ) -> None:
        self._database = database
        self._channel = channel
        self._on_news = on_news
        self._on_connect = on_connect
        self._interval = interval
        self._retry = retry
        self._news: dict[str, str] = {}
        self._has_news = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Receive from now on, as soon as there is a connection."""
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen(), name="listen for notifications")

    def send(self, name: str, value: str) -> None:
        """Have the value sent soon; it is lost if the server cannot be reached."""
        self._news[name] = value
        self._has_news.set()
        if self._sender is None:
            self._sender = asyncio.create_task(self._send(), name="send notifications")

    async def stop(self) -> None:
        """Close both connections; what was not sent yet is lost."""
        listener, self._listener = self._listener, None
        sender, self._sender = self._sender, None
        for task in (listener, sender):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})

    async def _listen(self) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.execute(f'LISTEN "{self._channel}"')
                    self._on_connect()
                    async for notification in connection.notifies():
                        self._receive(notification.payload)
            except (psycopg.Error, StoreUnavailable, OSError):
                logger.warning("No notifications can be received, it is tried again", exc_info=True)
            await asyncio.sleep(self._retry)

    def _receive(self, payload: str) -> None:
        for news in payload.split(" "):
            name, _, value = news.partition(":")
            self._on_news(name, value)

    async def _send(self) -> None:
        connection: Connection | None = None
        try:
            while True:
                await self._has_news.wait()
                is_used = connection is not None
                try:
                    if connection is None:
                        connection = await self._connect()
                        # A hint need not survive a power cut: without this it waits for the disk like a commit of data.
                        await connection.execute("SET synchronous_commit = off")
                    await self._send_news(connection)
                except (psycopg.Error, StoreUnavailable, OSError):
                    if connection is not None:
                        await connection.close()
                        connection = None
                    if not is_used:  # otherwise the server may have been restarted long ago
                        logger.warning("No notifications can be sent, it is tried again", exc_info=True)
                        await asyncio.sleep(self._retry)
                else:
                    await asyncio.sleep(self._interval)
        finally:
            if connection is not None:
                await connection.close()

    async def _send_news(self, connection: Connection) -> None:
        while self._news:
            names, size = [], 0
            for name, value in self._news.items():
                size += len(name) + len(value) + 2
                if size > _MOST_BYTES:
                    break
                names.append(name)
            # Taken before the wait: a value that comes during it is another one, and not sent yet.
            news = {name: self._news.pop(name) for name in names}
            try:
                payload = " ".join(f"{name}:{value}" for name, value in news.items())
                await connection.execute("SELECT pg_notify(%s, %s)", (self._channel, payload))
            except BaseException:
                self._news = {**news, **self._news}
                raise
        self._has_news.clear()

    async def _connect(self) -> Connection:
        arguments = {**_KEEPALIVES, **self._database.arguments()}
        return await psycopg.AsyncConnection.connect(**arguments, autocommit=True)
