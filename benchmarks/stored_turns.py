"""Turns that are stored: many at once to measure throughput, and chains of them to measure growth."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import uvloop
from benchmarks.load import Caller, connect, post
from benchmarks.scenarios import SHORT
from benchmarks.servers import Server
from benchmarks.stored_hosts import BareSession, StoreName

TurnKind: TypeAlias = Literal["one-shot", "stream", "conversation"]
ChainKind: TypeAlias = Literal["chain", "conversation"]

KINDS: Final[tuple[TurnKind, ...]] = ("one-shot", "stream", "conversation")
CALLERS: Final = (1, 16)
CHAINS: Final[tuple[ChainKind, ...]] = ("chain", "conversation")

STREAM_EVENTS: Final = SHORT + 8
"""Events of a streamed answer: its text deltas, and what opens and closes response, item and part."""


@dataclass(frozen=True, slots=True)
class Work:
    """Turns of one kind, asked for by so many callers at once, each of them one after the other."""

    kind: TurnKind
    callers: int


WORKS: Final = tuple(Work(kind, callers) for kind in KINDS for callers in CALLERS)


@dataclass(frozen=True, slots=True)
class WorkDone:
    """What a number of turns took. `cpu_seconds` are those of the server's process."""

    turns: int
    seconds: float
    cpu_seconds: float


class Client:
    """One connection to a server, used by hand: its clients cost less than the answers they wait for."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def post(self, path: str, body: Mapping[str, object]) -> tuple[str, float]:
        """Return the id of what was made, and the seconds it took."""
        made, seconds = self.send(post(path, json.dumps(body).encode()))
        if made.get("status", "completed") != "completed":
            raise RuntimeError(f"The server answered {made!r}"[:500])
        return str(made["id"]), seconds

    def send(self, request: bytes) -> tuple[Any, float]:
        """Send a request that `post` or `get` has made; return the JSON of the answer, and the seconds it took.

        Raises:
            RuntimeError: the answer is an error.
        """
        started = time.perf_counter()
        self._socket.sendall(request)
        answer = b""
        missing: int | None = None
        while missing != 0:
            received = self._socket.recv(65_536)
            if not received:
                raise ConnectionError("The server closed the connection.")
            answer += received
            head, mark, content = answer.partition(b"\r\n\r\n")
            if mark:
                missing = _length(head) - len(content)
        seconds = time.perf_counter() - started
        if b" 200 " not in head[:20]:
            raise RuntimeError(f"The server answered {answer[:500]!r}")
        return json.loads(content), seconds


@contextmanager
def connected(port: int) -> Generator[Client, None, None]:
    """Connect to a server."""
    client = Client(port)
    try:
        yield client
    finally:
        client.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise RuntimeError(f"An answer without a length: {head!r}")


# --- Throughput


def do_work(server: Server, work: Work, *, turns: int) -> WorkDone:
    """Have `turns` turns answered, or a few more so that every caller gets as many. A conversation is a new one.

    Raises:
        RuntimeError: the server answered with an error, or with another number of events.
    """
    bodies = _bodies(server, work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_do_work(server, work, [post("/v1/responses", body) for body in bodies], turns=turns))


def _bodies(server: Server, work: Work) -> Sequence[bytes]:
    body: dict[str, object] = {"model": "counting", "input": "1"}
    if work.kind == "stream":
        body |= {"input": str(SHORT), "stream": True}
    if work.kind != "conversation":
        return [json.dumps(body).encode()] * work.callers
    with connected(server.port) as client:
        ids = [client.post("/v1/conversations", {})[0] for _ in range(work.callers)]
    return [json.dumps({**body, "conversation": conversation_id}).encode() for conversation_id in ids]


async def _do_work(server: Server, work: Work, requests: Sequence[bytes], *, turns: int) -> WorkDone:
    callers = await connect(server.port, work.callers, is_stream=work.kind == "stream")
    each = -(-turns // work.callers)
    cpu = server.cpu()
    started = time.perf_counter()
    await asyncio.gather(*(_ask(caller, request, each) for caller, request in zip(callers, requests, strict=True)))
    seconds = time.perf_counter() - started
    cpu = server.cpu() - cpu
    for caller in callers:
        caller.close()
    events = sum(caller.events for caller in callers)
    expected = each * work.callers * (STREAM_EVENTS if work.kind == "stream" else 0)
    if events != expected:
        raise RuntimeError(f"{expected} events were asked for, and {events} came.")
    return WorkDone(each * work.callers, seconds, cpu / 1e9)


async def _ask(caller: Caller, request: bytes, turns: int) -> None:
    for _ in range(turns):
        await caller.ask(request)


# --- Chains


@dataclass(slots=True)
class Chain:
    """Turns that continue each other. `continues` is what the next request says of them."""

    client: Client
    kind: ChainKind
    seconds: list[float] = field(default_factory=list)
    continues: dict[str, object] = field(default_factory=dict)

    def begin(self) -> None:
        """Make the conversation if it is one."""
        if self.kind == "conversation":
            self.continues = {"conversation": self.client.post("/v1/conversations", {})[0]}

    def turn(self) -> None:
        """Ask for one more turn, of the same length as the one before."""
        body = {"model": "benchmark", "input": turn_text(len(self.seconds)), **self.continues}
        response_id, seconds = self.client.post("/v1/responses", body)
        self.seconds.append(seconds)
        if self.kind == "chain":
            self.continues = {"previous_response_id": response_id}


def turn_text(number: int) -> str:
    """Return what is said in a turn: always as long, never the same, and to the counting agent one update."""
    return f"1 update is the answer to turn {number:06d}"


@dataclass(slots=True)
class Beside:
    """What tells whether it is the machine that gets slower: turns that neither continue anything nor are stored.

    And the turns of the same agent without a host, if it is one that has more to do in every turn.
    """

    client: Client
    agent: BareSession | None
    unstored: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def turn(self) -> None:
        """Measure one more of each."""
        text = turn_text(len(self.unstored))
        body = {"model": "benchmark", "input": text, "store": False}
        self.unstored.append(self.client.post("/v1/responses", body)[1])
        if self.agent is not None:
            self.bare.append(self.agent.turn(text))


def grow(chains: Mapping[StoreName, Chain], beside: Beside, *, turns: int) -> None:
    """Make every chain longer by as many turns, turn by turn in turn: what else the machine does meets all of them."""
    for _ in range(turns):
        for chain in chains.values():
            chain.turn()
        beside.turn()
