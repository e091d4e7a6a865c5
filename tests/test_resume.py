"""Background runs of workflows whose servers are killed (SIGKILL) or stopped (SIGTERM), and resumed by others.

The workflow has three steps: "a" says something, "b" says something and then something in pieces, and "c" repeats the
latter, which does not count, and says something new. A file tells which of them were executed.
"""

from __future__ import annotations

import base64
import json
import pickle
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import wire
from nursery import Nursery, nursery
from states import State

JsonObject = dict[str, Any]

SECONDS = 60.0
PAUSE = 0.02

FUNCTIONS = {
    "save checkpoint": "_SqlChain.save.save",
    "delete checkpoint": "_SqlChain.delete.<lambda>",
    "put session": "_Write",
    "begin": "SqlResponseStore.begin.begin",
    "save": "SqlResponseStore.save.save",
}

# Where the server dies, and which steps are executed before and after it: those twice that had begun and whose checkpoint
# was not stored. `None` if it depends on how the events were batched.
KILLS: dict[str, str | None] = {
    "after 1 begin": "abc",
    "after 1 save": "abc",
    "inside 1 save checkpoint": "abc",
    "after 1 save checkpoint": "abc",
    "inside 2 save checkpoint": "aabc",
    "after 2 save checkpoint": "abc",
    "after 1 delete checkpoint": "abc",
    "inside 3 save checkpoint": "abbc",
    "after 3 save checkpoint": "abc",
    "after 2 delete checkpoint": "abc",
    "inside 4 save checkpoint": "abcc",
    "after 4 save checkpoint": "abc",
    "after 5 save checkpoint": "abc",
    "after 1 put session": "abc",
    "inside 2 save": "abc",
    "after 2 save": "abc",
    "inside 1 close log": "abc",
    "after 2 extend log": None,
    "inside 3 extend log": None,
    "after 4 extend log": None,
}
ON_POSTGRES = ("inside 2 save checkpoint", "after 3 save checkpoint", "inside 4 save checkpoint", "after 1 put session")
CASES = [("sqlite", kill) for kill in KILLS] + [("postgres", kill) for kill in ON_POSTGRES]
FUNCTIONAL_KILLS = ("after 1 save", *(kill for kill in KILLS if "save checkpoint" in kill), "after 1 put session")
FUNCTIONAL_CASES = [("sqlite", kill) for kill in FUNCTIONAL_KILLS] + [("postgres", "inside 3 save checkpoint")]


@dataclass(frozen=True)
class Server:
    """A server as its callers see it."""

    client: httpx2.Client

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Return the answer to a request that goes well."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.client.request(method, path, json=body, headers=named)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def turn(self, text: str, previous: JsonObject | None = None, **body: object) -> JsonObject:
        """Return the response to `text`."""
        chained = {} if previous is None else {"previous_response_id": previous["id"]}
        made = self.ask("POST", "/v1/responses", {"input": text, **chained, **body})
        assert isinstance(made, dict)
        return made

    def die(self, text: str, previous: JsonObject, *, at: str) -> None:
        """Ask for a response in the background, and have the server die at this write."""
        moment, number, write = at.split(" ", 2)
        kill = f"{moment} {number} {FUNCTIONS.get(write, write)}"
        body = {"input": text, "previous_response_id": previous["id"], "background": True}
        try:
            self.client.post("/v1/responses", json=body, headers={"x-kill": kill})
        except httpx2.TransportError:  # dead already
            return

    def ended(self, response_id: str) -> JsonObject:
        """Return the response as soon as it is terminal."""
        response = until(
            lambda: self.ask("GET", f"/v1/responses/{response_id}"),
            lambda response: response["status"] not in {"queued", "in_progress"},
        )
        assert isinstance(response, dict)
        return response

    def events(self, response_id: str) -> list[JsonObject]:
        """Return all events of a response."""
        return wire.parse_sse(self.client.get(f"/v1/responses/{response_id}?stream=true").content)


