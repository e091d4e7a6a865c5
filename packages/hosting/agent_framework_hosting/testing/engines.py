"""What every engine of runs must do, as tests to inherit.

```python
class TestMyEngine(RunEngineSuite):
    @pytest.fixture
    async def engine(self) -> AsyncIterator[MyEngine]: ...
```

The fixture gives an engine that has not recovered yet, and closes it afterwards. The tests need pytest-asyncio in its mode
`auto`.

An engine that several processes share inherits `SharedRunEngineSuite`, whose fixture `new_engine` makes any number of
engines over the same runs, and closes them, and whose fixture `program` is the command of a process that makes one and
calls `serve_engine`. Its engines should take a silent process for dead after a second or so.
"""
# ruff: noqa: D102  the tests are named as sentences
# ruff: noqa: S101  they are tests

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import pytest

from ..errors import ConfigurationError, RunError
from ..isolation import SHARED, IsolationKeys
from ..runs.base import RunEngine, RunId, RunKey

ResultT = TypeVar("ResultT")

KEY: Final = RunKey(SHARED, RunId("run_1"))
OTHER: Final = RunKey(SHARED, RunId("run_2"))
ADAS: Final = RunKey(IsolationKeys("ada").partition, RunId("run_1"))

PATIENCE: Final = 60.0
"""Seconds in which whatever is to happen has happened."""

_current: contextvars.ContextVar[str] = contextvars.ContextVar("agent_framework_hosting_engine_suite", default="")


class Workshop:
    """Handlers that say what happens to them, in `begun` and `ended`.

    Runs of `hold` last until `finish` is set, those of `stubborn`, too, whatever is done to them. Runs of `fail` raise.
    """

    def __init__(self) -> None:
        self.begun: asyncio.Queue[RunKey] = asyncio.Queue()
        self.ended: asyncio.Queue[tuple[RunKey, str]] = asyncio.Queue()
        self.contexts: list[str] = []
        self.finish = asyncio.Event()

    def register(self, engine: RunEngine) -> RunEngine:
        """Have the engine call these handlers."""
        engine.register("hold", self.hold)
        engine.register("stubborn", self.stubborn)
        engine.register("fail", self.fail)
        return engine

    async def open(self, engine: RunEngine) -> RunEngine:
        """Have the engine call these handlers from now on."""
        self.register(engine)
        await engine.recover()
        return engine

    async def hold(self, key: RunKey) -> None:
        self.contexts.append(_current.get())
        self.begun.put_nowait(key)
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # as one who writes something down
            self.ended.put_nowait((key, "cancelled"))
            raise
        self.ended.put_nowait((key, "finished"))

    async def stubborn(self, key: RunKey) -> None:
        self.begun.put_nowait(key)
        while not self.finish.is_set():
            try:
                await self.finish.wait()
            except asyncio.CancelledError:
                self.ended.put_nowait((key, "ignored"))
        self.ended.put_nowait((key, "finished"))

    async def fail(self, key: RunKey) -> None:
        self.begun.put_nowait(key)
        raise ValueError("a bug")


async def soon(queue: asyncio.Queue[ResultT]) -> ResultT:
    """Return what comes next, within reason."""
    async with asyncio.timeout(PATIENCE):
        return await queue.get()


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(PATIENCE):
        while not is_so():  # noqa: ASYNC110  no event is set
            await asyncio.sleep(0.01)


