"""What every store of sessions must do, as tests to inherit.

```python
class TestMyStore(SessionStoreSuite):
    @pytest.fixture
    async def store(self) -> AsyncIterator[MyStore]: ...
```

The fixture gives an empty store. The tests need pytest-asyncio in its mode `auto`. How long sessions are kept, and what
becomes of a state that the store cannot hold, is the store's own.
"""
# ruff: noqa: D102  the tests are named as sentences
# ruff: noqa: S101  they are tests

from __future__ import annotations

import asyncio
import math
import random
from typing import Final

from agent_framework import AgentSession, Content, Message

from ..isolation import SHARED, IsolationKeys, Partition
from ..stores.base import SessionKey, SessionStore

ADA: Final = IsolationKeys("ada").partition
BOB: Final = IsolationKeys("bob").partition
FIRST: Final = SessionKey("response:resp_1")
SECOND: Final = SessionKey("response:resp_2")
THIRD: Final = SessionKey("response:resp_3")


def session_of(*texts: str, session_id: str | None = None) -> AgentSession:
    """Return a session whose built-in history says `texts`."""
    session = AgentSession(session_id=session_id)
    session.state["in_memory"] = {"messages": [Message("user", [text]) for text in texts]}
    return session


def texts_of(session: AgentSession | None) -> list[str]:
    """Return what the history of a session from `session_of` says."""
    assert session is not None
    messages: list[Message] = session.state["in_memory"]["messages"]
    return [message.text for message in messages]


def say(session: AgentSession, *texts: str) -> None:
    """Add to the history, as a turn does."""
    history = session.state["in_memory"]
    history["messages"] = [*history["messages"], *(Message("user", [text]) for text in texts)]


async def read(store: SessionStore, key: SessionKey, partition: Partition = SHARED) -> AgentSession:
    """Return a copy of a session that must be there."""
    session = await store.get(partition, key)
    assert session is not None
    return session


async def grow(store: SessionStore, base: SessionKey, key: SessionKey, *texts: str) -> None:
    """Continue `base` by `texts`, as a turn does, and store the result at `key`."""
    session = await read(store, base)
    say(session, *texts)
    await store.put(SHARED, key, session, base=base)


