"""Text and reasoning contents: how they continue, replace or open the items they belong to.

Source: contract §3.6 (Text, Reasoning); behaviour B13.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Final

from agent_framework import Annotation, Content

from .annotations import wire_annotations
from .draft import Draft
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
        _annotate(draft, content.annotations)


def _annotate(draft: Draft, annotations: Sequence[Annotation]) -> None:
    rendered = [wire for annotation in annotations for wire in wire_annotations(annotation)]
    if rendered:
        draft.open_message().annotate(rendered)


def replace_text(draft: Draft, text: str, *, refusal: bool) -> None:
    """Bring the open part to `text`.

    Deltas cannot take text back: a replacement that contradicts what was sent becomes a message item of
    its own, after the superseded one.
    """
    if not text:
        return
    draft.before_output()
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
    text = content.text or ""
    raw = content.raw_representation
    encrypted = content.protected_data if "reasoning.encrypted_content" in draft.options.include else None
    if not text and _is_void(draft, content, encrypted):
        return
    is_text = is_reasoning_text(content) or draft.options.reasoning == "text"
    has_content = is_text if text else isinstance(member(raw, "content"), list)
    item = draft.open_reasoning(content, encrypted=encrypted, is_text=has_content)
    part = (member(raw, "summary_index"), member(raw, "content_index"))
    if content.merge_mode == "replace":
        item.replace(text, is_text=is_text, upstream_part=part)
    else:
        item.append(text, is_text=is_text, upstream_part=part)


def _is_void(draft: Draft, content: Content, encrypted: str | None) -> bool:
    """Tell whether reasoning without text says nothing, or says it too late: its item is finished."""
    if content.id is not None and content.id in draft.closed_reasoning:
        return True
    return encrypted is None and member(content.raw_representation, "type") != "reasoning"
