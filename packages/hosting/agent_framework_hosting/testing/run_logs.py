"""What every log of runs must do, as tests to inherit.

```python
class TestMyLog(RunLogSuite):
    @pytest.fixture
    async def log(self) -> AsyncIterator[MyLog]: ...
```

The fixture gives an empty log. A log may keep entries whose kind ends in `delta` for a moment before others can read them,
and what was appended before them must not come after them; all other entries can be read when `append` returns. The tests need pytest-asyncio in its mode `auto`. How long closed logs can be read is the
log's own, and so is what becomes of what is appended while it cannot be reached.
"""
# ruff: noqa: D102  the tests are named as sentences
# ruff: noqa: S101  they are tests

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from typing import Final

from ..errors import StaleWrite
from ..isolation import SHARED, IsolationKeys
from ..runs.base import Attempt, LogEntry, RunId, RunKey, RunLog

KEY: Final = RunKey(SHARED, RunId("run"))
FIRST: Final = Attempt(KEY, 1)
SECOND: Final = Attempt(KEY, 2)

SECONDS: Final = 30.0
"""How long a test waits for what must happen."""


def entry(number: int, kind: str = "text.delta") -> LogEntry:
    """Return an entry that tells at which position it belongs."""
    return kind, b"%d" % number


def deltas(start: int, stop: int) -> list[LogEntry]:
    """Return deltas for the positions from `start` up to `stop`."""
    return [entry(number) for number in range(start, stop)]


async def read(log: RunLog, key: RunKey = KEY, *, after: int = -1) -> list[LogEntry]:
    """Follow a log to its end."""
    found: list[LogEntry] = []
    async with asyncio.timeout(SECONDS), aclosing(log.follow(key, after=after)) as batches:
        async for batch in batches:
            found += batch
    return found


