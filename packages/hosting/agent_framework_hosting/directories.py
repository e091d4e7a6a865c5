"""The directories of a host's state: what the option `state_dir` means, and making them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from .errors import ConfigurationError
from .types import HostStatePaths

PathName: TypeAlias = str | Path

SESSIONS: Final = "sessions"
CHECKPOINTS: Final = "checkpoints"

_KEYS: Final = frozenset(HostStatePaths.__annotations__)
_OWNER_ONLY: Final = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDirectories:
    """The directories of a host's state, absolute; `None` for what lives elsewhere."""

    sessions: Path | None = None
    checkpoints: Path | None = None


def read_directories(state_dir: PathName | HostStatePaths | None) -> StateDirectories:
    """Return the directories that the option `state_dir` means; none of them is made.

    Raises:
        ConfigurationError: it is neither a path nor a mapping of known keys to paths, or one leads to a file.
    """
    if state_dir is None:
        return StateDirectories()
    if isinstance(state_dir, (str, os.PathLike)):
        root = read_directory("state_dir", state_dir)
        return StateDirectories(sessions=root / SESSIONS, checkpoints=root / CHECKPOINTS)
    if not isinstance(state_dir, Mapping):
        raise ConfigurationError(f"state_dir is a {type(state_dir).__name__}: pass a path, or a mapping of paths.")
    if unknown := sorted(map(str, state_dir.keys() - _KEYS)):
        raise ConfigurationError(f"state_dir has the key {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}.")
    return StateDirectories(**{name: read_directory(f"state_dir[{name!r}]", path) for name, path in state_dir.items()})


def read_directory(option: str, path: object) -> Path:
    """Return the directory that an option names, absolute; it is not made.

    Raises:
        ConfigurationError: it is no path, or leads to a file.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ConfigurationError(f"{option} must be the path of a directory.")
    try:
        # Absolute: a later chdir must not move the state.
        directory = Path(path).expanduser().absolute()
        is_file = directory.exists() and not directory.is_dir()
    except (OSError, RuntimeError) as error:  # the latter for the home of nobody
        said = error.strerror if isinstance(error, OSError) else None
        raise ConfigurationError(f"{option} cannot be used: {said or error}.") from error
    if is_file:
        raise ConfigurationError(f"{option} is the file {directory}: it must be a directory, or not exist yet.")
    return directory


def make_directory(path: Path) -> None:
    """Make the directory and those above it that are missing, for their owner only.

    Raises:
        OSError: it cannot be made.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_directory(path.parent)
    path.mkdir(mode=_OWNER_ONLY, exist_ok=True)
