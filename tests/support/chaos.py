"""Servers that are killed, paused and started again while clients have them tell stories.

What the clients ask for, when they leave, and what befalls which server comes from a seed (`Plan`); how that goes together
is up to the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import wire
from chaos_clients import PAUSE, Client, client_of
from chaos_play import Plan, Play
from replicas import Replicas


async def perform(plan: Plan, replicas: Replicas) -> Play:
    """Let clients and blows loose; return what has happened when all clients have what they wanted."""
    play = Play(plan, replicas)
    async with asyncio.TaskGroup() as group:
        for number in range(plan.clients):
            group.create_task(_visit(play, f"client {number}"))
        group.create_task(_strike(play, group))
    return play


async def _strike(play: Play, group: asyncio.TaskGroup) -> None:
    for blow in play.plan.schedule(len(play.replicas.urls)):
        while play.counts["accepted"] < blow.after:  # noqa: ASYNC110  a look now and then is simpler than twenty who tell
            await asyncio.sleep(PAUSE / 5)
        strike = play.replicas.kill if blow.kind == "kill" else play.replicas.pause
        group.create_task(strike(blow.replica, seconds=blow.seconds))


async def _visit(play: Play, name: str) -> None:
    """Have stories told, one after the other, each in another way, until there are enough."""
    async with client_of(play, name) as client:
        while play.counts["accepted"] < play.plan.stories:
            way = client.chance.choice(WAYS)
            play.counts[way.__name__.strip("_")] += 1
            try:
                async with asyncio.timeout(play.plan.patience):
                    await way(client)
            except TimeoutError:
                raise AssertionError(f"{name} waits in vain: {way.__name__}, {play.known[-5:]}") from None


async def _polls(client: Client) -> None:
    await client.await_end(await client.begin())


async def _follows(client: Client) -> None:
    await client.follow(await client.begin())


async def _streams(client: Client) -> None:
    await client.begin_and_follow()


async def _streams_officially(client: Client) -> None:
    await client.begin_and_follow_officially()


async def _cancels(client: Client) -> None:
    known = await client.begin(stream=False)
    await asyncio.sleep(client.chance.choice((0.0, 0.02, 0.2)))
    client.play.cancelled.add(known.story.name)
    cancelled = await client.ask("POST", f"/v1/responses/{known.id}/cancel")
    assert cancelled["status"] not in wire.RUNNING
    known.see(cancelled)
    await client.follow(known)


async def _repeats(client: Client) -> None:
    story = client.new_story()
    client.play.keyed.add(story.name)
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(client.ask("POST", "/v1/responses", client.request(story), key=story.name))
            for _ in range(2)
        ]
    first, second = (task.result() for task in asked)
    assert first["id"] == second["id"]
    known = client.accept(first, story)
    end = await client.await_end(known)
    assert await client.ask("POST", "/v1/responses", client.request(story), key=story.name) == end


async def _converses(client: Client) -> None:
    conversation = (await client.ask("POST", "/v1/conversations", {}))["id"]
    client.play.conversations.append(conversation)
    for turn in count(1):
        known = await client.begin(conversation=conversation)
        await client.await_end(known)
        if turn == client.chance.randint(2, 4) or turn == 4:
            return


WAYS: Sequence[Callable[[Client], Awaitable[None]]] = (
    _polls,
    _follows,
    _streams,
    _streams,
    _streams_officially,
    _cancels,
    _repeats,
    _converses,
)
