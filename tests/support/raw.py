"""One HTTP connection without a client library: tests decide what is sent, when it is read, and how the connection ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SECONDS = 60.0
"""How long one read may take."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Connection:
    """A keep-alive connection. Leaving the `connect` block without `close` or `abort` closes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a request; `body` is sent as JSON unless it is bytes."""
        payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"host": "test", "content-type": "application/json", "content-length": str(len(payload))}
        fields |= headers or {}
        await self.send_bytes(_head(method, path, fields) + payload)

    async def send_head(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Send the head of a request whose body follows in pieces, or never."""
        await self.send_bytes(_head(method, path, {"host": "test", "content-type": "application/json", **headers}))

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        async with asyncio.timeout(SECONDS):
            await self._writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the status and the headers of an answer."""
        async with asyncio.timeout(SECONDS):
            raw = await self._reader.readuntil(b"\r\n\r\n")
        status, *lines = raw.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines if line)
        return int(status.split(" ")[1]), {name.lower(): value for name, value in pairs}

    async def chunk(self) -> bytes:
        """Read one chunk of a chunked body, as the server flushed it; `b""` is its end."""
        async with asyncio.timeout(SECONDS):
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            data = await self._reader.readexactly(size + 2)
        return data[:-2]

    async def answer(self) -> Answer:
        """Read a whole answer."""
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            chunks = []
            while chunk := await self.chunk():
                chunks.append(chunk)
            return Answer(status, headers, b"".join(chunks))
        async with asyncio.timeout(SECONDS):
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    async def request(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and read its answer."""
        await self.send(method, path, body, headers=headers)
        return await self.answer()

    async def close(self) -> None:
        """Leave: what the server still sends is lost."""
        self._writer.close()

    def abort(self) -> None:
        """Leave without a word, as a client that was killed."""
        self._writer.transport.abort()


@asynccontextmanager
async def connect(base_url: str) -> AsyncGenerator[Connection, None]:
    """Open a connection to a served host."""
    url = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


def _head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")
