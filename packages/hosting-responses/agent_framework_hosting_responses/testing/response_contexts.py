"""What a store of responses must do for responses that continue others, as tests to inherit."""
# ruff: noqa: D102  the tests are named as sentences
# ruff: noqa: S101  they are tests

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from agent_framework_hosting.runs.base import RunStatus

from ..stores.base import Conversations, ResponseStore
from .conversation_turns import conversation_of, head_of, message_of
from .response_turns import (
    ADA,
    TERMINAL,
    check_nothing_is_there,
    context_of,
    ended,
    ended_of,
    key_of,
    run,
    running_of,
    take_turn,
    turns_of,
)


class ResponseContextsSuite:
    """`ResponseStore.context`: what a response leaves to those that continue it."""

    @pytest.mark.parametrize("is_one_shot", [True, False])
    async def test_the_context_after_a_response_is_what_it_was_asked_and_answered(
        self, store: ResponseStore, *, is_one_shot: bool
    ) -> None:
        approvals = {"mcpr_1": {"id": "mcpr_1", "request_id": "\ud800"}}
        done = ended_of("resp_1", approvals=approvals, call_ids={"call_1": "own"})
        if is_one_shot:
            await store.create(done)
        else:
            running = running_of("resp_1")
            await store.save(await run(store, running), done)

        node = await context_of(store, "resp_1")

        assert node.items == (*done.input, *done.output)
        assert (node.parent, node.response_id, node.has_session, node.length) == (None, "resp_1", True, 2)
        assert (node.all_approvals(), node.all_call_ids()) == (approvals, {"call_1": "own"})

    async def test_a_chain_has_everything_since_its_start(self, store: ResponseStore) -> None:
        names = [f"resp_{number}" for number in range(8)]
        for name, previous in zip(names, [None, *names[:-1]], strict=True):
            await take_turn(store, name, previous, call_ids={name: name.upper()})

        for number, name in enumerate(names):
            assert await turns_of(store, name) == names[: number + 1]
        context = await context_of(store, names[-1])
        assert context.all_call_ids() == {name: name.upper() for name in names}
        assert all(node.has_session for node in context.nodes())

    async def test_one_shots_are_continued_too(self, store: ResponseStore) -> None:
        await store.create(ended_of("resp_1"))
        await store.create(ended_of("resp_2", previous_response_id="resp_1"), await context_of(store, "resp_1"))
        await store.create(ended_of("resp_3", previous_response_id="resp_2"), await context_of(store, "resp_2"))

        assert await turns_of(store, "resp_3") == ["resp_1", "resp_2", "resp_3"]
        assert await turns_of(store, "resp_2") == ["resp_1", "resp_2"]

    async def test_branches_know_nothing_of_each_other(self, store: ResponseStore) -> None:
        await take_turn(store, "root")
        await take_turn(store, "a_1", "root")
        await asyncio.gather(take_turn(store, "a_2", "a_1"), take_turn(store, "b_1", "root"))
        await asyncio.gather(*(take_turn(store, f"c_{number}", "root") for number in range(5)))
        await take_turn(store, "b_2", "b_1")

        assert await turns_of(store, "a_2") == ["root", "a_1", "a_2"]
        assert await turns_of(store, "b_2") == ["root", "b_1", "b_2"]
        for number in range(5):
            assert await turns_of(store, f"c_{number}") == ["root", f"c_{number}"]
        assert await turns_of(store, "root") == ["root"]

    @pytest.mark.parametrize("status", TERMINAL)
    async def test_every_end_leaves_a_context(self, store: ResponseStore, status: RunStatus) -> None:
        await take_turn(store, "resp_1")
        await take_turn(store, "resp_2", "resp_1", status=status, has_session=False)
        await take_turn(store, "resp_3", "resp_2")

        assert await turns_of(store, "resp_3") == ["resp_1", "resp_2", "resp_3"]
        nodes = (await context_of(store, "resp_3")).nodes()
        assert [node.has_session for node in nodes] == [True, False, True]

    async def test_a_response_that_runs_has_what_it_was_asked(self, store: ResponseStore) -> None:
        await take_turn(store, "resp_1")
        running = running_of("resp_2", previous_response_id="resp_1")
        attempt = await run(store, running, await context_of(store, "resp_1"))

        assert (await context_of(store, "resp_2")).items == running.input
        await store.save(attempt, ended(running))

        assert (await context_of(store, "resp_2")).items == ended(running).input + ended(running).output

    async def test_chains_of_two_partitions_with_the_same_ids_do_not_touch(self, store: ResponseStore) -> None:
        await take_turn(store, "resp_1")
        await take_turn(store, "resp_2", "resp_1")
        other = ended_of("resp_1", partition=ADA, input=(message_of("msg_ada"),))
        await store.create(other)

        assert await turns_of(store, "resp_2") == ["resp_1", "resp_2"]
        context = await store.context(other.key)
        assert context is not None
        assert context.all_items() == (*other.input, *other.output)
        await store.delete(other.key)
        assert await turns_of(store, "resp_2") == ["resp_1", "resp_2"]

    @pytest.mark.parametrize("gone", [["a"], ["b"], ["c"], ["a", "b"], ["b", "a"], ["a", "b", "c"], ["c", "a", "b"]])
    async def test_what_a_deleted_response_left_stays_with_those_that_continue_it(
        self, store: ResponseStore, gone: list[str]
    ) -> None:
        for name, previous in (("a", None), ("b", "a"), ("c", "b"), ("d", "c"), ("e", "d")):
            await take_turn(store, name, previous)

        for name in gone:
            assert await store.delete(key_of(name))
            await check_nothing_is_there(store, key_of(name))

        assert await turns_of(store, "d") == ["a", "b", "c", "d"]
        await take_turn(store, "f", "d")
        await take_turn(store, "g", "e")
        assert await turns_of(store, "f") == ["a", "b", "c", "d", "f"]
        assert await turns_of(store, "g") == ["a", "b", "c", "d", "e", "g"]

    async def test_a_branch_outlives_the_other(self, store: ResponseStore) -> None:
        await take_turn(store, "root")
        for name in ("a", "b"):
            await take_turn(store, f"{name}_1", "root")
            await take_turn(store, f"{name}_2", f"{name}_1")

        for name in ("root", "a_1", "a_2", "b_1"):
            assert await store.delete(key_of(name))

        assert await turns_of(store, "b_2") == ["root", "b_1", "b_2"]

    async def test_a_response_may_be_deleted_while_another_one_continues_it(self, store: ResponseStore) -> None:
        await take_turn(store, "resp_1")
        await take_turn(store, "resp_2", "resp_1")
        running = running_of("resp_3", previous_response_id="resp_2")
        attempt = await run(store, running, await context_of(store, "resp_2"))

        for name in ("resp_1", "resp_2"):
            assert await store.delete(key_of(name))
        await store.save(attempt, ended(running))

        assert await turns_of(store, "resp_3") == ["resp_1", "resp_2", "resp_3"]

    @pytest.mark.parametrize("is_one_shot", [True, False])
    async def test_a_response_that_was_deleted_before_the_next_one_was_stored_is_not_missing_in_it(
        self, store: ResponseStore, *, is_one_shot: bool
    ) -> None:
        await take_turn(store, "resp_1")
        await take_turn(store, "resp_2", "resp_1", call_ids={"call_1": "own"})
        context = await context_of(store, "resp_2")
        for name in ("resp_2", "resp_1"):
            assert await store.delete(key_of(name))

        running = running_of("resp_3", previous_response_id="resp_2")
        if is_one_shot:
            await store.create(ended(running), context)
        else:
            await store.save(await run(store, running, context), ended(running))

        await check_nothing_is_there(store, key_of("resp_2"))
        await take_turn(store, "resp_4", "resp_3")
        found = await context_of(store, "resp_4")
        expected = [f"msg_resp_{number}_{part}" for number in range(1, 5) for part in ("question", "answer")]
        assert [item["id"] for item in found.all_items()] == expected
        assert found.all_call_ids() == {"call_1": "own"}

    async def test_a_long_chain_is_whole(self, store: ResponseStore) -> None:
        names = [f"resp_{number}" for number in range(150)]
        for name, previous in zip(names, [None, *names[:-1]], strict=True):
            context = None if previous is None else await context_of(store, previous)
            await store.create(ended_of(name, previous_response_id=previous), context)

        assert await turns_of(store, names[-1]) == names

    async def test_the_context_of_a_response_in_a_conversation_is_what_the_conversation_was(
        self, store: ResponseStore, conversations: Conversations
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [message_of("msg_1")])
        for name in ("resp_1", "resp_2"):
            head = await head_of(conversations, record)
            running = running_of(name, conversation_id=record.key.conversation_id, conversation_position=head.position)
            attempt = await run(store, running, head.context)
            await store.save(attempt, ended(running))
            await conversations.append(record.key, [message_of(f"msg_after_{name}")])

        found = [item["id"] for item in (await context_of(store, "resp_2")).all_items()]

        first = ["msg_1", "msg_resp_1_question", "msg_resp_1_answer"]
        expected = [*first, "msg_after_resp_1", "msg_resp_2_question", "msg_resp_2_answer"]
        assert found == expected
        assert [item["id"] for item in (await context_of(store, "resp_1")).all_items()] == first
        await take_turn(store, "resp_3", "resp_2")
        await take_turn(store, "resp_4", "resp_3")
        found = [item["id"] for item in (await context_of(store, "resp_4")).all_items()]
        assert found[: len(expected)] == expected
        assert len(found) == len(expected) + 4
        assert [node.response_id for node in (await context_of(store, "resp_4")).nodes()][:3] == [
            "resp_4",
            "resp_3",
            "resp_2",
        ]

    async def test_an_item_that_was_removed_from_a_conversation_is_in_no_context_that_begins_there(
        self, store: ResponseStore, conversations: Conversations
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [message_of("msg_1"), message_of("msg_2")])
        head = await head_of(conversations, record)
        running = running_of("resp_1", conversation_id=record.key.conversation_id, conversation_position=head.position)
        attempt = await run(store, running, head.context)
        await store.save(attempt, ended(running))
        await take_turn(store, "resp_2", "resp_1")
        own = ["msg_resp_1_question", "msg_resp_1_answer"]

        await conversations.remove(record.key, "msg_1")
        # A response keeps what it was asked itself.
        await conversations.remove(record.key, own[0])

        first, second = await context_of(store, "resp_1"), await context_of(store, "resp_2")
        assert [item["id"] for item in first.all_items()] == ["msg_2", *own]
        assert [item["id"] for item in second.all_items()][:3] == ["msg_2", *own]
        assert [node.response_id for node in second.nodes()][:2] == ["resp_2", "resp_1"]
        await conversations.delete(record.key)
        assert [item["id"] for item in (await context_of(store, "resp_1")).all_items()] == own

    async def test_a_conversation_that_goes_on_does_not_change_what_continues_one_of_its_responses(
        self, store: ResponseStore, conversations: Conversations
    ) -> None:
        record = conversation_of()
        await conversations.create(record, [])
        head = await head_of(conversations, record)
        done = replace(
            ended_of("resp_1"), conversation_id=record.key.conversation_id, conversation_position=head.position
        )
        await store.create(done, head.context)
        await take_turn(store, "branch", "resp_1")

        await conversations.append(record.key, [message_of("msg_1")])

        assert await turns_of(store, "branch") == ["resp_1", "branch"]
