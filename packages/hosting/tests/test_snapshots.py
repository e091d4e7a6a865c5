import copy
import enum
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from agent_framework import Agent, AgentSession, Content, InMemoryHistoryProvider, Message, register_state_type, tool
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_framework_hosting.errors import StoreError
from agent_framework_hosting.stores.snapshots import (
    Delta,
    ListDelta,
    Snapshot,
    SnapshotCodec,
    decode_lists,
    diff,
    encode_lists,
    fingerprint,
    replay,
    trim,
)
from agent_framework_hosting.testing.agents import ScriptedChatClient


def session_with(state: dict[str, Any], session_id: str = "s", service: object = None) -> AgentSession:
    session = AgentSession(session_id=session_id, service_session_id=service)  # type: ignore[arg-type]
    session.state = state
    return session


def snapshot_of(state: dict[str, Any]) -> Snapshot:
    return SnapshotCodec().encode(session_with(state)).snapshot


def stored(delta: Delta) -> Delta:
    """Return the delta as a store has it."""
    return Delta(delta.rest, decode_lists(encode_lists(delta.lists)))


# --- States

# Separators of paths, quotes, what UTF-8 cannot carry, and the codec's own words.
KEYS = st.sampled_from(["", "a", "b", ".", "a.b", "[0]", '"', '["a"]', "/", "\x00", "\ud800", "é", "$json", "messages"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**63, max_value=2**70),
    st.floats(allow_nan=False),
    st.text(st.characters(), max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
STATES = st.dictionaries(KEYS, VALUES, max_size=4)


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A state and what becomes of it, turn by turn: lists grow, shrink, change, go, come back as something else."""
    state = draw(STATES)
    states = [copy.deepcopy(state)]
    for _ in range(draw(st.integers(1, 5))):
        for key in list(state):
            state[key] = _changed(draw, state[key])
        if draw(st.booleans()):
            state[draw(KEYS)] = draw(VALUES)
        is_smaller: bool = draw(st.booleans())
        if state and is_smaller:
            del state[draw(st.sampled_from(sorted(state)))]
        states.append(copy.deepcopy(state))
    return states


def _changed(draw: st.DrawFn, value: Any) -> Any:
    how = draw(st.sampled_from(["same", "same", "other", "grow", "shrink", "into"]))
    if how == "other":
        return draw(VALUES)
    if isinstance(value, list):
        if how == "grow":
            return [*value, *draw(st.lists(VALUES, max_size=3))]
        if how == "shrink":
            return value[: draw(st.integers(0, len(value)))]
    if isinstance(value, dict) and how == "into":
        return {key: _changed(draw, item) for key, item in value.items()}
    return value


def same(one: object, other: object) -> bool:
    """Whether both are equal, `1` apart from `True` and `1.0`, `-0.0` from `0.0`, and dicts in the same order."""
    return repr(one) == repr(other)


@given(STATES)
def test_whatever_plain_values_a_state_holds_come_back(state: dict[str, Any]) -> None:
    encoded = SnapshotCodec().encode(session_with(state, "the id", {"thread": ["t"]}))

    session = SnapshotCodec().decode(encoded.snapshot)

    assert same(session.state, state)
    assert session.session_id == "the id"
    assert session.service_session_id == {"thread": ["t"]}
    assert encoded.is_exact


@given(histories())
def test_every_turn_can_be_restored_from_what_each_has_added(states: list[dict[str, Any]]) -> None:
    snapshots = [snapshot_of(state) for state in states]
    deltas = [stored(diff(base, new)) for base, new in zip([None, *snapshots], snapshots, strict=False)]

    for turn, state in enumerate(states):
        restored = replay(deltas[: turn + 1])
        assert restored == snapshots[turn]
        assert same(SnapshotCodec().decode(restored).state, state)


@given(histories(), st.data())
def test_a_trimmed_row_still_carries_everything_based_on_it(states: list[dict[str, Any]], data: st.DataObject) -> None:
    """A tree of sessions, some of them erased one after the other, as the store does it."""
    snapshots = [snapshot_of(state) for state in states]
    parents = [None, *(data.draw(st.integers(0, index - 1)) for index in range(1, len(states)))]
    deltas = {
        index: stored(diff(None if parent is None else snapshots[parent], snapshots[index]))
        for index, parent in enumerate(parents)
    }
    erased = data.draw(st.permutations(range(len(states))))[: data.draw(st.integers(0, len(states)))]

    for index in erased:
        tidied: int | None = index
        while tidied is not None and tidied in erased:
            needs = [deltas[child] for child, parent in enumerate(parents) if parent == tidied]
            deltas[tidied] = stored(trim(deltas[tidied], needs)) if needs else deltas[tidied]
            tidied = parents[tidied]

    for index in set(range(len(states))) - set(erased):
        chain = [index]
        while (parent := parents[chain[0]]) is not None:
            chain.insert(0, parent)
        assert replay(deltas[row] for row in chain) == snapshots[index]


def test_an_appended_element_is_all_that_a_delta_holds() -> None:
    old = snapshot_of({"a": {"messages": ["one", "two"]}, "notes": {"x": 1}})
    new = snapshot_of({"a": {"messages": ["one", "two", "three"]}, "notes": {"x": 1}})

    delta = diff(old, new)

    assert delta.rest is None
    assert list(delta.lists.values()) == [ListDelta(2, (b'"three"',))]


def test_nothing_new_is_an_empty_delta() -> None:
    assert diff(snapshot_of({"a": [1]}), snapshot_of({"a": [1]})) == Delta(None, {})


def test_an_empty_list_a_missing_one_and_none_are_three_things() -> None:
    states: list[dict[str, Any]] = [{"a": []}, {}, {"a": None}, {"a": {}}, {"a": [None]}, {"a": [[]]}]

    for old in states:
        for new in states:
            base = snapshot_of(old)
            restored = replay([diff(None, base), stored(diff(base, snapshot_of(new)))])
            assert SnapshotCodec().decode(restored).state == new


def test_what_only_the_erased_row_had_is_trimmed_from_it() -> None:
    secret = snapshot_of({"in_memory": {"messages": ["kept", "secret"]}, "notes": {"last": "secret"}})
    after = snapshot_of({"in_memory": {"messages": ["kept", "new"]}, "notes": {"last": "new"}})

    trimmed = trim(diff(None, secret), [diff(secret, after)])

    assert b"secret" not in (trimmed.rest or b"") + encode_lists(trimmed.lists)
    assert b"kept" in encode_lists(trimmed.lists)


def test_deltas_that_do_not_follow_from_each_other_are_refused() -> None:
    with pytest.raises(StoreError):
        replay([])
    with pytest.raises(StoreError):
        replay([Delta(b"{}", {}), stored(diff(snapshot_of({"a": [1, 2]}), snapshot_of({"a": [1, 2, 3]})))])


# --- Sessions of real agents


@tool(approval_mode="never_require")
def weather(city: str) -> str:
    """Say how the weather is."""
    return f"Sunny in {city}."


async def talk(turns: int) -> AgentSession:
    """Return the session of a real agent that has called a tool in each of its turns."""
    script = [
        step
        for turn in range(turns)
        for step in ([Content.from_function_call(f"call_{turn}", "weather", arguments='{"city": "Köln"}')], ["It is."])
    ]
    agent = Agent(ScriptedChatClient(*script), tools=[weather], context_providers=[InMemoryHistoryProvider()])
    session = agent.create_session()
    for turn in range(turns):
        await agent.run(f"How is the weather? {turn}", session=session)
    return session


async def test_the_session_of_a_real_agent_comes_back() -> None:
    session = await talk(3)

    snapshot = SnapshotCodec().encode(session).snapshot
    restored = SnapshotCodec().decode(snapshot)

    assert restored.to_dict() == session.to_dict()
    assert len(restored.state["in_memory"]["messages"]) == 12
    assert SnapshotCodec().encode(restored).snapshot == snapshot


async def test_a_turn_of_a_real_agent_adds_its_messages_and_nothing_else() -> None:
    codec = SnapshotCodec()
    session = await talk(2)
    messages = session.state["in_memory"]["messages"]
    new = codec.encode(session).snapshot
    session.state["in_memory"]["messages"] = messages[:4]
    old = codec.encode(session).snapshot

    delta = diff(old, new)

    assert delta.rest is None
    assert [(change.kept, len(change.appended)) for change in delta.lists.values() if change] == [(4, 4)]


@pytest.mark.parametrize("service", [None, "conv_1", {"thread": "t", "run": {"id": 1}}])
def test_ids_are_kept(service: str | Mapping[str, Any] | None) -> None:
    session = AgentSession(session_id="mine", service_session_id=service)

    restored = SnapshotCodec().decode(SnapshotCodec().encode(session).snapshot)

    assert restored.session_id == "mine"
    assert restored.service_session_id == service


# --- Values that JSON or UTF-8 do not carry


@pytest.mark.parametrize("value", [math.inf, -math.inf, "\ud83d", {"\ud83d": "x"}, {"$json": "1"}, 10**30])
def test_values_beyond_json_come_back_wherever_they_are(value: object) -> None:
    state = {"value": value, "list": [1, value, [value]], "deep": {"list": [{"v": value}]}}

    encoded = SnapshotCodec().encode(session_with(state))

    assert SnapshotCodec().decode(encoded.snapshot).state == state
    assert replay([stored(diff(None, encoded.snapshot))]) == encoded.snapshot


def test_one_odd_number_leaves_the_other_elements_as_they_are() -> None:
    snapshot = snapshot_of({"first": math.nan, "list": [1.5, math.nan, 2.5]})

    (elements,) = snapshot.lists.values()
    restored = SnapshotCodec().decode(snapshot)

    assert elements[0] == b"1.5"
    assert elements[2] == b"2.5"
    assert math.isnan(restored.state["first"])
    assert math.isnan(restored.state["list"][1])


# --- What is refused


class Opaque:
    pass


class Subclass(AgentSession):
    pass


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"a": Opaque()}, "state.a "),
        ({"a": {"b": [1, {"c": Opaque()}]}}, "state.a.b[1].c "),
        ({"a": {1, 2}}, "state.a "),
        ({"a": [b"bytes"]}, "state.a[0] "),
        ({"a": {1: "x", "1": "y"}}, "state.a "),
        ({"a": OrderedDict(b=Opaque())}, "state.a.b "),
        ({"a": [10**5000]}, "state.a[0] "),
    ],
)
def test_what_cannot_be_stored_is_refused_by_its_place(state: dict[str, Any], where: str) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(StoreError) as refused:
            SnapshotCodec().encode(session_with(state))

    assert where in str(refused.value)
    assert warned == []


def test_a_state_that_holds_itself_is_refused() -> None:
    state: dict[str, Any] = {}
    state["self"] = [state]

    with pytest.raises(StoreError, match="nested"):
        SnapshotCodec().encode(session_with(state))


def test_the_service_id_is_checked_too() -> None:
    with pytest.raises(StoreError, match=r"service_session_id\.handle "):
        SnapshotCodec().encode(session_with({}, service={"handle": Opaque()}))


def test_subclasses_of_the_session_are_refused_for_they_would_not_come_back() -> None:
    with pytest.raises(StoreError, match="Subclass"):
        SnapshotCodec().encode(Subclass())


# --- State types


class Colour(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Todo:
    def __init__(self, items: list[str]) -> None:
        self.items = items

    def to_dict(self) -> dict[str, Any]:
        return {"items": list(self.items)}

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any]) -> "Todo":
        return cls(list(payload["items"]))


class Broken:
    """Cannot be read back."""


class Unwritable:
    """Cannot be written."""


class Unregistered(Todo):
    pass


def _raise(_value: object) -> Any:
    raise KeyError("secret")


register_state_type(Todo, type_id="agent_framework_hosting.tests.todo")
register_state_type(Broken, type_id="agent_framework_hosting.tests.broken", encoder=lambda _: {}, decoder=_raise)
register_state_type(Unwritable, type_id="agent_framework_hosting.tests.unwritable", encoder=_raise, decoder=_raise)


def test_registered_types_come_back_and_their_lists_are_told_apart_by_element() -> None:
    codec = SnapshotCodec()
    old = codec.encode(session_with({"todo": Todo(["a", "b"]), "more": [Todo(["x"])]}))
    new = codec.encode(session_with({"todo": Todo(["a", "b", "c"]), "more": [Todo(["x"])]}))

    restored = codec.decode(new.snapshot)

    assert old.is_exact
    assert isinstance(restored.state["todo"], Todo)
    assert restored.state["todo"].items == ["a", "b", "c"]
    assert isinstance(restored.state["more"][0], Todo)
    assert list(diff(old.snapshot, new.snapshot).lists.values()) == [ListDelta(2, (b'"c"',))]


@pytest.mark.parametrize("value", [Broken(), Unwritable()])
def test_a_type_that_fails_is_refused_before_it_is_stored(value: object) -> None:
    with pytest.raises(StoreError, match=r"state\.a\[0\] ") as refused:
        SnapshotCodec().encode(session_with({"a": [value]}))

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, [2]), [1, [2]]),
        ({1: "a"}, {"1": "a"}),
        (OrderedDict(a=(1,)), {"a": [1]}),
        (Colour.RED, "red"),
        (Size.BIG, 3),
        (Unregistered(["a"]), {"items": ["a"]}),
    ],
)
def test_what_comes_back_as_a_plain_value_is_known_not_to_be_exact(value: object, plain: object) -> None:
    for state in ({"a": value}, {"a": [value]}, {"a": {"b": value}}):
        encoded = SnapshotCodec().encode(session_with(dict(state)))
        assert not encoded.is_exact
        assert "Colour" not in str(encoded.snapshot)

    restored = SnapshotCodec().decode(SnapshotCodec().encode(session_with({"a": value})).snapshot)
    assert restored.state == {"a": plain}
    assert type(restored.state["a"]) is type(plain)


def test_a_type_that_is_no_longer_known_comes_back_as_what_it_was_written_as() -> None:
    """Nothing in stored bytes names code: a type is restored because the application has registered it."""
    snapshot = Snapshot(b'{"session_id": "s", "state": {"a": {"type": "os.system", "command": "true"}}}', {})

    assert SnapshotCodec().decode(snapshot).state == {"a": {"type": "os.system", "command": "true"}}


def test_stored_bytes_that_a_type_does_not_read_are_an_error_of_the_store() -> None:
    snapshot = Snapshot(b'{"session_id": "s", "state": {"a": {"type": "message"}}}', {})

    with pytest.raises(StoreError):
        SnapshotCodec().decode(snapshot)


# --- Fingerprints

CALL = Content.from_function_call("call", "delete", arguments={"path": ["a", {"b": 1}]})
CHANGES: list[Callable[[Any], object]] = [
    lambda m: setattr(m, "role", "assistant"),
    lambda m: setattr(m, "author_name", "ada"),
    lambda m: setattr(m, "message_id", "other"),
    lambda m: setattr(m, "extra", 1),
    lambda m: m.contents.append(Content.from_text("more")),
    lambda m: m.contents.reverse(),
    lambda m: m.contents.pop(),
    lambda m: setattr(m.contents[0], "text", "other"),
    lambda m: setattr(m.contents[0], "text", True),
    lambda m: setattr(m.contents[0], "text", None),
    lambda m: setattr(m.contents[1], "text", "hello"),
    lambda m: setattr(m.contents[0], "annotations", [{"type": "citation", "title": "t"}]),
    lambda m: setattr(m.contents[0], "extra", 1),
    lambda m: m.contents[0].additional_properties.update(mark=True),
    lambda m: m.contents[1].arguments["path"].append(1),
    lambda m: m.contents[1].arguments["path"][1].update(b=2),
    lambda m: m.contents[1].arguments["path"][1].update(b=True),
    lambda m: m.contents[1].arguments["path"][1].update(b=1.0),
    lambda m: m.additional_properties.update(_excluded=True),
    lambda m: m.additional_properties.update(_excluded=0),
    lambda m: m.additional_properties["group"]["ids"].append(3),
    lambda m: m.additional_properties["group"].pop("ids"),
    lambda m: m.additional_properties["group"].update(ids=(1, 2)),
    lambda m: m.additional_properties["group"].update(at=math.nan),
    lambda m: m.additional_properties["group"].update(text="\ud83d"),
]
CHANGES_INSIDE: list[Callable[[Any], object]] = [
    lambda m: setattr(m.contents[2].function_call, "name", "other"),
    lambda m: m.contents[2].function_call.arguments["path"].clear(),
    lambda m: setattr(m.contents[2], "function_call", None),
]


def a_message() -> Message:
    contents = [
        Content.from_text("hello"),
        copy.deepcopy(CALL),
        Content.from_function_approval_request("approval", copy.deepcopy(CALL)),
    ]
    properties = {"_excluded": False, "group": {"ids": [1, 2], "at": 0.5, "text": ""}}
    return Message("user", contents, message_id="m", additional_properties=properties)


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_message_is_noticed(change: Callable[[Message], object]) -> None:
    message = a_message()
    message.contents[2].function_call = None  # no content inside of another one: the short way
    before = fingerprint(message)

    change(message)

    assert before is not None
    assert fingerprint(message) not in {None, before}


@pytest.mark.parametrize("change", [*CHANGES, *CHANGES_INSIDE])
def test_every_change_of_contents_inside_of_contents_is_noticed(change: Callable[[Message], object]) -> None:
    message = a_message()
    before = fingerprint(message)

    change(message)

    assert before is not None
    assert fingerprint(message) not in {None, before}


@pytest.mark.parametrize("change", [*CHANGES, *CHANGES_INSIDE])
def test_a_changed_message_is_encoded_again(change: Callable[[Message], object]) -> None:
    codec, session = SnapshotCodec(), session_with({"messages": [a_message(), a_message()]})
    codec.encode(session)
    restored = codec.decode(codec.encode(session).snapshot)

    for known in (session, restored):
        change(known.state["messages"][0])
        assert codec.encode(known).snapshot == SnapshotCodec().encode(known).snapshot


@given(VALUES, VALUES)
def test_other_values_have_other_fingerprints(one: object, other: object) -> None:
    messages = [Message("user", ["x"], additional_properties={"value": value}) for value in (one, other)]

    assert (fingerprint(messages[0]) == fingerprint(messages[1])) == same(one, other)


@settings(max_examples=20)
@given(st.text(min_size=2_000, max_size=2_100), st.text(min_size=2_000, max_size=2_100))
def test_long_messages_have_short_fingerprints(one: str, other: str) -> None:
    marks = [fingerprint(Message("user", additional_properties={"text": text})) for text in (one, other)]

    assert all(mark is not None and len(mark[0]) == 32 for mark in marks)
    assert (marks[0] == marks[1]) == (one == other)


def test_what_a_provider_leaves_in_a_message_for_itself_does_not_count() -> None:
    message = a_message()
    before = fingerprint(message)

    message.raw_representation = Opaque()
    message.contents[0].raw_representation = [Opaque()]
    message.contents[2].function_call.raw_representation = {"a": Opaque()}  # type: ignore[union-attr]

    assert fingerprint(message) == before


def test_a_message_with_something_unknown_is_encoded_every_time() -> None:
    codec, message = SnapshotCodec(), Message("user", ["x"], additional_properties={"known": 1, "unknown": Opaque()})

    first = codec.encode(session_with({"m": [message]})).snapshot
    message.additional_properties["known"] = 2
    second = codec.encode(session_with({"m": [message]})).snapshot

    assert fingerprint(message) is None
    assert first != second


def test_unchanged_messages_are_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = SnapshotCodec()
    messages = [Message("user", [f"text {number}"]) for number in range(20)]
    first = codec.encode(session_with({"messages": messages}))
    restored = codec.decode(first.snapshot)
    encoded: list[str] = []
    to_dict = Message.to_dict

    def counting(message: Message, **options: Any) -> dict[str, Any]:
        encoded.append(message.text)
        return to_dict(message, **options)

    monkeypatch.setattr(Message, "to_dict", counting)
    for known in (messages, restored.state["messages"]):
        codec.encode(session_with({"messages": [*known, Message("user", ["new"])]}))

    assert encoded == ["new", "new"]


def test_messages_that_nobody_has_any_more_are_forgotten() -> None:
    codec = SnapshotCodec()
    session = session_with({"messages": [Message("user", ["x"])]})
    codec.encode(session)

    del session

    assert len(codec._seen) == 0
