"""Clients that are cut off at every single position of a stream, and read on at another server, or after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import wire
from nursery import Nursery, nursery
from replicas import replicas
from storyteller import Journal, Story

pytestmark = pytest.mark.behaviour("D3")

SECONDS = 100.0
AT_ONCE = 6


@pytest.fixture(scope="module")
def servers() -> Generator[Nursery, None, None]:
    """Where the servers come from."""
    with nursery() as made:
        yield made


@pytest.fixture
async def http() -> AsyncGenerator[httpx2.AsyncClient, None]:
    """Connections to any server."""
    async with httpx2.AsyncClient(timeout=SECONDS, trust_env=False, verify=False) as client:
        yield client


class Reader:
    """A client of one server."""

    def __init__(self, http: httpx2.AsyncClient, url: str) -> None:
        self._http = http
        self._url = f"{url}/v1"
        self._official = openai.AsyncOpenAI(base_url=self._url, api_key="sk-test", max_retries=0, http_client=http)

    def ask(self, story: Story) -> AsyncGenerator[bytes, None]:
        """Have a story told; return its events, as they come."""
        body = {"input": story.question, "background": True, "stream": True}
        return self._blocks("POST", f"{self._url}/responses", json=body)

    def follow(
        self, response_id: str, *, after: int = -1, listens: asyncio.Event | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Return the events after position `after`, as they come; `listens` is set when the server has begun to answer."""
        params = {"stream": "true", **({"starting_after": str(after)} if after >= 0 else {})}
        return self._blocks("GET", f"{self._url}/responses/{response_id}", listens=listens, params=params)

    async def rest(self, response_id: str, *, after: int, listens: asyncio.Event | None = None) -> list[bytes]:
        """Return the events after position `after`."""
        return [block async for block in self.follow(response_id, after=after, listens=listens)]

    async def whole(self, response_id: str) -> list[bytes]:
        """Return all events, which are as they must be."""
        blocks = [block async for block in self.follow(response_id)]
        wire.check_stream(wire.parse_sse(b"".join(blocks)))
        return blocks

    async def officially(self, response_id: str, *, after: int, listens: asyncio.Event | None = None) -> list[Any]:
        """Return the events after position `after` as the official client has them; `listens` is set when it does."""
        stream = await self._official.responses.retrieve(response_id, stream=True, starting_after=after)
        if listens is not None:
            listens.set()
        return [event.to_dict() async for event in stream]

    async def _blocks(
        self, method: str, url: str, *, listens: asyncio.Event | None = None, **options: Any
    ) -> AsyncGenerator[bytes, None]:
        async with self._http.stream(method, url, **options) as answer:
            assert answer.status_code == httpx2.codes.OK
            if listens is not None:
                listens.set()
            rest = b""
            async for piece in answer.aiter_raw():
                *blocks, rest = (rest + piece).split(b"\n\n")
                for block in blocks:
                    if not block.startswith(b":"):
                        yield block + b"\n\n"


async def first(count: int, blocks: AsyncGenerator[bytes, None]) -> list[bytes]:
    """Read so many events, then be cut off."""
    read: list[bytes] = []
    async with aclosing(blocks):
        async for block in blocks:
            read.append(block)
            if len(read) == count:
                break
    return read


def parsed(blocks: list[bytes]) -> list[Any]:
    return wire.parse_sse(b"".join(blocks))


def id_of(blocks: list[bytes]) -> str:
    return str(parsed(blocks[:1])[0]["response"]["id"])


async def check_every_position(response_id: str, here: Reader, there: Reader) -> None:
    """Be cut off at every position of a stream here, and read on there."""
    whole = await here.whole(response_id)
    for position in range(len(whole)):
        read = await first(position + 1, here.follow(response_id))
        rest = await there.rest(response_id, after=position)
        assert read + rest == whole
        assert await there.officially(response_id, after=position) == parsed(rest)


