"""The report: Markdown for people, JSON for programs, the ratios that hold on any machine first."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.figures import Figure, Row

Facts: TypeAlias = dict[str, str]

_PACKAGES: Final = ("agent-framework-core", "starlette", "msgspec", "uvicorn", "uvloop", "httptools")

_TITLES: Final[Mapping[str, str]] = {
    "aims": "Aims",
    "ratios": "Ratios, host to bare Starlette",
    "further_deltas": "One delta more",
    "sizes": "Bytes of a text delta, on the stream",
    "absolute": "Absolute numbers of this machine",
}

_NOTES: Final[Mapping[str, str]] = {
    "aims": "",
    "ratios": (
        "`throughput` is answers/s of the host by those of Starlette, `cpu` the same for CPU time an answer. `overhead` "
        "is the host's CPU time without the agent's, by all of Starlette's: (host - agent) / starlette."
    ),
    "further_deltas": (
        "What a delta costs in a stream that runs, from the difference of two lengths; `overhead` as above. The last row "
        "shows whether a delta costs more late in a long answer."
    ),
    "sizes": "Frames as sent, in bytes: `event:` and `data:` lines. `stream` is the whole stream.",
    "absolute": (
        "CPU time is that of the server's process, in microseconds. `events_per_write` near 1 says that every delta was "
        "sent by itself. `agent` is the agent iterated by as many tasks, without a server."
    ),
}

_METHOD: Final = (
    "Three processes share one core: the host with an agent that yields prebuilt updates, each in a turn of the event "
    "loop of its own; a bare Starlette app that sends the bytes recorded from the host, each event in a turn of its own "
    "too; and the agent iterated with no server. Both servers run on uvicorn with uvloop and httptools; the garbage collector of the host's process is set as `host.serve()` sets it. The load comes "
    "from raw sockets on another core, which never sleeps, so that no server pays for waking it. Servers are measured in turn, round after round; every figure is the median over "
    "the rounds, every ratio the median of the ratios within one round."
)


def facts(*, command: str, rounds: int, seconds: float, is_pinned: bool) -> Facts:
    """Return what the figures depend on, besides the code."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": command,
        "rounds": f"{rounds} of {seconds:g} s a measurement",
        "cores": f"{os.cpu_count()}, the servers pinned to one" if is_pinned else f"{os.cpu_count()}, nothing pinned",
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def write(tables: Mapping[str, Sequence[Row]], about: Facts, output: Path) -> str:
    """Write `output` and the JSON file beside it; return what was written to `output`."""
    text = _markdown(tables, about)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    output.with_suffix(".json").write_text(
        json.dumps({"about": about, **tables}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return text


def _markdown(tables: Mapping[str, Sequence[Row]], about: Facts) -> str:
    parts = ["# What the host costs", f"Measured on {about['date']} by `{about['command']}`."]
    for name, rows in tables.items():
        parts += [f"## {_TITLES[name]}", _NOTES[name], _table(rows)]
    parts += [
        "## How it was measured",
        _METHOD,
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
