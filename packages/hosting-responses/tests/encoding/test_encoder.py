"""The life of a response: how it opens, where messages begin, and the ways it ends."""

from __future__ import annotations

import json
import timeit
from types import SimpleNamespace
from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, ChatResponseUpdate, Content

from agent_framework_hosting_responses.protocol.encoder import EncoderOptions, ResponseEncoder
from agent_framework_hosting_responses.protocol.errors import EncoderStateError


def provider_event(kind: str, **response: Any) -> ChatResponseUpdate:
    return ChatResponseUpdate(raw_representation=SimpleNamespace(type=kind, response=SimpleNamespace(**response)))


# --- opening


@pytest.mark.behaviour("B5")
def test_a_foreground_response_opens_in_progress(encode: Any) -> None:
    encoded = encode()

    assert encoded.kinds[:2] == ["created", "in_progress"]
    for event in encoded.events[:2]:
        assert event["response"]["status"] == "in_progress"
        assert event["response"]["output"] == []
        assert event["response"]["usage"] is None


def test_a_background_response_opens_queued(encode: Any) -> None:
    encoded = encode(background=True)

    assert encoded.kinds[:3] == ["created", "queued", "in_progress"]
    assert [event["response"]["status"] for event in encoded.events[:3]] == ["queued", "queued", "in_progress"]


@pytest.mark.behaviour("C4")
def test_every_member_of_the_body_is_in_every_lifecycle_event(encode: Any, say: Any, body: Any) -> None:
    encoded = encode(say("a"), body={**body(), "metadata": {"k": "v"}, "conversation": {"id": "conv_1"}})

    for event in encoded.events:
        if "response" in event:
            assert event["response"].keys() == body().keys() | {"conversation"}
            assert event["response"]["metadata"] == {"k": "v"}


def test_the_given_body_is_not_changed(encode: Any, say: Any, body: Any) -> None:
    given = body()

    encode(say("a"), body=given)

    assert given == body()


# --- messages


@pytest.mark.behaviour("B2")
def test_all_deltas_of_a_message_go_into_one_item(encode: Any, say: Any) -> None:
    encoded = encode(*[say(word, message_id="m1") for word in ("one ", "two ", "three")])

    assert encoded.kinds[2:-1] == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert encoded.text == "one two three"


@pytest.mark.behaviour("B2")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"message_id": "m1"}, {"message_id": "m2"}),
        ({"author_name": "a"}, {"author_name": "b"}),
        ({"role": "assistant"}, {"role": "tool"}),
    ],
)
def test_another_message_is_another_item(first: dict[str, str], second: dict[str, str], encode: Any, say: Any) -> None:
    encoded = encode(say("a", **first), say("b", **second))

    assert [item["content"][0]["text"] for item in encoded.output] == ["a", "b"]


@pytest.mark.behaviour("B2")
@pytest.mark.parametrize("later", [{"message_id": None}, {"author_name": None}, {"role": None}])
def test_an_update_that_names_no_message_goes_on_with_the_open_one(later: Any, encode: Any, say: Any) -> None:
    named = {"message_id": "m1", "author_name": "a", "role": "assistant"}

    encoded = encode(say("a", **named), say("b", **{**named, **later}), say("c", **named))

    assert [item["content"][0]["text"] for item in encoded.output] == ["abc"]


def test_updates_in_the_users_role_are_input_and_are_not_repeated(encode: Any, say: Any) -> None:
    encoded = encode(say("question", role="user"), say("answer"))

    assert encoded.text == "answer"


@pytest.mark.behaviour("B13")
def test_an_update_that_replaces_its_message_does_not_double_it(encode: Any, say: Any, send: Any) -> None:
    whole = send(Content.from_text("Hello "), Content.from_text("world"), merge_mode="replace")

    encoded = encode(say("Hel"), say("lo "), whole)

    assert encoded.text == "Hello world"
    assert len(encoded.output) == 1


@pytest.mark.behaviour("B6")
def test_an_empty_run_has_no_items(encode: Any, say: Any, send: Any) -> None:
    encoded = encode(say(""), send(), say("", finish_reason="stop"))

    assert encoded.output == []
    assert encoded.kinds == ["created", "in_progress", "completed"]


@pytest.mark.behaviour("B15")
def test_a_delta_leaves_with_its_own_update(body: Any, say: Any) -> None:
    encoder = ResponseEncoder(body())
    encoder.open()
    encoder.start()

    for word in ("one", "two", "three"):
        events = encoder.feed(say(word))
        assert json.loads(events[-1].data)["delta"] == word


