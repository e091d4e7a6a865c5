"""SIGTERM in the middle of streams, background runs and queued runs: real processes, on every engine."""

from __future__ import annotations

import signal
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import wire
from commands import PATIENCE, Command, Commands, Held, accept, asked, ended, replayed, streamed, texts, until, whole
from states import State

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def opened() -> Generator[ExitStack, None, None]:
    """What is closed after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def callers() -> Generator[ThreadPoolExecutor, None, None]:
    """Who wait for their answers beside the test."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def held(commands: Commands, state: State, tmp_path: Path) -> Held:
    """Processes on every kind of state."""
    return Held(commands, made(tmp_path), state)


@pytest.fixture
def shared(commands: Commands, postgres_url: str, tmp_path: Path) -> Held:
    """Processes on one PostgreSQL database."""
    return Held(commands, made(tmp_path), State("postgres", {"database_url": postgres_url}))


def made(directory: Path) -> Path:
    held = directory / "held"
    held.mkdir()
    return held


def red(server: Command) -> None:
    """Wait until readiness is red, as a load balancer does: over a new connection each time."""
    until(lambda: readiness(server) == 503, "Readiness stays green.")


def readiness(server: Command) -> int:
    """Ask for it over a connection of its own; 0 if none is accepted."""
    with server.client as client:
        try:
            return client.get("/readiness").status_code
        except httpx2.TransportError:
            return 0


@pytest.mark.behaviour("G2", "D6")
def test_on_sigterm_readiness_goes_red_nothing_new_is_run_and_what_runs_finishes(
    held: Held, callers: ThreadPoolExecutor, opened: ExitStack
) -> None:
    names = ["stream", "one-shot", "background", "background-stream"]
    with held.start("serve", "--grace", "600", "--notice", "1") as server:
        client = opened.enter_context(server.client)
        stream = callers.submit(streamed, server, "stream")
        one_shot = callers.submit(asked, server, "one-shot")
        background_stream = callers.submit(streamed, server, "background-stream", background=True)
        polled = accept(client, "background")
        follower = callers.submit(followed, server, polled["id"])
        held.until_begun(*names)

        server.send(signal.SIGTERM)
        red(server)
        server.until_said("The host is stopping")
        refusals = [refused(server, **options) for options in ({}, {"background": True}, {"stream": True})]
        held.release(*names)

        told = [answer.result(PATIENCE) for answer in (stream, background_stream, follower)]
        answer = one_shot.result(PATIENCE)
        code = server.until_ended()

    # One that is not alone does not even listen: a proxy asks another.
    assert refusals == [(0, None) if held.state.kind == "postgres" else (503, "1")] * 3
    assert held.beginners("late") == []
    for name, events in zip(["stream", "background-stream", "background"], told, strict=True):
        wire.check_stream(events)
        assert (events[-1]["type"], texts(events[-1]["response"])) == ("response.completed", [whole(name)])
    assert (answer.status_code, texts(answer.json())) == (200, [whole("one-shot")])
    assert code == -signal.SIGTERM
    if held.state.is_durable:
        with held.start("serve") as server, server.client as client:
            for events in told:
                assert client.get(f"/v1/responses/{events[-1]['response']['id']}").json() == events[-1]["response"]
            assert replayed(client, polled["id"]) == told[2]


def followed(server: Command, response_id: str) -> list[dict[str, Any]]:
    """Follow a response from its start to its end."""
    with server.client as client:
        return replayed(client, response_id)


def refused(server: Command, **options: Any) -> tuple[int, str | None]:
    """Return status and `Retry-After` of the answer to a new request; 0 if the connection is not accepted."""
    try:
        answer = asked(server, "late", **options)
    except httpx2.ConnectError:
        return 0, None
    wire.check_error(answer.json())
    return answer.status_code, answer.headers["retry-after"]


