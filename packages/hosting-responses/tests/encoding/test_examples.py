"""The reference sequences, event by event: what the framework's own OpenAI client makes of them is fed back in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from agent_framework import Agent, AgentResponseUpdate, Content, FunctionTool
from agent_framework._types import map_chat_to_agent_update
from agent_framework_openai import OpenAIChatClient
from agent_framework_openai._chat_client import _SEEN_TEXT_ANNOTATION_KEYS_OPTION
from openai import AsyncOpenAI
from openai._models import construct_type_unchecked
from openai.types.responses import ResponseStreamEvent

from agent_framework_hosting_responses.protocol.encoder import EncoderOptions, ResponseEncoder

EXAMPLES = Path(__file__).parents[1] / "examples"
INCLUDE = frozenset({"reasoning.encrypted_content", "code_interpreter.outputs", "code_interpreter_call.outputs"})

# Fixed by our own rules or by the run, not by the sequence.
UNSTABLE = {"created_at", "completed_at", "obfuscation", "sequence_number", "response"}


def read(name: str) -> list[dict[str, Any]]:
    """Return the events of an example, runs of elided deltas written out."""
    events: list[dict[str, Any]] = []
    text = (EXAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").replace("<base64>", "iVBORw0KGgo=")
    for line in text.splitlines():
        event = json.loads(line)
        repeats = event.pop("_elided", 0)
        if repeats:
            event = {**events[-1], "delta": "…"}
        events += [dict(event) for _ in range(repeats or 1)]
    return consistent(events)


def consistent(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put back what the examples cut: numbers, and texts that are what their deltas add up to."""
    texts: dict[tuple[Any, ...], str] = {}
    offset = events[0]["sequence_number"]
    for number, event in enumerate(events):
        event["sequence_number"] = number + offset
        event.pop("obfuscation", None)
        name, _, what = event["type"].rpartition(".")
        place = (name, event.get("output_index"), event.get("content_index"), event.get("summary_index"))
        if what == "delta" and isinstance(event["delta"], str):
            texts[place] = texts.get(place, "") + event["delta"]
        for key in ("text", "refusal", "arguments", "input", "code"):
            if what == "done" and key in event and place in texts:
                replace_all(events[number:], event[key], texts[place])
    return events


def replace_all(value: Any, old: str, new: str) -> None:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in list(entries):
        if isinstance(entry, dict | list):
            replace_all(entry, old, new)
        elif entry == old:
            value[key] = new


def agent_updates(events: list[dict[str, Any]]) -> Iterator[AgentResponseUpdate]:
    """Yield what an agent on the framework's OpenAI client yields while it receives `events`."""
    client = OpenAIChatClient(model="m", api_key="k")
    calls: dict[int, tuple[str, str]] = {}
    options: dict[str, Any] = {_SEEN_TEXT_ANNOTATION_KEYS_OPTION: set()}
    for event in events:
        raw: Any = construct_type_unchecked(type_=ResponseStreamEvent, value=event)  # type: ignore[arg-type]
        yield map_chat_to_agent_update(client._parse_chunk_from_openai(raw, options, calls), "agent")


