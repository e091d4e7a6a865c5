"""A host in a process of its own, which kills itself at a named write of a request.

As a script this is a nursery: it loads everything once, and forks servers as it is ordered to, so that a test pays for
the loading (seconds) only once. `nursery.py` is the other end, and says what an order is. A server that is killed is a
process that is killed: nothing of it is left but its files and its rows.

Writes are transactions of `Database` that change something. They are named by the function that does the work, those
that write a batch of events to a log by what the batch does to it (`open log`, `fence log`, `extend log`, `close log`), and counted
for each request with what it starts. A request with the header `x-kill: MOMENT N NAME` ends the process at the
n-th transaction of this name: `before` it, `inside` of it when everything is done but the commit, or `after` the commit
when nobody knows of it yet. An order with such a `kill` does the same for what the server does of its own accord.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

import httpx2
import psycopg  # noqa: F401  loaded before the fork, not after each
import sqlalchemy as sa
import uvicorn
from agent_framework import (
    Agent,
    AgentResponseUpdate,
    BaseChatClient,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    Executor,
    FileHistoryProvider,
    FunctionalWorkflowDefinition,
    Message,
    RunContext,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
    step,
    workflow,
)
from askers import approving, asking
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from storyteller import storyteller

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.runs import procrastinate  # before `Database` is replaced: the queue's writes are its own
from agent_framework_hosting.runs.log_table import WriteBatch
from agent_framework_hosting.sql import database, presence
from agent_framework_hosting.sql.tables import checkpoints
from agent_framework_hosting.types import HostStatePaths
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings
from agent_framework_hosting_responses.stores.tables import responses

ResultT = TypeVar("ResultT")

_PATIENCE = 60.0
"""Seconds in which a server that is to kill itself has done so."""

_statements = threading.local()


@dataclass(slots=True)
class Journal:
    """What one request has written, and where it is to be killed: moment, number and name of a write."""

    kill: tuple[str, int, str] | None = None
    writes: list[str] = field(default_factory=list)
    _begun: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, kill: str | None) -> Self:
        """Return a new journal for `MOMENT N NAME`."""
        if kill is None:
            return cls()
        moment, number, name = kill.split(" ", 2)
        return cls((moment, int(number), name))

    def begin(self, name: str) -> str | None:
        """Count a transaction; return the moment in it at which to kill."""
        self._begun[name] += 1
        if self.kill is None or self.kill[1:] != (self._begun[name], name):
            return None
        return self.kill[0]


_journal: contextvars.ContextVar[Journal] = contextvars.ContextVar("journal")

# What runs are executed for that come out of a queue, in a context of its own: whatever was asked for last.
_last: list[Journal] = [Journal()]


class KilledDatabase(database.Database):
    """A database that keeps the journal of each request, and kills the process where the journal says."""

    async def run(self, work: database.Work[ResultT], *, erases: bool = False) -> ResultT:
        """Run the transaction, or kill the process before, in, or after it."""
        journal = _journal.get(_last[0])
        name = _name_of(work)
        moment = journal.begin(name)
        if moment == "before":
            _die()

        def watched(connection: sa.Connection) -> ResultT:
            _statements.has_written = False
            result = work(connection)
            # A batch always writes, on PostgreSQL in a statement that looks like a query.
            if _statements.has_written or isinstance(work, WriteBatch):
                journal.writes.append(name)
            if moment == "inside":
                _die()
            return result

        result = await super().run(watched, erases=erases)
        if moment == "after":
            _die()
        return result


@sa.event.listens_for(sa.Engine, "before_execute")
def _note_write(_connection: object, statement: object, *_: object) -> None:
    if getattr(statement, "is_dml", False):
        _statements.has_written = True


def _name_of(work: Callable[..., object]) -> str:
    """Return the qualified name of a function, or of a callable object's class, without what is put in between."""
    while isinstance(work, functools.partial):
        work = work.func
    if isinstance(work, WriteBatch):
        if work.closes:
            return "close log"
        # Attempt 0 is whoever accepts a run, and a batch of nothing keeps earlier attempts from writing.
        return "open log" if not work.attempt else "extend log" if work.entries else "fence log"
    named: Any = work if hasattr(work, "__qualname__") else type(work)
    return str(named.__qualname__).replace(".<locals>", "")


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("A killed process goes on.")


