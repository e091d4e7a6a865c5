"""HTTP as a socket sees it: framing, flushing, headers, limits, connections that stay usable."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import live
import pytest
import raw
import wire
from agent_framework import Agent, Content, tool

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings, http

SECONDS = 60.0
KEEP_ALIVE = b": keep-alive\n\n"
HARD_TEXTS = {
    "line separators": "a\u2028b\u2029c\u0085d",
    "line breaks": "a\r\nb\rc\n\nd",
    "emoji": "👩\u200d👩\u200d👧 ok",
    "lone surrogates": "a\ud83d b\udc00",
    "controls": "a\x00b\x1fc\x7fd",
    "like a frame": "data: x\n\nevent: y\n\n: z",
}


def host_of(agent: Any, **settings: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(agent, channels=[ResponsesChannel(settings=ResponsesSettings(**settings))])


async def reached(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), SECONDS)


# --- Streams -----------------------------------------------------------------------------------------------------


@pytest.mark.behaviour("B10")
@pytest.mark.parametrize("request_path", ["POST", "GET"])
async def test_a_stream_has_the_headers_of_one(request_path: str) -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        answer = await served.http.post("/responses", json={"input": "q", "stream": True, "background": True})
        if request_path == "GET":
            response_id = wire.parse_sse(answer.content)[0]["response"]["id"]
            answer = await served.http.get(f"/responses/{response_id}?stream=true")

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-request-id"].startswith("req_")
    assert "content-length" not in answer.headers
    assert "content-encoding" not in answer.headers


@pytest.mark.behaviour("B10", "B15")
@pytest.mark.parametrize("background", [False, True])
async def test_each_event_is_on_the_socket_before_the_agent_goes_on(background: bool) -> None:
    gates = [Gate() for _ in range(5)]
    steps: list[Any] = [step for number, gate in enumerate(gates) for step in (gate, f"text{number} ")]
    async with live.serve(host_of(ScriptedAgent(steps)).app) as served, raw.connect(served.base_url) as connection:
        await connection.send("POST", "/responses", {"input": "q", "stream": True, "background": background})
        status, _ = await connection.head()
        body = b""
        while b"event: response.in_progress" not in body:
            body += await connection.chunk()
        await reached(gates[0].reached)
        for number, gate in enumerate(gates):
            gate.open()
            # The agent stands at the next gate, or at the end: nothing that comes later can push this delta out.
            while f"text{number} ".encode() not in body:
                body += await connection.chunk()
            if number + 1 < len(gates):
                assert not gates[number + 1]._opened.is_set()
        while chunk := await connection.chunk():
            body += chunk

    assert status == 200
    wire.check_stream(wire.parse_sse(body))


@pytest.mark.behaviour("B15")
async def test_the_arguments_of_a_client_tool_are_not_held_back_either() -> None:
    gate = Gate()
    weather: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
    model = ScriptedChatClient(
        [
            Content.from_function_call("call_1", "weather", arguments='{"ci'),
            gate,
            Content.from_function_call("call_1", "weather", arguments='ty": 1}'),
        ]
    )
    host = AgentFrameworkHost(Agent(client=model), channels=[ResponsesChannel(run_hook=lambda request, **_: request)])
    async with live.serve(host.app) as served, raw.connect(served.base_url) as connection:
        await connection.send("POST", "/responses", {"input": "q", "stream": True, "tools": [weather]})
        await connection.head()
        body = b""
        while b"event: response.function_call_arguments.delta" not in body:
            body += await connection.chunk()
        gate.open()
        while chunk := await connection.chunk():
            body += chunk

    events = wire.parse_sse(body)
    wire.check_stream(events)
    assert json.loads(events[-1]["response"]["output"][0]["arguments"]) == {"city": 1}


@pytest.mark.behaviour("B9")
@pytest.mark.parametrize("mode", ["foreground", "background", "attached"])
async def test_a_silent_run_sends_comments(mode: str) -> None:
    gate = Gate()
    async with (
        live.serve(host_of(ScriptedAgent([gate, "hello"]), keep_alive=0.05).app) as served,
        raw.connect(served.base_url) as connection,
    ):
        if mode == "attached":
            created = await served.client.responses.create(model="a", input="q", background=True)
            await connection.send("GET", f"/responses/{created.id}?stream=true")
        else:
            await connection.send(
                "POST", "/responses", {"input": "q", "stream": True, "background": mode != "foreground"}
            )
        await connection.head()
        await reached(gate.reached)
        started = asyncio.get_running_loop().time()
        body, comments = b"", 0
        while comments < 3:
            chunk = await connection.chunk()
            comments += chunk == KEEP_ALIVE
            body += chunk
        elapsed = asyncio.get_running_loop().time() - started
        gate.open()
        while chunk := await connection.chunk():
            body += chunk

    assert elapsed >= 0.1
    assert not any(line.startswith((b"id:", b"retry:")) for line in body.split(b"\n"))
    wire.check_stream(wire.parse_sse(body))


@pytest.mark.behaviour("B9")
async def test_the_official_client_reads_past_comments() -> None:
    gate = Gate()
    async with live.serve(host_of(ScriptedAgent([gate, "hello"]), keep_alive=0.02).app) as served:

        async def open_after_some_comments() -> None:
            async with raw.connect(served.base_url) as other:
                await other.send("POST", "/responses", {"input": "q", "stream": True})
                await other.head()
                comments = 0
                while comments < 3:
                    comments += await other.chunk() == KEEP_ALIVE
            gate.open()

        async with served.client.responses.stream(model="a", input="q") as stream:
            opener = asyncio.create_task(open_after_some_comments())
            response = await stream.get_final_response()
        await opener

    assert response.output_text == "hello"


@pytest.mark.behaviour("B12")
@pytest.mark.parametrize("text", HARD_TEXTS.values(), ids=HARD_TEXTS)
async def test_hard_text_survives_in_one_frame_each(text: str) -> None:
    pieces: list[Any] = [text, *text]
    async with live.serve(host_of(ScriptedAgent(pieces)).app) as served:
        async with served.client.responses.stream(
            model="a", input=f"echo {text}" if text.isprintable() else "q"
        ) as stream:
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        stored = await served.client.responses.retrieve(final.id)
        one_shot = await served.client.responses.create(model="a", input="q")
        answer = await served.http.post("/responses", json={"input": "q", "stream": True})

    assert deltas == pieces
    assert final.output_text == stored.output_text == one_shot.output_text == text * 2
    # Every line reader there is sees the same frames.
    lines = answer.content.decode().splitlines()
    assert all(line == "" or line.startswith(("event: response.", "data: {")) for line in lines)
    wire.check_stream(wire.parse_sse(answer.content))


@pytest.mark.behaviour("B12")
@pytest.mark.parametrize("text", HARD_TEXTS.values(), ids=HARD_TEXTS)
async def test_hard_input_reaches_the_agent_and_comes_back_unchanged(text: str) -> None:
    agent = ScriptedAgent(["hello"])
    async with live.serve(host_of(agent).app) as served:
        # json.dumps escapes what is not ASCII, so that lone surrogates travel as JSON allows them to.
        created = await served.http.post(
            "/responses",
            content=json.dumps({"input": text, "metadata": {"k": text}, "instructions": text}),
            headers={"content-type": "application/json"},
        )
        items = await served.http.get(f"/responses/{created.json()['id']}/input_items")

    messages: Any = agent.runs[0].messages
    assert messages[0].text == text
    assert created.json()["metadata"]["k"] == created.json()["instructions"] == text
    assert items.json()["data"][0]["content"][0]["text"] == text


async def test_the_done_marker_comes_only_when_the_operator_asks_for_it() -> None:
    for has_marker in (False, True):
        async with live.serve(host_of(ScriptedAgent(["hello"]), done_marker=has_marker).app) as served:
            answer = await served.http.post("/responses", json={"input": "q", "stream": True, "background": True})
            response_id = json.loads(answer.text.split("data: ")[1].split("\n")[0])["response"]["id"]
            replay = await served.http.get(f"/responses/{response_id}?stream=true")
            async with served.client.responses.stream(model="a", input="q") as stream:
                final = await stream.get_final_response()

        assert answer.text.endswith("data: [DONE]\n\n") is has_marker
        assert replay.content == answer.content
        assert final.output_text == "hello"


# --- Connections -------------------------------------------------------------------------------------------------


@pytest.mark.behaviour("G3", "C3")
async def test_an_exception_of_the_agent_leaves_the_connection_usable_and_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = ScriptedAgent([ValueError("secret inside")], ["half", ValueError("secret inside")], ["hello"])
    async with live.serve(host_of(agent).app) as served, raw.connect(served.base_url) as connection:
        failed = await connection.request("POST", "/responses", {"input": "q"})
        half = await connection.request("POST", "/responses", {"input": "q", "stream": True})
        good = await connection.request("POST", "/responses", {"input": "q"})

    assert (failed.status, failed.headers["x-should-retry"]) == (500, "false")
    wire.check_answer(500, failed.json(), path="/responses")
    assert wire.parse_sse(half.body)[-1]["type"] == "response.failed"
    assert good.json()["status"] == "completed"
    assert b"secret" not in failed.body + half.body
    logged = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert [str(error.__cause__) for error in logged if error] == ["secret inside"] * 2


@pytest.mark.behaviour("C3")
async def test_no_exception_text_of_a_tool_or_a_hook_is_in_any_answer() -> None:
    @tool(approval_mode="never_require")
    def explode() -> str:
        """Explode."""
        raise ValueError("secret inside")

    model = ScriptedChatClient([Content.from_function_call("call_1", "explode", arguments="{}")], ["It exploded."])
    settings = ResponsesSettings(server_calls="function_call")
    host = AgentFrameworkHost(Agent(client=model, tools=[explode]), channels=[ResponsesChannel(settings=settings)])
    async with live.serve(host.app) as served:
        answer = await served.http.post("/responses", json={"input": "q", "stream": True})

    def broken_hook(request: Any, **_: Any) -> Any:
        raise ValueError("secret inside")

    channel = ResponsesChannel(run_hook=broken_hook)
    async with live.serve(AgentFrameworkHost(ScriptedAgent(["hello"]), channels=[channel]).app) as served:
        hook_answer = await served.http.post("/responses", json={"input": "q"})

    events = wire.parse_sse(answer.content)
    wire.check_stream(events)
    assert [item["type"] for item in events[-1]["response"]["output"]][1] == "function_call_output"
    assert hook_answer.status_code == 500
    assert "secret" not in answer.text + hook_answer.text


async def test_many_requests_share_one_connection() -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served, raw.connect(served.base_url) as connection:
        seen = []
        for number in range(30):
            body = {"input": "q", "stream": number % 3 == 1} if number % 3 != 2 else {"input": ""}
            answer = await connection.request("POST", "/responses", body)
            seen.append((answer.status, answer.headers["x-request-id"]))

    assert [status for status, _ in seen] == [200, 200, 400] * 10
    assert len({request_id for _, request_id in seen}) == 30


# --- Limits ------------------------------------------------------------------------------------------------------


@pytest.mark.behaviour("G4")
async def test_a_declared_length_over_the_limit_is_refused_before_the_body_comes() -> None:
    agent = ScriptedAgent(["hello"])
    async with (
        live.serve(host_of(agent, max_body_bytes=1000).app) as served,
        raw.connect(served.base_url) as connection,
    ):
        await connection.send_head("POST", "/v1/responses", {"content-length": "1001"})
        answer = await connection.answer()

    assert (answer.status, answer.headers["x-should-retry"]) == (413, "false")
    assert answer.json() == {
        "error": {"message": "Request body too large.", "type": "invalid_request_error", "param": None, "code": None}
    }
    assert agent.runs == []


@pytest.mark.behaviour("G4")
async def test_a_chunked_upload_over_the_limit_is_refused_while_it_comes() -> None:
    async with (
        live.serve(host_of(ScriptedAgent(["hello"]), max_body_bytes=1000).app) as served,
        raw.connect(served.base_url) as connection,
    ):
        await connection.send_head("POST", "/v1/responses", {"transfer-encoding": "chunked"})
        await connection.send_bytes(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        await connection.send_bytes(b"1\r\n \r\n")
        # The upload never ends; the answer comes all the same.
        answer = await connection.answer()

    assert (answer.status, answer.headers["x-should-retry"]) == (413, "false")
    wire.check_answer(413, answer.json(), path="/responses")


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    body = json.dumps({"input": "q"}).encode()
    async with (
        live.serve(host_of(ScriptedAgent(["hello"]), max_body_bytes=len(body)).app) as served,
        raw.connect(served.base_url) as connection,
    ):
        whole = await connection.request("POST", "/responses", body)
        await connection.send_head("POST", "/responses", {"transfer-encoding": "chunked"})
        for byte in body:
            await connection.send_bytes(b"1\r\n" + bytes([byte]) + b"\r\n")
        await connection.send_bytes(b"0\r\n\r\n")
        chunked = await connection.answer()

    assert (whole.status, chunked.status) == (200, 200)


async def test_a_client_that_leaves_in_the_middle_of_its_upload_starts_nothing() -> None:
    agent = ScriptedAgent(["hello"])
    async with live.serve(host_of(agent).app) as served:
        async with raw.connect(served.base_url) as connection:
            await connection.send_head("POST", "/responses", {"content-length": "100"})
            await connection.send_bytes(b'{"input": "q"')
            connection.abort()
        answer = await served.http.post("/responses", json={"input": "q"})

    assert answer.status_code == 200
    assert len(agent.runs) == 1


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", None])
async def test_json_with_parameters_or_without_a_content_type_is_read(content_type: str | None) -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        headers = {} if content_type is None else {"content-type": content_type}
        answer = await served.http.post("/responses", content=b'{"input": "q"}', headers=headers)

    assert answer.status_code == 200


async def test_what_the_accept_header_says_changes_nothing() -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        json_answer = await served.http.post("/responses", json={"input": "q"}, headers={"accept": "text/event-stream"})
        stream = await served.http.post(
            "/responses", json={"input": "q", "stream": True}, headers={"accept": "application/json"}
        )

    assert json_answer.headers["content-type"] == "application/json"
    assert stream.headers["content-type"].startswith("text/event-stream")


# --- Echo --------------------------------------------------------------------------------------------------------

ECHOED: dict[str, Any] = {
    "model": "mine",
    "instructions": "Be kind.",
    "metadata": {"k": "v"},
    "temperature": 0.25,
    "top_p": 0.5,
    "top_logprobs": 3,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "max_output_tokens": 99,
    "max_tool_calls": 7,
    "parallel_tool_calls": False,
    "reasoning": {"effort": "low", "summary": "auto"},
    "truncation": "auto",
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "store": True,
    "tool_choice": "required",
    "tools": [
        {
            "type": "function",
            "name": "weather",
            "description": None,
            "parameters": {"type": "object", "properties": {}},
            "strict": False,
        }
    ],
    "text": {"format": {"type": "json_object"}, "verbosity": "low"},
}
DEFAULTS: dict[str, Any] = {
    "model": "scripted",
    "instructions": None,
    "metadata": {},
    "temperature": 1.0,
    "top_p": 1.0,
    "top_logprobs": 0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "truncation": "disabled",
    "user": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
    "store": True,
    "background": False,
    "tool_choice": "auto",
    "tools": [],
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "previous_response_id": None,
    "service_tier": "default",
    "error": None,
    "incomplete_details": None,
}


@pytest.mark.behaviour("C4")
async def test_every_field_of_a_request_is_echoed_in_every_form_of_its_response() -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        one_shot = (await served.http.post("/responses", json={"input": "q", **ECHOED})).json()
        streamed = await served.http.post("/responses", json={"input": "q", "stream": True, **ECHOED})
        continued = await served.http.post("/responses", json={"input": "q", "previous_response_id": one_shot["id"]})
        queued = (await served.http.post("/responses", json={"input": "q", "background": True, **ECHOED})).json()
        stored = (await served.http.get(f"/responses/{one_shot['id']}")).json()

    lifecycle = [event["response"] for event in wire.parse_sse(streamed.content) if "response" in event]
    for response in (one_shot, stored, queued, *lifecycle):
        assert {name: response[name] for name in ECHOED} == ECHOED
    assert queued["background"] is True
    assert continued.json()["previous_response_id"] == one_shot["id"]
    assert continued.json()["instructions"] is None
    assert "input" not in one_shot
    assert "stream" not in one_shot


@pytest.mark.behaviour("C4")
@pytest.mark.parametrize("nothing", [{}, dict.fromkeys({*ECHOED, "previous_response_id", "background", "stream"})])
async def test_what_a_request_does_not_say_has_its_default(nothing: dict[str, Any]) -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        response = (await served.http.post("/responses", json={"input": "q", **nothing})).json()

    assert {name: response[name] for name in DEFAULTS} == DEFAULTS
    assert "conversation" not in response


@pytest.mark.behaviour("C7")
async def test_an_input_message_needs_no_type() -> None:
    agent = ScriptedAgent(["hello"])
    async with live.serve(host_of(agent).app) as served:
        answer = await served.http.post("/responses", json={"input": [{"role": "user", "content": "q"}]})

    messages: Any = agent.runs[0].messages
    assert answer.status_code == 200
    assert [(message.role, message.text) for message in messages] == [("user", "q")]


async def test_work_that_ends_in_the_moment_the_client_leaves_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_PATIENCE", 0)
    is_watched, is_waiting, both = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def receive() -> Any:
        is_watched.set()
        await both.wait()
        return {"type": "http.disconnect"}

    async def work() -> str:
        await is_watched.wait()
        is_waiting.set()
        await both.wait()  # after the watch, so that it ends first
        return "done"

    async def request() -> str | None:
        return await http.until_disconnect(receive, work())

    task = asyncio.create_task(request())
    await asyncio.wait_for(is_waiting.wait(), 60)
    both.set()

    assert await asyncio.wait_for(task, 60) == "done"
