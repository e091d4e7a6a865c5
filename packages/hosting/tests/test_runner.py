"""The end of an event loop, with tasks that end and one that does not."""

import asyncio
import subprocess
import sys
import textwrap

import pytest

from agent_framework_hosting.runner import ending_runner


def test_what_still_runs_at_the_end_is_cancelled_and_the_loop_is_closed() -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("task")

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(endless())
        await asyncio.sleep(0)
        return task

    with ending_runner() as runner:
        loop = runner.get_loop()
        task = runner.run(main())

    assert ended == ["task"]
    assert task.cancelled()
    assert loop.is_closed()


def test_an_error_in_the_block_is_raised_and_the_loop_is_closed() -> None:
    async def fail() -> None:
        raise ValueError("no")

    loops: list[asyncio.AbstractEventLoop] = []

    def run() -> None:
        with ending_runner() as runner:
            loops.append(runner.get_loop())
            runner.run(fail())

    with pytest.raises(ValueError, match="no"):
        run()

    assert loops[0].is_closed()


def test_a_task_that_ignores_its_cancellation_does_not_keep_the_process() -> None:
    program = textwrap.dedent(
        """
        import asyncio
        from agent_framework_hosting import runner

        async def stubborn():
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    print("cancelled", flush=True)

        async def main():
            asyncio.get_running_loop().stubborn = asyncio.ensure_future(stubborn())
            await asyncio.sleep(0)

        runner.PATIENCE = 0.1
        with runner.ending_runner() as started:
            started.run(main())
        print("over", flush=True)
        """
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert ended.stdout.split() == ["cancelled", "over"]
    assert "Tasks that ignore their cancellation are left behind" in ended.stderr
    assert ended.returncode == 0
