"""What every store of responses must do, as tests to inherit.

```python
class TestMyStore(ResponseStoreSuite):
    @pytest.fixture
    async def conversations(self) -> MyConversations: ...

    @pytest.fixture
    async def store(self, conversations: MyConversations) -> AsyncIterator[MyStore]: ...
```

The tests need pytest-asyncio in its mode `auto`. Rules that depend on time (how long what is kept) are the store's own.
"""
# ruff: noqa: D102  the tests are named as sentences
# ruff: noqa: S101  they are tests

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from agent_framework_hosting.errors import AlreadyExists, StaleWrite
from agent_framework_hosting.isolation import Partition
from agent_framework_hosting.runs.base import Attempt, RunStatus

from ..protocol.json import JsonObject
from ..stores.base import IdempotencyKey, ResponseStore
from .conversation_turns import message_of
from .response_contexts import ResponseContextsSuite
from .response_locks import ResponseLocksSuite
from .response_turns import (
    ADA,
    HOSTILE_IDS,
    RUNNING,
    TERMINAL,
    body_of,
    check_nothing_is_there,
    ended,
    ended_of,
    key_of,
    run,
    running_of,
)

_HARD: list[JsonObject] = [
    message_of("msg_1", "half an emoji \ud83d, a whole one 👩\u200d👧, \x00, \u2028, é"),
    {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a": 1e999}'},
    {"id": "x_1", "type": "vendor", "deep": [None, True, 1.5, -0.0, 2**53, 2**70, {"": [], "\x00": "\udfff"}]},
]


class ResponsesSuite:
    """`ResponseStore`: what becomes of one response."""

    @pytest.mark.parametrize("status", list(RunStatus))
    async def test_a_response_comes_back_as_it_was_stored(self, store: ResponseStore, status: RunStatus) -> None:
        record = running_of(
            "resp_1",
            status=status,
            attempt=3,
            owner="host 1",
            is_background=True,
            is_streamed=True,
            previous_response_id="resp_0",
            idempotency_key="key",
            request_hash="hash",
            input=tuple(_HARD),
            output=tuple(reversed(_HARD)),
            body=body_of("resp_1", status, tuple(reversed(_HARD))),
            approvals={"mcpr_1": {"id": "\ud800", "arguments": {"a": [1]}}},
            call_ids={"call_1": "\x00"},
            has_session=True,
        )

        assert await store.create(record) is None

        assert await store.get(record.key) == record

    @pytest.mark.parametrize("body", [b"", b"{}", b'{"output":[]}', b'{"output":[{"a":1}],"z":1}', b"\xff\x00"])
    async def test_a_body_comes_back_byte_for_byte(self, store: ResponseStore, body: bytes) -> None:
        one_shot, running = ended_of("resp_1", body=body), running_of("resp_2")
        await store.create(one_shot)
        attempt = await run(store, running)
        await store.save(attempt, ended(running, body=body))

        for key in (one_shot.key, running.key):
            found = await store.get(key)
            assert found is not None
            assert (found.body, found.output) == (body, ended(running_of(key.run_id)).output)

    @pytest.mark.parametrize("status", list(RunStatus))
    async def test_an_id_is_taken_once_in_each_partition(self, store: ResponseStore, status: RunStatus) -> None:
        record = running_of("resp_1", status=status)
        await store.create(record)

        for other in (running_of("resp_1", owner="other"), ended_of("resp_1")):
            with pytest.raises(AlreadyExists):
                await store.create(other)
        await store.create(ended_of("resp_1", partition=ADA))

        assert await store.get(record.key) == record
        assert await store.get(key_of("resp_1", ADA)) == ended_of("resp_1", partition=ADA)

    async def test_of_concurrent_responses_with_one_id_one_is_stored(self, store: ResponseStore) -> None:
        records = [running_of("resp_1", request_hash=str(number)) for number in range(12)]

        results = await asyncio.gather(*(store.create(record) for record in records), return_exceptions=True)

        (winner,) = [number for number, result in enumerate(results) if result is None]
        assert all(isinstance(result, AlreadyExists) for result in results if result is not None)
        assert await store.get(key_of("resp_1")) == records[winner]

    async def test_another_partition_sees_and_changes_nothing(self, store: ResponseStore) -> None:
        for record in (running_of("resp_1", idempotency_key="key"), ended_of("resp_2")):
            await store.create(record)

            await check_nothing_is_there(store, key_of(record.key.run_id, ADA))

            assert await store.get(record.key) == record
        assert await store.get(IdempotencyKey(ADA, "key")) is None

    @pytest.mark.parametrize("name", HOSTILE_IDS, ids=range(len(HOSTILE_IDS)))
    async def test_no_id_is_more_than_an_unknown_one(self, store: ResponseStore, name: str) -> None:
        await store.create(ended_of("resp_1"))

        await check_nothing_is_there(store, key_of(name))
        await check_nothing_is_there(store, key_of("resp_1", Partition(name or "-")))

        assert await store.get(IdempotencyKey(ADA, name)) is None
        assert await store.get(key_of("resp_1")) == ended_of("resp_1")

    async def test_whoever_begins_an_attempt_owns_the_response(self, store: ResponseStore) -> None:
        record = running_of("resp_1", owner="one")
        await store.create(record)

        attempt = await store.begin(record.key, owner="two")
        assert attempt == Attempt(record.key, 1)
        await store.save(attempt, record)

        assert await store.get(record.key) == replace(record, owner="two", attempt=1)

    async def test_the_latest_attempt_alone_may_write(self, store: ResponseStore) -> None:
        record = running_of("resp_1")
        first = await run(store, record)
        second = await store.begin(record.key)
        assert second is not None

        for stale in (first, Attempt(record.key, 0), Attempt(record.key, 3)):
            with pytest.raises(StaleWrite):
                await store.save(stale, ended(record))
        assert await store.get(record.key) == replace(record, attempt=2)
        await store.save(second, ended(record))

        assert await store.get(record.key) == ended(record, attempt=2)

    async def test_concurrent_attempts_have_numbers_of_their_own(self, store: ResponseStore) -> None:
        record = running_of("resp_1")
        await store.create(record)

        attempts = await asyncio.gather(*(store.begin(record.key) for _ in range(12)))

        assert sorted(attempt.number for attempt in attempts if attempt) == list(range(1, 13))

    async def test_of_concurrent_ends_one_is_stored(self, store: ResponseStore) -> None:
        record = running_of("resp_1")
        attempt = await run(store, record)

        results = await asyncio.gather(
            *(store.save(attempt, ended(record, status)) for status in TERMINAL), return_exceptions=True
        )

        (winner,) = [status for status, result in zip(TERMINAL, results, strict=True) if result is None]
        assert all(isinstance(result, StaleWrite) for result in results if result is not None)
        assert await store.get(record.key) == ended(record, winner, attempt=1)

    async def test_a_response_goes_through_its_states(self, store: ResponseStore) -> None:
        record = running_of("resp_1", status=RunStatus.QUEUED, is_background=True)
        attempt = await run(store, record)

        for state in (replace(record, status=RunStatus.IN_PROGRESS), ended(record)):
            await store.save(attempt, state)
            assert await store.get(record.key) == replace(state, attempt=1)

    @pytest.mark.parametrize("status", TERMINAL)
    async def test_a_terminal_response_never_changes(self, store: ResponseStore, status: RunStatus) -> None:
        record = running_of("resp_1")
        attempt = await run(store, record)
        await store.save(attempt, ended(record, status))
        one_shot = ended_of("resp_2", status=status)
        await store.create(one_shot)

        for key, number in ((record.key, 1), (one_shot.key, 0)):
            for other in RunStatus:
                with pytest.raises(StaleWrite):
                    await store.save(Attempt(key, number), running_of(key.run_id, status=other))
            assert await store.begin(key) is None

        assert await store.get(record.key) == ended(record, status, attempt=1)
        assert await store.get(one_shot.key) == one_shot

    @pytest.mark.parametrize("status", list(RunStatus))
    async def test_a_deleted_response_is_gone(self, store: ResponseStore, status: RunStatus) -> None:
        record = running_of("resp_1", status=status)
        await store.create(record)
        await store.create(ended_of("resp_2"))

        assert await store.delete(record.key)

        await check_nothing_is_there(store, record.key)
        assert await store.get(key_of("resp_2")) == ended_of("resp_2")

    async def test_of_concurrent_deletions_one_does_it(self, store: ResponseStore) -> None:
        record = ended_of("resp_1")
        await store.create(record)

        assert sorted(await asyncio.gather(*(store.delete(record.key) for _ in range(8)))) == [False] * 7 + [True]

    async def test_the_end_of_a_deleted_response_is_not_stored(self, store: ResponseStore) -> None:
        record = running_of("resp_1")
        attempt = await run(store, record)
        await store.delete(record.key)

        with pytest.raises(StaleWrite):
            await store.save(attempt, ended(record))

        await check_nothing_is_there(store, record.key)


class IdempotencySuite:
    """`ResponseStore`: one response for each key of its creator."""

    @pytest.mark.parametrize("status", [*RUNNING, RunStatus.COMPLETED, RunStatus.FAILED])
    async def test_a_key_names_the_response_that_was_made_with_it_first(
        self, store: ResponseStore, status: RunStatus
    ) -> None:
        first = running_of("resp_1", status=status, idempotency_key="key", request_hash="1")
        await store.create(first)

        for again in (running_of, ended_of):
            known = await store.create(again("resp_2", idempotency_key="key", request_hash="2"))
            assert known == first

        await check_nothing_is_there(store, key_of("resp_2"))
        assert await store.get(IdempotencyKey(first.key.partition, "key")) == first

    async def test_the_response_comes_as_it_stands(self, store: ResponseStore) -> None:
        record = running_of("resp_1", idempotency_key="key")
        attempt = await run(store, record)
        await store.save(attempt, ended(record))

        assert await store.create(running_of("resp_2", idempotency_key="key")) == ended(record, attempt=1)

    async def test_every_partition_has_keys_of_its_own(self, store: ResponseStore) -> None:
        first = ended_of("resp_1", idempotency_key="key")
        other = ended_of("resp_1", partition=ADA, idempotency_key="key")

        assert await store.create(first) is None
        assert await store.create(other) is None

        assert await store.get(IdempotencyKey(ADA, "key")) == other

    async def test_a_key_of_a_deleted_response_is_free(self, store: ResponseStore) -> None:
        for name in ("resp_1", "resp_2"):
            assert await store.create(ended_of(name, idempotency_key="key")) is None
            assert await store.delete(key_of(name))

        assert await store.get(IdempotencyKey(key_of("").partition, "key")) is None

    async def test_a_key_takes_no_id_of_another_response(self, store: ResponseStore) -> None:
        await store.create(ended_of("resp_1"))

        with pytest.raises(AlreadyExists):
            await store.create(running_of("resp_1", idempotency_key="key"))

        assert await store.get(IdempotencyKey(key_of("").partition, "key")) is None

    async def test_of_concurrent_responses_with_one_key_one_is_stored(self, store: ResponseStore) -> None:
        records = [running_of(f"resp_{number}", idempotency_key="key") for number in range(12)]

        results = await asyncio.gather(*(store.create(record) for record in records))

        (winner,) = [record for record, result in zip(records, results, strict=True) if result is None]
        assert [result for result in results if result is not None] == [winner] * 11
        assert [record.key for record in records if await store.get(record.key)] == [winner.key]

    @pytest.mark.parametrize("name", [name for name in HOSTILE_IDS if name], ids=lambda name: str(len(name)))
    async def test_a_key_may_be_any_text(self, store: ResponseStore, name: str) -> None:
        await store.create(running_of("resp_0", idempotency_key="key"))

        assert await store.create(running_of("resp_1", idempotency_key=name)) is None

        known = await store.create(running_of("resp_2", idempotency_key=name))
        assert known is not None
        assert known.key == key_of("resp_1")


class ResponseStoreSuite(ResponsesSuite, IdempotencySuite, ResponseContextsSuite, ResponseLocksSuite):
    """What a store of responses must do. Inherit, and define the fixtures `store` and `conversations`.

    `store` is empty; `conversations` are those that its responses may belong to.
    """
