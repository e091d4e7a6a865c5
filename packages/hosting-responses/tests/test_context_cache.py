"""Contexts in memory: a chain counts once, branches are kept apart, and there is a limit."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agent_framework_hosting.runs.base import RunKey
from agent_framework_hosting_responses.stores.base import ResponseRecord
from agent_framework_hosting_responses.stores.context import Context
from agent_framework_hosting_responses.stores.context_cache import ChainContext, ContextCache, SizedCache, size_of
from agent_framework_hosting_responses.testing.response_turns import ADA, ended, ended_of, key_of, running_of


def ids_of(cache: ContextCache, key: RunKey) -> list[str | None] | None:
    context = cache.get(key)
    return None if context is None else [node.response_id for node in context.nodes()]


def continued(name: str, previous: str) -> ResponseRecord:
    return ended_of(name, previous_response_id=previous)


def test_what_was_used_last_is_kept() -> None:
    cache: SizedCache[str, int] = SizedCache(max_size=30)
    for number, key in enumerate("abc"):
        cache.put(key, number, size=10)
    assert cache.get("a") == 0

    cache.put("d", 3, size=10)
    cache.put("c", 4, size=20)

    assert [cache.get(key) for key in "abcd"] == [None, None, 4, 3]
    assert (cache.size, len(cache)) == (30, 2)
    cache.drop("c")
    cache.drop("c")
    assert (cache.size, len(cache)) == (10, 1)
    cache.put("e", 5, size=31)
    assert (cache.size, len(cache)) == (0, 0)


def test_a_context_is_as_large_as_what_it_is_made_of() -> None:
    first = ChainContext((), own_size=10)
    second = ChainContext((), parent=first, own_size=5)

    assert (first.size, second.size, ChainContext((), parent=Context(()), own_size=5).size) == (10, 15, 5)
    assert size_of(b"x" * 1000) > size_of() + 1000
    assert isinstance(second.extended([{"id": "msg_1"}]), ChainContext)


def test_a_chain_is_kept_once() -> None:
    cache = ContextCache()
    cache.end(ended_of("a"), None, size=1, stored_at=1)
    cache.end(continued("b", "a"), None, size=1, stored_at=1)
    cache.end(continued("c", "b"), None, size=1, stored_at=1)

    assert len(cache) == 1
    assert ids_of(cache, key_of("c")) == ["c", "b", "a"]


def test_a_branch_continues_the_context_it_is_given() -> None:
    cache = ContextCache()
    cache.end(ended_of("a"), None, size=1, stored_at=1)
    root = cache.get(key_of("a"))
    cache.start(running_of("b", previous_response_id="a"), root)
    cache.end(continued("c", "a"), root, size=1, stored_at=1)
    cache.end(continued("b", "a"), None, size=1, stored_at=1)

    assert ids_of(cache, key_of("b")) == ["b", "a"]
    assert ids_of(cache, key_of("c")) == ["c", "a"]


@pytest.mark.parametrize("context", [None, Context(()), ChainContext((), response_id="other")])
def test_a_context_that_is_not_certain_is_not_kept(context: Context | None) -> None:
    cache = ContextCache()
    cache.start(running_of("b", previous_response_id="a"), context)
    cache.end(continued("b", "a"), context, size=1, stored_at=1)
    # The conversation may change.
    cache.end(replace(ended_of("c"), conversation_id="conv_1"), context, size=1, stored_at=1)

    assert len(cache) == 0


def test_partitions_do_not_meet() -> None:
    cache = ContextCache()
    cache.end(ended_of("a"), None, size=1, stored_at=1)

    cache.end(ended_of("b", partition=ADA, previous_response_id="a"), None, size=1, stored_at=1)

    assert cache.get(key_of("a", ADA)) is None
    assert cache.get(key_of("b", ADA)) is None
    assert ids_of(cache, key_of("a")) == ["a"]


def test_a_deleted_response_is_forgotten() -> None:
    cache = ContextCache()
    cache.end(ended_of("a"), None, size=1, stored_at=1)
    running = running_of("b", previous_response_id="a")
    cache.start(running, cache.get(key_of("a")))

    cache.forget(key_of("a"))
    cache.forget(running.key)
    cache.end(ended(running), None, size=1, stored_at=1)

    assert len(cache) == 0


def test_a_response_written_at_another_time_is_another_one() -> None:
    cache = ContextCache()
    cache.end(ended_of("a"), None, size=1, stored_at=1.5)

    cache.check(key_of("a"), stored_at=1.5)
    cache.check(key_of("b"), stored_at=None)
    assert len(cache) == 1
    cache.check(key_of("a"), stored_at=2)

    assert len(cache) == 0


def test_there_is_a_limit() -> None:
    cache = ContextCache(max_bytes=25)
    for name in "abc":
        cache.end(ended_of(name), None, size=10, stored_at=1)

    assert [cache.get(key_of(name)) is not None for name in "abc"] == [False, True, True]
