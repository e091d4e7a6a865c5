"""What is to happen to servers and their clients, decided by a seed, and what has happened."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import wire
from replicas import Replicas
from storyteller import Story

JsonObject: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Blow:
    """What befalls a server once `after` stories have been accepted, and for how many seconds it is away then."""

    after: int
    kind: Literal["kill", "pause"]
    replica: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to happen. `stories`: how many are told at least, to so many `clients`; `blows`: how many befall servers.

    `lease`: seconds after which a server that gives no sign of life counts as dead.

    `patience`: seconds in which everything must have come to an end, whatever befell the servers.
    """

    seed: int
    stories: int
    clients: int
    blows: int
    lease: float
    patience: float
    longest_pause: float = 0.05

    def schedule(self, replicas: int) -> list[Blow]:
        """Return the blows, in order."""
        chance = random.Random(f"{self.seed} blows")
        moments = sorted(chance.randrange(self.stories // 20, self.stories) for _ in range(self.blows))
        return [self._blow(moment, chance, replicas) for moment in moments]

    def _blow(self, after: int, chance: random.Random, replicas: int) -> Blow:
        kind: Literal["kill", "pause"] = chance.choice(("kill", "pause"))
        # Servers that come back at once, within the lease, and long after it.
        seconds = chance.choice((0.0, 0.5, 1.5)) if kind == "kill" else chance.choice((0.3, 1.2, 2.5))
        return Blow(after, kind, chance.randrange(replicas), seconds * self.lease)


@dataclass(slots=True)
class Known:
    """What a client knows of one response. `events` are those that it was told, in order, and `lines` as they came."""

    id: str
    story: Story
    lines: list[str] = field(default_factory=list)
    events: list[JsonObject] = field(default_factory=list)
    end: JsonObject | None = None

    def hear(self, event: JsonObject, line: str | None = None) -> None:
        """Take the next event; none may be missing, and none may come twice."""
        assert event["sequence_number"] == len(self.events), f"{event} follows {self.events[-1:]}"
        self.events.append(event)
        if line is not None:
            self.lines.append(line)
        if event["type"] in wire.TERMINAL:
            self.see(event["response"])

    def see(self, response: JsonObject) -> None:
        """Take a state of the response; once it is terminal it never changes."""
        if self.end is not None:
            assert response == self.end
        elif response["status"] not in wire.RUNNING:
            self.end = response


@dataclass(slots=True)
class Play:
    """What has happened: what the clients know, and the names of stories with a cancellation or a key of their own."""

    plan: Plan
    replicas: Replicas
    known: list[Known] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    keyed: set[str] = field(default_factory=set)
    conversations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
