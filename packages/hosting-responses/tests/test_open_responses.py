"""The HTTP tests of the Open Responses compliance suite, sent to a host that is really served.

Each test is named after the suite's own, sends its request and makes its checks; every body and event is held against
the suite's schema and, by the HTTP client of `live`, against our stricter one. Source: contract §10.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import zlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import live
import pytest
import wire
from agent_framework import Agent, Content

from agent_framework_hosting import AgentFrameworkHost, ChannelRequest
from agent_framework_hosting.testing.agents import ChatStep, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel

JsonObject = dict[str, Any]

WEATHER_TOOL: JsonObject = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}},
        "required": ["location"],
    },
}
WEATHER_QUESTION: JsonObject = {
    "type": "message",
    "role": "user",
    "content": "What's the weather like in San Francisco?",
}
# A provider sends the arguments in pieces; a client must get them whole.
WEATHER_CALL: Sequence[ChatStep] = (
    Content.from_function_call("call_weather", "get_weather", arguments='{"location": '),
    Content.from_function_call("call_weather", "get_weather", arguments='"San Francisco, CA"}'),
)


def let_all_through(request: ChannelRequest, **_: object) -> ChannelRequest:
    return request


@asynccontextmanager
async def serving(*turns: Sequence[ChatStep]) -> AsyncGenerator[tuple[live.LiveHost, ScriptedChatClient], None]:
    model = ScriptedChatClient(*turns)
    agent = Agent(client=model, name="assistant")
    host = AgentFrameworkHost(target=agent, channels=[ResponsesChannel(run_hook=let_all_through)])
    async with live.serve(host.app) as served:
        yield served, model


def user(text: str) -> JsonObject:
    return {"type": "message", "role": "user", "content": text}


def assistant(text: str, **fields: str) -> JsonObject:
    return {"type": "message", "role": "assistant", "content": text, **fields}


async def create(served: live.LiveHost, **fields: object) -> JsonObject:
    """Send a request of the suite and check what it checks of every body."""
    answer = await served.http.post("/v1/responses", json={"model": "assistant", **fields})
    assert answer.status_code == 200, answer.text
    body: JsonObject = answer.json()
    wire.check_open_responses(body)
    return body


async def stream(served: live.LiveHost, **fields: object) -> tuple[list[JsonObject], JsonObject]:
    """Stream a request of the suite: its events, and the final response."""
    answer = await served.http.post("/v1/responses", json={"model": "assistant", "stream": True, **fields})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = wire.parse_sse(answer.content)
    wire.check_stream(events)
    return events, wire.check_open_responses_stream(events)


def assert_answered(body: JsonObject) -> None:
    assert body["output"]
    assert body["status"] == "completed"


def text_of(body: JsonObject) -> str:
    return "".join(part["text"] for item in body["output"] if item["type"] == "message" for part in item["content"])


def heart() -> str:
    """A picture of 32 by 32 pixels as a data URL."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    rows = b"".join(b"\0" + b"\xff\x20\x40" * 32 for _ in range(32))
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


async def test_basic_response() -> None:
    async with serving(["Hello ", "dear world"]) as (served, _):
        body = await create(served, input=[user("Say hello in exactly 3 words.")])

    assert_answered(body)
    assert text_of(body) == "Hello dear world"


async def test_assistant_phase() -> None:
    history = [
        assistant("I should answer with the saved number.", phase="commentary"),
        assistant("The number is four.", phase="final_answer"),
        user("Repeat only the number."),
    ]

    async with serving(["four"]) as (served, model):
        body = await create(served, input=history)

    assert_answered(body)
    assert [message.text for message in model.calls[0].messages] == [item["content"] for item in history]


