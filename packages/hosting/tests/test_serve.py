"""The ASGI server: its options, and a real process that is really told to stop."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx2
import pytest

from agent_framework_hosting import AgentFrameworkHost, ChannelContext, ChannelContribution, ConfigurationError
from agent_framework_hosting.serve import _address, configure
from agent_framework_hosting.testing.agents import ScriptedAgent

SERVER = '''
import asyncio, sys
from contextlib import aclosing
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from agent_framework_hosting import AgentFrameworkHost, ChannelContribution
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import Attempt, RunId, RunKey
from agent_framework_hosting.testing.agents import ScriptedAgent

KEY = RunKey(SHARED, RunId("run"))


class RunChannel:
    """GET /run follows a run that ends with POST /finish."""

    name, path = "run", "/run"

    def contribute(self, context):
        finish = asyncio.Event()

        async def execute(key):
            attempt = Attempt(key, 1)
            await context.run_log.append(attempt, [("started", b"")])
            try:
                await finish.wait()
                end = "completed"
            except asyncio.CancelledError:
                end = "cancelled"
            await context.run_log.append(attempt, [(end, b"")], closes=True)
            print(end, flush=True)

        context.engine.register("run", execute)

        async def follow(request):
            await context.engine.start("run", KEY)

            async def lines():
                async with aclosing(context.run_log.follow(KEY)) as batches:
                    async for batch in batches:
                        for kind, _ in batch:
                            yield kind + "\\n"
            await asyncio.sleep(0)
            return StreamingResponse(lines())

        async def end(request):
            finish.set()
            return PlainTextResponse("finishing")

        return ChannelContribution(
            routes=[Route("/", follow), Route("/finish", end, methods=["POST"])],
            on_shutdown=[lambda: print("stopped", flush=True)],
        )


host = AgentFrameworkHost(ScriptedAgent(), channels=[RunChannel()], shutdown_grace=float(sys.argv[1]))
if __name__ == "__main__":
    host.serve(port=0, access_log=False)
    print("returned", flush=True)
'''


class SilentChannel:
    name = "silent"
    path = ""

    def contribute(self, context: ChannelContext) -> ChannelContribution:
        return ChannelContribution()


@dataclass
class Server:
    process: subprocess.Popen[str]
    url: str

    def stop(self, sig: signal.Signals) -> list[str]:
        self.process.send_signal(sig)
        return self.output()

    def output(self) -> list[str]:
        out, _ = self.process.communicate(timeout=60)
        return out.split()


def wait_for(stream: IO[str] | None, pattern: str) -> re.Match[str]:
    assert stream is not None
    seen: list[str] = []
    for line in stream:
        seen.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"{pattern!r} never came: {seen}")


@contextmanager
def started(tmp_path: Path, *, grace: float) -> Iterator[Server]:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    process = subprocess.Popen(
        [sys.executable, str(script), str(grace)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        url = wait_for(process.stderr, r"running on (http://\S+)").group(1)
        wait_for(process.stderr, "startup complete")
        yield Server(process, url)
    finally:
        process.kill()
        process.communicate()


def red_readiness(url: str) -> int:
    """Wait until readiness is not green; a new connection each time, as a load balancer makes it."""
    while (status := httpx2.get(f"{url}/readiness", timeout=60).status_code) == 200:
        pass
    return status


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def new_host() -> AgentFrameworkHost:
    return AgentFrameworkHost(ScriptedAgent(), channels=[SilentChannel()])


@pytest.mark.behaviour("G2")
def test_on_sigterm_readiness_goes_red_and_the_run_finishes_while_the_server_goes_on_answering(tmp_path: Path) -> None:
    with started(tmp_path, grace=30) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        before = client.get("/readiness").status_code
        with client.stream("GET", "/run") as stream:
            lines = stream.iter_lines()
            first = next(lines)
            server.process.send_signal(signal.SIGTERM)
            during = red_readiness(server.url)
            client.post("/run/finish")
            rest = list(lines)
        output = server.output()

    assert (before, during) == (200, 503)
    assert [first, *rest] == ["started", "completed"]
    assert output == ["completed", "stopped"]
    assert server.process.returncode == -signal.SIGTERM


@pytest.mark.behaviour("G2")
def test_a_run_that_outlives_the_grace_period_is_cancelled_and_says_so_to_its_reader(tmp_path: Path) -> None:
    with started(tmp_path, grace=0.2) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        with client.stream("GET", "/run") as stream:
            lines = stream.iter_lines()
            first = next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        output = server.output()

    assert [first, *rest] == ["started", "cancelled"]
    assert output == ["cancelled", "stopped"]


def test_ctrl_c_stops_in_order_and_returns_to_the_caller(tmp_path: Path) -> None:
    with started(tmp_path, grace=5) as server:
        output = server.stop(signal.SIGINT)

    assert output == ["stopped", "returned"]
    assert server.process.returncode == 0


def test_a_second_ctrl_c_does_not_wait_for_the_grace_period(tmp_path: Path) -> None:
    with started(tmp_path, grace=600) as server, httpx2.stream("GET", f"{server.url}/run", timeout=60) as stream:
        assert next(stream.iter_lines()) == "started"
        server.process.send_signal(signal.SIGINT)
        assert red_readiness(server.url) == 503
        output = server.stop(signal.SIGINT)

    assert output[:2] == ["cancelled", "stopped"]


def test_an_address_in_use_ends_the_process(tmp_path: Path) -> None:
    with started(tmp_path, grace=0) as server:
        port = server.url.rsplit(":", 1)[1]
        script = (tmp_path / "server.py").read_text().replace("port=0", f"port={port}")
        other = run_python(script, "0")

    assert other.returncode != 0
    assert "address already in use" in other.stderr.lower()


@pytest.mark.behaviour("G6")
@pytest.mark.parametrize("workers", [0, 2, 8])
def test_several_workers_are_refused_with_the_reason(workers: int) -> None:
    with pytest.raises(ConfigurationError, match=f"workers={workers}: .* several processes"):
        new_host().serve(workers=workers)


@pytest.mark.parametrize("option", ["no_such_option", "reload", "timeout_graceful_shutdown"])
def test_an_option_the_server_does_not_have_is_refused(option: str) -> None:
    options: dict[str, Any] = {option: True}

    with pytest.raises(ConfigurationError, match=f"does not know the option '{option}'; known: .*ssl_certfile"):
        new_host().serve("127.0.0.1", 0, workers=1, **options)


def test_without_the_extra_serve_says_what_to_install() -> None:
    result = run_python(
        """
        import sys
        sys.modules["uvicorn"] = None
        from agent_framework_hosting import AgentFrameworkHost, ChannelContribution, ConfigurationError
        from agent_framework_hosting.testing.agents import ScriptedAgent

        class SilentChannel:
            name, path = "silent", ""
            def contribute(self, context):
                return ChannelContribution()

        host = AgentFrameworkHost(ScriptedAgent(), channels=[SilentChannel()])
        try:
            host.serve()
        except ConfigurationError as error:
            print(error)
        """
    )

    assert 'pip install "agent-framework-hosting[serve]"' in result.stdout


def test_importing_the_host_loads_no_server() -> None:
    result = run_python("import agent_framework_hosting, sys; print('uvicorn' in sys.modules)")

    assert result.stdout.strip() == "False", result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Unix sockets")
def test_a_unix_socket_is_an_address_too(tmp_path: Path) -> None:
    config = configure(new_host().app, "127.0.0.1", 0, workers=1, options={"uds": str(tmp_path / "socket")})
    with config.bind_socket() as bound:
        assert _address(bound) == str(tmp_path / "socket")


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", r"127\.0\.0\.1:\d+"), ("::1", r"\[::1\]:\d+")])
def test_the_address_in_the_log_is_the_one_that_was_bound(host: str, expected: str) -> None:
    with configure(new_host().app, host, 0, workers=1, options={}).bind_socket() as bound:
        assert re.fullmatch(expected, _address(bound))


def test_a_serving_process_collects_less_often_and_never_what_it_began_with() -> None:
    program = (
        "import gc; from agent_framework_hosting.serve import COLLECTOR_THRESHOLDS, tune_collector; tune_collector(); "
        "print(gc.get_threshold() == COLLECTOR_THRESHOLDS, gc.get_freeze_count() > 10_000)"
    )

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert shown.stdout.split() == ["True", "True"]


def test_a_state_that_another_process_has_is_an_error_for_the_caller_and_no_traceback(tmp_path: Path) -> None:
    first = AgentFrameworkHost(ScriptedAgent(["hello"]), channels=[SilentChannel()], state_dir=tmp_path)
    second = AgentFrameworkHost(ScriptedAgent(["hello"]), channels=[SilentChannel()], state_dir=tmp_path)

    async def clash() -> None:
        async with first.lifespan():
            await asyncio.to_thread(second.serve, "127.0.0.1", 0)

    with pytest.raises(ConfigurationError, match="another process"):
        asyncio.run(clash())
