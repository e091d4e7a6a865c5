import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from agent_framework import (
    Agent,
    AgentResponseUpdate,
    AgentSession,
    Content,
    Executor,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

import agent_framework_hosting
from agent_framework_hosting import (
    ISOLATION_HEADER_USER,
    AgentFrameworkHost,
    Channel,
    ChannelContext,
    ChannelContribution,
    ChannelRequest,
    ChannelSession,
    ConfigurationError,
    IsolationKeys,
    LifecycleCallback,
    TargetInput,
    get_current_isolation_keys,
    reset_current_isolation_keys,
    set_current_isolation_keys,
)
from agent_framework_hosting.targets.base import TargetKind
from agent_framework_hosting.testing.agents import ScriptedAgent, ScriptedChatClient


class AskChannel:
    """`POST path` with a text: runs the target on the session that the header `x-session` names."""

    def __init__(
        self,
        name: str = "ask",
        path: str = "/ask",
        *,
        on_startup: Sequence[LifecycleCallback] = (),
        on_shutdown: Sequence[LifecycleCallback] = (),
    ) -> None:
        self.name = name
        self.path = path
        self._on_startup = on_startup
        self._on_shutdown = on_shutdown

    def contribute(self, context: ChannelContext) -> ChannelContribution:
        async def ask(request: Request) -> Response:
            session = request.headers.get("x-session")
            result = await context.run(
                ChannelRequest(
                    channel=self.name,
                    operation="ask",
                    input=(await request.body()).decode(),
                    session=ChannelSession(session) if session else None,
                )
            )
            return PlainTextResponse(result.result.text, headers={"x-keys": repr(get_current_isolation_keys())})

        return ChannelContribution(
            routes=[Route("/", ask, methods=["POST"])], on_startup=self._on_startup, on_shutdown=self._on_shutdown
        )


class CountingAgent(ScriptedAgent):
    """Says how often its session was used."""

    def run(self, messages: object = None, **kwargs: Any) -> Any:
        session = kwargs["session"]
        session.state["turns"] = session.state.get("turns", 0) + 1

        async def updates() -> AsyncGenerator[AgentResponseUpdate, None]:
            yield AgentResponseUpdate(contents=[Content.from_text(str(session.state["turns"]))], role="assistant")

        return updates()


class Upper(Executor):
    @handler
    async def shout(self, text: list[Any], context: WorkflowContext[Any, str]) -> None:
        await context.yield_output("".join(str(getattr(part, "text", part)) for part in text).upper())

    @handler
    async def shout_text(self, text: str, context: WorkflowContext[Any, str]) -> None:
        await context.yield_output(text.upper())


def new_workflow() -> Workflow:
    upper = Upper(id="upper")
    return WorkflowBuilder(start_executor=upper, output_from=[upper]).build()


def client_of(app: Any, **options: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://host", **options)


async def ask(
    host: Any, text: str = "hi", *, path: str = "/ask", headers: dict[str, str] | None = None
) -> httpx2.Response:
    async with client_of(host) as client:
        return await client.post(path, content=text, headers=headers)


def new_host(target: Any = None, **options: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(target or ScriptedAgent(["hello"]), channels=[AskChannel()], **options)


# --- targets


async def test_three_lines_serve_an_agent() -> None:
    agent = Agent(client=ScriptedChatClient(["Hello ", "you"]), name="greeter")
    host = AgentFrameworkHost(agent, channels=[AskChannel()])
    async with host.lifespan():
        answer = await ask(host.app)

    assert answer.text == "Hello you"
    assert host.target.kind == "agent"


@pytest.mark.parametrize("target", [new_workflow(), new_workflow])
async def test_a_workflow_or_a_function_that_builds_one_is_served(target: Workflow | Callable[[], Workflow]) -> None:
    host = new_host(target)

    async with host.lifespan():
        answer = await ask(host, "loud")

    assert answer.text == "LOUD"
    assert host.target.kind == "workflow"


async def test_a_target_of_ones_own_is_served() -> None:
    class Parrot:
        name = "parrot"
        kind: TargetKind = "agent"
        hosted: object = None

        async def stream(self, run: TargetInput) -> AsyncGenerator[AgentResponseUpdate, None]:
            messages = cast("list[Any]", run.messages)
            yield AgentResponseUpdate(contents=[Content.from_text(messages[-1].text)], role="assistant")

        def new_session(self) -> AgentSession:
            return AgentSession()

        def server_tools(self) -> frozenset[str]:
            return frozenset()

    parrot = Parrot()
    host = new_host(parrot)

    assert host.target is parrot
    assert (await ask(host, "polly")).text == "polly"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "The target is a int: pass an agent, a Workflow, or a function"),
        (ScriptedAgent, "The target is the class ScriptedAgent: pass an instance"),
        (WorkflowBuilder(start_executor=Upper(id="u")), "Call its build"),
    ],
)
def test_what_cannot_be_hosted_is_refused_with_what_to_change(target: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        new_host(target)


def test_checkpoints_of_an_agent_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="checkpoint_location is for workflows, and the target is an agent"):
        new_host(checkpoint_location=tmp_path)


