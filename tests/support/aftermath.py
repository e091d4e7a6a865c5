"""What is left when everything is over, and whether it is what it must be."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import wire
from chaos_clients import PAUSE, Client, client_of
from chaos_play import Play
from storyteller import Journal, Note, Story

from agent_framework_hosting_responses.revival import MAX_ATTEMPTS

JsonObject: TypeAlias = dict[str, Any]

_AT_ONCE = 4

LOST = "The server stopped while the response was generated."


@dataclass(frozen=True, slots=True)
class Left:
    """A stored response, its events, as lines and parsed, and what was done for it."""

    body: JsonObject
    lines: list[str]
    events: list[JsonObject]
    story: Story
    notes: list[Note]

    @property
    def texts(self) -> list[str]:
        """The texts of its messages."""
        return [part["text"] for item in self.body["output"] for part in item["content"]]

    @property
    def times(self) -> Counter[str]:
        """How often was done what was done."""
        return Counter(note.did for note in self.notes)


async def find(play: Play, journal: Journal) -> list[Left]:
    """Wait for the end of every response that is stored, known to a client or not; return all of them."""
    async with client_of(play, "aftermath") as client, asyncio.timeout(play.plan.patience):
        answer: Any = await client.ask("GET", "/-/stored")
        ended = [await _ended(client, response_id) for response_id in answer]
        notes = journal.notes()
        turns = asyncio.Semaphore(_AT_ONCE)

        async def take(body: JsonObject) -> Left:
            async with turns:
                return await _left(client, body, notes)

        async with asyncio.TaskGroup() as group:
            taken = [group.create_task(take(body)) for body in ended]
    return [task.result() for task in taken]


async def _ended(client: Client, response_id: str) -> JsonObject:
    while True:
        body = await client.ask("GET", f"/v1/responses/{response_id}")
        if body["status"] not in wire.RUNNING:
            return body
        await asyncio.sleep(PAUSE)


async def _left(client: Client, body: JsonObject, notes: Sequence[Note]) -> Left:
    stored = f"/v1/responses/{body['id']}"
    # From another server, by chance.
    assert await client.ask("GET", stored) == body
    answer = await client.http.get(f"{client.any_url()}{stored}", params={"stream": "true"})
    events = wire.parse_sse(answer.content)
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    async with client.official().responses.stream(response_id=body["id"]) as stream:
        told = [event.sequence_number async for event in stream]
        if body["status"] == "completed":
            final = await stream.get_final_response()
            assert final.output_text == "".join(part["text"] for item in body["output"] for part in item["content"])
    assert told == [event["sequence_number"] for event in events]
    page = await client.ask("GET", f"{stored}/input_items?limit=1")
    story = Story.asked(page["data"][0]["content"][0]["text"])
    assert story.name == body["metadata"]["story"]
    return Left(body, lines, events, story, [note for note in notes if note.story == story.name])


def check(play: Play, found: Sequence[Left], *, lost_runs: Literal["fail", "retry"]) -> None:
    """See that every response is what it must be."""
    names = Counter(left.story.name for left in found)
    assert set(names.values()) <= {1}, "A request was accepted twice."
    completed = sum(left.body["status"] == "completed" for left in found)
    assert completed * 5 >= len(found) >= play.plan.stories, "There is too little to judge."
    by_id = {left.body["id"]: left for left in found}
    for known in play.known:
        left = by_id[known.id]
        assert known.end is None or known.end == left.body
        assert known.lines == left.lines[: len(known.lines)]
        assert known.events == left.events[: len(known.events)]
    for left in found:
        try:
            _check_log(left, lost_runs=lost_runs)
            _check_status(left, is_cancelled=left.story.name in play.cancelled)
            _check_story(left, lost_runs=lost_runs)
        except AssertionError as error:
            error.add_note(f"{left.body['id']}, {left.story}, {left.notes}:\n" + "\n".join(left.lines))
            raise


def summary(found: Sequence[Left]) -> Counter[str]:
    """Count responses by their ends, and by how often they were begun."""
    return Counter(f"{left.body['status']}, begun {left.times['began']}x" for left in found)


def _check_log(left: Left, *, lost_runs: str) -> None:
    told = sum(event["type"] == "response.output_item.added" for event in left.events)
    # What attempts that were lost have told is no part of the answer.
    is_repeated = lost_runs == "retry" and left.body["status"] == "completed"
    wire.check_stream(left.events, earlier_items=told - len(left.body["output"]) if is_repeated else 0)
    assert [event["sequence_number"] for event in left.events] == list(range(len(left.events)))
    assert [event["type"] in wire.TERMINAL for event in left.events] == [False] * (len(left.events) - 1) + [True]
    assert left.events[-1]["response"] == left.body


def _check_status(left: Left, *, is_cancelled: bool) -> None:
    status = left.body["status"]
    assert status in {"completed", "failed", "cancelled"}
    assert status != "cancelled" or is_cancelled, "Nobody has asked for that."
    assert status != "failed" or left.body["error"]["message"] == LOST


def _check_story(left: Left, *, lost_runs: str) -> None:
    """See that an answer is whole, and that a story was told once at most unless lost runs are repeated."""
    told = "".join(left.texts)
    whole = left.story.text(_heard(told))
    calls = {f"part-{number}" for number in range(left.story.tools)}
    if left.body["status"] == "completed":
        assert told == whole
        assert set(left.times) >= {"began", *calls}
    elif lost_runs == "fail":
        assert whole.startswith(told)
    assert max(left.times.values(), default=0) <= (1 if lost_runs == "fail" else MAX_ATTEMPTS), "It was run twice."


def _heard(told: str) -> list[str]:
    """Return what a story says was told before it."""
    names = re.match(r"\((.*?)\)", told)
    return names[1].split() if names else []


async def check_conversations(play: Play, found: Sequence[Left]) -> None:
    """See that every completed turn is in its conversation once, and was told what was there before it."""
    async with client_of(play, "conversations") as client:
        for conversation in play.conversations:
            turns = {
                left.story.name: left
                for left in found
                if left.body.get("conversation") == {"id": conversation} and left.body["status"] == "completed"
            }
            page = await client.ask("GET", f"/v1/conversations/{conversation}/items?order=asc&limit=100")
            assert not page["has_more"]
            _check_items(page["data"], turns)


def _check_items(items: Sequence[JsonObject], turns: dict[str, Left]) -> None:
    before: list[str] = []
    rest = list(items)
    while rest:
        question = rest.pop(0)
        assert question["role"] == "user"
        story = Story.asked(question["content"][0]["text"])
        told = ""
        while rest and rest[0]["role"] == "assistant":
            assert rest[0]["status"] == "completed"
            told += "".join(part["text"] for part in rest.pop(0)["content"])
        assert told == story.text(before), json.dumps(items)
        assert story.name not in before
        before.append(story.name)
    assert set(before) == set(turns), json.dumps(items)