class StoredSessionsSuite:
    """What comes back."""

    async def test_what_was_not_stored_is_not_there(self, store: SessionStore) -> None:
        assert await store.get(SHARED, FIRST) is None
        assert not await store.claim(SHARED, FIRST)
        assert not await store.delete(SHARED, FIRST)

    async def test_a_session_comes_back_as_it_was_to_every_reader(self, store: SessionStore) -> None:
        session = session_of("one", "two", session_id="the id")
        session.service_session_id = "conv_1"
        stored = session.to_dict()
        await store.put(SHARED, FIRST, session)

        found = [await read(store, FIRST) for _ in range(3)]

        assert [one.to_dict() for one in found] == [stored] * 3
        assert [type(message) for message in found[2].state["in_memory"]["messages"]] == [Message, Message]

    async def test_a_services_id_may_be_a_mapping(self, store: SessionStore) -> None:
        session = AgentSession(service_session_id={"thread": "t", "parts": [1, {"of": None}]})
        await store.put(SHARED, FIRST, session)

        found = [await read(store, FIRST) for _ in range(2)]

        assert [one.service_session_id for one in found] == [{"thread": "t", "parts": [1, {"of": None}]}] * 2

    async def test_every_plain_value_comes_back(self, store: SessionStore) -> None:
        state = {
            "numbers": [0, -1, 2**70, 0.1, -0.0, 1e300, math.inf, -math.inf],
            "texts": ["", "a\x00b", "\ud83d", "👩\u200d👧", "\u2028", '"', "\\ud800"],
            "others": [True, False, None, [], {}, [[]], [{}]],
            "keys": {"": [1], "a.b": {"c": [2]}, "a": {"b.c": [3]}, '["a"]': [4], "\udc00": [5], "a\x00": [6]},
            "$json": {"$json": "[1]"},
            "escapes": [{"$json": "[1]"}, {"$json": 1, "b": 2}],
            "nothing": None,
        }
        session = AgentSession()
        session.state.update(state)
        await store.put(SHARED, FIRST, session)

        found = [await read(store, FIRST) for _ in range(2)]

        assert [one.state for one in found] == [state, state]
        assert [list(one.state) for one in found] == [list(state)] * 2
        assert [math.copysign(1, one.state["numbers"][4]) for one in found] == [-1, -1]

    async def test_not_a_number_comes_back(self, store: SessionStore) -> None:
        session = AgentSession()
        session.state["scores"] = {"last": math.nan, "all": [1.0, math.nan]}
        await store.put(SHARED, FIRST, session)

        found = [await read(store, FIRST) for _ in range(2)]

        assert all(math.isnan(one.state["scores"]["last"]) for one in found)
        assert all(one.state["scores"]["all"][0] == 1.0 for one in found)
        assert all(math.isnan(one.state["scores"]["all"][1]) for one in found)

    async def test_messages_come_back_with_all_their_contents(self, store: SessionStore) -> None:
        call = Content.from_function_call("call_1", "delete", arguments='{"path": "\ud83d"}')
        messages = [
            Message("user", ["hello", Content.from_uri("https://example.com/a.png", media_type="image/png")]),
            Message("assistant", [call, Content.from_function_approval_request("approval_1", call)], message_id="m"),
            Message("tool", [Content.from_function_result("call_1", result="done")], author_name="tool"),
            Message("assistant", [], additional_properties={"_excluded": True, "deep": {"list": [1, [2]]}}),
        ]
        session = AgentSession()
        session.state["messages"] = messages
        stored = session.to_dict()
        await store.put(SHARED, FIRST, session)

        found = [await read(store, FIRST) for _ in range(2)]

        assert [one.to_dict() for one in found] == [stored, stored]
        assert found[1].state["messages"][1].contents[1].function_call == call

    async def test_a_reader_may_change_what_it_got(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one"))
        await store.put(SHARED, SECOND, session_of("one", "two"), base=FIRST)

        for key in (FIRST, SECOND, FIRST, SECOND):
            session = await read(store, key)
            session.state["in_memory"]["messages"][0].contents[0].text = "changed"
            session.state["in_memory"]["messages"][0].additional_properties["mark"] = True
            session.state["in_memory"]["more"] = True

        assert texts_of(await read(store, FIRST)) == ["one"]
        assert texts_of(await read(store, SECOND)) == ["one", "two"]
        found = await read(store, SECOND)
        assert list(found.state["in_memory"]) == ["messages"]
        assert found.state["in_memory"]["messages"][0].additional_properties == {}

    async def test_readers_at_the_same_time_get_a_session_each(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one"))

        found = await asyncio.gather(*(store.get(SHARED, FIRST) for _ in range(8)))
        for index, session in enumerate(found):
            assert session is not None
            say(session, str(index))

        assert [texts_of(session) for session in found] == [["one", str(index)] for index in range(8)]

    async def test_a_session_is_unknown_in_every_other_partition(self, store: SessionStore) -> None:
        await store.put(ADA, FIRST, session_of("ada's"))
        await store.put(BOB, FIRST, session_of("bob's"))

        assert await store.get(SHARED, FIRST) is None
        assert not await store.claim(SHARED, FIRST)
        assert not await store.delete(SHARED, FIRST)
        assert await store.claim(ADA, FIRST)
        assert await store.delete(ADA, FIRST)
        assert await store.get(ADA, FIRST) is None
        assert texts_of(await read(store, FIRST, BOB)) == ["bob's"]
        assert await store.claim(BOB, FIRST)

    async def test_families_in_two_partitions_do_not_meet(self, store: SessionStore) -> None:
        for partition in (ADA, BOB):
            await store.put(partition, FIRST, session_of(f"{partition} one"))
            await store.put(partition, SECOND, session_of(f"{partition} one", "two"), base=FIRST)
            await store.put(partition, THIRD, session_of(f"{partition} one", "two", "three"), base=SECOND)

        assert await store.delete(ADA, FIRST)
        await store.put(ADA, SECOND, session_of("another"))

        assert await store.get(ADA, FIRST) is None
        for _ in range(3):
            assert texts_of(await read(store, SECOND, ADA)) == ["another"]
            assert texts_of(await read(store, THIRD, ADA)) == [f"{ADA} one", "two", "three"]
            assert texts_of(await read(store, FIRST, BOB)) == [f"{BOB} one"]
            assert texts_of(await read(store, SECOND, BOB)) == [f"{BOB} one", "two"]
            assert texts_of(await read(store, THIRD, BOB)) == [f"{BOB} one", "two", "three"]

    async def test_a_session_can_be_replaced(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("old", "older"))
        await read(store, FIRST)

        await store.put(SHARED, FIRST, session_of("new"))

        assert [texts_of(await read(store, FIRST)) for _ in range(2)] == [["new"], ["new"]]


class SessionChainsSuite:
    """What sessions have to do with the ones that they have grown from: nothing that anybody could see."""

    async def test_a_chain_can_be_continued_from_everywhere(self, store: SessionStore) -> None:
        await store.put(SHARED, SessionKey("0"), session_of("0"))
        for turn in range(1, 20):
            await grow(store, SessionKey(str(turn - 1)), SessionKey(str(turn)), f"{turn}", f"answer to {turn}")
        await grow(store, SessionKey("7"), SessionKey("branch"), "other")

        for turn in range(20):
            expected = ["0", *(text for n in range(1, turn + 1) for text in (f"{n}", f"answer to {n}"))]
            assert texts_of(await read(store, SessionKey(str(turn)))) == expected
        assert texts_of(await read(store, SessionKey("branch")))[-2:] == ["answer to 7", "other"]

    async def test_a_session_need_not_look_like_its_base(self, store: SessionStore) -> None:
        states: list[dict[str, object]] = [
            {"a": [1, 2, 3], "b": {"c": [1]}, "d": [1]},
            {"a": [1, 2], "b": {"c": []}, "d": None},
            {"a": [9, 2], "b": {}, "d": {"e": [1]}},
            {"a": [], "b": [], "d": "text"},
            {"b": [[1]], "a": [1, 2, 3]},
            {},
            {"a": [1, 2, 3], "b": {"c": [1]}, "d": [1]},
        ]

        for index, state in enumerate(states):
            session = AgentSession(session_id=f"session {index % 2}")
            session.state.update(state)
            base = SessionKey(str(index - 1)) if index else None
            await store.put(SHARED, SessionKey(str(index)), session, base=base)

        for index, state in enumerate(states):
            for _ in range(2):
                found = await read(store, SessionKey(str(index)))
                assert found.state == state
                assert list(found.state) == list(state)
                assert found.session_id == f"session {index % 2}"

    async def test_a_change_deep_in_an_old_message_is_kept(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one", "two"))
        session = await read(store, FIRST)
        session.state["in_memory"]["messages"][0].additional_properties["group"] = {"ids": [1]}
        await store.put(SHARED, SECOND, session, base=FIRST)
        session = await read(store, SECOND)
        session.state["in_memory"]["messages"][0].additional_properties["group"]["ids"].append(2)
        await store.put(SHARED, THIRD, session, base=SECOND)

        found = [(await read(store, key)).state["in_memory"]["messages"][0] for key in (FIRST, SECOND, THIRD)]

        assert [message.additional_properties.get("group") for message in found] == [
            None,
            {"ids": [1]},
            {"ids": [1, 2]},
        ]

    async def test_a_base_that_is_not_there_makes_no_difference(self, store: SessionStore) -> None:
        await store.put(ADA, FIRST, session_of("ada's"))
        await store.put(SHARED, SECOND, session_of("one", "two"), base=FIRST)
        await store.put(SHARED, SECOND, session_of("one", "two", "three"), base=SECOND)

        assert [texts_of(await read(store, SECOND)) for _ in range(2)] == [["one", "two", "three"]] * 2
        assert texts_of(await read(store, FIRST, ADA)) == ["ada's"]

    async def test_a_deleted_session_leaves_what_has_grown_from_it(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one"))
        await grow(store, FIRST, SECOND, "two")
        await grow(store, SECOND, THIRD, "three")

        assert await store.delete(SHARED, SECOND)
        assert await store.delete(SHARED, FIRST)

        for gone in (FIRST, SECOND):
            assert await store.get(SHARED, gone) is None
            assert not await store.claim(SHARED, gone)
            assert not await store.delete(SHARED, gone)
        assert [texts_of(await read(store, THIRD)) for _ in range(2)] == [["one", "two", "three"]] * 2
        assert await store.delete(SHARED, THIRD)
        assert await store.get(SHARED, THIRD) is None

    async def test_a_session_outlives_the_deletion_of_its_base_while_it_was_away(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one"))
        session = await read(store, FIRST)
        await store.delete(SHARED, FIRST)
        say(session, "two")

        await store.put(SHARED, SECOND, session, base=FIRST)

        assert [texts_of(await read(store, SECOND)) for _ in range(2)] == [["one", "two"]] * 2

    async def test_a_replaced_session_leaves_what_has_grown_from_it(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one"))
        await grow(store, FIRST, SECOND, "two")

        await store.put(SHARED, FIRST, session_of("another"))
        await grow(store, FIRST, THIRD, "three")

        assert texts_of(await read(store, FIRST)) == ["another"]
        assert texts_of(await read(store, SECOND)) == ["one", "two"]
        assert texts_of(await read(store, THIRD)) == ["another", "three"]

    async def test_a_session_may_replace_what_it_has_grown_from(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one"))
        await grow(store, FIRST, SECOND, "two")
        await grow(store, SECOND, FIRST, "three")

        assert [texts_of(await read(store, FIRST)) for _ in range(2)] == [["one", "two", "three"]] * 2
        assert texts_of(await read(store, SECOND)) == ["one", "two"]

    async def test_a_deleted_key_can_be_used_again(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one"))
        await grow(store, FIRST, SECOND, "two")
        await store.delete(SHARED, FIRST)

        await store.put(SHARED, FIRST, session_of("again"))

        assert [texts_of(await read(store, FIRST)) for _ in range(2)] == [["again"], ["again"]]
        assert texts_of(await read(store, SECOND)) == ["one", "two"]

    async def test_branches_at_the_same_time_do_not_meet(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one"))
        keys = [SessionKey(f"branch {number}") for number in range(8)]

        await asyncio.gather(*(grow(store, FIRST, key, key) for key in keys))

        assert [texts_of(await read(store, key)) for key in keys] == [["one", key] for key in keys]
        assert texts_of(await read(store, FIRST)) == ["one"]

    async def test_whatever_is_written_and_deleted_the_rest_stays_as_it_is(self, store: SessionStore) -> None:
        chance = random.Random(3)  # noqa: S311  not for secrets
        expected: dict[SessionKey, list[str]] = {}
        keys = [SessionKey(f"key {number}") for number in range(12)]

        for step in range(150):
            key, base = chance.choice(keys), chance.choice(keys)
            if chance.random() < 0.25:
                assert await store.delete(SHARED, key) == (expected.pop(key, None) is not None)
                continue
            if base not in expected:
                await store.put(SHARED, key, session_of(f"{step}"), base=base)
                expected[key] = [f"{step}"]
                continue
            session = await read(store, base)
            history = session.state["in_memory"]
            history["messages"] = history["messages"][chance.choice((0, 0, 0, 2)) :]
            say(session, f"{step}")
            expected[key] = texts_of(session)
            await store.put(SHARED, key, session, base=chance.choice((base, base, base, chance.choice(keys))))

        found = {key: await store.get(SHARED, key) for key in keys}
        assert {key: texts_of(stored) for key, stored in found.items() if stored is not None} == expected


class SessionClaimsSuite:
    """Who goes on with what lies outside of a session."""

    async def test_one_of_many_goes_on(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one"))
        await store.put(SHARED, SECOND, session_of("one", "two"), base=FIRST)

        claims = await asyncio.gather(*(store.claim(SHARED, FIRST) for _ in range(5)))

        assert sorted(claims) == [False, False, False, False, True]
        assert not await store.claim(SHARED, FIRST)
        assert await store.claim(SHARED, SECOND)

    async def test_a_claim_changes_nothing_else(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one"))
        await store.claim(SHARED, FIRST)
        await grow(store, FIRST, SECOND, "two")

        assert texts_of(await read(store, FIRST)) == ["one"]
        assert texts_of(await read(store, SECOND)) == ["one", "two"]
        assert await store.delete(SHARED, FIRST)

    async def test_a_replaced_session_can_be_claimed_again(self, store: SessionStore) -> None:
        await store.put(SHARED, FIRST, session_of("one"))
        await store.claim(SHARED, FIRST)

        await store.put(SHARED, FIRST, session_of("two"))

        assert await store.claim(SHARED, FIRST)
        assert not await store.claim(SHARED, FIRST)


class SessionStoreSuite(StoredSessionsSuite, SessionChainsSuite, SessionClaimsSuite):
    """All that a `SessionStore` must do. Inherit it, and define the fixture `store`: an empty store."""
