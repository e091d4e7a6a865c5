"""What the suites for stores of responses are written with: responses, their chains, and what is there."""
# ruff: noqa: S101  helpers of tests

from __future__ import annotations

from typing import Any, Final

import pytest
from msgspec.structs import replace

from agent_framework_hosting.errors import StaleWrite
from agent_framework_hosting.isolation import SHARED, IsolationKeys, Partition
from agent_framework_hosting.runs.base import Attempt, RunId, RunKey, RunStatus

from ..protocol.json import JsonObject, encode_json
from ..stores.base import ResponseRecord, ResponseStore
from ..stores.context import Context
from .conversation_turns import message_of

ADA: Final = IsolationKeys(user_key="ada").partition
"""The partition of another user."""

TERMINAL: Final = [status for status in RunStatus if status.is_terminal]
"""The statuses that a response ends with."""

RUNNING: Final = [status for status in RunStatus if not status.is_terminal]
"""The statuses of a response that runs."""

HOSTILE_IDS: Final = [
    "",
    "..",
    "../../x",
    "a/b",
    "%",
    "_",
    "'; --",
    "\x00",
    "r\x00",
    "\ud800",
    "é👩\u200d👧",
    "x" * 10_000,
]
"""Ids that no response has, and that no store may stumble over."""


def key_of(name: str, partition: Partition = SHARED) -> RunKey:
    """Return the key of a response."""
    return RunKey(partition, RunId(name))


def body_of(name: str, status: RunStatus, output: tuple[JsonObject, ...]) -> bytes:
    """Return a Response object as a store is given it."""
    return encode_json({"id": name, "object": "response", "status": status.value, "output": list(output)})


def running_of(name: str, *, partition: Partition = SHARED, **fields: Any) -> ResponseRecord:
    """Return a response that runs, with one question."""
    record = ResponseRecord(
        key=key_of(name, partition),
        status=RunStatus.IN_PROGRESS,
        created_at=1_700_000_000,
        body=body_of(name, RunStatus.IN_PROGRESS, ()),
        input=(message_of(f"msg_{name}_question"),),
    )
    return replace(record, **fields)


def ended(record: ResponseRecord, status: RunStatus = RunStatus.COMPLETED, **fields: Any) -> ResponseRecord:
    """Return how the response stands when it has ended, with one answer."""
    output = (message_of(f"msg_{record.key.run_id}_answer", role="assistant"),)
    body = body_of(record.key.run_id, status, output)
    has_session = status in {RunStatus.COMPLETED, RunStatus.INCOMPLETE}
    return replace(record, **{"status": status, "body": body, "output": output, "has_session": has_session, **fields})


def ended_of(name: str, *, partition: Partition = SHARED, **fields: Any) -> ResponseRecord:
    """Return a response that has ended, with one question and one answer."""
    return ended(running_of(name, partition=partition), **fields)


async def run(store: ResponseStore, record: ResponseRecord, context: Context | None = None) -> Attempt:
    """Store a response that runs, and begin its first attempt."""
    assert await store.create(record, context) is None
    attempt = await store.begin(record.key)
    assert attempt is not None
    return attempt


async def take_turn(store: ResponseStore, name: str, previous: str | None = None, **fields: Any) -> ResponseRecord:
    """Have a response that continues another one run to its end, as a host does, and return it."""
    context = None if previous is None else await context_of(store, previous)
    record = running_of(name, previous_response_id=previous)
    attempt = await run(store, record, context)
    done = ended(record, **fields)
    await store.save(attempt, done)
    return done


async def context_of(store: ResponseStore, name: str) -> Context:
    """Return the context that ends with a response that is there."""
    assert await store.get(key_of(name)) is not None
    context = await store.context(key_of(name))
    assert context is not None
    return context


async def turns_of(store: ResponseStore, name: str) -> list[str | None]:
    """Return the ids of the responses in a context, oldest first, after checking that it has all their items."""
    context = await context_of(store, name)
    nodes = [node for node in context.nodes() if node.items][::-1]
    items = [str(item["id"]) for item in context.all_items()]
    assert items == [str(item["id"]) for node in nodes for item in node.items]
    assert context.length == len(items)
    return [node.response_id for node in nodes]


async def check_nothing_is_there(store: ResponseStore, key: RunKey) -> None:
    """Check that the store knows no such response, whatever it is asked."""
    assert await store.get(key) is None
    assert await store.context(key) is None
    assert await store.begin(key) is None
    with pytest.raises(StaleWrite):
        await store.save(Attempt(key, 0), ended_of(key.run_id, partition=key.partition))
    assert not await store.delete(key)
    assert await store.get(key) is None
