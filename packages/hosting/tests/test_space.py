"""Free pages of a SQLite file go back to the disk."""

from pathlib import Path

import sqlalchemy as sa

from agent_framework_hosting.sql.database import Database, sqlite_url
from agent_framework_hosting.sql.space import RESERVE, give_back

TABLE = sa.Table(
    "texts", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.LargeBinary)
)
MEGABYTE = 1024 * 1024


def fill(connection: sa.Connection) -> None:
    TABLE.create(connection)
    connection.execute(TABLE.insert(), [{"id": number, "text": b"x" * 10_000} for number in range(500)])


async def filled(path: Path) -> Database:
    database = Database(sqlite_url(str(path)))
    database.open()
    await database.run(fill)
    return database


def size_on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.iterdir())


async def test_what_was_erased_is_free_on_the_disk_while_the_database_is_open(tmp_path: Path) -> None:
    path = tmp_path / "host.db"
    database = await filled(path)
    full = size_on_disk(path)

    await database.run(lambda connection: connection.execute(sa.delete(TABLE).where(TABLE.c.id > 20)))
    pages = await give_back(database)
    left = await database.run(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(TABLE)))
    await database.close()

    assert full > 5 * MEGABYTE
    assert pages * 4096 > 4 * MEGABYTE
    assert path.stat().st_size < MEGABYTE
    assert left == 21


async def test_a_reserve_is_kept_unless_all_is_wanted(tmp_path: Path) -> None:
    database = await filled(tmp_path / "host.db")
    await database.run(lambda connection: connection.execute(sa.delete(TABLE).where(TABLE.c.id % 20 == 0)))

    assert await give_back(database, reserve=RESERVE) == 0
    assert await give_back(database, reserve=0.0) >= 50
    assert await give_back(database, reserve=0.0) == 0
    await database.close()


async def test_postgresql_does_it_itself(database: Database) -> None:
    assert await give_back(database) == 0
