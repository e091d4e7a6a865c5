"""Parts and hosted tool calls as Agent Framework contents."""

import json
from typing import Any

import pytest
from agent_framework import Content

from agent_framework_hosting_responses.protocol import contents

PNG = "data:image/png;base64,iVBORw0KGgo="


def one(part: dict[str, Any]) -> Content:
    (content,) = contents.part_contents([part])
    return content


@pytest.mark.parametrize(
    ("part", "kind", "media_type"),
    [
        ({"type": "input_image", "image_url": PNG}, "data", "image/png"),
        ({"type": "input_image", "image_url": "https://example.com/a.webp?x=1#y"}, "uri", "image/webp"),
        ({"type": "input_image", "image_url": "https://example.com/image"}, "uri", "image/*"),
        ({"type": "input_image", "file_id": "file-1"}, "hosted_file", "image/*"),
        ({"type": "input_file", "file_data": "data:application/pdf;base64,JVBERi0="}, "data", "application/pdf"),
        ({"type": "input_file", "file_url": "https://example.com/a.csv"}, "uri", "text/csv"),
        ({"type": "input_file", "file_url": "https://example.com/a"}, "uri", "application/octet-stream"),
        ({"type": "input_file", "file_id": "file-1", "filename": "a.pdf"}, "hosted_file", "application/pdf"),
        ({"type": "input_file", "file_id": "file-1"}, "hosted_file", None),
    ],
)
def test_media_has_the_type_that_its_data_or_name_says(part: dict[str, Any], kind: str, media_type: str | None) -> None:
    content = one(part)

    assert (content.type, content.media_type) == (kind, media_type)
    assert content.raw_representation == part


def test_an_image_keeps_its_detail_and_both_of_its_sources() -> None:
    content = one({"type": "input_image", "image_url": PNG, "file_id": "file-1", "detail": "high"})

    assert (content.uri, content.file_id) == (PNG, "file-1")
    assert content.additional_properties["detail"] == "high"
    assert content.additional_properties["openai"] == {"content_type": "input_image", "image_detail": "high"}


def test_a_file_keeps_its_name() -> None:
    content = one(
        {"type": "input_file", "file_data": "data:text/plain;base64,YQ==", "filename": "a.txt", "detail": "low"}
    )

    assert content.name == "a.txt"
    assert content.additional_properties["filename"] == "a.txt"
    assert content.additional_properties["detail"] == "low"


def test_text_is_text_and_keeps_its_cache_mark() -> None:
    content = one({"type": "input_text", "text": "hi", "prompt_cache_breakpoint": {"type": "explicit"}})

    assert (content.type, content.text) == ("text", "hi")
    assert content.additional_properties["prompt_cache_breakpoint"] == {"type": "explicit"}


def test_a_refusal_is_marked_text() -> None:
    content = one({"type": "refusal", "refusal": "no"})

    assert content.text == "no"
    assert content.additional_properties["model_output_kind"] == "refusal"
    assert content.additional_properties["core"] == {"model_output_kind": "refusal"}


def test_annotations_are_citations() -> None:
    note = {"type": "url_citation", "url": "https://example.com", "title": "t", "start_index": 1, "end_index": 2}

    content = one({"type": "output_text", "text": "abc", "annotations": [note, {"type": "new"}], "logprobs": []})

    assert content.annotations is not None
    citation, unknown = content.annotations
    assert (citation["url"], citation["title"]) == ("https://example.com", "t")
    assert citation["annotated_regions"] == [{"type": "text_span", "start_index": 1, "end_index": 2}]
    assert unknown == {"type": "citation", "raw_representation": {"type": "new"}}


