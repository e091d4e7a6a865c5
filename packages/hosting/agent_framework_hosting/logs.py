"""What a server that is started by us shows of its log, where nobody has configured logging."""

from __future__ import annotations

import logging
from typing import Final

_OURS: Final = ("agent_framework_hosting", "agent_framework_hosting_responses")


class ExtrasFormatter(logging.Formatter):
    """Shows what records carry in `extra`: messages are constant, the values are there."""

    _standard = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the standard library's name
        """Return the formatted message with `name=value` for each extra."""
        extras = [f"{key}={value!r}" for key, value in vars(record).items() if key not in self._standard]
        return " ".join([super().formatMessage(record), *extras])


def show_logs(level: str) -> None:
    """Write our own records from `level` on, and everybody's warnings, to stderr; do nothing if logging is configured."""
    if logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(ExtrasFormatter("%(levelname)s: %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
