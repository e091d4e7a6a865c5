"""Ids that no one of ours could be, wherever a caller may write an id: refused in the form of the API, and nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import live
import pytest
import raw
import stored
import wire
from states import State

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel

TEXTS = {
    "traversal": "../../x",
    "absolute": "/etc/passwd",
    "backslashes": "..\\..\\x",
    "long": "a" * 10_000,
    "control": "a\r\nset-cookie: a=b",
    "escape": "\x1b[2J\x7f",
    "nul": "a\x00b",
    "surrogate": "\ud800",
    "pair the wrong way round": "\udc00\ud800",
    "emoji": "\U0001f600",
    "line separator": "\u2028",
    "right to left": "\u202egnp.exe",
    "quotes": "'; DROP TABLE afhost_responses; --",
    "percent": "%",
    "blank": " ",
    "tombstone": "tombstone:x",
}
# A JSON null means that there is none, and is no hostile id.
OTHERS: dict[str, Any] = {
    "number": 7,
    "decimal": 1e300,
    "true": True,
    "array": ["x"],
    "object": {"id": {"id": "x"}},
    "deep": [[[[[["x"]]]]]],
    "empty": "",
}

# {bad} is the id, {conversation} and {item} are good ones.
PATHS: list[tuple[str, str, Any]] = [
    ("GET", "/v1/responses/{bad}", None),
    ("GET", "/v1/responses/{bad}?stream=true", None),
    ("DELETE", "/v1/responses/{bad}", None),
    ("POST", "/v1/responses/{bad}/cancel", None),
    ("GET", "/v1/responses/{bad}/input_items", None),
    ("GET", "/v1/responses/{response}/input_items?after={bad}", None),
    ("GET", "/v1/responses/{response}/input_items?before={bad}", None),
    ("GET", "/v1/responses/{response}?stream=true&starting_after={bad}", None),
    ("GET", "/v1/conversations/{bad}", None),
    ("POST", "/v1/conversations/{bad}", {"metadata": {"a": "b"}}),
    ("DELETE", "/v1/conversations/{bad}", None),
    ("GET", "/v1/conversations/{bad}/items", None),
    ("POST", "/v1/conversations/{bad}/items", {"items": [{"role": "user", "content": "hello"}]}),
    ("GET", "/v1/conversations/{bad}/items/{item}", None),
    ("DELETE", "/v1/conversations/{bad}/items/{item}", None),
    ("GET", "/v1/conversations/{conversation}/items/{bad}", None),
    ("DELETE", "/v1/conversations/{conversation}/items/{bad}", None),
    ("GET", "/v1/conversations/{conversation}/items?after={bad}", None),
    ("GET", "/v1/conversations/{conversation}/items?before={bad}", None),
    ("GET", "/v1/models/{bad}", None),
]
BAD = object()
BODIES: dict[str, tuple[str, Any]] = {
    "previous response": ("/v1/responses", {"input": "q", "previous_response_id": BAD}),
    "previous response of a stream": ("/v1/responses", {"input": "q", "previous_response_id": BAD, "stream": True}),
    "previous response in the background": (
        "/v1/responses",
        {"input": "q", "previous_response_id": BAD, "background": True},
    ),
    "previous response, unstored": ("/v1/responses", {"input": "q", "previous_response_id": BAD, "store": False}),
    "conversation": ("/v1/responses", {"input": "q", "conversation": BAD}),
    "conversation as an object": ("/v1/responses", {"input": "q", "conversation": {"id": BAD}, "stream": True}),
    "reference": ("/v1/responses", {"input": [{"type": "item_reference", "id": BAD}]}),
    "reference in a conversation": (
        "/v1/responses",
        {"input": [{"type": "item_reference", "id": BAD}], "conversation": "{conversation}"},
    ),
    "call of an output": (
        "/v1/responses",
        {"input": [{"type": "function_call_output", "call_id": BAD, "output": "x"}]},
    ),
    "approval request": (
        "/v1/responses",
        {"input": [{"type": "mcp_approval_response", "approval_request_id": BAD, "approve": True}]},
    ),
}


async def served_ids(served: live.LiveHost) -> dict[str, str]:
    """Return the ids of a response, a conversation and an item that are there."""
    response = await served.http.post("/v1/responses", json={"input": "hello", "background": True})
    await served.http.get(f"/v1/responses/{response.json()['id']}?stream=true")
    body = {"items": [{"role": "user", "content": "hello"}]}
    conversation = (await served.http.post("/v1/conversations", json=body)).json()["id"]
    items = (await served.http.get(f"/v1/conversations/{conversation}/items")).json()["data"]
    return {"response": response.json()["id"], "conversation": conversation, "item": items[0]["id"]}


def check_refused(answer: raw.Answer, what: object) -> None:
    assert 400 <= answer.status < 500, (what, answer)
    wire.check_error(answer.json())
    assert "set-cookie" not in answer.headers
    assert len(answer.body) < 12_000, (what, len(answer.body))


def left_by(state: State, tmp_path: Path) -> tuple[dict[str, int], list[str]]:
    """Return the size of every table, and every path below the test's own directory."""
    paths = [str(path) for path in tmp_path.rglob("*") if not path.name.startswith("host.db-")]
    # Processes say that they are alive, in rows of their own.
    alive = {"afhost_processes", "procrastinate_workers"}
    return {table: size for table, size in stored.row_bytes(state).items() if table not in alive}, sorted(paths)


def filled(value: Any, bad: Any, ids: dict[str, str]) -> Any:
    if value is BAD:
        return bad
    if isinstance(value, dict):
        return {name: filled(item, bad, ids) for name, item in value.items()}
    if isinstance(value, list):
        return [filled(item, bad, ids) for item in value]
    return ids["conversation"] if value == "{conversation}" else value


