import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_framework_hosting import (
    IsolationKeys,
    get_current_isolation_keys,
    reset_current_isolation_keys,
    set_current_isolation_keys,
)
from agent_framework_hosting.isolation import MAX_PARTITION, SHARED

keys = st.builds(IsolationKeys, user_key=st.none() | st.text(), chat_key=st.none() | st.text())


@pytest.mark.behaviour("E2")
@given(keys, keys)
def test_different_keys_never_share_a_partition(one: IsolationKeys, other: IsolationKeys) -> None:
    assert (one == other) == (one.partition == other.partition)


def test_no_keys_are_the_shared_partition() -> None:
    assert IsolationKeys().partition == SHARED


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (IsolationKeys("a/b", "c"), IsolationKeys("a", "b/c")),
        (IsolationKeys(None, "x"), IsolationKeys("-", "x")),
        (IsolationKeys("", None), IsolationKeys()),
    ],
)
def test_keys_that_look_alike_stay_apart(one: IsolationKeys, other: IsolationKeys) -> None:
    assert one.partition != other.partition


@pytest.mark.behaviour("E2")
@given(st.text(min_size=150), st.text(min_size=150), st.sampled_from(["user_key", "chat_key"]))
def test_long_keys_have_short_partitions_that_nobody_else_has(one: str, other: str, name: str) -> None:
    partitions = [IsolationKeys(**{name: key}).partition for key in (one, other)]

    assert all(len(partition) <= MAX_PARTITION for partition in partitions)
    assert (one == other) == (partitions[0] == partitions[1])


def test_a_partition_of_the_greatest_length_is_written_out() -> None:
    longest = "x" * (MAX_PARTITION - len("=/-"))

    assert IsolationKeys(longest).partition == f"={longest}/-"
    assert IsolationKeys(longest + "x").partition.startswith("h:")


def test_a_key_cannot_be_chosen_so_that_it_gives_the_partition_of_a_long_one() -> None:
    digest = IsolationKeys("x" * 1000).partition

    assert digest.startswith("h:")
    assert IsolationKeys(digest).partition != digest


def test_outside_of_a_request_there_are_no_keys() -> None:
    assert get_current_isolation_keys() is None


def test_a_reset_restores_what_was_current_before() -> None:
    outer = set_current_isolation_keys(IsolationKeys("outer"))
    inner = set_current_isolation_keys(IsolationKeys("inner"))
    assert get_current_isolation_keys() == IsolationKeys("inner")

    reset_current_isolation_keys(inner)
    assert get_current_isolation_keys() == IsolationKeys("outer")

    reset_current_isolation_keys(outer)
    assert get_current_isolation_keys() is None


@pytest.mark.behaviour("E5")
async def test_a_task_keeps_the_keys_of_its_creator() -> None:
    seen: list[IsolationKeys | None] = []
    go = asyncio.Event()

    async def background() -> None:
        await go.wait()
        seen.append(get_current_isolation_keys())

    token = set_current_isolation_keys(IsolationKeys("creator"))
    task = asyncio.create_task(background())
    reset_current_isolation_keys(token)
    other = set_current_isolation_keys(IsolationKeys("somebody else"))
    go.set()
    await task
    reset_current_isolation_keys(other)

    assert seen == [IsolationKeys("creator")]
