"""The command line, in process where that is enough and as a real process where it serves."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx2
import pytest

from agent_framework_hosting.cli import main
from agent_framework_hosting.state import DATABASE_VARIABLE

APP = """
from agent_framework import Executor, WorkflowBuilder, WorkflowContext, handler
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from agent_framework_hosting import (
    AgentFrameworkHost, ChannelCommand, ChannelContribution, ChannelRequest, LifecycleCallback
)
from agent_framework_hosting.testing.agents import ScriptedAgent


class Echo(Executor):
    @handler
    async def echo(self, text: str, context: WorkflowContext[str, str]) -> None:
        await context.yield_output(text)


def build_workflow():
    echo = Echo(id="echo")
    return WorkflowBuilder(start_executor=echo, output_from=[echo], name="flow").build()


class OwnChannel:
    name, path = "own", "/own"

    def contribute(self, context):
        async def reset(command):
            return "done"
        return ChannelContribution(commands=[ChannelCommand("reset", "Start anew.", reset)])


agent = ScriptedAgent(["hello"], name="parrot")
workflow = build_workflow()
host = AgentFrameworkHost(agent, channels=[OwnChannel()])
number = 3


def build_agent():
    return agent


async def build_agent_later():
    return agent


def build_host():
    return host


async def build_workflow_later():
    return workflow


def needs_argument(name):
    return agent


def broken_factory():
    raise ValueError("no database")


class nested:
    agent = agent


several = {"team/parrot": agent, "flow": build_workflow}


def build_several():
    return several
"""

CHANNEL = """
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from agent_framework_hosting import ChannelContribution, ChannelRequest


