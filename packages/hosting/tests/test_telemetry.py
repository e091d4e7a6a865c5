"""telemetry.py: what a process with the SDK of OpenTelemetry is told of its runs. One provider for each process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import asyncio, json, sys
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import RunId, RunKey
from agent_framework_hosting.state import choose_state
from agent_framework_hosting.runs.memory import MemoryRunEngine

reader = InMemoryMetricReader()

def collected():
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        f"{metric.name} {point.attributes['afhost.engine']} {point.attributes.get('afhost.operation', '-')}": (
            point.value if hasattr(point, "value") else [point.count, point.sum]
        )
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }

async def main(url):
    metrics.set_meter_provider(MeterProvider([reader]))
    state = choose_state(database_url=url, run_concurrency=1) if url else None
    engine = state.engine if state else MemoryRunEngine()
    begun, go_on, told = asyncio.Queue(), asyncio.Event(), []

    async def handler(key):
        begun.put_nowait(key)
        await go_on.wait()

    engine.register("hold", handler)
    if state:
        await state.open()
    await engine.recover()
    for name in ("run_1", "run_2"):
        await engine.start("hold", RunKey(SHARED, RunId(name)))
    async with asyncio.timeout(60):
        await begun.get()
        # In a thread, as every reader that is not of a test.
        told.append(await asyncio.to_thread(collected))
        if state:
            await state.presence.round()
        told.append(await asyncio.to_thread(collected))
        go_on.set()
        await begun.get()
    await engine.drain(60)
    if state:
        await state.presence.round()
    told.append(await asyncio.to_thread(collected))
    if state:
        await state.close()
        told.append(await asyncio.to_thread(collected))
    print(json.dumps(told))

asyncio.run(main(sys.argv[1] if sys.argv[1:] else None))
"""


def collected(*arguments: str) -> list[dict[str, Any]]:
    """Return what was collected while two runs are started, then once more, and after they have ended."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=110, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found: list[dict[str, Any]] = json.loads(ran.stdout)
    return found


def test_runs_that_wait_and_run_are_measured_for_all_processes_on_a_database(postgres_url: str) -> None:
    first, running, ended, closed = collected(postgres_url)

    # Nobody asks the database before somebody collects.
    assert not any(name.startswith("afhost.runs.") for name in first)
    assert running["afhost.runs.queued shared -"] == 1
    assert running["afhost.runs.running shared -"] == 1
    assert 0 < running["afhost.runs.oldest_wait shared -"] < 100
    assert running["afhost.run.wait shared hold"][0] == 1
    assert ended["afhost.runs.queued shared -"] == ended["afhost.runs.oldest_wait shared -"] == 0
    assert ended["afhost.run.wait shared hold"][0] == ended["afhost.run.duration shared hold"][0] == 2
    assert ended["afhost.run.wait shared hold"][1] >= running["afhost.runs.oldest_wait shared -"]
    assert not any(name.startswith("afhost.runs.") for name in closed)


def test_runs_of_one_process_are_measured_by_the_same_names() -> None:
    _, running, ended = collected()

    assert running["afhost.runs.queued process -"] == running["afhost.runs.oldest_wait process -"] == 0
    assert running["afhost.runs.running process -"] == 2
    assert running["afhost.run.wait process hold"][0] == 2
    assert ended["afhost.runs.running process -"] == 0
    assert ended["afhost.run.duration process hold"][0] == 2


@pytest.mark.parametrize("module", ["agent_framework_hosting", "agent_framework_hosting.telemetry"])
def test_the_sdk_is_nobodys_dependency(module: str) -> None:
    program = f"import sys, {module}; print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert ran.stdout.strip() == "[]"
