"""The SQLite file of a host: made for its owner only, used by one process at a time."""

from __future__ import annotations

from errno import ENOSYS
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from ..directories import make_directory
from ..errors import ConfigurationError

FILE_NAME: Final = "host.db"
"""The database inside the directory of sessions."""


class DatabaseFile:
    """The database file in `directory`, and the lock beside it: `acquire`, use, `release`, as often as needed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        # Shared by threads: it is taken and given back in whatever thread there is, never in the event loop.
        # Never softly: a lock that is only a file outlives a killed process, and is broken by one that cannot see its owner.
        self._lock = FileLock(f"{self.path}.lock", timeout=0, thread_local=False, fallback_to_soft=False)

    def acquire(self) -> None:
        """Make what is missing, and keep every other process away.

        Raises:
            ConfigurationError: another process, or another host in this one, has the file; or it cannot be made.
        """
        try:
            make_directory(self.path.parent)
            self._lock.acquire()
            # Before SQLite makes it: its files beside it get the same permissions.
            self.path.touch(mode=0o600)
        except Timeout:
            raise ConfigurationError(
                f"{self.path} is in use by another process. SQLite serves one process at a time: stop the other one, give "
                "this one a state_dir of its own, or use PostgreSQL (database_url) for several processes."
            ) from None
        except OSError as error:
            if error.errno == ENOSYS:
                raise ConfigurationError(
                    f"{self.path} is on a file system that cannot lock files: name a directory on a disk of the machine."
                ) from error
            raise ConfigurationError(f"{self.path} cannot be used: {error.strerror or error}.") from error

    def release(self) -> None:
        """Let others have the file; does nothing if it is not ours."""
        self._lock.release()
