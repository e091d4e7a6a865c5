"""The benchmarks run, their reports are whole, and what they say of bytes holds on any machine."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agent_framework_hosting.runs.procrastinate import BEAT, STALLED_AFTER

ROOT = Path(__file__).parent.parent

# Of which most goes to starting processes, and ten to waiting until one that was killed counts as dead.
SECONDS = 300.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs CPU affinity and CPU clocks of other processes")


Tables: TypeAlias = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Markdown report of a quick run of the benchmark of the host; its JSON lies beside it."""
    return run_quickly("host.py", tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def tables(report: Path) -> Tables:
    return read_tables(report)


@pytest.fixture(scope="module")
def state_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Markdown report of a quick run of the benchmark of stored turns; its JSON lies beside it."""
    return run_quickly("state.py", tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def state_tables(state_report: Path) -> Tables:
    return read_tables(state_report)


@pytest.fixture(scope="module")
def run_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Markdown report of a quick run of the benchmark of background runs; its JSON lies beside it."""
    return run_quickly("runs.py", tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def run_tables(run_report: Path) -> Tables:
    return read_tables(run_report)


@pytest.fixture(scope="module")
def workflow_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Markdown report of a quick run of the benchmark of workflows; its JSON lies beside it."""
    return run_quickly("workflows.py", tmp_path_factory.mktemp("benchmark"))


def run_quickly(script: str, directory: Path) -> Path:
    output = (directory / script).with_suffix(".md")
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--quick", "--output", str(output)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == output.read_text(encoding="utf-8").strip()
    return output


def read_tables(report: Path) -> Tables:
    tables: Tables = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    return tables


def require_numbers(rows: list[dict[str, Any]], *figures: str) -> None:
    """All of them are numbers above zero."""
    measured = [row[figure] for row in rows for figure in figures]
    assert all(math.isfinite(figure) and figure > 0 for figure in measured), measured


def is_held(aim: str, measured: float) -> bool:
    sign, bound = aim.split()
    return measured >= float(bound) if sign == "≥" else measured <= float(bound)


def titles(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("## ")]


@pytest.mark.behaviour("B11")
def test_a_text_delta_takes_less_than_300_bytes_however_long_the_answer_is(
    tables: Tables,
) -> None:
    sizes = {row["deltas"]: row for row in tables["sizes"]}

    assert sizes.keys() == {50, 500, 5_000}
    assert all(row["text_deltas"] == deltas for deltas, row in sizes.items()), "each update is a delta of its own"
    assert sizes[5_000]["largest"] < 300
    more_digits = len("5000") - len("50")
    assert sizes[5_000]["largest"] - sizes[50]["largest"] <= more_digits, "only the sequence number grows"


def test_every_answer_is_measured_for_every_server_and_number_of_callers(
    tables: Tables,
) -> None:
    answers = {(kind, callers) for kind in ("one-shot", "stream-50", "stream-500") for callers in (1, 16, 64)}
    answers.add(("stream-5000", 1))

    assert {(row["answer"], row["connections"]) for row in tables["ratios"]} == answers
    assert {(row["server"], row["answer"], row["connections"]) for row in tables["absolute"]} == {
        (server, *answer) for server in ("host", "starlette", "agent") for answer in answers
    }


def test_costs_and_ratios_are_numbers_above_zero(tables: Tables) -> None:
    measured = [row["measured"] for row in tables["aims"]]
    measured += [row[figure] for row in tables["ratios"] for figure in ("throughput", "cpu", "overhead")]
    measured += [row[figure] for row in tables["absolute"] for figure in ("answers_per_s", "cpu_us_per_answer")]

    assert all(math.isfinite(figure) and figure > 0 for figure in measured), measured


def test_no_delta_shares_its_write_with_many_others(tables: Tables) -> None:
    shared = [
        row["events_per_write"] for row in tables["absolute"] if row["server"] == "host" and "stream" in row["answer"]
    ]

    assert len(shared) == 7
    assert all(1 <= events < 2 for events in shared), shared


def test_the_report_shows_every_table_and_how_it_was_made(
    report: Path, tables: dict[str, list[dict[str, Any]]]
) -> None:
    text = report.read_text(encoding="utf-8")

    assert titles(text) == [
        "## Aims",
        "## Ratios, host to bare Starlette",
        "## One delta more",
        "## Bytes of a text delta, on the stream",
        "## Absolute numbers of this machine",
        "## How it was measured",
    ]
    assert text.count("\n| ") >= sum(len(tables[name]) for name in ("aims", "ratios", "further_deltas", "absolute"))
    assert "uv run benchmarks/host.py --quick" in text
    assert str(ROOT) not in text


@pytest.mark.behaviour("A11")
def test_what_a_turn_stores_does_not_grow_with_the_turns_before_it(state_tables: Tables) -> None:
    sizes = state_tables["bytes"]

    assert {(row["agent"], row["kind"], row["store"]) for row in sizes} == {
        (agent, kind, store)
        for agent in ("constant", "remembering")
        for kind in ("chain", "conversation")
        for store in ("sqlite", "postgresql")
    }
    assert all(0.9 < row["ratio"] < 1.1 for row in sizes), sizes


def test_stored_turns_of_every_kind_are_measured_in_every_store(state_tables: Tables) -> None:
    stores = ("memory", "sqlite", "postgresql")

    assert {(row["turn"], row["callers"], row["store"]) for row in state_tables["throughput"]} == {
        (kind, callers, store)
        for kind in ("one-shot", "stream", "conversation")
        for callers in (1, 16)
        for store in stores
    }
    assert [row["store"] for row in state_tables["many"]] == [*stores, "unstored"]
    measured = [row[figure] for row in state_tables["throughput"] for figure in ("turns_per_s", "ratio", "cpu_us")]
    measured += [row[figure] for row in state_tables["latency"] for figure in ("first_ms", "last_ms", "ratio")]
    assert all(math.isfinite(figure) and figure > 0 for figure in measured), measured


def test_retention_leaves_less_than_there_was(state_tables: Tables) -> None:
    for row in state_tables["retention"]:
        stored_in_all = row["responses_before"] + row["turns_meanwhile"]
        assert row["responses_after"] < stored_in_all - row["responses_before"] // 2, row


def test_whether_aims_are_held_is_computed_from_the_figures(state_report: Path, state_tables: Tables) -> None:
    results = read_tables(ROOT / "benchmarks" / "results" / "state.md")

    # Their wording names the number of turns.
    assert [row["aim"] for row in results["aims"]] == [row["aim"] for row in state_tables["aims"]]
    for row in (*state_tables["aims"], *results["aims"]):
        assert row["verdict"] == ("held" if is_held(row["aim"], row["measured"]) else "missed"), row
    assert state_report.read_text(encoding="utf-8").count("| held") == sum(
        row["verdict"] == "held" for row in state_tables["aims"]
    )


def test_the_report_of_stored_turns_shows_every_table_and_how_it_was_made(state_report: Path) -> None:
    text = state_report.read_text(encoding="utf-8")
    committed = (ROOT / "benchmarks" / "results" / "state.md").read_text(encoding="utf-8")

    assert titles(text) == titles(committed)
    assert "`uv run benchmarks/state.py --quick`" in text
    assert "`uv run benchmarks/state.py`" in committed, "the committed figures are those of a full run"
    assert "fsync on" in committed
    assert str(ROOT) not in text


def test_background_runs_are_measured_wherever_they_are_executed(run_tables: Tables) -> None:
    stores = ["memory", "sqlite", "postgresql"]

    assert [row["executed_by"] for row in run_tables["throughput"]] == [
        *stores,
        "postgresql, 1 worker",
        "postgresql, 2 workers",
    ]
    require_numbers(run_tables["throughput"], "runs_per_s", "ratio")
    assert [row["store"] for row in run_tables["accept"]] == stores
    require_numbers(run_tables["accept"], "p50_ms", "p95_ms", "ratio")
    assert {(row["pace_ms"], row["read_by"]) for row in run_tables["tail"]} == {
        (pace, reader) for pace in (10, 50) for reader in (*stores, "postgresql, another process")
    }
    require_numbers(run_tables["tail"], "p50_ms", "p95_ms")
    require_numbers(run_tables["faults"], "times", "p50_s", "p95_s", "longest_s")


def test_what_is_compared_to_memory_is_one_for_memory(run_tables: Tables) -> None:
    memory = [row["ratio"] for row in (run_tables["throughput"][0], run_tables["accept"][0])]
    memory.append(run_tables["cost"][0]["cpu_ratio"])

    assert memory == [1, 1, 1]


def test_statements_are_counted_where_there_is_a_database(run_tables: Tables) -> None:
    costs = {row["store"]: row for row in run_tables["cost"]}

    assert costs.keys() == {"memory", "sqlite", "postgresql"}
    assert costs["memory"]["statements"] == 0
    assert all(costs[store]["statements"] > 0 for store in ("sqlite", "postgresql"))
    require_numbers(run_tables["cost"], "deltas", "cpu_ms", "cpu_ratio")


def test_a_killed_process_is_not_taken_for_dead_before_its_time(run_tables: Tables) -> None:
    (taken_over,) = (row for row in run_tables["faults"] if row["what"] == "takeover after SIGKILL")

    # Its last sign of life was up to a beat before it was killed.
    assert taken_over["p50_s"] > STALLED_AFTER - 2 * BEAT


def test_whether_aims_of_background_runs_are_held_is_computed_from_the_figures(run_tables: Tables) -> None:
    tail, taken_over, cancelled = run_tables["aims"]
    results = read_tables(ROOT / "benchmarks" / "results" / "runs.md")

    assert tail["measured"] == max(
        row["p50_ms"] for row in run_tables["tail"] if row["read_by"] == "postgresql, another process"
    )
    faults = {row["what"]: row for row in run_tables["faults"]}
    assert taken_over["measured"] == faults["takeover after SIGKILL"]["longest_s"]
    assert cancelled["measured"] == faults["cancel elsewhere"]["p95_s"]
    assert [row["aim"] for row in results["aims"]] == [row["aim"] for row in run_tables["aims"]]
    for row in (*run_tables["aims"], *results["aims"]):
        assert row["verdict"] == ("held" if is_held(row["aim"], row["measured"]) else "missed"), row


def test_the_report_of_background_runs_shows_every_table_and_how_it_was_made(run_report: Path) -> None:
    text = run_report.read_text(encoding="utf-8")
    committed = (ROOT / "benchmarks" / "results" / "runs.md").read_text(encoding="utf-8")

    assert titles(text) == titles(committed)
    assert "`uv run benchmarks/runs.py --quick`" in text
    assert "`uv run benchmarks/runs.py`" in committed, "the committed figures are those of a full run"
    assert "fsync on" in committed
    assert str(ROOT) not in text


def test_runs_of_a_workflow_are_measured_on_every_store_and_in_every_way(workflow_report: Path) -> None:
    rows = read_tables(workflow_report)["ratios"]

    assert {(row["store"], row["workflow"]) for row in rows} == {
        (store, way)
        for store in ("memory", "sqlite", "postgresql")
        for way in ("instance", "function", "functional", "function, background")
    }
    require_numbers(rows, "one_s", "three_s", "ratio", "worst")
    assert all(row["one_s"] >= 0.5 for row in rows), "each run has slept"


@pytest.mark.behaviour("F2")
def test_three_runs_of_a_workflow_were_measured_to_take_as_long_as_one(workflow_report: Path) -> None:
    text = workflow_report.read_text(encoding="utf-8")
    committed = ROOT / "benchmarks" / "results" / "workflows.md"
    (aim,) = read_tables(committed)["aims"]

    assert aim["measured"] == max(row["worst"] for row in read_tables(committed)["ratios"])
    assert (aim["aim"], aim["verdict"]) == ("≤ 1.3", "held")
    assert is_held(aim["aim"], aim["measured"])
    assert titles(text) == titles(committed.read_text(encoding="utf-8"))
    assert str(ROOT) not in text
