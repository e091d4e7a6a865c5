"""The encoder under test, its judges (the official client's types and accumulator), and short updates."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, Content
from openai import omit
from openai._models import construct_type_unchecked
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from agent_framework_hosting_responses.protocol.encoder import EncoderOptions, ResponseEncoder
from agent_framework_hosting_responses.protocol.memo import Memo
from agent_framework_hosting_responses.protocol.replay import replay

_EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_RESPONSES: TypeAdapter[Any] = TypeAdapter(Response)
_TERMINAL = {"response.completed", "response.incomplete", "response.failed"}
_NULLABLE = {
    "mcp_call": {"output", "error", "approval_request_id"},
    "file_search_call": {"results"},
    "code_interpreter_call": {"code", "outputs"},
    "image_generation_call": {"result"},
    "shell_call": {"environment"},
    "shell_call_output": {"max_output_length"},
}


@dataclass
class Encoded:
    """What came out of one run of the encoder."""

    events: list[dict[str, Any]]
    encoder: ResponseEncoder
    entries: list[tuple[str, bytes]] = field(default_factory=list)
    earlier_items: int = 0

    @property
    def left_out(self) -> int:
        """How many items, the first ones, have been told and are not in the final output."""
        return self.earlier_items if self.response["status"] in {"completed", "incomplete"} else 0

    @property
    def kinds(self) -> list[str]:
        return [event["type"].removeprefix("response.") for event in self.events]

    @property
    def response(self) -> dict[str, Any]:
        return self.encoder.response

    @property
    def output(self) -> list[dict[str, Any]]:
        return list(self.response["output"])

    @property
    def text(self) -> str:
        return "".join(
            part["text"]
            for item in self.output
            if item["type"] == "message"
            for part in item["content"]
            if part["type"] == "output_text"
        )

    def deltas(self, kind: str = "output_text") -> list[str]:
        return [event["delta"] for event in self.events if event["type"] == f"response.{kind}.delta"]


def response_body(*, background: bool = False) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1767225600,
        "completed_at": None,
        "status": "queued" if background else "in_progress",
        "background": background,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": "agent-a",
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "auto",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
    }


def counting_ids(first: int = 1) -> Callable[[str], str]:
    counters: dict[str, Iterator[int]] = {}
    return lambda prefix: f"{prefix}_{next(counters.setdefault(prefix, itertools.count(first)))}"


def run_encoder(
    updates: Iterable[AgentResponseUpdate],
    *,
    ending: str = "complete",
    events: bool = True,
    background: bool = False,
    body: dict[str, Any] | None = None,
    after: Sequence[tuple[str, bytes]] = (),
    memo: Memo = Memo(),  # noqa: B008  frozen
    **options: Any,
) -> Encoded:
    """Run the encoder; `after` the events of a lost attempt, which are the first of the result then."""
    encoder = ResponseEncoder(
        body or response_body(background=background),
        options=EncoderOptions(**options),
        # As random ids do, those of another attempt differ.
        new_id=counting_ids(1 + 1000 * len(after)),
        clock=lambda: 1767225601,
        events=events,
        earlier=replay(after),
        memo=memo,
    )
    written = encoder.open() + encoder.start()
    for update in updates:
        written += encoder.feed(update)
    if ending != "memo":  # of a run that goes on
        written += getattr(encoder, ending)()
    entries = [*after, *written]
    parsed = [json.loads(data) for _, data in entries]
    assert [kind for kind, _ in entries] == [event["type"] for event in parsed]
    return Encoded(parsed, encoder, entries, len(replay(after).items) - len(memo.answered))


def judge_stream(encoded: Encoded, *, strict: bool = True) -> None:
    """Fail unless the official client accepts the stream and it keeps the rules of contract §0.2 and §3.2."""
    state = ResponseStreamState[Any](input_tools=omit, text_format=omit)
    for number, event in enumerate(encoded.events):
        assert event["sequence_number"] == number
        if strict:
            _EVENTS.validate_python(_with_action(event))
        state.handle_event(construct_type_unchecked(type_=ResponseStreamEvent, value=event))  # type: ignore[arg-type]
    kinds = [event["type"] for event in encoded.events]
    assert [kind in _TERMINAL for kind in kinds] == [False] * (len(kinds) - 1) + [True]
    assert encoded.events[-1]["response"] == json.loads(json.dumps(encoded.response))
    if strict:
        _RESPONSES.validate_python(encoded.response)
    judge_items(encoded)
    judge_deltas(encoded)


def judge_items(encoded: Encoded) -> None:
    """Fail unless each item begins, ends and stands in the final output as one and the same item."""
    added = [event for event in encoded.events if event["type"] == "response.output_item.added"]
    done = [event for event in encoded.events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in added] == list(range(len(added)))
    assert sorted(event["output_index"] for event in done) == list(range(len(added)))
    in_order = [event["item"] for event in sorted(done, key=lambda event: event["output_index"])]
    assert in_order[encoded.left_out :] == encoded.events[-1]["response"]["output"]
    ids = [item["id"] for item in in_order]
    assert len(set(ids)) == len(ids)
    assert [event["item"]["id"] for event in added] == ids
    for kind in ("function_call", "custom_tool_call"):
        call_ids = [item["call_id"] for item in in_order if item["type"] == kind]
        assert len(set(call_ids)) == len(call_ids)
    for event in added + done:
        item = event["item"]
        nulls = {name for name, value in item.items() if value is None}
        assert nulls <= _NULLABLE.get(item["type"], set())


def judge_deltas(encoded: Encoded) -> None:
    """Fail unless the deltas of every text add up to the text of its `done` event, and none is empty."""
    texts: dict[tuple[Any, ...], str] = {}
    for event in encoded.events:
        name, _, what = event["type"].removeprefix("response.").rpartition(".")
        indexes = ("output_index", "content_index", "summary_index", "command_index")
        place = (name, *(event.get(index) for index in indexes))
        if what == "delta" and isinstance(event["delta"], str):
            assert event["delta"]
            texts[place] = texts.get(place, "") + event["delta"]
        elif what == "done":
            for key in ("text", "refusal", "arguments", "input", "code", "command"):
                if key in event:
                    assert _joined(texts.pop(place, "")) == _joined(event[key])
    assert not texts


def _joined(text: str) -> str:
    # Two deltas may carry the two halves of one character.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _with_action(event: dict[str, Any]) -> dict[str, Any]:
    """The service announces a web search without its action, although the client's type demands one."""
    if event["type"] != "response.output_item.added" or event["item"]["type"] != "web_search_call":
        return event
    return {**event, "item": {**event["item"], "action": {"type": "search", "query": ""}}}