@pytest.mark.behaviour("A10")
async def test_a_hostile_id_in_a_path_or_query_is_refused_and_leaves_nothing(state: State, tmp_path: Path) -> None:
    agent = ScriptedAgent(["hi"])
    host = AgentFrameworkHost(agent, channels=[ResponsesChannel()], **state.options)
    async with live.serve(host.app) as served, raw.connect(served.base_url) as connection:
        ids = await served_ids(served)
        before = left_by(state, tmp_path)
        for name, bad in TEXTS.items():
            # Once as a client would write it, once with every byte hidden from whatever looks at the path on the way.
            written = quote(bad, safe="", errors="surrogatepass")
            hidden = "".join(f"%{byte:02x}" for byte in bad.encode(errors="surrogatepass"))
            for method, path, body in PATHS:
                for form in {written, hidden} if len(bad) < 100 else {written}:
                    target = path.format(bad=form, **ids)
                    answer = await connection.request(method, target, body)
                    check_refused(answer, (name, method, target[:100]))
        after = left_by(state, tmp_path)
        good = await connection.request("GET", f"/v1/conversations/{ids['conversation']}/items/{ids['item']}")

    assert good.status == 200
    assert after == before
    assert len(agent.runs) == 1


@pytest.mark.behaviour("A10", "C6")
async def test_a_hostile_id_in_a_body_is_refused_and_leaves_nothing(state: State, tmp_path: Path) -> None:
    agent = ScriptedAgent(["hi"])
    host = AgentFrameworkHost(agent, channels=[ResponsesChannel()], **state.options)
    async with live.serve(host.app) as served, raw.connect(served.base_url) as connection:
        ids = await served_ids(served)
        before = left_by(state, tmp_path)
        for name, bad in (TEXTS | OTHERS).items():
            for place, (path, body) in BODIES.items():
                # As ASCII: a lone surrogate cannot be written in UTF-8.
                answer = await connection.request("POST", path, json.dumps(filled(body, bad, ids)).encode())
                check_refused(answer, (name, place))
        # The same id as raw bytes that are no UTF-8.
        answer = await connection.request("POST", "/v1/responses", b'{"input":"q","previous_response_id":"\xff\xfe"}')
        check_refused(answer, "no UTF-8")
        after = left_by(state, tmp_path)

    assert after == before
    assert len(agent.runs) == 1


@pytest.mark.behaviour("A10")
@pytest.mark.parametrize("where", ["conversation", "items"])
async def test_an_item_with_a_hostile_id_is_refused_or_comes_back_as_it_was(state: State, where: str) -> None:
    host = AgentFrameworkHost(ScriptedAgent(["hi"]), channels=[ResponsesChannel()], **state.options)
    async with live.serve(host.app) as served, raw.connect(served.base_url) as connection:
        for name, bad in (TEXTS | OTHERS).items():
            conversation = (await connection.request("POST", "/v1/conversations", {})).json()["id"]
            path = "/v1/conversations" if where == "conversation" else f"/v1/conversations/{conversation}/items"
            body = {"items": [{"type": "message", "role": "user", "content": "q", "id": bad}]}
            answer = await connection.request("POST", path, json.dumps(body).encode())
            if answer.status != 200:
                check_refused(answer, name)
                continue
            if where == "conversation":
                conversation = answer.json()["id"]
            items = f"/v1/conversations/{conversation}/items"
            listed = (await connection.request("GET", items)).json()["data"]
            # An empty id is none: the item gets one.
            kept = bad or listed[0]["id"]
            assert [item["id"] for item in listed] == [kept], name
            one = f"{items}/{quote(kept, safe='', errors='surrogatepass')}"
            assert (await connection.request("GET", one)).json() == listed[0], name
            assert (await connection.request("DELETE", one)).status == 200, name
            assert (await connection.request("GET", items)).json()["data"] == [], name


@pytest.mark.behaviour("A10", "D9")
@pytest.mark.parametrize(
    "key",
    [b"", b" ", b"x" * 10_000, b"a\tb", b"\xff\xfe", b"\xf0\x9f\x98\x80"],
    ids=lambda key: repr(key)[:12],
)
async def test_a_hostile_idempotency_key_is_refused_and_leaves_nothing(
    state: State, tmp_path: Path, key: bytes
) -> None:
    agent = ScriptedAgent(["hi"])
    host = AgentFrameworkHost(agent, channels=[ResponsesChannel()], **state.options)
    body = b'{"input":"q"}'
    async with live.serve(host.app) as served, raw.connect(served.base_url) as connection:
        before = left_by(state, tmp_path)
        await connection.send_bytes(
            b"POST /v1/responses HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"idempotency-key: %b\r\n\r\n%b" % (len(body), key, body)
        )
        answer = await connection.answer()
        after = left_by(state, tmp_path)

    check_refused(answer, key)
    assert after == before
    assert agent.runs == []


@pytest.mark.behaviour("A10", "D9")
@pytest.mark.parametrize("key", ["../../x", "'; DROP TABLE x", "tombstone:x", "x" * 255, "%00"])
async def test_an_idempotency_key_that_is_only_strange_is_a_name_like_any_other(state: State, key: str) -> None:
    agent = ScriptedAgent(["hi"])
    host = AgentFrameworkHost(agent, channels=[ResponsesChannel()], **state.options)
    async with live.serve(host.app) as served:
        answers = [
            await served.http.post("/v1/responses", json={"input": "q"}, headers={"idempotency-key": key})
            for _ in range(2)
        ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert len(agent.runs) == 1