def replay(
    events: list[dict[str, Any]], updates: Iterable[AgentResponseUpdate] | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Encode the run that `events` came from, with the ids and times of the example."""
    lifecycle = [event["response"] for event in events if "response" in event]
    ids = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    encoder = ResponseEncoder(
        lifecycle[0],
        options=EncoderOptions(include=INCLUDE, **options),
        new_id=lambda prefix: ids.pop(next(n for n, item_id in enumerate(ids) if item_id.startswith(f"{prefix}_"))),
        clock=lambda: lifecycle[-1].get("completed_at") or 0,
    )
    written = encoder.open() + encoder.start()
    for update in agent_updates(events) if updates is None else updates:
        written += encoder.feed(update)
    ending = encoder.complete()
    return [json.loads(event.data) for event in written + ending]


def comparable(event: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in event.items() if name not in UNSTABLE}
    if "item" in event:
        kept["item"] = without_status(event["item"])
    if "response" in event:
        body = event["response"]
        kept["response"] = {name: body[name] for name in ("id", "status", "incomplete_details", "model")}
        kept["response"]["output"] = [without_status(item) for item in body["output"]]
    return kept


def without_status(item: dict[str, Any]) -> dict[str, Any]:
    """Leave out the status of custom tool calls, which the synthetic example has and the wire has not."""
    is_custom = item["type"] == "custom_tool_call"
    return {name: value for name, value in item.items() if not (is_custom and name == "status")}


def assert_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert [event["type"] for event in ours] == [event["type"] for event in theirs]
    assert [event["sequence_number"] for event in ours] == [event["sequence_number"] for event in theirs]
    for own, reference in zip(ours, theirs, strict=True):
        assert comparable(own) == comparable(reference)


NAMES = [
    "background_stream",
    "code_interpreter",
    "compaction_item",
    "conversation_text",
    "file_search_annotation",
    "function_call",
    "image_generation.synthetic",
    "mcp_approval_request.synthetic",
    "mcp_call",
    "mcp_call_failed.synthetic",
    "reasoning",
    "reasoning_summary",
    "reasoning_text.synthetic",
    "refusal",
    "refusal_part.synthetic",
    "shell.synthetic",
    "structured_output",
    "text",
    "text_incomplete",
    "web_search_annotation",
    "custom_tool_call.synthetic",
]


@pytest.mark.behaviour("B4", "B5")
@pytest.mark.parametrize("name", NAMES)
def test_a_reference_run_gives_the_reference_events(name: str) -> None:
    events = read(name)

    assert_same(replay(events, client_tools=frozenset({"get_capital"})), events)


async def agent_run(events: list[dict[str, Any]]) -> list[AgentResponseUpdate]:
    """Return the updates of a real agent whose provider answers with `events` over HTTP."""
    frames = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, text=frames, headers={"content-type": "text/event-stream"})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        provider = AsyncOpenAI(api_key="k", http_client=http)
        tool = FunctionTool(name="get_capital", description="d", input_model={"type": "object", "properties": {}})
        agent = Agent(OpenAIChatClient(model="m", async_client=provider), tools=[tool])
        return [update async for update in agent.run("go", stream=True)]


@pytest.mark.behaviour("B4", "B5")
@pytest.mark.parametrize("name", NAMES)
async def test_a_real_agent_on_that_provider_gives_the_reference_events(name: str) -> None:
    events = read(name)
    updates = await agent_run(events)

    assert_same(replay(events, updates, client_tools=frozenset({"get_capital"})), events)


@pytest.mark.behaviour("D3")
def test_a_resumed_background_run_is_the_rest_of_the_same_events() -> None:
    events = read("background_stream")

    assert_same(replay(events)[1:], read("background_resume_after_0"))


def test_each_of_several_tool_lists_is_finished_although_the_recording_left_some_open() -> None:
    events = read("mcp_list_tools_parallel")
    final = events[-1]["response"]["output"]
    done = next(n for n, event in enumerate(events) if event["type"] == "response.output_item.done")
    for index in (0, 1):
        missing = {"type": "response.output_item.done", "output_index": index, "item": final[index]}
        events.insert(done, {**missing, "sequence_number": 0})
    events = consistent(events)

    replayed = replay(events)

    # Whether a list came is told with its last event: the framework hides the progress event before it.
    progress = {"response.mcp_list_tools.completed"}
    kinds = [event["type"] for event in events if event["type"] not in progress]
    assert [event["type"] for event in replayed if event["type"] not in progress] == kinds
    assert replayed[-1]["response"]["output"] == final


@pytest.mark.behaviour("B8")
def test_a_run_that_breaks_in_mid_stream_gives_the_reference_events() -> None:
    events = read("failed_mid_stream.synthetic")
    encoder = ResponseEncoder(events[0]["response"], new_id=lambda prefix: f"{prefix}_1")

    written = encoder.open() + encoder.start()
    written += encoder.feed(AgentResponseUpdate(contents=[Content.from_text("par")], role="assistant"))
    written += encoder.fail(message="agent raised")

    assert_same([json.loads(event.data) for event in written], events)


def test_a_server_call_that_is_shown_gives_the_reference_events() -> None:
    events = read("function_call_with_server_side_output.synthetic")
    encoder = ResponseEncoder(
        events[0]["response"],
        options=EncoderOptions(server_calls="function_call"),
        new_id=lambda prefix: f"{prefix}_1",
    )

    written = encoder.open() + encoder.start()
    call = Content.from_function_call("call_1", "get_weather", arguments='{"city":"Paris"}')
    written += encoder.feed(AgentResponseUpdate(contents=[call], role="assistant"))
    result = Content.from_function_result("call_1", result="sunny")
    written += encoder.feed(AgentResponseUpdate(contents=[result], role="tool"))
    written += encoder.complete()

    assert_same([json.loads(event.data) for event in written], events)


def test_a_declared_custom_tool_gives_the_reference_events() -> None:
    events = read("custom_tool_call.synthetic")
    encoder = ResponseEncoder(
        events[0]["response"],
        options=EncoderOptions(custom_tools=frozenset({"code_exec"})),
        new_id=lambda prefix: f"{prefix}_1",
    )

    written = encoder.open() + encoder.start()
    for chunk in ("print(", "1)"):
        call = Content.from_function_call("call_1", "code_exec", arguments=chunk)
        written += encoder.feed(AgentResponseUpdate(contents=[call], role="assistant"))
    written += encoder.complete()

    assert_same([json.loads(event.data) for event in written], events)
