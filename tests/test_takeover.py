"""Two processes on one PostgreSQL database: what one of them was doing when it was killed, the other brings to an end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import latency
import pytest
import wire
from nursery import Nursery, nursery

from agent_framework_hosting.sql.presence import BEAT, LEASE

pytestmark = pytest.mark.behaviour("D6")

SECONDS = 60.0
PAUSE = 0.05

# With the settings that the product has.
MOST_SECONDS_OF_TAKEOVER = 15.0
MOST_SECONDS_OF_CANCEL = 1.0


@pytest.fixture(scope="module")
def servers() -> Generator[dict[str, Nursery], None, None]:
    """Where the two come from."""
    with nursery() as one, nursery() as other:
        yield {"one": one, "other": other}


@pytest.fixture
def opened() -> Generator[ExitStack, None, None]:
    """What is closed after the test."""
    with ExitStack() as stack:
        yield stack


def client_of(url: str) -> httpx2.Client:
    return httpx2.Client(base_url=url, timeout=SECONDS, trust_env=False, verify=False)


def ended(client: httpx2.Client, response_id: str, *, within: float) -> Any:
    """Return the response as soon as it is terminal."""
    given_up = time.monotonic() + within
    while (response := client.get(f"/v1/responses/{response_id}").json())["status"] in wire.RUNNING:
        assert time.monotonic() < given_up, f"{response_id} is still {response['status']}."
        time.sleep(PAUSE)
    return response


def followed(client: httpx2.Client, response_id: str) -> list[dict[str, Any]]:
    """Return the events of a response from the first to the last, whenever that comes."""
    return wire.parse_sse(client.get(f"/v1/responses/{response_id}", params={"stream": "true"}).content)


def test_a_run_whose_process_is_killed_ends_on_another_within_the_lease(
    servers: dict[str, Nursery], postgres_url: str, tmp_path: Path, opened: ExitStack
) -> None:
    held_in = tmp_path / "held_in"
    clients = {
        name: opened.enter_context(
            # As fast as the product is: nothing is shortened for the test.
            client_of(made.start(target="held", held_in=held_in, name=name, is_quick=False, database_url=postgres_url))
        )
        for name, made in servers.items()
    }
    accepted = clients["one"].post("/v1/responses", json={"input": "q", "background": True}).json()
    given_up = time.monotonic() + SECONDS
    while not (held_in.exists() and held_in.read_text()):
        assert time.monotonic() < given_up, "Nobody runs it."
        time.sleep(PAUSE)
    runner = held_in.read_text()
    (survivor,) = clients.keys() - {runner}

    with ThreadPoolExecutor(1) as readers:
        reader = readers.submit(followed, clients[survivor], accepted["id"])
        servers[runner].kill()
        response = ended(clients[survivor], accepted["id"], within=LEASE + BEAT)
        told = reader.result(SECONDS)

    wire.check_stream(told)
    assert told[-1]["response"] == response
    assert response["status"] == "failed"
    assert [item["status"] for item in response["output"]] == ["incomplete"]
    assert followed(clients[survivor], accepted["id"]) == told
    servers[survivor].kill()


def test_runs_of_killed_processes_have_ended_on_another_after_fifteen_seconds_at_most(
    servers: dict[str, Nursery], postgres_url: str, tmp_path: Path
) -> None:
    seconds = latency.takeovers(servers["one"], postgres_url, tmp_path / "journal")

    print(f"takeover: median {statistics.median(seconds):.1f} s, maximum {max(seconds):.1f} s")
    assert max(seconds) <= MOST_SECONDS_OF_TAKEOVER


@pytest.mark.behaviour("D4")
def test_a_run_hears_within_a_second_that_another_process_was_asked_to_cancel_it(
    servers: dict[str, Nursery], postgres_url: str, tmp_path: Path
) -> None:
    seconds = latency.cancellations(servers["one"], postgres_url, tmp_path / "journal")

    most = statistics.quantiles(seconds, n=20)[-1]
    print(f"cancel: median {statistics.median(seconds):.3f} s, 95th percentile {most:.3f} s")
    assert most <= MOST_SECONDS_OF_CANCEL


def test_a_run_whose_process_died_when_it_had_accepted_it_is_run_by_another(
    servers: dict[str, Nursery], postgres_url: str, opened: ExitStack
) -> None:
    one, other = (
        opened.enter_context(client_of(made.start(target="agent", database_url=postgres_url)))
        for made in servers.values()
    )

    with pytest.raises(httpx2.TransportError):
        one.post(
            "/v1/responses",
            json={"input": "q", "background": True},
            headers={"x-kill": "after 1 SqlResponseStore._create"},
        )

    servers["one"].await_death()
    (response_id,) = other.get("/-/stored").json()
    response = ended(other, response_id, within=SECONDS)
    told = followed(other, response_id)
    wire.check_stream(told)
    assert told[-1]["response"] == response
    assert response["status"] == "completed"
    servers["other"].kill()


@pytest.mark.behaviour("D11")
@pytest.mark.parametrize("is_done", [False, True], ids=["goes on", "ends"])
def test_a_process_that_was_paused_writes_nothing_about_a_run_that_was_taken_over(
    servers: dict[str, Nursery], postgres_url: str, tmp_path: Path, opened: ExitStack, is_done: bool
) -> None:
    held_in = tmp_path / "held_in"
    clients = {
        name: opened.enter_context(
            client_of(made.start(target="held", held_in=held_in, name=name, database_url=postgres_url))
        )
        for name, made in servers.items()
    }
    accepted = clients["one"].post("/v1/responses", json={"input": "q", "background": True}).json()
    wait_for(lambda: held_in.exists() and bool(held_in.read_text()))
    runner = held_in.read_text()
    (survivor,) = clients.keys() - {runner}

    servers[runner].pause()
    response = ended(clients[survivor], accepted["id"], within=SECONDS)
    told = followed(clients[survivor], accepted["id"])
    if is_done:
        # It wakes up with its answer in its hands; whether it may still give it is decided in the same moment.
        held_in.unlink()
    servers[runner].resume()

    if not is_done:
        wait_for(held_in.with_suffix(".stopped").exists)
        assert held_in.with_suffix(".stopped").read_text() == runner
    # One more run of the same process, which comes after whatever that had to write.
    held_in.unlink(missing_ok=True)
    with ThreadPoolExecutor(1) as asking:
        later = asking.submit(clients[runner].post, "/v1/responses", json={"input": "q"})
        wait_for(held_in.exists)
        held_in.unlink()
        assert later.result(SECONDS).json()["status"] == "completed"
    wire.check_stream(told)
    assert response["status"] == "failed"
    for client in clients.values():
        assert client.get(f"/v1/responses/{accepted['id']}").json() == response
        assert followed(client, accepted["id"]) == told
    for made in servers.values():
        made.kill()


def wait_for(is_so: Callable[[], bool]) -> None:
    given_up = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < given_up, "It does not come about."
        time.sleep(PAUSE)
