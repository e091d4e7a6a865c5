"""What the page about deployment has is run: nginx in front of two replicas, and what it tells Kubernetes and systemd."""

from __future__ import annotations

import asyncio
import configparser
import re
import shlex
import signal
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import live
import psycopg
import pytest
import uvicorn
import wire
import yaml
from commands import Command, Commands, Held, accept, client_of, ended, texts
from proxy import PAGE, documented, nginx
from states import State

from agent_framework_hosting import AgentFrameworkHost, lifecycle, runner, serve
from agent_framework_hosting.app import LIVENESS, READINESS
from agent_framework_hosting.cli import _parser
from agent_framework_hosting.runs import procrastinate
from agent_framework_hosting.sql.database import POOL_SIZE
from agent_framework_hosting.state import DATABASE_VARIABLE
from agent_framework_hosting.testing.agents import ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

ADA = {"Authorization": "Bearer key-of-ada"}
BOB = {"Authorization": "Bearer key-of-bob"}
STOP_OVERRUN = 20
"""Seconds that a stop may take beside notice and grace, as the page says."""


class Site:
    """Two replicas on one database behind nginx."""

    def __init__(self, held: Held, replicas: Mapping[str, Command], url: str) -> None:
        self.held = held
        self.replicas = replicas
        self.url = url

    def client(self, headers: Mapping[str, str] = ADA) -> httpx2.Client:
        """A client of the proxy; the caller closes it."""
        client = client_of(self.url)
        client.headers.update(headers)
        return client


@pytest.fixture
def site(commands: Commands, postgres_url: str, tmp_path: Path) -> Generator[Site, None, None]:
    """Two replicas behind nginx. Their limit of a body is small."""
    with ExitStack() as stack:
        held = Held(commands, tmp_path, State("postgres", {"database_url": postgres_url}), {"max_body_bytes": 100_000})
        started = [stack.enter_context(held.start("serve", trust_isolation_headers=True)) for _ in range(2)]
        url = stack.enter_context(nginx(tmp_path, [replica.url for replica in started]))
        yield Site(held, {replica.url.removeprefix("http://"): replica for replica in started}, url)


class Story:
    """An answer that is told piece by piece: the agent says the next one when this has come."""

    def __init__(self, stream: httpx2.Response, site: Site, name: str) -> None:
        self.raw = b""
        self._chunks = stream.iter_bytes()
        self._site = site
        self._name = name

    def hear(self, pieces: int) -> list[str]:
        """Read until so many pieces have come, each before the next one is said; return them."""
        while len(heard := re.findall(rb'"delta":"([^"]*)"', self.raw)) < pieces:
            if heard:
                self._site.held.release(self._name, piece=len(heard))
            self.raw += next(self._chunks)
        return [piece.decode() for piece in heard]

    def finish(self) -> list[dict[str, Any]]:
        """Read to the end; return the events."""
        self.raw += b"".join(self._chunks)
        return wire.parse_sse(self.raw)


@pytest.mark.behaviour("D3", "G6")
def test_deltas_come_through_nginx_one_at_a_time_and_a_cut_stream_is_resumed_on_either_replica(site: Site) -> None:
    body = {"input": "story*5", "background": True, "stream": True}
    with site.client() as client, client.stream("POST", "/v1/responses", json=body) as stream:
        story = Story(stream, site, "story")
        heard = story.hear(3)
    before = wire.parse_sse(story.raw.rpartition(b"\n\n")[0] + b"\n\n")
    response_id = before[0]["response"]["id"]
    site.held.release("story", piece=3)
    site.held.release("story", piece=4)

    path = f"/v1/responses/{response_id}?stream=true&starting_after={before[-1]['sequence_number']}"
    with site.client() as client:
        answers = [client.get(path) for _ in range(8)]
        answer = ended(client, response_id)

    assert heard == ["story 0. ", "story 1. ", "story 2. "]
    assert {resumed.headers["x-upstream"] for resumed in answers} == {*site.replicas}
    for resumed in answers:
        whole = before + wire.parse_sse(resumed.content)
        wire.check_stream(whole)
        assert whole[-1]["response"] == answer
    assert texts(answer) == [("completed", "".join(f"story {number}. " for number in range(5)))]


