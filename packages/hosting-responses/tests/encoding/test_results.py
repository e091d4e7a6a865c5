"""What a tool answered, for the outside."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import Content

from agent_framework_hosting_responses.protocol.items.results import (
    TOOL_FAILED,
    failure_text,
    is_failure,
    result_output,
    result_text,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("a", "a"),
        ({"a": 1}, '{"a":1}'),
        ([1, "é"], '[1,"é"]'),
        (Content.from_text("a"), "a"),
        (Content.from_hosted_file("f"), "f"),
        ([Content.from_text("a"), "b"], "a\nb"),
        ({"when": object}, '{"when":"<class \'object\'>"}'),
    ],
)
def test_any_output_has_a_text(value: Any, text: str) -> None:
    assert result_text(value) == text


@pytest.mark.behaviour("C3")
def test_a_failure_is_told_without_its_text() -> None:
    failed = Content.from_function_result("c", result="secret", exception="secret")

    assert is_failure(failed)
    assert result_output(failed, details=False) == TOOL_FAILED
    assert result_output(failed, details=True) == "secret"
    assert failure_text(None, details=True) == TOOL_FAILED


@pytest.mark.parametrize("status", ["failed", "incomplete", "error"])
def test_a_status_may_tell_of_a_failure(status: str) -> None:
    assert is_failure(Content.from_function_result("c", result="x", status=status))


def test_a_plain_result_is_no_failure() -> None:
    assert not is_failure(Content.from_function_result("c", result="x", status="completed"))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (
            Content.from_uri("data:image/png;base64,AAAA"),
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        ),
        (
            Content.from_data(b"x", "text/csv", name="a.csv"),
            {"type": "input_file", "file_data": "data:text/csv;base64,eA==", "filename": "a.csv"},
        ),
        (
            Content.from_uri("https://a.b/c.pdf", media_type="application/pdf"),
            {"type": "input_file", "file_url": "https://a.b/c.pdf"},
        ),
        (Content.from_hosted_file("f"), {"type": "input_file", "file_id": "f"}),
        (Content.from_error(message="m"), {"type": "input_text", "text": ""}),
    ],
)
def test_media_in_a_result_are_parts(content: Content, part: Any) -> None:
    assert result_output(Content.from_function_result("c", result=[content]), details=False) == [part]
