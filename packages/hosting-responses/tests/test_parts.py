"""Content parts of messages and tool outputs."""

from typing import Any

import pytest

from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.protocol.parts import (
    is_data_url,
    read_assistant_parts,
    read_tool_output,
    read_user_parts,
)

PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="


@pytest.mark.parametrize(
    ("part", "stored"),
    [
        ({"type": "input_text", "text": ""}, {"type": "input_text", "text": ""}),
        (
            {"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"type": "explicit"}},
            {"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"type": "explicit"}},
        ),
        (
            {"type": "input_image", "image_url": PNG, "file_id": None},
            {"type": "input_image", "detail": "auto", "image_url": PNG},
        ),
        (
            {"type": "input_image", "file_id": "file-1", "detail": "high"},
            {"type": "input_image", "detail": "high", "file_id": "file-1"},
        ),
        (
            {"type": "input_image", "image_url": "HTTPS://example.com/a.png"},
            {"type": "input_image", "detail": "auto", "image_url": "HTTPS://example.com/a.png"},
        ),
        (
            {"type": "input_file", "file_data": PDF, "filename": "a.pdf"},
            {"type": "input_file", "file_data": PDF, "filename": "a.pdf"},
        ),
        (
            {"type": "input_file", "file_url": "https://example.com/a.pdf", "detail": "low"},
            {"type": "input_file", "file_url": "https://example.com/a.pdf", "detail": "low"},
        ),
        ({"type": "input_file", "file_id": "file-1"}, {"type": "input_file", "file_id": "file-1"}),
    ],
)
def test_a_part_of_a_user_message_is_stored_with_its_defaults(part: dict[str, Any], stored: dict[str, Any]) -> None:
    assert read_user_parts([part], "c") == [stored]


@pytest.mark.parametrize(
    ("part", "stored"),
    [
        (
            {"type": "output_text", "text": "a"},
            {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
        ),
        (
            {"type": "output_text", "text": "a", "annotations": None, "logprobs": None},
            {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
        ),
        (
            {"type": "output_text", "text": "a", "annotations": [{"type": "file_path", "file_id": "f", "index": 0}]},
            {
                "type": "output_text",
                "text": "a",
                "annotations": [{"type": "file_path", "file_id": "f", "index": 0}],
                "logprobs": [],
            },
        ),
        ({"type": "refusal", "refusal": "no"}, {"type": "refusal", "refusal": "no"}),
        (
            {"type": "input_text", "text": "a"},
            {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
        ),
    ],
)
def test_a_part_of_an_assistant_message_is_stored_with_its_defaults(
    part: dict[str, Any], stored: dict[str, Any]
) -> None:
    assert read_assistant_parts([part], "c") == [stored]


def test_a_string_is_one_text_part() -> None:
    assert read_user_parts("a", "c") == [{"type": "input_text", "text": "a"}]
    assert read_assistant_parts("a", "c") == [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}]


def test_a_tool_output_is_a_string_or_parts() -> None:
    assert read_tool_output("", "o") == ""
    assert read_tool_output([{"type": "input_text", "text": "a"}], "o") == [{"type": "input_text", "text": "a"}]


@pytest.mark.behaviour("C5", "C6")
@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        ("text", "c[0]", "invalid_type"),
        ({}, "c[0].type", "missing_required_parameter"),
        ({"type": 1}, "c[0].type", "invalid_type"),
        ({"type": "text", "text": "a"}, "c[0].type", "invalid_value"),
        ({"type": "output_text", "text": "a"}, "c[0].type", "invalid_value"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "mp3"}}, "c[0].type", "invalid_value"),
        ({"type": "input_video", "video_url": "https://example.com"}, "c[0].type", "invalid_value"),
        ({"type": "input_text"}, "c[0].text", "missing_required_parameter"),
        ({"type": "input_text", "text": 1}, "c[0].text", "invalid_type"),
        ({"type": "input_text", "text": "x" * 10_485_761}, "c[0].text", "string_above_max_length"),
        ({"type": "input_image"}, "c[0].image_url", "missing_required_parameter"),
        ({"type": "input_image", "image_url": {"url": PNG}}, "c[0].image_url", "invalid_type"),
        ({"type": "input_image", "image_url": "file:///etc/passwd"}, "c[0].image_url", "invalid_value"),
        ({"type": "input_image", "image_url": "data:image/png,raw"}, "c[0].image_url", "invalid_value"),
        ({"type": "input_image", "image_url": PNG, "detail": "max"}, "c[0].detail", "invalid_value"),
        ({"type": "input_image", "file_id": "../x"}, "c[0].file_id", "invalid_value"),
        ({"type": "input_file"}, "c[0].file_id", "missing_required_parameter"),
        ({"type": "input_file", "filename": "a.pdf"}, "c[0].file_id", "missing_required_parameter"),
        ({"type": "input_file", "file_data": "JVBERi0="}, "c[0].file_data", "invalid_value"),
        ({"type": "input_file", "file_url": "ftp://example.com"}, "c[0].file_url", "invalid_value"),
        ({"type": "input_file", "file_id": 7}, "c[0].file_id", "invalid_type"),
        ({"type": "input_file", "file_id": "f", "filename": 7}, "c[0].filename", "invalid_type"),
    ],
)
def test_a_part_that_users_cannot_send_is_refused_with_its_path(part: Any, param: str, code: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_user_parts([part], "c")

    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.behaviour("C5")
@pytest.mark.parametrize("kind", ["input_image", "input_file", "reasoning_text"])
def test_a_part_that_assistants_cannot_say_is_refused(kind: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_assistant_parts([{"type": kind}], "c")

    assert refused.value.param == "c[0].type"
    assert refused.value.message.endswith("Supported values are: 'output_text' and 'refusal'.")


@pytest.mark.parametrize("read", [read_user_parts, read_assistant_parts, read_tool_output])
@pytest.mark.parametrize("value", [1, True, {}, None])
def test_content_is_a_string_or_an_array(read: Any, value: Any) -> None:
    with pytest.raises(RequestError) as refused:
        read(value, "c")

    assert (refused.value.param, refused.value.code) == ("c", "invalid_type")


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        (PNG, True),
        ("data:text/plain;charset=utf-8;base64,YQ==", True),
        ("data:image/*;base64,", True),
        ("data:;base64,YQ==", False),
        ("data:text/plain,a", False),
        ("data:text/plain;base64;charset=utf-8,YQ==", False),
        ("https://example.com/data:image/png;base64,", False),
    ],
)
def test_a_data_url_has_a_media_type_and_is_base64(url: str, is_one: bool) -> None:
    assert is_data_url(url) is is_one
