"""Clients of servers that may be away: they go to another one, and hold what they are told against what they were told."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import httpx2
import openai
import wire
from chaos_play import Known, Play
from openai.types.responses import ResponseStreamEvent
from storyteller import Story

JsonObject: TypeAlias = dict[str, Any]

PAUSE = 0.05
"""Seconds between two tries."""


class Client:
    """A client of all servers, which goes to another one when one does not answer, as long as it takes."""

    def __init__(self, play: Play, name: str) -> None:
        self.play = play
        self.chance = random.Random(f"{play.plan.seed} {name}")
        seconds = max(2.0, 1.5 * play.plan.lease)
        self.http = httpx2.AsyncClient(timeout=seconds, trust_env=False, verify=False)
        self._official = openai.AsyncOpenAI(
            base_url="http://nowhere", api_key="sk-test", max_retries=0, http_client=self.http, timeout=seconds
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._official.close()

    def new_story(self) -> Story:
        """Make up a story that nobody else has."""
        self.play.counts["submitted"] += 1
        return Story(
            f"s{next(self.play.numbers)}",
            pieces=self.chance.randint(1, 6),
            pause=self.chance.choice((0.0, 0.2, 1.0)) * self.play.plan.longest_pause,
            tools=self.chance.choice((0, 1, 1, 2)),
        )

    def accept(self, response: JsonObject, story: Story) -> Known:
        """Take notice that a story was accepted."""
        known = Known(response["id"], story)
        self.play.known.append(known)
        self.play.counts["accepted"] += 1
        return known

    async def once(self, method: str, path: str, body: object = None, *, key: str | None = None) -> JsonObject | None:
        """Ask some server; `None` if it did not answer, so that nobody knows whether it has done it."""
        headers = None if key is None else {"idempotency-key": key}
        try:
            answer = await self.http.request(method, f"{self.any_url()}{path}", json=body, headers=headers)
        except httpx2.TransportError:
            await self._was_cut("unanswered")
            return None
        if answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE:
            await self._was_cut("unavailable")
            return None
        found: JsonObject = answer.json()
        wire.check_answer(answer.status_code, found, path=path.partition("?")[0])
        assert answer.is_success or _is_locked(found), f"{method} {path}: {answer.status_code} {answer.text}"
        return found

    async def ask(self, method: str, path: str, body: object = None, *, key: str | None = None) -> JsonObject:
        """Ask until there is an answer: for what may be asked twice."""
        while (found := await self.once(method, path, body, key=key)) is None:
            pass
        return found

    async def begin(self, **options: object) -> Known:
        """Have a story begun in the background: another one if nobody knows whether the one before was."""
        story = self.new_story()
        while True:
            found = await self.once("POST", "/v1/responses", self.request(story, **options))
            if found is None:
                story = self.new_story()
            elif _is_locked(found):  # nothing was begun
                await asyncio.sleep(PAUSE)
            else:
                return self.accept(found, story)

    def request(self, story: Story, **options: object) -> JsonObject:
        """Return the body of a request for a story."""
        return {"input": story.question, "background": True, "metadata": {"story": story.name}, **options}

    async def await_end(self, known: Known) -> JsonObject:
        """Look at the response until it is terminal."""
        while known.end is None:
            known.see(await self.ask("GET", f"/v1/responses/{known.id}"))
            await asyncio.sleep(PAUSE)
        return known.end

    async def follow(self, known: Known) -> None:
        """Read the events to the last one, leaving and coming back at random."""
        while known.end is None:
            after = {"starting_after": str(len(known.events) - 1)} if known.events else {}
            await self._listen(self._ear(known.story, known), "GET", f"/{known.id}", params={"stream": "true", **after})

    async def begin_and_follow(self) -> Known:
        """Have a story told, and listen from its first word."""
        while True:
            ear = self._ear(self.new_story())
            await self._listen(ear, "POST", "", json=self.request(ear.story, stream=True))
            if ear.known is not None:
                await self.follow(ear.known)
                return ear.known

    async def begin_and_follow_officially(self) -> None:
        """Do the same with the official client."""
        ear = self._ear(self.new_story())
        while not ear.has_ended:
            ear = self._ear(self.new_story() if ear.known is None else ear.story, ear.known)
            try:
                async with await self._stream(ear) as stream:
                    async for event in stream:
                        if ear.hear(event.to_dict()):
                            break
                    ear.check_end()
            except (openai.APIConnectionError, httpx2.TransportError):
                await self._was_cut("cut")
            except openai.InternalServerError as error:
                if error.status_code != httpx2.codes.SERVICE_UNAVAILABLE:
                    raise
                await self._was_cut("unavailable")

    def official(self) -> openai.AsyncOpenAI:
        """Return the official client of some server."""
        return self._official.with_options(base_url=f"{self.any_url()}/v1")

    def any_url(self) -> str:
        """Return the URL of some server, as a load balancer does that does not know which are away."""
        return self.chance.choice(self.play.replicas.urls)

    async def _stream(self, ear: Ear) -> openai.AsyncStream[ResponseStreamEvent]:
        responses = self.official().responses
        if ear.known is not None:
            return await responses.retrieve(ear.known.id, stream=True, starting_after=len(ear.known.events) - 1)
        metadata = {"story": ear.story.name}
        return await responses.create(input=ear.story.question, background=True, stream=True, metadata=metadata)

    async def _listen(self, ear: Ear, method: str, path: str, **options: Any) -> None:
        """Read a stream until it ends, breaks, or the ear has had enough."""
        try:
            async with self.http.stream(method, f"{self.any_url()}/v1/responses{path}", **options) as answer:
                if answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE:
                    await self._was_cut("unavailable")
                    return
                if not answer.is_success:
                    await answer.aread()
                    raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
                async for line in answer.aiter_lines():
                    if line.startswith("data: ") and ear.hear(json.loads(line.removeprefix("data: ")), line):
                        break
                ear.check_end()
        except httpx2.TransportError:
            await self._was_cut("cut")

    async def _was_cut(self, how: str) -> None:
        self.play.counts[how] += 1
        await asyncio.sleep(PAUSE)

    def _ear(self, story: Story, known: Known | None = None) -> Ear:
        return Ear(self, story, known, leaves_after=self.chance.choice((0, self.chance.randint(1, 8))))


class Ear:
    """Hears one stream of a story, after `leaves_after` events no more of it; 0 for to the end."""

    def __init__(self, client: Client, story: Story, known: Known | None, *, leaves_after: int) -> None:
        self.story = story
        self.known = known
        self._client = client
        self._left = leaves_after
        self._has_left = False

    @property
    def has_ended(self) -> bool:
        """Whether the last event was heard."""
        return self.known is not None and self.known.end is not None

    def hear(self, event: JsonObject, line: str | None = None) -> bool:
        """Take an event; return whether to leave."""
        if self.known is None:
            self.known = self._client.accept(event["response"], self.story)
        self.known.hear(event, line)
        self._left -= 1
        self._has_left = self._left == 0 and not self.has_ended
        return self._has_left

    def check_end(self) -> None:
        """See that a stream which did not break has ended with its last event."""
        if self._has_left:
            self._client.play.counts["left"] += 1
        assert self._has_left or self.has_ended, f"The stream of {self.story.name} ended before its last event."


@asynccontextmanager
async def client_of(play: Play, name: str) -> AsyncGenerator[Client, None]:
    """Lend a client."""
    made = Client(play, name)
    try:
        yield made
    finally:
        await made.close()


def _is_locked(answer: JsonObject) -> bool:
    error = answer.get("error") or {}
    return bool(error.get("code") == "conversation_locked")
