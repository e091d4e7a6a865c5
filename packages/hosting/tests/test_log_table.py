"""The transactions of logs: what they read is of one moment, and what they forget is gone."""

from __future__ import annotations

from functools import partial

from agent_framework_hosting.isolation import SHARED, Partition
from agent_framework_hosting.runs import log_table
from agent_framework_hosting.runs.base import RunId, RunKey
from agent_framework_hosting.runs.log_table import PAGE, LogState, LogStatements, Page, WriteBatch
from agent_framework_hosting.sql.database import Database

KEY = RunKey(SHARED, RunId("run"))


async def write(
    database: Database, count: int, *, key: RunKey = KEY, attempt: int = 1, closes: bool = False, stored_at: float = 1.0
) -> int:
    batch = WriteBatch(
        statements=LogStatements(database),
        key=key,
        attempt=attempt,
        entries=[("item", b"12345")] * count,
        closes=closes,
        stored_at=stored_at,
    )
    return await database.run(batch)


async def test_a_batch_gets_the_next_positions(database: Database) -> None:
    assert [await write(database, count) for count in (3, 0, 500, 1)] == [0, 3, 3, 503]
    assert await database.run(partial(log_table.read_state, key=KEY)) == LogState(504, None)


async def test_a_log_is_read_page_by_page_and_nothing_behind_its_end(database: Database) -> None:
    await write(database, PAGE + 2, closes=True, stored_at=7.0)
    state = LogState(PAGE + 2, 7.0)

    pages = [
        await database.run(partial(log_table.read_page, key=KEY, position=position))
        for position in (0, PAGE, PAGE + 2, 2**31, 2**63, 2**80)
    ]

    assert pages == [
        Page(state, [("item", b"12345")] * PAGE),
        Page(state, [("item", b"12345")] * 2),
        *[Page(state, [])] * 4,
    ]


async def test_many_logs_are_looked_at_in_one_transaction(database: Database) -> None:
    keys = [RunKey(Partition("p"), RunId(str(number))) for number in range(PAGE + 5)]
    for key in (keys[0], keys[-1]):
        await write(database, 2, key=key)

    states = await database.run(partial(log_table.read_states, keys=keys))
    pages = await database.run(partial(log_table.read_pages, wanted=[(keys[0], 1), (keys[1], 0)]))

    assert states == {keys[0]: LogState(2, None), keys[-1]: LogState(2, None)}
    assert pages == [Page(LogState(2, None), [("item", b"12345")]), None]


async def test_closed_logs_are_found_from_the_oldest_on(database: Database) -> None:
    keys = [RunKey(SHARED, RunId(str(number))) for number in range(5)]
    for key, closed_at in zip(keys, (50.0, 10.0, 30.0, 20.0, 99.0), strict=True):
        await write(database, 1, key=key, closes=True, stored_at=closed_at)
    await write(database, 1, stored_at=1.0)

    found = await database.run(partial(log_table.find_closed, before=50.0, limit=2))
    everything = await database.run(partial(log_table.find_closed, before=50.0, limit=9))

    assert found == [keys[1], keys[3]]
    assert everything == [keys[1], keys[3], keys[2]]


async def test_what_is_forgotten_leaves_neither_log_nor_events(database: Database) -> None:
    other = RunKey(Partition("other"), KEY.run_id)
    await write(database, 3)
    await write(database, 2, key=other, stored_at=5.0)

    await database.run(partial(log_table.forget_all, keys=[KEY]))

    assert await database.run(log_table.count) == (1, 10, 5.0)
    assert await database.run(partial(log_table.read_all, key=KEY)) == []
    assert await database.run(partial(log_table.read_all, key=other)) == [("item", b"12345")] * 2
    assert await database.run(partial(log_table.read_state, key=KEY)) is None
