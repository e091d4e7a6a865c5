"""Where checkpoints lie: paths from hostile keys, bounds, what one run leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from agent_framework import (
    CheckpointStorage,
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
    path_segment,
)
from agent_framework_hosting.errors import ConfigurationError
from agent_framework_hosting.isolation import SHARED, IsolationKeys, Partition

HOSTILE = [
    "",
    ".",
    "..",
    "../../x",
    "..\\..\\x",
    "/etc/passwd",
    "C:\\x",
    "a/b",
    "a\x00b",
    "a\nb",
    "CON",
    "nul",
    "A",
    "a ",
    "a.",
    "é",
    "e\u0301",
    "\ud800",
    "x" * 10_000,
]


def checkpoint(name: str = "w", **values: str) -> WorkflowCheckpoint:
    return WorkflowCheckpoint(workflow_name=name, graph_signature_hash="hash", state=dict(values))


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
@given(st.text(st.characters(exclude_categories=[])) | st.sampled_from(HOSTILE))
def test_any_key_becomes_one_harmless_segment_of_bounded_length(key: str) -> None:
    segment = path_segment(key)

    assert len(segment) <= 66
    assert segment.isascii()
    assert segment == segment.lower()
    assert set(segment) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert segment[:2] in {"k-", "h-"}


@pytest.mark.behaviour("A10")
def test_no_two_keys_share_a_segment() -> None:
    keys = [*HOSTILE, "a", "b", path_segment(""), "k-a", "x" * 64, "x" * 65]

    assert len({path_segment(key) for key in keys}) == len(keys)


@pytest.mark.behaviour("A10")
@pytest.mark.parametrize("key", HOSTILE, ids=[f"{number}" for number in range(len(HOSTILE))])
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


async def test_reading_creates_no_directory(tmp_path: Path) -> None:
    location = tmp_path / "checkpoints"
    chain = FileCheckpoints(location).chain(SHARED, "chain")

    with pytest.raises(WorkflowCheckpointException):
        await chain.load("unknown")
    found = (
        await chain.list_checkpoints(workflow_name="w"),
        await chain.list_checkpoint_ids(workflow_name="w"),
        await chain.get_latest(workflow_name="w"),
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


@pytest.fixture(params=["memory", "directory"])
def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoints:
    return MemoryCheckpoints() if request.param == "memory" else FileCheckpoints(tmp_path)


async def test_a_chain_keeps_what_is_saved_under_its_partition_and_name_only(checkpoints: Checkpoints) -> None:
    alice = IsolationKeys(user_key="alice").partition
    mallory = IsolationKeys(user_key="mallory").partition
    checkpoint_id = await checkpoints.chain(alice, "chain").save(checkpoint(said="hello"))

    for partition, name in ((mallory, "chain"), (alice, "other"), (SHARED, "chain")):
        with pytest.raises(WorkflowCheckpointException):
            await checkpoints.chain(partition, name).load(checkpoint_id)

    assert (await checkpoints.chain(alice, "chain").load(checkpoint_id)).state == {"said": "hello"}


async def test_a_chain_is_a_checkpoint_storage_of_the_framework(checkpoints: Checkpoints) -> None:
    chain: CheckpointStorage = checkpoints.chain(SHARED, "chain")
    first, second = await chain.save(checkpoint()), await chain.save(checkpoint())
    latest = await chain.get_latest(workflow_name="w")

    assert latest is not None
    assert latest.checkpoint_id == second
    assert set(await chain.list_checkpoint_ids(workflow_name="w")) == {first, second}
    assert {c.checkpoint_id for c in await chain.list_checkpoints(workflow_name="w")} == {first, second}
    assert await chain.delete(first)
    assert await chain.list_checkpoint_ids(workflow_name="w") == [second]


async def test_two_runs_that_open_a_chain_at_once_both_keep_their_checkpoints(checkpoints: Checkpoints) -> None:
    ids = await asyncio.gather(*(checkpoints.chain(SHARED, "chain").save(checkpoint()) for _ in range(5)))

    assert sorted(await checkpoints.chain(SHARED, "chain").list_checkpoint_ids(workflow_name="w")) == sorted(ids)


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
    assert await chain.list_checkpoint_ids(workflow_name="w") == [earlier, newest]


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
    assert await chain.list_checkpoint_ids(workflow_name="w") == [stored]
