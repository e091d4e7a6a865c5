"""Answers to questions and approvals whose servers are killed (SIGKILL), or that come to two servers at once.

What a workflow asks is open again when nothing came of the answer; a tool that was approved may have run, and is not
approved again.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from nursery import Nursery, nursery
from states import State

JsonObject = dict[str, Any]

SECONDS = 60.0
PAUSE = 0.02
ANSWERED = "has already been answered"


@dataclass(frozen=True)
class Home:
    """State that outlives servers, and the files of what they did."""

    state: State
    directory: Path

    @property
    def deeds(self) -> str:
        """What was done, in this order."""
        return (self.directory / "witness").read_text() if (self.directory / "witness").exists() else ""

    @property
    def options(self) -> Mapping[str, object]:
        """The options of a host that keeps its state here."""
        return self.state.options

    def await_hold(self) -> None:
        """Wait until a server does what it never ends."""
        given_up = time.monotonic() + SECONDS
        while not (self.directory / "held").exists():
            assert time.monotonic() < given_up, "Nothing is held."
            time.sleep(PAUSE)

    @contextmanager
    def serve(
        self, servers: Nursery, name: str = "", *, target: str = "asking", **order: object
    ) -> Generator[httpx2.Client, None, None]:
        """Run a server until the block ends."""
        files = {"witness": self.directory / "witness", "held_in": self.directory / "held"}
        url = servers.start(name, target=target, **files, **self.options, **order)
        try:
            with httpx2.Client(base_url=url, timeout=SECONDS, trust_env=False, verify=False) as client:
                yield client
        finally:
            servers.kill(name)


@pytest.fixture(scope="module")
def servers() -> Generator[Nursery, None, None]:
    """Where servers come from."""
    with nursery() as made:
        yield made


@pytest.fixture
def home(durable_state: State, tmp_path: Path) -> Home:
    """State of each kind that survives a server."""
    return Home(durable_state, tmp_path)


def post(client: httpx2.Client, path: str = "/v1/responses", /, **body: object) -> JsonObject:
    """Return the answer to a request that goes well."""
    answered = client.post(path, json=body)
    assert answered.status_code == 200, answered.text
    made: JsonObject = answered.json()
    return made


def answer_to(response: JsonObject, given: str = "yes") -> list[JsonObject]:
    """Return the items that answer what the response asks."""
    (asked,) = response["output"]
    if asked["type"] == "mcp_approval_request":
        return [{"type": "mcp_approval_response", "approval_request_id": asked["id"], "approve": True}]
    return [{"type": "function_call_output", "call_id": asked["call_id"], "output": given}]


def text_of(response: JsonObject) -> str:
    """Return the text of a completed response."""
    assert response["status"] == "completed", response
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


def refusal(client: httpx2.Client, **body: object) -> str:
    """Return why the request is refused."""
    answered = client.post("/v1/responses", json=body)
    assert answered.status_code == 400, answered.text
    return str(answered.json()["error"]["message"])


def heard(client: httpx2.Client, **body: object) -> JsonObject:
    """Return the response to an answer as soon as it is taken: until the dead server is missed, it seems given."""
    given_up = time.monotonic() + SECONDS
    while (answered := client.post("/v1/responses", json=body)).status_code == 400:
        assert ANSWERED in answered.text or "conversation_locked" in answered.text
        assert time.monotonic() < given_up, answered.text
        time.sleep(PAUSE)
    assert answered.status_code == 200, answered.text
    made: JsonObject = answered.json()
    return made


def ended(client: httpx2.Client, response_id: str) -> JsonObject:
    """Return the response as soon as it is terminal."""
    given_up = time.monotonic() + SECONDS
    while (response := client.get(f"/v1/responses/{response_id}").json())["status"] in {"queued", "in_progress"}:
        assert time.monotonic() < given_up, "It does not end."
        time.sleep(PAUSE)
    found: JsonObject = response
    return found


def lost(answering: Future[httpx2.Response]) -> bool:
    """Whether the request was broken off."""
    return isinstance(answering.exception(SECONDS), httpx2.TransportError)


MODES = pytest.mark.parametrize(
    "mode", [{}, {"stream": True}, {"store": False}], ids=["one-shot", "streamed", "unstored"]
)


@MODES
@pytest.mark.parametrize("place", ["chain", "conversation"])
@pytest.mark.behaviour("F3", "F4")
def test_an_answer_whose_server_is_killed_while_it_runs_can_be_given_again(
    home: Home, servers: Nursery, mode: JsonObject, place: str
) -> None:
    with home.serve(servers, held="first") as client, ThreadPoolExecutor(1) as caller:
        conversation = post(client, "/v1/conversations")["id"]
        asked = post(client, input="q", **({} if place == "chain" else {"conversation": conversation}))
        goes_on = {"previous_response_id": asked["id"]} if place == "chain" else {"conversation": conversation}
        body = {"input": answer_to(asked, "first"), **goes_on, **mode}
        answering = caller.submit(client.post, "/v1/responses", json=body)
        home.await_hold()
        second = {"input": answer_to(asked, "second"), **goes_on}
        assert client.post("/v1/responses", json=second).status_code == 400
        servers.kill()
        assert mode.get("stream") or lost(answering)

    with home.serve(servers) as client:
        done = heard(client, **second)
        again = refusal(client, **second)

    assert text_of(done) == "done: second"
    assert ANSWERED in again
    assert home.deeds == "first;second;"


@pytest.mark.parametrize(
    ("kill", "mode"),
    [
        ("inside 1 SqlResponseStore._create", {}),
        ("after 1 SqlResponseStore._create", {}),
        ("after 1 _Write", {}),
        ("inside 1 SqlResponseStore.save.save", {}),
        ("inside 1 SqlSettlements._settle", {"store": False}),
        ("after 1 SqlSettlements._settle", {"store": False}),
        ("inside 1 SqlSettlements._confirm", {"store": False}),
    ],
)
@pytest.mark.behaviour("F3", "F4")
def test_an_answer_whose_server_is_killed_at_a_write_can_be_given_again(
    home: Home, servers: Nursery, kill: str, mode: JsonObject
) -> None:
    with home.serve(servers) as client:
        asked = post(client, input="q")
        body = {"input": answer_to(asked), "previous_response_id": asked["id"]}
        with pytest.raises(httpx2.TransportError):
            client.post("/v1/responses", json={**body, **mode}, headers={"x-kill": kill})
        servers.await_death()

    with home.serve(servers) as client:
        done = heard(client, **body)
        again = refusal(client, **body)

    assert text_of(done) == "done: yes"
    assert ANSWERED in again


@pytest.mark.parametrize(
    ("kill", "mode"),
    [
        ("after 1 SqlResponseStore.save.save", {}),
        ("after 1 SqlSettlements._confirm", {"store": False}),
    ],
)
@pytest.mark.behaviour("F4")
def test_an_answer_that_was_heard_to_the_end_counts_though_its_server_was_killed_before_it_said_so(
    home: Home, servers: Nursery, kill: str, mode: JsonObject
) -> None:
    with home.serve(servers) as client:
        asked = post(client, input="q")
        body = {"input": answer_to(asked), "previous_response_id": asked["id"]}
        with pytest.raises(httpx2.TransportError):
            client.post("/v1/responses", json={**body, **mode}, headers={"x-kill": kill})
        servers.await_death()

    with home.serve(servers) as client:
        again = refusal(client, **body)

    assert ANSWERED in again
    assert home.deeds == "yes;"


@pytest.mark.parametrize("lost_runs", ["resume", "retry", "fail"])
@pytest.mark.behaviour("F3", "F8")
def test_an_answer_in_the_background_is_heard_by_the_next_server_or_open_again(
    home: Home, servers: Nursery, lost_runs: str
) -> None:
    with home.serve(servers, held="first", lost_runs=lost_runs) as client:
        asked = post(client, input="q")
        goes_on = {"previous_response_id": asked["id"]}
        begun = post(client, input=answer_to(asked, "first"), background=True, **goes_on)
        home.await_hold()

    with home.serve(servers, lost_runs=lost_runs) as client:
        if lost_runs != "fail":
            assert ANSWERED in refusal(client, input=answer_to(asked, "second"), **goes_on)
        first = ended(client, begun["id"])
        if lost_runs == "fail":
            assert first["status"] == "failed"
            assert text_of(heard(client, input=answer_to(asked, "second"), **goes_on)) == "done: second"
            assert home.deeds == "first;second;"
        else:
            assert text_of(first) == "done: first"
            assert home.deeds == "first;first;"
        assert ANSWERED in refusal(client, input=answer_to(asked, "third"), **goes_on)


@pytest.mark.behaviour("F3", "D4")
def test_an_answer_that_was_cancelled_can_be_given_again(home: Home, servers: Nursery) -> None:
    with home.serve(servers, held="first") as client:
        asked = post(client, input="q")
        goes_on = {"previous_response_id": asked["id"]}
        begun = post(client, input=answer_to(asked, "first"), background=True, **goes_on)
        home.await_hold()
        cancelled = post(client, f"/v1/responses/{begun['id']}/cancel")
        done = post(client, input=answer_to(asked, "second"), previous_response_id=begun["id"])
        again = refusal(client, input=answer_to(asked, "third"), **goes_on)

    assert cancelled["status"] == "cancelled"
    assert text_of(done) == "done: second"
    assert ANSWERED in again


@MODES
@pytest.mark.behaviour("F5")
def test_an_approval_whose_server_is_killed_while_the_tool_runs_is_used_up(
    home: Home, servers: Nursery, mode: JsonObject
) -> None:
    with home.serve(servers, target="approving", held="pay") as client, ThreadPoolExecutor(1) as caller:
        asked = post(client, input="pay")
        body = {"input": answer_to(asked), "previous_response_id": asked["id"]}
        caller.submit(client.post, "/v1/responses", json={**body, **mode})
        home.await_hold()
        servers.kill()

    with home.serve(servers, target="approving") as client:
        again = refusal(client, **body)
        anew = post(client, input="post", previous_response_id=asked["id"])
        done = post(client, input=answer_to(anew), previous_response_id=anew["id"])

    assert ANSWERED in again
    assert text_of(done) == "done: post"
    assert home.deeds == "pay;post;"


@pytest.mark.parametrize("lost_runs", ["resume", "fail"])
@pytest.mark.behaviour("F5")
def test_an_approval_in_the_background_whose_server_is_killed_fails_and_is_used_up(
    home: Home, servers: Nursery, lost_runs: str
) -> None:
    with home.serve(servers, target="approving", held="pay", lost_runs=lost_runs) as client:
        asked = post(client, input="pay")
        goes_on = {"previous_response_id": asked["id"]}
        begun = post(client, input=answer_to(asked), background=True, **goes_on)
        home.await_hold()

    with home.serve(servers, target="approving", lost_runs=lost_runs) as client:
        failed = ended(client, begun["id"])
        again = refusal(client, input=answer_to(asked), **goes_on)

    assert failed["status"] == "failed"
    assert ANSWERED in again
    assert home.deeds == "pay;"


@pytest.mark.parametrize("target", ["approving", "asking"])
@pytest.mark.behaviour("F3", "F4", "F5")
def test_of_two_servers_that_are_answered_at_the_same_moment_one_takes_the_answer(
    postgres_url: str, tmp_path: Path, servers: Nursery, target: str
) -> None:
    home = Home(State("postgres", {"database_url": postgres_url}), tmp_path)
    with (
        # With the product's leases: on a slow machine, shorter ones are overrun by servers that live.
        home.serve(servers, "one", target=target, is_quick=False) as one,
        home.serve(servers, "other", target=target, is_quick=False) as other,
        ThreadPoolExecutor(8) as callers,
    ):
        for number in range(5):
            asked = post(one, input=f"pay {number}")
            given = answer_to(asked, f"pay {number}")
            body = {"input": given, "previous_response_id": asked["id"]}
            modes: list[JsonObject] = [{}, {"background": True}, {"store": False}, {"stream": True}]
            answering = [
                callers.submit(client.post, "/v1/responses", json={**body, **mode})
                for mode in modes
                for client in (one, other)
            ]
            statuses = sorted(each.result(SECONDS).status_code for each in answering)
            refused = [each.result().text for each in answering if each.result().status_code == 400]

            assert statuses == [200] + [400] * 7
            assert all(ANSWERED in text for text in refused)
            given_up = time.monotonic() + SECONDS
            while home.deeds.count(";") <= number:  # in the background it is done later
                assert time.monotonic() < given_up
                time.sleep(PAUSE)
        assert home.deeds == "".join(f"pay {number};" for number in range(5))
