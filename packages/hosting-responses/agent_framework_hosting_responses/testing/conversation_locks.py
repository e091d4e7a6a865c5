"""What a store of conversations must do for the responses that run in them, as tests to inherit."""
# ruff: noqa: D102  the tests are named as sentences
# ruff: noqa: S101  they are tests

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from agent_framework_hosting.runs.base import RunStatus

from ..stores.base import ConversationLocked, ConversationRecord, Conversations, UnknownConversation
from .conversation_turns import (
    ADA,
    check_nothing_is_there,
    conversation_of,
    head_of,
    ids_of,
    items_of,
    message_of,
    session_of,
    take_turn,
    turn_of,
)

_TERMINAL = [status for status in RunStatus if status.is_terminal]


class ConversationLocksSuite:
    """`ConversationLocks`: one response at a time, and what becomes of its items."""

    async def test_one_response_runs_at_a_time(self, store: Conversations) -> None:
        record, other = conversation_of(), conversation_of("conv_2")
        foreign = conversation_of(partition=ADA)
        for each in (record, other, foreign):
            await store.create(each, [])
        head = await head_of(store, record)
        first, second = turn_of(record, "resp_1", head), turn_of(record, "resp_2", head)

        await store.lock(first)
        with pytest.raises(ConversationLocked):
            await store.lock(second)
        await store.lock(turn_of(other, "resp_2", head))
        await store.lock(turn_of(foreign, "resp_1", head))
        await store.finish(first)
        second = turn_of(record, "resp_2", await head_of(store, record))
        await store.lock(second)

        with pytest.raises(ConversationLocked):
            await store.lock(first)

    async def test_of_concurrent_responses_one_runs(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])
        head = await head_of(store, record)

        results = await asyncio.gather(
            *(store.lock(turn_of(record, f"resp_{number}", head)) for number in range(20)), return_exceptions=True
        )

        assert [result for result in results if not isinstance(result, ConversationLocked)] == [None]

    async def test_there_is_nothing_to_take_where_no_conversation_is(self, store: Conversations) -> None:
        record, foreign = conversation_of(), conversation_of(partition=ADA)
        await store.create(record, [])
        turn = turn_of(foreign, "resp_1", await head_of(store, record))

        with pytest.raises(UnknownConversation):
            await store.lock(turn)
        await store.finish(turn)

        assert await items_of(store, record) == []

    @pytest.mark.parametrize("status", _TERMINAL)
    async def test_the_end_of_a_response_frees_the_conversation_and_appends_what_is_finished(
        self, store: Conversations, status: RunStatus
    ) -> None:
        record = conversation_of()
        await store.create(record, [message_of("msg_1")])

        await take_turn(store, record, "resp_1", status=status)

        is_appended = status in {RunStatus.COMPLETED, RunStatus.INCOMPLETE}
        expected = ["msg_1", "msg_resp_1_question", "msg_resp_1_answer"] if is_appended else ["msg_1"]
        assert await ids_of(store, record) == expected
        assert session_of(await head_of(store, record)) == (("resp_1", 0) if is_appended else (None, 1))
        await take_turn(store, record, "resp_2")
        assert await ids_of(store, record) == [*expected, "msg_resp_2_question", "msg_resp_2_answer"]

    async def test_only_the_response_that_has_the_conversation_can_finish_in_it(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])
        head = await head_of(store, record)
        running, stranger = turn_of(record, "resp_1", head), turn_of(record, "resp_2", head)
        await store.lock(running)

        await store.finish(stranger)
        with pytest.raises(ConversationLocked):
            await store.lock(stranger)
        await store.finish(running)
        await store.finish(running)

        assert await ids_of(store, record) == ["msg_resp_1_question", "msg_resp_1_answer"]

    async def test_a_deleted_conversation_is_not_brought_back_by_the_end_of_a_response(
        self, store: Conversations
    ) -> None:
        record = conversation_of()
        await store.create(record, [])
        turn = turn_of(record, "resp_1", await head_of(store, record))
        await store.lock(turn)

        assert await store.delete(record.key)
        await store.finish(turn)

        await check_nothing_is_there(store, record)
        await store.create(record, [])
        await store.finish(turn)
        assert await items_of(store, record) == []
        await take_turn(store, record, "resp_2")

    async def test_a_conversation_can_be_changed_while_a_response_runs(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [message_of("msg_1"), message_of("msg_2")])
        turn = turn_of(record, "resp_1", await head_of(store, record))
        await store.lock(turn)

        await store.append(record.key, [message_of("msg_3")])
        await store.remove(record.key, "msg_1")
        await store.update(record.key, {"a": "1"})
        assert await ids_of(store, record) == ["msg_2", "msg_3"]
        await store.finish(turn)

        assert await ids_of(store, record) == ["msg_2", "msg_3", "msg_resp_1_question", "msg_resp_1_answer"]
        assert await store.get(record.key) == replace(record, metadata={"a": "1"})

    async def test_the_latest_session_is_continued(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [message_of("msg_1")])

        await take_turn(store, record, "resp_1")
        await take_turn(store, record, "resp_2")

        await _check_session(store, record, "resp_2", unknown=0)

    async def test_a_session_does_not_know_what_came_after_it(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])
        await take_turn(store, record, "resp_1")

        await store.append(record.key, [message_of("msg_1")])
        await _check_session(store, record, "resp_1", unknown=1)
        await take_turn(store, record, "resp_2", has_session=False)
        await _check_session(store, record, "resp_1", unknown=3)
        await take_turn(store, record, "resp_3", status=RunStatus.FAILED)
        await _check_session(store, record, "resp_1", unknown=3)
        await take_turn(store, record, "resp_4")

        await _check_session(store, record, "resp_4", unknown=0)

    async def test_a_session_that_missed_an_item_is_not_continued(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])
        await take_turn(store, record, "resp_1")
        turn = turn_of(record, "resp_2", await head_of(store, record))
        await store.lock(turn)

        await store.append(record.key, [message_of("msg_1")])
        await store.finish(turn)

        await _check_session(store, record, "resp_1", unknown=3)

    async def test_a_response_that_was_prepared_before_another_ended_is_refused(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])
        late = turn_of(record, "resp_2", await head_of(store, record))
        await take_turn(store, record, "resp_1")

        with pytest.raises(ConversationLocked):
            await store.lock(late)

        await store.lock(turn_of(record, "resp_3", await head_of(store, record)))

    async def test_no_session_that_knows_a_removed_item_is_continued(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [message_of("msg_1")])
        await take_turn(store, record, "resp_1")

        await store.remove(record.key, "msg_1")

        await _check_session(store, record, None, unknown=2)
        await take_turn(store, record, "resp_2")
        await _check_session(store, record, "resp_2", unknown=0)

    @pytest.mark.parametrize("which", ["question", "answer"])
    async def test_the_session_before_a_removed_item_is_continued(self, store: Conversations, which: str) -> None:
        record = conversation_of()
        await store.create(record, [message_of("msg_1")])
        for name in ("resp_1", "resp_2", "resp_3"):
            await take_turn(store, record, name)

        await store.remove(record.key, f"msg_resp_2_{which}")

        await _check_session(store, record, "resp_1", unknown=3)

    async def test_a_removed_item_that_a_session_does_not_know_leaves_the_session(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])
        await take_turn(store, record, "resp_1")
        await store.append(record.key, [message_of("msg_1"), message_of("msg_2")])

        await store.remove(record.key, "msg_1")

        await _check_session(store, record, "resp_1", unknown=1)

    async def test_no_session_that_saw_an_item_which_was_removed_meanwhile_is_continued(
        self, store: Conversations
    ) -> None:
        record = conversation_of()
        await store.create(record, [message_of("msg_1"), message_of("msg_2")])
        turn = turn_of(record, "resp_1", await head_of(store, record))

        await store.lock(turn)
        await store.remove(record.key, "msg_1")
        await store.finish(turn)

        await _check_session(store, record, None, unknown=3)
        assert await ids_of(store, record) == ["msg_2", "msg_resp_1_question", "msg_resp_1_answer"]

    async def test_an_item_that_a_response_brings_again_gets_a_new_id(self, store: Conversations) -> None:
        record = conversation_of()
        first, again = message_of("msg_1", "first"), message_of("msg_1", "again")
        await store.create(record, [first])

        await take_turn(store, record, "resp_1", input=(again, message_of("msg_2"), message_of("msg_2")))

        found = await items_of(store, record)
        names = [str(item["id"]) for item in found]
        assert len(set(names)) == 5
        assert (names[0], names[2], names[4]) == ("msg_1", "msg_2", "msg_resp_1_answer")
        assert found[1] == {**again, "id": names[1]}
        assert names[1].startswith("msg_")
        assert await store.item(record.key, "msg_1") == first
        await _check_session(store, record, "resp_1", unknown=0)

    async def test_an_answer_whose_id_was_taken_meanwhile_is_not_lost(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])
        turn = turn_of(record, "resp_1", await head_of(store, record))
        await store.lock(turn)

        await store.append(record.key, [message_of("msg_resp_1_answer", "not the answer")])
        await store.finish(turn)

        found = await items_of(store, record)
        assert [item["role"] for item in found] == ["user", "user", "assistant"]
        assert found[0] == message_of("msg_resp_1_answer", "not the answer")
        assert found[2] == {**turn.output[0], "id": found[2]["id"]}

    async def test_the_context_says_which_items_are_whose(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [message_of("msg_1")])
        await take_turn(store, record, "resp_1")
        await store.append(record.key, [message_of("msg_2")])
        await take_turn(store, record, "resp_2", input=())
        await store.append(record.key, [message_of("msg_3")])
        await store.remove(record.key, "msg_resp_1_question")

        owners = [
            (node.response_id, item["id"])
            for node in (await head_of(store, record)).context.nodes()
            for item in reversed(node.items)
        ]

        assert owners[::-1] == [
            (None, "msg_1"),
            ("resp_1", "msg_resp_1_answer"),
            (None, "msg_2"),
            ("resp_2", "msg_resp_2_answer"),
            (None, "msg_3"),
        ]

    async def test_what_the_answer_to_an_approval_needs_stays_with_the_request(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])
        asked = tuple(
            {
                "id": f"mcpr_{number}",
                "type": "mcp_approval_request",
                "server_label": "s",
                "name": "f",
                "arguments": "{}",
            }
            for number in (1, 2)
        )
        notes = {f"mcpr_{number}": {"call_id": f"call_{number}", "arguments": {"a": [1]}} for number in (1, 2)}
        await take_turn(store, record, "resp_1", output=asked, approvals=notes)
        await take_turn(store, record, "resp_2")

        assert (await head_of(store, record)).context.all_approvals() == notes
        await store.remove(record.key, "mcpr_1")

        assert (await head_of(store, record)).context.all_approvals() == {"mcpr_2": notes["mcpr_2"]}

    async def test_call_ids_of_the_target_stay_with_the_calls(self, store: Conversations) -> None:
        record = conversation_of()
        await store.create(record, [])
        call = {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_wire",
            "name": "f",
            "arguments": "{}",
        }
        await take_turn(store, record, "resp_1", output=(call,), call_ids={"call_wire": "\x00"})
        await store.remove(record.key, "msg_resp_1_question")

        assert (await head_of(store, record)).context.all_call_ids() == {"call_wire": "\x00"}


async def _check_session(store: Conversations, record: ConversationRecord, name: str | None, *, unknown: int) -> None:
    assert session_of(await head_of(store, record)) == (name, unknown)
