"""Servers with one state, which are killed, paused and started again while clients talk to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from nursery import Nursery

ResultT = TypeVar("ResultT")


class Replicas:
    """`count` servers, all started with the same order. `urls[n]` is that of the n-th, also while it is away."""

    def __init__(self, nursery: Nursery, count: int, **order: object) -> None:
        self.urls = [""] * count
        self._nursery = nursery
        self._order = order
        # The nursery takes one order after the other; a server that is being started must not be killed meanwhile.
        self._orders = asyncio.Lock()
        self._away: list[asyncio.Lock] = [asyncio.Lock() for _ in range(count)]

    async def start(self, number: int) -> None:
        """Start a server, again if it was killed."""
        target = str(self._order["target"])
        options = {name: value for name, value in self._order.items() if name != "target"}
        self.urls[number] = await self._do(lambda: self._nursery.start(_name(number), target=target, **options))

    async def kill(self, number: int, *, seconds: float) -> None:
        """Kill a server, and start it again after so many seconds. One that is away already is left alone."""
        if not self._away[number].locked():
            async with self._away[number]:
                await self._do(lambda: self._nursery.kill(_name(number)))
                await asyncio.sleep(seconds)
                await self.start(number)

    async def pause(self, number: int, *, seconds: float) -> None:
        """Have a server stand still for so many seconds. One that is away already is left alone."""
        if not self._away[number].locked():
            async with self._away[number]:
                self._nursery.pause(_name(number))
                await asyncio.sleep(seconds)
                self._nursery.resume(_name(number))

    async def end(self) -> None:
        """Kill all servers."""
        for number in range(len(self.urls)):
            await self._do(partial(self._nursery.kill, _name(number)))

    async def _do(self, order: Callable[[], ResultT]) -> ResultT:
        async with self._orders:
            return await asyncio.to_thread(order)


def _name(number: int) -> str:
    return f"replica {number}"


@asynccontextmanager
async def replicas(nursery: Nursery, count: int, **order: object) -> AsyncGenerator[Replicas, None]:
    """Start servers, and kill them in the end."""
    made = Replicas(nursery, count, **order)
    try:
        for number in range(count):
            await made.start(number)
        yield made
    finally:
        await made.end()