@pytest.mark.behaviour("B11")
def test_a_delta_stays_small_and_quick_however_long_the_answer_is(body: Any, say: Any) -> None:
    encoder = ResponseEncoder(body())
    encoder.open()
    encoder.start()
    update = say("hello ")
    encoder.feed(update)

    def cost() -> float:
        return min(timeit.repeat(lambda: encoder.feed(update), number=500, repeat=9))

    at_start = cost()
    for _ in range(50_000):
        encoder.feed(update)

    assert len(encoder.feed(update)[0].data) < 240
    # Twenty times the text must not show; the factor leaves room for a busy machine.
    assert cost() < at_start * 5


# --- endings


def test_a_completed_response_says_when(encode: Any, say: Any) -> None:
    encoded = encode(say("a"))

    assert encoded.response["status"] == "completed"
    assert encoded.response["completed_at"] == 1767225601
    assert encoded.response["service_tier"] == "default"
    assert encoded.encoder.is_terminal


@pytest.mark.behaviour("B7")
@pytest.mark.parametrize(
    ("finish_reason", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_a_cut_answer_is_incomplete_and_so_is_its_open_item(
    finish_reason: str, reason: str, encode: Any, say: Any
) -> None:
    encoded = encode(say("half"), say("", finish_reason=finish_reason))

    assert encoded.kinds[-1] == "incomplete"
    assert encoded.response["status"] == "incomplete"
    assert encoded.response["incomplete_details"] == {"reason": reason}
    assert encoded.response["completed_at"] is None
    assert encoded.output[-1]["status"] == "incomplete"


@pytest.mark.behaviour("B7")
def test_the_last_finish_reason_counts(encode: Any, say: Any) -> None:
    encoded = encode(say("a", finish_reason="length"), say("b", finish_reason="stop"))

    assert encoded.response["status"] == "completed"


@pytest.mark.behaviour("B8")
def test_a_failure_closes_what_is_open_and_is_the_only_ending(encode: Any, say: Any, send: Any) -> None:
    open_items = [
        say("half"),
        send(Content.from_text_reasoning(text="hm")),
        send(Content.from_function_call("c1", "client", arguments='{"a"')),
        send(Content.from_mcp_server_tool_call("m1", "tool", arguments="{}")),
    ]

    encoded = encode(*open_items, ending="fail", client_tools=frozenset({"client"}))

    assert encoded.kinds[-1] == "failed"
    assert encoded.response["error"] == {
        "code": "server_error",
        "message": "The agent failed to produce a response.",
    }
    statuses = {item["type"]: item.get("status") for item in encoded.output}
    assert statuses == {
        "message": "incomplete",
        "reasoning": None,
        "function_call": "incomplete",
        "mcp_call": "incomplete",
    }


def test_a_failure_can_say_more(body: Any) -> None:
    encoder = ResponseEncoder(body())
    encoder.open()

    encoder.fail(code="rate_limit_exceeded", message="Slow down.")

    assert encoder.response["error"] == {"code": "rate_limit_exceeded", "message": "Slow down."}


@pytest.mark.behaviour("D4")
def test_a_cancelled_response_ends_with_failed_and_the_status_cancelled(encode: Any, say: Any, send: Any) -> None:
    usage = send(Content.from_usage({"input_token_count": 1}))

    encoded = encode(say("a", message_id="m1"), say("b", message_id="m2"), usage, ending="cancel")

    assert encoded.kinds[-1] == "failed"
    assert encoded.response["status"] == "cancelled"
    assert encoded.response["error"] is None
    assert encoded.response["usage"] is None
    assert [item["status"] for item in encoded.output] == ["completed", "incomplete"]


@pytest.mark.behaviour("C8")
@pytest.mark.parametrize(
    "last",
    [
        AgentResponseUpdate(finish_reason="error"),  # type: ignore[arg-type]
        AgentResponseUpdate(finish_reason="failed"),  # type: ignore[arg-type]
        AgentResponseUpdate(raw_representation=provider_event("response.failed", error=None)),
        AgentResponseUpdate(contents=[Content.from_error(message="secret", error_code="boom")]),
    ],
    ids=["finish error", "finish failed", "provider event", "error content"],
)
def test_a_swallowed_failure_of_the_model_is_a_failed_response(
    last: AgentResponseUpdate, encode: Any, say: Any
) -> None:
    encoded = encode(say("half"), last)

    assert encoded.response["status"] == "failed"
    assert encoded.response["error"]["code"] == "server_error"
    assert encoded.output[0]["status"] == "incomplete"
    assert "secret" not in str(encoded.events)


@pytest.mark.behaviour("C8")
def test_the_providers_error_code_is_kept_if_the_wire_knows_it(encode: Any, say: Any) -> None:
    error = SimpleNamespace(code="rate_limit_exceeded", message="secret")
    failed = AgentResponseUpdate(raw_representation=provider_event("response.failed", error=error))

    encoded = encode(say("half"), failed)

    assert encoded.response["error"]["code"] == "rate_limit_exceeded"
    assert "secret" not in str(encoded.events)


@pytest.mark.behaviour("C8")
def test_a_model_that_failed_and_was_tried_again_is_a_completed_response(encode: Any, say: Any) -> None:
    failed = AgentResponseUpdate(raw_representation=provider_event("response.failed", error=None))

    encoded = encode(failed, say("second try"))

    assert encoded.response["status"] == "completed"


@pytest.mark.behaviour("C8")
@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        (["response.created"], "failed"),
        (["response.created", "response.completed"], "completed"),
        (["response.created", "response.completed", "response.created"], "failed"),
        (["response.created", "response.created", "response.completed"], "completed"),
    ],
    ids=["cut", "whole", "second call cut", "cut and tried again"],
)
def test_an_answer_whose_providers_stream_was_cut_is_not_a_completed_response(
    kinds: list[str], status: str, encode: Any, say: Any
) -> None:
    updates = []
    for kind in kinds:
        updates += [AgentResponseUpdate(raw_representation=provider_event(kind)), say("text ")]

    encoded = encode(*updates)

    assert encoded.response["status"] == status


