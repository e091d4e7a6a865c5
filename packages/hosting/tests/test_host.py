import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
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
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from states import State

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
from agent_framework_hosting.checkpoints import FileCheckpoints
from agent_framework_hosting.retention import prune_all
from agent_framework_hosting.stores.base import Prunable, Retention, StoreStats
from agent_framework_hosting.stores.memory import MemorySessionStore
from agent_framework_hosting.targets.base import TargetKind
from agent_framework_hosting.targets.workflow import WorkflowTarget
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


def new_builder() -> WorkflowBuilder:
    upper = Upper(id="upper")
    return WorkflowBuilder(start_executor=upper, output_from=[upper])


def new_workflow() -> Workflow:
    return new_builder().build()


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


async def new_workflow_later() -> Workflow:
    await asyncio.sleep(0)
    return new_workflow()


@pytest.mark.parametrize("target", [new_workflow(), new_workflow, new_builder(), new_workflow_later])
async def test_a_workflow_and_what_makes_one_are_served(target: Any) -> None:
    host = new_host(target)

    async with host.lifespan():
        answer = await ask(host, "loud")

    assert answer.text == "LOUD"
    assert host.target.kind == "workflow"


class PickChannel:
    """Lets callers choose the target in a header."""

    name, path = "pick", "/pick"

    def contribute(self, context: ChannelContext) -> ChannelContribution:
        async def ask(request: Request) -> Response:
            wanted = request.headers.get("x-target")
            result = await context.run(
                ChannelRequest(
                    channel=self.name,
                    operation="ask",
                    input=(await request.body()).decode(),
                    session=ChannelSession("s") if "x-session" in request.headers else None,
                ),
                target=None if wanted is None else context.targets.named(wanted),
            )
            return PlainTextResponse(result.result.text)

        return ChannelContribution(routes=[Route("/", ask, methods=["POST"])])


async def pick(host: AgentFrameworkHost, target: str, **headers: str) -> str:
    return (await ask(host, "loud", path="/pick", headers={"x-target": target, **headers})).text


async def test_several_targets_are_served_under_the_names_they_are_given(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent_framework_hosting.app")
    targets: dict[str, Any] = {"agent": ScriptedAgent(["hello"]), "shout": new_workflow, "later": new_workflow_later}
    host = AgentFrameworkHost(targets, channels=[PickChannel()])

    async with host.lifespan():
        answers = [await pick(host, name) for name in targets]

    assert answers == ["hello", "LOUD", "LOUD"]
    assert [served.name for served in host.targets] == list(targets)
    (started,) = [record for record in caplog.records if record.message == "The host has started"]
    assert started.__dict__["targets"] == {"agent": "agent", "shout": "workflow", "later": "workflow"}
    with pytest.raises(ConfigurationError, match=r"see host\.targets"):
        _ = host.target


async def test_who_has_several_targets_must_say_which_is_to_run() -> None:
    host = AgentFrameworkHost({"a": ScriptedAgent(["hello"]), "b": ScriptedAgent(["hello"])}, channels=[PickChannel()])

    with pytest.raises(ConfigurationError, match="say with target"):
        await ask(host, path="/pick")


async def test_targets_have_named_sessions_of_their_own_which_a_reset_forgets_together() -> None:
    host = AgentFrameworkHost({"a": CountingAgent(), "b": CountingAgent()}, channels=[PickChannel()])
    named = {"x-session": "yes"}

    turns = [await pick(host, name, **named) for name in ("a", "a", "b", "a", "b")]
    was_there = [await host.reset_session("s"), await host.reset_session("s")]

    assert turns == ["1", "2", "1", "3", "2"]
    assert was_there == [True, False]
    assert [await pick(host, name, **named) for name in ("a", "b")] == ["1", "1"]


async def test_workflows_among_several_targets_keep_their_checkpoints_in_one_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    targets: dict[str, Any] = {"one": new_workflow, "agent": ScriptedAgent(["hello"]), "two": new_workflow}
    host = AgentFrameworkHost(targets, channels=[PickChannel()], checkpoint_location=tmp_path / "checkpoints")

    places = {served.target.checkpoints for served in host.targets if isinstance(served.target, WorkflowTarget)}

    assert len(places) == 1
    assert not caplog.records
    AgentFrameworkHost({"a": ScriptedAgent(["hello"])}, channels=[PickChannel()], checkpoint_location=tmp_path)
    assert "there is none among the targets: it is not used" in caplog.text


async def test_an_async_function_that_fails_keeps_the_host_from_starting(tmp_path: Path) -> None:
    async def failing() -> Workflow:
        raise ValueError("no such model")

    host = new_host(failing, state_dir=tmp_path / "state")

    with pytest.raises(ConfigurationError, match="The workflow factory failed: ValueError: no such model"):
        async with host.lifespan():
            pass
    assert not (tmp_path / "state").exists()


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


def by_key(request: Request) -> str:
    if (key := request.headers.get("x-api-key")) is None:
        raise HTTPException(401, "Which key?")
    return f"owner of {key}"


@pytest.mark.behaviour("E1")
async def test_a_function_of_the_operator_says_whose_a_request_is() -> None:
    host = new_host(CountingAgent(), resolve_partition=by_key)
    ada, bob = ({"x-session": "s", "x-api-key": key} for key in ("a", "b"))

    answers = [await ask(host, headers=headers) for headers in (ada, ada, bob)]

    assert [answer.text for answer in answers] == ["1", "2", "1"]
    assert answers[0].headers["x-keys"] == repr(IsolationKeys("owner of a"))
    assert await host.reset_session("s", isolation_keys=IsolationKeys("owner of a"))


@pytest.mark.behaviour("E3")
@pytest.mark.parametrize("environment", ["", "hosted"])
async def test_beside_a_function_headers_play_no_part_even_where_they_are_trusted(
    monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    monkeypatch.setenv("FOUNDRY_HOSTING_ENVIRONMENT", environment)

    answer = await ask(new_host(resolve_partition=by_key), headers={"x-api-key": "a", ISOLATION_HEADER_USER: "mallory"})

    assert answer.headers["x-keys"] == repr(IsolationKeys("owner of a"))


@pytest.mark.behaviour("E3")
async def test_who_is_not_known_gets_no_further_than_the_probes() -> None:
    host = new_host(resolve_partition=by_key)

    async with host.lifespan(), client_of(host) as client:
        refused = await client.post("/ask", content="hi")
        unknown = await client.get("/nowhere")
        probes = [await client.get(path) for path in ("/readiness", "/liveness")]

    assert refused.status_code == unknown.status_code == 401
    assert refused.text == "Which key?"
    assert [probe.status_code for probe in probes] == [200, 200]


@pytest.mark.behaviour("E3")
@pytest.mark.parametrize("returned", [None, "", IsolationKeys()])
async def test_a_function_that_names_nobody_never_opens_what_is_everybodys(returned: Any) -> None:
    host = new_host(CountingAgent(), resolve_partition=lambda _: returned)

    answer = await ask(host, headers={"x-session": "s"})

    assert answer.status_code == 500
    assert not await host.reset_session("s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolve_partition": by_key, "trust_isolation_headers": True}, "leave one out"),
        ({"resolve_partition": "ada"}, "must be a function"),
    ],
)
def test_two_answers_to_whose_a_request_is_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        new_host(**options)


