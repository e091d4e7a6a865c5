"""Starts `afhost` in forks of itself: what every process loads is loaded once, which takes longer than most tests.

A line for each order, and a line in return: `{"start": arguments, "environment": …, "log": file}` returns the process id,
`{"poll": process id}` its exit code or `null`. The process is the one that the command line makes, to its end; only its
beginning is another. `commands.py` is the other end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx2
import psycopg  # noqa: F401  loaded before the fork, not after each

from agent_framework_hosting import AgentFrameworkHost, cli, serve  # noqa: F401
from agent_framework_hosting.runs import procrastinate  # noqa: F401
from agent_framework_hosting.testing.agents import ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel


async def _warm_up(directory: str) -> None:
    """Do once what every server does, so that what is loaded at first use is there before the fork."""
    host = AgentFrameworkHost(ScriptedAgent(["warm"]), channels=[ResponsesChannel()], state_dir=directory)
    transport = httpx2.ASGITransport(host)
    async with host.lifespan(), httpx2.AsyncClient(transport=transport, base_url="http://warm") as client:
        body = {"input": "warm", "stream": True, "background": True}
        (await client.post("/responses", json=body)).raise_for_status()


def _become(order: dict[str, Any]) -> None:
    """Turn this process into a command that has just been started."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, sys.stdin.fileno())
    os.dup2(nothing, sys.stdout.fileno())
    os.dup2(os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), sys.stderr.fileno())
    os.environ.update(order["environment"])
    os.chdir(Path(__file__).parent)


def _poll(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _tend() -> int:
    """Take orders until there are no more; in a process that was started, return its exit code."""
    assert threading.active_count() == 1, "A process with threads must not be forked."
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            answer = _poll(order["poll"])
        elif not (answer := os.fork()):
            _become(order)
            return cli.main(order["start"])
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(_warm_up(scratch))
    sys.exit(_tend())
