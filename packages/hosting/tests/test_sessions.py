import asyncio

import pytest
from agent_framework import AgentSession

from agent_framework_hosting.isolation import SHARED, IsolationKeys, Partition
from agent_framework_hosting.sessions import Sessions, fork, named_key
from agent_framework_hosting.sql.database import Database
from agent_framework_hosting.stores.memory import MemorySessionStore
from agent_framework_hosting.stores.sql import SqlSessionStore

ADA = IsolationKeys("ada").partition
BOB = IsolationKeys("bob").partition


def new_sessions() -> Sessions:
    return Sessions(MemorySessionStore())


async def turn(sessions: Sessions, name: str, word: str, *, partition: Partition = SHARED) -> list[str]:
    """Add a word to the session; return the words that were there."""
    async with sessions.use(partition, name) as lease:
        words: list[str] = lease.session.state.setdefault("words", [])
        before = list(words)
        words.append(word)
        lease.commit()
    return before


async def test_a_named_session_is_found_again() -> None:
    sessions = new_sessions()

    await turn(sessions, "chat", "one")
    await turn(sessions, "chat", "two")

    assert await turn(sessions, "chat", "three") == ["one", "two"]


async def test_what_was_not_committed_is_forgotten() -> None:
    sessions = new_sessions()
    await turn(sessions, "chat", "kept")

    async with sessions.use(SHARED, "chat") as lease:
        lease.session.state["words"].append("lost")

    assert await turn(sessions, "chat", "next") == ["kept"]


async def test_a_run_that_raises_changes_nothing() -> None:
    sessions = new_sessions()
    await turn(sessions, "chat", "kept")

    async def fail() -> None:
        async with sessions.use(SHARED, "chat") as lease:
            lease.session.state["words"].append("lost")
            lease.commit()
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        await fail()

    assert await turn(sessions, "chat", "next") == ["kept"]


@pytest.mark.behaviour("E2")
async def test_the_same_name_in_another_partition_is_another_session() -> None:
    sessions = new_sessions()
    await turn(sessions, "chat", "ada's", partition=ADA)

    assert await turn(sessions, "chat", "bob's", partition=BOB) == []


async def test_runs_of_one_session_wait_for_each_other_in_order_of_arrival() -> None:
    sessions = new_sessions()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        async with sessions.use(SHARED, "chat") as lease:
            entered.set()
            await leave.wait()
            lease.session.state["words"] = ["slow"]
            lease.commit()

    first = asyncio.create_task(slow())
    await entered.wait()
    second = asyncio.create_task(turn(sessions, "chat", "second"))
    third = asyncio.create_task(turn(sessions, "chat", "third"))
    assert await asyncio.wait_for(turn(sessions, "other", "free"), 60) == []
    leave.set()
    await first

    assert await second == ["slow"]
    assert await third == ["slow", "second"]


async def test_a_reset_waits_for_the_run_that_uses_the_session() -> None:
    sessions = new_sessions()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        async with sessions.use(SHARED, "chat") as lease:
            entered.set()
            await leave.wait()
            lease.session.state["words"] = ["slow"]
            lease.commit()

    run = asyncio.create_task(slow())
    await entered.wait()
    reset = asyncio.create_task(sessions.reset(SHARED, "chat"))
    leave.set()
    await run

    assert await reset
    assert await turn(sessions, "chat", "after") == []


async def test_a_reset_says_whether_there_was_a_session() -> None:
    sessions = new_sessions()
    await turn(sessions, "chat", "one", partition=ADA)

    assert not await sessions.reset(BOB, "chat")
    assert await sessions.reset(ADA, "chat")
    assert not await sessions.reset(ADA, "chat")


async def test_locks_of_sessions_nobody_uses_are_dropped() -> None:
    sessions = new_sessions()

    await asyncio.gather(*(turn(sessions, f"chat {n % 3}", "word") for n in range(30)))

    assert not sessions._locks


async def test_a_named_session_survives_a_restart_and_so_does_its_reset(database: Database) -> None:
    def restarted() -> Sessions:
        return Sessions(SqlSessionStore(database))

    await turn(restarted(), "chat", "one")
    before = await turn(restarted(), "chat", "two")
    await restarted().reset(SHARED, "chat")

    assert before == ["one"]
    assert await turn(restarted(), "chat", "three") == []
    assert await turn(restarted(), "chat", "four") == ["three"]


async def test_processes_take_turns_with_a_named_session(database: Database) -> None:
    one, two = (Sessions(SqlSessionStore(database)) for _ in range(2))

    for number in range(3):
        await turn(one, "chat", f"one {number}")
        await turn(two, "chat", f"two {number}")

    assert await turn(one, "chat", "end") == ["one 0", "two 0", "one 1", "two 1", "one 2", "two 2"]


@pytest.mark.parametrize(
    "name", ["", "a b", "a\x00b", "\ud83d", "/", "👩\u200d👧", "x" * 100_000, "%00"], ids=lambda name: ascii(name)[:20]
)
async def test_a_session_may_have_any_name(database: Database, name: str) -> None:
    sessions = Sessions(SqlSessionStore(database))
    await turn(sessions, name, "one")

    assert await turn(sessions, name + "x", "other") == []
    assert await turn(sessions, name, "two") == ["one"]


def test_named_sessions_stay_apart_from_keys_of_channels() -> None:
    assert named_key("resp_1") != "resp_1"
    assert not named_key("response:resp_1").startswith("response:")


def test_each_target_has_keys_of_its_own_for_the_same_name() -> None:
    names = [
        ("", "a"),
        ("a", ""),
        ("a", "a"),
        ("", "a:a"),
        ("a:a", "a"),
        ("", "%3A"),
        (":", ""),
        ("x" * 256, "x" * 600),
    ]

    assert len({named_key(name, target=target) for target, name in names}) == len(names)
    assert named_key("a", target="") == named_key("a")


def test_two_names_have_two_keys() -> None:
    names = ["", "a", "a%00", "a\x00", "%", "%25", "\ud83d", "x" * 600, "x" * 601, named_key("x" * 600)]

    assert len({named_key(name) for name in names}) == len(names)


def test_a_fork_continues_the_conversation_under_an_id_of_its_own() -> None:
    session = AgentSession(session_id="one", service_session_id="service")
    session.state["words"] = ["hello"]

    branch = fork(session)

    assert branch.session_id != "one"
    assert branch.service_session_id == "service"
    assert branch.state == {"words": ["hello"]}
