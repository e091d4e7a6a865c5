"""Which questions have been answered, in the memory of one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from agent_framework_hosting.runs.base import Participant, RunKey
from agent_framework_hosting.stores.memory import BoundedDict

from .base import AnsweredAlready, QuestionKey


class MemorySettlements:
    """At most `max_entries` answered questions, each for at most `max_age` seconds.

    Bounds that are not below those of the responses: what is forgotten can be answered again.
    """

    def __init__(
        self,
        *,
        max_entries: int = 100_000,
        max_age: float = 30 * 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settled: BoundedDict[QuestionKey, RunKey] = BoundedDict(
            max_entries=max_entries, max_age=max_age, clock=clock
        )
        self._settlers: BoundedDict[RunKey, Collection[QuestionKey]] = BoundedDict(
            max_entries=max_entries, max_age=max_age, clock=clock
        )

    def settling(self, questions: Collection[QuestionKey], *, by: RunKey, owner: str = "") -> Participant:
        """Return what settles the questions. See `Settlements.settling`."""
        del owner  # when this process dies, nothing is left to be answered

        async def settle() -> None:
            for question in questions:
                if self._settled.get(question) is not None:
                    raise AnsweredAlready(question)
            for question in questions:
                self._settled.set(question, by)
            self._settlers.set(by, questions)

        return Participant(alone=settle)

    async def is_settled(self, question: QuestionKey) -> bool:
        """Whether the question has been answered. See `Settlements.is_settled`."""
        return self._settled.get(question) is not None

    async def confirm(self, questions: Collection[QuestionKey], *, by: RunKey) -> None:
        """Do nothing: what was settled stays so. See `Settlements.confirm`."""

    async def reopen(self, by: RunKey) -> None:
        """Say that the questions have not been answered. See `Settlements.reopen`."""
        for question in self._settlers.pop(by) or ():
            self._settled.pop(question)
