"""Whatever an agent yields, the official client accepts the stream and the rules of the wire hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import wire
from agent_framework import AgentResponseUpdate, Content
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_framework_hosting_responses.protocol.input import UNSUPPORTED
from agent_framework_hosting_responses.protocol.messages import to_messages
from agent_framework_hosting_responses.protocol.replay import replay
from agent_framework_hosting_responses.protocol.request import parse_request

SETTINGS = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

TEXTS = st.one_of(
    st.sampled_from(["", "a", "ab", "abc", " ", "\u2028", "😀", "x\r\ny"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
IDS = st.sampled_from(["c1", "c2", "c3", ""])
NAMES = st.sampled_from(["client", "custom", "server", "other", ""])
ARGUMENTS = st.one_of(st.none(), st.sampled_from(["", "{", "}", '{"a":1}', '{"input":"x"}', "free"]), st.just({"a": 1}))
MODES = st.sampled_from([None, "append", "replace"])
PNG = "data:image/png;base64,iVBORw0KGgo="

ANNOTATIONS = st.one_of(
    st.none(),
    st.just([{"type": "citation", "url": "https://a.b", "title": "t"}]),
    st.just([{"type": "citation", "file_id": "f"}]),
    st.just([{"type": "citation", "snippet": "s"}]),
)
PROPERTIES = st.sampled_from(
    [
        None,
        {"core": {"model_output_kind": "refusal"}},
        {"phase": "commentary"},
        {"phase": "final_answer"},
        {"reasoning_text": True},
    ]
)
RESULTS = st.one_of(TEXTS, st.just({"a": 1}), st.just([Content.from_text("r"), Content.from_uri(PNG)]))

TEXT = st.builds(Content.from_text, TEXTS, merge_mode=MODES, annotations=ANNOTATIONS, additional_properties=PROPERTIES)
REASONING = st.builds(
    Content.from_text_reasoning,
    id=st.sampled_from([None, "rs_a", "rs_b"]),
    text=TEXTS,
    protected_data=st.sampled_from([None, "secret"]),
    merge_mode=MODES,
    additional_properties=PROPERTIES,
)
CALL = st.builds(
    Content.from_function_call,
    IDS,
    NAMES,
    arguments=ARGUMENTS,
    id=st.sampled_from([None, None, "i1", "i2"]),
    merge_mode=MODES,
    hosted=st.sampled_from([None, None, None, True]),
)


def _paused(call: Content) -> Content:
    call.user_input_request = True
    return call


PAUSE = st.builds(_paused, CALL)
RESULT = st.builds(
    Content.from_function_result, IDS, result=RESULTS, exception=st.sampled_from([None, None, "Boom: secret"])
)
APPROVAL = st.builds(
    lambda call_id, name: Content.from_function_approval_request(
        call_id or "a", Content.from_function_call(call_id, name, id=call_id or "a", arguments='{"a":1}')
    ),
    IDS,
    NAMES,
)
MEDIA = st.sampled_from(
    [
        Content.from_uri(PNG),
        Content.from_data(b"x", "audio/wav"),
        Content.from_uri("https://a.b/c.png", media_type="image/png"),
        Content.from_hosted_file("file_1", name="a.txt"),
        Content.from_hosted_vector_store("vs_1"),
        Content.from_oauth_consent_request("https://a.b/consent"),
        Content.from_error(message="secret", error_code="E1"),
        Content.from_usage({"input_token_count": 1, "other": 2}),  # type: ignore[typeddict-unknown-key]
    ]
)
HOSTED = st.one_of(
    st.builds(
        lambda i, t, a: Content.from_search_tool_call(i, tool_name=t, arguments=a),
        IDS,
        st.sampled_from(["web_search", "file_search"]),
        st.sampled_from([None, '{"query":"q"}', {"queries": ["a", "b"]}, "words"]),
    ),
    st.builds(
        lambda i, t, r: Content.from_search_tool_result(i, tool_name=t, result=r),
        IDS,
        st.sampled_from(["web_search", "file_search"]),
        st.sampled_from([None, {"results": [{"file_id": "f", "score": 0.5}]}, "text"]),
    ),
    st.builds(lambda i, a: Content.from_mcp_server_tool_call(i, "tool", arguments=a), IDS, ARGUMENTS),
    st.builds(lambda i, o: Content.from_mcp_server_tool_result(i, output=o), IDS, RESULTS),
    st.builds(
        lambda i, t, m: Content.from_code_interpreter_tool_call(call_id=i, inputs=[Content.from_text(t)], merge_mode=m),
        IDS,
        TEXTS,
        MODES,
    ),
    st.builds(
        lambda i, o: Content.from_code_interpreter_tool_result(call_id=i, outputs=o),
        IDS,
        st.sampled_from([None, [Content.from_text("log"), Content.from_uri(PNG)]]),
    ),
    st.builds(lambda i: Content.from_image_generation_tool_call(image_id=i), IDS),
    st.builds(
        lambda i, o: Content.from_image_generation_tool_result(image_id=i, outputs=o),
        IDS,
        st.sampled_from(
            [
                None,
                Content.from_uri(PNG),
                [Content.from_uri(PNG), Content.from_uri(PNG)],
                Content.from_uri("https://a.b/c.png", media_type="image/png"),
                Content.from_uri(PNG, additional_properties={"is_partial_image": True, "partial_image_index": 0}),
            ]
        ),
    ),
    st.builds(
        lambda i, c: Content.from_shell_tool_call(call_id=i, commands=c), IDS, st.sampled_from([None, ["ls", ""]])
    ),
    st.builds(
        lambda i: Content.from_shell_tool_result(
            call_id=i, outputs=[Content.from_shell_command_output(stdout="a", exit_code=0)]
        ),
        IDS,
    ),
    st.just(Content.from_shell_command_output(stderr="b", timed_out=True)),
    st.just(Content("novel", text="text of the future")),  # type: ignore[arg-type]
    st.just(Content("novel")),  # type: ignore[arg-type]
)
CONTENTS = st.one_of(TEXT, TEXT, REASONING, CALL, PAUSE, RESULT, APPROVAL, MEDIA, HOSTED)
RAW_ITEMS = st.sampled_from(
    [
        {"type": "message", "status": "incomplete"},
        {"type": "message", "status": "completed", "phase": "commentary"},
        {"type": "reasoning", "id": "rs_a", "summary": []},
        {"type": "mcp_list_tools", "id": "mcpl_up", "server_label": "s", "tools": []},
        {"type": "mcp_call", "id": "c1", "server_label": "s", "name": "t", "arguments": "{}", "status": "completed"},
        {"type": "web_search_call", "id": "c2", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "code_interpreter_call", "id": "c1", "status": "in_progress", "code": "", "container_id": "x"},
        {"type": "code_interpreter_call", "id": "c1", "status": "completed", "code": "ab", "container_id": "x"},
        {"type": "image_generation_call", "id": "c1", "status": "generating", "result": None},
        {"type": "custom_tool_call", "id": "ctc_up", "call_id": "x1", "name": "f", "input": "in"},
        {"type": "compaction", "id": "cmp_up", "encrypted_content": "x"},
        {"type": "novel", "id": "n"},
    ]
)
RAW_EVENTS = st.one_of(
    st.none(),
    st.none(),
    st.builds(
        lambda what, item: {"type": f"response.output_item.{what}", "item": item},
        st.sampled_from(["added", "done"]),
        RAW_ITEMS,
    ),
    st.just({"type": "response.custom_tool_call_input.delta", "item_id": "ctc_up", "delta": "i"}),
    st.just({"type": "response.failed", "response": {"error": None}}),
)
UPDATES = st.builds(
    AgentResponseUpdate,
    raw_representation=RAW_EVENTS,
    contents=st.lists(CONTENTS, max_size=3),
    role=st.sampled_from([None, "assistant", "assistant", "assistant", "tool", "user"]),
    message_id=st.sampled_from([None, None, "m1", "m2"]),
    author_name=st.sampled_from([None, None, "a", "b"]),
    merge_mode=st.sampled_from([None, None, None, "append", "replace"]),
    finish_reason=st.sampled_from([None, None, None, "stop", "length", "content_filter", "tool_calls", "error"]),
)
OPTIONS = st.fixed_dictionaries(
    {
        "client_tools": st.just(frozenset({"client"})),
        "custom_tools": st.just(frozenset({"custom"})),
        "server_tools": st.just(frozenset({"server"})),
        "allowed_tools": st.sampled_from([None, frozenset({"custom"})]),
        "server_calls": st.sampled_from(["hide", "function_call", "mcp_call"]),
        "reasoning": st.sampled_from(["summary", "text"]),
        "include": st.sampled_from(
            [
                frozenset(),
                frozenset({"reasoning.encrypted_content", "file_search_call.results", "code_interpreter_call.outputs"}),
            ]
        ),
        "error_details": st.booleans(),
    }
)


@pytest.mark.behaviour("B1", "B3", "B5", "B14")
@SETTINGS
@given(
    updates=st.lists(UPDATES, max_size=12),
    ending=st.sampled_from(["complete", "complete", "complete", "fail", "cancel"]),
    options=OPTIONS,
)
def test_any_run_gives_a_stream_that_the_official_client_accepts(
    updates: list[AgentResponseUpdate], ending: str, options: dict[str, Any], encode: Callable[..., Any]
) -> None:
    encoded = encode(*updates, ending=ending, **options)

    assert encoded.encoder.is_terminal
    if not options["error_details"]:
        assert "secret" not in str(encoded.events).replace("'encrypted_content': 'secret'", "")


@pytest.mark.behaviour("B1")
@SETTINGS
@given(
    updates=st.lists(UPDATES, max_size=12),
    ending=st.sampled_from(["complete", "complete", "fail", "cancel"]),
    options=OPTIONS,
)
def test_the_one_shot_answer_is_the_answer_of_the_stream(
    updates: list[AgentResponseUpdate], ending: str, options: dict[str, Any], encode_only: Callable[..., Any]
) -> None:
    streamed = encode_only(*updates, ending=ending, **options)
    one_shot = encode_only(*updates, ending=ending, events=False, **options)

    assert one_shot.events == []
    assert one_shot.response == streamed.response


@SETTINGS
@given(updates=st.lists(UPDATES, max_size=8), ending=st.sampled_from(["complete", "cancel"]), options=OPTIONS)
def test_whatever_was_put_out_can_be_sent_back(
    updates: list[AgentResponseUpdate], ending: str, options: dict[str, Any], encode_only: Callable[..., Any]
) -> None:
    encoded = encode_only(*updates, ending=ending, **options)
    output = [item for item in encoded.output if item["type"] not in UNSUPPORTED]

    request = parse_request({"input": [{"role": "user", "content": "go"}, *output]})

    assert list(request.input[1:]) == output
    assert to_messages(request.input)


@pytest.mark.behaviour("B15")
@SETTINGS
@given(updates=st.lists(st.builds(AgentResponseUpdate, contents=st.lists(TEXT, max_size=3)), max_size=12))
def test_no_text_waits_for_a_later_update(updates: list[AgentResponseUpdate], encode_only: Callable[..., Any]) -> None:
    for end in range(len(updates) + 1):
        cut = encode_only(*updates[:end])
        whole = encode_only(*updates)

        sent_by_then = cut.deltas() + cut.deltas("refusal")
        sent_in_all = whole.deltas() + whole.deltas("refusal")
        assert len(sent_by_then) <= len(sent_in_all)
        assert cut.deltas() == whole.deltas()[: len(cut.deltas())]


def strictly(events: list[dict[str, Any]], *, earlier_items: int = 0) -> str | None:
    """Return what the strict schema of the wire objects to; the first items are an earlier attempt's."""
    try:
        wire.check_stream(events, earlier_items=earlier_items)
    except AssertionError as error:
        return str(error)
    return None


