"""The request body, from bytes to a parsed request."""

import json
import time
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.responses import Response

from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.protocol.json import encode_json
from agent_framework_hosting_responses.protocol.messages import to_messages
from agent_framework_hosting_responses.protocol.options import chat_options
from agent_framework_hosting_responses.protocol.request import MAX_DEPTH, CreateRequest, decode_body, parse_request
from agent_framework_hosting_responses.protocol.resources import new_response

INVALID_JSON = "invalid_json"


def parse(**body: Any) -> CreateRequest:
    return parse_request({"input": "hi", **body})


def refusal(body: Any, **settings_: Any) -> RequestError:
    with pytest.raises(RequestError) as refused:
        parse_request(body, **settings_)
    return refused.value


# --- Bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"input": "hi",}',
        b"{'input': 'hi'}",
        b'{"temperature": NaN}',
        b'{"temperature": Infinity, "input": "\\ud83d"}',
        b'{"temperature": -Infinity}',
        b'{"temperature": 1e999}',
        b'{"temperature": 1e999, "input": "\\ud83d"}',
        b'{"input": "\\ud83d", "max_tool_calls": ' + b"9" * 5000 + b"}",
        b'{"input": "\xed\xa0\xbd"}',
        b'{"input": "\xff"}',
        b'{"input": "\xff\\ud83d"}',
        b'\xef\xbb\xbf{"input": "hi"}',
        '{"input": "hi"}'.encode("utf-16"),
        b'{"input": "\\uZZZZ"}',
        b'{"input": "hi"} trailing',
    ],
)
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        decode_body(body)

    assert (refused.value.status, refused.value.code, refused.value.param) == (400, INVALID_JSON, None)


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize("body", [b"[]", b'"hi"', b"1", b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        decode_body(body)

    assert (refused.value.status, refused.value.code) == (400, "invalid_type")


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize("escape", ["", "\\ud83d"])
@pytest.mark.parametrize("depth", [MAX_DEPTH, 1_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_refused_and_never_a_crash(opening: str, closing: str, depth: int, escape: str) -> None:
    body = f'{{"user": "{escape}", "input": {opening * depth}1{closing * depth}}}'

    with pytest.raises(RequestError) as refused:
        decode_body(body.encode())

    assert (refused.value.status, refused.value.code) == (400, INVALID_JSON)
    assert refused.value.param in {"input", None}
    assert (refused.value.param == "input") == (depth == MAX_DEPTH)


def test_nesting_up_to_the_limit_is_accepted() -> None:
    body = f'{{"input": {"[" * (MAX_DEPTH - 1)}1{"]" * (MAX_DEPTH - 1)}}}'

    assert "input" in decode_body(body.encode())


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": "\\ud83d"}', {"a": "\ud83d"}),
        (b'{"\\ud83d": "\\ude00", "b": 1.5}', {"\ud83d": "\ude00", "b": 1.5}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        ('{"a": "\u2028\u0000"}'.replace("\u0000", "\\u0000").encode(), {"a": "\u2028\u0000"}),
        (b" {} ", {}),
    ],
)
def test_what_json_allows_is_kept(body: bytes, value: dict[str, Any]) -> None:
    assert decode_body(body) == value


# --- Fields ------------------------------------------------------------------------------------------------------


def test_a_request_that_says_little_gets_the_defaults() -> None:
    request = parse_request({"input": "hi"})

    assert (request.store, request.background, request.stream) == (True, False, False)
    assert (request.model, request.instructions, request.max_output_tokens) == (None, None, None)
    assert (request.tools, request.client_tools, request.hosted_tools) == ((), (), ())
    assert (request.include, request.metadata) == (frozenset(), {})
    assert request.sent == {"input"}
    assert "conversation" not in request.echo


NULLABLE = [
    "model",
    "instructions",
    "previous_response_id",
    "conversation",
    "store",
    "background",
    "stream",
    "stream_options",
    "metadata",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_tool_calls",
    "text",
    "temperature",
    "top_p",
    "top_logprobs",
    "presence_penalty",
    "frequency_penalty",
    "max_output_tokens",
    "reasoning",
    "truncation",
    "include",
    "service_tier",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "prompt",
    "context_management",
    "moderation",
    "access_programs",
    "image",
    "background_options",
    "verbosity",
    "unheard_of",
]


@pytest.mark.parametrize("name", NULLABLE)
def test_an_explicit_null_equals_absence(name: str) -> None:
    with_null, without = parse(**{name: None}), parse()

    assert with_null.echo == without.echo
    assert with_null.sent == without.sent


def test_what_a_request_says_is_narrowed_once() -> None:
    body: dict[str, Any] = {
        "model": "agent-a",
        "input": "hi",
        "instructions": "be brief",
        "previous_response_id": "resp_0",
        "store": False,
        "background": True,
        "stream": True,
        "stream_options": {"include_obfuscation": False},
        "metadata": {"a": "b"},
        "max_tool_calls": 2,
        "max_output_tokens": 16,
        "parallel_tool_calls": False,
        "include": ["reasoning.encrypted_content", "something.new"],
        "user": "u",
        "safety_identifier": "s",
    }

    request = parse_request(body)

    assert request.model == "agent-a"
    assert request.instructions == "be brief"
    assert request.previous_response_id == "resp_0"
    assert (request.store, request.background, request.stream) == (False, True, True)
    assert request.metadata == {"a": "b"}
    assert (request.max_tool_calls, request.max_output_tokens) == (2, 16)
    assert request.parallel_tool_calls is False
    assert request.include == {"reasoning.encrypted_content", "something.new"}
    assert (request.user, request.safety_identifier) == ("u", "s")
    assert request.raw is body


@pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}, {"id": "conv_1", "object": "conversation"}])
def test_a_conversation_is_named_by_its_id_or_an_object_with_it(conversation: Any) -> None:
    request = parse(conversation=conversation)

    assert request.conversation_id == "conv_1"
    assert request.echo["conversation"] == {"id": "conv_1"}


