"""Answered questions in databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from agent_framework_hosting.errors import StaleWrite
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting_responses.stores.base import (
    AnsweredAlready,
    ConversationId,
    ConversationKey,
    ConversationRecord,
    QuestionKey,
    ResponseRecord,
)
from agent_framework_hosting_responses.stores.sql_conversations import SqlConversationStore
from agent_framework_hosting_responses.stores.sql_responses import SqlResponseStore
from agent_framework_hosting_responses.stores.sql_settlements import SqlSettlements
from agent_framework_hosting_responses.stores.tables import settlements as table
from agent_framework_hosting_responses.testing.settlements import ADA, FIRST, WAITS, SettlementsSuite, by


class TestSqlSettlements(SettlementsSuite):
    """Each kind of database."""

    @pytest.fixture
    def settlements(self, database: Database) -> SqlSettlements:
        return SqlSettlements(database)


def answering(number: int, *, previous: str | None = None) -> ResponseRecord:
    return ResponseRecord(
        key=by(number), status=RunStatus.IN_PROGRESS, created_at=1, body=b"{}", attempt=1, previous_response_id=previous
    )


async def test_a_response_and_what_it_settles_are_stored_together_or_not_at_all(database: Database) -> None:
    responses, settlements = SqlResponseStore(database), SqlSettlements(database)
    first = settlements.settling([FIRST], by=by(1))
    await responses.create(answering(1), None, [first])
    await first.finish()

    with pytest.raises(AnsweredAlready):
        await responses.create(answering(2), None, [settlements.settling([FIRST], by=by(2))])

    assert await responses.get(by(2)) is None
    assert await responses.get(by(1)) is not None


async def test_a_response_that_failed_unseen_has_answered_nothing_that_is_waited_for(database: Database) -> None:
    responses, settlements = SqlResponseStore(database), SqlSettlements(database)
    await responses.create(answering(1), None, [settlements.settling([FIRST, WAITS], by=by(1))])
    with pytest.raises(AnsweredAlready):
        await settlements.settling([WAITS], by=by(2)).finish()
    attempt = await responses.begin(by(1))
    assert attempt is not None

    await responses.save(attempt, replace(answering(1), status=RunStatus.FAILED))

    await settlements.settling([WAITS], by=by(2)).finish()
    with pytest.raises(AnsweredAlready):
        await settlements.settling([FIRST], by=by(2)).finish()


async def test_what_a_dead_process_was_about_to_answer_without_storing_it_is_open_again(database: Database) -> None:
    responses, settlements = SqlResponseStore(database), SqlSettlements(database)
    others = [WAITS._replace(response_id=f"resp_{number}") for number in (2, 3)]
    await settlements.settling([FIRST, WAITS], by=by(1), owner="dead").finish()
    await settlements.settling(others[:1], by=by(2), owner="dead").finish()
    await settlements.settling(others[1:], by=by(3), owner="alive").finish()
    await settlements.confirm(others[:1], by=by(2))
    assert await responses.running_owners() == {"dead", "alive"}

    assert await settlements.release("dead") == 1

    assert await responses.running_owners() == {"alive"}
    await settlements.settling([WAITS], by=by(4)).finish()
    # The tool may have run; the answer was given; the process lives.
    for question in (FIRST, *others):
        with pytest.raises(AnsweredAlready):
            await settlements.settling([question], by=by(5)).finish()


async def test_what_was_opened_again_is_not_confirmed_unless_nobody_can_answer_it_any_more(database: Database) -> None:
    responses, settlements = SqlResponseStore(database), SqlSettlements(database)
    await responses.create(replace(answering(1), status=RunStatus.COMPLETED))
    question = QuestionKey(ADA, by(1).run_id)
    await settlements.settling([question], by=by(2), owner="dead").finish()
    await settlements.release("dead")
    with pytest.raises(StaleWrite):
        await settlements.confirm([question], by=by(2))

    await responses.delete(by(1))

    await settlements.confirm([question], by=by(2))


async def test_what_was_answered_is_forgotten_with_the_response_that_has_asked(database: Database) -> None:
    responses, settlements = SqlResponseStore(database), SqlSettlements(database)
    asked = replace(answering(1), status=RunStatus.COMPLETED)
    await responses.create(asked)
    question = QuestionKey(ADA, by(1).run_id)
    answer = replace(answering(2, previous=by(1).run_id), status=RunStatus.COMPLETED)
    await responses.create(answer, asked.context_after(None), [settlements.settling([question], by=by(2))])

    async def kept() -> int:
        count = sa.select(sa.func.count()).select_from(table)
        return await database.run(lambda connection: connection.execute(count).scalar_one())

    await responses.delete(by(1))
    assert await kept() == 1
    await responses.delete(RunKey(ADA, RunId(by(2).run_id)))
    assert await kept() == 0


async def test_what_was_answered_after_who_has_asked_was_erased_is_forgotten_with_the_conversation(
    database: Database,
) -> None:
    responses, settlements, conversations = (
        SqlResponseStore(database),
        SqlSettlements(database),
        SqlConversationStore(database),
    )
    key = ConversationKey(ADA, ConversationId("conv_1"))
    await conversations.create(ConversationRecord(key=key, created_at=1, metadata={}), [])
    for number in (1, 2):
        said = {"type": "message", "id": f"msg_{number}"}
        asked = replace(
            answering(number),
            status=RunStatus.COMPLETED,
            conversation_id="conv_1",
            conversation_position=number - 1,
            input=(said,),
        )
        await responses.create(asked)
    await responses.delete(by(1))
    questions = [QuestionKey(ADA, by(number).run_id, "mcpr_1") for number in (1, 2)]
    await settlements.settling(questions, by=by(3)).finish()

    await conversations.delete(key)

    await settlements.settling(questions[:1], by=by(4)).finish()
    with pytest.raises(AnsweredAlready):
        await settlements.settling(questions[1:], by=by(4)).finish()
