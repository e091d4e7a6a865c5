"""Citations in the wire's four forms, judged by the client's types."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from agent_framework import Annotation
from openai.types.responses.response_output_text import ResponseOutputText

from agent_framework_hosting_responses.protocol.items.annotations import wire_annotations


def check(rendered: list[dict[str, Any]]) -> None:
    ResponseOutputText.model_validate({"type": "output_text", "text": "", "annotations": rendered}, strict=True)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (
            Annotation(
                type="citation",
                url="https://a.b",
                title="A",
                annotated_regions=[{"type": "text_span", "start_index": 3, "end_index": 9}],
            ),
            {"type": "url_citation", "url": "https://a.b", "title": "A", "start_index": 3, "end_index": 9},
        ),
        (
            Annotation(type="citation", url="https://a.b"),
            {"type": "url_citation", "url": "https://a.b", "title": "", "start_index": 0, "end_index": 0},
        ),
        (
            Annotation(type="citation", file_id="f1", url="a.txt", additional_properties={"index": 4}),
            {"type": "file_citation", "file_id": "f1", "filename": "a.txt", "index": 4},
        ),
        (
            Annotation(
                type="citation",
                file_id="f1",
                title="a.txt",
                annotated_regions=[{"type": "text_span", "start_index": 3, "end_index": 9}],
            ),
            {"type": "file_citation", "file_id": "f1", "filename": "a.txt", "index": 3},
        ),
        (Annotation(type="citation", file_id="f1"), {"type": "file_path", "file_id": "f1", "index": 0}),
        (
            Annotation(type="citation", file_id="f1", url="a.txt", additional_properties={"container_id": "cntr_1"}),
            {
                "type": "container_file_citation",
                "container_id": "cntr_1",
                "file_id": "f1",
                "filename": "a.txt",
                "start_index": 0,
                "end_index": 0,
            },
        ),
    ],
    ids=["url", "bare url", "file", "file with region", "path", "container"],
)
def test_what_a_citation_points_to_decides_its_form(annotation: Annotation, expected: dict[str, Any]) -> None:
    rendered = wire_annotations(annotation)

    assert rendered == [expected]
    check(rendered)


def test_each_region_is_a_citation() -> None:
    regions = [{"type": "text_span", "start_index": n, "end_index": n + 1} for n in (1, 5)]
    annotation = Annotation(type="citation", url="https://a.b", annotated_regions=regions)  # type: ignore[typeddict-item]

    rendered = wire_annotations(annotation)

    assert [entry["start_index"] for entry in rendered] == [1, 5]
    check(rendered)


@pytest.mark.parametrize("shape", [dict, SimpleNamespace])
def test_the_providers_own_annotation_is_kept(shape: Any) -> None:
    raw = shape(type="file_citation", file_id="f", filename="n", index=7)

    assert wire_annotations(Annotation(type="citation", raw_representation=raw)) == [
        {"type": "file_citation", "file_id": "f", "filename": "n", "index": 7}
    ]


def test_no_member_is_null() -> None:
    raw = {"type": "url_citation", "url": "https://a.b", "title": None, "start_index": None, "end_index": True}

    rendered = wire_annotations(Annotation(type="citation", raw_representation=raw))

    assert rendered == [{"type": "url_citation", "url": "https://a.b", "title": "", "start_index": 0, "end_index": 0}]


def test_a_citation_of_nothing_has_no_form() -> None:
    assert wire_annotations(Annotation(type="citation", snippet="text")) == []


def test_annotations_follow_their_delta_and_are_told_once(encode: Any, say: Any) -> None:
    annotation = Annotation(type="citation", url="https://a.b")

    encoded = encode(say("a", annotations=[annotation]), say("", annotations=[annotation]), say("b"))

    assert encoded.kinds[4:7] == ["output_text.delta", "output_text.annotation.added", "output_text.delta"]
    assert len(encoded.output[0]["content"][0]["annotations"]) == 1


def test_an_annotation_before_any_text_opens_the_part(encode: Any, say: Any) -> None:
    encoded = encode(say("", annotations=[Annotation(type="citation", url="https://a.b")]), say("a"))

    assert encoded.output[0]["content"][0]["text"] == "a"
    assert len(encoded.output[0]["content"][0]["annotations"]) == 1
