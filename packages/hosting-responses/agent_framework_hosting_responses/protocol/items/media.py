"""Media, errors and unknown contents: what has no item of its own on the wire.

An inline image is an `image_generation_call` item. Every other file or link is a text part of its own with a
Markdown link: a URL also has a `url_citation`, a hosted file a `file_path`. A content type that this version
does not know is written as its text, its link, or its name in brackets. An error is kept: the run fails with
it if nothing else follows, otherwise a notice stands in its place.

Behaviours C2, C3, C8.
"""

from __future__ import annotations

from agent_framework import Content

from agent_framework_hosting_responses.protocol.json import JsonObject

from .draft import Draft
from .image_generation import base64_of, write_image


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
    elif isinstance(content, Content) and content.uri:
        draft.write_link(content)
    else:
        draft.open_message().write_part(f"[{getattr(content, 'type', 'content')}]", [])


def ignore(draft: Draft, content: Content) -> None:
    """Write nothing, on purpose."""