class RunEngineSuite:
    """What one engine does."""

    @pytest.fixture
    def shop(self) -> Workshop:
        return Workshop()

    async def test_a_started_run_calls_the_handler_of_its_operation_once(
        self, engine: RunEngine, shop: Workshop
    ) -> None:
        shop.finish.set()
        await shop.open(engine)

        await engine.start("hold", KEY)

        assert await soon(shop.ended) == (KEY, "finished")
        await engine.drain(PATIENCE)
        assert shop.begun.qsize() == 1
        assert shop.ended.empty()

    async def test_two_channels_cannot_have_the_same_operation(self, engine: RunEngine, shop: Workshop) -> None:
        engine.register("hold", shop.hold)

        with pytest.raises(ConfigurationError, match="'hold'"):
            engine.register("hold", shop.hold)

    async def test_runs_go_on_at_the_same_time(self, engine: RunEngine, shop: Workshop) -> None:
        await shop.open(engine)

        await engine.start("hold", KEY)
        await engine.start("hold", OTHER)

        assert {await soon(shop.begun), await soon(shop.begun)} == {KEY, OTHER}
        shop.finish.set()

    async def test_runs_of_two_partitions_with_the_same_id_are_two(self, engine: RunEngine, shop: Workshop) -> None:
        await shop.open(engine)

        await engine.start("hold", KEY)
        await engine.start("hold", ADAS)
        assert {await soon(shop.begun), await soon(shop.begun)} == {KEY, ADAS}
        assert await engine.cancel(ADAS, grace=PATIENCE)

        assert await soon(shop.ended) == (ADAS, "cancelled")
        shop.finish.set()
        assert await soon(shop.ended) == (KEY, "finished")

    async def test_a_run_that_is_going_on_is_not_started_twice(self, engine: RunEngine, shop: Workshop) -> None:
        await shop.open(engine)
        await engine.start("hold", KEY)
        await soon(shop.begun)

        await engine.start("hold", KEY)
        shop.finish.set()
        await engine.drain(PATIENCE)

        assert shop.begun.empty()
        assert shop.ended.qsize() == 1

    async def test_cancel_waits_until_the_handler_has_ended(self, engine: RunEngine, shop: Workshop) -> None:
        await shop.open(engine)
        await engine.start("hold", KEY)
        await soon(shop.begun)

        assert await engine.cancel(KEY, grace=PATIENCE)

        assert shop.ended.get_nowait() == (KEY, "cancelled")

    async def test_there_is_nothing_to_cancel_in_a_run_that_nobody_knows(
        self, engine: RunEngine, shop: Workshop
    ) -> None:
        await shop.open(engine)

        assert await engine.cancel(KEY, grace=0)

    async def test_missing_are_the_runs_that_nobody_has(self, engine: RunEngine, shop: Workshop) -> None:
        await shop.open(engine)
        await engine.start("hold", KEY)
        await soon(shop.begun)

        assert await engine.missing([KEY, OTHER, ADAS]) == {OTHER, ADAS}
        assert await engine.missing([]) == set()
        shop.finish.set()

    async def test_cancel_says_when_a_run_does_not_end_in_time(self, engine: RunEngine, shop: Workshop) -> None:
        await shop.open(engine)
        await engine.start("stubborn", KEY)
        await soon(shop.begun)

        assert not await engine.cancel(KEY, grace=0.05)

        shop.finish.set()
        assert await soon(shop.ended) == (KEY, "ignored")

    async def test_a_handler_that_raises_hurts_nobody_else(self, engine: RunEngine, shop: Workshop) -> None:
        await shop.open(engine)
        await engine.start("fail", KEY)
        await soon(shop.begun)

        await engine.start("hold", OTHER)

        async with asyncio.timeout(PATIENCE):
            while await shop.begun.get() != OTHER:
                pass
        shop.finish.set()

    async def test_a_drain_lets_runs_finish_and_takes_no_new_ones(self, engine: RunEngine, shop: Workshop) -> None:
        await shop.open(engine)
        await engine.start("hold", KEY)
        await soon(shop.begun)

        drain = asyncio.create_task(engine.drain(PATIENCE))
        await until(lambda: engine.is_draining)
        with pytest.raises(RunError):
            await engine.start("hold", OTHER)
        shop.finish.set()
        await drain

        assert shop.ended.get_nowait() == (KEY, "finished")

    async def test_a_drain_cancels_what_the_grace_period_left_over(self, engine: RunEngine, shop: Workshop) -> None:
        await shop.open(engine)
        await engine.start("hold", KEY)
        await soon(shop.begun)

        async with asyncio.timeout(PATIENCE):
            await engine.drain(0.05)

        assert shop.ended.get_nowait() == (KEY, "cancelled")

    async def test_a_drain_can_be_given_less_grace(self, engine: RunEngine, shop: Workshop) -> None:
        await shop.open(engine)
        await engine.start("hold", KEY)
        await soon(shop.begun)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await engine.drain(1_000)
        assert shop.ended.empty()
        async with asyncio.timeout(PATIENCE):
            await engine.drain(0)

        assert shop.ended.get_nowait() == (KEY, "cancelled")

    async def test_a_drained_and_closed_engine_can_recover(self, engine: RunEngine, shop: Workshop) -> None:
        shop.finish.set()
        await shop.open(engine)
        await engine.drain(0)
        await engine.close()

        await engine.recover()
        await engine.start("hold", KEY)

        assert await soon(shop.ended) == (KEY, "finished")