@pytest.mark.parametrize("state_dir", ["state", Path("state"), {"sessions": "here"}, {}])
def test_a_state_dir_is_refused_until_there_is_durable_state(state_dir: Any) -> None:
    with pytest.raises(ConfigurationError, match="not available yet in this version"):
        new_host(state_dir=state_dir)


def test_a_negative_grace_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="shutdown_grace"):
        new_host(shutdown_grace=-1)


# --- channels


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([], "has no channels"),
        ([AskChannel(), AskChannel(path="/other")], "Two channels are named 'ask'"),
        ([AskChannel(path="ask")], "must start with '/'"),
        ([AskChannel(path="/ask/")], "not end with it"),
        ([AskChannel(path="/")], "an empty path is the root"),
        ([AskChannel], "pass instances"),
        (["ask"], "is no channel"),
    ],
)
def test_channels_that_do_not_fit_are_refused_with_what_to_change(channels: list[Channel], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AgentFrameworkHost(ScriptedAgent(), channels=channels)


def test_two_channels_with_the_same_route_are_refused_when_the_app_is_built() -> None:
    host = AgentFrameworkHost(ScriptedAgent(), channels=[AskChannel("a"), AskChannel("b")])

    with pytest.raises(ConfigurationError, match="Channel 'b' answers /ask, which Channel 'a' answers already"):
        _ = host.app


def test_the_app_is_built_once() -> None:
    host = new_host()

    assert host.app is host.app


async def test_channels_share_the_target_and_its_sessions() -> None:
    channels = [AskChannel("a", "/a"), AskChannel("b", "/b")]
    host = AgentFrameworkHost(CountingAgent(), channels=channels)

    first = await ask(host, path="/a", headers={"x-session": "s"})
    second = await ask(host, path="/b", headers={"x-session": "s"})

    assert [first.text, second.text] == ["1", "2"]


# --- sessions


async def test_a_reset_session_starts_anew() -> None:
    host = new_host(CountingAgent())
    session = {"x-session": "s"}
    assert [(await ask(host, headers=session)).text for _ in range(2)] == ["1", "2"]

    assert await host.reset_session("s")

    assert (await ask(host, headers=session)).text == "1"
    assert not await host.reset_session("unknown")


@pytest.mark.behaviour("E2")
async def test_a_reset_touches_only_the_partition_it_is_for() -> None:
    host = new_host(CountingAgent(), trust_isolation_headers=True)
    ada = {"x-session": "s", ISOLATION_HEADER_USER: "ada"}
    await ask(host, headers=ada)

    assert not await host.reset_session("s")
    assert not await host.reset_session("s", isolation_keys=IsolationKeys("bob"))
    assert (await ask(host, headers=ada)).text == "2"
    assert await host.reset_session("s", isolation_keys=IsolationKeys("ada"))
    assert (await ask(host, headers=ada)).text == "1"


async def test_a_reset_inside_of_a_request_is_for_its_caller() -> None:
    host = new_host(CountingAgent(), trust_isolation_headers=True)
    await ask(host, headers={"x-session": "s", ISOLATION_HEADER_USER: "ada"})

    token = set_current_isolation_keys(IsolationKeys("ada"))
    was_there = await host.reset_session("s")
    reset_current_isolation_keys(token)

    assert was_there


# --- isolation


@pytest.mark.behaviour("E3")
async def test_identity_headers_are_ignored_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOUNDRY_HOSTING_ENVIRONMENT", raising=False)

    answer = await ask(new_host(), headers={ISOLATION_HEADER_USER: "ada"})

    assert answer.headers["x-keys"] == "None"


@pytest.mark.behaviour("E3")
@pytest.mark.parametrize(
    ("environment", "argument", "is_trusted"),
    [("", None, False), ("hosted", None, True), ("hosted", False, False), ("", True, True)],
)
async def test_the_operator_says_whether_the_sender_of_the_headers_is_trusted(
    monkeypatch: pytest.MonkeyPatch, environment: str, *, argument: bool | None, is_trusted: bool
) -> None:
    monkeypatch.setenv("FOUNDRY_HOSTING_ENVIRONMENT", environment)

    answer = await ask(new_host(trust_isolation_headers=argument), headers={ISOLATION_HEADER_USER: "ada"})

    assert answer.headers["x-keys"] == repr(IsolationKeys("ada") if is_trusted else None)


@pytest.mark.behaviour("E5")
async def test_concurrent_requests_run_under_their_own_keys() -> None:
    host = new_host(trust_isolation_headers=True)
    names = [f"user {number}" for number in range(20)]

    answers = await asyncio.gather(*(ask(host, headers={ISOLATION_HEADER_USER: name}) for name in names))

    assert [answer.headers["x-keys"] for answer in answers] == [repr(IsolationKeys(name)) for name in names]


# --- lifespan and mounting


@pytest.mark.behaviour("G8")
async def test_callbacks_of_all_channels_run_in_order_and_stop_in_reverse_order() -> None:
    lines: list[str] = []

    def note(line: str) -> LifecycleCallback:
        return lambda: lines.append(line)

    channels = [
        AskChannel(name, f"/{name}", on_startup=[note(f"start {name}")], on_shutdown=[note(f"stop {name}")])
        for name in ("a", "b")
    ]
    async with AgentFrameworkHost(ScriptedAgent(), channels=channels).lifespan():
        assert lines == ["start a", "start b"]

    assert lines == ["start a", "start b", "stop b", "stop a"]


@pytest.mark.behaviour("G8")
async def test_a_channel_that_fails_to_start_does_not_keep_the_others_from_it() -> None:
    lines: list[str] = []

    def fail() -> None:
        raise ValueError("no token")

    channels = [
        AskChannel("a", "/a", on_startup=[fail], on_shutdown=[lambda: lines.append("stop a")]),
        AskChannel("b", "/b", on_startup=[lambda: lines.append("start b")]),
    ]
    lifespan = AgentFrameworkHost(ScriptedAgent(), channels=channels).lifespan()

    with pytest.raises(ValueError, match="no token"):
        await lifespan.__aenter__()

    assert lines == ["start b", "stop a"]


@pytest.mark.behaviour("G7")
async def test_the_host_works_mounted_in_another_application_that_runs_its_lifespan() -> None:
    lines: list[str] = []
    host = AgentFrameworkHost(
        ScriptedAgent(["hello"]),
        channels=[
            AskChannel(on_startup=[lambda: lines.append("start")], on_shutdown=[lambda: lines.append("stop")]),
        ],
    )

    async def home(request: Request) -> Response:
        return PlainTextResponse("home")

    parent = Starlette(routes=[Route("/", home), Mount("/ai", app=host)], lifespan=host.lifespan)
    async with parent.router.lifespan_context(parent), client_of(parent) as client:
        started = list(lines)
        ready = await client.get("/ai/readiness")
        answer = await client.post("/ai/ask", content="hi")
        outside = await client.get("/")
        unknown = await client.get("/ai/nowhere")

    assert started == ["start"]
    assert ready.status_code == 200
    assert answer.text == "hello"
    assert outside.text == "home"
    assert "x-request-id" not in outside.headers
    assert unknown.status_code == 404
    assert lines == ["start", "stop"]


@pytest.mark.behaviour("G7")
async def test_keys_that_an_embedding_application_sets_are_kept() -> None:
    host = new_host()

    async def authenticate(scope: Any, receive: Any, send: Any) -> None:
        token = set_current_isolation_keys(IsolationKeys("by the parent"))
        try:
            await host(scope, receive, send)
        finally:
            reset_current_isolation_keys(token)

    assert (await ask(authenticate)).headers["x-keys"] == repr(IsolationKeys("by the parent"))


async def test_the_start_is_logged_with_target_and_channels(caplog: pytest.LogCaptureFixture) -> None:
    host = AgentFrameworkHost(ScriptedAgent(name="parrot"), channels=[AskChannel(), AskChannel("root", "")])

    with caplog.at_level(logging.INFO):
        async with host.lifespan():
            pass

    [record] = [record for record in caplog.records if record.getMessage() == "The host has started"]
    values = record.__dict__
    assert (values["target"], values["target_kind"]) == ("parrot", "agent")
    assert values["channels"] == {"ask": "/ask", "root": "/"}


def test_every_public_name_exists() -> None:
    for name in agent_framework_hosting.__all__:
        assert hasattr(agent_framework_hosting, name)