# --- state


class StatefulChannel(AskChannel):
    """An `AskChannel` with a store of its own, that writes down what it finds when it starts and stops."""

    def __init__(self, store: Prunable | None = None) -> None:
        super().__init__()
        self.contexts: list[ChannelContext] = []
        self.found: list[object] = []
        self._store = store

    def contribute(self, context: ChannelContext) -> ChannelContribution:
        self.contexts.append(context)
        if self._store is not None:
            context.keep_pruned(self._store)

        async def look() -> None:
            assert context.database is not None
            self.found.append(
                await context.database.run(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
            )

        contribution = super().contribute(context)
        if context.database is None:
            return contribution
        return replace(contribution, on_startup=[look], on_shutdown=[look])


async def test_named_sessions_survive_a_restart(state: State) -> None:
    texts = []
    for _ in range(2):
        host = new_host(CountingAgent(), **state.options)
        async with host.lifespan():
            texts += [(await ask(host, headers={"x-session": "s"})).text for _ in range(2)]

    assert texts == (["1", "2", "3", "4"] if state.is_durable else ["1", "2", "1", "2"])


async def test_a_reset_survives_a_restart(durable_state: State) -> None:
    for is_reset in (True, False):
        host = new_host(CountingAgent(), **durable_state.options)
        async with host.lifespan():
            text = (await ask(host, headers={"x-session": "s"})).text
            if is_reset:
                assert await host.reset_session("s")

    assert text == "1"


async def test_one_host_may_be_started_again(durable_state: State) -> None:
    host = new_host(CountingAgent(), **durable_state.options)
    texts = []
    for _ in range(2):
        async with host.lifespan():
            texts.append((await ask(host, headers={"x-session": "s"})).text)

    assert texts == ["1", "2"]


async def test_channels_find_the_database_open_when_they_start_and_when_they_stop(state: State) -> None:
    channel = StatefulChannel()
    host = AgentFrameworkHost(ScriptedAgent(), channels=[channel], **state.options)

    async with host.lifespan():
        pass

    [context] = channel.contexts
    assert (context.database is not None) == (context.presence is not None) == state.is_durable
    assert context.owner
    assert channel.found == ([1, 1] if state.is_durable else [])


@pytest.mark.behaviour("G6")
async def test_a_second_host_on_one_file_does_not_start(tmp_path: Path) -> None:
    first, second = (new_host(CountingAgent(), state_dir=tmp_path) for _ in range(2))

    async with first.lifespan():
        with pytest.raises(ConfigurationError, match="in use by another process"):
            await second.lifespan().__aenter__()
        async with client_of(second) as client:
            assert (await client.get("/readiness")).status_code == 503
        assert (await ask(first, headers={"x-session": "s"})).text == "1"
    async with second.lifespan():
        assert (await ask(second, headers={"x-session": "s"})).text == "2"


async def test_stores_of_channels_are_pruned_while_the_host_runs() -> None:
    is_pruned = asyncio.Event()

    class Store:
        async def prune(self, *, limit: int) -> int:
            is_pruned.set()
            return 0

        async def stats(self) -> StoreStats:
            return StoreStats(name="own", entries=0, bytes=0, oldest=None)

    host = AgentFrameworkHost(ScriptedAgent(), channels=[StatefulChannel(Store())])
    async with host.lifespan(), asyncio.timeout(60):
        await is_pruned.wait()

    assert not [task for task in asyncio.all_tasks() if task.get_name() == "prune stores"]


async def test_sessions_may_be_kept_by_a_store_of_ones_own() -> None:
    store = MemorySessionStore()
    texts = []
    for _ in range(2):
        host = new_host(CountingAgent(), session_store=store)
        texts.append((await ask(host, headers={"x-session": "s"})).text)

    assert texts == ["1", "2"]


async def test_what_retention_forgets_is_a_new_session(tmp_path: Path) -> None:
    host = new_host(CountingAgent(), retention=Retention(max_entries=1))

    texts = [(await ask(host, headers={"x-session": name})).text for name in ("a", "a", "b", "a")]

    assert texts == ["1", "2", "1", "1"]


@pytest.mark.parametrize(
    ("options_of", "place"),
    [
        (lambda path: {"checkpoint_location": path / "here"}, "here"),
        (lambda path: {"checkpoint_location": path / "here", "state_dir": path / "state"}, "here"),
        (lambda path: {"state_dir": {"checkpoints": path / "there"}}, "there"),
        (lambda path: {"state_dir": path / "state"}, "state/checkpoints"),
        (lambda path: {"state_dir": {"sessions": path / "state"}}, None),
    ],
)
async def test_checkpoints_of_a_workflow_go_where_the_options_say(
    options_of: Callable[[Path], dict[str, Any]], place: str | None, tmp_path: Path
) -> None:
    host = new_host(new_workflow(), **options_of(tmp_path))
    async with host.lifespan():
        answer = await ask(host, "loud", headers={"x-session": "s"})

    files = list(tmp_path.rglob("*.json"))
    assert answer.text == "LOUD"
    assert bool(files) == (place is not None)
    assert all(file.is_relative_to(tmp_path / (place or "")) for file in files)


async def test_a_place_that_a_workflow_target_has_brought_is_pruned_too(tmp_path: Path) -> None:
    old = Retention(max_entries=0)
    places: list[Any] = [FileCheckpoints(tmp_path / "one", retention=old), FileCheckpoints(tmp_path / "two")]
    targets = [WorkflowTarget(new_workflow(), checkpoints=place) for place in places]
    host = new_host(dict(zip(("one", "two"), targets, strict=True)))

    assert all(place in host._state.pruner._stores for place in places)


async def test_what_a_workflow_has_left_is_forgotten_when_agents_alone_are_served(tmp_path: Path) -> None:
    options: dict[str, Any] = {"state_dir": {"checkpoints": tmp_path}, "retention": Retention(max_entries=0)}
    before = new_host(new_workflow(), **options)
    async with before.lifespan():
        await ask(before, "loud", headers={"x-session": "s"})
    left = list(tmp_path.rglob("*.json"))

    host = new_host(**options)
    for store in host._state.pruner._stores:
        await prune_all(store)

    assert left
    assert list(tmp_path.rglob("*.json")) == []


async def test_a_directory_of_checkpoints_is_no_mistake_for_an_agent(tmp_path: Path) -> None:
    host = new_host(state_dir={"checkpoints": tmp_path / "checkpoints"})

    async with host.lifespan():
        assert (await ask(host)).text == "hello"

    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_dir": {"session": "x"}}, "has the key 'session'"),
        ({"state_dir": "x", "database_url": "postgresql:///app"}, "leave one out"),
        ({"database_url": "mysql:///app"}, "use postgresql"),
        ({"allowed_checkpoint_types": "app:State"}, "allowed_checkpoint_types has 'app:State'"),
        ({"target": new_workflow(), "checkpoint_location": 3}, "checkpoint_location must be the path"),
    ],
)
def test_options_of_state_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        new_host(**options)


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
    assert values["targets"] == {"parrot": "agent"}
    assert values["channels"] == {"ask": "/ask", "root": "/"}
    assert values["state"] == "memory"


def test_every_public_name_exists() -> None:
    for name in agent_framework_hosting.__all__:
        assert hasattr(agent_framework_hosting, name)
