"""`afhost runs …` beside hosts that run and that do not, on real databases of both kinds."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import live
import psycopg
import pytest
import wire
from nursery import nursery
from states import State

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.cli import main
from agent_framework_hosting.isolation import IsolationKeys
from agent_framework_hosting.state import DATABASE_VARIABLE
from agent_framework_hosting.testing.agents import AgentStep, Gate, ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel

SECONDS = 60.0
SECRET = "the aubergine is in the safe"
ADA = {"x-agent-user-isolation-key": "ada"}
ADAS = IsolationKeys("ada").partition


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)


def place_of(state: State) -> list[str]:
    if state.kind == "sqlite":
        return ["--state-dir", str(state.directory)]
    return ["--database-url", str(state.options["database_url"])]


@pytest.fixture
def place(durable_state: State) -> Sequence[str]:
    return place_of(durable_state)


@pytest.fixture
def postgres_state(postgres_url: str) -> State:
    return State("postgres", {"database_url": postgres_url})


@asynccontextmanager
async def serving(state: State, *turns: Sequence[AgentStep], **options: Any) -> AsyncGenerator[live.LiveHost, None]:
    host = AgentFrameworkHost(
        ScriptedAgent(*turns),
        channels=[ResponsesChannel(response_id_factory=options.pop("response_id_factory", None))],
        trust_isolation_headers=True,
        shutdown_grace=0,
        **state.options,
        **options,
    )
    async with live.serve(host.app) as served:
        yield served


class Operator:
    """Runs the command in a thread, as it runs in a process of its own; reads what it says."""

    def __init__(self, capsys: pytest.CaptureFixture[str], place: Sequence[str]) -> None:
        self._capsys = capsys
        self._place = place
        self.said = ""

    async def asks(self, action: str, *arguments: str) -> tuple[int, str]:
        """Return the exit code, and what is written to either stream."""
        self._capsys.readouterr()
        code = await asyncio.to_thread(main, ["runs", action, *self._place, *arguments])
        written = self._capsys.readouterr()
        text = written.out + written.err
        assert "Traceback" not in text
        assert code == 0 or (written.out == "" and text.count("\n") == 1)
        self.said += text
        return code, text

    async def reads(self, action: str, *arguments: str) -> Any:
        code, text = await self.asks(action, *arguments, "--json")
        assert code == 0, text
        return json.loads(text)

    async def ids(self, *arguments: str) -> list[str]:
        return [run["id"] for run in (await self.reads("list", *arguments))["runs"]]


async def accepted(served: live.LiveHost, **headers: str) -> str:
    body = {"model": "a", "input": SECRET, "background": True}
    answer = await served.http.post("/v1/responses", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def ended(served: live.LiveHost, response_id: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the status of a response once its events have ended, and the events."""
    answer = await served.http.get(f"/v1/responses/{response_id}?stream=true", timeout=SECONDS)
    told = wire.parse_sse(answer.content)
    wire.check_stream(told)
    stored = (await served.http.get(f"/v1/responses/{response_id}")).json()
    assert told[-1]["response"] == stored
    return stored["status"], told


def forget_jobs(state: State, condition: str = "true") -> None:
    with psycopg.connect(str(state.options["database_url"]), autocommit=True) as connection:
        connection.execute(f"DELETE FROM procrastinate_jobs WHERE {condition}".encode())


# --- list and show


async def test_runs_are_listed_by_status_age_and_partition_and_never_with_their_text(
    durable_state: State, place: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    operator, gate = Operator(capsys, place), Gate()
    async with serving(durable_state, [SECRET], [ValueError(SECRET)], [gate, SECRET]) as served:
        completed = await accepted(served)
        await ended(served, completed)
        failed = await accepted(served)
        await ended(served, failed)
        running = await accepted(served, **ADA)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)

        assert await operator.ids() == [running]
        assert await operator.ids("--status", "all") == [running, failed, completed]
        assert await operator.ids("--status", "failed", "--status", "completed") == [failed, completed]
        assert await operator.ids("--status", "all", "--partition", ADAS) == [running]
        assert await operator.ids("--status", "all", "--partition", "") == [failed, completed]
        assert await operator.ids("--older-than", "1h") == []
        assert await operator.ids("--partition", "no\0body") == []
        limited = await operator.reads("list", "--status", "all", "--limit", "2")
        _, table = await operator.asks("list", "--status", "all", "--limit", "2")
        seen = await operator.reads("show", running)
        _, page = await operator.asks("show", running)
        broken = await operator.reads("show", failed)

    assert ([run["id"] for run in limited["runs"]], limited["has_more"]) == ([running, failed], True)
    assert [line.split()[0] for line in table.splitlines()] == ["run", running, failed, "There"]
    is_shared = durable_state.kind == "postgres"
    assert seen["owner_is_alive"] is (True if is_shared else None)
    assert (seen["job"] or {}).get("status") == ("doing" if is_shared else None)
    assert (seen["status"], seen["attempt"], seen["partition"]) == ("in_progress", 1, ADAS)
    assert seen["log"] == {"events": 3, "is_closed": False}
    assert f"partition    {ADAS}\n" in page
    assert seen["model"] is None
    assert "model        - (the only one)\n" in page
    assert "events told  3, going on\n" in page
    assert broken["error"] == "server_error: The agent failed to answer."
    assert broken["log"]["is_closed"]
    assert SECRET not in operator.said


