"""Responses and items as columns of a database, and back.

Text of callers and models is kept as JSON in columns of bytes: a column of text can hold neither NUL nor lone surrogates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus

from ..protocol.json import JsonObject, decode_json, encode_json
from .base import ResponseRecord

# What the end of a body looks like when its output is kept in a column of its own. No JSON ends so.
_OUTPUT_FOLLOWS: Final = b'"output":'

# PostgreSQL refuses index entries of more than a third of a page.
_LONGEST_KEY: Final = 512

TOMBSTONE: Final = {
    "status": RunStatus.CANCELLED.value,
    "attempt": 0,
    "owner": "",
    "target": "",
    "is_background": False,
    "is_streamed": False,
    "has_session": False,
    "is_deleted": True,
    "conversation_position": 0,
    "body": b"",
    "output": b"[]",
}
"""Columns of a response that is gone, and kept only for the items that others continue from."""


def is_text(*values: str | None) -> bool:
    """Whether a column of text can hold the values; an id that it cannot hold is the id of nothing."""
    return all(value is None or _is_text(value) for value in values)


def _is_text(value: str) -> bool:
    if "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def key_text(value: str) -> str:
    """Return what an index is given for a caller's text: the text itself, or its digest if no index can hold it."""
    if len(value) <= _LONGEST_KEY and _is_text(value):
        return value
    return "sha256 " + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def encode_items(items: Sequence[JsonObject]) -> bytes:
    """Return the items as a JSON array."""
    # One by one, as in the body of a response: an item with half an emoji is written otherwise than its neighbours.
    return b"[" + b",".join([encode_json(item) for item in items]) + b"]"


def decode_items(data: bytes) -> tuple[JsonObject, ...]:
    """Return the items of a JSON array."""
    return () if data == b"[]" else tuple(decode_json(data))


class Notes(NamedTuple):
    """What the target needs besides the items; see `ResponseRecord`."""

    approvals: Mapping[str, JsonObject]
    call_ids: Mapping[str, str]


def encode_notes(approvals: Mapping[str, JsonObject], call_ids: Mapping[str, str]) -> bytes | None:
    """Return the notes as JSON, `None` if there are none."""
    if not approvals and not call_ids:
        return None
    return encode_json({"approvals": dict(approvals), "call_ids": dict(call_ids)})


def decode_notes(data: bytes | None) -> Notes:
    """Return the notes of a column."""
    if data is None:
        return Notes({}, {})
    notes = decode_json(data)
    return Notes(notes["approvals"], notes["call_ids"])


def state_of(record: ResponseRecord, *, stored_at: float) -> dict[str, object]:
    """Return the columns of `record` that change while it runs."""
    output = encode_items(record.output)
    return {
        "status": record.status.value,
        "stored_at": stored_at,
        "has_session": record.has_session,
        "body": _without_output(record.body, output),
        "output": output,
        "notes": encode_notes(record.approvals, record.call_ids),
        "request": None if record.status.is_terminal else record.request,
    }


def columns_of(record: ResponseRecord, *, stored_at: float) -> dict[str, object]:
    """Return all columns of `record`."""
    return {
        "partition": record.key.partition,
        "id": record.key.run_id,
        "attempt": record.attempt,
        "owner": record.owner,
        "target": record.target,
        "created_at": record.created_at,
        "is_background": record.is_background,
        "is_streamed": record.is_streamed,
        "is_deleted": False,
        "previous_response_id": record.previous_response_id,
        "conversation_id": record.conversation_id,
        "conversation_position": record.conversation_position,
        "idempotency_key": None if record.idempotency_key is None else key_text(record.idempotency_key),
        "request_hash": record.request_hash,
        "input": encode_items(record.input),
        **state_of(record, stored_at=stored_at),
    }


def record_of(row: Any) -> ResponseRecord:
    """Return the record whose columns are in `row`."""
    notes = decode_notes(row.notes)
    return ResponseRecord(
        key=RunKey(Partition(row.partition), RunId(row.id)),
        status=RunStatus(row.status),
        created_at=row.created_at,
        body=_with_output(row.body, row.output),
        attempt=row.attempt,
        owner=row.owner,
        target=row.target,
        is_background=row.is_background,
        is_streamed=row.is_streamed,
        previous_response_id=row.previous_response_id,
        conversation_id=row.conversation_id,
        conversation_position=row.conversation_position,
        idempotency_key=row.idempotency_key,
        request_hash=row.request_hash,
        input=decode_items(row.input),
        output=decode_items(row.output),
        approvals=notes.approvals,
        call_ids=notes.call_ids,
        has_session=row.has_session,
        request=row.request,
    )


def _without_output(body: bytes, output: bytes) -> bytes:
    """Return `body` up to its output, if it ends with just these items: they are not stored twice."""
    end = _OUTPUT_FOLLOWS + output + b"}"
    return body[: -len(output) - 1] if body.endswith(end) else body


def _with_output(body: bytes, output: bytes) -> bytes:
    return body + output + b"}" if body.endswith(_OUTPUT_FOLLOWS) else body


def item_columns(
    items: Iterable[JsonObject], *, approvals: Mapping[str, JsonObject], call_ids: Mapping[str, str]
) -> list[dict[str, object]]:
    """Return the columns of the items of a conversation that say nothing of their place."""
    return [
        {
            "item_id": key_text(cast("str", item["id"])),
            "item": encode_json(item),
            "notes": encode_notes(
                {key: value for key, value in approvals.items() if key == item["id"]},
                {key: value for key, value in call_ids.items() if key == item.get("call_id")},
            ),
        }
        for item in items
    ]