class QuickPresence(presence.Presence):
    """A process that counts as dead soon after it has died: the tests wait for that."""

    seconds = 0.3

    def __init__(self, database: database.Database) -> None:
        super().__init__(database, beat=self.seconds / 3, lease=self.seconds)

    def when_lost(self, fence: presence.Fence) -> None:
        """Stop nothing: on a machine under load every sign of life is late for such a lease."""


class QuickEngine(procrastinate.ProcrastinateRunEngine):
    """A queue whose workers count as dead soon after they have died."""

    seconds = 1.0

    def __init__(self, url: sa.URL, **options: Any) -> None:
        super().__init__(url, beat=self.seconds / 5, stalled_after=self.seconds, **options)


class Told(BaseChatClient[Any]):
    """A model that answers with the texts of all messages it was sent, as a JSON array, in two pieces."""

    def _inner_get_response(self, *, messages: Any, stream: bool, options: Mapping[str, Any], **kwargs: Any) -> Any:
        del options, kwargs
        text = json.dumps([message.text for message in messages])
        if stream:
            return self._build_response_stream(self._pieces(text))
        return _answer(text)

    async def _pieces(self, text: str) -> Any:
        for piece in (text[:3], text[3:]):
            yield ChatResponseUpdate(contents=[Content.from_text(piece)], role="assistant")


async def _answer(text: str) -> ChatResponse[Any]:
    return ChatResponse(messages=[Message("assistant", [text])])


class Held(Told):
    """A model that stops in the middle of its answer, and writes into a file in which process it did.

    It goes on when that file is gone. If it is stopped instead, it leaves a file whose name ends in `.stopped`.
    """

    def __init__(self, order: Mapping[str, Any]) -> None:
        super().__init__()
        self._held_in = Path(order["held_in"])
        self._name = str(order["name"])

    async def _pieces(self, text: str) -> Any:
        yield ChatResponseUpdate(contents=[Content.from_text(text[:3])], role="assistant")
        self._held_in.write_text(self._name)
        try:
            while self._held_in.exists():  # noqa: ASYNC110  another process lets it go on
                await asyncio.sleep(0.01)
        except BaseException:
            self._held_in.with_suffix(".stopped").write_text(self._name)
            raise
        yield ChatResponseUpdate(contents=[Content.from_text(text[3:])], role="assistant")


