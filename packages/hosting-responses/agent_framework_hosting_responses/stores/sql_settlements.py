"""Which questions have been answered, in a SQL database.

Two who answer at the same time write the same row, and the database lets one of them. Where a response waits for answers,
one that has failed has given none, also if its process died before it could say so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

import sqlalchemy as sa

from agent_framework_hosting.errors import StaleWrite
from agent_framework_hosting.runs.base import Participant, RunKey, RunStatus
from agent_framework_hosting.sql.database import Database

from .base import AnsweredAlready, QuestionKey
from .rows import key_text
from .tables import responses, settlements

_THIS = sa.and_(
    settlements.c.partition == sa.bindparam("p"),
    settlements.c.response_id == sa.bindparam("r"),
    settlements.c.question == sa.bindparam("q"),
)
_HAS_FAILED: Final = (
    sa.select(sa.literal(1))
    .where(
        responses.c.partition == settlements.c.partition,
        responses.c.id == settlements.c.settled_by,
        responses.c.is_deleted.is_(sa.false()),
        responses.c.status.in_([RunStatus.FAILED.value, RunStatus.CANCELLED.value]),
    )
    .correlate(settlements)
    .exists()
)
_REOPEN_FAILED = sa.delete(settlements).where(_THIS, settlements.c.question == "", _HAS_FAILED)
_IS_SETTLED = sa.select(settlements.c.settled_by).where(_THIS, sa.or_(settlements.c.question != "", ~_HAS_FAILED))
_REOPEN = sa.delete(settlements).where(
    settlements.c.partition == sa.bindparam("p"), settlements.c.settled_by == sa.bindparam("by")
)
_CONFIRM = (
    sa.update(settlements)
    .where(settlements.c.partition == sa.bindparam("p"), settlements.c.settled_by == sa.bindparam("answer"))
    .values(owner=None)
)
_FIND_ASKERS = sa.select(responses.c.id).where(
    sa.tuple_(responses.c.partition, responses.c.id).in_(sa.bindparam("askers", expanding=True)),
    responses.c.is_deleted.is_(sa.false()),
)
_RELEASE = sa.delete(settlements).where(settlements.c.owner == sa.bindparam("dead"))


class SqlSettlements:
    """Answered questions in a database; they go with the responses that have asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = database.insert(settlements).on_conflict_do_nothing().execution_options(preserve_rowcount=True)

    def settling(self, questions: Collection[QuestionKey], *, by: RunKey, owner: str = "") -> Participant:
        """Return what settles the questions. See `Settlements.settling`."""
        # In one order for all: two who settle the same ones must not wait for each other.
        settle = partial(self._settle, questions=sorted(questions), by=by, owner=owner)

        async def alone() -> None:
            await self._database.run(settle)

        return Participant(alone=alone, within=settle, url=self._database.url)

    async def is_settled(self, question: QuestionKey) -> bool:
        """Whether the question has been answered. See `Settlements.is_settled`."""
        names = {"p": question.partition, "r": question.response_id, "q": key_text(question.question)}
        return await self._database.run(lambda connection: connection.execute(_IS_SETTLED, names).first()) is not None

    async def confirm(self, questions: Collection[QuestionKey], *, by: RunKey) -> None:
        """Say that a response which is not stored ends well. See `Settlements.confirm`."""
        await self._database.run(partial(self._confirm, questions=questions, by=by))

    async def release(self, owner: str) -> int:
        """Open again what the process was about to answer with responses that are not stored; return how many questions."""
        return await self._database.run(lambda connection: connection.execute(_RELEASE, {"dead": owner}).rowcount)

    async def reopen(self, by: RunKey) -> None:
        """Say that the questions have not been answered. See `Settlements.reopen`."""
        values = {"p": by.partition, "by": by.run_id}
        await self._database.run(lambda connection: connection.execute(_REOPEN, values))

    @staticmethod
    def _confirm(connection: sa.Connection, *, questions: Collection[QuestionKey], by: RunKey) -> None:
        if connection.execute(_CONFIRM, {"p": by.partition, "answer": by.run_id}).rowcount:
            return
        askers = {(question.partition, question.response_id) for question in questions}
        if connection.execute(_FIND_ASKERS, {"askers": list(askers)}).first() is not None:
            raise StaleWrite("The questions were opened again.")

    def _settle(self, connection: sa.Connection, *, questions: Sequence[QuestionKey], by: RunKey, owner: str) -> None:
        for question in questions:
            name = key_text(question.question)
            connection.execute(_REOPEN_FAILED, {"p": question.partition, "r": question.response_id, "q": name})
            row = {
                "partition": question.partition,
                "response_id": question.response_id,
                "question": name,
                "settled_by": by.run_id,
                # A named question is a tool, which may have run.
                "owner": (owner or None) if not question.question else None,
            }
            if not connection.execute(self._insert, row).rowcount:
                raise AnsweredAlready(question)