def until(look: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    """Return what is seen as soon as it `holds`."""
    given_up = time.monotonic() + SECONDS
    while not holds(seen := look()):
        assert time.monotonic() < given_up, f"Still {seen}."
        time.sleep(PAUSE)
    return seen


@dataclass(frozen=True)
class Home:
    """State that outlives servers, and what they write into beside it."""

    state: State
    witness: Path
    go_on: Path

    @property
    def executed(self) -> str:
        """The steps that were executed."""
        return self.witness.read_text() if self.witness.exists() else ""

    @property
    def options(self) -> Mapping[str, object]:
        """The options of a host that keeps its state here, checkpoints included."""
        if self.state.kind == "postgres":
            return self.state.options
        return {"state_dir": {"sessions": self.state.directory}}

    @contextmanager
    def serve(
        self, servers: Nursery, name: str = "", *, target: str = "steps", ends: bool = False, **order: object
    ) -> Generator[Server, None, None]:
        """Run a server until the block ends; one that `ends` by itself must do so in the block."""
        files = {"witness": self.witness, "go_on": self.go_on}
        url = servers.start(name, target=target, **files, **self.options, **order)
        try:
            with httpx2.Client(base_url=url, timeout=SECONDS, trust_env=False, verify=False) as client:
                yield Server(client)
        finally:
            if not ends:
                servers.kill(name)


@pytest.fixture(scope="module")
def servers() -> Generator[Nursery, None, None]:
    """Where servers come from."""
    with nursery() as made:
        yield made


@pytest.fixture
def home(durable_state: State, tmp_path: Path) -> Home:
    """State of each kind that survives a server."""
    return Home(durable_state, tmp_path / "witness", tmp_path / "go on")


def texts_of(response: JsonObject) -> list[str]:
    """Return the texts of the messages in an answer, all of which are whole."""
    assert response["status"] == "completed", response
    assert [item["status"] for item in response["output"]] == ["completed"] * len(response["output"])
    return [part["text"] for item in response["output"] for part in item["content"]]


def answer(*heard: str) -> list[str]:
    """Return what the workflow says when it has heard this in the conversation."""
    return [f"a: {'+'.join(heard)}", f"b: {'+'.join(heard)}", "in pieces", f"c: {'+'.join(heard)}"]


def check_stream(server: Server, response: JsonObject) -> None:
    """See that the stream of a resumed run is whole: what belongs to the answer is in it, and told once."""
    events = server.events(response["id"])
    told = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    kept = [index for index, item in enumerate(told) if item in response["output"]]
    wire.check_stream(events, earlier_items=len(told), kept_items=kept)
    assert events[-1]["response"] == response


def check(server: Server, first: JsonObject, second_id: str) -> None:
    """See that the second turn is complete, can be continued, and has left its chain alone, and nothing behind."""
    second = server.ended(second_id)
    assert texts_of(second) == answer("one", "two")
    check_stream(server, second)
    assert texts_of(server.turn("three", second)) == answer("one", "two", "three")
    assert texts_of(server.turn("branch", first)) == answer("one", "branch")
    assert server.ask("GET", "/-/checkpoints") == 4


def second_of(server: Server, first: JsonObject) -> str:
    """Return the id of the response that is not the first."""
    (found,) = set(server.ask("GET", "/-/stored")) - {first["id"]}
    return str(found)


@pytest.mark.behaviour("F8", "D6")
@pytest.mark.parametrize(("durable_state", "kill"), CASES, indirect=["durable_state"])
def test_a_workflow_that_is_killed_goes_on_from_its_last_checkpoint(home: Home, servers: Nursery, kill: str) -> None:
    with home.serve(servers, ends=True) as server:
        first = server.turn("one")
        home.witness.write_text("")
        server.die("two", first, at=kill)
        servers.await_death()

    with home.serve(servers) as server:
        second = second_of(server, first)
        server.ended(second)
        executed = home.executed
        check(server, first, second)

    expected = KILLS[kill]
    if expected is None:
        assert "".join(sorted(set(executed))) == "abc"
        assert len(executed) <= 4
    else:
        assert executed == expected


@pytest.mark.behaviour("F8", "D6")
@pytest.mark.parametrize(("durable_state", "kill"), FUNCTIONAL_CASES, indirect=["durable_state"])
def test_a_functional_workflow_that_is_killed_goes_on_after_its_last_step(
    home: Home, servers: Nursery, kill: str
) -> None:
    with home.serve(servers, target="functional steps", ends=True) as server:
        first = server.turn("one")
        home.witness.write_text("")
        server.die("two", first, at=kill)
        servers.await_death()

    with home.serve(servers, target="functional steps") as server:
        second = second_of(server, first)
        server.ended(second)
        executed = home.executed
        check(server, first, second)

    # A checkpoint before the first step and one after each, as those of supersteps are.
    assert executed == KILLS[kill]


@pytest.mark.behaviour("F8")
@pytest.mark.parametrize("durable_state", ["sqlite"], indirect=True)
def test_a_lost_workflow_whose_checkpoint_cannot_be_read_any_more_fails_and_executes_nothing(
    home: Home, servers: Nursery
) -> None:
    with home.serve(servers, ends=True) as server:
        first = server.turn("one")
        home.witness.write_text("")
        server.die("two", first, at="after 2 save checkpoint")
        servers.await_death()
    with closing(sqlite3.connect(home.state.directory / "host.db")) as database, database:
        forbidden = base64.b64encode(pickle.dumps(Path())).decode()
        state = json.dumps({"__pickled__": forbidden, "__type__": "pathlib:PosixPath"}).encode()
        database.execute("UPDATE afhost_checkpoints SET checkpoint = ?", [state])

    with home.serve(servers) as server:
        second = server.ended(second_of(server, first))

    assert second["status"] == "failed"
    assert home.executed == "a"


@pytest.mark.behaviour("F8", "D6")
@pytest.mark.parametrize("durable_state", ["postgres"], indirect=True)
def test_a_workflow_whose_replica_is_killed_is_resumed_by_another(home: Home, servers: Nursery) -> None:
    with home.serve(servers, held="c two", ends=True) as server:
        first = server.turn("one")
        home.witness.write_text("")
        second = server.turn("two", first, background=True)
        until(lambda: home.executed, lambda executed: executed == "abc")
        with home.serve(servers, "other") as other:
            assert other.ask("GET", f"/v1/responses/{second['id']}")["status"] == "in_progress"
            servers.kill()

            other.ended(second["id"])
            executed = home.executed
            check(other, first, second["id"])

    assert executed == "abcc"


@pytest.mark.behaviour("F8", "D11")
@pytest.mark.parametrize("durable_state", ["postgres"], indirect=True)
def test_a_replica_that_was_paused_while_another_resumed_its_workflow_stores_nothing_any_more(
    home: Home, servers: Nursery
) -> None:
    with home.serve(servers, "paused", held="b two") as server:
        first = server.turn("one")
        home.witness.write_text("")
        second = server.turn("two", first, background=True)
        until(lambda: home.executed, lambda executed: executed == "ab")
        servers.pause("paused")
        with home.serve(servers) as other:
            resumed = other.ended(second["id"])
            executed = home.executed

            servers.resume("paused")
            home.go_on.touch()
            until(lambda: home.executed, lambda noted: noted.endswith("!"))
            # It has turns of its own meanwhile: whatever it had to do about the lost one is done.
            check(server, first, second["id"])

            assert other.ended(second["id"]) == resumed

    assert executed == "abbc"


@pytest.mark.behaviour("F8", "D6", "G2")
def test_a_workflow_whose_server_is_stopped_is_handed_over_and_goes_on_from_its_last_checkpoint(
    home: Home, servers: Nursery
) -> None:
    with home.serve(servers, held="b two", shutdown_grace=0.2, ends=True) as server:
        first = server.turn("one")
        home.witness.write_text("")
        second = server.turn("two", first, background=True)
        until(lambda: home.executed, lambda executed: executed == "ab")
        servers.stop()

    with home.serve(servers) as server:
        server.ended(second["id"])
        executed = home.executed
        check(server, first, second["id"])

    assert executed == "abbc"


@pytest.mark.parametrize("durable_state", ["sqlite"], indirect=True)
def test_a_step_that_kills_every_server_is_tried_three_times(home: Home, servers: Nursery) -> None:
    with home.serve(servers, ends=True) as server:
        first = server.turn("one")
        home.witness.write_text("")
        server.die("two", first, at="inside 3 save checkpoint")
        servers.await_death()
    for _ in range(2):
        # The first checkpoint that this server stores is the same.
        servers.start_and_die(
            target="steps",
            kill=f"inside 1 {FUNCTIONS['save checkpoint']}",
            witness=home.witness,
            go_on=home.go_on,
            **home.options,
        )

    with home.serve(servers) as server:
        second = server.ended(second_of(server, first))

        assert (second["status"], second["error"]["code"]) == ("failed", "server_error")
        check_stream(server, second)
        # Only that of the first turn.
        assert server.ask("GET", "/-/checkpoints") == 1
    assert home.executed == "abbb"


@pytest.mark.parametrize("body", [{"stream": True}, {}])
@pytest.mark.parametrize("durable_state", ["sqlite"], indirect=True)
def test_a_workflow_in_the_foreground_that_is_killed_fails_and_leaves_nothing(
    home: Home, servers: Nursery, body: JsonObject
) -> None:
    with home.serve(servers, held="b two", ends=True) as server:
        first = server.turn("one")
        home.witness.write_text("")
        with pytest.raises(httpx2.TransportError):
            leave(server, first, body, servers, home)

    with home.serve(servers) as server:
        for found in set(server.ask("GET", "/-/stored")) - {first["id"]}:
            assert server.ended(found)["status"] == "failed"
        assert texts_of(server.turn("three", first)) == answer("one", "three")
        assert server.ask("GET", "/-/checkpoints") == 2


def leave(server: Server, first: JsonObject, body: JsonObject, servers: Nursery, home: Home) -> None:
    """Ask for a response, and kill the server while it is made."""

    def kill() -> None:
        until(lambda: home.executed, lambda executed: executed == "ab")
        servers.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with server.client.stream(
            "POST", "/v1/responses", json={"input": "two", "previous_response_id": first["id"], **body}
        ) as answered:
            answered.read()
    finally:
        killer.join()
