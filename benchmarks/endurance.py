"""Many stored responses: what the last ones cost, what they take in memory, and what retention gives back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from benchmarks.servers import Server
from benchmarks.stored_bytes import Contents, file_bytes, resident_bytes
from benchmarks.stored_hosts import CONSTANT, Place, StoreName, start_stored_host
from benchmarks.stored_turns import Client, connected, turn_text

Unstored: TypeAlias = Literal["unstored"]

UNSTORED: Final[Unstored] = "unstored"
"""Turns that are not stored, between the others: they tell what the machine does meanwhile."""

_PAUSE_SECONDS: Final = 0.02
_STILL_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Filled:
    """One store after many responses: seconds of each, memory of its process before, halfway and after."""

    seconds: Sequence[float]
    resident: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What retention did: sizes in bytes before and after, `file` for SQLite only; `meanwhile` are the seconds of turns
    that came while it worked. `took` is in seconds."""

    responses: tuple[int, int]
    rows: tuple[int, int]
    file: tuple[int, int] | None
    took: float
    meanwhile: Sequence[float]


def fill(
    servers: Mapping[StoreName, Server],
    clients: Mapping[StoreName | Unstored, Client],
    *,
    count: int,
    is_stored: bool = True,
) -> dict[StoreName | Unstored, Filled]:
    """Ask for `count` turns in each store, turn by turn in turn; `is_stored=False` has them answered only."""
    seconds: dict[StoreName | Unstored, list[float]] = {store: [] for store in clients}
    resident: dict[StoreName, list[int]] = {store: [] for store in servers}
    for number in range(count):
        if number in {0, count // 2}:
            _note_memory(servers, resident)
        for store, client in clients.items():
            stores = is_stored and store != UNSTORED
            _, took = client.post("/v1/responses", {"model": "benchmark", "input": turn_text(number), "store": stores})
            seconds[store].append(took)
    _note_memory(servers, resident)
    return {
        store: Filled(taken, None if store == UNSTORED else _three(resident[store])) for store, taken in seconds.items()
    }


def _note_memory(servers: Mapping[StoreName, Server], resident: dict[StoreName, list[int]]) -> None:
    for store, server in servers.items():
        resident[store].append(resident_bytes(server.pid))


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    first, second, third = values
    return first, second, third


def prune(place: Place, core: int | None, *, keeps: int, patience: float) -> Pruned:
    """Start a host that keeps fewer responses, and ask for turns, some a second, until it has forgotten the others.

    Gives up after `patience` seconds: the figures then say so.
    """
    contents = Contents(place)
    responses, rows = contents.responses(), contents.size()
    file = None if place.file is None else file_bytes(place.file)
    meanwhile: list[float] = []
    with start_stored_host(place, CONSTANT, core, keeps=keeps) as server, connected(server.port) as client:
        progress = _Progress(place, contents, keeps=keeps, patience=patience)
        while not progress.is_done(turns=len(meanwhile)):
            _, seconds = client.post("/v1/responses", {"model": "benchmark", "input": turn_text(len(meanwhile))})
            meanwhile.append(seconds)
            time.sleep(_PAUSE_SECONDS)
    return Pruned(
        responses=(responses, contents.responses()),
        rows=(rows, contents.size()),
        file=None if file is None or place.file is None else (file, file_bytes(place.file)),
        took=progress.ended - progress.started,
        meanwhile=meanwhile,
    )


class _Progress:
    """Watches retention from outside, without reading SQLite's file: that would keep its log from being emptied."""

    def __init__(self, place: Place, contents: Contents, *, keeps: int, patience: float) -> None:
        self.started = self.ended = time.perf_counter()
        self._file = place.file
        self._contents = contents
        self._keeps = keeps
        self._patience = patience
        self._size = None if self._file is None else self._file.stat().st_size
        self._has_shrunk = False
        self._looked = self.started

    def is_done(self, *, turns: int) -> bool:
        """Whether the file has shrunk and does not shrink any more, or the rows are gone."""
        now = time.perf_counter()
        if now - self.started > self._patience:
            return True
        if now - self._looked < _LOOK_SECONDS:
            return False
        self._looked = now
        if self._file is None:
            self.ended = now
            return self._contents.responses() <= self._keeps + turns
        size = self._file.stat().st_size
        assert self._size is not None
        if size < self._size:
            self._has_shrunk = True
            self.ended = now
        self._size = size
        return self._has_shrunk and now - self.ended > _STILL_SECONDS
