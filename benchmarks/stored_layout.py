"""What the report of stored turns says besides its figures."""

from __future__ import annotations

from typing import Final

from benchmarks.report import Layout

LAYOUT: Final = Layout(
    title="What stored turns cost",
    sections={
        "aims": ("Aims", ""),
        "throughput": (
            "Throughput and CPU time, by the store",
            (
                "`ratio` is turns/s by those of memory, `cpu_ratio` the same for CPU time a turn. CPU time is that of the "
                "server's process, in microseconds a turn; `database_cpu_us` is that of PostgreSQL's processes. A stream has "
                "50 text deltas. Every caller has a conversation of its own."
            ),
        ),
        "bytes": (
            "Bytes stored per turn",
            (
                "All values of all rows that a turn adds or makes longer, numbers as 8 bytes, without indexes; `file_…` is by "
                "how much SQLite's file grows a turn, indexes included."
            ),
        ),
        "latency": (
            "Latency of the first and the last turns",
            (
                "`to_unstored` is `ratio` by that of turns in between which continue nothing and are not stored: what "
                "happens to those is the machine. `constant` is an agent that remembers nothing: all of it is the host's. "
                "`remembering` is the framework's own agent with its history in the session, which grows: `bare_…` is the "
                "same agent with its session kept in process, without a host, `host_…` is the difference, and `host_ratio` "
                "that of the last turns by that of the first."
            ),
        ),
        "many": (
            "Many responses",
            (
                "Stored one after the other, each beside one that is not stored, in the host with its state in memory: what "
                "happens to those is the machine. `to_unstored` is `ratio` by theirs. `rss_…` is the memory of the server's "
                "process."
            ),
        ),
        "retention": (
            "What retention gives back",
            (
                "A tenth of the responses may stay. `seconds` is how long it took in the background, `turn_ms` and "
                "`slowest_percent_ms` are turns that were asked for meanwhile, some 50 a second: their median, and what 1 of 100 exceeds. "
                "PostgreSQL gives files back as its autovacuum sees fit."
            ),
        ),
    },
    method=(
        "One host for each store, a process each, all on one core, and never two of them busy at once; clients and "
        "PostgreSQL are on the others. Stores are measured in turn: round after round for throughput, turn after turn for "
        "chains and for many responses, so that whatever else the machine does meets all of them. Every figure is the "
        "median over the rounds, every ratio the median of the ratios within one round; latency of first and last turns "
        "is the median of these turns. PostgreSQL confirms a commit when its disk has it; SQLite when the operating "
        "system has it (WAL, synchronous = NORMAL): a killed process loses nothing, a power cut may cost the last turns."
    ),
)
