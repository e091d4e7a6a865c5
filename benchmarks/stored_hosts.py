"""Hosts whose state lies in memory, in a SQLite file or in PostgreSQL, and the bare agent. A process each."""

from __future__ import annotations

import http.client
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import uvloop
from agent_framework import Message
from benchmarks.agent import CountingAgent, remembering_agent
from benchmarks.servers import Server, start_process, start_server

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.serve import tune_collector
from agent_framework_hosting.stores.base import Retention
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

StoreName: TypeAlias = Literal["memory", "sqlite", "postgresql"]
AgentName: TypeAlias = Literal["constant", "remembering"]

MEMORY: Final[StoreName] = "memory"
SQLITE: Final[StoreName] = "sqlite"
POSTGRESQL: Final[StoreName] = "postgresql"
STORES: Final = (MEMORY, SQLITE, POSTGRESQL)

CONSTANT: Final[AgentName] = "constant"
"""Neither the agent nor its session remembers anything: a turn costs what it costs the host."""

REMEMBERING: Final[AgentName] = "remembering"
"""The framework's own agent with its history in the session: it does more in every turn, hosted or not."""

AGENTS: Final = (CONSTANT, REMEMBERING)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host keeps its state: a directory for SQLite, the URL of a PostgreSQL database, or neither."""

    store: StoreName
    directory: Path | None = None
    url: str | None = None

    @property
    def file(self) -> Path | None:
        """The SQLite file."""
        return None if self.directory is None else self.directory / "sessions" / "host.db"


@contextmanager
def start_stored_host(
    place: Place, agent: AgentName, core: int | None, *, keeps: int | None = None
) -> Generator[Server, None, None]:
    """Serve the agent with its state in `place`; `keeps` is the number of responses that retention leaves."""
    with start_server(_stored_app, core, place, agent, keeps) as server:
        wait_until_ready(server.port)
        yield server


def wait_until_ready(port: int) -> None:
    """Wait until a server answers."""
    # It listens before it has opened its database; whatever it answers, it has then.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    finally:
        connection.close()


def _stored_app(place: Place, agent: AgentName, keeps: int | None) -> Any:
    app = AgentFrameworkHost(
        CountingAgent() if agent == CONSTANT else remembering_agent(),
        channels=[ResponsesChannel(settings=ResponsesSettings(max_responses=keeps))],
        state_dir=place.directory,
        database_url=place.url,
        retention=None if keeps is None else Retention(max_entries=keeps),
    ).app
    tune_collector()
    return app


@dataclass(frozen=True, slots=True)
class BareSession:
    """The framework's own agent and one session, in a process of its own."""

    pipe: Connection

    def turn(self, text: str) -> float:
        """Return the seconds of one more turn of the session."""
        self.pipe.send(text)
        return float(self.pipe.recv())

    def restart(self) -> None:
        """Begin a new session."""
        self.pipe.send(None)


@contextmanager
def start_bare_session(core: int | None) -> Generator[BareSession, None, None]:
    """Start the process of the agent without a host."""
    with start_process(_run_bare_session, core) as (pipe, _):
        yield BareSession(pipe)


def _run_bare_session(pipe: Connection) -> None:
    agent = remembering_agent()
    session = agent.create_session()
    tune_collector()
    loop = uvloop.new_event_loop()

    async def turn(text: str) -> float:
        started = time.perf_counter()
        async for _ in agent.run([Message("user", [text])], stream=True, session=session):
            pass
        return time.perf_counter() - started

    while True:
        text = pipe.recv()
        if text is None:
            session = agent.create_session()
        else:
            pipe.send(loop.run_until_complete(turn(text)))