@pytest.fixture
def encode() -> Callable[..., Encoded]:
    """Encode updates and judge the stream."""

    def encode_and_judge(*updates: AgentResponseUpdate, **settings: Any) -> Encoded:
        encoded = run_encoder(updates, **settings)
        judge_stream(encoded)
        return encoded

    return encode_and_judge


@pytest.fixture
def encode_only() -> Callable[..., Encoded]:
    """Encode updates without judging."""
    return lambda *updates, **settings: run_encoder(updates, **settings)


@pytest.fixture
def judge() -> Callable[..., None]:
    """The judges alone, for streams that strict types do not allow."""
    return judge_stream


@pytest.fixture
def body() -> Callable[..., dict[str, Any]]:
    """A response body as the encoder gets it."""
    return response_body


@pytest.fixture
def say() -> Callable[..., AgentResponseUpdate]:
    """An update with one text."""

    def update(text: str, **fields: Any) -> AgentResponseUpdate:
        names = {"merge_mode", "annotations", "additional_properties", "raw_representation"}
        inside = {name: fields.pop(name) for name in names & fields.keys()}
        return AgentResponseUpdate(contents=[Content.from_text(text, **inside)], **{"role": "assistant", **fields})

    return update


@pytest.fixture
def send() -> Callable[..., AgentResponseUpdate]:
    """An update with any contents."""
    return lambda *contents, **fields: AgentResponseUpdate(contents=contents, **{"role": "assistant", **fields})
