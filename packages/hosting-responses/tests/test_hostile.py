"""What callers do that no client library would, and readers that cannot keep up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, MutableMapping, Sequence
from typing import Any

import live
import pytest
import raw
import states

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.runs.base import LogEntry
from agent_framework_hosting.testing.agents import ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel
from agent_framework_hosting_responses.http import EventStream
from agent_framework_hosting_responses.protocol.sse import frames

HOSTILE_PATHS = [
    "/responses/",
    "//responses",
    "/responses/..%2f..%2fetc%2fpasswd",
    "/responses/%2e%2e/readiness",
    "/responses/%00",
    "/responses/%ff%fe",
    "/responses/x%0d%0aset-cookie:%20a=b",
    "/responses/x/cancel/",
    "/responses/" + "a" * 20_000,
    "/responses/%zz?stream=true&starting_after=0",
    "/models/%ff",
    "/v1/v1/responses",
]

pytestmark = pytest.mark.usefixtures("on_every_store")

pytestmark = pytest.mark.usefixtures("on_every_store")


@pytest.mark.behaviour("A10")
@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=lambda path: path[:30])
async def test_a_path_that_leads_nowhere_is_a_short_404_in_the_form_of_the_api(path: str) -> None:
    async with (
        live.serve(
            AgentFrameworkHost(ScriptedAgent(["x"]), channels=[ResponsesChannel()], **states.here()).app
        ) as served,
        raw.connect(served.base_url) as connection,
    ):
        answer = await connection.request("GET", path)

    assert answer.status == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert len(answer.body) < 400 or len(path) < len(answer.body) < len(path) + 400
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("key", ["x-agent-user-isolation-key", "x-agent-chat-isolation-key"])
async def test_isolation_headers_that_come_twice_are_refused_before_anything_runs(key: str) -> None:
    agent = ScriptedAgent(["x"])
    host = AgentFrameworkHost(agent, channels=[ResponsesChannel()], trust_isolation_headers=True, **states.here())
    app = host.app
    body = b'{"input":"q"}'
    async with live.serve(app) as served, raw.connect(served.base_url) as connection:
        await connection.send_bytes(
            b"POST /responses HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"%b: a\r\n%b: b\r\n\r\n%b" % (len(body), key.encode(), key.title().encode(), body)
        )
        answer = await connection.answer()

    assert answer.status == 400
    assert agent.runs == []


async def test_a_reader_far_behind_is_written_to_in_pieces() -> None:
    entries: list[LogEntry] = [("response.output_text.delta", b"%d" % number) for number in range(1_000)]
    bodies: list[bytes] = []

    async def batches() -> AsyncGenerator[Sequence[LogEntry], None]:
        yield entries
        yield ()

    async def receive() -> MutableMapping[str, Any]:
        nothing: MutableMapping[str, Any] = await asyncio.get_running_loop().create_future()
        return nothing

    async def send(message: MutableMapping[str, Any]) -> None:
        bodies.append(message.get("body", b""))

    await EventStream(batches())({"type": "http"}, receive, send)

    assert b"".join(bodies) == frames(entries) + b": keep-alive\n\n"
    assert max(len(body) for body in bodies) < len(frames(entries)) / 3
