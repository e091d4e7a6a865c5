"""Which ASGI server `serve()` starts: the same bare Starlette app behind each, answers and streamed events a second.

Not part of the benchmark of the host: the other servers are no dependency. On Linux, in a virtual environment of its own:

    pip install uvicorn httptools uvloop granian hypercorn starlette
    python benchmarks/asgi_servers.py benchmarks/results/asgi_servers.md
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

CONNECTIONS = 16
SECONDS = 3.0
ROUNDS = 5
EVENTS = 500
ANSWER = b'{"text":"' + b"x" * 1_500 + b'"}'
EVENT = b'event: response.output_text.delta\ndata: {"delta":"' + b"x" * 150 + b'"}\n\n'
HERE = Path(__file__)

COMMANDS = {
    "uvicorn": ["uvicorn", "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"],
    "granian": ["granian", "--interface", "asgi", "--workers", "1", "--loop", "uvloop", "--no-access-log", "--no-log"],
    "hypercorn": ["hypercorn", "--workers", "1", "--worker-class", "uvloop", "--log-level", "warning"],
}


async def one(request: Request) -> Response:
    await request.body()
    return Response(ANSWER, media_type="application/json")


async def stream(request: Request) -> Response:
    await request.body()

    async def events() -> AsyncGenerator[bytes, None]:
        for _ in range(EVENTS):
            await asyncio.sleep(0)  # a model's next token is never there at once
            yield EVENT

    return StreamingResponse(events(), media_type="text/event-stream")


app = Starlette(routes=[Route("/one", one, methods=["POST"]), Route("/stream", stream, methods=["POST"])])


@dataclass(frozen=True)
class Figure:
    per_second: float
    cpu_microseconds: float


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
    body = b'{"input":"hello"}'
    writer.write(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (path.encode(), len(body), body))
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise RuntimeError(head)
    if path == "/one":
        await reader.readexactly(len(ANSWER))
    else:
        await reader.readuntil(b"\r\n0\r\n\r\n")


async def load(port: int, path: str, cpu_seconds: Callable[[], float]) -> Figure:
    """Ask over and over on every connection; return answers or events a second, and the server's CPU time for each."""
    deadline = 0.0
    answers = 0

    async def caller() -> None:
        nonlocal answers
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        await ask(reader, writer, path)
        while time.perf_counter() < deadline:
            await ask(reader, writer, path)
            answers += 1
        writer.close()

    start, cpu = time.perf_counter(), cpu_seconds()
    deadline = start + SECONDS
    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    units = (answers + CONNECTIONS) * (1 if path == "/one" else EVENTS)
    return Figure(units / seconds, cpu / units * 1e6)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_open(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("The server did not start.")


def processes(pid: int) -> list[int]:
    """Return `pid` and all its descendants."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text(encoding="ascii").split()
    ]
    return [pid, *(member for child in children for member in processes(child))]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(server: str) -> dict[str, Figure]:
    port = free_port()
    address = ["--bind", f"127.0.0.1:{port}"] if server == "hypercorn" else ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", *COMMANDS[server], *address, f"{HERE.stem}:app"]
    cores = sorted(os.sched_getaffinity(0))
    process = subprocess.Popen(command, cwd=HERE.parent)
    try:
        wait_until_open(port)
        family = processes(process.pid)
        for member in family:
            for thread in Path(f"/proc/{member}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores[:1])
        os.sched_setaffinity(0, cores[1:])
        return {
            path: asyncio.run(load(port, path, lambda: sum(map(cpu_seconds, family)))) for path in ("/one", "/stream")
        }
    finally:
        os.sched_setaffinity(0, cores)
        process.terminate()
        process.wait(timeout=20)


def table(results: dict[str, dict[str, Figure]]) -> list[str]:
    lines = [
        "| server | requests per CPU second | ratio | requests/s | events per CPU second | ratio | events/s |",
        "|---|---|---|---|---|---|---|",
    ]
    base = results["uvicorn"]
    for server, figures in results.items():
        cells = [f"{server} {importlib.metadata.version(server)}"]
        for path in ("/one", "/stream"):
            figure = figures[path]
            cells += [
                f"{1e6 / figure.cpu_microseconds:,.0f}",
                f"{base[path].cpu_microseconds / figure.cpu_microseconds:.2f}",
                f"{figure.per_second:,.0f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    rounds: list[dict[str, dict[str, Figure]]] = []
    # The servers take turns, so that a slow minute of the machine meets all of them.
    for number in range(ROUNDS):
        rounds.append({server: measure(server) for server in COMMANDS})
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    median = {
        server: {
            path: Figure(
                statistics.median(results[server][path].per_second for results in rounds),
                statistics.median(results[server][path].cpu_microseconds for results in rounds),
            )
            for path in ("/one", "/stream")
        }
        for server in COMMANDS
    }
    text = "\n".join(
        [
            (
                f"Python {platform.python_version()}, {CONNECTIONS} connections, server on one core, load on another; "
                f"medians of {ROUNDS} rounds of {SECONDS:.0f} s; streams of {EVENTS} events; ratios to uvicorn; "
                f"load average of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."
            ),
            "",
            *table(median),
            "",
        ]
    )
    print(text)
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
        kept = path.read_text(encoding="utf-8").split("<!-- figures -->")[0] if path.exists() else ""
        path.write_text(f"{kept}<!-- figures -->\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
