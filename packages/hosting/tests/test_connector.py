"""sql/queue/connector.py: how Procrastinate's worker reaches the queue, also when the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import psycopg
import pytest
import sqlalchemy as sa
from postgres import PostgresServer
from procrastinate.jobs import Job, Status

from agent_framework_hosting.errors import StoreUnavailable
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import RunId, RunKey
from agent_framework_hosting.sql import database
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.sql.queue import jobs
from agent_framework_hosting.sql.queue.connector import QueueConnector, QueueManager

KEY = RunKey(SHARED, RunId("run_1"))
QUEUES = [jobs.queue_of("hold")]
PATIENCE = 60.0


@pytest.fixture
async def queue(postgres_url: str) -> AsyncGenerator[Database, None]:
    opened = Database(database.postgres_url(postgres_url))
    opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def connector(queue: Database) -> QueueConnector:
    return QueueConnector(queue)


@pytest.fixture
def manager(connector: QueueConnector) -> QueueManager:
    return QueueManager(connector)


async def test_a_statement_waits_for_a_database_that_is_away(
    connector: QueueConnector, postgres: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with postgres.outage(postgres_url):
        asked = asyncio.create_task(connector.execute_query_one_async("SELECT %(number)s::int AS number", number=7))
        async with asyncio.timeout(PATIENCE):
            while "The queue cannot be reached" not in caplog.text:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
        assert not asked.done()

    async with asyncio.timeout(PATIENCE):
        assert await asked == {"number": 7}
    assert caplog.text.count("The queue cannot be reached") == 1


async def test_a_closed_connector_does_not_wait(
    connector: QueueConnector, postgres: PostgresServer, postgres_url: str
) -> None:
    connector.is_closed = True

    with postgres.outage(postgres_url), pytest.raises(StoreUnavailable):
        await connector.execute_query_async("SELECT 1")


async def test_what_is_wrong_with_a_statement_is_not_waited_for(connector: QueueConnector) -> None:
    with pytest.raises(sa.exc.ProgrammingError):
        await connector.execute_query_async("SELECT nothing FROM nowhere")


async def test_notices_are_heard_again_after_a_cut(
    connector: QueueConnector, manager: QueueManager, postgres: PostgresServer, postgres_url: str
) -> None:
    heard: asyncio.Queue[int] = asyncio.Queue()

    async def on_notification(*, channel: str, notification: object) -> None:
        heard.put_nowait(connector.notices)

    listening = asyncio.create_task(manager.listen_for_jobs(on_notification=on_notification, queues=QUEUES))
    listens = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    for _ in range(2):
        async with (
            asyncio.timeout(PATIENCE),
            await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as operator,
        ):
            while not await (await operator.execute(listens)).fetchall():  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
            await operator.execute("""NOTIFY "procrastinate_queue_v1#afhost:hold", '{"type": "job_inserted"}'""")
            assert await heard.get() == connector.notices
        postgres.disconnect(postgres_url)

    assert connector.notices == 2
    listening.cancel()
    await asyncio.wait({listening})


@pytest.mark.parametrize("password", ["pass word", "pass/word?", "pass@word%20"])
async def test_any_password_will_do_to_listen(postgres_url: str, password: str) -> None:
    url = database.postgres_url(postgres_url).set(username="postgres", password=password)
    queue = Database(url)
    queue.open()
    manager = QueueManager(connector := QueueConnector(queue))

    async def on_notification(*, channel: str, notification: object) -> None:
        pass

    listening = asyncio.create_task(manager.listen_for_jobs(on_notification=on_notification, queues=QUEUES))
    async with (
        asyncio.timeout(PATIENCE),
        await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as operator,
    ):
        while not connector.notices and not listening.done():
            await operator.execute("""NOTIFY "procrastinate_queue_v1#afhost:hold", '{"type": "job_inserted"}'""")
            await asyncio.sleep(0.01)

    assert not listening.done()
    listening.cancel()
    await asyncio.wait({listening})
    await queue.close()


async def test_a_job_that_is_told_of_while_looking_is_found(queue: Database, manager: QueueManager) -> None:
    # The worker's first look comes too early, the notice during it.
    class Late(QueueConnector):
        looks = 0

        async def execute_query_one_async(self, query: str, **arguments: object) -> dict[str, object]:
            row = await super().execute_query_one_async(query, **arguments)
            self.looks += 1
            if self.looks == 1:
                await queue.run(lambda connection: jobs.add(connection, "hold", KEY))
                self.notices += 1
            return row

    late = Late(queue)
    worker = await manager.register_worker()

    job = await QueueManager(late).fetch_job(QUEUES, worker)

    assert job is not None
    assert jobs.key_of(job) == KEY
    assert late.looks == 2


async def test_a_worker_that_was_forgotten_finds_nothing_until_its_next_sign_of_life(
    queue: Database, manager: QueueManager
) -> None:
    await queue.run(lambda connection: jobs.add(connection, "hold", KEY))
    worker = await manager.register_worker()
    await manager.unregister_worker(worker)

    assert await manager.fetch_job(QUEUES, worker) is None

    await queue.run(lambda connection: jobs.beat(connection, worker))
    assert await manager.fetch_job(QUEUES, worker) is not None


async def test_a_job_of_another_worker_is_left_alone(
    queue: Database, manager: QueueManager, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.run(lambda connection: jobs.add(connection, "hold", KEY))
    first, second = await manager.register_worker(), await manager.register_worker()
    mine = await manager.fetch_job(QUEUES, first)
    assert mine is not None
    await manager.retry_job(mine)
    theirs = await manager.fetch_job(QUEUES, second)
    assert theirs is not None

    await manager.finish_job(mine, Status.SUCCEEDED, delete_job=True)
    await manager.retry_job(mine)

    assert await _status(manager, theirs) == "doing"
    assert caplog.text.count("A job was taken over by another worker") == 2
    await manager.finish_job(theirs, Status.SUCCEEDED, delete_job=True)
    assert await _status(manager, theirs) is None


async def _status(manager: QueueManager, job: Job) -> str | None:
    found = list(await manager.list_jobs_async(id=job.id))
    return found[0].status if found else None
