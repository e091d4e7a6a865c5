"""Broken requests by the thousand: no 500, no hang, and the next good request is answered."""

from __future__ import annotations

import json
import os
import random
import time
from copy import deepcopy
from typing import Any
from urllib.parse import quote

import live
import pytest
import raw
import wire

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

SECONDS = float(os.environ.get("FUZZ_SECONDS", "4"))
"""For each of the tests that go on until the time is over; their seeds are fixed, so more seconds find more."""

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
GOOD: list[dict[str, Any]] = [
    {"input": "q"},
    {"input": "q", "stream": True, "stream_options": {"include_obfuscation": False}, "include": ["reasoning.encrypted_content"]},
    {"input": "q", "background": True, "store": False, "metadata": {"k": "v"}},
    {
        "model": "a",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "q"}, {"type": "input_image", "image_url": "https://x.y/z.png"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": []}]},
            {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "1"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "t"}]},
            {"type": "item_reference", "id": "rs_1"},
        ],
        "tools": [
            {"type": "function", "name": "f", "parameters": SCHEMA, "strict": True},
            {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
        ],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "temperature": 0.5,
        "top_p": 0.5,
        "top_logprobs": 1,
        "max_output_tokens": 16,
        "max_tool_calls": 1,
        "parallel_tool_calls": False,
        "truncation": "auto",
        "service_tier": "flex",
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "instructions": "Be kind.",
    },
    {
        "input": [
            {"role": "user", "content": [{"type": "input_file", "filename": "f.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}]},
            {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "f", "arguments": "{}"},
            {"type": "custom_tool_call", "call_id": "call_2", "name": "c", "input": "x"},
            {"type": "custom_tool_call_output", "call_id": "call_2", "output": "y"},
            {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "f", "arguments": "{}", "output": "1"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
            {"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "code": "1", "container_id": "c", "outputs": []},
            {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "aGVsbG8="},
            {"type": "shell_call", "id": "sh_1", "call_id": "call_3", "status": "completed", "action": {"commands": ["ls"]}},
        ]
    },
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**31, 2**63, -(2**64), 10**400, 1e308, "", "q", "\x00", "\ud800", "\u2028", "é" * 300,
    "../../x", "a" * 5_000, [], {}, [[]], [{}], {"": ""}, {"type": None}, {"type": "message"}, {"type": "function"},
    {"id": "x"}, {"role": "user"}, [None], {"type": ["x"]}, {"role": "user", "content": {"type": "input_text"}},
    "auto", "required", "resp_1", "data:;base64,!!!", "data:image/png;base64,AA==", "NaN", "function_call", "item_reference",
]  # fmt: skip


def mutated(body: Any, chance: random.Random) -> Any:
    """Return a copy of `body` with a few of its places changed, moved or gone."""
    copy = deepcopy(body)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        holder, key = chance.choice(list(places(copy)))
        match chance.randrange(6):
            case 0:
                del holder[key]
            case 1:
                other_holder, other_key = chance.choice(list(places(copy)))
                holder[key] = deepcopy(other_holder[other_key])
            case 2 if isinstance(holder, list):
                holder.extend(deepcopy([holder[key] for _ in range(chance.randrange(3))]))
            case 3 if isinstance(holder, dict):
                holder[chance.choice(["type", "id", "role", "content", "call_id", "x", "", "\ud800"])] = holder.pop(key)
            case _:
                holder[key] = deepcopy(chance.choice(VALUES))
        if not copy:
            break
    return copy


def places(node: Any) -> Any:
    """Yield every place in `node` where a value is."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield node, key
        yield from places(value)


def damaged(text: bytes, chance: random.Random) -> bytes:
    """Return `text` with some of its bytes changed, gone or repeated."""
    data = bytearray(text)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randint(1, 5)]
            case _:
                data[at:at] = chance.choice(
                    [b'"', b"{", b"[", b"\\ud83d", b"\\", b"\x00", b"\xff", b"1e999", b"-", b"NaN"]
                )
        if not data:
            break
    return bytes(data)


def check(answer: raw.Answer, sent: object) -> None:
    """Check that an answer is a good one or a refusal in the form of the API; the agent never fails, so no run may."""
    assert answer.status in {200, 400, 404}, (answer, sent)
    if answer.headers["content-type"].startswith("text/event-stream"):
        events = wire.parse_sse(answer.body)
        for event in events:
            without_tools(event.get("response", {}))
        wire.check_stream(events)
        assert events[-1]["type"] == "response.completed", sent
    elif answer.status == 200:
        response = without_tools(answer.json())
        wire.check_response(response)
        assert response["status"] in {"completed", "queued"}, sent
    else:
        wire.check_error(answer.json())
        assert answer.json()["error"]["message"], sent


def without_tools(response: dict[str, Any]) -> dict[str, Any]:
    """Empty the echo of the tools, which repeats nonsense inside a tool as it was sent."""
    if "tools" in response:
        response["tools"] = []
    return response


def let_all_through(request: Any, **_: Any) -> Any:
    return request


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize("seed", [1, 2])
async def test_no_body_breaks_the_server(seed: int) -> None:
    chance = random.Random(seed)
    channel = (
        ResponsesChannel()
        if seed == 1
        else ResponsesChannel(
            run_hook=let_all_through,
            settings=ResponsesSettings(hosted_tools="pass", strict_fields=True, server_calls="mcp_call"),
        )
    )
    host = AgentFrameworkHost(ScriptedAgent(["Hel", "lo"]), channels=[channel])
    statuses: list[int] = []
    async with live.serve(host.app) as served, raw.connect(served.base_url) as connection:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            body: Any = mutated(chance.choice(GOOD), chance)
            sent = json.dumps(body).encode()
            if chance.random() < 0.3:
                sent = damaged(sent, chance)
            answer = await connection.request("POST", "/responses", sent)
            check(answer, sent)
            statuses.append(answer.status)
        good = await connection.request("POST", "/responses", GOOD[0])

    assert good.json()["status"] == "completed"
    assert len(statuses) > 50
    # Otherwise the mutations are too wild, or too tame, to find anything.
    assert 0.05 < statuses.count(200) / len(statuses) < 0.95


async def test_what_the_mutations_start_from_is_good() -> None:
    settings = ResponsesSettings(hosted_tools="pass", strict_fields=True)
    host = AgentFrameworkHost(
        ScriptedAgent(["hello"]), channels=[ResponsesChannel(run_hook=let_all_through, settings=settings)]
    )
    async with live.serve(host.app) as served, raw.connect(served.base_url) as connection:
        answers = [await connection.request("POST", "/responses", body) for body in GOOD]

    assert [(answer.status, answer.body if answer.status != 200 else b"") for answer in answers] == [(200, b"")] * len(
        GOOD
    )


async def test_no_address_breaks_the_server() -> None:
    chance = random.Random(3)
    host = AgentFrameworkHost(ScriptedAgent(["hello"]), channels=[ResponsesChannel()])
    async with live.serve(host.app) as served, raw.connect(served.base_url) as connection:
        created = (await connection.request("POST", "/responses", {"input": "q", "background": True})).json()["id"]
        pieces = [
            created, "resp_1", "responses", "v1", "..", ".", "%2e%2e%2f", "%00", "%ff", "%e2%80%a8", "a" * 3_000, "~", "x%20y",
            "cancel", "input_items", "models", "%F0%9F%98%80", "%ed%a0%80", "%", "%zz", ";a=b", "@", "compact",
        ]  # fmt: skip
        names = [
            "stream",
            "starting_after",
            "limit",
            "order",
            "after",
            "before",
            "include",
            "include[]",
            "include_obfuscation",
            "x",
            "",
        ]
        values = [
            "",
            "true",
            "false",
            "TRUE",
            "-1",
            "0",
            "1",
            "1e3",
            "9" * 30,
            "abc",
            "%00",
            "%ff",
            "asc",
            "desc",
            created,
            "\u0663",  # a digit to str.isdigit
            "1_0",
            " 1",
        ]
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            prefix = chance.choice(["/responses", "/v1/responses", "", "/v1", "/models"])
            path = "/".join([prefix, *chance.choices(pieces, k=chance.randrange(1, 4))])
            query = "&".join(
                f"{chance.choice(names)}={quote(chance.choice(values), safe='%')}" for _ in range(chance.randrange(4))
            )
            method = chance.choice(["GET", "GET", "GET", "POST", "DELETE", "PUT", "OPTIONS", "PATCH"])
            if method == "DELETE" and created in path:
                continue
            answer = await connection.request(method, f"{path}?{query}" if query else path, b"")
            assert answer.status in {200, 400, 404, 405}, (method, path, query, answer)
            if answer.status >= 400:
                wire.check_error(answer.json())
                assert answer.headers["x-request-id"]
        good = await connection.request("POST", "/responses", GOOD[0])

    assert good.json()["status"] == "completed"
