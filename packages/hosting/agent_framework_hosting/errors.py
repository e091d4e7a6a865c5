"""Errors of the host. None of them knows HTTP; channels decide how to say them.

HostingError
├── ConfigurationError       while building; the message says what to change
├── TargetError              the agent or workflow raised; __cause__ is theirs
├── WrongAnswer              not what the workflow waits for; the message is for callers
├── StoreError
│   ├── StoreUnavailable     try later
│   ├── AlreadyExists        the id is taken in this partition
│   └── StaleWrite           someone else finished first
└── RunError
    ├── RunCancelled         asked for; not a failure
    └── LeaseLost            another worker owns the run: stop writing
"""

from __future__ import annotations


class HostingError(Exception):
    """Base of everything the host raises on purpose."""


class ConfigurationError(HostingError):
    """The host was put together wrongly; the message says what to change."""


class TargetError(HostingError):
    """The agent or workflow raised. `__cause__` is its exception; its text is never for callers."""


class WrongAnswer(HostingError):  # noqa: N818  what it says
    """What a caller has answered is not what the workflow waits for. The message is for callers."""


class StoreError(HostingError):
    """Base of what stores raise."""


class StoreUnavailable(StoreError):  # noqa: N818  the design's name
    """The store cannot be reached now; trying later may work."""


class AlreadyExists(StoreError):  # noqa: N818  the design's name
    """The id is taken in this partition; nothing was written."""


class StaleWrite(StoreError):  # noqa: N818  the design's name
    """Someone else finished first, or the attempt is no longer the current one; nothing was written."""


class RunError(HostingError):
    """Base of what ends a run from outside."""


class RunCancelled(RunError):  # noqa: N818  the design's name
    """The run was asked to stop. Not a failure."""


class LeaseLost(RunError):  # noqa: N818  the design's name
    """Another worker owns the run; this one must stop writing."""
