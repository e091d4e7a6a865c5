"""The report: Markdown for people, JSON for programs, the ratios that hold on any machine first."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.figures import Figure, Row

Facts: TypeAlias = dict[str, str]

_PACKAGES: Final = ("agent-framework-core", "starlette", "msgspec", "uvicorn", "uvloop", "httptools")


@dataclass(frozen=True, slots=True)
class Layout:
    """What a report says besides its figures: a title and a note for each table, in their order, and the method."""

    title: str
    sections: Mapping[str, tuple[str, str]]
    method: str


def facts(*, command: str, rounds: str, is_pinned: bool, more: Mapping[str, str] | None = None) -> Facts:
    """Return what the figures depend on, besides the code."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": command,
        "rounds": rounds,
        "cores": f"{os.cpu_count()}, the servers pinned to one" if is_pinned else f"{os.cpu_count()}, nothing pinned",
        "python": platform.python_version(),
        **(more or {}),
        **{package: version(package) for package in _PACKAGES},
    }


def write(layout: Layout, tables: Mapping[str, Sequence[Row]], about: Facts, output: Path) -> str:
    """Write `output` and the JSON file beside it; return what was written to `output`."""
    text = _markdown(layout, tables, about)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    output.with_suffix(".json").write_text(
        json.dumps({"about": about, **tables}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return text


def _markdown(layout: Layout, tables: Mapping[str, Sequence[Row]], about: Facts) -> str:
    parts = [f"# {layout.title}", f"Measured on {about['date']} by `{about['command']}`."]
    for name, rows in tables.items():
        title, note = layout.sections[name]
        parts += [f"## {title}", note, _table(rows)]
    parts += [
        "## How it was measured",
        layout.method,
        _table([{"what": key, "value": value} for key, value in about.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    is_text = [isinstance(rows[0].get(column), (str, bool)) for column in columns]
    lines = [_line(line, widths, is_text) for line in cells]
    rule = [("-" if text else "-:").rjust(width, "-") for width, text in zip(widths, is_text, strict=True)]
    return "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int], is_text: Sequence[bool]) -> str:
    padded = (
        cell.ljust(width) if text else cell.rjust(width)
        for cell, width, text in zip(cells, widths, is_text, strict=True)
    )
    return f"| {' | '.join(padded)} |"


def _cell(value: Figure) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"
    return str(value)
