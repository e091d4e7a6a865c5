"""The error catalogue of contract §4.8, case by case, over HTTP."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

import live
import openai
import pytest
import raw
import wire
from agent_framework import Content

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

JSON = {"content-type": "application/json"}
DEEP = "[" * 5_000 + "]" * 5_000
CALL: Any = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT: Any = {"type": "function_call_output", "call_id": "call_x", "output": "1"}
TOOL: Any = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}


@dataclass(frozen=True)
class Case:
    """A request and the error it must get. `says` is the message, or how it begins if it ends with an ellipsis."""

    id: str
    request: Any
    status: int
    says: str
    param: str | None = None
    code: str | None = None
    method: str = "POST"
    path: str = "/responses"
    headers: Any = None


def body(**fields: Any) -> Any:
    return {"input": "q", **fields}


NOTHING: list[Any] = [{}, {"input": ""}, {"input": []}, {"input": None}, {"model": "a", "stream": True}]

BODIES = [
    Case("E2", body(conversation="conv_1"), 404, "Conversation with id 'conv_1' not found."),
    Case("E2 object", body(conversation={"id": "conv_1"}), 404, "Conversation with id 'conv_1' not found."),
    Case(
        "E4",
        body(conversation="conv_1", previous_response_id="resp_1"),
        400,
        "Mutually exclusive parameters: ''. Ensure you are only providing one of: 'pre..._id' or 'conversation'.",
        code="mutually_exclusive_parameters",
    ),
    Case(
        "E5",
        body(previous_response_id="resp_1"),
        400,
        "Previous response with id 'resp_1' not found.",
        "previous_response_id",
        "previous_response_not_found",
    ),
    Case(
        "E6",
        body(previous_response_id="../x"),
        400,
        "Invalid 'previous_response_id': '../x'. Expected an ID that contains letters, numbers, underscores, or dashes, "
        "but this value contained additional characters.",
        "previous_response_id",
        "invalid_value",
    ),
    *(
        Case(
            f"E7 {json.dumps(value)}",
            value,
            400,
            "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation_id' must be provided.",
            "input",
            "missing_required_parameter",
        )
        for value in NOTHING
    ),
    Case(
        "E8",
        {"input": [{"role": "user", "content": "q"}, {"type": "compaction"}]},
        400,
        "Missing required parameter: 'input[1].encrypted_content'.",
        "input[1].encrypted_content",
        "missing_required_parameter",
    ),
    Case(
        "E9",
        {"input": [OUTPUT]},
        400,
        "No tool call found for function call output with call_id call_x.",
        "input",
    ),
    Case(
        "E10",
        body(top_logprobs=21),
        400,
        "Invalid 'top_logprobs': integer above maximum value. Expected a value <= 20, but got 21 instead.",
        "top_logprobs",
        "integer_above_max_value",
    ),
    Case(
        "E10b",
        body(max_output_tokens=1),
        400,
        "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.",
        "max_output_tokens",
        "integer_below_min_value",
    ),
    Case(
        "E11 below",
        body(temperature=-1),
        400,
        "Invalid 'temperature': decimal below minimum value. Expected a value >= 0, but got -1 instead.",
        "temperature",
        "decimal_below_min_value",
    ),
    Case(
        "E11 above",
        body(temperature=3),
        400,
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3 instead.",
        "temperature",
        "decimal_above_max_value",
    ),
    Case(
        "E12 role",
        {"input": [{"role": "wizard", "content": "q"}]},
        400,
        "Invalid value: 'wizard'. Supported values are: …",
        "input[0].role",
        "invalid_value",
    ),
    Case(
        "E12 part",
        {"input": [{"role": "user", "content": [{"type": "smell"}]}]},
        400,
        "Invalid value: 'smell'. Supported values are: …",
        "input[0].content[0].type",
        "invalid_value",
    ),
    Case(
        "E12 truncation",
        body(truncation="maybe"),
        400,
        "Invalid value: 'maybe'. Supported values are: 'auto' and 'disabled'.",
        "truncation",
        "invalid_value",
    ),
    Case(
        "E12b stream",
        body(stream="false"),
        400,
        "Invalid type for 'stream': expected a boolean, but got a string instead.",
        "stream",
        "invalid_type",
    ),
    Case(
        "E12b temperature",
        body(temperature="hot"),
        400,
        "Invalid type for 'temperature': expected a decimal, but got a string instead.",
        "temperature",
        "invalid_type",
    ),
    Case(
        "E12b input",
        {"input": 7},
        400,
        "Invalid type for 'input': expected …",
        "input",
        "invalid_type",
    ),
    Case(
        "E12b item",
        {"input": ["q"]},
        400,
        "Invalid type for 'input[0]': expected an object, but got a string instead.",
        "input[0]",
        "invalid_type",
    ),
    Case(
        "E12b text",
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": None}]}]},
        400,
        "Missing required parameter: 'input[0].content[0].text'.",
        "input[0].content[0].text",
        "missing_required_parameter",
    ),
    Case(
        "E12b metadata",
        body(metadata={"k": 1}),
        400,
        "Invalid type for 'metadata.k': expected a string, but got an integer instead.",
        "metadata.k",
        "invalid_type",
    ),
    Case(
        "E12c",
        body(safety_identifier="x" * 200),
        400,
        "Invalid 'safety_identifier': string too long. Expected a string with maximum length 128, but got a string with "
        "length 200 instead.",
        "safety_identifier",
        "string_above_max_length",
    ),
    Case(
        "E12d",
        body(metadata={str(number): "x" for number in range(17)}),
        400,
        "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object with "
        "17 properties instead.",
        "metadata",
        "object_above_max_properties",
    ),
    Case("E18", b"{not json", 400, "Invalid body: failed to parse JSON value.…", code="invalid_json"),
    Case("E18 empty", b"", 400, "Invalid body: failed to parse JSON value.…", code="invalid_json"),
    Case(
        "E18 NaN",
        b'{"input": "q", "temperature": NaN}',
        400,
        "Invalid body: failed to parse JSON value.…",
        code="invalid_json",
    ),
    Case(
        "E18 infinity",
        b'{"input": "\\ud83d", "top_p": 1e999}',
        400,
        "Invalid body: failed to parse JSON value.…",
        code="invalid_json",
    ),
    Case(
        "E18 UTF-16",
        '{"input": "q"}'.encode("utf-16"),
        400,
        "Invalid body: failed to parse JSON value.…",
        code="invalid_json",
    ),
    Case("E18 bad UTF-8", b'{"input": "\xff"}', 400, "Invalid body: failed to parse JSON value.…", code="invalid_json"),
    Case("E18 trailing", b'{"input": "q"} {}', 400, "Invalid body: failed to parse JSON value.…", code="invalid_json"),
    Case(
        "E18 deep",
        f'{{"input": {DEEP}}}'.encode(),
        400,
        "Invalid body: JSON values are nested too deeply.…",
        code="invalid_json",
    ),
    Case(
        "E18 deep and lone",
        f'{{"x": "\\ud83d", "input": {DEEP}}}'.encode(),
        400,
        "Invalid body: JSON values are nested too deeply.…",
        code="invalid_json",
    ),
    *(
        Case(
            f"top level {text}", text.encode(), 400, "Invalid body: expected an object, but got …", code="invalid_type"
        )
        for text in ("null", "[]", '"q"', "7", "true")
    ),
    *(
        Case(
            f"E19 {content_type}",
            body(),
            400,
            f"Unsupported content type: '{content_type}'. This API method only accepts 'application/json' requests, but "
            f"you specified the header 'Content-Type: {content_type}'. Please try again with a supported content type.",
            code="unsupported_content_type",
            headers={"content-type": content_type},
        )
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
    ),
    Case("E20", body(model="other"), 400, "The requested model 'other' does not exist.", "model", "model_not_found"),
    Case("E21", body(future=1), 400, "Unknown parameter: 'future'.", "future", "unknown_parameter"),
    Case(
        "E22 prompt",
        body(prompt={"id": "pmpt_1"}),
        400,
        "Unsupported parameter: 'prompt' is not supported with this model.",
        "prompt",
        "unsupported_parameter",
    ),
    Case(
        "E22 moderation",
        body(moderation={"model": "m"}),
        400,
        "Unsupported parameter: 'moderation' is not supported with this model.",
        "moderation",
        "unsupported_parameter",
    ),
    Case(
        "E22 hosted tool",
        body(tools=[TOOL, {"type": "web_search"}]),
        400,
        "Unsupported parameter: 'tools[1].type' does not support 'web_search' with this model.",
        "tools[1].type",
        "unsupported_parameter",
    ),
    Case(
        "E31",
        {"input": [{"role": "user", "content": [{"type": "input_file", "filename": "f", "file_data": "nonsense"}]}]},
        400,
        "Invalid file data: 'input[0].content[0].file_data'.…",
        "input[0].content[0].file_data",
        "invalid_value",
    ),
    Case(
        "tool choice",
        body(tools=[TOOL], tool_choice={"type": "function", "name": "g"}),
        400,
        "Tool choice 'g' not found in 'tools' parameter.",
        "tool_choice",
    ),
    Case(
        "approval",
        {"input": [{"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}]},
        400,
        "No approval request found with id 'mcpr_1' in what the request continues (previous_response_id or conversation).",
        "input",
    ),
    Case(
        "item reference",
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        400,
        "Item with id 'msg_1' not found.",
        "input",
    ),
]

ROUTES = [
    *(
        Case(f"E1 {method} {path}", None, 404, "Response with id 'resp_1' not found.", method=method, path=path)
        for method, path in (
            ("GET", "/responses/resp_1"),
            ("GET", "/v1/responses/resp_1"),
            ("GET", "/responses/resp_1?stream=true"),
            ("DELETE", "/responses/resp_1"),
            ("POST", "/responses/resp_1/cancel"),
            ("GET", "/responses/resp_1/input_items"),
        )
    ),
    *(
        Case(
            f"E10 limit {limit}",
            None,
            400,
            f"Invalid 'limit': integer {side} value. Expected a value {bound}, but got {limit} instead.",
            "limit",
            code,
            method="GET",
            path=f"/responses/resp_1/input_items?limit={limit}",
        )
        for limit, side, bound, code in (
            (1000, "above maximum", "<= 100", "integer_above_max_value"),
            (0, "below minimum", ">= 1", "integer_below_min_value"),
        )
    ),
    *(
        Case(
            f"query {query}",
            None,
            400,
            f"Invalid type for '{query.partition('=')[0]}': expected …",
            query.partition("=")[0],
            "invalid_type",
            method="GET",
            path=f"/responses/resp_1?stream=true&{query}",
        )
        for query in ("starting_after=abc", "starting_after=1.5", "starting_after=1e3", "include_obfuscation=maybe")
    ),
    Case("stream=maybe", None, 400, "Invalid type for 'stream': expected a boolean, but got a string instead.", "stream", "invalid_type", method="GET", path="/responses/r?stream=maybe"),
    Case("order", None, 400, "Invalid value: 'up'. Supported values are: 'asc' and 'desc'.", "order", "invalid_value", method="GET", path="/responses/r/input_items?order=up"),
    *(
        Case(f"E24 {method} {path}", None, 404, f"Invalid URL ({method} {path})", method=method, path=path)
        for method, path in (
            ("POST", "/v1/xyz"),
            ("GET", "/"),
            ("GET", "/v1"),
            ("POST", "/responses/"),
            ("GET", "/responses/resp_1/"),
            ("GET", "/responses/resp_1/output_items"),
            ("POST", "/v1/responses/compact"),
            ("POST", "/responses/input_tokens"),
            ("GET", "/v1/conversationz/conv_1"),
        )
    ),
    *(
        Case(
            f"E25 {method} {path}",
            None,
            405,
            f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)",
            code="method_not_supported",
            method=method,
            path=path,
        )
        for method, path in (
            ("GET", "/v1/responses"),
            ("DELETE", "/responses"),
            ("POST", "/v1/responses/resp_1"),
            ("PUT", "/responses/resp_1"),
            ("PATCH", "/responses/resp_1"),
            ("GET", "/responses/resp_1/cancel"),
            ("POST", "/responses/resp_1/input_items"),
            ("POST", "/models"),
        )
    ),
    Case("models", None, 404, "The model 'other' does not exist", "model", "model_not_found", method="GET", path="/models/other"),
]  # fmt: skip


def strict_host(agent: Any) -> AgentFrameworkHost:
    settings = ResponsesSettings(strict_fields=True, strict_model=True)
    return AgentFrameworkHost(agent, channels=[ResponsesChannel(settings=settings)])


async def check(served: live.LiveHost, case: Case) -> None:
    content = case.request if isinstance(case.request, bytes) else json.dumps(case.request).encode()
    answer = await served.http.request(
        case.method,
        case.path,
        content=None if case.request is None else content,
        headers=case.headers or (JSON if case.request is not None else {}),
    )
    error = answer.json()["error"]
    wire.check_error(answer.json())
    assert (answer.status_code, error["param"], error["code"]) == (case.status, case.param, case.code), error
    start = case.says.removesuffix("…")
    assert error["message"].startswith(start) if start != case.says else error["message"] == case.says
    assert error["type"] == "invalid_request_error"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")


async def wrong_answers(served: live.LiveHost, cases: list[Case]) -> list[str]:
    wrong = []
    for case in cases:
        try:
            await check(served, case)
        except AssertionError as error:
            wrong.append(f"{case.id}: {error}")
    return wrong


@pytest.mark.behaviour("C5", "C6")
async def test_each_request_that_cannot_be_answered_gets_the_error_of_the_catalogue() -> None:
    agent = ScriptedAgent(["hello"])
    async with live.serve(strict_host(agent).app) as served:
        wrong = await wrong_answers(served, BODIES)
        streamed = [
            replace(case, request={**case.request, "stream": True})
            for case in BODIES
            if isinstance(case.request, dict) and "stream" not in case.request
        ]
        wrong += await wrong_answers(served, streamed)
        good = await served.http.post("/responses", json=body())

    assert "\n".join(wrong) == ""
    assert good.status_code == 200
    assert len(agent.runs) == 1


async def test_each_request_to_a_wrong_place_gets_the_error_of_the_catalogue() -> None:
    async with live.serve(strict_host(ScriptedAgent(["hello"])).app) as served:
        wrong = await wrong_answers(served, ROUTES)

    assert "\n".join(wrong) == ""


async def test_what_a_response_is_or_was_decides_what_can_be_done_with_it() -> None:
    gate = Gate()
    agent = ScriptedAgent(["hello"], [gate, "hello"])
    async with live.serve(strict_host(agent).app) as served:
        foreground = (await served.http.post("/responses", json=body())).json()["id"]
        running = (await served.http.post("/responses", json=body(background=True))).json()["id"]
        cases = [
            Case(
                "E14",
                None,
                400,
                "This response cannot be streamed because it was not created with background=true.",
                "stream",
                method="GET",
                path=f"/responses/{foreground}?stream=true",
            ),
            Case("E17", None, 400, "Cannot cancel a synchronous response.", path=f"/responses/{foreground}/cancel"),
            Case(
                "continue a running one",
                body(previous_response_id=running),
                400,
                f"Previous response with id '{running}' has not finished yet.",
                "previous_response_id",
            ),
            Case(
                "delete a running one",
                None,
                400,
                "Cannot delete an in-flight response.",
                method="DELETE",
                path=f"/responses/{running}",
            ),
            Case(
                "unknown cursor",
                None,
                404,
                "Item with id 'msg_x' not found.",
                method="GET",
                path=f"/responses/{foreground}/input_items?after=msg_x",
            ),
        ]
        wrong = await wrong_answers(served, cases)
        gate.open()
        await served.http.get(f"/responses/{running}?stream=true")
        deleted = await served.http.delete(f"/responses/{running}")
        gone = [
            Case("E1", None, 404, f"Response with id '{running}' not found.", method=method, path=path)
            for method, path in (
                ("GET", f"/responses/{running}"),
                ("GET", f"/responses/{running}?stream=true"),
                ("DELETE", f"/responses/{running}"),
                ("POST", f"/responses/{running}/cancel"),
                ("GET", f"/responses/{running}/input_items"),
            )
        ]
        wrong += await wrong_answers(served, gone)

    assert "\n".join(wrong) == ""
    assert deleted.json() == {"id": running, "object": "response", "deleted": True}


async def test_an_unanswered_call_of_the_previous_response_is_named() -> None:
    agent = ScriptedAgent([Content.from_function_call("call_1", "lookup", arguments="{}")], ["hello"])
    async with live.serve(strict_host(agent).app) as served:
        first = (await served.http.post("/responses", json=body())).json()
        case = Case(
            "unanswered",
            body(previous_response_id=first["id"]),
            400,
            "No tool output found for function call call_1.",
            "input",
        )
        wrong = await wrong_answers(served, [case])
        output = {"type": "function_call_output", "call_id": "call_1", "output": "1"}
        good = await served.http.post("/responses", json={"input": [output], "previous_response_id": first["id"]})

    assert wrong == []
    assert good.status_code == 200


async def test_a_host_that_drains_answers_503_and_says_when_to_come_back() -> None:
    gate = Gate()
    host = strict_host(ScriptedAgent([gate, "hello"]))
    async with live.serve(host.app) as served:
        running = asyncio.create_task(served.http.post("/responses", json=body()))
        await asyncio.wait_for(gate.reached.wait(), 60)
        draining = asyncio.create_task(host.app.lifecycle.drain())
        answer = await served.http.post("/responses", json=body(stream=True))
        ready = await served.http.get("/readiness")
        with pytest.raises(openai.InternalServerError):
            await served.client.responses.create(model="scripted", input="q", background=True)
        gate.open()
        await draining
        finished = await running

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["type"] == "server_error"
    assert answer.headers["x-request-id"]
    assert ready.status_code == 503
    assert finished.json()["status"] == "completed"


async def test_a_failed_run_is_a_500_that_the_client_does_not_retry() -> None:
    agent = ScriptedAgent([ValueError("secret inside")])
    async with live.serve(strict_host(agent).app) as served:
        answer = await served.http.post("/responses", json=body())
        retrying = served.client.with_options(max_retries=2)
        with pytest.raises(openai.InternalServerError) as caught:
            await retrying.responses.create(model="scripted", input="q")

    assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
    assert answer.json() == {
        "error": {
            "message": "The server had an error while processing your request.",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    }
    assert caught.value.request_id is not None
    assert len(agent.runs) == 2


async def test_the_official_client_gets_the_exception_class_of_each_status() -> None:
    async with live.serve(strict_host(ScriptedAgent(["hello"])).app) as served:
        responses = served.client.responses
        with pytest.raises(openai.BadRequestError) as bad:
            await responses.create(model="scripted", input="q", temperature=3)
        with pytest.raises(openai.NotFoundError) as missing:
            await responses.retrieve("resp_1")
        with pytest.raises(openai.APIStatusError) as typed:
            await responses.create(model="scripted", input="q", extra_headers={"content-type": "text/plain"})

    assert (bad.value.param, bad.value.code) == ("temperature", "decimal_above_max_value")
    assert (missing.value.type, missing.value.code) == ("invalid_request_error", None)
    assert typed.value.code == "unsupported_content_type"
    assert all((caught.value.request_id or "").startswith("req_") for caught in (bad, missing, typed))


async def test_a_refused_method_says_which_are_allowed() -> None:
    async with live.serve(strict_host(ScriptedAgent(["hello"])).app) as served:
        answer = await served.http.put("/responses", json=body())

    assert answer.headers["allow"] == "POST"


async def test_head_is_answered_without_a_body() -> None:
    async with (
        live.serve(strict_host(ScriptedAgent(["hello"])).app) as served,
        raw.connect(served.base_url) as connection,
    ):
        await connection.send("HEAD", "/responses/resp_1")
        missing, _ = await connection.head()
        listed = await connection.request("GET", "/models")

    assert (missing, listed.status) == (404, 200)


async def test_all_requests_of_one_connection_may_be_wrong() -> None:
    bodies = [case for case in BODIES if case.headers is None]
    async with (
        live.serve(strict_host(ScriptedAgent(["hello"])).app) as served,
        raw.connect(served.base_url) as connection,
    ):
        statuses = [(await connection.request("POST", "/responses", case.request)).status for case in bodies]
        good = await connection.request("POST", "/responses", body())

    assert statuses == [case.status for case in bodies]
    assert good.status == 200