def test_verbosity_at_the_top_level_belongs_to_text() -> None:
    assert parse(verbosity="low").text == {"format": {"type": "text"}, "verbosity": "low"}


def test_requiring_a_tool_where_there_is_none_is_echoed_as_sent() -> None:
    assert parse(tool_choice="required").tool_choice == "required"


@pytest.mark.parametrize("context", [{"previous_response_id": "resp_0"}, {"conversation": "conv_0"}])
@pytest.mark.parametrize("nothing", [{}, {"input": None}, {"input": ""}, {"input": []}])
def test_a_context_can_be_continued_without_input(context: dict[str, Any], nothing: dict[str, Any]) -> None:
    request = parse_request({**context, **nothing})

    assert request.input == ()


WRONG: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({"model": 7}, "model", "invalid_type"),
    ({"model": "x" * 257}, "model", "string_above_max_length"),
    ({"input": 7}, "input", "invalid_type"),
    ({"input": {"role": "user"}}, "input", "invalid_type"),
    ({"input": "x" * 10_485_761}, "input", "string_above_max_length"),
    ({"input": [{"role": "alien", "content": "hi"}]}, "input[0].role", "invalid_value"),
    ({"instructions": ["be brief"]}, "instructions", "invalid_type"),
    ({"previous_response_id": 7}, "previous_response_id", "invalid_type"),
    ({"previous_response_id": "../../x"}, "previous_response_id", "invalid_value"),
    ({"previous_response_id": "resp_\x00"}, "previous_response_id", "invalid_value"),
    ({"previous_response_id": "x" * 10_240}, "previous_response_id", "invalid_value"),
    ({"previous_response_id": ""}, "previous_response_id", "invalid_value"),
    ({"conversation": 7}, "conversation", "invalid_type"),
    ({"conversation": "../../x"}, "conversation", "invalid_value"),
    ({"conversation": "x" * 10_240}, "conversation", "invalid_value"),
    ({"conversation": {}}, "conversation.id", "missing_required_parameter"),
    ({"conversation": {"id": 7}}, "conversation.id", "invalid_type"),
    ({"conversation": {"id": "a/b"}}, "conversation.id", "invalid_value"),
    ({"store": "true"}, "store", "invalid_type"),
    ({"background": 1}, "background", "invalid_type"),
    ({"stream": "false"}, "stream", "invalid_type"),
    ({"stream_options": True}, "stream_options", "invalid_type"),
    ({"metadata": "a"}, "metadata", "invalid_type"),
    ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    ({"metadata": {"a": None}}, "metadata.a", "invalid_type"),
    ({"metadata": {"a": "x" * 513}}, "metadata.a", "string_above_max_length"),
    ({"metadata": {"x" * 65: "a"}}, "metadata", "string_above_max_length"),
    ({"metadata": {str(index): "a" for index in range(17)}}, "metadata", "object_above_max_properties"),
    ({"tools": {}}, "tools", "invalid_type"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
    ({"tool_choice": True}, "tool_choice", "invalid_type"),
    ({"tool_choice": {"type": "function", "name": "add"}}, "tool_choice", None),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "invalid_type"),
    ({"max_tool_calls": 0}, "max_tool_calls", "integer_below_min_value"),
    ({"max_output_tokens": 15}, "max_output_tokens", "integer_below_min_value"),
    ({"max_output_tokens": 16.0}, "max_output_tokens", "invalid_type"),
    ({"max_output_tokens": True}, "max_output_tokens", "invalid_type"),
    ({"text": "json"}, "text", "invalid_type"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
    ({"temperature": "hot"}, "temperature", "invalid_type"),
    ({"temperature": True}, "temperature", "invalid_type"),
    ({"temperature": -1}, "temperature", "decimal_below_min_value"),
    ({"temperature": 3}, "temperature", "decimal_above_max_value"),
    ({"top_p": 1.1}, "top_p", "decimal_above_max_value"),
    ({"top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
    ({"top_logprobs": 10**3000}, "top_logprobs", "integer_above_max_value"),
    ({"presence_penalty": -3}, "presence_penalty", "decimal_below_min_value"),
    ({"frequency_penalty": 3}, "frequency_penalty", "decimal_above_max_value"),
    ({"reasoning": "high"}, "reasoning", "invalid_type"),
    ({"reasoning": {"effort": "enormous"}}, "reasoning.effort", "invalid_value"),
    ({"truncation": "maybe"}, "truncation", "invalid_value"),
    ({"include": "a"}, "include", "invalid_type"),
    ({"include": [1]}, "include[0]", "invalid_type"),
    ({"service_tier": 1}, "service_tier", "invalid_type"),
    ({"user": 1}, "user", "invalid_type"),
    ({"safety_identifier": "x" * 129}, "safety_identifier", "string_above_max_length"),
    ({"prompt_cache_key": "x" * 65}, "prompt_cache_key", "string_above_max_length"),
    ({"prompt_cache_retention": "1y"}, "prompt_cache_retention", "invalid_value"),
    ({"verbosity": "loud"}, "verbosity", "invalid_value"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
    ({"moderation": {"model": "m"}}, "moderation", "unsupported_parameter"),
    ({"previous_response_id": "resp_0", "conversation": "conv_0"}, None, "mutually_exclusive_parameters"),
    ({"input": ""}, "input", "missing_required_parameter"),
    ({"input": []}, "input", "missing_required_parameter"),
    ({"input": None}, "input", "missing_required_parameter"),
]


@pytest.mark.behaviour("A8", "A10", "C5", "C6")
@pytest.mark.parametrize(
    ("wrong", "param", "code"), WRONG, ids=[f"{next(iter(row[0]))}-{i}" for i, row in enumerate(WRONG)]
)
def test_a_wrong_field_is_refused_with_its_path(wrong: dict[str, Any], param: str | None, code: str | None) -> None:
    error = refusal({"input": "hi", **wrong})

    assert (error.param, error.code, error.status, error.type) == (param, code, 400, "invalid_request_error")


@pytest.mark.behaviour("C6")
def test_a_request_without_input_is_refused() -> None:
    error = refusal({"model": "agent-a"})

    assert (error.param, error.code) == ("input", "missing_required_parameter")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        # Types before ranges, ranges before what fields mean together.
        ({"input": "hi", "temperature": 3, "user": 7}, "user"),
        ({"temperature": 3}, "temperature"),
        ({"input": 7, "previous_response_id": "a/b"}, "input"),
        ({"previous_response_id": "a/b", "conversation": "conv_0"}, "previous_response_id"),
        ({"input": [7], "previous_response_id": "resp_0", "conversation": "conv_0"}, "input[0]"),
    ],
)
def test_the_first_error_does_not_depend_on_the_order_of_the_fields(body: dict[str, Any], param: str) -> None:
    backwards = dict(reversed(body.items()))

    assert refusal(body).param == param
    assert refusal(backwards).param == param


def test_unknown_fields_are_ignored_unless_the_operator_is_strict() -> None:
    body: dict[str, Any] = {"input": "hi", "tempreature": 1}

    error = refusal(body, strict=True)

    assert parse_request(body).sent == {"input", "tempreature"}
    assert (error.param, error.code, error.message) == (
        "tempreature",
        "unknown_parameter",
        "Unknown parameter: 'tempreature'.",
    )


def test_strict_accepts_every_field_of_the_api() -> None:
    known: dict[str, Any] = dict.fromkeys(NULLABLE[:-1])
    ignored: dict[str, Any] = {
        "type": "response.create",
        "generate": True,
        "stream_id": "s",
        "image": {},
        "background_options": {},
    }

    parse_request({**known, "input": "hi", **ignored, "context_management": [], "access_programs": {}}, strict=True)


def test_hosted_tools_are_the_operators_decision() -> None:
    body: dict[str, Any] = {"input": "hi", "tools": [{"type": "web_search"}]}

    assert parse_request(body, hosted_tools="ignore").tools == ({"type": "web_search"},)
    assert parse_request(body, hosted_tools="pass").hosted_tools == ({"type": "web_search"},)


def test_ids_come_from_the_factory() -> None:
    request = parse_request({"input": "hi"}, new_id=lambda prefix: f"{prefix}_fixed")

    assert request.input[0]["id"] == "msg_fixed"


def test_secrets_stay_out_of_the_echo() -> None:
    mcp: dict[str, Any] = {"type": "mcp", "server_label": "s", "authorization": "Bearer 123", "headers": {"k": "123"}}

    request = parse_request({"input": "hi", "tools": [mcp]}, hosted_tools="pass")

    assert "123" not in json.dumps([request.echo, request.tools])
    assert request.raw["tools"] == [mcp]


# --- Anything at all ---------------------------------------------------------------------------------------------

VALID: list[dict[str, Any]] = [
    {
        "model": "agent-a",
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "file_id": "f"}],
            },
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a", "annotations": []}],
            },
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": None},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "1"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "t"}]},
            {"type": "computer_call_output", "call_id": "c", "output": {"image_url": "x"}},
            {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
            {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "", "outcome": {"exit_code": 0}}]},
            {"type": "local_shell_call", "call_id": "c", "action": {"command": ["ls"]}},
            {
                "type": "mcp_call",
                "id": "mcp_1",
                "server_label": "s",
                "name": "t",
                "arguments": "",
                "error": {"code": 1},
            },
            {"type": "code_interpreter_call", "container_id": "c", "outputs": [{"type": "logs", "logs": "l"}]},
            {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "t", "arguments": "{}"},
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        ],
        "metadata": {"a": "b"},
        "stream": True,
    },
    {
        "input": "hi",
        "tools": [
            {"type": "function", "name": "f", "parameters": {"type": "object"}},
            {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "lark", "definition": "d"}},
            {"type": "mcp", "server_label": "s", "server_url": "https://example.com/x", "headers": {"a": "b"}},
        ],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"},
        "reasoning": {"effort": "low"},
        "include": ["a"],
        "temperature": 1,
        "conversation": {"id": "conv_1"},
    },
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["data:", "https://", "../..", "message", "function_call", "\ud83d", "auto", "x" * 300])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
keys = st.sampled_from([*NULLABLE, "input", "type", "role", "content", "id"])