async def test_a_finished_stream_is_read_on_at_another_replica_from_every_position(
    servers: Nursery, postgres_url: str, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    order = {"target": "storyteller", "journal": tmp_path / "journal", "database_url": postgres_url, "is_quick": False}
    async with replicas(servers, 2, **order) as made, asyncio.timeout(SECONDS):
        one, other = (Reader(http, url) for url in made.urls)
        blocks = [block async for block in one.ask(Story("told", tools=2))]
        await check_every_position(id_of(blocks), one, other)
        await check_every_position(id_of(blocks), other, one)

        assert await other.whole(id_of(blocks)) == blocks


async def test_a_running_stream_is_read_on_at_another_replica_from_every_position(
    servers: Nursery, postgres_url: str, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    order = {"target": "storyteller", "journal": tmp_path / "journal", "database_url": postgres_url, "is_quick": False}
    async with replicas(servers, 2, **order) as made, asyncio.timeout(SECONDS):
        one, other = (Reader(http, url) for url in made.urls)
        model = parsed([block async for block in one.ask(Story("model", tools=2))])
        deltas = [number for number, event in enumerate(model) if event["type"].endswith("text.delta")]
        turns = asyncio.Semaphore(AT_ONCE)

        async def cut(position: int) -> None:
            # It stands still as soon as the position is told, until the client listens at the other replica. What comes
            # after the last piece of its text cannot be held up.
            held_at = next((number + 1 for number, delta in enumerate(deltas[:-1]) if delta >= position), None)
            story = Story(f"cut-{position}", tools=2, held_at=held_at)
            async with turns:
                read = await first(position + 1, one.ask(story))
                listen, also = asyncio.Event(), asyncio.Event()
                async with asyncio.TaskGroup() as group:
                    rest = group.create_task(other.rest(id_of(read), after=position, listens=listen))
                    events = group.create_task(other.officially(id_of(read), after=position, listens=also))
                    await listen.wait()
                    await also.wait()
                    journal.release(story.name)
            whole = await one.whole(id_of(read))
            assert len(whole) == len(model)
            assert read + rest.result() == whole
            assert events.result() == parsed(rest.result())

        async with asyncio.TaskGroup() as group:
            for position in range(len(model)):
                group.create_task(cut(position))


async def test_a_finished_stream_is_read_on_after_a_restart_from_every_position(
    servers: Nursery, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    order = {"target": "storyteller", "journal": tmp_path / "journal", "state_dir": tmp_path / "state"}
    async with replicas(servers, 1, **order) as made, asyncio.timeout(SECONDS):
        before = Reader(http, made.urls[0])
        blocks = [block async for block in before.ask(Story("told", tools=2))]
        reads = [await first(count, before.follow(id_of(blocks))) for count in range(1, len(blocks) + 1)]
        await made.kill(0, seconds=0)
        after = Reader(http, made.urls[0])

        for position, read in enumerate(reads):
            rest = await after.rest(id_of(blocks), after=position)
            assert read + rest == blocks
            assert await after.officially(id_of(blocks), after=position) == parsed(rest)


async def test_a_running_stream_is_read_on_after_a_restart_to_the_end_that_it_got_there(
    servers: Nursery, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    order = {"target": "storyteller", "journal": tmp_path / "journal", "state_dir": tmp_path / "state"}
    async with replicas(servers, 1, **order) as made, asyncio.timeout(SECONDS):
        before = Reader(http, made.urls[0])
        told = before.ask(Story("held", tools=2, held_at=6))
        read = [await anext(told)]
        while b"<held/1.0>" not in read[-1]:
            read.append(await anext(told))
        reads = [await first(count, before.follow(id_of(read))) for count in range(1, len(read) + 1)]
        await made.kill(0, seconds=0)
        await told.aclose()
        after = Reader(http, made.urls[0])
        whole = await after.whole(id_of(read))

        assert whole[: len(read)] == read
        assert parsed(whole)[-1]["response"]["status"] == "failed"
        for position, earlier in enumerate(reads):
            rest = await after.rest(id_of(read), after=position)
            assert earlier + rest == whole
            assert await after.officially(id_of(read), after=position) == parsed(rest)
