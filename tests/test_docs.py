"""The documentation names everything there is, its code runs, and its links lead somewhere."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any, Never, get_args

import pytest
from agent_framework import Executor, Workflow, WorkflowBuilder, WorkflowContext, handler
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsBase

import agent_framework_hosting
import agent_framework_hosting_responses
from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.cli import main
from agent_framework_hosting.testing.agents import ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings
from agent_framework_hosting_responses.protocol import errors
from agent_framework_hosting_responses.protocol.input import ITEM_TYPES, UNSUPPORTED
from agent_framework_hosting_responses.protocol.json import JsonObject
from agent_framework_hosting_responses.protocol.options import chat_options
from agent_framework_hosting_responses.protocol.request import parse_request

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
FEATURES = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("packages/*/README.md"),
        *ROOT.glob("samples/*/README.md"),
        *ROOT.glob("benchmarks/**/*.md"),
    ]
)
BLOCK = re.compile(r"(?:<!-- run: (?P<runs>[\w ]+) -->\n)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|tmp|root|home|Users)/")


def documented(text: str) -> set[str]:
    """Words between backticks, dotted and dashed ones whole."""
    return {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[\w./:{}*-]+", code)}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks() -> list[Any]:
    return [
        pytest.param(
            found["runs"], found["code"], id=f"{name_of(page)}:{page_text.count(chr(10), 0, found.start()) + 1}"
        )
        for page in PAGES
        if "benchmarks" not in page.parts
        for page_text in [page.read_text(encoding="utf-8")]
        for found in BLOCK.finditer(page_text)
    ]


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    return capsys.readouterr().out


class Echo(Executor):
    @handler
    async def echo(self, text: str, ctx: WorkflowContext[Never, str]) -> None:
        await ctx.yield_output(text)


def build_workflow() -> Workflow:
    return WorkflowBuilder(start_executor=Echo("echo")).build()


# --- Everything is named -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "package", [agent_framework_hosting, agent_framework_hosting_responses], ids=lambda p: p.__name__
)
def test_every_public_name_is_in_the_reference(package: Any) -> None:
    missing = set(package.__all__) - documented(REFERENCE)

    assert not missing


@pytest.mark.parametrize("kind", [AgentFrameworkHost, ResponsesChannel], ids=lambda kind: kind.__name__)
def test_every_parameter_and_public_member_is_in_the_reference(kind: type) -> None:
    section = REFERENCE.split(f"\n## {kind.__name__}\n")[1].split("\n## ")[0]
    members = {name for name in vars(kind) if not name.startswith("_")} - {"contribute"}

    missing = ({*inspect.signature(kind).parameters} | members) - set(re.findall(r"\w+", section))

    assert not missing


def test_every_setting_is_in_the_reference_with_its_default() -> None:
    section = REFERENCE.split("\n## ResponsesSettings\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", section, re.MULTILINE))

    assert rows.keys() == {field.name for field in dataclasses.fields(ResponsesSettings)}
    for field in dataclasses.fields(ResponsesSettings):
        if rows[field.name].startswith("`"):
            assert ast.literal_eval(rows[field.name].strip("`")) == field.default, field.name


def test_the_defaults_of_the_host_are_those_of_the_reference() -> None:
    section = REFERENCE.split("\n## AgentFrameworkHost\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^`|]+)` \|", section, re.MULTILINE)
    parameters = inspect.signature(AgentFrameworkHost).parameters

    assert len(rows) >= 5
    for name, default in rows:
        assert ast.literal_eval(default) == parameters[name].default, name


def test_every_command_and_flag_is_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    section = documented(REFERENCE.split("\n## Command line\n")[1].split("\n## ")[0])
    commands = re.findall(r"^    (\w+) ", help_of(capsys), re.MULTILINE)
    flags = {flag for command in commands for flag in re.findall(r"(?<![\w-])--?[a-z][\w-]*", help_of(capsys, command))}

    assert {*commands} == {"serve", "check"}
    assert "--port" in flags
    assert not ({*commands} | flags) - section


def test_every_route_is_in_the_reference() -> None:
    host = AgentFrameworkHost(ScriptedAgent(["Hello"]), channels=[ResponsesChannel()])
    documented_routes = set(re.findall(r"`((?:GET|POST|DELETE) /[^`]*)`", REFERENCE))

    served = {f"{method} {route.path}" for route in host.app.served for method in (route.methods or {"GET"}) - {"HEAD"}}

    assert served == documented_routes


def test_every_option_that_a_request_can_make_is_in_the_reference() -> None:
    body: JsonObject = {
        "instructions": "x", "max_tool_calls": 1, "metadata": {}, "model": "x", "store": True, "temperature": 1, "top_p": 1,
        "top_logprobs": 1, "truncation": "auto", "user": "x", "frequency_penalty": 0, "presence_penalty": 0,
        "prompt_cache_key": "x", "prompt_cache_retention": "24h", "safety_identifier": "x", "service_tier": "auto",
        "max_output_tokens": 16, "parallel_tool_calls": True, "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}, "verbosity": "low"}, "tool_choice": "auto",
        "tools": [{"type": "function", "name": "x"}], "input": "x",
    }  # fmt: skip

    options = chat_options(parse_request(body))

    assert not options.keys() - documented(REFERENCE.split("\n### Options\n")[1].split("\n## ")[0])


def test_every_error_code_is_in_the_reference() -> None:
    source = inspect.getsource(errors)
    codes = set(re.findall(r'code="(\w+)"', source)) - {"conversation_locked", "invalid_api_key", "rate_limit_exceeded"}

    assert len(codes) > 10
    assert not codes - documented(REFERENCE.split("\n## Errors\n")[1].split("\n## ")[0])


def test_every_request_field_of_the_official_client_is_in_the_feature_matrix() -> None:
    missing = set(ResponseCreateParamsBase.__annotations__) - documented(FEATURES)

    assert not missing


def test_every_input_item_is_in_the_feature_matrix() -> None:
    assert not {*ITEM_TYPES, *UNSUPPORTED} - {"message"} - documented(FEATURES)


def test_every_event_of_the_official_client_is_in_the_feature_matrix() -> None:
    words = documented(FEATURES.split("\n## Events\n")[1].split("\n## ")[0])
    patterns = [re.compile(re.escape(word).replace(r"\*", ".*")) for word in words]
    events = [get_args(kind.model_fields["type"].annotation)[0] for kind in get_args(get_args(ResponseStreamEvent)[0])]

    missing = [kind for kind in events if not any(p.fullmatch(kind.removeprefix("response.")) for p in patterns)]

    assert len(events) > 50
    assert not missing


# --- What it says is so ------------------------------------------------------------------------------------------


def test_the_test_command_of_the_readme_is_that_of_the_gate() -> None:
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert f"```sh\n{gate}\n```" in readme
    assert f"```sh\n{gate.rpartition('run ')[0]}run samples/local_responses/app.py\n```" in readme
    assert f"```sh\n{gate}\n```" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("runs", "code"), blocks())
def test_the_code_of_the_documentation_runs(
    runs: str | None, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile(code, "documentation", "exec")
    if runs not in {"agent", "workflow"}:
        return  # needs a server or a key: compiling is what can be done; tests/test_samples.py runs the README's call
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"agent": ScriptedAgent(["Hello"]), "build_workflow": build_workflow}

    exec(compiled, names)

    assert names["host"].app.served


def test_enough_of_the_code_is_run() -> None:
    ran = [block.id for block in blocks() if block.values[0] is not None]

    assert len(ran) >= 8, ran


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere_and_no_path_is_of_one_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    broken = [link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link) and not leads_somewhere(page, link)]

    assert not broken
    assert not MACHINE_PATH.findall(text)


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return False
    return not anchor or anchor in {slug(line) for line in target.read_text(encoding="utf-8").splitlines()}


def slug(line: str) -> str | None:
    """The anchor that GitHub gives to a heading."""
    heading = re.match(r"#+ (.*)", line)
    return None if heading is None else re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
