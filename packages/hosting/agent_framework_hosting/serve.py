"""The ASGI server: uvicorn, started so that a stop drains the runs before it closes connections.

The only module that imports uvicorn; whoever imports it needs the extra `[serve]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, Final

from .app import HostApp
from .errors import ConfigurationError
from .lifecycle import Lifecycle
from .logs import show_logs
from .runner import ending_runner

try:
    import uvicorn
except ImportError as _error:
    raise ConfigurationError(
        'Serving needs the extra [serve]: pip install "agent-framework-hosting[serve]". '
        "Any other ASGI server can serve the host's app instead."
    ) from _error

COLLECTOR_THRESHOLDS: Final = (10_000, 20, 50)
"""Objects of each generation after which it is collected; benchmarks/host.py has the measurement."""

LINGER: Final = 5
"""Seconds that clients get, after the last run has ended, to read what is left of their answers."""

_OURS: Final = frozenset(
    {"app", "host", "port", "workers", "lifespan", "factory", "reload", "timeout_graceful_shutdown"}
)
_KNOWN: Final = frozenset(inspect.signature(uvicorn.Config).parameters) - _OURS


class DrainingServer(uvicorn.Server):
    """A uvicorn server that lets the runs end while it still answers, and only then closes connections and application.

    Uvicorn itself stops listening, waits for every connection and only then tells the application. Runs would be told
    last, and streams would hold up the stop for as long as they last. A server whose state nobody else has goes on
    listening, so that the end of a background run can be followed; for one that shares it the others answer.
    """

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Turn readiness red as soon as the signal arrives."""
        self._lifecycle.begin_stop()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the runs end, then close the connections, then stop the application. A second SIGINT ends the waiting."""
        notice = asyncio.create_task(asyncio.sleep(self._lifecycle.notice))
        await self._wait(notice)
        notice.cancel()
        if self._lifecycle.shares_runs:
            # A proxy that cannot connect asks the next server. It must not after a 503: for all it knows, a request that
            # was sent has been begun.
            self._close_door(sockets or [])
        hurried = asyncio.Event()
        drain = asyncio.create_task(self._lifecycle.drain(hurried=hurried))
        await self._wait(drain)
        hurried.set()
        await drain
        await super().shutdown(sockets)

    async def _wait(self, task: asyncio.Task[None]) -> None:
        """Wait for the task, or for a second SIGINT."""
        # The flag is set by a signal handler, which cannot wake a task; uvicorn polls for it in the same way.
        while not task.done() and not self.force_exit:
            await asyncio.wait({task}, timeout=0.1)

    def _close_door(self, sockets: Sequence[socket.socket]) -> None:
        """Stop listening, and close connections as soon as nothing is being answered over them."""
        for server in self.servers:
            server.close()
        for bound in sockets:
            bound.close()
        for connection in tuple(self.server_state.connections):
            connection.shutdown()


def configure(app: HostApp, host: str, port: int, *, workers: int, options: Mapping[str, Any]) -> uvicorn.Config:
    """Return the server's configuration.

    Raises:
        ConfigurationError: `workers` is not 1, `port` is none, or an option is unknown.
    """
    _check_port(port)
    if workers != 1:
        raise ConfigurationError(
            f"workers={workers}: one host serves in one process. For several, start several processes with the same "
            "database_url, behind a load balancer."
        )
    if unknown := sorted(set(options) - _KNOWN):
        raise ConfigurationError(
            f"serve() does not know the option {unknown[0]!r}; known: {', '.join(sorted(_KNOWN))}."
        )
    return uvicorn.Config(app, host, port, lifespan="on", timeout_graceful_shutdown=LINGER, **options)


def tune_collector() -> None:
    """Set the garbage collector for a process that serves and does nothing else.

    What is loaded by now stays for good and need not be looked through again. The default threshold of 700 objects is
    reached several times within one request: with many requests at once most of their objects would be taken for
    long-lived ones, and looked through with everything that is stored.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


async def serve(app: HostApp, config: uvicorn.Config) -> None:
    """Serve until a signal arrives, in the running event loop.

    Raises:
        ConfigurationError: the state cannot be used, or the address cannot be bound.
        StoreUnavailable: the database cannot be reached.
    """
    tune_collector()
    try:
        # Here, so that what cannot be opened is an error for the caller, and not a traceback in the server's log. And
        # first: the server says that it is running as soon as it has bound the address.
        await app.lifecycle.prepare()
        bound = _bind(config)
    except BaseException:
        await app.lifecycle.stop()
        raise
    try:
        app.announcement["bind"] = _address(bound)
        await DrainingServer(config, app.lifecycle).serve([bound])
    finally:
        bound.close()


def new_runner(loop: str = "auto") -> AbstractContextManager[asyncio.Runner]:
    """Return a runner with the server's event loop (uvloop where it is installed)."""
    return ending_runner(uvicorn.Config("", loop=loop, log_config=None).get_loop_factory())


def run(app: HostApp, host: str, port: int, *, workers: int, options: Mapping[str, Any]) -> None:
    """Serve until a signal arrives, in an event loop of its own. See `AgentFrameworkHost.serve`."""
    config = configure(app, host, port, workers=workers, options=options)
    show_logs("info")
    # SIGINT is how a server in a terminal ends: uvicorn has stopped in order when it passes the signal on.
    with contextlib.suppress(KeyboardInterrupt), new_runner(config.loop) as runner:
        runner.run(serve(app, config))


def run_reloading(factory: str, host: str, port: int, *, log_level: str) -> None:
    """Serve the application that `factory` (`module:function`) returns, in a child that starts again on file changes."""
    _check_port(port)
    # Uvicorn waits for open streams before it starts again; whoever saves a file does not want to.
    uvicorn.run(
        factory,
        factory=True,
        host=host,
        port=port,
        reload=True,
        lifespan="on",
        log_level=log_level,
        timeout_graceful_shutdown=1,
    )


def _bind(config: uvicorn.Config) -> socket.socket:
    # Bound here, not while the server starts, so that port 0 is known when the host logs that it has started.
    try:
        bound = config.bind_socket()
    except SystemExit as ended:  # the server has logged why, and wants the process to end with a code of its own
        reason = ended.__context__
        said = reason.strerror if isinstance(reason, OSError) else None
        where = config.uds or f"{config.host}:{config.port}"
        raise ConfigurationError(f"The address {where} cannot be bound: {said or reason}.") from reason
    if bound.family in {socket.AF_INET, socket.AF_INET6}:
        # asyncio does so only for sockets it has opened itself; without, small answers wait for an acknowledgement.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"port={port}: ports go from 1 to 65535; 0 takes a free one.")


def _address(bound: socket.socket) -> str:
    name: str | Sequence[Any] = bound.getsockname()
    if isinstance(name, str):
        return name
    host = f"[{name[0]}]" if bound.family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}"