async def test_runs_say_which_of_several_models_they_are_of(
    durable_state: State, place: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator(capsys, place)
    targets = {name: ScriptedAgent([SECRET]) for name in ("writer", "critic")}
    host = AgentFrameworkHost(targets, channels=[ResponsesChannel()], **durable_state.options)
    async with live.serve(host.app) as served:
        made = await served.client.responses.create(model="critic", input=SECRET)
        runs = (await operator.reads("list", "--status", "all"))["runs"]
        _, table = await operator.asks("list", "--status", "all")
        _, page = await operator.asks("show", made.id)

    assert [run["model"] for run in runs] == ["critic"]
    assert table.splitlines()[1].split()[-1] == "critic"
    assert "model        critic\n" in page
    assert SECRET not in operator.said


async def test_the_owner_of_what_a_stopped_process_has_left_is_dead(
    postgres_state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator(capsys, place_of(postgres_state))
    async with serving(postgres_state, run_concurrency=0) as served:
        waiting = await accepted(served)
        alive = await operator.reads("show", waiting)

    dead = await operator.reads("show", waiting)
    _, table = await operator.asks("list")
    assert [alive["owner_is_alive"], dead["owner_is_alive"]] == [True, False]
    assert [alive["status"], alive["job"]["status"], alive["attempt"]] == ["queued", "todo", 0]
    assert " dead " in table
    assert " waits" in table


@pytest.mark.parametrize("action", ["show", "cancel", "retry"])
@pytest.mark.parametrize("name", ["resp_unknown", "no\x1b[31mid\0"])
async def test_an_unknown_run_is_named_in_one_line(
    action: str, name: str, durable_state: State, place: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(durable_state):
        pass

    code, text = await Operator(capsys, place).asks(action, name)

    assert code == 1
    assert text.startswith("afhost: There is no run ")
    assert "\x1b" not in text


async def test_of_two_users_with_the_same_id_one_must_be_named(
    postgres_state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator(capsys, place_of(postgres_state))
    async with serving(postgres_state, run_concurrency=0, response_id_factory=lambda: "resp_order_7") as served:
        for headers in ({}, ADA):
            await accepted(served, **headers)

    code, text = await operator.asks("cancel", "resp_order_7")
    named = await operator.asks("cancel", "resp_order_7", "--partition", ADAS)

    assert code == 1
    assert f"one of {ADAS!r}, ''" in text or f"one of '', {ADAS!r}" in text
    assert named == (0, "resp_order_7 cancelled\n")
    assert [run["partition"] for run in (await operator.reads("list"))["runs"]] == [""]


# --- cancel


@pytest.mark.behaviour("D4")
async def test_cancel_stops_the_agent_in_another_process_and_the_response_ends_as_cancelled(
    postgres_state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    operator, gate = Operator(capsys, place_of(postgres_state)), Gate()
    async with serving(postgres_state, ["begun", gate, "late"]) as served:
        running = await accepted(served)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)

        cancelled = await operator.asks("cancel", running)
        again = await operator.asks("cancel", running)
        status, told = await ended(served, running)

    assert cancelled == (0, f"{running} cancelled\n")
    assert again[0] == 1
    assert "has ended: cancelled" in again[1]
    assert status == "cancelled"
    assert "begun" in json.dumps(told)


@pytest.mark.behaviour("D4")
async def test_cancel_ends_a_run_of_which_nobody_alive_knows(
    postgres_state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator(capsys, place_of(postgres_state))
    async with serving(postgres_state, run_concurrency=0) as served:
        waiting, lost = await accepted(served), await accepted(served)
    forget_jobs(postgres_state, f"args->>'run_id' = '{lost}'")

    assert await operator.asks("cancel", waiting) == (0, f"{waiting} cancelled\n")
    assert await operator.asks("cancel", lost) == (0, f"{lost} cancelled\n")

    async with serving(postgres_state, ["never"]) as served:
        assert [(await ended(served, name))[0] for name in (waiting, lost)] == ["cancelled"] * 2
    assert await operator.ids() == []


@pytest.mark.behaviour("D4")
def test_cancel_of_a_run_in_sqlite_is_the_servers_until_it_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator(capsys, ["--state-dir", str(tmp_path / "state")])
    with nursery() as servers:
        url = servers.start(target="held", held_in=tmp_path / "held", name="one", state_dir=tmp_path / "state")
        body = {"input": "q", "background": True}
        running = httpx2.post(f"{url}/v1/responses", json=body, trust_env=False).json()["id"]

        refused = asyncio.run(operator.asks("cancel", running))
        servers.kill()
        cancelled = asyncio.run(operator.asks("cancel", running))

        url = servers.start(target="agent", state_dir=tmp_path / "state")
        stored = httpx2.get(f"{url}/v1/responses/{running}", trust_env=False).json()
        told = wire.parse_sse(httpx2.get(f"{url}/v1/responses/{running}?stream=true", trust_env=False).content)

    assert refused[0] == 1
    assert "cancel it there" in refused[1]
    assert cancelled == (0, f"{running} cancelled\n")
    wire.check_stream(told)
    assert told[-1]["response"] == stored
    assert stored["status"] == "cancelled"


async def test_a_foreground_run_is_its_callers(
    durable_state: State, place: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    operator, gate = Operator(capsys, place), Gate()
    async with serving(durable_state, [gate, "late"]) as served:
        stream: Any = await served.client.responses.create(model="a", input=SECRET, stream=True)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        (running,) = await operator.ids()

        refused = [await operator.asks(action, running) for action in ("cancel", "retry")]
        gate.open()
        events = [event async for event in stream]

    assert [code for code, _ in refused] == [1, 1]
    assert all("is no background run" in text for _, text in refused)
    assert events[-1].type == "response.completed"


# --- retry


async def test_retry_has_a_run_without_a_job_executed(
    postgres_state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator(capsys, place_of(postgres_state))
    async with serving(postgres_state, run_concurrency=0) as served:
        stuck = await accepted(served)
        waits = await operator.asks("retry", stuck)
        forget_jobs(postgres_state)
        none_is_alive = served

        retried = await operator.asks("retry", stuck)
        async with serving(postgres_state, ["hello"]) as other:
            status, _ = await ended(other, stuck)

    del none_is_alive
    assert waits[0] == 1
    assert "is in the queue already" in waits[1]
    assert retried == (0, f"{stuck} will be taken over by one of the processes that are alive\n")
    assert status == "completed"


async def test_retry_says_that_nobody_is_alive(postgres_state: State, capsys: pytest.CaptureFixture[str]) -> None:
    operator = Operator(capsys, place_of(postgres_state))
    async with serving(postgres_state, run_concurrency=0) as served:
        stuck = await accepted(served)
    forget_jobs(postgres_state)

    retried = await operator.asks("retry", stuck)
    async with serving(postgres_state, ["hello"]) as other:
        status, _ = await ended(other, stuck)

    assert retried == (0, f"{stuck} will be taken over when a process is started: none is alive\n")
    assert status == "completed"


async def test_retry_leaves_alone_what_runs_and_what_has_ended(
    postgres_state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    operator, gate = Operator(capsys, place_of(postgres_state)), Gate()
    async with serving(postgres_state, ["begun", gate, " and ended"]) as served:
        running = await accepted(served)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        alive = await operator.asks("retry", running)
        gate.open()
        status, _ = await ended(served, running)
        over = await operator.asks("retry", running)

    assert alive[0] == over[0] == 1
    assert "which is alive" in alive[1]
    assert "has ended: completed. What has ended never changes" in over[1]
    assert status == "completed"


async def test_retry_of_a_run_that_goes_on_in_sqlite_does_it_no_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, gate = State("sqlite", {"state_dir": tmp_path / "state"}), Gate()
    operator = Operator(capsys, place_of(state))
    async with serving(state, ["begun", gate, " and ended"]) as served:
        running = await accepted(served)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)

        code, text = await operator.asks("retry", running)
        gate.open()
        status, told = await ended(served, running)

    assert (code, text) == (
        0,
        f"{running} will be taken over by the server that uses the database, or that is started next\n",
    )
    assert status == "completed"
    assert "begun and ended" in json.dumps(told[-1])


# --- the command itself


def test_the_command_is_installed(postgres_url: str) -> None:
    afhost = Path(sys.executable).with_name("afhost")

    listed = subprocess.run(
        [afhost, "runs", "list", "--database-url", postgres_url], capture_output=True, text=True, timeout=60, check=True
    )
    unknown = subprocess.run(
        [afhost, "runs", "show", "resp_1", "--database-url", postgres_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert listed.stdout.split()[:3] == ["run", "status", "attempt"]
    assert (unknown.returncode, unknown.stderr) == (1, "afhost: There is no run resp_1.\n")


@pytest.mark.parametrize("action", [["list"], ["show", "r"], ["cancel", "r"], ["retry", "r"]])
def test_a_database_that_cannot_be_used_is_named_in_one_line(
    action: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = [
        main(["runs", *action, "--state-dir", str(tmp_path)]),
        main(["runs", *action, "--database-url", "postgresql://u:SECRET@127.0.0.1:1/app"]),
    ]

    text = capsys.readouterr().err
    assert codes == [2, 2]
    assert "There is no database in" in text
    assert "cannot be reached" in text
    assert "SECRET" not in text
