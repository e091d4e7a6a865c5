"""The command line: `afhost serve`, `worker` and `check module:attribute`, `afhost db …` and `afhost runs …`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

from . import db_cli, runs_cli
from .commands import Refused
from .errors import ConfigurationError, StoreUnavailable
from .host import AgentFrameworkHost
from .loading import DEFAULT_PATH, build_host, load
from .logs import show_logs
from .runner import ending_runner

RELOAD_VARIABLE: Final = "AFHOST_RELOAD"
"""Environment variable through which a reloading server tells its child processes what to build."""

USAGE_ERROR: Final = 2
REFUSED: Final = 1
LOG_LEVELS: Final = ("critical", "error", "warning", "info", "debug")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    It is 2 for whatever the user can put right, 1 if there is nothing to do; one line says so.
    """
    options = _parser().parse_args(arguments)
    # Like `python -m`: the user's module is in the directory the command is run in.
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109  sys.path holds strings
        sys.path.insert(0, here)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except (ConfigurationError, StoreUnavailable) as error:
        print(f"afhost: {error}", file=sys.stderr)
        return USAGE_ERROR
    except Refused as refusal:
        print(f"afhost: {refusal}", file=sys.stderr)
        return REFUSED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="afhost", description="Serve an Agent Framework agent or workflow.")
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = commands.add_parser("serve", help="serve an agent, a workflow or a host over HTTP")
    _add_reference(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="port to bind; 0 takes a free one (default: %(default)s)")
    _add_grace(serve)
    serve.add_argument(
        "--notice",
        type=_seconds,
        metavar="SECONDS",
        help="time before that, in which readiness is red and requests are served as before (default: that of the host, 0)",
    )
    serve.add_argument("--reload", action="store_true", help="start again when a file changes; for development")
    serve.add_argument("--log-level", choices=LOG_LEVELS, default="info", help="default: %(default)s")
    serve.set_defaults(command=_serve)
    worker = commands.add_parser(
        "worker", help="execute background runs that other processes accept, and serve nothing"
    )
    _add_reference(worker)
    _add_grace(worker)
    worker.add_argument("--log-level", choices=LOG_LEVELS, default="info", help="default: %(default)s")
    worker.set_defaults(command=_work)
    check = commands.add_parser("check", help="build the host and print what it would serve")
    _add_reference(check)
    check.set_defaults(command=_check)
    db_cli.add_actions(commands.add_parser("db", help="upgrade, prune or measure the database of a host"))
    runs_cli.add_actions(
        commands.add_parser("runs", help="list, show, cancel or retry the runs in the database of a host")
    )
    return parser


def _add_reference(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "reference",
        metavar="module:attribute",
        help="an agent, a workflow, a mapping of names to several, a function that returns one of these, or an AgentFrameworkHost",
    )
    command.add_argument(
        "--path", help=f"path of the Responses channel, unless a host is named (default: {DEFAULT_PATH})"
    )


def _add_grace(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--grace",
        type=_seconds,
        metavar="SECONDS",
        help="time that runs get to finish when the process is told to stop (default: that of the host, 30)",
    )


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} must be 0 or more seconds")


async def _build(
    reference: str, path: str | None, *, grace: float | None, notice: float | None = None
) -> AgentFrameworkHost:
    host = await build_host(reference, path=path)
    lifecycle = host.app.lifecycle
    lifecycle.grace = lifecycle.grace if grace is None else grace
    lifecycle.notice = lifecycle.notice if notice is None else notice
    return host


def _serve(options: argparse.Namespace) -> None:
    from . import serve as server  # noqa: PLC0415  the ASGI server is an optional dependency

    show_logs(options.log_level)
    if options.reload:
        if options.notice is not None:
            raise ConfigurationError("--reload is for development, and stops without a notice: leave --notice out.")
        load(options.reference)  # a mistake in the command line is reported here, once, not by each child
        os.environ[RELOAD_VARIABLE] = json.dumps([options.reference, options.path, options.grace])
        server.run_reloading(
            "agent_framework_hosting.cli:reloaded", options.host, options.port, log_level=options.log_level
        )
        return
    # The host is built in the loop that serves it: an async factory may open connections that belong to its loop.
    with contextlib.suppress(KeyboardInterrupt), server.new_runner() as runner:
        host = runner.run(_build(options.reference, options.path, grace=options.grace, notice=options.notice))
        config = server.configure(
            host.app, options.host, options.port, workers=1, options={"log_level": options.log_level}
        )
        runner.run(server.serve(host.app, config))


def _work(options: argparse.Namespace) -> None:
    show_logs(options.log_level)
    stopped, hurried = asyncio.Event(), asyncio.Event()
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        # As with the server: whoever asks a second time at the terminal does not want to wait.
        if received and number is signal.SIGINT:
            hurried.set()
        received.append(number)
        stopped.set()

    async def work() -> None:
        host = await _build(options.reference, options.path, grace=options.grace)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        await host.work(stopped, hurried=hurried)

    with ending_runner() as runner:
        runner.run(work())
        if received and received[0] is signal.SIGTERM:
            # As with the server: what a signal has ended says so, and nothing that ignores its end can hold it up.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)


def _check(options: argparse.Namespace) -> None:
    host = asyncio.run(build_host(options.reference, path=options.path))
    routes = host.app.served  # first, because building the app may fail
    for served in host.targets:
        print(f"target   {served.target.kind} {served.name!r}")
    for channel in host.channels:
        print(f"channel  {channel.name!r} at {channel.path or '/'}")
    for route in routes:
        print(f"route    {','.join(sorted(route.methods)) or '*':<10} {route.path}  ({route.owner})")
    for owner, command in host.app.commands:
        print(f"command  {command.name}  ({owner})")


class ReloadedHost:
    """The ASGI application of a reloading server's child: builds the host in the loop that serves it."""

    def __init__(self, reference: str, path: str | None, grace: float | None) -> None:
        self._reference = reference
        self._path = path
        self._grace = grace
        self._host: AgentFrameworkHost | None = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Serve one ASGI connection; the first one is the server's lifespan, before any request."""
        if self._host is None:
            self._host = await _build(self._reference, self._path, grace=self._grace)
        await self._host(scope, receive, send)


def reloaded() -> ReloadedHost:
    """Return the application that the parent process asked for."""
    reference, path, grace = json.loads(os.environ[RELOAD_VARIABLE])
    return ReloadedHost(reference, path, grace)


if __name__ == "__main__":
    sys.exit(main())
