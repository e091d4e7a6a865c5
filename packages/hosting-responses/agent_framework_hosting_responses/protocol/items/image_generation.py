"""Generated images, and images that the agent answers with.

Source: contract §2.4, §3.6 (image_generation_call).
"""

from __future__ import annotations

from typing import ClassVar, Final

from agent_framework import Content

from agent_framework_hosting_responses.protocol.json import JsonObject

from .draft import Draft
from .hosted import HostedItem
from .source import member, responses_item

_FORMATS: Final = frozenset({"png", "webp", "jpeg", "gif"})
_SETTINGS: Final = ("background", "output_format", "quality", "size")


class ImageGenerationItem(HostedItem):
    """One image, with previews while it is drawn."""

    opening: ClassVar[tuple[str, ...]] = ("in_progress", "generating")

    def initial(self) -> JsonObject:
        """Return the call without an image."""
        return {"id": self.item["id"], "type": self.item_type, "status": "in_progress", "result": None}

    def write_partial(self, image: str, index: int, raw: object) -> None:
        """Write a preview, base64; `index` counts from 0."""
        settings = {name: value for name in _SETTINGS if isinstance(value := member(raw, name), str)}
        self.output.writer.emit(
            "response.image_generation_call.partial_image",
            {**self.place, "partial_image_index": index, "partial_image_b64": image, **settings},
        )

    def conclude(self, item: JsonObject) -> JsonObject:
        """Tell that the image is there."""
        if item.get("status") == "completed":
            self.progress("completed")
        return item

    def broken(self) -> JsonObject:
        """Return the call without an image; images have no status `incomplete`."""
        return {**self.item, "status": "failed"}


def write_image_call(draft: Draft, content: Content) -> None:
    """Open the item of an image that is being drawn."""
    item = _raw(content)
    draft.before_output()
    if item is not None or draft.hosted.get("image_generation_call", content.image_id) is None:
        draft.hosted.open(content.image_id, item or _call(), ImageGenerationItem)


def write_image_result(draft: Draft, content: Content) -> None:
    """Write a preview, or finish the item with the image."""
    item = _raw(content)
    draft.before_output()
    if item is not None:
        draft.hosted.open(content.image_id, {"status": "completed", **item}, ImageGenerationItem)
        return
    outputs = content.outputs if isinstance(content.outputs, list) else [content.outputs]
    images = [output for output in outputs if isinstance(output, Content)]
    partial = [image for image in images if image.additional_properties.get("is_partial_image")]
    for image in partial:
        _write_partial(draft, content, image)
    if not partial:
        _write_final(draft, content, images)


def _write_final(draft: Draft, content: Content, images: list[Content]) -> None:
    inline = [image for image in images if base64_of(image)]
    draft.hosted.end(content.image_id, _result(inline[0] if inline else None), ImageGenerationItem)
    for image in inline[1:]:
        write_image(draft, image)
    for image in images:
        if not base64_of(image):
            # The item carries inline images only.
            draft.write_link(image)


def write_image(draft: Draft, content: Content) -> None:
    """Write an inline image that the agent answered with, as if it had been generated."""
    draft.before_output()
    item = _result(content)
    ImageGenerationItem(draft.output, item, include=draft.options.include).end(item)


def base64_of(content: Content) -> str | None:
    """Return the base64 text of an inline image; None for anything else."""
    uri = content.uri or ""
    if content.type == "data" and uri.startswith("data:image") and ";base64," in uri:
        return uri.partition(";base64,")[2]
    return None


def _write_partial(draft: Draft, content: Content, image: Content) -> None:
    opened = draft.hosted.get("image_generation_call", content.image_id)
    if opened is None:
        opened = draft.hosted.open(content.image_id, _call(), ImageGenerationItem)
    encoded = base64_of(image)
    index = image.additional_properties.get("partial_image_index")
    if isinstance(opened, ImageGenerationItem) and encoded:
        opened.write_partial(encoded, index if isinstance(index, int) else 0, content.raw_representation)


def _raw(content: Content) -> JsonObject | None:
    item = responses_item(content.raw_representation)
    return item if item is not None and item["type"] == "image_generation_call" else None


def _call() -> JsonObject:
    return {"type": "image_generation_call", "status": "in_progress", "result": None}


def _result(image: Content | None) -> JsonObject:
    item: JsonObject = {"type": "image_generation_call", "status": "completed", "result": None}
    if image is None:
        # Nothing inline: either a link follows, or the tool drew nothing.
        return item
    item["result"] = base64_of(image)
    media_type = (image.media_type or "").removeprefix("image/")
    if media_type in _FORMATS:
        item["output_format"] = media_type
    return item
