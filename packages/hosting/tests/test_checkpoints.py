"""Where checkpoints lie: paths from hostile keys, bounds, what one run leaves."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest
from agent_framework import (
    FileCheckpointStorage,
    InMemoryCheckpointStorage,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
)
from hypothesis import given
from hypothesis import strategies as st

from agent_framework_hosting.checkpoints import (
    Checkpoints,
    FileCheckpoints,
    MemoryCheckpoints,
    ReadOnlyCheckpoints,
    RunCheckpoints,
    StorageCheckpoints,
    is_storage,
    outlive_process,
    path_segment,
    read_allowed_types,
)
from agent_framework_hosting.errors import ConfigurationError, StoreUnavailable
from agent_framework_hosting.isolation import SHARED, Partition
from agent_framework_hosting.stores.base import Prunable, Retention, StoreStats
from agent_framework_hosting.testing.checkpoints import (
    ALICE,
    HOSTILE_NAMES,
    MALLORY,
    CheckpointsSuite,
    DurableCheckpointsSuite,
    Reopen,
    checkpoint,
)


def names_in(directory: Path, pattern: str = "*") -> list[str]:
    return sorted(path.name for path in directory.glob(pattern))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class FullDisk(InMemoryCheckpointStorage):
    """A storage that refuses checkpoints while it is full."""

    is_full = False

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        if self.is_full:
            raise OSError("no space left")
        return await super().save(checkpoint)


@pytest.mark.behaviour("A10")
@given(st.text(st.characters(exclude_categories=[])) | st.sampled_from(HOSTILE_NAMES))
def test_any_key_becomes_one_harmless_segment_of_bounded_length(key: str) -> None:
    segment = path_segment(key)

    assert len(segment) <= 66
    assert segment.isascii()
    assert segment == segment.lower()
    assert set(segment) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert segment[:2] in {"k-", "h-"}


@pytest.mark.behaviour("A10")
def test_no_two_keys_share_a_segment() -> None:
    keys = [*HOSTILE_NAMES, "b", path_segment(""), "k-a", "x" * 64, "x" * 65]

    assert len({path_segment(key) for key in keys}) == len(keys)


@pytest.mark.behaviour("A10")
@pytest.mark.parametrize("key", HOSTILE_NAMES, ids=[f"{number}" for number in range(len(HOSTILE_NAMES))])
async def test_hostile_keys_stay_inside_the_location(tmp_path: Path, key: str) -> None:
    location = tmp_path / "inside"
    chain = FileCheckpoints(location).chain(Partition(key), key)

    checkpoint_id = await chain.save(checkpoint(said="hello"))

    assert (await chain.load(checkpoint_id)).state == {"said": "hello"}
    assert names_in(tmp_path) == ["inside"]
    assert names_in(location, "*/*/*") == [f"{checkpoint_id}.json"]


@pytest.mark.behaviour("A10")
async def test_a_hostile_checkpoint_id_reads_nothing_outside_its_chain(tmp_path: Path) -> None:
    checkpoints = FileCheckpoints(tmp_path)
    theirs = await checkpoints.chain(SHARED, "theirs").save(checkpoint())
    mine = checkpoints.chain(SHARED, "mine")
    await mine.save(checkpoint())

    with pytest.raises(WorkflowCheckpointException):
        await mine.load(f"../{path_segment('theirs')}/{theirs}")


def test_a_link_that_leads_out_of_the_location_is_refused(tmp_path: Path) -> None:
    location, outside = tmp_path / "inside", tmp_path / "outside"
    location.mkdir()
    outside.mkdir()
    (location / path_segment("")).symlink_to(outside, target_is_directory=True)

    with pytest.raises(ConfigurationError, match="leads out"):
        FileCheckpoints(location).chain(SHARED, "chain")


def test_a_location_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="must be a directory"):
        FileCheckpoints(tmp_path / "file")


async def test_what_cannot_be_read_is_not_left_out_of_a_list(tmp_path: Path) -> None:
    chain = FileCheckpoints(tmp_path).chain(SHARED, "chain")
    saved = await chain.save(checkpoint())
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text().replace('"state": {}', '"state": {"__pickled__": "", "__type__": ""}'))

    assert path.stem == saved
    with pytest.raises(WorkflowCheckpointException):
        await chain.list_checkpoints(workflow_name="workflow")
    # What is not found cannot be erased.
    assert await chain.list_checkpoint_ids(workflow_name="workflow") == [saved]
    assert await chain.list_checkpoint_ids(workflow_name="other") == []


async def test_reading_creates_no_directory(tmp_path: Path) -> None:
    location = tmp_path / "checkpoints"
    chain = FileCheckpoints(location).chain(SHARED, "chain")

    with pytest.raises(WorkflowCheckpointException):
        await chain.load("unknown")
    found = (
        await chain.list_checkpoints(workflow_name="workflow"),
        await chain.list_checkpoint_ids(workflow_name="workflow"),
        await chain.get_latest(workflow_name="workflow"),
        await chain.delete("unknown"),
    )

    assert found == ([], [], None, False)
    assert not location.exists()


async def test_a_relative_location_stays_where_it_was_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    checkpoints = FileCheckpoints("checkpoints")
    monkeypatch.chdir(tmp_path / "elsewhere")

    await checkpoints.chain(SHARED, "chain").save(checkpoint())

    assert names_in(tmp_path) == ["checkpoints", "elsewhere"]
    assert names_in(tmp_path / "elsewhere") == []


class TestMemoryCheckpoints(CheckpointsSuite):
    @pytest.fixture
    def checkpoints(self) -> Checkpoints:
        return MemoryCheckpoints()


class TestFileCheckpoints(DurableCheckpointsSuite):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        return lambda: FileCheckpoints(tmp_path / "checkpoints")


class TestCheckpointsInAStorageInMemory(CheckpointsSuite):
    @pytest.fixture
    def checkpoints(self) -> Checkpoints:
        return StorageCheckpoints(InMemoryCheckpointStorage())


class TestCheckpointsInAStorageInFiles(DurableCheckpointsSuite):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        return lambda: StorageCheckpoints(FileCheckpointStorage(tmp_path / "checkpoints"))


@pytest.mark.behaviour("E1")
async def test_all_chains_of_a_storage_lie_side_by_side_under_names_that_tell_nothing(tmp_path: Path) -> None:
    checkpoints = StorageCheckpoints(FileCheckpointStorage(tmp_path / "checkpoints"))
    for place in ((ALICE, "chain"), (MALLORY, "chain"), (Partition("../.."), "../..")):
        await checkpoints.chain(*place).save(checkpoint())

    names = names_in(tmp_path / "checkpoints")

    assert names_in(tmp_path) == ["checkpoints"]
    assert len(names) == 3
    assert all(re.fullmatch(r"[0-9a-f]{64}-[0-9a-f-]{36}\.json", name) for name in names)


@pytest.mark.parametrize(
    ("checkpoints", "outlives"),
    [
        (MemoryCheckpoints(), False),
        (StorageCheckpoints(InMemoryCheckpointStorage()), False),
        (StorageCheckpoints(ReadOnlyCheckpoints()), True),
        (FileCheckpoints("nowhere"), True),
    ],
)
def test_checkpoints_outlive_the_process_unless_they_are_known_to_be_in_memory(
    checkpoints: Checkpoints, *, outlives: bool
) -> None:
    assert outlive_process(checkpoints) is outlives


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (InMemoryCheckpointStorage(), True),
        (ReadOnlyCheckpoints(), True),
        (InMemoryCheckpointStorage, False),
        (Path("x"), False),
        ("x", False),
        (None, False),
    ],
)
def test_a_storage_is_told_by_its_methods(location: object, *, expected: bool) -> None:
    assert is_storage(location) is expected


@pytest.mark.parametrize("given", ["app:State", int, ["State"], [3], ["app:"], [":State"], ["app:State "]])
def test_what_names_no_types_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed_checkpoint_types has"):
        read_allowed_types(given)


@pytest.mark.behaviour("D5")
async def test_the_directories_of_a_chain_go_with_its_last_checkpoint(tmp_path: Path) -> None:
    checkpoints = FileCheckpoints(tmp_path)
    first, second = [await checkpoints.chain(ALICE, "chain").save(checkpoint()) for _ in range(2)]
    await checkpoints.chain(MALLORY, "chain").save(checkpoint())

    await checkpoints.chain(ALICE, "chain").delete(first)
    after_the_first = names_in(tmp_path)
    await checkpoints.chain(ALICE, "chain").delete(second)

    assert len(after_the_first) == 2
    assert names_in(tmp_path) == [path_segment(MALLORY)]


@pytest.mark.behaviour("D5")
async def test_memory_forgets_a_chain_with_its_last_checkpoint() -> None:
    checkpoints = MemoryCheckpoints()
    chain = checkpoints.chain(SHARED, "chain")
    first, second = [await chain.save(checkpoint()) for _ in range(2)]

    await chain.delete(first)
    after_the_first = len(checkpoints)
    await chain.delete(second)

    assert (after_the_first, len(checkpoints)) == (1, 0)


class Erased(FileCheckpointStorage):
    """A storage whose directory another process removes `times` times, right before it is written into."""

    times = 0

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        if type(self).times > 0:
            type(self).times -= 1
            self.storage_path.rmdir()
        return await super().save(checkpoint)


@pytest.mark.parametrize("times", [1, 4])
async def test_a_directory_that_another_process_removes_while_saving_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr("agent_framework_hosting.checkpoints.FileCheckpointStorage", Erased)
    monkeypatch.setattr(Erased, "times", times)
    chain = FileCheckpoints(tmp_path).chain(SHARED, "chain")

    checkpoint_id = await chain.save(checkpoint(said="hello"))

    assert (await chain.load(checkpoint_id)).state == {"said": "hello"}


async def test_a_directory_that_cannot_be_made_fails_the_save(tmp_path: Path) -> None:
    (tmp_path / path_segment("")).mkdir()
    (tmp_path / path_segment("") / "k-chain").touch()

    with pytest.raises(FileExistsError):
        await FileCheckpoints(tmp_path).chain(SHARED, "chain").save(checkpoint())


async def test_a_directory_stays_while_somebody_saves_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Waiting(FileCheckpointStorage):
        async def save(self, checkpoint: WorkflowCheckpoint) -> str:
            reached.set()
            await go_on.wait()
            return await super().save(checkpoint)

    checkpoints = FileCheckpoints(tmp_path)
    chain = checkpoints.chain(SHARED, "chain")
    earlier = await chain.save(checkpoint())
    monkeypatch.setattr("agent_framework_hosting.checkpoints.FileCheckpointStorage", Waiting)
    saving = asyncio.create_task(chain.save(checkpoint()))
    await asyncio.wait_for(reached.wait(), 60)

    await chain.delete(earlier)
    await checkpoints.prune(limit=1)
    left = names_in(tmp_path, "*/*")
    go_on.set()
    await asyncio.wait_for(saving, 60)

    assert left == ["k-chain"]


async def save_each_second(checkpoints: FileCheckpoints, location: Path, count: int) -> list[str]:
    """Save `count` checkpoints in chains of their own, written at the seconds 0, 1, 2, …."""
    ids = []
    for second in range(count):
        checkpoint_id = await checkpoints.chain(SHARED, f"chain-{second}").save(checkpoint())
        (file,) = location.rglob(f"{checkpoint_id}.json")
        os.utime(file, (second, second))
        ids.append(checkpoint_id)
    return ids


def left_in(location: Path) -> set[str]:
    return {file.stem for file in location.rglob("*.json")}


@pytest.mark.behaviour("D8")
async def test_pruning_a_directory_erases_what_is_too_old_oldest_first_and_no_more_than_asked_for(
    tmp_path: Path,
) -> None:
    clock = Clock()
    checkpoints = FileCheckpoints(tmp_path, retention=Retention(max_age=2.5), clock=clock)
    ids = await save_each_second(checkpoints, tmp_path, 5)
    clock.now = 5

    pruned = await checkpoints.prune(limit=2)
    left_then = left_in(tmp_path)
    pruned_again = await checkpoints.prune(limit=2)

    assert isinstance(checkpoints, Prunable)
    assert (pruned, pruned_again) == (2, 1)
    assert left_then == set(ids[2:])
    assert left_in(tmp_path) == set(ids[3:])
    assert len(names_in(tmp_path, "*/*")) == 2


@pytest.mark.behaviour("D8")
async def test_pruning_a_directory_erases_the_oldest_beyond_the_count(tmp_path: Path) -> None:
    checkpoints = FileCheckpoints(tmp_path, retention=Retention(max_age=None, max_entries=2), clock=Clock())
    ids = await save_each_second(checkpoints, tmp_path, 5)

    assert await checkpoints.prune(limit=100) == 3
    assert left_in(tmp_path) == set(ids[3:])


async def test_pruning_leaves_alone_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    location, outside = tmp_path / "inside", tmp_path / "outside"
    checkpoints = FileCheckpoints(location, retention=Retention(max_age=0), clock=lambda: 1e12)
    await checkpoints.chain(SHARED, "chain").save(checkpoint())
    (outside / "k-chain").mkdir(parents=True)
    (outside / "k-chain" / "kept.json").touch()
    (location / "k-link").symlink_to(outside, target_is_directory=True)
    (location / "notes.json").touch()
    (location / "mine" / "deep").mkdir(parents=True)
    (location / "mine" / "deep" / "kept.json").touch()

    assert await checkpoints.prune(limit=100) == 1
    assert names_in(location) == ["k-link", "mine", "notes.json"]
    assert left_in(location / "mine") == left_in(outside) == {"kept"}


async def test_pruning_takes_what_a_killed_process_was_writing(tmp_path: Path) -> None:
    checkpoints = FileCheckpoints(tmp_path, clock=lambda: 1e12)
    chain = tmp_path / path_segment("") / path_segment("chain")
    chain.mkdir(parents=True)
    (chain / ".maf-ckpt-0.tmp").write_text("half of a conversation")

    assert await checkpoints.prune(limit=1) == 1
    assert names_in(tmp_path) == []


async def test_stats_of_a_directory_tell_count_size_and_age(tmp_path: Path) -> None:
    clock = Clock()
    checkpoints = FileCheckpoints(tmp_path / "checkpoints", clock=clock)
    empty = await checkpoints.stats()
    await save_each_second(checkpoints, tmp_path, 3)
    clock.now = 10

    stats = await checkpoints.stats()

    size = sum(file.stat().st_size for file in tmp_path.rglob("*.json"))
    assert empty == StoreStats(name="checkpoints", entries=0, bytes=0, oldest=None)
    assert stats == StoreStats(name="checkpoints", entries=3, bytes=size, oldest=10.0)


async def test_memory_forgets_the_oldest_chains_beyond_its_bound() -> None:
    checkpoints = MemoryCheckpoints(max_chains=2)

    ids = [await checkpoints.chain(SHARED, name).save(checkpoint()) for name in ("a", "b", "c")]

    assert len(checkpoints) == 2
    with pytest.raises(WorkflowCheckpointException):
        await checkpoints.chain(SHARED, "a").load(ids[0])
    assert await checkpoints.chain(SHARED, "c").load(ids[2])


async def test_memory_forgets_the_oldest_checkpoints_of_a_chain_beyond_its_bound_whatever_their_workflow() -> None:
    chain = MemoryCheckpoints(max_per_chain=2).chain(SHARED, "chain")

    ids = [await chain.save(checkpoint(name)) for name in ("built-1", "built-2", "built-3")]

    with pytest.raises(WorkflowCheckpointException):
        await chain.load(ids[0])
    assert [(await chain.load(i)).checkpoint_id for i in ids[1:]] == ids[1:]


async def test_memory_forgets_chains_that_nobody_continued_for_too_long() -> None:
    clock = Clock()
    checkpoints = MemoryCheckpoints(max_age=10, clock=clock)
    checkpoint_id = await checkpoints.chain(SHARED, "chain").save(checkpoint())

    clock.now = 11

    with pytest.raises(WorkflowCheckpointException):
        await checkpoints.chain(SHARED, "chain").load(checkpoint_id)
    assert len(checkpoints) == 0


async def test_a_run_leaves_only_its_newest_checkpoint_and_touches_no_other_runs() -> None:
    chain = InMemoryCheckpointStorage()
    earlier = await chain.save(checkpoint())
    run = RunCheckpoints(chain)

    await run.save(checkpoint())
    newest = await run.save(checkpoint())

    assert run.last_id == newest
    assert (await run.load(newest)).checkpoint_id == newest
    assert await chain.list_checkpoint_ids(workflow_name="workflow") == [earlier, newest]


async def test_a_run_remembers_why_its_last_checkpoint_was_not_saved() -> None:
    chain = FullDisk()
    run = RunCheckpoints(chain)
    saved = await run.save(checkpoint())
    chain.is_full = True

    with pytest.raises(OSError, match="no space"):
        await run.save(checkpoint())

    assert isinstance(run.error, OSError)
    assert run.last_id == saved


async def test_a_read_only_chain_loads_but_saves_nothing() -> None:
    chain = InMemoryCheckpointStorage()
    stored = await chain.save(checkpoint())
    again = checkpoint()
    again.previous_checkpoint_id = stored
    read_only = ReadOnlyCheckpoints(chain)

    assert await read_only.save(again) == stored
    assert (await read_only.load(stored)).checkpoint_id == stored
    assert await chain.list_checkpoint_ids(workflow_name="workflow") == [stored]


# A run that is given up


class Slow(InMemoryCheckpointStorage):
    """A storage that takes its time, and is not stopped when whoever waits for it is."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        self.reached.set()
        await self.go_on.wait()
        return await super().save(checkpoint)