class SharedRunEngineSuite(RunEngineSuite):
    """What engines of several processes do together."""

    @pytest.fixture
    def engine(self, new_engine: Callable[[], RunEngine]) -> RunEngine:
        return new_engine()

    async def test_a_run_waits_until_somebody_works(self, new_engine: Callable[[], RunEngine], shop: Workshop) -> None:
        shop.finish.set()
        await new_engine().start("hold", KEY)

        await shop.open(new_engine())

        assert await soon(shop.ended) == (KEY, "finished")

    async def test_a_run_that_waits_is_cancelled_without_being_called(
        self, new_engine: Callable[[], RunEngine], shop: Workshop
    ) -> None:
        shop.finish.set()
        starter = new_engine()
        await starter.start("hold", KEY)

        assert await starter.cancel(KEY, grace=0)

        await shop.open(starter)
        await starter.start("hold", OTHER)
        assert await soon(shop.ended) == (OTHER, "finished")
        assert shop.ended.empty()

    async def test_every_run_is_executed_once_by_any_of_the_workers(
        self, new_engine: Callable[[], RunEngine], shop: Workshop
    ) -> None:
        shop.finish.set()
        engines = [await shop.open(new_engine()) for _ in range(3)]
        keys = [RunKey(SHARED, RunId(f"run_{number}")) for number in range(30)]

        for number, key in enumerate(keys):
            await engines[number % 3].start("hold", key)

        ended = [(await soon(shop.ended))[0] for _ in keys]
        for engine in engines:
            await engine.drain(PATIENCE)
        assert sorted(ended) == sorted(keys)
        assert shop.ended.empty()

    async def test_nothing_of_where_a_run_was_started_travels_with_it(
        self, new_engine: Callable[[], RunEngine], shop: Workshop
    ) -> None:
        shop.finish.set()
        token = _current.set("whoever starts it")
        engine = await shop.open(new_engine())

        await engine.start("hold", KEY)
        await soon(shop.ended)
        _current.reset(token)

        assert shop.contexts == [""]

    async def test_a_run_is_cancelled_from_another_process(
        self, new_engine: Callable[[], RunEngine], shop: Workshop
    ) -> None:
        await shop.open(new_engine())
        other = new_engine()
        await other.start("hold", KEY)
        await soon(shop.begun)

        assert await other.cancel(KEY, grace=PATIENCE)

        assert shop.ended.get_nowait() == (KEY, "cancelled")

    async def test_cancel_from_another_process_says_when_a_run_does_not_end(
        self, new_engine: Callable[[], RunEngine], shop: Workshop
    ) -> None:
        await shop.open(new_engine())
        other = new_engine()
        await other.start("stubborn", KEY)
        await soon(shop.begun)

        assert not await other.cancel(KEY, grace=0.3)

        # It may hear of it later than that.
        assert await soon(shop.ended) == (KEY, "ignored")
        shop.finish.set()
        assert await soon(shop.ended) == (KEY, "finished")

    async def test_what_a_drain_cancels_is_executed_by_another_process(
        self, new_engine: Callable[[], RunEngine], shop: Workshop
    ) -> None:
        first = await shop.open(new_engine())
        await first.start("hold", KEY)
        await soon(shop.begun)
        second = new_engine()

        await first.drain(0)
        assert shop.ended.get_nowait() == (KEY, "cancelled")
        await shop.open(second)

        assert await soon(shop.begun) == KEY
        shop.finish.set()
        assert await soon(shop.ended) == (KEY, "finished")

    async def test_a_handler_that_returns_when_it_is_cancelled_has_ended(
        self, new_engine: Callable[[], RunEngine], shop: Workshop
    ) -> None:
        async def settle(key: RunKey) -> None:
            try:
                await shop.hold(key)
            except asyncio.CancelledError:
                return

        first, second = new_engine(), new_engine()
        first.register("settle", settle)
        second.register("settle", settle)
        await first.recover()
        await first.start("settle", KEY)
        await soon(shop.begun)

        await first.drain(0)
        await second.recover()
        await second.start("settle", OTHER)

        assert await soon(shop.begun) == OTHER
        shop.finish.set()

    async def test_a_run_that_was_given_up_is_not_handed_back(
        self, new_engine: Callable[[], RunEngine], shop: Workshop
    ) -> None:
        first = await shop.open(new_engine())
        await first.start("hold", KEY)
        await soon(shop.begun)

        assert await first.cancel(KEY, grace=PATIENCE)
        await first.drain(0)
        second = await shop.open(new_engine())
        await second.start("hold", OTHER)

        assert await soon(shop.begun) == OTHER
        shop.finish.set()

    async def test_a_run_goes_to_a_process_that_has_its_channel(
        self, new_engine: Callable[[], RunEngine], shop: Workshop
    ) -> None:
        shop.finish.set()
        without = new_engine()
        await without.recover()
        await without.start("hold", KEY)

        await shop.open(new_engine())

        assert await soon(shop.ended) == (KEY, "finished")

    async def test_a_run_whose_handler_raised_is_called_again(
        self, new_engine: Callable[[], RunEngine], shop: Workshop
    ) -> None:
        engine = await shop.open(new_engine())

        await engine.start("fail", KEY)

        assert await soon(shop.begun) == KEY
        assert await soon(shop.begun) == KEY

    async def test_a_run_of_a_killed_process_is_called_by_another(
        self, new_engine: Callable[[], RunEngine], program: Sequence[str], shop: Workshop
    ) -> None:
        starter = new_engine()
        async with _running(program) as process:
            await starter.start("hold", KEY)
            await process.hears("begun run_1")

            process.signal(signal.SIGKILL)
            await shop.open(starter)

            assert await soon(shop.begun) == KEY
        shop.finish.set()
        assert await soon(shop.ended) == (KEY, "finished")

    async def test_a_process_that_stood_still_does_not_end_a_run_that_is_anothers_now(
        self, new_engine: Callable[[], RunEngine], program: Sequence[str], shop: Workshop
    ) -> None:
        second = new_engine()
        async with _running(program) as process:
            await second.start("hold", KEY)
            await process.hears("begun run_1")
            process.signal(signal.SIGSTOP)
            await shop.open(second)
            assert await soon(shop.begun) == KEY

            process.signal(signal.SIGCONT)
            await process.tells("finish")
            await process.hears("finished run_1")
            await process.tells("leave")
            await process.hears("left")

        # The run is still the second's: it can hand it on.
        await second.drain(0)
        assert await soon(shop.ended) == (KEY, "cancelled")
        await shop.open(new_engine())
        assert await soon(shop.begun) == KEY
        shop.finish.set()