def test_response_output_phase_schema() -> None:
    def message(phase: str) -> JsonObject:
        # No logprobs: the suite's minimum has less than our bodies.
        part = {"type": "output_text", "text": phase, "annotations": []}
        fields = {"id": f"msg_{phase}", "type": "message", "status": "completed", "role": "assistant"}
        return {**fields, "phase": phase, "content": [part]}

    body: JsonObject = {
        "id": "resp_phase",
        "object": "response",
        "created_at": 1767225600,
        "completed_at": 1767225601,
        "status": "completed",
        "incomplete_details": None,
        "model": "assistant",
        "previous_response_id": None,
        "instructions": None,
        "output": [message("commentary"), message("final_answer")],
        "error": None,
        "tools": [],
        "tool_choice": "auto",
        "truncation": "disabled",
        "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}},
        "top_p": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": 1,
        "reasoning": None,
        "usage": {
            "input_tokens": 1,
            "output_tokens": 1,
            "total_tokens": 2,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
        "max_output_tokens": None,
        "max_tool_calls": None,
        "store": True,
        "background": False,
        "service_tier": "default",
        "metadata": {},
        "safety_identifier": None,
        "prompt_cache_key": None,
    }

    wire.check_open_responses(body)
    for key in body:
        with pytest.raises(AssertionError, match=key):
            wire.check_open_responses({name: value for name, value in body.items() if name != key})


@pytest.mark.behaviour("B1")
async def test_streaming_response() -> None:
    async with serving(["1, 2, ", "3, 4, 5"]) as (served, _):
        events, final = await stream(served, input=[user("Count from 1 to 5.")])
        stored = (await served.http.get(f"/v1/responses/{final['id']}")).json()

    assert_answered(final)
    assert events[0]["type"] == "response.created"
    assert text_of(final) == "1, 2, 3, 4, 5"
    assert stored == final


async def test_system_prompt() -> None:
    system = {"type": "message", "role": "system", "content": "You are a pirate. Always respond in pirate speak."}

    async with serving(["Ahoy!"]) as (served, model):
        body = await create(served, input=[system, user("Say hello.")])

    assert_answered(body)
    assert [(message.role, message.text) for message in model.calls[0].messages] == [
        ("system", system["content"]),
        ("user", "Say hello."),
    ]


@pytest.mark.behaviour("C4")
async def test_tool_calling() -> None:
    async with serving(WEATHER_CALL) as (served, _):
        body = await create(served, input=[WEATHER_QUESTION], tools=[WEATHER_TOOL])

    assert_answered(body)
    call = next(item for item in body["output"] if item["type"] == "function_call")
    assert (call["call_id"], call["name"]) == ("call_weather", "get_weather")
    assert call["arguments"] == '{"location": "San Francisco, CA"}'
    # The request had no `strict`; the echo has it, and the schema as it was sent.
    assert body["tools"] == [{**WEATHER_TOOL, "strict": None}]


async def test_image_input() -> None:
    content = [
        {"type": "input_text", "text": "What do you see in this image? Answer in one sentence."},
        {"type": "input_image", "image_url": heart()},
    ]

    async with serving(["A red heart."]) as (served, model):
        body = await create(served, input=[{"type": "message", "role": "user", "content": content}])

    assert_answered(body)
    (message,) = model.calls[0].messages
    assert [part.uri for part in message.contents if part.uri] == [heart()]


async def test_multi_turn() -> None:
    history = [
        user("My name is Alice."),
        assistant("Hello Alice! Nice to meet you. How can I help you today?"),
        user("What is my name?"),
    ]

    async with serving(["Alice"]) as (served, model):
        body = await create(served, input=history)

    assert_answered(body)
    assert [(message.role, message.text) for message in model.calls[0].messages] == [
        (item["role"], item["content"]) for item in history
    ]


async def test_the_suite_is_answered_when_its_requests_come_all_at_once() -> None:
    questions = [f"Question {number}" for number in range(8)]

    async with serving(*[["An answer."]] * len(questions) * 2) as (served, _):
        bodies = await asyncio.gather(*[create(served, input=[user(text)]) for text in questions])
        streams = await asyncio.gather(*[stream(served, input=[user(text)]) for text in questions])

    everything = [*bodies, *[final for _, final in streams]]
    for body in everything:
        assert_answered(body)
    assert len({body["id"] for body in everything}) == len(everything)
    assert len({item["id"] for body in everything for item in body["output"]}) == len(everything)


# Variants that are in branches and proposals of the suite


async def test_tool_calling_streaming() -> None:
    async with serving(WEATHER_CALL) as (served, _):
        events, final = await stream(served, input=[WEATHER_QUESTION], tools=[WEATHER_TOOL])

    types = [event["type"] for event in events]
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert_answered(final)
    assert [item["type"] for item in added] == ["function_call"]
    assert "response.function_call_arguments.delta" in types
    assert "response.function_call_arguments.done" in types
    assert "response.output_item.done" in types


@pytest.mark.behaviour("B1")
async def test_a_tool_call_is_the_same_streamed_and_in_one_piece() -> None:
    async with serving(WEATHER_CALL, WEATHER_CALL) as (served, _):
        _, streamed = await stream(served, input=[WEATHER_QUESTION], tools=[WEATHER_TOOL])
        body = await create(served, input=[WEATHER_QUESTION], tools=[WEATHER_TOOL])

    own = {"id", "created_at", "completed_at", "output"}
    assert {k: v for k, v in streamed.items() if k not in own} == {k: v for k, v in body.items() if k not in own}
    assert [{**item, "id": ""} for item in streamed["output"]] == [{**item, "id": ""} for item in body["output"]]


async def test_function_call_roundtrip_with_the_history_replayed() -> None:
    async with serving(WEATHER_CALL, ["It is sunny."]) as (served, model):
        first = await create(served, input=[WEATHER_QUESTION], tools=[WEATHER_TOOL])
        call = next(item for item in first["output"] if item["type"] == "function_call")
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny, 18 degrees"}
        second = await create(served, input=[WEATHER_QUESTION, *first["output"], output], tools=[WEATHER_TOOL])

    assert_answered(second)
    assert text_of(second) == "It is sunny."
    last = model.calls[1].messages[-1]
    assert [(part.type, part.call_id, part.result) for part in last.contents] == [
        ("function_result", "call_weather", "sunny, 18 degrees")
    ]


async def test_function_call_roundtrip_on_the_previous_response() -> None:
    async with serving(WEATHER_CALL, ["It is sunny."]) as (served, model):
        first = await create(served, input=[WEATHER_QUESTION], tools=[WEATHER_TOOL])
        call = next(item for item in first["output"] if item["type"] == "function_call")
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny, 18 degrees"}
        second = await create(served, previous_response_id=first["id"], input=[output], tools=[WEATHER_TOOL])

    assert_answered(second)
    assert text_of(second) == "It is sunny."
    assert [part.type for message in model.calls[1].messages for part in message.contents] == [
        "text",
        "function_call",
        "function_result",
    ]


async def test_previous_response_id() -> None:
    async with serving(["OK"], ["cobalt"]) as (served, model):
        first = await create(served, input=[user("Remember the code word: cobalt. Reply with OK.")])
        second = await create(served, previous_response_id=first["id"], input=[user("What is the code word?")])

    assert_answered(second)
    assert second["previous_response_id"] == first["id"]
    assert [(message.role, message.text) for message in model.calls[1].messages] == [
        ("user", "Remember the code word: cobalt. Reply with OK."),
        ("assistant", "OK"),
        ("user", "What is the code word?"),
    ]
