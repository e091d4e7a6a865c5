"""Text, reasoning, media and errors: what ends up in messages and reasoning items.

Media rule: an inline image is an `image_generation_call` item; every other file or link is a text part of
its own with a Markdown link, a URL also with a `url_citation`, a hosted file with a `file_path`.

Source: contract §3.6 (Text, Reasoning); behaviours B13, C2, C3.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Final

from agent_framework import Content

from agent_framework_hosting_responses.protocol.json import JsonObject

from .annotations import wire_annotations
from .draft import Draft
from .image_generation import base64_of, write_image
from .reasoning import is_reasoning_text
from .source import member

_REPLACEABLE: Final = frozenset({"text", "text_reasoning", "function_call", "code_interpreter_tool_call"})


def is_refusal(content: Content) -> bool:
    """Tell whether the provider marked this text as a refusal."""
    properties = content.additional_properties
    if not properties:
        return False
    core = properties.get("core")
    kind = core.get("model_output_kind") if isinstance(core, Mapping) else None
    return (kind or properties.get("model_output_kind")) == "refusal"


def write_text(draft: Draft, content: Content) -> None:
    """Write text into the open message."""
    text = content.text or ""
    refusal = is_refusal(content)
    draft.enter_phase(content.additional_properties.get("phase"))
    if content.merge_mode == "replace":
        replace_text(draft, text, refusal=refusal)
    elif text:
        draft.open_message().append(text, refusal=refusal)
    elif member(content.raw_representation, "type") == "response.content_part.added" and draft.message is not None:
        # The provider began another part; the next text belongs to it.
        draft.message.end_part()
    if content.annotations and not refusal:
        annotations = [wire for annotation in content.annotations for wire in wire_annotations(annotation)]
        if annotations:
            draft.open_message().annotate(annotations)


def replace_text(draft: Draft, text: str, *, refusal: bool) -> None:
    """Bring the open part to `text`.

    Deltas cannot take text back: a replacement that contradicts what was sent becomes a message item of
    its own, after the superseded one.
    """
    if not text:
        return
    if draft.message is not None:
        if draft.message.replace(text, refusal=refusal):
            return
        draft.end_message("completed")
    draft.open_message().open_part(refusal=refusal).replace(text)


def replacing(contents: Sequence[Content]) -> list[Content]:
    """Return the contents of an update that replaces its whole message, each as a replacement."""
    replacements: list[Content] = []
    texts: dict[bool, Content] = {}
    for content in contents:
        if content.type == "text" and (first := texts.get(is_refusal(content))) is not None:
            first.text = (first.text or "") + (content.text or "")
            first.annotations = [*(first.annotations or ()), *(content.annotations or ())]
            continue
        replacement = content
        if content.type in _REPLACEABLE:
            replacement = copy.copy(content)
            replacement.merge_mode = "replace"
        if content.type == "text":
            texts[is_refusal(content)] = replacement
        replacements.append(replacement)
    return replacements


def write_reasoning(draft: Draft, content: Content) -> None:
    """Write reasoning into the open reasoning item, or into a new one for another id."""
    is_text = is_reasoning_text(content) or draft.options.reasoning == "text"
    encrypted = content.protected_data if "reasoning.encrypted_content" in draft.options.include else None
    raw = content.raw_representation
    is_raw_item = member(raw, "type") == "reasoning"
    if not content.text and encrypted is None and not is_raw_item:
        return
    is_late = not content.text and content.id is not None and content.id in draft.closed_reasoning
    if is_late:
        # Its item is finished; what comes after that cannot be told any more.
        return
    has_content = is_text if content.text else isinstance(member(raw, "content"), list)
    item = draft.open_reasoning(content, encrypted=encrypted, is_text=has_content)
    part = member(raw, "content_index" if is_text else "summary_index")
    if content.merge_mode == "replace":
        item.replace(content.text or "", is_text=is_text, upstream_part=part)
    else:
        item.append(content.text or "", is_text=is_text, upstream_part=part)


def write_data(draft: Draft, content: Content) -> None:
    """Write inline media: an image as an image item, anything else as a link that carries it."""
    if base64_of(content):
        write_image(draft, content)
    else:
        draft.write_link(content)


def write_link(draft: Draft, content: Content) -> None:
    """Write a link to media that lies elsewhere."""
    draft.write_link(content)


def write_consent_request(draft: Draft, content: Content) -> None:
    """Write the link that the user must follow before the agent can go on."""
    url = content.consent_link or ""
    text = f"[Authorize access]({url})"
    citation: JsonObject = {
        "type": "url_citation",
        "url": url,
        "title": "Authorize access",
        "start_index": 0,
        "end_index": len(text),
    }
    draft.open_message().write_part(text, [citation])


def write_error(draft: Draft, content: Content) -> None:
    """Keep an error: other output turns it into a notice, the end of the run into a failure."""
    draft.fail_later(content)


def write_unknown(draft: Draft, content: Content) -> None:
    """Write a content type that this version does not know: its text, its link, or its name."""
    text = getattr(content, "text", None)
    if isinstance(text, str) and text:
        draft.open_message().append(text, refusal=False)
    elif isinstance(getattr(content, "uri", None), str):
        draft.write_link(content)
    else:
        draft.open_message().write_part(f"[{getattr(content, 'type', 'content')}]", [])


def ignore(draft: Draft, content: Content) -> None:
    """Write nothing, on purpose."""
