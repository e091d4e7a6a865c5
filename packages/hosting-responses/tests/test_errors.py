"""The error catalogue of contract §4.8, text by text."""

import pytest

from agent_framework_hosting_responses.protocol import errors
from agent_framework_hosting_responses.protocol.errors import RequestError, error_body
from agent_framework_hosting_responses.protocol.json import JsonValue

INVALID = "invalid_request_error"

CATALOGUE: list[tuple[str, RequestError, int, str, str | None, str | None]] = [
    ("E1", errors.response_not_found("X"), 404, "Response with id 'X' not found.", None, None),
    ("E2", errors.conversation_not_found("X"), 404, "Conversation with id 'X' not found.", None, None),
    ("E3", errors.conversation_item_not_found("X"), 404, "Item with id 'X' not found in conversation.", None, None),
    ("E3 list", errors.item_not_found("X"), 404, "Item with id 'X' not found.", None, None),
    (
        "E3 reference",
        errors.item_not_found("X", param="input[0].id", status=400),
        400,
        "Item with id 'X' not found.",
        "input[0].id",
        None,
    ),
    (
        "E4",
        errors.mutually_exclusive(),
        400,
        "Mutually exclusive parameters: ''. Ensure you are only providing one of: 'pre..._id' or 'conversation'.",
        None,
        "mutually_exclusive_parameters",
    ),
    (
        "E5",
        errors.previous_response_not_found("X"),
        400,
        "Previous response with id 'X' not found.",
        "previous_response_id",
        "previous_response_not_found",
    ),
    (
        "E6",
        errors.invalid_id("previous_response_id", "X!"),
        400,
        (
            "Invalid 'previous_response_id': 'X!'. Expected an ID that contains letters, numbers, underscores, or dashes, "
            "but this value contained additional characters."
        ),
        "previous_response_id",
        "invalid_value",
    ),
    (
        "E7",
        errors.missing_input(),
        400,
        "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation_id' must be provided.",
        "input",
        "missing_required_parameter",
    ),
    (
        "E8",
        errors.missing_parameter("input[1].encrypted_content"),
        400,
        "Missing required parameter: 'input[1].encrypted_content'.",
        "input[1].encrypted_content",
        "missing_required_parameter",
    ),
    (
        "E9",
        errors.call_not_found("X"),
        400,
        "No tool call found for function call output with call_id X.",
        "input",
        None,
    ),
    ("unanswered", errors.call_output_missing("X"), 400, "No tool output found for function call X.", "input", None),
    (
        "E10",
        errors.integer_too_big("limit", 100, 1000),
        400,
        "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 1000 instead.",
        "limit",
        "integer_above_max_value",
    ),
    (
        "E10b",
        errors.integer_too_small("limit", 1, 0),
        400,
        "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        "limit",
        "integer_below_min_value",
    ),
    (
        "E11",
        errors.decimal_too_small("temperature", 0, -1),
        400,
        "Invalid 'temperature': decimal below minimum value. Expected a value >= 0, but got -1 instead.",
        "temperature",
        "decimal_below_min_value",
    ),
    (
        "E11 above",
        errors.decimal_too_big("temperature", 2, 3),
        400,
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3 instead.",
        "temperature",
        "decimal_above_max_value",
    ),
    (
        "E12",
        errors.invalid_value("input[0].content[0].type", "x", ("a", "b", "c")),
        400,
        "Invalid value: 'x'. Supported values are: 'a', 'b', and 'c'.",
        "input[0].content[0].type",
        "invalid_value",
    ),
    (
        "E12b",
        errors.invalid_type("temperature", "a decimal", "hot"),
        400,
        "Invalid type for 'temperature': expected a decimal, but got a string instead.",
        "temperature",
        "invalid_type",
    ),
    (
        "E12c",
        errors.string_too_long("p", 2, 3),
        400,
        "Invalid 'p': string too long. Expected a string with maximum length 2, but got a string with length 3 instead.",
        "p",
        "string_above_max_length",
    ),
    (
        "E12d",
        errors.array_too_long("items", 20, 21),
        400,
        (
            "Invalid 'items': array too long. Expected an array with maximum length 20, but got an array with length 21 "
            "instead."
        ),
        "items",
        "array_above_max_length",
    ),
    (
        "E12d object",
        errors.too_many_properties("metadata", 16, 17),
        400,
        (
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object "
            "with 17 properties instead."
        ),
        "metadata",
        "object_above_max_properties",
    ),
    (
        "E12d empty",
        errors.array_empty("items"),
        400,
        "Invalid 'items': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        "items",
        "empty_array",
    ),
    (
        "§6.2",
        errors.duplicate_item("items[0].id", "msg_1"),
        400,
        "Invalid 'items[0].id': 'msg_1'. Item IDs must be unique within a conversation.",
        "items[0].id",
        "invalid_value",
    ),
    (
        "E13",
        errors.conversation_locked(),
        400,
        "Another process is currently operating on this conversation. Please retry in a few seconds.",
        "conversation",
        "conversation_locked",
    ),
    (
        "E14",
        errors.not_streamable_foreground(),
        400,
        "This response cannot be streamed because it was not created with background=true.",
        "stream",
        None,
    ),
    (
        "E16",
        errors.not_streamable_expired(),
        400,
        "This response can no longer be streamed because it is more than 5 minutes old.",
        "stream",
        None,
    ),
    ("E17", errors.cannot_cancel_foreground(), 400, "Cannot cancel a synchronous response.", None, None),
    (
        "E18",
        errors.invalid_json(),
        400,
        (
            "Invalid body: failed to parse JSON value. Please check the value to ensure it is valid JSON. (Common errors "
            "include trailing commas, missing closing brackets, missing quotation marks, etc.)"
        ),
        None,
        "invalid_json",
    ),
    (
        "E19",
        errors.unsupported_content_type("text/plain"),
        400,
        (
            "Unsupported content type: 'text/plain'. This API method only accepts 'application/json' requests, but you "
            "specified the header 'Content-Type: text/plain'. Please try again with a supported content type."
        ),
        None,
        "unsupported_content_type",
    ),
    (
        "E20",
        errors.model_not_found("X"),
        400,
        "The requested model 'X' does not exist.",
        "model",
        "model_not_found",
    ),
    (
        "§7",
        errors.model_object_not_found("X"),
        404,
        "The model 'X' does not exist",
        "model",
        "model_not_found",
    ),
    ("E21", errors.unknown_parameter("x"), 400, "Unknown parameter: 'x'.", "x", "unknown_parameter"),
    (
        "E22",
        errors.unsupported_parameter("prompt"),
        400,
        "Unsupported parameter: 'prompt' is not supported with this model.",
        "prompt",
        "unsupported_parameter",
    ),
    ("E23", errors.invalid_api_key(), 401, "Incorrect API key provided.", None, "invalid_api_key"),
    ("E24", errors.invalid_url("POST", "/v1/xyz"), 404, "Invalid URL (POST /v1/xyz)", None, None),
    (
        "E25",
        errors.method_not_allowed("POST", "/v1/responses/{id}"),
        405,
        "Not allowed to POST on /v1/responses/{id}. (HINT: Perhaps you meant to use a different HTTP method?)",
        None,
        "method_not_supported",
    ),
    ("E26", errors.body_too_large(), 413, "Request body too large.", None, None),
    ("§4.3", errors.cannot_delete_in_flight(), 400, "Cannot delete an in-flight response.", None, None),
]


