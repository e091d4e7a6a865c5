"""What is read from the log of a lost attempt, wherever it ends, and what a second attempt makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from agent_framework import Content

from agent_framework_hosting_responses.protocol.encoder import ResponseEncoder
from agent_framework_hosting_responses.protocol.errors import EncoderStateError
from agent_framework_hosting_responses.protocol.items.unfinished import UnfinishedItem
from agent_framework_hosting_responses.protocol.memo import Memo
from agent_framework_hosting_responses.protocol.replay import Replay, replay


def kinds_of(events: Any) -> list[str]:
    return [kind.removeprefix("response.") for kind, _ in events]


# --- reading


def test_an_empty_log_tells_nothing() -> None:
    assert replay([]) == Replay()
    assert Replay().next_number == 0
    assert Replay().can_complete


def test_the_opening_is_read_event_by_event(encode: Any) -> None:
    entries = encode(background=True).entries

    states = [replay(entries[:cut]) for cut in range(5)]

    assert [state.next_number for state in states] == [0, 1, 2, 3, 4]
    assert [state.response["status"] for state in states if state.response is not None] == [
        "queued",
        "queued",
        "in_progress",
        "completed",
    ]
    assert [state.is_queued for state in states] == [False, False, True, True, True]
    assert [state.is_started for state in states] == [False, False, False, True, True]
    assert [state.is_terminal for state in states] == [False, False, False, False, True]


@pytest.mark.parametrize("ending", ["complete", "fail", "cancel"])
def test_a_whole_log_is_terminal_and_holds_the_output(ending: str, encode: Any, say: Any) -> None:
    encoded = encode(say("a", message_id="m1"), say("b", message_id="m2"), ending=ending)

    state = replay(encoded.entries)

    assert state.is_terminal
    assert list(state.items) == encoded.output
    assert state.response == encoded.response


def test_items_are_finished_or_open(encode: Any, say: Any) -> None:
    entries = encode(say("a", message_id="m1"), say("b", message_id="m2")).entries

    state = replay(entries[:-4])

    finished, opened = state.items
    assert isinstance(finished, dict)
    assert finished["content"][0]["text"] == "a"  # type: ignore[index,call-overload]
    assert isinstance(opened, UnfinishedItem)
    assert opened.item["status"] == "in_progress"


@pytest.mark.behaviour("B12")
def test_half_characters_in_the_log_are_read(encode_only: Any, say: Any, judge: Any) -> None:
    entries = encode_only(say("a\ud83d")).entries

    resumed = encode_only(after=entries[:-4], ending="fail")

    judge(resumed, strict=False)
    assert resumed.text == "a\ud83d"


def test_events_that_a_later_version_may_add_are_passed_over(encode: Any, say: Any) -> None:
    entries = encode(say("a")).entries[:-4]
    number = len(entries)
    entries += [
        ("response.novel", b'{"type":"response.novel","sequence_number":%d,"more":[1]}' % number),
        ("response.novel.delta", b'{"type":"x","sequence_number":%d,"output_index":0,"item_id":"x"}' % (number + 1)),
    ]

    state = replay(entries)

    assert state.next_number == number + 2
    assert len(state.items) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda entries: entries[1:],
        lambda entries: [*entries, entries[-1]],
        lambda entries: [*entries[:2], *entries[3:]],
        lambda entries: [*entries[:2], (entries[2][0], entries[2][1].replace(b'"output_index":0', b'"output_index":1'))],
        lambda entries: [*entries[:3], (entries[3][0], entries[3][1].replace(b'"output_index":0', b'"output_index":-1'))],
        lambda entries: [*entries[:3], (entries[2][0], entries[2][1].replace(b'"sequence_number":2', b'"sequence_number":3'))],
    ],
    ids=["start missing", "doubled", "hole", "item missing", "negative index", "index used again"],
)  # fmt: skip
def test_what_is_no_beginning_of_a_stream_is_refused(damage: Any, encode: Any, say: Any) -> None:
    entries = encode(say("a")).entries[:-1]

    with pytest.raises(EncoderStateError):
        replay(damage(entries))


# --- going on


def test_a_response_that_has_ended_gets_no_second_attempt(encode: Any, body: Any) -> None:
    earlier = replay(encode().entries)

    with pytest.raises(EncoderStateError):
        ResponseEncoder(body(), earlier=earlier)


@pytest.mark.parametrize("is_background", [True, False])
def test_the_opening_is_told_once_wherever_the_log_ends(is_background: bool, encode: Any) -> None:
    entries = encode(background=is_background).entries

    for cut in range(len(entries)):
        assert encode(background=is_background, after=entries[:cut]).events == encode(background=is_background).events


def test_start_says_nothing_if_the_start_was_told(encode: Any, say: Any, body: Any) -> None:
    entries = encode(say("a"), background=True).entries
    encoder = ResponseEncoder(body(background=True), earlier=replay(entries[:3]))

    assert encoder.open() == []
    assert encoder.status == "in_progress"
    assert encoder.start() == []
    with pytest.raises(EncoderStateError):
        encoder.start()


def test_the_response_that_was_told_counts(encode: Any, body: Any) -> None:
    entries = encode(background=True, body={**body(background=True), "created_at": 5}).entries

    resumed = encode(background=True, after=entries[:2], body={**body(background=True), "created_at": 7})

    assert resumed.response["created_at"] == 5


@pytest.mark.behaviour("B8")
@pytest.mark.parametrize(("ending", "status"), [("fail", "failed"), ("cancel", "cancelled")])
def test_a_lost_run_is_ended_with_what_it_said(ending: str, status: str, encode: Any, say: Any, body: Any) -> None:
    lost = encode(say("whole", message_id="m1"), say("half", message_id="m2"), background=True).entries[:-4]
    encoder = ResponseEncoder(body(background=True), earlier=replay(lost))

    events = encoder.open() + getattr(encoder, ending)()

    assert kinds_of(events) == ["output_text.done", "content_part.done", "output_item.done", "failed"]
    assert encoder.status == status
    output: Any = encoder.response["output"]
    assert [(item["content"][0]["text"], item["status"]) for item in output] == [
        ("whole", "completed"),
        ("half", "incomplete"),
    ]


@pytest.mark.behaviour("B8")
def test_a_run_that_was_never_begun_can_be_ended(encode: Any, body: Any) -> None:
    queued = encode(background=True).entries[:2]
    encoder = ResponseEncoder(body(background=True), earlier=replay(queued))

    events = encoder.open() + encoder.fail()

    assert kinds_of(events) == ["failed"]
    assert json.loads(events[0].data)["sequence_number"] == 2


@pytest.mark.behaviour("B8")
@pytest.mark.parametrize(("reason", "status"), [(None, "completed"), ("length", "incomplete")])
def test_the_answer_of_a_second_attempt_is_all_of_the_answer(
    reason: str | None, status: str, encode: Any, say: Any, judge: Any
) -> None:
    lost = encode(say("whole", message_id="m1"), say("half", message_id="m2"), background=True).entries[:-4]

    resumed = encode(say("again", finish_reason=reason), after=lost)

    assert resumed.response["status"] == status
    assert [(item["content"][0]["text"], item["status"]) for item in resumed.output] == [("again", status)]
    added = [event for event in resumed.events if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == [0, 1, 2]


@pytest.mark.behaviour("B8")
def test_an_attempt_that_goes_on_in_the_middle_keeps_what_it_was_told_to(encode_only: Any, say: Any) -> None:
    lost = encode_only(*[say(text, message_id=text) for text in ("one", "two", "half")], background=True).entries[:-4]

    resumed = encode_only(say("three"), after=lost, memo=Memo(answered=[0]))

    assert resumed.text == "onethree"
    assert [event["item"]["status"] for event in resumed.events if event["type"].endswith("item.done")] == [
        "completed",
        "completed",
        "incomplete",
        "completed",
    ]


@pytest.mark.behaviour("B8", "F8")
def test_what_an_attempt_had_finished_is_whole_if_only_its_end_was_not_told(encode_only: Any, say: Any) -> None:
    first = encode_only(*[say(text, message_id=text) for text in ("one", "two")], background=True).entries[:-4]
    second = encode_only(
        *[say(text, message_id=text) for text in ("half", "three")], after=first, memo=Memo(answered=[0, 1])
    )

    third = encode_only(say("four"), after=second.entries[:-4], memo=Memo(answered=[0, 1, 3]))

    assert second.encoder.memo.answered == [0, 1, 2, 3]
    assert third.encoder.memo.answered == [0, 1, 3, 4]
    assert third.text == "onetwothreefour"
    assert [item["status"] for item in third.output] == ["completed"] * 4
    assert third.entries[: len(second.entries[:-4])] == second.entries[:-4]


def test_usage_counts_the_last_attempt(encode: Any, say: Any, send: Any) -> None:
    lost = encode(say("a"), send(Content.from_usage({"input_token_count": 5}))).entries[:-1]

    resumed = encode(send(Content.from_usage({"input_token_count": 1})), after=lost)

    assert resumed.response["usage"]["input_tokens"] == 1


def test_a_third_attempt_goes_on_after_two_that_were_lost(encode: Any, say: Any) -> None:
    first = encode(say("one"), background=True).entries
    for first_cut in range(len(first)):
        second = encode(say("two"), background=True, after=first[:first_cut]).entries
        for second_cut in range(first_cut, len(second)):
            third = encode(say("three"), background=True, after=second[:second_cut])
            assert third.text.endswith("three")


@pytest.mark.parametrize("has_events", [True, False])
def test_the_encoded_body_is_the_response(has_events: bool, encode: Any, say: Any, body: Any) -> None:
    lost = encode(say("whole", message_id="m1"), say("half", message_id="m2")).entries[:-4]
    encoder = ResponseEncoder(body(), earlier=replay(lost), events=has_events)
    assert len(json.loads(encoder.encoded)["output"]) == 1

    events = encoder.open() + encoder.start() + encoder.feed(say("again")) + encoder.complete()

    assert bool(events) is has_events
    assert len(json.loads(encoder.encoded)["output"]) == 1
    assert json.loads(encoder.encoded) == encoder.response


# --- ids


def test_ids_of_the_first_attempt_are_not_used_again(encode: Any, send: Any) -> None:
    items = [
        {"type": "custom_tool_call", "id": "ctc_up", "call_id": "x1", "name": "f", "input": "in"},
        {"type": "shell_call", "id": "sh_up", "call_id": "s1", "action": {"commands": ["ls"]}, "status": "completed"},
        {"type": "shell_call_output", "id": "sho_up", "call_id": "s1", "output": [], "status": "completed"},
        {"type": "mcp_list_tools", "id": "mcpl_up", "server_label": "s", "tools": []},
    ]
    updates = [
        *[send(raw_representation={"type": "response.output_item.done", "item": item}) for item in items],
        send(Content.from_text_reasoning(id="rs_up", text="hm", raw_representation={"type": "reasoning"})),
        send(Content.from_function_call("c1", "client", arguments="{}")),
        send(Content.from_shell_tool_call(call_id="s2", commands=["ls"])),
        send(Content.from_shell_tool_result(call_id="s2", outputs=[])),
        send(Content.from_shell_tool_result(call_id="s3", outputs=[])),
    ]
    lost = encode(*updates, client_tools=frozenset({"client"}))

    resumed = encode(*updates, client_tools=frozenset({"client"}), after=lost.entries[:-1])

    half = len(lost.output)
    assert len(resumed.output) == half
    told = [event["item"] for event in resumed.events if event["type"] == "response.output_item.done"]
    identities = [(item["type"], item.get("call_id") or item["id"]) for item in told]
    assert len(set(identities)) == len(identities) == 2 * half
    call_ids = {item["type"]: item["call_id"] for item in resumed.output if "call_id" in item}
    assert resumed.encoder.minted_call_ids[call_ids["custom_tool_call"]] == "x1"
    assert resumed.encoder.minted_call_ids[call_ids["function_call"]] == "c1"


def test_an_output_is_still_that_of_its_call_when_both_get_another_id(encode: Any, send: Any) -> None:
    call = {"type": "shell_call", "id": "sh_up", "call_id": "s1", "action": {"commands": []}, "status": "completed"}
    output = {"type": "shell_call_output", "id": "sho_up", "call_id": "s1", "output": [], "status": "completed"}
    updates = [
        send(Content.from_shell_tool_call(call_id="s1", raw_representation=call)),
        send(Content.from_shell_tool_result(call_id="s1", raw_representation=output)),
    ]
    whole = encode(*updates).entries
    cut = next(n for n, (_, data) in enumerate(whole) if b'"shell_call_output"' in data)

    resumed = encode(*updates, after=whole[:cut])

    told = [event["item"] for event in resumed.events if event["type"] == "response.output_item.done"]
    calls = [item["call_id"] for item in told if item["type"] == "shell_call"]
    outputs = [item["call_id"] for item in told if item["type"] == "shell_call_output"]
    assert calls[0] == "s1"
    assert calls[1:] == outputs
    assert outputs != ["s1"]


# --- what cannot be completed


def test_a_response_with_a_cut_call_of_a_custom_tool_never_completes(encode: Any, say: Any, send: Any) -> None:
    call = send(Content.from_function_call("c1", "custom", arguments="rm -rf /tmp/scratch"))
    whole = encode(call, custom_tools=frozenset({"custom"}))
    cut = whole.kinds.index("custom_tool_call_input.done")

    lost = replay(whole.entries[:cut])
    resumed = encode(say("again"), after=whole.entries[:cut])

    assert not lost.can_complete
    assert resumed.encoder.has_failed
    assert resumed.response["status"] == "failed"
    assert resumed.output[0]["input"] == "rm -rf /tmp/scratch"
    assert replay(whole.entries[: cut + 1]).can_complete
    assert encode(say("again"), after=whole.entries[: cut + 1]).response["status"] == "completed"
