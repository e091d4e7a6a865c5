"""Errors of the protocol, split by whose fault they are.

ProtocolError
├── RequestError        the caller's fault: message, param, code, HTTP status hint
└── EncoderStateError   our bug: always 500

The functions below are the catalogue of messages; nothing else writes one.

Source: contract §4.8.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent_framework_hosting_responses.protocol.json import JsonObject, JsonValue

_SHOWN = 64
"""Characters of a caller's value that an error message repeats; longer values are cut."""

_CONTINUED = "what the request continues (previous_response_id or conversation)"
"""Where a question must be that is answered: one that stands in `input` can be written by anybody."""


class ProtocolError(Exception):
    """Base of everything the protocol core raises."""


class RequestError(ProtocolError):
    """The request cannot be answered as asked; `status` is the HTTP status that says so."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        type: str = "invalid_request_error",  # noqa: A002  the wire's word
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status
        self.type = type


class EncoderStateError(ProtocolError):
    """The encoder was driven outside its grammar."""


def error_body(error: RequestError) -> JsonObject:
    """Return the error envelope: `{"error": {"message", "type", "param", "code"}}`, always with all four keys."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def type_name(value: JsonValue) -> str:
    """Return how error messages call the JSON type of `value`, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


# --- Objects that are not there: E1, E2, E3, E5, E20, §7 ---------------------------------------------------------


def response_not_found(response_id: str) -> RequestError:
    """E1: the response is unknown, deleted, or was never stored."""
    return RequestError(f"Response with id '{_shown(response_id)}' not found.", status=404)


def conversation_not_found(conversation_id: str) -> RequestError:
    """E2: the conversation is unknown or deleted."""
    return RequestError(f"Conversation with id '{_shown(conversation_id)}' not found.", status=404)


def conversation_item_not_found(item_id: str) -> RequestError:
    """E3: the conversation has no such item."""
    return RequestError(f"Item with id '{_shown(item_id)}' not found in conversation.", status=404)


def item_not_found(item_id: str, *, param: str | None = None, status: int = 404) -> RequestError:
    """E3-like: a list cursor (404) or an `item_reference` (400, param `input`) names no item.

    Source: contract §4.5, §1.5.
    """
    return RequestError(f"Item with id '{_shown(item_id)}' not found.", param=param, status=status)


def previous_response_not_found(response_id: str) -> RequestError:
    """E5: 400, not 404."""
    return RequestError(
        f"Previous response with id '{_shown(response_id)}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def previous_response_running(response_id: str) -> RequestError:
    """Refuse to continue a response that is still queued or in progress. Source: contract §1.2."""
    return RequestError(
        f"Previous response with id '{_shown(response_id)}' has not finished yet.", param="previous_response_id"
    )


def model_not_found(model: str) -> RequestError:
    """E20: a request names a model that this server does not serve."""
    return RequestError(f"The requested model '{_shown(model)}' does not exist.", param="model", code="model_not_found")


def model_gone(model: str) -> RequestError:
    """Refuse to go on with a model that is not served any more; another one can be told what was said."""
    was = f"The model '{_shown(model)}'" if model else "The model"
    return RequestError(
        f"{was} that gave the last response is not served any more: name another one in 'model'.",
        param="model",
        code="model_not_found",
    )


def asked_by_another_model(model: str) -> RequestError:
    """Refuse an answer to what one model has asked that is sent to another one."""
    by = f"'{_shown(model)}'" if model else "a model that is not served any more"
    return RequestError(f"This was asked by {by}, which alone can be answered.", param="model")


def model_object_not_found(model: str) -> RequestError:
    """Answer `GET /models/{id}` for an unknown id. Source: contract §7."""
    return RequestError(
        f"The model '{_shown(model)}' does not exist", param="model", code="model_not_found", status=404
    )


# --- Values of the request: E4, E6-E12, E21, E22, E31 ------------------------------------------------------------


def mutually_exclusive() -> RequestError:
    """E4: `previous_response_id` together with `conversation`; the odd text is the recorded one."""
    return RequestError(
        "Mutually exclusive parameters: ''. Ensure you are only providing one of: 'pre..._id' or 'conversation'.",
        code="mutually_exclusive_parameters",
    )


def invalid_id(param: str, value: str) -> RequestError:
    """E6: an id with characters outside letters, digits, `_` and `-`."""
    return RequestError(
        f"Invalid '{param}': '{_shown(value)}'. Expected an ID that contains letters, numbers, underscores, or "
        "dashes, but this value contained additional characters.",
        param=param,
        code="invalid_value",
    )


def id_too_long(param: str, maximum: int, got: int) -> RequestError:
    """E6-like: an id of implausible length."""
    return RequestError(_too_long(param, maximum, got), param=param, code="invalid_value")


def missing_input() -> RequestError:
    """E7: nothing at all to answer."""
    return RequestError(
        "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation_id' must be provided.",
        param="input",
        code="missing_required_parameter",
    )


def missing_parameter(param: str) -> RequestError:
    """E8: a required field is absent or null."""
    return RequestError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def call_not_found(call_id: str) -> RequestError:
    """E9: an output item answers no call of the context."""
    return RequestError(
        f"No tool call found for function call output with call_id {_shown(call_id)}.",
        param="input",
    )


def call_output_missing(call_id: str) -> RequestError:
    """Refuse a context in which a call was left unanswered. Source: contract §1.2."""
    return RequestError(f"No tool output found for function call {_shown(call_id)}.", param="input")


def approval_request_not_found(approval_request_id: str) -> RequestError:
    """Refuse an `mcp_approval_response` to nothing. Source: contract §1.2."""
    return RequestError(
        f"No approval request found with id '{_shown(approval_request_id)}' in {_CONTINUED}.", param="input"
    )


def approval_answered_already(approval_request_id: str) -> RequestError:
    """Refuse a second answer to one approval request: it would run the tool twice."""
    return RequestError(
        f"Approval request with id '{_shown(approval_request_id)}' has already been answered.", param="input"
    )


def approval_late(approval_request_id: str) -> RequestError:
    """Refuse an approval for which nobody waits: the workflow has begun anew since, or the agent has asked for others."""
    return RequestError(
        f"Nobody waits for the answer to approval request '{_shown(approval_request_id)}' any more.", param="input"
    )


def call_late(call_id: str) -> RequestError:
    """Refuse the output for a workflow that does not wait for it: it goes on from before the call."""
    return RequestError(f"Nobody waits for the output of call '{_shown(call_id)}' any more.", param="input")


def approval_asked_again(approval_request_id: str, newest_id: str) -> RequestError:
    """Refuse an answer to an approval request that has a newer one in its place."""
    return RequestError(
        f"Approval request with id '{_shown(approval_request_id)}' has been asked again, as '{_shown(newest_id)}'.",
        param="input",
    )


def approval_missing(approval_request_id: str) -> RequestError:
    """Refuse to go on without an approval that a workflow waits for."""
    return RequestError(
        f"No approval response found for approval request '{_shown(approval_request_id)}'.", param="input"
    )


def call_answered_already(call_id: str) -> RequestError:
    """Refuse a second output of one call: the workflow that asked has gone on."""
    return RequestError(f"Function call {_shown(call_id)} has already been answered.", param="input")


def response_answered_already(response_id: str) -> RequestError:
    """Refuse an answer to what another response has answered, or is about to."""
    return RequestError(f"What the response '{_shown(response_id)}' asks has already been answered.", param="input")


def question_gone(response_id: str) -> RequestError:
    """Refuse to go on from a response that waits for an answer, when the state that it waits in was erased."""
    return RequestError(
        f"The response '{_shown(response_id)}' waits for an answer that it cannot take any more: the state of its workflow "
        "is gone, or cannot be read. Continue an earlier response, or begin anew.",
        param="input",
    )


def nothing_asked() -> RequestError:
    """Refuse an answer to a workflow that has asked nothing: it would take it for the beginning of something else."""
    return RequestError(f"The workflow waits for no answer in {_CONTINUED}.", param="input")


def answers_only() -> RequestError:
    """Refuse messages while a workflow waits for answers: nobody would read them."""
    return RequestError(
        "The workflow waits for answers and takes no messages with them: send these when it has gone on.", param="input"
    )


def wrong_answer(answered_id: str, why: str) -> RequestError:
    """Refuse an answer that is not what the workflow waits for."""
    return RequestError(f"The answer to {_shown(answered_id)} cannot be taken. {why}", param="input")


def integer_too_big(param: str, maximum: int, got: int) -> RequestError:
    """E10."""
    return _out_of_range("integer", "above maximum", f"<= {maximum}", param=param, got=_number(got))


def integer_too_small(param: str, minimum: int, got: int) -> RequestError:
    """E10b."""
    return _out_of_range("integer", "below minimum", f">= {minimum}", param=param, got=_number(got))


def decimal_too_big(param: str, maximum: float, got: float) -> RequestError:
    """E11, upper end."""
    return _out_of_range("decimal", "above maximum", f"<= {maximum:g}", param=param, got=_number(got))


def decimal_too_small(param: str, minimum: float, got: float) -> RequestError:
    """E11, lower end."""
    return _out_of_range("decimal", "below minimum", f">= {minimum:g}", param=param, got=_number(got))


def invalid_value(param: str, value: str, supported: Sequence[str]) -> RequestError:
    """E12: not one of the supported values."""
    return RequestError(
        f"Invalid value: '{_shown(value)}'. Supported values are: {_listed(supported)}.",
        param=param,
        code="invalid_value",
    )


def invalid_type(param: str, expected: str, got: JsonValue) -> RequestError:
    """E12b: the wrong JSON type; `expected` comes with its article, `got` is the value itself."""
    return RequestError(
        f"Invalid type for '{param}': expected {expected}, but got {type_name(got)} instead.",
        param=param,
        code="invalid_type",
    )


def string_too_long(param: str, maximum: int, got: int) -> RequestError:
    """E12c: lengths in characters."""
    return RequestError(_too_long(param, maximum, got), param=param, code="string_above_max_length")


def array_too_long(param: str, maximum: int, got: int) -> RequestError:
    """E12d for arrays."""
    return RequestError(
        f"Invalid '{param}': array too long. Expected an array with maximum length {maximum}, but got an array with "
        f"length {got} instead.",
        param=param,
        code="array_above_max_length",
    )


def array_empty(param: str) -> RequestError:
    """E12d, lower end: nothing where at least one element is needed."""
    return RequestError(
        f"Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        param=param,
        code="empty_array",
    )


def too_many_properties(param: str, maximum: int, got: int) -> RequestError:
    """E12d for objects."""
    return RequestError(
        f"Invalid '{param}': too many properties. Expected an object with at most {maximum} properties, but got an "
        f"object with {got} properties instead.",
        param=param,
        code="object_above_max_properties",
    )


def pattern_mismatch(param: str, pattern: str) -> RequestError:
    """E12-like: a name with characters that names cannot have."""
    return RequestError(
        f"Invalid '{param}': string does not match pattern. Expected a string that matches the pattern '{pattern}'.",
        param=param,
        code="invalid_value",
    )


def tool_choice_not_in_tools(label: str) -> RequestError:
    """Refuse a `tool_choice` that names a tool which `tools` lacks. Source: contract §1.2."""
    return RequestError(f"Tool choice '{_shown(label)}' not found in 'tools' parameter.", param="tool_choice")


def duplicate_tool(param: str, name: str) -> RequestError:
    """Refuse two tools of one name: a call could not be told apart."""
    return RequestError(
        f"Invalid '{param}': '{_shown(name)}'. Tool names must be unique.", param=param, code="invalid_value"
    )


def duplicate_item(param: str, item_id: str) -> RequestError:
    """Refuse an item whose id the conversation has already. Source: contract §6.2."""
    return RequestError(
        f"Invalid '{param}': '{_shown(item_id)}'. Item IDs must be unique within a conversation.",
        param=param,
        code="invalid_value",
    )


def unknown_parameter(param: str) -> RequestError:
    """E21: strict mode only."""
    name = _shown(param)
    return RequestError(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def unsupported_parameter(param: str) -> RequestError:
    """E22: a field that this server refuses rather than ignores."""
    return RequestError(
        f"Unsupported parameter: '{param}' is not supported with this model.",
        param=param,
        code="unsupported_parameter",
    )


def unsupported_value(param: str, value: str) -> RequestError:
    """E22 for one value of a field, for example a hosted tool type."""
    return RequestError(
        f"Unsupported parameter: '{param}' does not support '{_shown(value)}' with this model.",
        param=param,
        code="unsupported_parameter",
    )


def invalid_file_data(param: str) -> RequestError:
    """E31: file data that is not a base64 data URL."""
    return RequestError(
        f"Invalid file data: '{param}'. Expected a base64-encoded data URL with a valid file MIME type (e.g. "
        "'data:application/pdf;base64,JVBERi0xLjQ...').",
        param=param,
        code="invalid_value",
    )


def invalid_url_value(param: str) -> RequestError:
    """E12-like: neither an http(s) URL nor a base64 data URL."""
    return RequestError(
        f"Invalid '{param}'. Expected a valid URL, but got a value with an invalid format.",
        param=param,
        code="invalid_value",
    )


# --- State of a response or conversation: E13-E17, §4.3 ----------------------------------------------------------


def conversation_locked() -> RequestError:
    """E13: 400 and never 409, which clients retry by themselves."""
    return RequestError(
        "Another process is currently operating on this conversation. Please retry in a few seconds.",
        param="conversation",
        code="conversation_locked",
    )


def idempotency_key_reused() -> RequestError:
    """Refuse a key that an earlier request with another body has used (ours)."""
    return RequestError(
        "This 'Idempotency-Key' was used before, for a request with another body.",
        param=None,
        code="idempotency_key_reused",
    )


def invalid_idempotency_key(maximum: int) -> RequestError:
    """Refuse a key that is empty, too long or not printable ASCII (ours)."""
    return RequestError(
        f"Invalid 'Idempotency-Key': expected 1 to {maximum} printable ASCII characters.", code="invalid_value"
    )


def not_streamable_foreground() -> RequestError:
    """E14: a stream of a response that was not created with `background`."""
    return RequestError(
        "This response cannot be streamed because it was not created with background=true.", param="stream"
    )


def not_streamable_expired() -> RequestError:
    """E16: the event log is gone; the JSON GET still works."""
    return RequestError(
        "This response can no longer be streamed because it is more than 5 minutes old.", param="stream"
    )


def cannot_cancel_foreground() -> RequestError:
    """E17."""
    return RequestError("Cannot cancel a synchronous response.")


def cannot_delete_in_flight() -> RequestError:
    """Refuse to delete a background response that still runs. Source: contract §4.3."""
    return RequestError("Cannot delete an in-flight response.")


# --- HTTP: E18, E19, E23-E29 -------------------------------------------------------------------------------------


def invalid_json() -> RequestError:
    """E18."""
    return RequestError(
        "Invalid body: failed to parse JSON value. Please check the value to ensure it is valid JSON. (Common errors "
        "include trailing commas, missing closing brackets, missing quotation marks, etc.)",
        code="invalid_json",
    )


def not_an_object(got: JsonValue) -> RequestError:
    """E12b for the body as a whole, which has no path."""
    return RequestError(
        f"Invalid body: expected an object, but got {type_name(got)} instead.",
        code="invalid_type",
    )


def nested_too_deep(param: str | None, maximum: int) -> RequestError:
    """E18-like: valid JSON, but nested deeper than anyone needs; `param` is the top-level field if known."""
    return RequestError(
        f"Invalid body: JSON values are nested too deeply. Expected at most {maximum} levels.",
        param=param,
        code="invalid_json",
    )


def unsupported_content_type(content_type: str) -> RequestError:
    """E19."""
    shown = _shown(content_type)
    return RequestError(
        f"Unsupported content type: '{shown}'. This API method only accepts 'application/json' requests, but you "
        f"specified the header 'Content-Type: {shown}'. Please try again with a supported content type.",
        code="unsupported_content_type",
    )


def invalid_api_key() -> RequestError:
    """E23: the key is never repeated."""
    return RequestError("Incorrect API key provided.", code="invalid_api_key", status=401)


def invalid_url(method: str, path: str) -> RequestError:
    """E24: no such route."""
    return RequestError(f"Invalid URL ({_shown(method)} {_shown(path, 256)})", status=404)


def method_not_allowed(method: str, path: str) -> RequestError:
    """E25."""
    return RequestError(
        f"Not allowed to {_shown(method)} on {_shown(path, 256)}. (HINT: Perhaps you meant to use a different HTTP "
        "method?)",
        code="method_not_supported",
        status=405,
    )


def body_too_large() -> RequestError:
    """E26."""
    return RequestError("Request body too large.", status=413)


def server_error() -> RequestError:
    """E28: our fault or the agent's; says nothing about the inside."""
    return RequestError("The server had an error while processing your request.", status=500, type="server_error")


def overloaded(message: str = "The server is overloaded or shutting down. Please try again later.") -> RequestError:
    """E29."""
    return RequestError(message, status=503, type="server_error")


def _out_of_range(kind: str, side: str, bound: str, *, param: str, got: str) -> RequestError:
    code = f"{kind}_{side.replace(' ', '_').removesuffix('imum')}_value"
    return RequestError(
        f"Invalid '{param}': {kind} {side} value. Expected a value {bound}, but got {got} instead.",
        param=param,
        code=code,
    )


def _too_long(param: str, maximum: int, got: int) -> str:
    return (
        f"Invalid '{param}': string too long. Expected a string with maximum length {maximum}, but got a string with "
        f"length {got} instead."
    )


def _number(value: float) -> str:
    # Python refuses to print integers of more than 4300 digits, and nobody reads more than twenty.
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else "a larger one" if value > 0 else "a smaller one"
    return f"{value:g}"


def _shown(value: str, limit: int = _SHOWN) -> str:
    return value if len(value) <= limit else f"{value[:limit]}…"


def _listed(values: Sequence[str]) -> str:
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 3:
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"
