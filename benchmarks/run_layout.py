"""What the report of background runs says besides its figures."""

from __future__ import annotations

from typing import Final

from benchmarks.report import Layout
from benchmarks.run_work import CALLERS, EVENTS, PACE_MS

LAYOUT: Final = Layout(
    title="What background runs cost",
    sections={
        "aims": ("Aims", ""),
        "throughput": (
            "Background runs a second",
            (
                f"{CALLERS} callers, each of which has a run with one delta accepted (`background` and `stream`), reads its "
                f"{EVENTS} events to the terminal one, and asks for the next. `ratio` is runs/s by those of memory. With "
                "workers the server executes none itself: all events reach it through the database."
            ),
        ),
        "accept": (
            "Until a run is accepted",
            (
                "`POST` with `background`, one caller, while nothing else goes on; `ratio` is the median by that of memory. "
                "On the others the answer says that the run is stored."
            ),
        ),
        "cost": (
            "What one run costs",
            (
                f"Some runs side by side, a delta every {PACE_MS} ms, nobody reads. SQL statements and CPU time of the server's "
                "process, which executes them too; its share of what the process does besides (signs of life, the looks of "
                "whoever waits for the end) is included, notifications between processes are not counted as statements. "
                "`database_cpu_ms` is the CPU time of PostgreSQL's processes. `cpu_ratio` is to memory."
            ),
        ),
        "tail": (
            "From append to reader",
            (
                "From the moment at which a delta is appended to the log until a reader has it, who follows the log in the "
                "same process or in another one. Deltas come `pace_ms` apart on average, at uneven distances. One log at a "
                "time."
            ),
        ),
        "faults": (
            "When something is wrong",
            (
                "PostgreSQL, default settings. Takeover: workers are killed with a run each, at any moments; until a client "
                "of another process sees the terminal state that the one worker that is left has written. Cancel: from the "
                "request to a process that does not have the run until its coroutine got `CancelledError`."
            ),
        ),
    },
    method=(
        "Every server and every worker is a process of its own; PostgreSQL and the callers share the machine with them: on "
        "few cores a second worker takes from the first. Stores are measured in turn, round after round, so that whatever "
        "else the machine does meets all of them. Every figure is the median over the rounds, every ratio the median of "
        "the ratios within one round. PostgreSQL confirms a commit when its disk has it; SQLite when the operating system "
        "has it (WAL, synchronous = NORMAL)."
    ),
)
