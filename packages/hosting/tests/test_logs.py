"""What a started server shows of its log."""

from __future__ import annotations

import logging
import subprocess
import sys

from agent_framework_hosting.logs import ExtrasFormatter

PROGRAM = """
import logging
{before}
from agent_framework_hosting.logs import show_logs
show_logs("info")
logging.getLogger("agent_framework_hosting.app").info("The host has started", extra={{"target": "a"}})
logging.getLogger("agent_framework").info("chatter")
logging.getLogger("other").warning("careful")
"""


def test_log_records_show_their_values_and_their_traceback() -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        record = logging.LogRecord("name", logging.ERROR, "file", 1, "It failed", (), sys.exc_info())
    record.__dict__["run_id"] = "resp_1"

    lines = ExtrasFormatter("%(levelname)s: %(message)s").format(record).splitlines()

    assert lines[0] == "ERROR: It failed run_id='resp_1'"
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_our_records_are_shown_and_only_the_warnings_of_others() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before="")], capture_output=True, text=True, check=True, timeout=60
    ).stderr.splitlines()

    assert shown == [
        "INFO: agent_framework_hosting.app: The host has started target='a'",
        "WARNING: other: careful",
    ]


def test_a_configured_log_is_left_alone() -> None:
    before = "logging.basicConfig(level=logging.ERROR)"

    shown = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)], capture_output=True, text=True, check=True, timeout=60
    ).stderr

    assert shown == ""