def places(value: Any) -> list[tuple[Any, Any]]:
    found = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in pairs:
        found.append((value, key))
        found += places(member)
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    body: dict[str, Any] = deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places(body) or [(body, "input")]))
        if draw(st.booleans()):
            container[key] = draw(values)
        elif isinstance(container, dict):
            container.pop(key, None)
        else:
            container.insert(key, draw(values))
    return body


def judge(body: dict[str, Any]) -> RequestError | None:
    """Send a body through everything that stands before the run; return what refused it."""
    started = time.thread_time()
    try:
        request = parse_request(decode_body(encode_json(body)), hosted_tools="pass")
    except RequestError as error:
        return error
    finally:
        assert time.thread_time() - started < 2
    response = new_response(request, response_id="resp_1", created_at=1, model="agent-a")
    encode_json(response)
    # What else a hosted tool says is between its sender and the provider that runs it.
    Response.model_validate({**response, "tools": list(request.client_tools)})
    chat_options(request)
    items = [item for item in request.input if item["type"] not in {"item_reference", "mcp_approval_response"}]
    to_messages(items)
    return None


@pytest.mark.behaviour("C6")
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated() | st.dictionaries(keys | st.text(max_size=8), values, max_size=6))
def test_any_object_is_a_request_or_refused_with_400(body: dict[str, Any]) -> None:
    error = judge(body)

    assert error is None or error.status == 400


@pytest.mark.parametrize("body", VALID)
def test_the_bodies_that_are_mutated_are_valid(body: dict[str, Any]) -> None:
    assert judge(body) is None


@pytest.mark.behaviour("C6")
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_an_object_or_refused_with_400(body: bytes) -> None:
    try:
        decoded: object = decode_body(body)
    except RequestError as error:
        decoded = error.status

    assert decoded == 400 or isinstance(decoded, dict)


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize(
    "body",
    [
        {"input": [{"role": "user", "content": "hi"}] * 10_000},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}] * 10_000}]},
        {"input": "hi", "metadata": {str(index): "a" for index in range(100_000)}},
        {"input": "hi", "unknown": [[]] * 300_000},
        {"input": [{"id": "a" * 250_000}]},
    ],
    ids=["items", "parts", "metadata", "unknown", "id"],
)
def test_large_bodies_are_read_or_refused_in_seconds(body: dict[str, Any]) -> None:
    data = encode_json(body)
    started = time.thread_time()

    try:
        parse_request(decode_body(data))
    except RequestError as error:
        outcome = error.status
    else:
        outcome = 200

    assert outcome in {200, 400}
    assert time.thread_time() - started < 5
