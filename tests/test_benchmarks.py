"""The benchmark of the host runs, its report is whole, and what it says of bytes holds on any machine."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs CPU affinity and CPU clocks of other processes")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Markdown report of a quick run; its JSON lies beside it."""
    output = tmp_path_factory.mktemp("benchmark") / "host.md"
    command = [sys.executable, str(ROOT / "benchmarks" / "host.py"), "--quick", "--output", str(output)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == output.read_text(encoding="utf-8").strip()
    return output


@pytest.fixture(scope="module")
def tables(report: Path) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    return tables


@pytest.mark.behaviour("B11")
def test_a_text_delta_takes_less_than_300_bytes_however_long_the_answer_is(
    tables: dict[str, list[dict[str, Any]]],
) -> None:
    sizes = {row["deltas"]: row for row in tables["sizes"]}

    assert sizes.keys() == {50, 500, 5_000}
    assert all(row["text_deltas"] == deltas for deltas, row in sizes.items()), "each update is a delta of its own"
    assert sizes[5_000]["largest"] < 300
    more_digits = len("5000") - len("50")
    assert sizes[5_000]["largest"] - sizes[50]["largest"] <= more_digits, "only the sequence number grows"


def test_every_answer_is_measured_for_every_server_and_number_of_callers(
    tables: dict[str, list[dict[str, Any]]],
) -> None:
    answers = {(kind, callers) for kind in ("one-shot", "stream-50", "stream-500") for callers in (1, 16, 64)}
    answers.add(("stream-5000", 1))

    assert {(row["answer"], row["connections"]) for row in tables["ratios"]} == answers
    assert {(row["server"], row["answer"], row["connections"]) for row in tables["absolute"]} == {
        (server, *answer) for server in ("host", "starlette", "agent") for answer in answers
    }


def test_costs_and_ratios_are_numbers_above_zero(tables: dict[str, list[dict[str, Any]]]) -> None:
    measured = [row["measured"] for row in tables["aims"]]
    measured += [row[figure] for row in tables["ratios"] for figure in ("throughput", "cpu", "overhead")]
    measured += [row[figure] for row in tables["absolute"] for figure in ("answers_per_s", "cpu_us_per_answer")]

    assert all(math.isfinite(figure) and figure > 0 for figure in measured), measured


def test_no_delta_shares_its_write_with_many_others(tables: dict[str, list[dict[str, Any]]]) -> None:
    shared = [
        row["events_per_write"] for row in tables["absolute"] if row["server"] == "host" and "stream" in row["answer"]
    ]

    assert len(shared) == 7
    assert all(1 <= events < 2 for events in shared), shared


def test_the_report_shows_every_table_and_how_it_was_made(
    report: Path, tables: dict[str, list[dict[str, Any]]]
) -> None:
    text = report.read_text(encoding="utf-8")

    assert [line for line in text.splitlines() if line.startswith("## ")] == [
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
