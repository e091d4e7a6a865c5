"""The documentation names everything there is, its code runs, and its links lead somewhere."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any, Never, get_args

import live
import pytest
from agent_framework import (
    Agent,
    Content,
    Executor,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
    response_handler,
    tool,
)
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsBase

import agent_framework_hosting
import agent_framework_hosting_responses
from agent_framework_hosting import AgentFrameworkHost, Prunable, Retention, SessionStore, StoreStats
from agent_framework_hosting.cli import main
from agent_framework_hosting.retention import BATCH, FIRST_ROUND, PRUNE_INTERVAL
from agent_framework_hosting.runs import procrastinate
from agent_framework_hosting.sql.presence import BEAT, LEASE
from agent_framework_hosting.sql.schema import installed_parts
from agent_framework_hosting.sql.space import RESERVE
from agent_framework_hosting.testing.agents import ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import (
    Conversations,
    ConversationsService,
    ResponsesChannel,
    ResponsesService,
    ResponsesSettings,
    ResponsesState,
    ResponseStore,
    Settlements,
    recovery,
)
from agent_framework_hosting_responses.protocol import errors
from agent_framework_hosting_responses.protocol.input import ITEM_TYPES, UNSUPPORTED
from agent_framework_hosting_responses.protocol.json import JsonObject
from agent_framework_hosting_responses.protocol.options import chat_options
from agent_framework_hosting_responses.protocol.request import parse_request

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
FEATURES = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
STATE = (ROOT / "docs" / "state.md").read_text(encoding="utf-8")
TENANCY = (ROOT / "docs" / "tenancy.md").read_text(encoding="utf-8")
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


def mailer() -> Agent[Any]:
    @tool(approval_mode="always_require")
    def send_mail(to: str) -> str:
        """Send a mail."""
        return f"sent to {to}"

    mail = Content.from_function_call("call_1", "send_mail", arguments='{"to": "bob"}')
    return Agent(client=ScriptedChatClient([mail], ["The mail is on its way."]), tools=[send_mail])


@dataclasses.dataclass
class Refund:
    order: str
    amount: int


class Clerk(Executor):
    @handler
    async def ask(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        await ctx.request_info(Refund(message.rpartition(" ")[2], 20), bool)

    @response_handler
    async def decide(self, asked: Refund, is_approved: bool, ctx: WorkflowContext[Any, str]) -> None:
        await ctx.yield_output(f"{asked.order} approved: {is_approved}")


def build_refunds() -> Workflow:
    return WorkflowBuilder(start_executor=Clerk(id="clerk"), name="refunds").build()


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


def commands_under(capsys: pytest.CaptureFixture[str], *command: str) -> list[tuple[str, ...]]:
    """Every command that can be run, each as the words after `afhost`."""
    names = re.findall(r"^    (\w+) ", help_of(capsys, *command), re.MULTILINE)
    return [found for name in names for found in commands_under(capsys, *command, name)] or [command]


def section_of(heading: str) -> str:
    """The section of the reference below a heading of any level, without those that follow."""
    found = re.search(rf"^#+ {heading}\n(.*?)(?=^#+ |\Z)", REFERENCE, re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]


def sources() -> str:
    """Everything of the packages that runs, tests and suites left out."""
    modules = [path for path in ROOT.glob("packages/*/agent_*/**/*.py") if "testing" not in path.parts]
    return "\n".join(path.read_text(encoding="utf-8") for path in modules)


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


@pytest.mark.parametrize(
    "kind",
    [
        AgentFrameworkHost,
        ResponsesChannel,
        ResponsesService,
        ConversationsService,
        ResponsesState,
        Retention,
        StoreStats,
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_parameter_and_public_member_is_in_the_reference(kind: type) -> None:
    members = {name for name in vars(kind) if not name.startswith("_")} - {"contribute"}

    missing = ({*inspect.signature(kind).parameters} | members) - set(re.findall(r"\w+", section_of(kind.__name__)))

    assert not missing


@pytest.mark.parametrize(
    "protocol", [SessionStore, Prunable, ResponseStore, Conversations, Settlements], ids=lambda p: p.__name__
)
def test_every_method_that_a_store_must_have_is_in_its_row_of_the_reference(protocol: type) -> None:
    (row,) = re.findall(rf"^\| `{protocol.__name__}` \|.*$", section_of("Stores"), re.MULTILINE)
    methods = {name for name in dir(protocol) if not name.startswith("_")}

    assert not methods - documented(row)


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
    section = section_of("Command line")
    commands = commands_under(capsys)
    named = {f"afhost {' '.join(command)}" for command in commands}
    flags = {
        flag for command in commands for flag in re.findall(r"(?<![\w-])--?[a-z][\w-]*", help_of(capsys, *command))
    }
    rows = re.findall(r"^\| `(afhost [\w ]+?)(?: module:attribute)?`", section, re.MULTILINE)

    assert {*rows} == named
    assert "afhost db prune" in named
    assert {"--port", "--max-age"} < flags
    assert not flags - documented(section)


def test_every_environment_variable_is_in_the_reference() -> None:
    variables = set(re.findall(r'"((?:AFHOST|FOUNDRY)_[A-Z_]+)"', sources())) - {
        "AFHOST_RELOAD"
    }  # it is nobody's to set

    assert {"AFHOST_DATABASE_URL", "FOUNDRY_HOSTING_ENVIRONMENT"} <= variables
    assert not variables - documented(section_of("Environment variables"))


def test_every_request_header_that_is_read_is_in_the_reference() -> None:
    read = set(re.findall(r'headers\.get\("([\w-]+)"', sources())) | {
        agent_framework_hosting.ISOLATION_HEADER_USER,
        agent_framework_hosting.ISOLATION_HEADER_CHAT,
    }

    assert "idempotency-key" in read
    assert not read - {"content-length"} - {word.lower() for word in documented(section_of("Request headers"))}


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
    codes = set(re.findall(r'code="(\w+)"', source)) - {"invalid_api_key", "rate_limit_exceeded"}  # for who needs them

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


def test_every_table_is_on_the_page_about_state() -> None:
    tables = {name for part in installed_parts() for name in (*part.metadata.tables, part.version_table)}

    assert len(tables) >= 8
    assert not tables - documented(STATE)


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
    agents = {name: ScriptedAgent(["Hello"], name=name) for name in ("agent", "writer", "editor")}
    names: dict[str, Any] = {**agents, "build_workflow": build_workflow}

    exec(compiled, names)

    assert names["host"].app.served


def test_the_figures_on_the_page_about_state_are_those_of_the_code() -> None:
    said = [
        f"the first time {FIRST_ROUND:.0f} second after",
        f"every {PRUNE_INTERVAL:.0f} seconds: {BATCH} entries",
        f"every {BEAT:.0f} seconds that it is alive",
        f"for {LEASE:.0f} seconds counts as dead",
        f"about {LEASE + BEAT:.0f} seconds after the death",
    ]
    text = " ".join(STATE.split())

    assert [phrase for phrase in said if phrase not in text] == []
    assert (RESERVE, Retention().max_age, ResponsesSettings().max_response_age) == (0.1, 30 * 86_400, 30 * 86_400)
    assert ResponsesSettings().max_conversation_age is None


def test_the_figures_on_the_page_about_operations_are_those_of_the_code() -> None:
    said = [
        f"its signs of life, every {BEAT:.0f} seconds",
        f"no sign of life for {LEASE:.0f} seconds",
        f"cannot be reached for {LEASE:.0f} seconds",
        f"whose worker gave none for {procrastinate.STALLED_AFTER:.0f} seconds",
        f"that is {recovery.MISSING_AFTER:.0f} seconds old",
        f"was begun {recovery.MOST_ATTEMPTS} times",
        f"failed {procrastinate.MOST_FAILURES} times",
    ]
    text = " ".join((ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split())

    assert [phrase for phrase in said if phrase not in text] == []


async def test_the_function_on_the_page_about_tenants_keeps_them_apart() -> None:
    names: dict[str, Any] = {"agent": ScriptedAgent(["Hello"])}
    exec(next(code for code in re.findall(r"```python\n(.*?)```", TENANCY, re.DOTALL) if "user_of" in code), names)

    async with live.serve(names["host"].app) as served:
        ada, bob = ({"Authorization": f"Bearer token-of-{name}"} for name in ("ada", "bob"))
        made = await served.http.post("/v1/responses", json={"input": "q"}, headers=ada)
        path = f"/v1/responses/{made.json()['id']}"
        statuses = [(await served.http.get(path, headers=headers)).status_code for headers in (ada, bob, {})]
        refusal = await served.http.get(path, headers={"Authorization": "Basic token-of-ada"})

    assert statuses == [200, 404, 401]
    assert refusal.json()["error"]["message"] == "Incorrect API key provided."


@pytest.mark.parametrize("asker", ["mailer", "refunds"])
async def test_what_the_frameworks_own_client_does_is_as_documented(
    asker: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    page = (ROOT / "docs" / "how-to.md").read_text(encoding="utf-8").partition("\n## Use it from Agent Framework\n")[2]
    code = next(found["code"] for found in BLOCK.finditer(page) if f'model="{asker}"' in found["code"])
    host = AgentFrameworkHost(mailer() if asker == "mailer" else build_refunds, channels=[ResponsesChannel()])

    async with live.serve(host.app) as served:
        names: dict[str, Any] = {}
        exec(code.replace("http://127.0.0.1:8000", served.base_url).replace("asyncio.run(main())", ""), names)
        await names["main"]()
        await names["client"].client.close()

    told = [line for line in code.splitlines() if line.startswith("# ")]
    assert [f"# {line}" for line in capsys.readouterr().out.splitlines()] == told != []


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
