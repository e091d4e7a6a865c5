"""How long it takes until a dead server's runs have ended elsewhere, and until a run hears that it is cancelled.

With the settings that the product has: nothing is shortened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
from nursery import Nursery
from storyteller import Journal, Story

SECONDS = 60.0
PAUSE = 0.02


def takeovers(
    nursery: Nursery, database_url: str, journal: Path, *, victims: int = 3, runs_each: int = 3
) -> list[float]:
    """Kill servers in the middle of runs; return for each run the seconds from there to its end as another server tells it.

    The servers are killed at different moments between two of their signs of life.
    """
    order = {"target": "storyteller", "journal": journal, "database_url": database_url, "is_quick": False}
    names = [f"victim {number}" for number in range(victims)]
    with ExitStack() as opened:
        urls = [opened.enter_context(_started(nursery, name, **order, run_concurrency=runs_each)) for name in names]
        stories = [Story(f"lost-{number}", held_at=1) for number in range(victims * runs_each)]
        (first,) = _clients(opened, urls[:1])
        ids = {story.name: _accept(first, story) for story in stories}
        began = {story.name: _note(journal, "began", story.name).process for story in stories}
        # Not before everything is begun: it would have begun some of it.
        (survivor,) = _clients(opened, [opened.enter_context(_started(nursery, "survivor", **order))])
        killed: dict[int, float] = {}
        for name in names:
            process = nursery.process_of(name)
            nursery.kill(name)
            killed[process] = time.monotonic()
            time.sleep(0.7)
        ended = _ends(survivor, ids)
        return [ended[story.name] - killed[began[story.name]] for story in stories]


def cancellations(nursery: Nursery, database_url: str, journal: Path, *, runs: int = 40) -> list[float]:
    """Cancel runs at a server that executes none; return the seconds until each has seen its `CancelledError`."""
    order = {"target": "storyteller", "journal": journal, "database_url": database_url, "is_quick": False}
    with ExitStack() as opened:
        opened.enter_context(_started(nursery, "worker", **order))
        (client,) = _clients(opened, [opened.enter_context(_started(nursery, "front", **order, run_concurrency=0))])
        seconds = []
        for number in range(runs):
            story = Story(f"cancelled-{number}", held_at=1)
            response_id = _accept(client, story)
            _note(journal, "began", story.name)
            asked_at = time.monotonic()
            answer = client.post(f"/v1/responses/{response_id}/cancel")
            assert answer.json()["status"] == "cancelled", answer.text
            seconds.append(_note(journal, "cancelled", story.name).at - asked_at)
        return seconds


@contextmanager
def _started(nursery: Nursery, name: str, **order: Any) -> Generator[str, None, None]:
    url = nursery.start(name, **order)
    try:
        yield url
    finally:
        nursery.kill(name)


def _clients(opened: ExitStack, urls: Sequence[str]) -> list[httpx2.Client]:
    return [
        opened.enter_context(httpx2.Client(base_url=url, timeout=SECONDS, trust_env=False, verify=False))
        for url in urls
    ]


def _accept(client: httpx2.Client, story: Story) -> str:
    return str(client.post("/v1/responses", json={"input": story.question, "background": True}).json()["id"])


def _note(journal: Path, did: str, story: str) -> Any:
    """Wait until something was done for a story."""
    return _until(lambda: next((n for n in Journal(journal).notes() if (n.did, n.story) == (did, story)), None))


def _ends(client: httpx2.Client, ids: dict[str, str]) -> dict[str, float]:
    """Return when each response has ended."""
    ended: dict[str, float] = {}

    def look() -> bool:
        for name in ids.keys() - ended.keys():
            response = client.get(f"/v1/responses/{ids[name]}").json()
            if response["status"] not in {"queued", "in_progress"}:
                ended[name] = time.monotonic()
        return len(ended) == len(ids)

    _until(look)
    return ended


def _until(found: Callable[[], Any]) -> Any:
    given_up = time.monotonic() + SECONDS
    while not (result := found()):
        assert time.monotonic() < given_up, "It does not happen."
        time.sleep(PAUSE)
    return result
