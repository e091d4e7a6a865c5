"""Processes that are started with the real command line, and an agent that they serve and a test holds.

The agent is in `held_app`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import wire
from states import State

SUPPORT = Path(__file__).parent
PATIENCE = 60.0
PAUSE = 0.02


def until(is_so: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    given_up = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < given_up, what
        time.sleep(PAUSE)


class Commands:
    """Where processes come from. See `command_template`."""

    def __init__(self) -> None:
        self._template = subprocess.Popen(
            [sys.executable, str(SUPPORT / "command_template.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def order(self, **order: Any) -> Any:
        """Give an order and return the answer."""
        assert self._template.stdin is not None
        assert self._template.stdout is not None
        self._template.stdin.write(json.dumps(order) + "\n")
        self._template.stdin.flush()
        return json.loads(self._template.stdout.readline())

    def close(self) -> None:
        """End the template; all commands have ended."""
        self._template.communicate(timeout=PATIENCE)


class Command:
    """A process `afhost …`. `log` is what it has written so far; `url` is where it listens."""

    def __init__(self, commands: Commands, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._commands = commands
        self._name = arguments[0]
        self._log = log
        self._log.touch()
        self._code: int | None = None
        self.pid: int = commands.order(start=[*arguments], environment=environment, log=str(log))

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    @property
    def url(self) -> str:
        """Where it listens."""
        found = re.search(r"running on (http://\S+)", self.log)
        assert found is not None
        return found[1]

    @property
    def client(self) -> httpx2.Client:
        """A client that sends to it; the caller closes it."""
        return client_of(self.url)

    def until_said(self, text: str) -> None:
        """Wait until its log contains the text."""
        until(lambda: text in self.log or self._has_ended(), f"It never says {text!r}.")
        assert text in self.log, self.log

    def until_started(self) -> None:
        """Wait until it serves, or works."""
        self.until_said("startup complete" if self._name == "serve" else "The host has started")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def until_ended(self) -> int:
        """Wait until it has ended; return its exit code."""
        until(self._has_ended, f"It does not end: {self.log}")
        assert self._code is not None
        return self._code

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        if not self._has_ended():
            self.send(signal.SIGKILL)
            self.until_ended()

    def _has_ended(self) -> bool:
        if self._code is None:
            self._code = self._commands.order(poll=self.pid)
        return self._code is not None


@dataclass(frozen=True)
class Held:
    """Processes that share a state, and what their agents wait for. `directory` exists; `settings` are the channel's."""

    commands: Commands
    directory: Path
    state: State
    settings: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def start(self, *arguments: str, **host: Any) -> Generator[Command, None, None]:
        """Run `afhost COMMAND held_app:host FLAG…` until the block ends; `host` are options of the host."""
        options = {name: str(value) for name, value in self.state.options.items()}
        held = {"directory": str(self.directory), "host": {**options, **host}, "settings": self.settings}
        command, *flags = arguments
        port = ("--port", "0") if command == "serve" and "--port" not in flags else ()
        log = self.directory / f"{uuid.uuid4().hex}.log"
        environment = {"HELD": json.dumps(held)}
        started = Command(self.commands, [command, "held_app:host", *port, *flags], environment, log)
        try:
            started.until_started()
            yield started
        finally:
            started.kill()

    def beginners(self, name: str) -> list[int]:
        """Return the processes that have begun to answer, each time they did."""
        begun = self.directory / f"{name}.begun"
        return [int(line) for line in begun.read_text().splitlines()] if begun.exists() else []

    def until_begun(self, *names: str, times: int = 1) -> None:
        """Wait until all of them are being answered."""
        for name in names:
            until(lambda name=name: len(self.beginners(name)) >= times, f"{name} is not begun.")  # type: ignore[misc]

    def release(self, *names: str, piece: int = 1) -> None:
        """Let the agent say the piece."""
        for name in names:
            (self.directory / f"{name}.{piece}").touch()


def client_of(url: str) -> httpx2.Client:
    """Return a client for raw HTTP; the caller closes it."""
    return httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False, verify=False)


def accept(client: httpx2.Client, name: str, **options: Any) -> dict[str, Any]:
    """Have a background response accepted."""
    answer = client.post("/v1/responses", json={"input": name, "background": True, **options})
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    return body


def ended(client: httpx2.Client, response_id: str) -> dict[str, Any]:
    """Return the response as soon as it is terminal."""
    found: list[dict[str, Any]] = []

    def has_ended() -> bool:
        found.append(client.get(f"/v1/responses/{response_id}").json())
        return found[-1]["status"] not in wire.RUNNING

    until(has_ended, f"{response_id} does not end.")
    wire.check_response(found[-1])
    return found[-1]


def replayed(client: httpx2.Client, response_id: str, *, after: int = -1) -> list[dict[str, Any]]:
    """Return the events of a response from the first to the last, whenever that comes."""
    position = {} if after < 0 else {"starting_after": after}
    answer = client.get(f"/v1/responses/{response_id}", params={"stream": "true", **position})
    answer.raise_for_status()
    return wire.parse_sse(answer.content)


def texts(response: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return status and text of each message of a response."""
    return [
        (item["status"], "".join(part["text"] for part in item["content"]))
        for item in response["output"]
        if item["type"] == "message"
    ]


def asked(server: Command, name: str, **options: Any) -> httpx2.Response:
    """Ask, each time over a connection of its own, and wait for the answer."""
    with server.client as client:
        return client.post("/v1/responses", json={"input": name, **options})


def streamed(server: Command, name: str, **options: Any) -> list[dict[str, Any]]:
    """Ask for a stream; return everything in it, however it ended."""
    raw: list[bytes] = []
    with server.client as client:
        try:
            with client.stream("POST", "/v1/responses", json={"input": name, "stream": True, **options}) as stream:
                raw.extend(stream.iter_bytes())
        except httpx2.RemoteProtocolError:
            # Cut: whole frames are what a client has.
            return wire.parse_sse(b"".join(raw).rpartition(b"\n\n")[0] + b"\n\n")
    return wire.parse_sse(b"".join(raw))


def whole(name: str) -> tuple[str, str]:
    """Status and text of an answer of two pieces that was finished."""
    return "completed", f"{name} 0. {name} 1. "
