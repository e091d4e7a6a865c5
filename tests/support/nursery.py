"""Servers that are really killed: the tests' end of `killed_server.py`."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SECONDS = 90.0


class Nursery:
    """A process that has loaded everything, and starts servers, each under a name: the only one has none."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("killed_server.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._processes: dict[str, int] = {}

    def start(self, server: str = "", /, *, target: str, **options: object) -> str:
        """Start a server of `target` with the options of a host; return its URL."""
        made = self._ask({"do": "start", "server": server, "target": target, **options})
        assert isinstance(made, dict)
        assert made["url"], "The server did not start; stderr says why."
        self._processes[server] = made["process"]
        return str(made["url"])

    def start_and_die(self, *, target: str, kill: str, **options: object) -> None:
        """Start a server that kills itself at a write that nobody asks it for, and wait until it has."""
        self._ask({"do": "start", "server": "", "target": target, "kill": kill, **options})
        self.await_death()

    def kill(self, server: str = "") -> None:
        """Kill the server unless it is dead already, and wait until it is gone."""
        self._ask({"do": "kill", "server": server})

    def stop(self, server: str = "") -> None:
        """Have the server shut down (SIGTERM), and wait until it has."""
        os.kill(self._processes[server], signal.SIGTERM)
        assert self._ask({"do": "wait", "server": server}) is not None, "The server did not stop."

    def process_of(self, server: str = "") -> int:
        """Return the process id of a server."""
        return self._processes[server]

    def pause(self, server: str = "") -> None:
        """Have the server stand still, in the middle of whatever it does."""
        # Not an order: the nursery may be busy with a server that cannot start before this one goes on.
        os.kill(self._processes[server], signal.SIGSTOP)

    def resume(self, server: str = "") -> None:
        """Have a paused server go on."""
        os.kill(self._processes[server], signal.SIGCONT)

    def await_death(self, server: str = "") -> None:
        """Wait until the server has killed itself."""
        ended = self._ask({"do": "wait", "server": server})
        assert ended == -signal.SIGKILL, "The server did not get to the write at which to die."

    def close(self) -> None:
        """Let go of the process; a server that runs is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, order: dict[str, Any]) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order, default=str), file=self._process.stdin, flush=True)
        # One line for each order: nothing is left in a buffer that `select` cannot see.
        readable, _, _ = select.select([self._process.stdout], [], [], _SECONDS)
        assert readable, "The server neither answers nor ends."
        line = self._process.stdout.readline()
        assert line, "The nursery has died; stderr says why."
        return json.loads(line)


@contextmanager
def nursery() -> Generator[Nursery, None, None]:
    """Run a nursery."""
    made = Nursery()
    try:
        yield made
    finally:
        made.close()