class Refusing(InMemoryCheckpointStorage):
    """A storage that deletes nothing."""

    async def delete(self, checkpoint_id: str) -> bool:
        raise StoreUnavailable("not now")


async def test_a_run_that_is_discarded_leaves_what_was_there_before() -> None:
    chain = InMemoryCheckpointStorage()
    earlier = await chain.save(checkpoint())
    run = RunCheckpoints(chain)
    await run.save(checkpoint())
    await run.save(checkpoint())

    await run.discard()

    assert await chain.list_checkpoint_ids(workflow_name="workflow") == [earlier]
    assert (run.last_id, run.last_iteration) == (None, None)


async def test_what_was_being_saved_when_the_run_was_cancelled_is_discarded_too() -> None:
    chain = Slow()
    run = RunCheckpoints(chain)
    saving = asyncio.create_task(run.save(checkpoint()))
    await asyncio.wait_for(chain.reached.wait(), 60)
    saving.cancel()
    await asyncio.wait([saving], timeout=60)
    discarding = asyncio.create_task(run.discard())

    chain.go_on.set()
    await asyncio.wait_for(discarding, 60)

    assert saving.cancelled()
    assert await chain.list_checkpoint_ids(workflow_name="workflow") == []


async def test_discarding_again_after_the_storage_refused_deletes_what_is_left() -> None:
    chain = Refusing()
    run = RunCheckpoints(chain)
    checkpoint_id = await run.save(checkpoint())

    with pytest.raises(StoreUnavailable):
        await run.discard()
    with pytest.raises(StoreUnavailable):
        await run.discard()

    assert await chain.list_checkpoint_ids(workflow_name="workflow") == [checkpoint_id]


async def test_discarding_a_run_that_saved_nothing_touches_nothing() -> None:
    await RunCheckpoints(Refusing()).discard()
