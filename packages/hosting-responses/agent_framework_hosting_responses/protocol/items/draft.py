"""The answer being written: its open message and reasoning, its calls, its hosted items.

Text stays in one message item until the message ends, whatever comes in between; reasoning ends when other
output follows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

import msgspec
from agent_framework import Content

from agent_framework_hosting_responses.protocol.calls import Call, Calls, Owner
from agent_framework_hosting_responses.protocol.events import DeltaRun, EventWriter
from agent_framework_hosting_responses.protocol.ids import IdFactory
from agent_framework_hosting_responses.protocol.json import JsonObject
from agent_framework_hosting_responses.protocol.memo import AskedApproval

from .hosted import HostedItems
from .message import MessageItem
from .output import Output
from .reasoning import ReasoningItem
from .settings import EncoderOptions
from .shell_calls import ShellCalls
from .unfinished import UnfinishedItem

ERROR_NOTICE: Final = "An error occurred."
"""Stands for an error that the run went on after."""

RUN_FAILED: Final = "The agent failed to produce a response."
"""Stands for whatever ended a run."""

_ERROR_CODES: Final = frozenset(
    {
        "server_error",
        "rate_limit_exceeded",
        "invalid_prompt",
        "data_residency_mismatch",
        "bio_policy",
        "misalignment_policy_violation",
        "vector_store_timeout",
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_content_policy_violation",
        "invalid_image_mode",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
    }
)


class Failure(msgspec.Struct, frozen=True):
    """An error that fails the response unless the run goes on after it. Source: contract §2.3."""

    code: str = "server_error"
    message: str = RUN_FAILED
    notice: str | None = None
    """Text for the client if the run goes on; None when there is nothing to say then."""

    @classmethod
    def of(cls, code: object, message: str | None = None, *, notice: str | None = None) -> Failure:
        """Return a failure with `code` if the wire knows it, and a message that says nothing of the inside."""
        known = code if isinstance(code, str) and code in _ERROR_CODES else "server_error"
        return cls(code=known, message=message or RUN_FAILED, notice=notice)


class Draft:
    """What is open while a response is written, and the rules about what closes what."""

    def __init__(self, writer: EventWriter, options: EncoderOptions, new_id: IdFactory) -> None:
        self.options = options
        self.new_id = new_id
        self.output = Output(writer, new_id, taken=options.taken_ids)
        self.hosted = HostedItems(self.output, include=options.include)
        # No bound methods: a cycle per response is what the garbage collector would spend its time on.
        self.calls = Calls(owner_of=partial(_owner_of, options), mint=partial(new_id, "call"), taken=options.taken_ids)
        self.open_calls: list[Call] = []
        self.approvals: dict[str, AskedApproval] = {}
        self.message: MessageItem | None = None
        self.failure: Failure | None = None
        self.shell = ShellCalls(self.calls)
        self.closed_reasoning: set[str] = set()
        self._unfinished: list[UnfinishedItem] = []
        self._reasoning: ReasoningItem | None = None
        self._phase: str | None = None

    def resume(self, items: Sequence[JsonObject | UnfinishedItem]) -> None:
        """Take over the items of an earlier attempt; `close_unfinished` closes the open ones."""
        for item in items:
            told = item.item if isinstance(item, UnfinishedItem) else item
            self.output.restore(told, is_finished=told is item)
            call_id = told.get("call_id")
            if isinstance(call_id, str):
                self.calls.reserve([call_id])
            if isinstance(item, UnfinishedItem):
                self._unfinished.append(item)

    def close_unfinished(self, whole: Collection[int] = ()) -> None:
        """Close what an earlier attempt left open, in the order in which it was opened; `whole` is what it had finished."""
        for item in self._unfinished:
            item.close(self.output, is_whole=item.index in whole)
        self._unfinished.clear()

    @property
    def fast_run(self) -> DeltaRun | None:
        """The run that plain text may go to directly: nothing else is open that text would close."""
        if self.message is None or self.message.is_refusal or self._reasoning is not None or self.failure is not None:
            return None
        return self.message.run

    def before_output(self) -> None:
        """Prepare for an item or a part: end reasoning, and tell of an error that was not the end."""
        self.end_reasoning()
        self._forgive()

    def enter_phase(self, phase: object) -> None:
        """Note the phase of the messages to come; a change of phase is a new message item."""
        if not isinstance(phase, str) or phase not in {"commentary", "final_answer"}:
            return
        if self.message is not None and self.message.phase not in {None, phase}:
            self.end_message("completed")
        self._phase = phase

    def open_message(self) -> MessageItem:
        """Return the open message item, opening one if there is none."""
        self.before_output()
        if self.message is None:
            self.message = MessageItem(self.output, phase=self._phase)
        return self.message

    def end_message(self, status: str) -> None:
        """Close the open message item, if there is one; the next one has no phase unless it says so."""
        if self.message is not None:
            self.message.close(status)
            self.message = None
        self._phase = None

    def open_reasoning(self, content: Content, *, encrypted: str | None, is_text: bool) -> ReasoningItem:
        """Return the reasoning item that `content` belongs to, opening one if it is not open."""
        self._forgive()
        key = content.id
        item = self._reasoning
        if item is not None and key is not None and item.key not in {None, key}:
            self.end_reasoning()
            item = None
        if item is None:
            # The provider knows its reasoning by id, encrypted content above all: keep the id.
            is_upstream = content.raw_representation is not None and key is not None and key.startswith("rs_")
            item = ReasoningItem(
                self.output,
                key=key,
                wanted_id=key if is_upstream else None,
                encrypted=encrypted,
                is_text=is_text,
            )
            self._reasoning = item
        item.key = item.key or key
        if encrypted is not None:
            item.encrypted = encrypted
        return item

    def end_reasoning(self) -> None:
        """Close the open reasoning item, if there is one."""
        if self._reasoning is not None:
            if self._reasoning.key is not None:
                self.closed_reasoning.add(self._reasoning.key)
            self._reasoning.close()
            self._reasoning = None

    def write_link(self, content: Content) -> None:
        """Write media as a text part of its own: a Markdown link, with an annotation that names the target."""
        target = content.uri or content.file_id or ""
        name = content.name or content.file_id or content.media_type or "link"
        mark = "!" if (content.media_type or "").startswith("image") else ""
        text = f"{mark}[{name}]({target})"
        annotations: list[JsonObject] = []
        if content.type == "hosted_file":
            annotations = [{"type": "file_path", "file_id": target, "index": 0}]
        elif content.type == "uri":
            annotations = [
                {"type": "url_citation", "url": target, "title": name, "start_index": 0, "end_index": len(text)}
            ]
        self.open_message().write_part(text, annotations)

    def fail_later(self, content: Content) -> None:
        """Keep an error content: the response fails if no other output follows."""
        message = (content.message or content.error_details) if self.options.error_details else None
        self.failure = Failure.of(content.error_code, message, notice=message or ERROR_NOTICE)

    def _forgive(self) -> None:
        failure = self.failure
        if failure is None:
            return
        self.failure = None
        if failure.notice is not None:
            self.open_message().write_part(failure.notice, [])


def _owner_of(options: EncoderOptions, name: str) -> Owner:
    if name not in options.client_tools and name not in options.custom_tools:
        return Owner.UNDECIDED
    if options.allowed_tools is not None and name not in options.allowed_tools:
        return Owner.REFUSED
    return Owner.CLIENT