# --- Another process


async def serve_engine(engine: RunEngine) -> None:
    """Be the process of `program`: execute runs, say what happens to them, do as one is told on the standard input."""
    shop = Workshop()
    loop = asyncio.get_running_loop()
    heard = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(heard), sys.stdin)

    async def hold(key: RunKey) -> None:
        _say(f"begun {key.run_id}")
        try:
            await shop.hold(key)
        finally:
            _say(f"{shop.ended.get_nowait()[1]} {key.run_id}")

    engine.register("hold", hold)
    await engine.recover()
    _say("ready")
    while (line := (await heard.readline()).decode().strip()) != "leave":
        if not line:
            os._exit(1)  # the tests are gone
        shop.finish.set()
    await engine.drain(PATIENCE)
    await engine.close()
    _say("left")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class _Process:
    """A process that calls `serve_engine`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hears(self, line: str) -> None:
        """Wait until the process says this."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while said := await self._process.stdout.readline():
                if said.decode().strip() == line:
                    return
        raise AssertionError(f"The process ended before it said {line!r}.")

    async def tells(self, line: str) -> None:
        """Say something to the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)


@asynccontextmanager
async def _running(program: Sequence[str]) -> AsyncGenerator[_Process, None]:
    process = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        talk = _Process(process)
        await talk.hears("ready")
        yield talk
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