@pytest.mark.behaviour("G2")
def test_a_process_that_is_alone_can_be_asked_while_its_runs_finish(
    commands: Commands, tmp_path: Path, opened: ExitStack
) -> None:
    held = Held(commands, made(tmp_path), State("memory"))
    with held.start("serve", "--grace", "600") as server:
        client = opened.enter_context(server.client)
        running, cancelled = accept(client, "running"), accept(client, "cancelled")
        held.until_begun("running", "cancelled")
        server.send(signal.SIGTERM)
        server.until_said("The host is stopping")

        statuses = [client.get(f"/v1/responses/{running['id']}").json()["status"], readiness(server)]
        statuses.append(client.post(f"/v1/responses/{cancelled['id']}/cancel").json()["status"])
        refusal = client.post("/v1/responses", json={"input": "late"})  # over a connection that was open before
        held.release("running")
        server.until_ended()

    assert statuses == ["in_progress", 503, "cancelled"]
    assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "1")


@pytest.mark.behaviour("G2")
def test_during_the_notice_readiness_is_red_and_requests_are_served(shared: Held) -> None:
    shared.release("late")
    with shared.start("serve", "--notice", "600") as server:
        server.send(signal.SIGTERM)
        red(server)
        answer = asked(server, "late")
        server.send(signal.SIGINT)
        code = server.until_ended()

    assert (answer.status_code, texts(answer.json())) == (200, [whole("late")])
    assert code in {0, -signal.SIGTERM}


@pytest.mark.behaviour("G2", "D6")
def test_what_outlives_the_grace_period_ends_as_failed_and_says_so(
    held: Held, callers: ThreadPoolExecutor, opened: ExitStack
) -> None:
    names = ["stream", "one-shot", "background", "background-stream"]
    with held.start("serve", "--grace", "0.5") as server:
        client = opened.enter_context(server.client)
        conversation = client.post("/v1/conversations", json={}).json()["id"]
        stream = callers.submit(streamed, server, "stream", conversation=conversation)
        one_shot = callers.submit(asked, server, "one-shot")
        background_stream = callers.submit(streamed, server, "background-stream", background=True)
        polled = accept(client, "background")
        held.until_begun(*names)
        follower = callers.submit(replayed, opened.enter_context(server.client), polled["id"])

        server.send(signal.SIGTERM)
        told = [stream.result(PATIENCE), background_stream.result(PATIENCE), follower.result(PATIENCE)]
        answer = one_shot.result(PATIENCE)
        code = server.until_ended()

    for name, events in zip(["stream", "background-stream", "background"], told, strict=True):
        wire.check_stream(events)
        response = events[-1]["response"]
        assert (events[-1]["type"], response["status"]) == ("response.failed", "failed")
        assert response["error"]["message"] == "The server was shut down before the run ended."
        assert texts(response) == [("incomplete", f"{name} 0. ")]
    assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
    assert code == -signal.SIGTERM
    if held.state.is_durable:
        with held.start("serve") as server, server.client as client:
            for events in told:
                assert client.get(f"/v1/responses/{events[-1]['response']['id']}").json() == events[-1]["response"]
            assert replayed(client, polled["id"]) == told[2]
            # Nothing of it is in the conversation, which the next turn finds free.
            assert client.get(f"/v1/conversations/{conversation}/items").json()["data"] == []
            held.release("next")
            assert asked(server, "next", conversation=conversation).json()["status"] == "completed"
            assert [len(held.beginners(name)) for name in names] == [1, 1, 1, 1]


@pytest.mark.behaviour("G2", "D6")
def test_with_retry_a_run_that_outlives_the_grace_period_goes_on_in_the_next_process(
    commands: Commands, durable_state: State, tmp_path: Path, callers: ThreadPoolExecutor
) -> None:
    held = Held(commands, made(tmp_path), durable_state, {"lost_runs": "retry"})
    with held.start("serve", "--grace", "0.5") as server:
        stream = callers.submit(streamed, server, "again", background=True)
        held.until_begun("again")
        server.send(signal.SIGTERM)
        cut = stream.result(PATIENCE)
        code = server.until_ended()
    response_id = cut[0]["response"]["id"]
    last = cut[-1]["sequence_number"]

    held.release("again")
    with held.start("serve") as server, server.client as client:
        response = ended(client, response_id)
        rest = replayed(client, response_id, after=last)

    assert code == -signal.SIGTERM
    assert not {event["type"] for event in cut} & {"response.completed", "response.failed"}
    wire.check_stream(cut + rest, earlier_items=1)
    assert rest[-1]["response"] == response
    assert (response["status"], texts(response)) == ("completed", [whole("again")])
    assert len(set(held.beginners("again"))) == 2


