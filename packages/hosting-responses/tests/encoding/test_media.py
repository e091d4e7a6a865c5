"""Media, errors, links and contents of the future."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, Content

PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.behaviour("C2")
def test_an_inline_image_is_an_image_item(encode: Any, send: Any) -> None:
    encoded = encode(send(Content.from_uri(PNG)))

    assert encoded.output == [
        {
            "id": "ig_1",
            "type": "image_generation_call",
            "status": "completed",
            "result": "iVBORw0KGgo=",
            "output_format": "png",
        }
    ]


@pytest.mark.behaviour("C2")
@pytest.mark.parametrize(
    ("content", "text", "annotation"),
    [
        (
            Content.from_uri("https://a.b/c.pdf", media_type="application/pdf", name="c"),
            "[c](https://a.b/c.pdf)",
            "url_citation",
        ),
        (
            Content.from_uri("https://a.b/c.png", media_type="image/png"),
            "![image/png](https://a.b/c.png)",
            "url_citation",
        ),
        (Content.from_hosted_file("file_1", name="c.txt"), "[c.txt](file_1)", "file_path"),
        (Content.from_hosted_file("file_1"), "[file_1](file_1)", "file_path"),
        (Content.from_data(b"x", "audio/wav", name="a.wav"), "[a.wav](data:audio/wav;base64,eA==)", None),
        (Content.from_oauth_consent_request("https://a.b"), "[Authorize access](https://a.b)", "url_citation"),
    ],
    ids=["link", "image link", "named file", "file", "inline audio", "consent"],
)
def test_other_media_are_links_in_a_part_of_their_own(
    content: Content, text: str, annotation: str | None, encode: Any, say: Any
) -> None:
    encoded = encode(say("See "), AgentResponseUpdate(contents=[content]), say(" above."))

    parts = encoded.output[0]["content"]
    assert [part["text"] for part in parts] == ["See ", text, " above."]
    assert [entry["type"] for entry in parts[1]["annotations"]] == ([annotation] if annotation else [])


@pytest.mark.behaviour("C3", "C8")
def test_an_error_that_nothing_follows_fails_the_response(encode: Any, say: Any, send: Any) -> None:
    encoded = encode(say("half"), send(Content.from_error(message="secret", error_code="rate_limit_exceeded")))

    assert encoded.response["status"] == "failed"
    assert encoded.response["error"]["code"] == "rate_limit_exceeded"
    assert "secret" not in str(encoded.events)


@pytest.mark.behaviour("C3")
def test_an_error_that_the_run_went_on_after_leaves_a_notice(encode: Any, say: Any, send: Any) -> None:
    encoded = encode(say("a"), send(Content.from_error(message="secret")), say("b"))

    assert encoded.response["status"] == "completed"
    assert [part["text"] for part in encoded.output[0]["content"]] == ["a", "An error occurred.", "b"]
    assert "secret" not in str(encoded.events)


@pytest.mark.behaviour("C3")
def test_the_operator_may_show_errors(encode: Any, say: Any, send: Any) -> None:
    error = send(Content.from_error(message="detail"))

    failed = encode(say("a"), error, error_details=True)
    went_on = encode(say("a"), error, say("b"), error_details=True)

    assert failed.response["error"]["message"] == "detail"
    assert "detail" in went_on.text


@pytest.mark.behaviour("C2")
def test_a_content_type_of_the_future_is_its_text_its_link_or_its_name(encode: Any, send: Any) -> None:
    encoded = encode(
        send(Content("novel", text="words")),  # type: ignore[arg-type]
        send(Content("novel", uri="https://a.b")),  # type: ignore[arg-type]
        send(Content("novel")),  # type: ignore[arg-type]
    )

    assert [part["text"] for part in encoded.output[0]["content"]] == ["words", "[link](https://a.b)", "[novel]"]
