"""Agent sessions as JSON files in a directory: a store of your own, small enough to read.

Every session is one file, whole. For one process: another one that uses the same directory would not see the lock.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from agent_framework import AgentSession

from agent_framework_hosting import Partition, Retention, SessionKey, StoreStats, StoreUnavailable

ResultT = TypeVar("ResultT")


class JsonSessionStore:
    """Sessions in `directory`, kept for `retention`."""

    def __init__(self, directory: Path, *, retention: Retention | None = None) -> None:
        self._directory = directory
        self._retention = retention or Retention()
        # The host asks from many requests at once.
        self._lock = threading.Lock()

    # --- `SessionStore`: what the host needs

    async def get(self, partition: Partition, key: SessionKey) -> AgentSession | None:
        """Return a private copy of the stored session, `None` if there is none."""
        stored = await self._locked(lambda: self._read(partition, key))
        return None if stored is None else AgentSession.from_dict(stored)

    async def put(
        self, partition: Partition, key: SessionKey, session: AgentSession, *, base: SessionKey | None = None
    ) -> None:
        """Store the session, replacing what was there. `base` would allow to store only what is new."""
        del base
        # `json` writes what UTF-8 cannot carry, half an emoji, as an escape.
        text = json.dumps(session.to_dict())
        await self._locked(lambda: self._write(partition, key, text))

    async def claim(self, partition: Partition, key: SessionKey) -> bool:
        """Say that the session is continued; `True` for the first who says so."""
        return await self._locked(lambda: self._claim(partition, key))

    async def delete(self, partition: Partition, key: SessionKey) -> bool:
        """Erase the session; `False` if there was none."""
        return await self._locked(lambda: _remove(self._path(partition, key)))

    # --- `Prunable`: without it nothing is ever forgotten

    async def prune(self, *, limit: int) -> int:
        """Erase what the retention no longer covers, at most `limit` sessions; return how many."""
        return await self._locked(lambda: self._prune(limit))

    async def stats(self) -> StoreStats:
        """Return what the directory holds."""
        return await self._locked(self._stats)

    # --- Files

    async def _locked(self, work: Callable[[], ResultT]) -> ResultT:
        """Return what `work` returns, in a thread, so that the server goes on meanwhile."""

        def alone() -> ResultT:
            with self._lock:
                return work()

        try:
            return await asyncio.to_thread(alone)
        except OSError as error:
            raise StoreUnavailable("The directory of sessions cannot be used now.") from error

    def _path(self, partition: Partition, key: SessionKey) -> Path:
        # Keys are any text: never make a path of one. The partition is part of the name: it says whose session it is.
        name = json.dumps([partition, key])
        return self._directory / f"{hashlib.sha256(name.encode()).hexdigest()}.json"

    def _read(self, partition: Partition, key: SessionKey) -> dict[str, Any] | None:
        try:
            stored: dict[str, Any] = json.loads(self._path(partition, key).read_bytes())
        except FileNotFoundError:
            return None
        return stored

    def _write(self, partition: Partition, key: SessionKey, text: str) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(partition, key)
        # A process that is killed while it writes leaves the old session, not half of the new one.
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(text, encoding="ascii")
        os.replace(unfinished, path)  # noqa: PTH105  the same, under the name that everybody knows
        _claimed(path).unlink(missing_ok=True)

    def _claim(self, partition: Partition, key: SessionKey) -> bool:
        path = self._path(partition, key)
        if not path.exists() or _claimed(path).exists():
            return False
        _claimed(path).touch()
        return True

    def _prune(self, limit: int) -> int:
        files = self._oldest_first()
        max_age, max_entries = self._retention.max_age, self._retention.max_entries
        too_old = float("-inf") if max_age is None else time.time() - max_age
        too_many = 0 if max_entries is None else len(files) - max_entries
        outdated = [path for rank, path in enumerate(files) if rank < too_many or path.stat().st_mtime < too_old]
        return sum(_remove(path) for path in outdated[:limit])

    def _stats(self) -> StoreStats:
        files = self._oldest_first()
        return StoreStats(
            name="sessions",
            entries=len(files),
            bytes=sum(path.stat().st_size for path in files),
            oldest=max(0.0, time.time() - files[0].stat().st_mtime) if files else None,
        )

    def _oldest_first(self) -> list[Path]:
        # What a killed process was writing holds text, too, and has nobody else to remove it.
        files = [*self._directory.glob("*.json"), *self._directory.glob("*.tmp")]
        return sorted(files, key=lambda path: path.stat().st_mtime)


def _claimed(path: Path) -> Path:
    return path.with_suffix(".claimed")


def _remove(path: Path) -> bool:
    _claimed(path).unlink(missing_ok=True)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