@pytest.mark.behaviour("G2", "D6")
@pytest.mark.parametrize("lost_runs", ["fail", "retry"])
@pytest.mark.parametrize("executor", ["serve", "worker"])
def test_what_waits_in_the_queue_of_a_process_that_is_stopped_is_run_by_another(
    shared: Held, executor: str, lost_runs: str
) -> None:
    held = replace(shared, settings={"lost_runs": lost_runs})
    # One that only serves, and stays; of those that execute, one run at a time, the second comes when the first goes.
    with held.start("serve", run_concurrency=0) as front, front.client as client:
        with held.start(executor, "--grace", "0.5", run_concurrency=1) as first:
            begun = accept(client, "begun")
            held.until_begun("begun")
            queued = accept(client, "queued")
            first.send(signal.SIGTERM)
            code = first.until_ended()
        statuses = [client.get(f"/v1/responses/{found['id']}").json()["status"] for found in (begun, queued)]
        held.release("begun", "queued")
        with held.start(executor, run_concurrency=1) as second:
            responses = [ended(client, found["id"]) for found in (begun, queued)]
            logs = [replayed(client, found["id"]) for found in (begun, queued)]
            executed_by = held.beginners("queued")

    assert code == -signal.SIGTERM
    assert statuses == [{"fail": "failed", "retry": "in_progress"}[lost_runs], "queued"]
    assert [response["status"] for response in responses] == [
        {"fail": "failed", "retry": "completed"}[lost_runs],
        "completed",
    ]
    assert executed_by == [second.pid]
    assert len(held.beginners("begun")) == {"fail": 1, "retry": 2}[lost_runs]
    for response, log, earlier in zip(responses, logs, [int(lost_runs == "retry"), 0], strict=True):
        wire.check_stream(log, earlier_items=earlier)
        assert log[-1]["response"] == response


@pytest.mark.behaviour("G2")
@pytest.mark.parametrize(
    ("state", "number"),
    [("memory", signal.SIGTERM), ("sqlite", signal.SIGTERM), ("postgres", signal.SIGTERM), ("memory", signal.SIGINT)],
    ids=["memory-SIGTERM", "sqlite-SIGTERM", "postgres-SIGTERM", "memory-SIGINT"],
    indirect=["state"],
)
def test_a_run_that_ignores_its_cancellation_keeps_neither_its_readers_nor_the_process(
    held: Held, callers: ThreadPoolExecutor, number: signal.Signals
) -> None:
    with held.start("serve", "--grace", "0") as server:
        streams: list[Future[list[dict[str, Any]]]] = [
            callers.submit(streamed, server, "stubborn-stream"),
            callers.submit(streamed, server, "stubborn-background", background=True),
        ]
        held.until_begun("stubborn-stream", "stubborn-background")
        server.send(number)
        told = [stream.result(PATIENCE) for stream in streams]
        code = server.until_ended()

    for events in told:
        wire.check_stream(events)
        assert events[-1]["type"] == "response.failed"
    assert code == (-signal.SIGTERM if number is signal.SIGTERM else 0)


@pytest.mark.behaviour("G2")
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_second_ctrl_c_takes_the_rest_of_the_grace_period_away(shared: Held, command: str) -> None:
    with shared.start("serve", run_concurrency=0) as front, front.client as client:
        with shared.start(command, "--grace", "600") as process:
            response_id = accept(client, "held")["id"]
            shared.until_begun("held")
            process.send(signal.SIGINT)
            process.until_said("The host is stopping")
            process.send(signal.SIGINT)
            code = process.until_ended()
        response = ended(client, response_id)

    assert code == 0
    assert (response["status"], texts(response)) == ("failed", [("incomplete", "held 0. ")])


def test_a_worker_without_work_ends_at_once_and_says_by_which_signal(shared: Held) -> None:
    codes = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        with shared.start("worker") as worker:
            worker.send(number)
            codes[number] = worker.until_ended()

    assert codes == {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 0}
