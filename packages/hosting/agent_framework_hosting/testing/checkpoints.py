# ruff: noqa: S101, D102  a suite asserts, and its tests are named as sentences
"""The suite that every place for checkpoints must pass.

    class TestMyCheckpoints(DurableCheckpointsSuite):
        @pytest.fixture
        def reopen(self, tmp_path):
            return lambda: MyCheckpoints(tmp_path)

The tests are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, TypeAlias

import pytest
from agent_framework import (
    AgentExecutorRequest,
    CheckpointStorage,
    Content,
    Message,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
    WorkflowMessage,
)

from ..checkpoints import Checkpoints
from ..isolation import SHARED, IsolationKeys, Partition

HOSTILE_NAMES: Final = (
    "",
    ".",
    "..",
    "...",
    "../../x",
    "..\\..\\x",
    "/etc/passwd",
    "C:",
    "C:x",
    "C:\\x",
    "\\\\server\\share",
    "a/b",
    "a\x00b",
    "\x00",
    "a\nb",
    "CON",
    "nul",
    "A",
    "a",
    "a ",
    "a.",
    "%",
    "_",
    "' OR 1=1 --",
    "é",
    "e\u0301",
    "\ud800",
    "x" * 10_000,
)
"""Names that must be as good as any other, and none of them the same as another: paths, controls, what is folded."""

ALICE: Final = IsolationKeys(user_key="alice").partition
MALLORY: Final = IsolationKeys(user_key="mallory").partition

Reopen: TypeAlias = Callable[[], Checkpoints]
"""Makes `Checkpoints` over the same place, as a process does that is started again."""


def checkpoint(workflow_name: str = "workflow", **state: object) -> WorkflowCheckpoint:
    """Return a checkpoint with `state`."""
    return WorkflowCheckpoint(workflow_name=workflow_name, graph_signature_hash="hash", state=dict(state))


class CheckpointsSuite:
    """What `Checkpoints` must do. Subclass it and give it a fixture `checkpoints`: empty ones for every test."""

    async def test_a_saved_checkpoint_is_loaded_as_it_was(self, checkpoints: Checkpoints) -> None:
        chain = checkpoints.chain(SHARED, "chain")
        saved = checkpoint(
            told=["one", {"two": [3, 4.5, None, True]}],
            # What looks like the framework's own marks must come back as what it is.
            marked={"__pickled__": "gASVAA==", "__type__": "builtins:str"},
            said=[Message("user", [Content.from_text("höre \U0001f600 \x00")])],
            values=(Decimal("1.5"), datetime(2026, 1, 2, tzinfo=UTC), b"\x00\xff", {1, 2}),
        )
        saved.iteration_count = 3
        saved.previous_checkpoint_id = "before"
        saved.metadata = {"by": "test"}
        request = AgentExecutorRequest(messages=[Message("user", ["hi"])])
        saved.messages = {"executor": [WorkflowMessage(data=request, source_id="a", target_id="b")]}

        loaded = await chain.load(await chain.save(saved))

        messages, told = loaded.messages["executor"][0].data.messages, loaded.state.pop("said")
        assert [message.to_dict() for message in messages] == [message.to_dict() for message in request.messages]
        assert [message.to_dict() for message in told] == [message.to_dict() for message in saved.state.pop("said")]
        assert loaded.state == saved.state
        assert (loaded.checkpoint_id, loaded.previous_checkpoint_id) == (saved.checkpoint_id, "before")
        assert (loaded.workflow_name, loaded.graph_signature_hash) == ("workflow", "hash")
        assert (loaded.iteration_count, loaded.metadata, loaded.timestamp) == (3, {"by": "test"}, saved.timestamp)

    async def test_what_is_stored_does_not_change_with_what_was_saved_or_loaded(self, checkpoints: Checkpoints) -> None:
        chain = checkpoints.chain(SHARED, "chain")
        told = ["one"]
        checkpoint_id = await chain.save(checkpoint(told=told))
        told.append("two")
        (await chain.load(checkpoint_id)).state["told"].append("three")

        assert (await chain.load(checkpoint_id)).state == {"told": ["one"]}

    async def test_saving_again_under_the_same_id_replaces(self, checkpoints: Checkpoints) -> None:
        chain = checkpoints.chain(SHARED, "chain")
        saved = checkpoint(said="one")
        await chain.save(saved)
        saved.state["said"] = "two"

        await chain.save(saved)

        assert (await chain.load(saved.checkpoint_id)).state == {"said": "two"}
        assert await chain.list_checkpoint_ids(workflow_name="workflow") == [saved.checkpoint_id]

    async def test_lists_and_the_latest_are_of_one_workflow(self, checkpoints: Checkpoints) -> None:
        chain = checkpoints.chain(SHARED, "chain")
        ids = [await chain.save(checkpoint()) for _ in range(3)]
        other = await chain.save(checkpoint("other"))

        latest, latest_of_other = [await chain.get_latest(workflow_name=name) for name in ("workflow", "other")]

        assert latest is not None
        assert latest.checkpoint_id == ids[-1]
        assert latest_of_other is not None
        assert latest_of_other.checkpoint_id == other
        assert sorted(await chain.list_checkpoint_ids(workflow_name="workflow")) == sorted(ids)
        assert {found.checkpoint_id for found in await chain.list_checkpoints(workflow_name="workflow")} == set(ids)
        assert await chain.list_checkpoint_ids(workflow_name="other") == [other]

    async def test_an_empty_chain_has_nothing(self, checkpoints: Checkpoints) -> None:
        chain = checkpoints.chain(SHARED, "chain")

        assert await chain.list_checkpoints(workflow_name="workflow") == []
        assert await chain.list_checkpoint_ids(workflow_name="workflow") == []
        assert await chain.get_latest(workflow_name="workflow") is None
        assert await _lacks(chain, checkpoint().checkpoint_id)

    async def test_a_deleted_checkpoint_is_gone_and_no_other_is(self, checkpoints: Checkpoints) -> None:
        chain = checkpoints.chain(SHARED, "chain")
        first, second = await chain.save(checkpoint()), await chain.save(checkpoint(said="two"))

        assert await chain.delete(first)
        assert await _lacks(chain, first)
        assert (await chain.load(second)).state == {"said": "two"}
        assert await chain.list_checkpoint_ids(workflow_name="workflow") == [second]

    async def test_a_chain_can_be_written_again_after_its_last_checkpoint_was_deleted(
        self, checkpoints: Checkpoints
    ) -> None:
        chain = checkpoints.chain(SHARED, "chain")
        await chain.delete(await chain.save(checkpoint()))

        checkpoint_id = await chain.save(checkpoint(said="again"))

        assert (await checkpoints.chain(SHARED, "chain").load(checkpoint_id)).state == {"said": "again"}

    async def test_partitions_and_chains_do_not_see_each_other(self, checkpoints: Checkpoints) -> None:
        mine = checkpoints.chain(ALICE, "chain")
        saved = checkpoint(said="mine")
        await mine.save(saved)

        for partition, name in ((MALLORY, "chain"), (ALICE, "other"), (SHARED, "chain")):
            theirs = checkpoints.chain(partition, name)
            assert await _lacks(theirs, saved.checkpoint_id)
            assert await theirs.list_checkpoint_ids(workflow_name="workflow") == []
            assert await theirs.get_latest(workflow_name="workflow") is None
            # The same id in another place is another checkpoint.
            saved.state["said"] = "theirs"
            await theirs.save(saved)
            assert await theirs.delete(saved.checkpoint_id)

        assert (await mine.load(saved.checkpoint_id)).state == {"said": "mine"}

    async def test_hostile_names_of_partitions_and_chains_are_names_like_any_other(
        self, checkpoints: Checkpoints
    ) -> None:
        saved = checkpoint()
        places = [(Partition(name), "chain") for name in HOSTILE_NAMES] + [(SHARED, name) for name in HOSTILE_NAMES]
        for number, (partition, name) in enumerate(places):
            saved.state["place"] = number
            await checkpoints.chain(partition, name).save(saved)

        found = [(await checkpoints.chain(*place).load(saved.checkpoint_id)).state["place"] for place in places]

        assert found == list(range(len(places)))

    @pytest.mark.parametrize("checkpoint_id", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
    async def test_a_hostile_checkpoint_id_is_an_unknown_one(
        self, checkpoints: Checkpoints, checkpoint_id: str
    ) -> None:
        chain = checkpoints.chain(SHARED, "chain")
        await chain.save(checkpoint())

        assert await _lacks(chain, checkpoint_id)

    async def test_runs_that_save_into_a_chain_at_once_all_keep_their_checkpoints(
        self, checkpoints: Checkpoints
    ) -> None:
        ids = await asyncio.gather(*(checkpoints.chain(SHARED, "chain").save(checkpoint(run=n)) for n in range(20)))

        chain = checkpoints.chain(SHARED, "chain")
        assert sorted(await chain.list_checkpoint_ids(workflow_name="workflow")) == sorted(ids)
        assert [(await chain.load(checkpoint_id)).state["run"] for checkpoint_id in ids] == list(range(20))

    async def test_runs_that_save_and_erase_in_a_chain_at_once_disturb_nobody(self, checkpoints: Checkpoints) -> None:
        async def come_and_go(run: int) -> str:
            chain = checkpoints.chain(ALICE, "chain")
            for _ in range(5):
                assert await chain.delete(await chain.save(checkpoint(run=run)))
            return await chain.save(checkpoint(run=run))

        ids = await asyncio.gather(*(come_and_go(run) for run in range(8)))

        assert sorted(await checkpoints.chain(ALICE, "chain").list_checkpoint_ids(workflow_name="workflow")) == sorted(
            ids
        )


class DurableCheckpointsSuite(CheckpointsSuite):
    """What `Checkpoints` must do, too, that outlive the process. Give it a fixture `reopen` instead of `checkpoints`."""

    @pytest.fixture
    def checkpoints(self, reopen: Reopen) -> Checkpoints:
        return reopen()

    async def test_a_chain_goes_on_after_a_restart(self, reopen: Reopen) -> None:
        chain = reopen().chain(ALICE, "chain")
        first, second = await chain.save(checkpoint(said="one")), await chain.save(checkpoint(said="two"))

        again = reopen().chain(ALICE, "chain")
        third = await again.save(checkpoint(said="three"))
        latest = await again.get_latest(workflow_name="workflow")

        assert [(await again.load(i)).state["said"] for i in (first, second, third)] == ["one", "two", "three"]
        assert latest is not None
        assert latest.checkpoint_id == third

    async def test_two_processes_see_each_others_checkpoints(self, reopen: Reopen) -> None:
        here, there = reopen().chain(ALICE, "chain"), reopen().chain(ALICE, "chain")
        checkpoint_id = await here.save(checkpoint(said="here"))

        assert (await there.load(checkpoint_id)).state == {"said": "here"}
        assert await there.delete(checkpoint_id)
        assert await _lacks(here, checkpoint_id)

    async def test_a_value_whose_type_could_not_be_read_back_is_not_saved(self, reopen: Reopen) -> None:
        chain = reopen().chain(SHARED, "chain")

        for value in (_Unregistered(), [{"deep": (_Unregistered(),)}], print, _Unregistered):
            with pytest.raises(WorkflowCheckpointException):
                await chain.save(checkpoint(value=value))

        assert await chain.list_checkpoint_ids(workflow_name="workflow") == []


class _Unregistered:
    """A type of an application that nobody gave to `register_checkpoint_type`."""


async def _lacks(chain: CheckpointStorage, checkpoint_id: str) -> bool:
    """Return whether neither loading nor deleting finds the checkpoint."""
    with pytest.raises(WorkflowCheckpointException):
        await chain.load(checkpoint_id)
    return not await chain.delete(checkpoint_id)
