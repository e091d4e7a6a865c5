"""What may be named in stored checkpoints: the same in files and in databases, and hostile bytes run nothing."""

from __future__ import annotations

import base64
import json
import os
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from agent_framework import CheckpointStorage, WorkflowCheckpointException

from agent_framework_hosting.checkpoints import AllowedTypes, Checkpoints, FileCheckpoints
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.sql.checkpoints import SqlCheckpoints
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.tables import checkpoints as table
from agent_framework_hosting.testing.checkpoints import checkpoint


@dataclass
class Basket:
    """A type of an application."""

    items: list[str]


@dataclass
class Other:
    """Another one."""

    count: int


class Runs:
    """What an attacker would write: a pickle that runs a command when it is read without restrictions."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


@dataclass
class Place:
    """Somewhere that checkpoints lie: `make` opens it, `write` puts other bytes in the place of the only checkpoint."""

    make: Callable[[AllowedTypes], Checkpoints]
    write: Callable[[bytes], Awaitable[None]]

    def chain(self, *allowed: str | type) -> CheckpointStorage:
        return self.make(allowed).chain(SHARED, "chain")


def in_files(directory: Path) -> Place:
    async def write(stored: bytes) -> None:
        (path,) = directory.rglob("*.json")
        path.write_bytes(stored)

    return Place(lambda allowed: FileCheckpoints(directory, allowed_checkpoint_types=allowed), write)


def in_rows(database: Database) -> Place:
    async def write(stored: bytes) -> None:
        await database.run(lambda connection: connection.execute(sa.update(table).values(checkpoint=stored)))

    return Place(lambda allowed: SqlCheckpoints(database, allowed_checkpoint_types=allowed), write)


@pytest.fixture
def files(tmp_path: Path) -> Place:
    return in_files(tmp_path / "checkpoints")


@pytest.fixture
def rows(database: Database) -> Place:
    return in_rows(database)


def forged(value: object) -> bytes:
    """Return a checkpoint whose state is a pickle of `value`, as somebody writes it who has read the format."""
    pickled = {"__pickled__": base64.b64encode(pickle.dumps(value)).decode(), "__type__": "builtins:int"}
    return json.dumps({**checkpoint().to_dict(), "state": {"value": pickled}}, default=str).encode()


async def check_that_an_allowed_type_is_stored_and_read(place: Place) -> None:
    for allowed in (Basket, f"{__name__}:Basket"):
        chain = place.chain(allowed)
        saved = await chain.save(checkpoint(basket=Basket(["pie"])))
        assert (await place.chain(allowed).load(saved)).state == {"basket": Basket(["pie"])}


async def check_that_another_type_is_refused_by_name(place: Place) -> None:
    with pytest.raises(WorkflowCheckpointException, match=r"Other'.*allowed_checkpoint_types"):
        await place.chain(Basket).save(checkpoint(other=Other(3)))
    saved = await place.chain(Basket, Other).save(checkpoint(other=Other(3)))
    with pytest.raises(WorkflowCheckpointException, match=r"Other'.*allowed_checkpoint_types"):
        await place.chain(Basket).load(saved)


async def check_that_a_hostile_pickle_runs_nothing(place: Place, touched: Path, *allowed: str | type) -> None:
    chain = place.chain(*allowed)
    saved = await chain.save(checkpoint())
    await place.write(forged(Runs(f"touch {touched}")))

    with pytest.raises(WorkflowCheckpointException, match="blocked"):
        await chain.load(saved)
    assert not touched.exists()


async def test_an_allowed_type_is_stored_in_files(files: Place) -> None:
    await check_that_an_allowed_type_is_stored_and_read(files)


async def test_an_allowed_type_is_stored_in_rows(rows: Place) -> None:
    await check_that_an_allowed_type_is_stored_and_read(rows)


async def test_another_type_is_refused_in_files(files: Place) -> None:
    await check_that_another_type_is_refused_by_name(files)


async def test_another_type_is_refused_in_rows(rows: Place) -> None:
    await check_that_another_type_is_refused_by_name(rows)


# Naming the function does not help an attacker either: what is allowed is a class.
@pytest.mark.parametrize("allowed", [(), (Basket,), ("posix:system",)])
async def test_a_hostile_pickle_in_a_file_runs_nothing(files: Place, tmp_path: Path, allowed: Any) -> None:
    await check_that_a_hostile_pickle_runs_nothing(files, tmp_path / "touched", *allowed)


@pytest.mark.parametrize("allowed", [(), (Basket,), ("posix:system",)])
async def test_a_hostile_pickle_in_a_row_runs_nothing(rows: Place, tmp_path: Path, allowed: Any) -> None:
    await check_that_a_hostile_pickle_runs_nothing(rows, tmp_path / "touched", *allowed)
