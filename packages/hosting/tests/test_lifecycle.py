import asyncio
import logging

import pytest

from agent_framework_hosting import ConfigurationError, RunError
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.lifecycle import Callback, Lifecycle, Phase
from agent_framework_hosting.runs.base import RunId, RunKey
from agent_framework_hosting.runs.memory import MemoryRunEngine

KEY = RunKey(SHARED, RunId("run"))


class Diary:
    """Callbacks that write down that they were called."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> Callback:
        return lambda: self.lines.append(line)

    def note_later(self, line: str) -> Callback:
        async def callback() -> None:
            await asyncio.sleep(0)
            self.lines.append(line)

        return callback

    def fail(self, line: str) -> Callback:
        async def callback() -> None:
            self.lines.append(line)
            raise ValueError(line)

        return callback


class NotingEngine(MemoryRunEngine):
    """A memory engine that keeps a diary, and fails on request."""

    def __init__(self, diary: Diary, *, recovery_error: Exception | None = None) -> None:
        super().__init__()
        self._diary = diary
        self._recovery_error = recovery_error

    async def recover(self) -> None:
        self._diary.lines.append("recover")
        if self._recovery_error is not None:
            raise self._recovery_error
        await super().recover()

    async def drain(self, grace: float) -> None:
        self._diary.lines.append(f"drain {grace}")
        await super().drain(grace)


async def test_start_and_stop_are_ordered() -> None:
    diary = Diary()
    lifecycle = Lifecycle(
        NotingEngine(diary),
        on_startup=[diary.note("start a"), diary.note_later("start b")],
        on_shutdown=[diary.note("stop a"), diary.note_later("stop b")],
        grace=3,
    )

    phases = [lifecycle.phase]
    await lifecycle.start()
    phases.append(lifecycle.phase)
    await lifecycle.stop()
    phases.append(lifecycle.phase)

    assert diary.lines == ["start a", "start b", "recover", "drain 3", "stop b", "stop a"]
    assert phases == [Phase.NEW, Phase.READY, Phase.STOPPED]


@pytest.mark.behaviour("G8")
async def test_every_start_up_callback_runs_and_the_first_error_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    diary = Diary()
    lifecycle = Lifecycle(
        NotingEngine(diary),
        on_startup=[diary.note("a"), diary.fail("b"), diary.note("c"), diary.fail("d")],
        on_shutdown=[diary.note("stop")],
        grace=3,
    )

    with pytest.raises(ValueError, match="b"):
        await lifecycle.start()

    assert diary.lines == ["a", "b", "c", "d", "drain 3", "stop"]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["d"]
    assert lifecycle.phase is Phase.STOPPED


@pytest.mark.behaviour("G8")
async def test_every_shutdown_callback_runs_and_the_first_error_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    diary = Diary()
    lifecycle = Lifecycle(
        NotingEngine(diary), on_shutdown=[diary.note("a"), diary.fail("b"), diary.fail("c"), diary.note("d")], grace=3
    )
    await lifecycle.start()
    diary.lines.clear()

    with pytest.raises(ValueError, match="c"):
        await lifecycle.stop()

    assert diary.lines == ["drain 3", "d", "c", "b", "a"]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["b"]


@pytest.mark.behaviour("G8")
async def test_errors_while_a_failed_start_is_undone_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    diary = Diary()
    lifecycle = Lifecycle(
        NotingEngine(diary), on_startup=[diary.fail("start")], on_shutdown=[diary.fail("stop a"), diary.note("stop b")]
    )

    with pytest.raises(ValueError, match="start"):
        await lifecycle.start()

    assert diary.lines[-2:] == ["stop b", "stop a"]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["stop a"]


async def test_a_recovery_that_fails_is_a_failed_start() -> None:
    diary = Diary()
    engine = NotingEngine(diary, recovery_error=RunError("no database"))

    with pytest.raises(RunError, match="no database"):
        await Lifecycle(engine, on_shutdown=[diary.note("stop")], grace=3).start()

    assert diary.lines == ["recover", "drain 3", "stop"]


@pytest.mark.behaviour("G2")
async def test_readiness_is_red_before_anything_else_stops() -> None:
    phases: list[Phase] = []
    engine = MemoryRunEngine()
    started, gate = asyncio.Event(), asyncio.Event()
    lifecycle = Lifecycle(engine, on_startup=[lambda: phases.append(lifecycle.phase)])

    async def handler(key: RunKey) -> None:
        started.set()
        await gate.wait()
        phases.append(lifecycle.phase)

    engine.register("create", handler)
    await lifecycle.start()
    await engine.start("create", KEY)
    await started.wait()
    stopping = asyncio.create_task(lifecycle.stop())
    await asyncio.sleep(0)
    assert lifecycle.phase is Phase.STOPPING
    gate.set()
    await stopping

    assert phases == [Phase.STARTING, Phase.STOPPING]


async def test_a_stop_after_a_drain_does_not_drain_again() -> None:
    diary = Diary()
    lifecycle = Lifecycle(NotingEngine(diary), on_shutdown=[diary.note("stop")], grace=3)
    await lifecycle.start()

    await lifecycle.drain()
    await lifecycle.stop()

    assert diary.lines == ["recover", "drain 3", "stop"]


async def test_a_drain_can_be_cut_short() -> None:
    engine = MemoryRunEngine()
    started = asyncio.Event()
    ends: list[str] = []
    lifecycle = Lifecycle(engine, on_shutdown=[lambda: ends.append("stop")], grace=600)

    async def endless(key: RunKey) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("run")

    engine.register("create", endless)
    await lifecycle.start()
    await engine.start("create", KEY)
    await started.wait()
    hurried = asyncio.Event()
    drain = asyncio.create_task(lifecycle.drain(hurried=hurried))
    await asyncio.sleep(0)
    hurried.set()
    await asyncio.wait_for(drain, 60)
    await lifecycle.stop()

    assert ends == ["run", "stop"]


async def test_a_run_that_ignores_its_cancellation_does_not_hold_up_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    engine = MemoryRunEngine()
    started, gate = asyncio.Event(), asyncio.Event()
    stopped: list[str] = []
    lifecycle = Lifecycle(
        engine,
        on_drained=[lambda: stopped.append("left over")],
        on_shutdown=[lambda: stopped.append("callback")],
        grace=0.01,
        drain_overrun=0.01,
    )

    async def stubborn(key: RunKey) -> None:
        started.set()
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    engine.register("create", stubborn)
    await lifecycle.start()
    await engine.start("create", KEY)
    await started.wait()
    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(lifecycle.stop(), 60)

    assert stopped == ["left over", "callback"]
    assert [record.message for record in caplog.records] == ["Runs did not end after their cancellation"]
    gate.set()


async def test_a_host_that_was_stopped_can_start_again() -> None:
    diary = Diary()
    lifecycle = Lifecycle(NotingEngine(diary), on_startup=[diary.note("start")], grace=3)

    for _ in range(2):
        await lifecycle.start()
        await lifecycle.stop()

    assert diary.lines == ["start", "recover", "drain 3"] * 2


@pytest.mark.behaviour("G8")
@pytest.mark.parametrize("error", [SystemExit("no key"), asyncio.CancelledError()], ids=["exit", "cancelled"])
async def test_a_start_that_is_broken_off_is_undone(error: BaseException) -> None:
    def break_off() -> None:
        raise error

    diary = Diary()
    lifecycle = Lifecycle(
        MemoryRunEngine(),
        on_startup=[diary.note("first"), break_off],
        on_shutdown=[diary.note("undo first"), diary.note("undo second")],
    )

    with pytest.raises(type(error)):
        await lifecycle.start()

    assert diary.lines == ["first", "undo second", "undo first"]
    assert lifecycle.phase is Phase.STOPPED


async def test_a_host_that_runs_cannot_be_started_again() -> None:
    lifecycle = Lifecycle(MemoryRunEngine())
    await lifecycle.start()

    with pytest.raises(ConfigurationError, match="run its lifespan once"):
        await lifecycle.start()

    assert lifecycle.phase is Phase.READY


def test_only_a_ready_host_can_begin_to_stop() -> None:
    lifecycle = Lifecycle(MemoryRunEngine())

    lifecycle.begin_stop()

    assert lifecycle.phase is Phase.NEW


async def test_a_preparation_that_fails_keeps_every_callback_from_being_called() -> None:
    called: list[str] = []

    def fail() -> None:
        raise ConfigurationError("no disk")

    lifecycle = Lifecycle(MemoryRunEngine(), preparation=fail, on_startup=[lambda: called.append("start")])

    with pytest.raises(ConfigurationError, match="no disk"):
        await lifecycle.start()

    assert called == []
    assert lifecycle.phase is Phase.STOPPED


async def test_a_preparation_is_made_once_for_each_start_and_ready_callbacks_come_last() -> None:
    called: list[str] = []
    lifecycle = Lifecycle(
        MemoryRunEngine(),
        preparation=lambda: called.append("prepare"),
        on_startup=[lambda: called.append("start")],
        on_ready=[lambda: called.append("ready")],
    )

    await lifecycle.prepare()
    await lifecycle.start()
    await lifecycle.stop()
    await lifecycle.start()
    await lifecycle.stop()

    assert called == ["prepare", "start", "ready"] * 2