@pytest.mark.behaviour("G2")
def test_a_replica_that_stops_behind_nginx_costs_nobody_an_answer(site: Site) -> None:
    names = ["one", "two", "three"]
    with ExitStack() as stack:
        client = stack.enter_context(site.client())
        streams = [
            stack.enter_context(client.stream("POST", "/v1/responses", json={"input": name, "stream": True}))
            for name in names
        ]
        stories = [Story(stream, site, name) for stream, name in zip(streams, names, strict=True)]
        for story in stories:
            story.hear(1)
        served_by = [stream.headers["x-upstream"] for stream in streams]
        # The one that has less to do: nginx would give it what comes next.
        stopping = site.replicas[min(site.replicas, key=served_by.count)]
        polled = accept(client, "polled")
        site.held.until_begun("polled")

        stopping.send(signal.SIGTERM)
        stopping.until_said("The host is stopping")
        site.held.release("short", "polled")
        statuses = [client.post("/v1/responses", json={"input": "short"}).status_code for _ in range(10)]
        for story in stories:
            story.hear(2)
        told = [story.finish() for story in stories]
        stopping.until_ended()
        statuses += [client.post("/v1/responses", json={"input": "short"}).status_code for _ in range(10)]
        background = ended(client, polled["id"])

    assert {*served_by} == {*site.replicas}
    for name, events in zip(names, told, strict=True):
        wire.check_stream(events)
        assert texts(events[-1]["response"]) == [("completed", f"{name} 0. {name} 1. ")]
    assert statuses == [200] * 20
    assert background["status"] == "completed"


@pytest.mark.behaviour("E1")
def test_nobody_gets_anothers_data_by_headers_of_his_own(site: Site) -> None:
    site.held.release("secret")
    smuggled = [
        {"x-agent-user-isolation-key": "bob"},
        {"X-Agent-User-Isolation-Key": "bob", "x-agent-chat-isolation-key": ""},
        {"x_agent_user_isolation_key": "bob"},
    ]
    with site.client(BOB) as bob, site.client(ADA) as ada, site.client({}) as nobody:
        secret = bob.post("/v1/responses", json={"input": "secret"}).json()["id"]
        own = ada.post("/v1/responses", json={"input": "secret"}, headers={"x-agent-chat-isolation-key": "x"}).json()[
            "id"
        ]
        found = [ada.get(f"/v1/responses/{secret}", headers=headers).status_code for headers in smuggled]
        again = [client.get(f"/v1/responses/{secret}").status_code for client in (bob, nobody)]
        mine = ada.get(f"/v1/responses/{own}").status_code

    assert found == [404, 404, 404]
    assert again == [200, 401]
    assert mine == 200


def test_a_body_that_is_too_large_for_the_host_is_refused_in_its_words(site: Site) -> None:
    with site.client() as client:
        answers = [client.post("/v1/responses", json={"input": "x" * size}) for size in (100_000, 5_000_000)]

    for answer in answers:
        assert answer.status_code == 413
        wire.check_error(answer.json())


def test_the_figures_for_nginx_fit_those_of_the_host() -> None:
    site = documented("nginx")
    (body,) = re.findall(r"client_max_body_size (\d+)m;", site)
    (idle,) = re.findall(r"keepalive_timeout (\d+)s;", site)
    (read,) = re.findall(r"proxy_read_timeout (\d+)m;", site)

    assert int(body) * 1024 * 1024 > ResponsesSettings().max_body_bytes
    assert int(idle) < uvicorn.Config("").timeout_keep_alive
    assert int(read) * 60 > ResponsesSettings().keep_alive


# --- Kubernetes and systemd


def manifests() -> dict[str, dict[str, Any]]:
    """Kind and name → the manifest."""
    return {f"{found['kind']}/{found['metadata']['name']}": found for found in yaml.safe_load_all(documented("yaml"))}


def container_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def stop_seconds(options: Any) -> float:
    """Return the most that a process may take to stop, as the page says it."""
    return float((options.grace or 30) + (getattr(options, "notice", None) or 0) + STOP_OVERRUN)