def is_added(event: dict[str, Any]) -> bool:
    return bool(event["type"] == "response.output_item.added")


ENDINGS = st.sampled_from(["complete", "complete", "fail", "cancel"])


@pytest.mark.behaviour("B1", "B3", "B5")
@settings(SETTINGS, max_examples=120)
@given(
    lost=st.lists(UPDATES, max_size=10),
    updates=st.lists(UPDATES, max_size=6),
    ending=ENDINGS,
    is_background=st.booleans(),
    options=OPTIONS,
    data=st.data(),
)
def test_any_run_goes_on_after_any_run_that_was_cut_anywhere(  # noqa: PLR0917  what Hypothesis gives, and fixtures
    lost: list[AgentResponseUpdate],
    updates: list[AgentResponseUpdate],
    ending: str,
    is_background: bool,
    options: dict[str, Any],
    data: st.DataObject,
    encode: Callable[..., Any],
    encode_only: Callable[..., Any],
    body: Callable[..., dict[str, Any]],
) -> None:
    settings = {**options, "body": {**body(background=is_background), "prompt_cache_retention": None}}
    first = encode_only(*lost, **settings)
    alone = encode_only(*updates, ending=ending, **settings)
    cut = data.draw(st.integers(0, len(first.entries) - 1), label="cut")

    resumed = encode(*updates, ending=ending, after=first.entries[:cut], **settings)

    told = [event for event in first.events[:cut] if event["type"].startswith("response.output_item")]
    added = [event["item"]["id"] for event in told if is_added(event)]
    assert resumed.events[:cut] == first.events[:cut]
    assert added == [event["item"]["id"] for event in resumed.events if is_added(event)][: len(added)]
    if resumed.left_out:
        assert {item["id"] for item in resumed.output}.isdisjoint(added)
    else:
        in_order = sorted(told, key=lambda event: event["output_index"])
        finished = [event["item"] for event in in_order if not is_added(event)]
        assert [item["id"] for item in resumed.output[: len(added)]] == added
        assert [item for item in resumed.output if item in finished] == finished
    assert len(resumed.output) == len(added) - resumed.left_out + len(alone.output)
    if replay(first.entries[:cut]).can_complete:
        assert resumed.response["status"] == alone.response["status"]
    else:
        assert resumed.response["status"] in {"failed", "cancelled"}
    # Some agents say what the strict schema does not know; a second attempt adds nothing to that.
    if strictly(first.events) is None and strictly(alone.events) is None:
        assert strictly(resumed.events, earlier_items=len(added)) is None