class FakeResponses:
    name = "responses"

    def __init__(self, path):
        self.path = path

    def contribute(self, context):
        async def create(request):
            text = (await request.body()).decode()
            result = await context.run(ChannelRequest(channel="responses", operation="create", input=text))
            return PlainTextResponse(result.result.text)
        return ChannelContribution(routes=[Route("/", create, methods=["POST"])])
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with an application, and a package that offers a channel named `responses`."""
    (tmp_path / "cli_app.py").write_text(APP)
    (tmp_path / "fake_channel.py").write_text(CHANNEL)
    info = tmp_path / "fake_channel-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-channel\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[agent_framework_hosting.channels]\nresponses = fake_channel:FakeResponses\n"
    )
    monkeypatch.chdir(tmp_path)
    # First on the path, before the package that really offers the channel.
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if name in {"cli_app", "fake_channel"}:
            del sys.modules[name]


# --- check


@pytest.mark.parametrize("attribute", ["agent", "build_agent", "build_agent_later", "nested.agent"])
def test_check_prints_what_an_agent_would_be_served_as(attribute: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["check", f"cli_app:{attribute}"])

    assert code == 0
    assert capsys.readouterr().out.splitlines() == [
        "target   agent 'parrot'",
        "channel  'responses' at /responses",
        "route    *          /readiness  (host)",
        "route    *          /liveness  (host)",
        "route    POST       /responses  (responses)",
    ]


@pytest.mark.parametrize("attribute", ["workflow", "build_workflow", "build_workflow_later"])
def test_check_takes_a_workflow_and_functions_that_build_one(
    attribute: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["check", f"cli_app:{attribute}", "--path", "/v1/responses"])

    assert code == 0
    out = capsys.readouterr().out
    assert "target   workflow 'flow'" in out
    assert "channel  'responses' at /v1/responses" in out


@pytest.mark.parametrize("attribute", ["several", "build_several"])
def test_check_takes_several_targets_under_their_names(attribute: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["check", f"cli_app:{attribute}"])

    assert code == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["target   agent 'team/parrot'", "target   workflow 'flow'"]


@pytest.mark.parametrize("attribute", ["host", "build_host"])
def test_check_takes_a_host_with_its_own_channels_and_commands(
    attribute: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["check", f"cli_app:{attribute}"])

    assert code == 0
    out = capsys.readouterr().out
    assert "channel  'own' at /own" in out
    assert "command  reset  (own)" in out


# --- mistakes


@pytest.mark.parametrize("command", ["check", "serve"])
@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("cli_app", "must have the form module:attribute"),
        ("cli_app:", "must have the form module:attribute"),
        ("nowhere:agent", "There is no module 'nowhere'"),
        ("cli_app.sub:agent", "There is no module 'cli_app.sub'"),
        ("cli_app:agnt", "has no attribute 'agnt'. Did you mean 'agent'?"),
        ("cli_app:nested.nothing", "has no attribute 'nested.nothing'"),
        ("cli_app:number", "gives a int: it must be an agent"),
        ("cli_app:nested", "is the class nested: pass an instance"),
        ("cli_app:needs_argument", "must be callable without arguments: missing a required argument: 'name'"),
        ("cli_app:broken_factory", "ValueError: no database"),
        ("cli_app.py:agent", "must name a module as an import does, not a file"),
        ("./cli_app:agent", "must name a module as an import does, not a file"),
        ("sub/cli_app:agent", "must name a module as an import does, not a file"),
    ],
)
def test_a_mistake_is_named_in_one_line_without_a_traceback(
    command: str, reference: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([command, reference])

    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.startswith("afhost: ")
    assert error.count("\n") == 1


def test_a_path_for_a_host_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["check", "cli_app:host", "--path", "/mine"])

    assert code == 2
    assert "leave --path out" in capsys.readouterr().err


def test_a_bad_path_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["check", "cli_app:agent", "--path", "mine"])

    assert code == 2
    assert "must start with '/'" in capsys.readouterr().err


def test_a_path_that_is_taken_is_refused_before_anything_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["check", "cli_app:agent", "--path", "/readiness"])

    printed = capsys.readouterr()
    assert code == 2
    assert "which the host answers already" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("more", [[], ["--reload"]])
@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none_is_refused(port: str, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["serve", "cli_app:agent", f"--port={port}", *more])

    assert code == 2
    assert f"port={port}: ports go from" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["serve"], ["nothing"], ["serve", "cli_app:agent", "--log-level", "loud"]])
def test_a_command_line_that_is_none_ends_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage: afhost" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize("grace", ["-1", "nan", "inf", "soon"])
def test_a_grace_period_that_is_none_is_refused(command: str, grace: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "cli_app:agent", f"--grace={grace}"])

    assert ended.value.code == 2
    assert f"argument --grace: {grace!r} must be 0 or more seconds" in capsys.readouterr().err


# --- serve


def wait_for(stream: IO[str] | None, pattern: str) -> re.Match[str]:
    assert stream is not None
    seen: list[str] = []
    for line in stream:
        seen.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"{pattern!r} never came: {seen}")


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start(project: Path, processes: list[subprocess.Popen[str]], *arguments: str) -> subprocess.Popen[str]:
    environment = {"PYTHONPATH": str(project), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "agent_framework_hosting.cli", "serve", *arguments]
    process = subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    processes.append(process)
    return process


@pytest.mark.parametrize("attribute", ["agent", "build_agent_later"])
def test_serve_answers_at_the_given_path_and_logs_what_it_serves(
    project: Path, processes: list[subprocess.Popen[str]], attribute: str
) -> None:
    process = start(project, processes, f"cli_app:{attribute}", "--port", "0", "--path", "/ask")
    url = wait_for(process.stderr, r"running on (http://\S+)").group(1)
    log = wait_for(process.stderr, "The host has started.*").group(0)
    wait_for(process.stderr, "startup complete")

    answer = httpx2.post(f"{url}/ask", content="hi", timeout=60)
    process.send_signal(signal.SIGINT)

    assert answer.text == "hello"
    assert process.wait(timeout=60) == 0
    assert "targets={'parrot': 'agent'}" in log
    assert "channels={'responses': '/ask'}" in log
    assert f"bind='{url.removeprefix('http://')}'" in log


def test_reload_serves_again_after_a_file_has_changed(project: Path, processes: list[subprocess.Popen[str]]) -> None:
    process = start(project, processes, "cli_app:build_agent_later", "--port", "0", "--reload")
    url = wait_for(process.stderr, r"running on (http://\S+)").group(1)
    wait_for(process.stderr, "startup complete")
    before = httpx2.post(f"{url}/responses", content="hi", timeout=60).text

    (project / "cli_app.py").write_text(APP.replace('["hello"]', '["changed"]'))
    wait_for(process.stderr, "startup complete")
    after = httpx2.post(f"{url}/responses", content="hi", timeout=60).text
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)

    assert (before, after) == ("hello", "changed")


def test_reload_reports_a_mistake_before_it_starts(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["serve", "nowhere:agent", "--reload"])

    assert code == 2
    assert "There is no module 'nowhere'" in capsys.readouterr().err


def test_a_notice_is_refused_where_it_would_not_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["serve", "cli_app:agent", "--reload", "--notice", "5"])

    assert code == 2
    assert "leave --notice out" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["nosuch.invalid", "192.0.2.1"])
def test_an_address_that_cannot_be_bound_ends_with_code_2(
    host: str, project: Path, processes: list[subprocess.Popen[str]]
) -> None:
    process = start(project, processes, "cli_app:agent", "--host", host)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 2
    assert re.fullmatch(rf"afhost: The address {host}:8000 cannot be bound: .+\.", said.splitlines()[-1])
    assert "Traceback" not in said


def said_by(project: Path, *arguments: str, database: str) -> tuple[int, str]:
    """Run a command to its end; return its code, and what it writes to either stream."""
    environment = {"PYTHONPATH": str(project), "PATH": "/usr/bin:/bin", DATABASE_VARIABLE: database}
    ended = subprocess.run(
        [sys.executable, "-m", "agent_framework_hosting.cli", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["worker"]])
def test_a_database_that_is_away_is_all_that_is_said(command: list[str], project: Path) -> None:
    url = "postgresql://u:SECRET@127.0.0.1:1/app"

    code, said = said_by(project, *command, "cli_app:agent", database=url)

    assert code == 2
    assert re.fullmatch(r"afhost: The database 'app' at 127\.0\.0\.1:1 cannot be reached: .+\n", said)


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["worker"]])
def test_rights_that_are_missing_are_all_that_is_said(command: list[str], project: Path, poor_url: str) -> None:
    code, said = said_by(project, *command, "cli_app:agent", database=poor_url)

    assert code == 2
    assert re.fullmatch(r"afhost: The database .+ cannot be used: permission denied for .+\.\n", said)
    assert "SECRET" not in said