def test_a_tool_output_of_parts_is_a_list_of_contents() -> None:
    item: dict[str, Any] = {
        "id": "fco_1",
        "call_id": "c",
        "output": [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": PNG}],
    }

    (content,) = contents.function_result(item)

    assert content.call_id == "c"
    assert content.result == "see"
    assert content.items is not None
    assert [part.type for part in content.items] == ["text", "data"]


def test_the_text_of_a_custom_tool_is_the_one_argument_it_was_offered_with() -> None:
    (content,) = contents.custom_tool_call({"id": "ctc_1", "call_id": "c", "name": "code", "input": 'x = "\ud83d"'})

    assert content.name == "code"
    assert isinstance(content.arguments, str)
    assert json.loads(content.arguments) == {"input": 'x = "\ud83d"'}


def test_a_call_keeps_its_namespace() -> None:
    (content,) = contents.function_call(
        {"id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "crm", "status": "completed"}
    )

    assert content.additional_properties["namespace"] == "crm"
    assert (content.status, content.hosted, content.informational_only) == ("completed", False, False)


def test_a_call_that_a_provider_made_is_not_for_the_framework_to_run() -> None:
    (content,) = contents.provider_call("apply_patch", "operation")(
        {"id": "ap_1", "call_id": "c", "operation": {"type": "delete_file", "path": "a"}}
    )

    assert (content.hosted, content.informational_only) == (True, True)
    assert content.arguments == '{"operation":{"type":"delete_file","path":"a"}}'


@pytest.mark.parametrize(("output", "result"), [("ok", "ok"), (None, ""), ([{"a": 1}], '[{"a":1}]')])
def test_the_result_of_such_a_call_is_text(output: Any, result: str) -> None:
    (content,) = contents.provider_result("output")({"id": "apo_1", "call_id": "c", "output": output})

    assert content.result == result


def test_reasoning_has_one_content_for_each_of_its_texts() -> None:
    item: dict[str, Any] = {
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
        "content": [{"type": "reasoning_text", "text": "c"}],
        "encrypted_content": "abc",
    }

    found = contents.reasoning(item)

    assert [content.text for content in found] == ["c", "a", "b"]
    assert [content.protected_data for content in found] == ["abc", None, None]
    assert {content.id for content in found} == {"rs_1"}
    assert [bool(content.additional_properties.get("reasoning_text")) for content in found] == [True, False, False]


def test_reasoning_without_its_encrypted_form_is_not_replayed() -> None:
    assert contents.reasoning({"id": "rs_1", "summary": [{"type": "summary_text", "text": "a"}]}) == []


def test_code_and_its_outputs_are_kept() -> None:
    item: dict[str, Any] = {
        "id": "ci_1",
        "container_id": "cntr_1",
        "code": "1",
        "outputs": [{"type": "logs", "logs": "1"}, {"type": "image", "url": "no address"}],
        "status": "completed",
    }

    call, result = contents.code_interpreter_call(item)

    assert call.inputs is not None
    assert call.inputs[0].text == "1"
    assert [(output.type, output.text, output.uri) for output in result.outputs or []] == [
        ("text", "1", None),
        ("uri", None, "no address"),
    ]


def test_an_image_that_was_made_has_its_format() -> None:
    item: dict[str, Any] = {"id": "ig_1", "type": "image_generation_call", "result": "AAAA", "output_format": "webp"}

    _, result = contents.image_generation_call(item)

    assert isinstance(result.outputs, Content)
    assert (result.outputs.uri, result.outputs.media_type) == ("data:image/webp;base64,AAAA", "image/webp")


@pytest.mark.parametrize(
    ("outcome", "exit_code", "timed_out"),
    [({"type": "exit", "exit_code": 2}, 2, False), ({"type": "timeout"}, None, True), (None, None, False)],
)
def test_the_output_of_a_shell_says_how_it_ended(outcome: Any, exit_code: int | None, timed_out: bool) -> None:
    item: dict[str, Any] = {
        "id": "sho_1",
        "call_id": "c",
        "output": [{"stdout": "a", "stderr": "b", "outcome": outcome}],
    }

    (content,) = contents.shell_call_output(item)

    (output,) = content.outputs or []
    assert (output.stdout, output.stderr, output.exit_code, output.timed_out) == ("a", "b", exit_code, timed_out)


def test_the_words_of_a_local_shell_command_are_one_command() -> None:
    (content,) = contents.shell_call({"id": "lsh_1", "call_id": "c", "action": {"command": ["ls", "-l"]}})

    assert content.commands == ["ls -l"]


def test_a_computer_result_without_picture_has_none() -> None:
    (content,) = contents.computer_call_output(
        {"id": "cuo_1", "call_id": "c", "output": {"type": "computer_screenshot"}}
    )

    assert content.screenshot is None