@pytest.mark.parametrize(
    ("error", "status", "message", "param", "code"),
    [pytest.param(*case[1:], id=case[0]) for case in CATALOGUE],
)
def test_an_error_has_the_text_param_code_and_status_of_the_catalogue(
    error: RequestError, status: int, message: str, param: str | None, code: str | None
) -> None:
    assert error_body(error) == {"error": {"message": message, "type": INVALID, "param": param, "code": code}}
    assert error.status == status


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.server_error(), 500, "server_error", None),
        (errors.overloaded(), 503, "server_error", None),
    ],
)
def test_errors_that_are_not_the_callers_have_a_type_of_their_own(
    error: RequestError, status: int, kind: str, code: str | None
) -> None:
    assert (error.status, error.type, error.code, error.param) == (status, kind, code, None)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1, "an integer"),
        (1.5, "a decimal"),
        ("x", "a string"),
        ([], "an array"),
        ({}, "an object"),
    ],
)
def test_an_error_names_the_json_type_it_got(value: JsonValue, name: str) -> None:
    assert errors.type_name(value) == name


@pytest.mark.parametrize(("values", "listed"), [(("a",), "'a'"), (("a", "b"), "'a' and 'b'")])
def test_short_lists_of_values_read_like_english(values: tuple[str, ...], listed: str) -> None:
    assert errors.invalid_value("p", "x", values).message == f"Invalid value: 'x'. Supported values are: {listed}."


@pytest.mark.behaviour("A10")
def test_no_message_repeats_ten_kilobytes_of_the_caller() -> None:
    huge = "x" * 10_240

    messages = [
        errors.response_not_found(huge).message,
        errors.previous_response_not_found(huge).message,
        errors.invalid_id("previous_response_id", huge).message,
        errors.invalid_value("p", huge, ("a",)).message,
        errors.invalid_url(huge, huge).message,
        errors.unknown_parameter(huge).message,
        errors.integer_too_big("p", 1, 10**5000).message,
        errors.integer_too_small("p", 1, -(10**5000)).message,
    ]

    assert max(map(len, messages)) < 500


def test_a_request_error_is_an_exception_with_its_message() -> None:
    with pytest.raises(RequestError, match=r"Cannot cancel a synchronous response\."):
        raise errors.cannot_cancel_foreground()


def test_answers_to_approvals_that_are_unknown_or_answered_are_about_the_input() -> None:
    assert errors.approval_request_not_found("mcpr_1").param == "input"
    assert errors.approval_answered_already("mcpr_1").param == "input"
    assert errors.question_gone("resp_1").param == "input"
    assert errors.previous_response_running("resp_1").param == "previous_response_id"
