"""Generated images: previews, results, links."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, Content

PNG = "data:image/png;base64,iVBORw0KGgo="


def drawing() -> Content:
    return Content.from_image_generation_tool_call(image_id="g1")


def drawn(outputs: Any, **fields: Any) -> Content:
    return Content.from_image_generation_tool_result(image_id="g1", outputs=outputs, **fields)


def preview(index: int) -> Content:
    properties = {"is_partial_image": True, "partial_image_index": index}
    raw = SimpleNamespace(type="response.image_generation_call.partial_image", size="1024x1024", quality=None)
    return drawn(Content.from_uri(PNG, additional_properties=properties), raw_representation=raw)


def update(*contents: Content) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=contents)


@pytest.mark.behaviour("B4")
def test_previews_come_before_the_image(encode: Any) -> None:
    encoded = encode(
        update(drawing(), preview(0)), update(drawing(), preview(1)), update(drawing(), drawn(Content.from_uri(PNG)))
    )

    assert encoded.kinds[2:-1] == [
        "output_item.added",
        "image_generation_call.in_progress",
        "image_generation_call.generating",
        "image_generation_call.partial_image",
        "image_generation_call.partial_image",
        "image_generation_call.completed",
        "output_item.done",
    ]
    assert [event["partial_image_index"] for event in encoded.events[5:7]] == [0, 1]
    assert encoded.events[5]["size"] == "1024x1024"
    assert "quality" not in encoded.events[5]
    assert encoded.output[0]["result"] == "iVBORw0KGgo="


def test_several_images_are_several_items(encode: Any) -> None:
    encoded = encode(update(drawing(), drawn([Content.from_uri(PNG), Content.from_uri(PNG)])))

    assert [item["type"] for item in encoded.output] == ["image_generation_call"] * 2


@pytest.mark.behaviour("C2")
def test_an_image_that_lies_elsewhere_is_a_link(encode: Any) -> None:
    link = Content.from_uri("https://a.b/c.png", media_type="image/png")

    encoded = encode(update(drawing(), drawn(link)))

    assert encoded.output[0]["result"] is None
    assert encoded.text == "![image/png](https://a.b/c.png)"


def test_an_image_that_never_came_is_failed(encode: Any) -> None:
    encoded = encode(update(drawing()))

    assert encoded.output == [{"id": "ig_1", "type": "image_generation_call", "status": "failed", "result": None}]


def test_a_preview_without_a_call_opens_the_item(encode: Any) -> None:
    assert encode(update(preview(0))).kinds.count("image_generation_call.partial_image") == 1


def test_the_providers_image_passes_through_unchanged(encode: Any) -> None:
    raw = {"type": "image_generation_call", "id": "ig_up", "status": "completed", "result": "AAAA", "size": "auto"}

    encoded = encode(update(drawn(None, raw_representation=raw)))

    assert encoded.output == [raw]