class Remember(Executor):
    """Answers with everything it has been told in this conversation, as a JSON array."""

    def __init__(self) -> None:
        super().__init__(id="remember")
        self.heard: list[str] = []

    @handler
    async def hear(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        """Add a message."""
        self.heard.append(message)
        await ctx.yield_output(json.dumps(self.heard))

    async def on_checkpoint_save(self) -> dict[str, Any]:
        """Return what was heard."""
        return {"heard": list(self.heard)}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        """Hear it again."""
        self.heard = list(state["heard"])


def _remembering() -> Workflow:
    return WorkflowBuilder(start_executor=Remember(), name="told").build()


class Step(Executor):
    """Speaks, writes into a file that it was executed, and hands on; if it is `held` at this message, not before `go_on` exists."""

    def __init__(self, name: str, order: Mapping[str, Any]) -> None:
        super().__init__(id=name)
        self.witness = Path(order["witness"])
        self.held = order.get("held")
        self.go_on = Path(order["go_on"])
        self.heard: list[str] = []

    @handler
    async def step(self, message: str, ctx: WorkflowContext[str, Any]) -> None:
        """Do one step."""
        self.heard.append(message)
        await self.speak(ctx)
        self._note(self.id)
        if self.held == f"{self.id} {message}":
            while not self.go_on.exists():  # noqa: ASYNC110  another process makes it
                await asyncio.sleep(0.01)
            self._note("!")
        await ctx.send_message(message)

    def _note(self, what: str) -> None:
        with self.witness.open("a") as witness:
            witness.write(what)

    async def speak(self, ctx: WorkflowContext[str, Any]) -> None:
        """Say what was heard in this conversation."""
        await ctx.yield_output(f"{self.id}: {'+'.join(self.heard)}")

    async def on_checkpoint_save(self) -> dict[str, Any]:
        """Return what was heard."""
        return {"heard": list(self.heard)}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        """Hear it again."""
        self.heard = list(state["heard"])


class StreamingStep(Step):
    """Speaks twice: a message, and another in pieces."""

    async def speak(self, ctx: WorkflowContext[str, Any]) -> None:
        """Say it in pieces."""
        await super().speak(ctx)
        for piece in ("in ", "pieces"):
            await ctx.yield_output(AgentResponseUpdate(contents=[Content.from_text(piece)], role="assistant"))


class RepeatingStep(Step):
    """Repeats as a whole what the step before it has said in pieces, which counts as said."""

    async def speak(self, ctx: WorkflowContext[str, Any]) -> None:
        """Repeat it, and say something new."""
        await ctx.yield_output(Message("assistant", ["in pieces"], author_name="b"))
        await super().speak(ctx)


def _stepping(order: Mapping[str, Any]) -> Workflow:
    a, b, c = Step("a", order), StreamingStep("b", order), RepeatingStep("c", order)
    # Without a name: it has another one in every process.
    return WorkflowBuilder(start_executor=a).add_edge(a, b).add_edge(b, c).build()


# Not in a closure, which would be a part of the steps.
_order: dict[str, Any] = {}


def _executed(name: str, heard: list[str]) -> str:
    with open(_order["witness"], "a") as witness:  # noqa: PTH123  it is appended to
        witness.write(name)
    return f"{name}: {'+'.join(heard)}"


@step
async def _first(heard: list[str]) -> str:
    return _executed("a", heard)


@step
async def _second(heard: list[str]) -> list[str]:
    return [_executed("b", heard), "in pieces"]


@step
async def _third(heard: list[str]) -> str:
    return _executed("c", heard)


@workflow
async def _functional_steps(text: str, ctx: RunContext) -> list[str]:
    """Say what the three steps say, which tell what was heard in the conversation."""
    heard = [*ctx.get_state("heard", []), text]
    said = [await _first(heard), *await _second(heard), await _third(heard)]
    ctx.set_state("heard", heard)
    return said


def _target(order: Mapping[str, Any]) -> Agent[Any] | FunctionalWorkflowDefinition | Callable[[], Workflow]:
    match order["target"]:
        case "functional steps":
            _order.update(order)
            return _functional_steps
        case "workflow":
            return _remembering
        case "steps":
            return functools.partial(_stepping, order)
        case "filed":  # its history lies in files beside the database
            return Agent(
                client=Told(),
                name="told",
                context_providers=[FileHistoryProvider(order["histories"], source_id="files")],
            )
        case "held":
            return Agent(client=Held(order), name="told")
        case "asking":
            return functools.partial(asking, order)
        case "approving":
            return approving(order)
        case "storyteller":
            return storyteller(Path(order["journal"]))
        case _:
            return Agent(client=Told(), name="told")


class App:
    """The host, and what tests ask beside: `/-/writes` of the last request that was no GET, `/-/stored` responses, and `/-/checkpoints`."""

    def __init__(self, host: AgentFrameworkHost, store: database.Database | None) -> None:
        self._host = host
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._host(scope, receive, send)
            return
        request = Request(scope)
        if request.url.path == "/-/writes":
            await JSONResponse(_last[0].writes)(scope, receive, send)
        elif request.url.path == "/-/stored":
            await JSONResponse(await self._stored())(scope, receive, send)
        elif request.url.path == "/-/checkpoints":
            await JSONResponse(await self._checkpoints())(scope, receive, send)
        else:
            journal = Journal.read(request.headers.get("x-kill"))
            _journal.set(journal)
            if request.method != "GET":
                _last[0] = journal
            await self._host(scope, receive, send)

    async def _checkpoints(self) -> int:
        """Return how many checkpoints are stored."""
        assert self._store is not None
        count = sa.select(sa.func.count()).select_from(checkpoints)
        return await self._store.run(lambda connection: connection.scalars(count).one())

    async def _stored(self) -> list[str]:
        """Return the ids of all responses that readers can find."""
        assert self._store is not None
        select = (
            sa.select(responses.c.id).where(responses.c.is_deleted.is_(sa.false())).order_by(responses.c.created_at)
        )
        return list(await self._store.run(lambda connection: connection.execute(select).scalars().all()))


class _Server(uvicorn.Server):
    """Says where it listens as soon as it does."""

    def __init__(self, config: uvicorn.Config, *, say: Callable[[str], None], url: str) -> None:
        super().__init__(config)
        self._say = say
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._say(self._url)


def _serve(order: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Serve until killed."""
    _last[0] = Journal.read(order.get("kill"))
    _journal.set(_last[0])
    if order.get("is_quick", True):
        if "lease" in order:
            QuickPresence.seconds = QuickEngine.seconds = float(order["lease"])
        presence.Presence = QuickPresence  # type: ignore[misc, assignment]
        procrastinate.ProcrastinateRunEngine = QuickEngine  # type: ignore[misc]
    named = ("state_dir", "database_url", "shutdown_grace", "run_concurrency")
    options = {name: order[name] for name in named if name in order}
    settings = ResponsesSettings(lost_runs=order.get("lost_runs", "resume"))
    host = AgentFrameworkHost(_target(order), channels=[ResponsesChannel(settings=settings)], **options)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(App(host, host._state.database), log_level="error", lifespan="on")  # noqa: SLF001  rows are asked for
    server = _Server(config, say=say, url=f"http://127.0.0.1:{listener.getsockname()[1]}")
    asyncio.run(server.serve(sockets=[listener]))


async def _warm_up(directory: str) -> None:
    """Do once what every server does, so that what is loaded or compiled at first use is there before the fork."""
    state: HostStatePaths = {"sessions": directory}
    for target in ("agent", "workflow"):
        host = AgentFrameworkHost(_target({"target": target}), channels=[ResponsesChannel()], state_dir=state)
        transport = httpx2.ASGITransport(host)
        async with host.lifespan(), httpx2.AsyncClient(transport=transport, base_url="http://warm") as client:
            conversation = (await client.post("/conversations", json={})).json()["id"]
            for body in ({"stream": True}, {"stream": True, "background": True}, {"conversation": conversation}):
                (await client.post("/responses", json={"input": "warm", **body})).raise_for_status()


def _fork(order: Mapping[str, Any]) -> tuple[int, str]:
    """Start a server; return its process id and its URL, which is empty if it could not start."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        with os.fdopen(reader) as said:
            return pid, said.readline().strip()
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdin.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        os.close(reader)
        _serve(order, lambda url: print(url, file=os.fdopen(writer, "w"), flush=True))
    except BaseException:  # noqa: BLE001  the nursery's code must not run in the child
        traceback.print_exc()
    os._exit(1)


def _end(child: int, *, patience: float) -> int | None:
    """Wait until the server has ended and return its exit code; kill it and return `None` if it does not end in time."""
    given_up = time.monotonic() + patience
    while time.monotonic() < given_up:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _tend() -> None:
    """Take orders until there are no more: a line each, and a line in return. Servers have names."""
    assert threading.active_count() == 1, "A process with threads must not be forked."
    children: dict[str, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        name = order["server"]
        answer: object = None
        match order["do"]:
            case "start":
                if name in children:  # a test failed before it ended it
                    _end(children.pop(name), patience=0.0)
                children[name], url = _fork(order)
                answer = {"process": children[name], "url": url}
            case "kill" if name in children:
                _end(children.pop(name), patience=0.0)
            case "wait":
                answer = _end(children.pop(name), patience=_PATIENCE)
        print(json.dumps(answer), flush=True)
    for child in children.values():
        _end(child, patience=0.0)


if __name__ == "__main__":
    # What a host makes for itself.
    database.Database = KilledDatabase  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(_warm_up(scratch))
    _tend()
