"""From Agent Framework updates to events of the Responses API and the final response.

One encoder writes one response. Its methods return the events to send, in order; the state has moved when
they return. A new message item begins where the framework itself begins a new message: another message id,
another author, another role.

A run whose process died may get a second attempt. Its encoder goes on where the first one's log ends: it closes what is
open there, and tells its own items with the numbers and indexes that follow. What the first attempt said stays in the
stream, where it was told, but is no part of an answer that a later one gives from the start: nobody shall read it twice,
or run a call that was asked for twice. So the `output` of that answer has fewer items than the stream. A response that
gets no answer, because it failed or was cancelled, keeps what was said. Usage counts the last attempt only; what the
others used is not in the log. A run that is resumed, instead of started again, has a memo of all that.

Source: contract §2, §3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from agent_framework import AgentResponseUpdate, Content
from msgspec import to_builtins

from .errors import EncoderStateError
from .events import DeltaRun, Event, EventWriter
from .ids import IdFactory, new_id
from .items.draft import RUN_FAILED, Draft, Failure
from .items.function_call import close_calls, write_undecided_calls
from .items.prose import replacing
from .items.raw import write_raw_event
from .items.settings import EncoderOptions
from .items.source import member
from .items.table import write_content
from .json import JsonObject, JsonValue, encode_json
from .memo import AskedApproval, Memo
from .replay import Replay
from .usage import UsageMeter

_INCOMPLETE: Final[Mapping[str, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
_UPSTREAM_ENDS: Final = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_FAILED_FINISH: Final = frozenset({"error", "failed"})
_TERMINAL: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
# Updates in these roles repeat what went in; an answer is the assistant's or a tool's.
_INPUT_ROLES: Final = frozenset({"user", "system", "developer"})
# Properties of a text that make it more than a delta: refusal markers and the phase.
_MARKS: Final = frozenset({"core", "model_output_kind", "phase"})


def _now() -> int:
    return int(time.time())


class ResponseEncoder:
    """Writes one response: `open`, `start`, any number of `feed`, then `complete`, `fail` or `cancel`."""

    def __init__(
        self,
        response: JsonObject,
        *,
        options: EncoderOptions = EncoderOptions(),  # noqa: B008  frozen
        new_id: IdFactory = new_id,
        clock: Callable[[], int] = _now,
        events: bool = True,
        earlier: Replay = Replay(),  # noqa: B008  frozen
        memo: Memo = Memo(),  # noqa: B008  frozen
    ) -> None:
        """Prepare to write the answer into a copy of `response`, the whole body of contract §2.1.

        Its status is `queued` in the background and `in_progress` in the foreground. `clock` returns Unix
        seconds. Without `events` the same response is built and every method returns an empty list.

        After an attempt that was lost, `earlier` is what it told. The Response that it told counts, not `response`. A
        run that goes on where the earlier one was, instead of starting again, begins with the `memo` of its encoder.

        Raises:
            EncoderStateError: the earlier attempt told the end.
        """
        if earlier.is_terminal:
            raise EncoderStateError("The response has ended already.")
        told = earlier.response or response
        self._earlier = earlier
        self._kept = frozenset(memo.answered)
        self._base: JsonObject = {name: value for name, value in told.items() if name != "output"}
        self._status = str(told["status"])
        self._clock = clock
        self._writer = EventWriter(enabled=events, first=earlier.next_number)
        self._draft = Draft(self._writer, options, new_id)
        self._draft.resume(earlier.items)
        self._draft.calls.restore(memo.calls, memo.minted_call_ids)
        self._draft.approvals.update(memo.approvals)
        self._usage = UsageMeter(memo.usage)
        self._is_open = False
        self._is_started = False
        self._finish_reason = memo.finish_reason
        self._is_upstream_open = False
        self._message_id: str | None = None
        self._author: str | None = None
        self._role: str = "assistant"
        self._source: str | None = None
        self._run: DeltaRun | None = None

    @property
    def status(self) -> str:
        """The status of the response."""
        return self._status

    @property
    def is_terminal(self) -> bool:
        """Whether the response will never change again."""
        return self._status in _TERMINAL

    @property
    def has_failed(self) -> bool:
        """Whether the model has failed, so that `complete` will end the response as `failed`.

        It said so, or its provider's stream was cut: an answer began and never ended. The same holds if an earlier
        attempt left something that no answer can complete.
        """
        return (
            self._draft.failure is not None
            or self._finish_reason in _FAILED_FINISH
            or self._is_upstream_open
            or not self._earlier.can_complete
        )

    @property
    def memo(self) -> Memo:
        """What another attempt needs to go on from here, together with what was told until now."""
        return Memo(
            answered=[*sorted(self._kept), *range(len(self._earlier.items), len(self._draft.output))],
            calls=self._draft.calls.undecided(),
            approvals=dict(self.approvals),
            minted_call_ids=dict(self.minted_call_ids),
            usage=self._usage.counts,
            finish_reason=self._finish_reason,
        )

    @property
    def approvals(self) -> Mapping[str, AskedApproval]:
        """Id of an approval request on the wire → how the target knows it."""
        return self._draft.approvals

    @property
    def questions(self) -> dict[str, JsonObject]:
        """The approval requests in the response, and what the target recognises their answers by, by their ids."""
        asked = {str(item["id"]): item for item in self._draft.output.items if item["id"] in self.approvals}
        return {item_id: {**item, **to_builtins(self.approvals[item_id])} for item_id, item in asked.items()}

    @property
    def minted_call_ids(self) -> Mapping[str, str]:
        """`call_id` on the wire → the framework's id of the call, where they differ."""
        return {**self._draft.calls.minted, **self._draft.output.minted_call_ids}

    @property
    def response(self) -> JsonObject:
        """The response as it is now; while it runs, `output` holds the finished items."""
        output: list[JsonValue] = [*self._draft.output.items]
        return {**self._base, "output": output}

    @property
    def encoded(self) -> bytes:
        """The `response` as JSON; its items are encoded already."""
        return encode_json(self._base)[:-1] + b',"output":' + self._draft.output.encoded + b"}"

    def open(self) -> list[Event]:
        """Announce the response; after an earlier attempt, as far as that did not, and close what it left open."""
        if self._is_open:
            raise EncoderStateError("open() was called twice.")
        self._is_open = True
        if self._earlier.response is None:
            self._emit("response.created")
        if self._status == "queued" and not self._earlier.is_queued:
            self._emit("response.queued")
        self._draft.close_unfinished(self._kept)
        return self._writer.take()

    def start(self) -> list[Event]:
        """Tell that the run has begun, unless an earlier attempt did."""
        if not self._is_open or self._is_started or self.is_terminal:
            raise EncoderStateError("start() belongs between open() and the first update, once.")
        self._is_started = True
        self._set_status("in_progress")
        if not self._earlier.is_started:
            self._emit("response.in_progress")
        return self._writer.take()

    def feed(self, update: AgentResponseUpdate) -> list[Event]:
        """Write one update of the run."""
        run = self._run
        if run is not None and len(update.contents) == 1 and self._is_plain(update):
            text = _plain_text(update.contents[0])
            if text:
                return run.only(text)
        return self._feed(update)

    def complete(self) -> list[Event]:
        """End a run that came to its end: `completed`, `incomplete`, or `failed` if the model had failed."""
        self._require_running("complete()")
        draft = self._draft
        if self.has_failed:
            return self._fail(draft.failure or Failure())
        reason = _INCOMPLETE.get(self._finish_reason or "")
        item_status = "completed" if reason is None else "incomplete"
        draft.end_reasoning()
        draft.end_message(item_status)
        close_calls(draft, item_status)
        draft.hosted.close()
        write_undecided_calls(draft, item_status)
        draft.output.leave_out(set(range(len(self._earlier.items))) - self._kept)
        if reason is None:
            self._end("completed", completed_at=self._clock(), usage=self._usage.body)
        else:
            self._end("incomplete", incomplete_details={"reason": reason}, usage=self._usage.body)
        return self._writer.take()

    def fail(self, *, code: str = "server_error", message: str = RUN_FAILED) -> list[Event]:
        """End a run that broke; `message` goes to the client, so it must not tell about the inside."""
        self._require_alive("fail()")
        return self._fail(Failure(code=code, message=message))

    def cancel(self) -> list[Event]:
        """End a run that was cancelled: `response.failed` with the status `cancelled` (contract §3.3)."""
        self._require_alive("cancel()")
        self._abort()
        self._end("cancelled", usage=None)
        return self._writer.take()

    def _is_plain(self, update: AgentResponseUpdate) -> bool:
        """Tell whether `update` goes on with the open message and says nothing besides its contents."""
        return (
            (update.message_id is None or update.message_id == self._message_id)
            and (update.role is None or update.role == self._role)
            and (update.author_name is None or update.author_name == self._author)
            and update.finish_reason is None
            and update.merge_mode != "replace"
            and not (update.additional_properties and "phase" in update.additional_properties)
        )

    def _feed(self, update: AgentResponseUpdate) -> list[Event]:
        self._require_running("feed()")
        self._begin_message(update)
        draft = self._draft
        if update.additional_properties:
            draft.enter_phase(update.additional_properties.get("phase"))
        if self._role not in _INPUT_ROLES:
            for content in update.contents if update.merge_mode != "replace" else replacing(update.contents):
                write_content(draft, content)
        self._observe(update)
        self._run = draft.fast_run
        return self._writer.take()

    def _begin_message(self, update: AgentResponseUpdate) -> None:
        is_new = (
            _differs(update.message_id, self._message_id)
            or _differs(update.author_name, self._author)
            or _differs(update.role, self._role)
        )
        if is_new:
            self._end_message("completed")
            self._message_id = self._author = None
            self._role = "assistant"
        self._message_id = update.message_id or self._message_id
        self._author = update.author_name or self._author
        self._role = update.role or self._role

    def _end_message(self, status: str) -> None:
        self._draft.end_reasoning()
        self._draft.end_message(status)
        close_calls(self._draft, status)
        self._draft.calls.end_message()

    def _observe(self, update: AgentResponseUpdate) -> None:
        """Take note of what an update says besides its contents."""
        self._source = update.author_name or update.agent_id or self._source
        for content in update.contents:
            if content.type == "usage":
                self._usage.add(
                    content.usage_details,
                    replaces=content.merge_mode == "replace",
                    source=self._source,
                    response_id=update.response_id,
                )
            elif content.type == "function_result":
                self._usage.note_tool_result(self._source)
        self._observe_raw(_raw_event(update))
        if update.finish_reason is not None:
            self._finish_reason = str(update.finish_reason)

    def _observe_raw(self, raw: object) -> None:
        kind = member(raw, "type")
        if kind == "response.created":
            self._is_upstream_open = True
        elif kind in _UPSTREAM_ENDS:
            self._is_upstream_open = False
        if kind in ("response.failed", "response.cancelled"):
            # The framework reports neither: its finish reason stays empty.
            self._draft.failure = Failure.of(member(member(member(raw, "response"), "error"), "code"))
        elif kind == "response.incomplete":
            reason = member(member(member(raw, "response"), "incomplete_details"), "reason")
            self._finish_reason = "content_filter" if reason == "content_filter" else "length"
        elif raw is not None:
            write_raw_event(self._draft, raw)

    def _fail(self, failure: Failure) -> list[Event]:
        self._abort()
        self._end("failed", error={"code": failure.code, "message": failure.message}, usage=self._usage.body)
        return self._writer.take()

    def _abort(self) -> None:
        """Close what is open. Undecided calls are dropped: nobody shall run a tool for a dead response."""
        self._end_message("incomplete")
        self._draft.hosted.close()

    def _end(self, status: str, **fields: JsonValue) -> None:
        self._run = None
        self._base.update(fields)
        if self._base.get("service_tier") == "auto":
            self._base["service_tier"] = "default"
        self._set_status(status)
        kind = "response.failed" if status == "cancelled" else f"response.{status}"
        if self._writer.enabled:
            self._writer.emit_response(kind, self.encoded)

    def _set_status(self, status: str) -> None:
        self._status = status
        self._base["status"] = status

    def _emit(self, kind: str) -> None:
        self._writer.emit(kind, {"response": {**self._base, "output": []}})

    def _require_running(self, method: str) -> None:
        if not self._is_started or self.is_terminal:
            raise EncoderStateError(f"{method} belongs between start() and the end.")

    def _require_alive(self, method: str) -> None:
        if not self._is_open or self.is_terminal:
            raise EncoderStateError(f"{method} belongs between open() and the end.")


def _differs(value: str | None, current: str | None) -> bool:
    return bool(value and current and value != current)


def _plain_text(content: Content) -> str | None:
    """Return the text of a content that is nothing but a further delta."""
    if content.type != "text" or content.merge_mode == "replace" or content.annotations:
        return None
    properties = content.additional_properties
    return None if properties and not _MARKS.isdisjoint(properties) else content.text


def _raw_event(update: AgentResponseUpdate) -> object:
    """Return the event of the provider's stream behind `update`, through the framework's own wrapping."""
    raw: object = update.raw_representation
    while raw is not None and not isinstance(raw, Mapping) and hasattr(raw, "raw_representation"):
        raw = raw.raw_representation
    return raw


__all__ = ["EncoderOptions", "ResponseEncoder"]