class Reader:
    """Follows a log in a task of its own. `found` is what has come."""

    def __init__(self, log: RunLog, key: RunKey = KEY, *, after: int = -1) -> None:
        self.found: list[LogEntry] = []
        self._has_more = asyncio.Event()
        self._task = asyncio.create_task(self._read(log, key, after))

    async def has(self, count: int) -> list[LogEntry]:
        """Wait until `count` entries have come, and return all that have."""
        async with asyncio.timeout(SECONDS):
            while len(self.found) < count:
                assert not self._task.done()
                self._has_more.clear()
                await self._has_more.wait()
        return self.found

    async def end(self) -> list[LogEntry]:
        """Wait for the end of the log, and return all that has come."""
        async with asyncio.timeout(SECONDS):
            await self._task
        return self.found

    async def leave(self) -> None:
        """Read no more."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _read(self, log: RunLog, key: RunKey, after: int) -> None:
        try:
            async with aclosing(log.follow(key, after=after)) as batches:
                async for batch in batches:
                    self.found += batch
                    self._has_more.set()
        finally:
            self._has_more.set()


async def is_refused(append: Awaitable[None]) -> bool:
    """Return whether the log refuses the append."""
    try:
        await append
    except StaleWrite:
        return True
    return False


class ReadersSuite:
    """Who reads what."""

    async def test_a_reader_gets_everything_from_the_start_and_ends_when_the_log_closes(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "created"), entry(1)])
        await log.append(FIRST, [entry(2, "completed")], closes=True)

        assert await read(log) == [entry(0, "created"), entry(1), entry(2, "completed")]

    async def test_a_log_that_was_never_written_has_nothing_to_read(self, log: RunLog) -> None:
        assert await read(log) == []
        assert not await log.exists(KEY)

    async def test_a_log_with_nothing_in_it_exists_and_can_be_closed(self, log: RunLog) -> None:
        await log.append(FIRST, [])
        assert await log.exists(KEY)

        await log.append(FIRST, [], closes=True)
        assert await read(log) == []

    async def test_a_reader_continues_behind_every_position_and_past_the_end(self, log: RunLog) -> None:
        whole = deltas(0, 20)
        await log.append(FIRST, whole[:7])
        await log.append(FIRST, whole[7:], closes=True)

        for after in (-(2**40), *range(-1, 22), 2**40):
            assert await read(log, after=after) == whole[max(after, -1) + 1 :]

    async def test_readers_that_come_at_any_moment_see_the_same_entries(self, log: RunLog) -> None:
        readers = []
        for number in range(30):
            await log.append(FIRST, [entry(number, "text.delta" if number % 5 else "item")])
            readers.append(asyncio.create_task(read(log)))
            readers.append(asyncio.create_task(read(log, after=number - 3)))
            await asyncio.sleep(0)
        await log.append(FIRST, [entry(30, "completed")], closes=True)
        found = await asyncio.gather(*readers)
        whole = await read(log)

        assert [int(data) for _, data in whole] == list(range(31))
        assert found[0::2] == [whole] * 30
        assert found[1::2] == [whole[max(number - 3, -1) + 1 :] for number in range(30)]

    async def test_a_reader_behind_the_end_waits_for_what_comes_after_its_position(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "created")])
        reader = asyncio.create_task(read(log, after=4))
        await asyncio.sleep(0)
        await log.append(FIRST, deltas(1, 7))
        await log.append(FIRST, [entry(7, "completed")], closes=True)

        assert await reader == [entry(5), entry(6), entry(7, "completed")]

    async def test_a_reader_gets_deltas_without_waiting_for_the_end(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "created")])
        reader = Reader(log)
        for number in range(1, 4):
            await log.append(FIRST, [entry(number)])

        assert await reader.has(4) == [entry(0, "created"), *deltas(1, 4)]
        await reader.leave()

    async def test_a_reader_that_leaves_is_nobody_elses_loss(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "created")])
        stayer, leaver, hasty = Reader(log), Reader(log), Reader(log)
        await hasty.leave()
        await leaver.has(1)
        await leaver.leave()
        await stayer.has(1)
        await log.append(FIRST, [entry(1, "completed")], closes=True)

        assert await stayer.end() == [entry(0, "created"), entry(1, "completed")]
        assert await read(log) == stayer.found

    async def test_a_silent_log_yields_empty_batches_and_goes_on(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "created")])
        batches: list[Sequence[LogEntry]] = []
        async with asyncio.timeout(SECONDS), aclosing(log.follow(KEY, idle=0.01)) as following:
            async for batch in following:
                batches.append(list(batch))
                if len(batches) == 3:
                    await log.append(FIRST, [entry(1, "completed")], closes=True)

        assert batches[:3] == [[entry(0, "created")], [], []]
        assert [one for batch in batches[3:] for one in batch] == [entry(1, "completed")]

    async def test_logs_do_not_meet(self, log: RunLog) -> None:
        keys = [
            RunKey(partition, RunId(run_id))
            for partition in (SHARED, IsolationKeys("ada").partition, IsolationKeys("bob").partition)
            for run_id in ("one", "two")
        ]
        for number, key in enumerate(keys):
            await log.append(Attempt(key, 1), [entry(number, "created")])
        await log.drop(keys[0])
        for number, key in enumerate(keys[1:], 1):
            await log.append(Attempt(key, 1), [entry(10 + number, "completed")], closes=True)

        assert [await log.exists(key) for key in keys] == [False, True, True, True, True, True]
        for number, key in enumerate(keys[1:], 1):
            assert await read(log, key) == [entry(number, "created"), entry(10 + number, "completed")]


class WritersSuite:
    """Who writes what."""

    async def test_what_is_appended_at_once_comes_whole_and_in_order(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "created")])
        reader = asyncio.create_task(read(log))
        await log.append(FIRST, deltas(1, 501))
        await log.append(FIRST, [*deltas(501, 1_700), entry(1_700, "item")])
        await log.append(FIRST, [entry(1_701, "completed")], closes=True)

        assert await reader == await read(log)
        assert [int(data) for _, data in await read(log)] == list(range(1_702))

    async def test_every_byte_and_every_kind_come_back(self, log: RunLog) -> None:
        whole = [("a.delta", bytes(range(256))), ("", b""), ("ü😀 ", "ü😀\u2028".encode()), ("b", b"x" * 300_000)]
        await log.append(FIRST, whole, closes=True)

        assert await read(log) == whole

    async def test_the_caller_may_reuse_its_list(self, log: RunLog) -> None:
        entries = deltas(0, 2)
        await log.append(FIRST, entries)
        entries.clear()
        await log.append(FIRST, [entry(2, "completed")], closes=True)

        assert [int(data) for _, data in await read(log)] == [0, 1, 2]

    async def test_appends_at_the_same_time_are_taken_in_their_order(self, log: RunLog) -> None:
        kinds = ("text.delta", "item")
        appends = [asyncio.create_task(log.append(FIRST, [entry(n, kinds[n % 7 == 0])])) for n in range(100)]
        await asyncio.gather(*appends)
        await log.append(FIRST, [entry(100, "completed")], closes=True)

        assert [int(data) for _, data in await read(log)] == list(range(101))

    async def test_writers_of_many_logs_do_not_wait_for_each_other(self, log: RunLog) -> None:
        keys = [RunKey(SHARED, RunId(f"run {number}")) for number in range(20)]

        async def write(key: RunKey) -> None:
            for number in range(10):
                await log.append(Attempt(key, 1), [entry(number)])
                await asyncio.sleep(0)
            await log.append(Attempt(key, 1), [entry(10, "completed")], closes=True)

        readers = []
        for key in keys:
            await log.append(Attempt(key, 0), [])
            readers.append(asyncio.create_task(read(log, key)))
        await asyncio.gather(*(write(key) for key in keys))

        for found in await asyncio.gather(*readers):
            assert [int(data) for _, data in found] == list(range(11))

    async def test_nothing_can_be_written_to_a_closed_log(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "completed")], closes=True)

        for attempt in (FIRST, SECOND):
            assert await is_refused(log.append(attempt, [entry(1, "item")]))
            assert await is_refused(log.append(attempt, [], closes=True))
        assert await read(log) == [entry(0, "completed")]

    async def test_an_attempt_that_was_overtaken_can_write_nothing(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "created")])
        await log.append(FIRST, [entry(1, "item")])
        await log.append(SECOND, [entry(2, "item")])

        assert await is_refused(log.append(FIRST, [entry(3, "late")]))
        assert await is_refused(log.append(FIRST, [entry(3)]))
        assert await is_refused(log.append(FIRST, [entry(3, "late")], closes=True))
        await log.append(SECOND, [entry(3, "completed")], closes=True)
        assert [int(data) for _, data in await read(log)] == [0, 1, 2, 3]

    async def test_an_attempt_that_appends_nothing_has_begun(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "created"), entry(1)])
        await log.append(SECOND, [])

        assert await is_refused(log.append(FIRST, [entry(2, "late")]))
        await log.append(SECOND, [entry(2, "completed")], closes=True)
        assert [int(data) for _, data in await read(log)] == [0, 1, 2]

    async def test_two_attempts_at_the_same_time_leave_no_gap_and_the_later_one_ends_the_log(self, log: RunLog) -> None:
        async def write(attempt: Attempt) -> int:
            for number in range(50):
                kind = "text.delta" if number % 3 else "item"
                if await is_refused(log.append(attempt, [(kind, b"%d/%d" % (attempt.number, number))])):
                    return number
                await asyncio.sleep(0)
            return 50

        await log.append(Attempt(KEY, 0), [("created", b"")])
        reader = asyncio.create_task(read(log))
        first = asyncio.create_task(write(FIRST))
        for _ in range(5):
            await asyncio.sleep(0)
        assert await write(SECOND) == 50
        assert await first < 50
        await log.append(SECOND, [("completed", b"")], closes=True)

        found = [data for _, data in (await reader)[1:-1]]
        written = found.index(b"2/0")
        assert found[:written] == [b"1/%d" % number for number in range(written)]
        assert found[written:] == [b"2/%d" % number for number in range(50)]

    async def test_an_append_that_is_cancelled_at_any_moment_is_there_whole_or_not_at_all(self, log: RunLog) -> None:
        for moment in range(12):
            key = RunKey(SHARED, RunId(f"cancelled at {moment}"))
            attempt = Attempt(key, 1)
            await log.append(attempt, [("created", b"")])
            await log.append(attempt, [("text.delta", b"before")])
            cancelled = asyncio.create_task(log.append(attempt, [("text.delta", b"1"), ("item", b"2"), ("item", b"3")]))
            for _ in range(moment):
                await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait({cancelled})
            await log.append(attempt, [("text.delta", b"after")])
            await log.append(attempt, [("completed", b"")], closes=True)

            found = [data for _, data in await read(log, key)]
            taken = [b"1", b"2", b"3"] if len(found) == 7 else []
            assert found == [b"", b"before", *taken, b"after", b""], moment
            # Before its first line an append has not begun, from then on it is taken.
            assert moment == 0 or taken, moment

    async def test_closing_that_is_cancelled_closes(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "created")])
        reader = asyncio.create_task(read(log))
        closing = asyncio.create_task(log.append(FIRST, [entry(1, "completed")], closes=True))
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})

        assert await reader == [entry(0, "created"), entry(1, "completed")]


class DroppedLogsSuite:
    """What becomes of a log that is dropped."""

    async def test_a_dropped_log_ends_its_readers_and_is_gone(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "created")])
        readers = [Reader(log), Reader(log), Reader(log, after=5)]
        for reader in readers[:2]:
            await reader.has(1)

        assert await log.exists(KEY)
        await log.drop(KEY)

        assert [await reader.end() for reader in readers] == [[entry(0, "created")], [entry(0, "created")], []]
        assert not await log.exists(KEY)
        assert await read(log) == []

    async def test_a_closed_log_can_be_dropped_and_a_dropped_one_again(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "completed")], closes=True)
        await log.drop(KEY)
        await log.drop(KEY)

        assert not await log.exists(KEY)
        assert await read(log) == []

    async def test_what_was_appended_just_before_is_dropped_too(self, log: RunLog) -> None:
        await log.append(FIRST, [entry(0, "created")])
        await log.append(FIRST, [entry(1)])
        last = asyncio.create_task(is_refused(log.append(FIRST, [entry(2, "item")])))
        await asyncio.sleep(0)
        await log.drop(KEY)
        await last

        assert not await log.exists(KEY)
        assert await read(log) == []


class RunLogSuite(ReadersSuite, WritersSuite, DroppedLogsSuite):
    """Everything."""