def test_every_container_is_started_by_a_command_that_there_is_and_given_time_to_stop() -> None:
    found = manifests()
    names = []
    for name in ("Deployment/afhost", "Deployment/afhost-worker"):
        pod = found[name]["spec"]["template"]["spec"]
        container = container_of(found[name])
        program, command, *flags = container["command"]
        options = _parser().parse_args([command, *flags])
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        names.append((program, command))

        assert pod["terminationGracePeriodSeconds"] > before + stop_seconds(options)
    upgrade = container_of(found["Job/afhost-upgrade"])["command"]

    assert names == [("afhost", "serve"), ("afhost", "worker")]
    assert (upgrade[0], callable(_parser().parse_args(upgrade[1:]).command)) == ("afhost", True)
    assert {*found["Secret/afhost"]["stringData"]} == {DATABASE_VARIABLE}
    for name in ("Job/afhost-upgrade", "Deployment/afhost", "Deployment/afhost-worker"):
        assert container_of(found[name])["envFrom"] == [{"secretRef": {"name": "afhost"}}]


def test_probes_and_service_ask_where_the_server_answers() -> None:
    found = manifests()
    container = container_of(found["Deployment/afhost"])
    options = _parser().parse_args(container["command"][1:])
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}

    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": READINESS,
        "readiness": READINESS,
        "liveness": LIVENESS,
    }
    ports = [
        *(probe["port"] for probe in probes.values()),
        *(port["containerPort"] for port in container["ports"]),
        *(port["targetPort"] for port in found["Service/afhost"]["spec"]["ports"]),
    ]
    assert ports == [options.port] * 5
    assert options.host == "0.0.0.0"


def test_selectors_find_the_pods() -> None:
    found = manifests()
    labels = {
        name: found[name]["spec"]["template"]["metadata"]["labels"]
        for name in ("Deployment/afhost", "Deployment/afhost-worker")
    }

    assert all(found[name]["spec"]["selector"]["matchLabels"] == of for name, of in labels.items())
    assert found["Service/afhost"]["spec"]["selector"] == labels["Deployment/afhost"]
    assert found["PodDisruptionBudget/afhost"]["spec"]["selector"]["matchLabels"] == labels["Deployment/afhost"]
    assert found["PodDisruptionBudget/afhost"]["spec"]["minAvailable"] < found["Deployment/afhost"]["spec"]["replicas"]
    assert labels["Deployment/afhost"] != labels["Deployment/afhost-worker"]


def test_the_unit_for_systemd_starts_a_server_and_gives_it_time_to_stop() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(documented("ini"))
    service = unit["Service"]
    program, command, *flags = shlex.split(service["ExecStart"].replace("%i", "8001"))
    options = _parser().parse_args([command, *flags])

    assert (Path(program).name, command, options.port) == ("afhost", "serve", 8001)
    assert int(service["TimeoutStopSec"]) > stop_seconds(options)
    assert service["Environment"].startswith(f"{DATABASE_VARIABLE}=")


def test_a_stop_takes_no_longer_than_the_page_says() -> None:
    # What does not end in order: runs, readers, the engine's connections, and the last tasks.
    assert lifecycle.DRAIN_OVERRUN + serve.LINGER + procrastinate.CLOSE_SECONDS + runner.PATIENCE <= STOP_OVERRUN


async def test_a_process_opens_as_many_connections_as_the_page_says_at_most(postgres_url: str) -> None:
    documented_most = re.search(r"opens at most (\d+) connections", PAGE.read_text(encoding="utf-8"))
    assert documented_most is not None
    host = AgentFrameworkHost(
        ScriptedAgent(*[["hello"]] * 200), channels=[ResponsesChannel()], database_url=postgres_url
    )
    counts: list[int] = []

    async with live.serve(host.app) as served:

        async def ask(number: int) -> None:
            for _ in range(5):
                await served.client.responses.create(input="hi", background=number % 2 == 0)
                counts.append(await asyncio.to_thread(_connections, postgres_url))

        await asyncio.gather(*(ask(number) for number in range(40)))

    # More than the stores' own: otherwise nothing was counted.
    assert POOL_SIZE < max(counts) <= int(documented_most[1])


def _connections(url: str) -> int:
    with psycopg.connect(url, application_name="operator") as connection:
        counted = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
            "application_name = 'agent-framework-hosting'"
        ).fetchone()
    assert counted is not None
    return int(counted[0])