@pytest.mark.behaviour("B7", "C8")
def test_a_provider_that_stopped_for_another_reason_is_incomplete(encode: Any, say: Any) -> None:
    details = SimpleNamespace(reason="max_messages")
    stopped = AgentResponseUpdate(raw_representation=provider_event("response.incomplete", incomplete_details=details))

    encoded = encode(say("half"), stopped)

    assert encoded.response["incomplete_details"] == {"reason": "max_output_tokens"}


# --- order of calls


def test_the_body_so_far_holds_the_finished_items(body: Any, say: Any) -> None:
    encoder = ResponseEncoder(body())
    encoder.open()
    encoder.start()
    encoder.feed(say("a", message_id="m1"))
    encoder.feed(say("b", message_id="m2"))

    assert encoder.status == "in_progress"
    assert encoder.response["status"] == "in_progress"
    assert [item["content"][0]["text"] for item in encoder.response["output"]] == ["a"]  # type: ignore[union-attr,index,call-overload]


@pytest.mark.parametrize("step", ["start", "complete", "fail", "cancel"])
def test_nothing_comes_before_open(step: str, body: Any) -> None:
    with pytest.raises(EncoderStateError):
        getattr(ResponseEncoder(body()), step)()


@pytest.mark.parametrize("step", ["open", "start", "complete", "fail", "cancel"])
def test_nothing_comes_after_the_end(step: str, body: Any, say: Any) -> None:
    encoder = ResponseEncoder(body())
    encoder.open()
    encoder.start()
    encoder.feed(say("a"))
    encoder.complete()

    with pytest.raises(EncoderStateError):
        getattr(encoder, step)()
    with pytest.raises(EncoderStateError):
        encoder.feed(say("b"))


def test_updates_come_after_start(body: Any, say: Any) -> None:
    encoder = ResponseEncoder(body())
    encoder.open()

    with pytest.raises(EncoderStateError):
        encoder.feed(say("a"))
    with pytest.raises(EncoderStateError):
        encoder.complete()


def test_a_queued_response_can_be_cancelled_before_it_starts(body: Any) -> None:
    encoder = ResponseEncoder(body(background=True))
    encoder.open()

    events = encoder.cancel()

    assert [event.kind for event in events] == ["response.failed"]
    assert encoder.status == "cancelled"


@pytest.mark.behaviour("B12")
def test_half_characters_from_the_model_and_the_request_survive(
    encode_only: Any, say: Any, body: Any, judge: Any
) -> None:
    encoded = encode_only(say("\ud83d"), say("\ude00"), body={**body(), "instructions": "\ud83d"})

    judge(encoded, strict=False)
    assert encoded.response["status"] == "completed"
    assert encoded.deltas() == ["\ud83d", "\ude00"]


def test_options_are_not_shared_between_encoders() -> None:
    assert EncoderOptions() == EncoderOptions()
    with pytest.raises(AttributeError):
        EncoderOptions().server_label = "x"  # type: ignore[misc]


@pytest.mark.parametrize("has_events", [True, False])
def test_the_encoded_body_is_the_response_with_and_without_events(has_events: bool, body: Any, say: Any) -> None:
    encoder = ResponseEncoder(body(), events=has_events)
    encoder.open()
    encoder.start()
    before = json.loads(encoder.encoded)
    encoder.feed(say("half \ud83d and \u2028"))
    encoder.complete()

    assert before["output"] == []
    assert json.loads(encoder.encoded) == encoder.response
    assert encoder.response["status"] == "completed"