@pytest.mark.behaviour("B8")
@settings(SETTINGS, max_examples=25)
@given(lost=st.lists(UPDATES, max_size=6), ending=st.sampled_from(["fail", "cancel"]), options=OPTIONS)
def test_any_run_that_was_cut_at_any_place_can_be_ended(
    lost: list[AgentResponseUpdate],
    ending: str,
    options: dict[str, Any],
    encode_only: Callable[..., Any],
    judge: Callable[..., None],
) -> None:
    first = encode_only(*lost, background=True, **options)

    for cut in range(len(first.entries)):
        ended = encode_only(background=True, ending=ending, after=first.entries[:cut], **options)

        # The types of each event are judged where the run was cut at one place.
        judge(ended, strict=False)
        assert ended.response["status"] == ("failed" if ending == "fail" else "cancelled")
    assert replay(first.entries).is_terminal


@pytest.mark.behaviour("B1")
@settings(SETTINGS, max_examples=100)
@given(
    lost=st.lists(UPDATES, max_size=8),
    updates=st.lists(UPDATES, max_size=6),
    ending=ENDINGS,
    options=OPTIONS,
    data=st.data(),
)
def test_a_second_attempt_without_events_is_the_one_with_events(  # noqa: PLR0917  what Hypothesis gives, and a fixture
    lost: list[AgentResponseUpdate],
    updates: list[AgentResponseUpdate],
    ending: str,
    options: dict[str, Any],
    data: st.DataObject,
    encode_only: Callable[..., Any],
) -> None:
    entries = encode_only(*lost, **options).entries
    after = entries[: data.draw(st.integers(0, len(entries) - 1), label="cut")]

    streamed = encode_only(*updates, ending=ending, after=after, **options)
    one_shot = encode_only(*updates, ending=ending, after=after, events=False, **options)

    assert len(one_shot.events) == len(after)
    assert one_shot.response == streamed.response
