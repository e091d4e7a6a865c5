"""branches.py: sessions whose history lies with a provider or at a service, continued twice, after failures, at once."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from agent_framework import (
    Agent,
    AgentSession,
    ChatResponseUpdate,
    Content,
    ContextProvider,
    FileHistoryProvider,
    HistoryProvider,
    InMemoryHistoryProvider,
    Message,
    SessionContext,
    tool,
)

from agent_framework_hosting import Partition, TargetError, TargetInput
from agent_framework_hosting.branches import SESSION_STATE_KEY, continue_session, external_histories
from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.stores.base import SessionKey
from agent_framework_hosting.targets.agent import AgentTarget
from agent_framework_hosting.testing.agents import ChatStep, Gate, ScriptedChatClient

pytestmark = pytest.mark.filterwarnings(r"ignore:\[FILE_HISTORY\]:FutureWarning")


class Snapshots:
    """A session store as small as can be: sessions as what their own codec makes of them."""

    def __init__(self) -> None:
        self.claims: list[SessionKey] = []
        self._stored: dict[SessionKey, dict[str, Any]] = {}

    async def get(self, partition: Partition, key: SessionKey) -> AgentSession | None:
        stored = self._stored.get(key)
        return None if stored is None else AgentSession.from_dict(copy.deepcopy(stored))

    async def put(
        self, partition: Partition, key: SessionKey, session: AgentSession, *, base: SessionKey | None = None
    ) -> None:
        self._stored[key] = copy.deepcopy(session.to_dict())

    async def claim(self, partition: Partition, key: SessionKey) -> bool:
        self.claims.append(key)
        return key in self._stored and self.claims.count(key) == 1

    async def delete(self, partition: Partition, key: SessionKey) -> bool:
        return self._stored.pop(key, None) is not None


class Told:
    """Turns of one agent, each stored under its name, as a channel stores them."""

    def __init__(self, agent: Any, model: ScriptedChatClient) -> None:
        self.target = AgentTarget(agent)
        self.store = Snapshots()
        self._model = model

    async def continued(self, name: str, *, keeps_session: bool = True) -> AgentSession | None:
        key = SessionKey(name)
        return await continue_session(self.target, self.store, SHARED, key, keeps_session=keeps_session)

    async def turn(self, name: str, *, after: str | None = None, keeps_session: bool = True) -> list[str]:
        """Run the turn `name` and return what its first model call was told; a turn that cannot go on says so."""
        session = self.target.new_session()
        if after is not None:
            found = await self.continued(after, keeps_session=keeps_session)
            if found is None:
                return ["<the context again>"]
            session = found
        return await self.run(name, session, keeps_session=keeps_session)

    async def run(self, name: str, session: AgentSession, *, keeps_session: bool = True) -> list[str]:
        call = len(self._model.calls)
        run = TargetInput(messages=name, session=session, keeps_session=keeps_session)
        async with aclosing(self.target.stream(run)) as updates:
            async for _ in updates:
                pass
        if keeps_session:
            await self.store.put(SHARED, SessionKey(name), session)
        return [message.text for message in self._model.calls[call].messages]

    async def id_of(self, name: str) -> str:
        session = await self.store.get(SHARED, SessionKey(name))
        assert session is not None
        return session.session_id


def told(*turns: Sequence[ChatStep], providers: Sequence[ContextProvider], **options: Any) -> Told:
    model = ScriptedChatClient(*turns)
    return Told(Agent(client=model, context_providers=providers, **options), model)


def answers(count: int) -> list[list[ChatStep]]:
    return [[f"answer {number}"] for number in range(1, count + 1)]


def lines(directory: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in directory.iterdir())


class FailsOnce(ContextProvider):
    """Fails after the run, when the providers behind it have saved already."""

    def __init__(self) -> None:
        super().__init__("fails_once")
        self.is_armed = False

    async def after_run(self, **_: Any) -> None:
        if self.is_armed:
            self.is_armed = False
            raise ValueError("too late")


class Shelf(HistoryProvider):
    """Keeps message objects in a dict, as simple providers do; what it forgets is up to the test."""

    def __init__(self, *, keeps: int | None = None) -> None:
        super().__init__("shelf")
        self.keeps = keeps
        self.shelves: dict[str | None, list[Message]] = {}

    async def get_messages(
        self, session_id: str | None, *, state: dict[str, Any] | None = None, **_: Any
    ) -> list[Message]:
        return self.shelves.get(session_id, [])

    async def save_messages(
        self, session_id: str | None, messages: Sequence[Message], *, state: dict[str, Any] | None = None, **_: Any
    ) -> None:
        kept = [*self.shelves.get(session_id, []), *messages]
        self.shelves[session_id] = kept if self.keeps is None else kept[-self.keeps :]


@pytest.mark.behaviour("A1")
async def test_a_history_in_files_goes_along_a_chain_in_one_file(tmp_path: Path) -> None:
    chain = told(*answers(3), providers=[FileHistoryProvider(tmp_path)])

    await chain.turn("one")
    await chain.turn("two", after="one")
    heard = await chain.turn("three", after="two")

    assert heard == ["one", "answer 1", "two", "answer 2", "three"]
    assert await chain.id_of("one") == await chain.id_of("three")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.behaviour("A2")
async def test_a_branch_gets_an_id_of_its_own_and_the_history_up_to_where_it_began(tmp_path: Path) -> None:
    chain = told(*answers(5), providers=[FileHistoryProvider(tmp_path)])

    await chain.turn("one")
    await chain.turn("two", after="one")
    branch = await chain.turn("branch", after="one")
    after_branch = await chain.turn("after branch", after="branch")
    after_two = await chain.turn("after two", after="two")

    assert branch == ["one", "answer 1", "branch"]
    assert after_branch == ["one", "answer 1", "branch", "answer 3", "after branch"]
    assert after_two == ["one", "answer 1", "two", "answer 2", "after two"]
    assert await chain.id_of("branch") == await chain.id_of("after branch") != await chain.id_of("two")


@pytest.mark.behaviour("A5")
@pytest.mark.parametrize("fails_after_saving", [False, True])
async def test_a_failed_turn_leaves_a_history_in_files_as_it_was(tmp_path: Path, fails_after_saving: bool) -> None:
    late = FailsOnce()
    second: list[ChatStep] = ["half", ValueError("broken")] if not fails_after_saving else ["all of it"]
    chain = told(["answer 1"], second, ["answer 2"], providers=[late, FileHistoryProvider(tmp_path)])
    await chain.turn("one")
    late.is_armed = fails_after_saving

    with pytest.raises(TargetError):
        await chain.turn("fails", after="one")
    heard = await chain.turn("two", after="one")

    assert heard == ["one", "answer 1", "two"]


@pytest.mark.behaviour("A2")
async def test_two_that_continue_one_session_at_once_do_not_hear_each_other(tmp_path: Path) -> None:
    first, second = Gate(), Gate()
    chain = told(
        ["answer 1"], [first, "answer 2"], [second, "answer 3"], ["a"], ["b"], providers=[FileHistoryProvider(tmp_path)]
    )
    await chain.turn("one")

    left = asyncio.create_task(chain.turn("left", after="one"))
    await asyncio.wait_for(first.reached.wait(), timeout=60)
    right = asyncio.create_task(chain.turn("right", after="one"))
    await asyncio.wait_for(second.reached.wait(), timeout=60)
    second.open()
    heard_right = await right
    first.open()
    heard_left = await left

    assert heard_left == ["one", "answer 1", "left"]
    assert heard_right == ["one", "answer 1", "right"]
    assert await chain.turn("a", after="left") == ["one", "answer 1", "left", "answer 2", "a"]
    assert await chain.turn("b", after="right") == ["one", "answer 1", "right", "answer 3", "b"]


@pytest.mark.behaviour("A7")
async def test_a_turn_that_is_not_stored_hears_the_past_and_leaves_nothing_in_files(tmp_path: Path) -> None:
    chain = told(*answers(5), providers=[FileHistoryProvider(tmp_path)])
    await chain.turn("one")
    early = await chain.turn("early", after="one", keeps_session=False)
    await chain.turn("two", after="one")

    late = await chain.turn("late", after="one", keeps_session=False)
    fresh = await chain.turn("fresh", keeps_session=False)

    assert (early, late, fresh) == (["one", "answer 1", "early"], ["one", "answer 1", "late"], ["fresh"])
    assert await chain.id_of("one") == await chain.id_of("two")
    assert lines(tmp_path) == 4


@pytest.mark.behaviour("A7")
async def test_a_turn_that_is_not_stored_still_knows_what_it_said_itself_between_two_model_calls(
    tmp_path: Path,
) -> None:
    @tool
    def weather() -> str:
        """Say how the weather is."""
        return "rain"

    model = ScriptedChatClient(["answer 1"], [Content.from_function_call("c1", "weather", arguments="{}")], ["wet"])
    provider = FileHistoryProvider(tmp_path)
    agent = Agent(
        client=model, tools=[weather], context_providers=[provider], require_per_service_call_history_persistence=True
    )
    chain = Told(agent, model)
    await chain.turn("one")

    await chain.turn("and now?", after="one", keeps_session=False)

    kinds = [part.type for message in model.calls[2].messages for part in message.contents]
    assert kinds == ["text", "text", "text", "function_call", "function_result"]
    assert lines(tmp_path) == 2


async def test_a_history_that_has_lost_its_past_is_told_the_context_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain = told(*answers(2), providers=[FileHistoryProvider(tmp_path)])
    await chain.turn("one")
    for path in tmp_path.iterdir():
        path.unlink()

    session = await chain.continued("one")

    assert session is None
    assert "A history is not what it was; the context is told again" in caplog.messages


async def test_a_provider_that_forgets_the_oldest_can_be_continued_but_not_branched_any_more() -> None:
    chain = told(*answers(4), providers=[Shelf(keeps=2)])

    await chain.turn("one")
    two = await chain.turn("two", after="one")
    branch = await chain.turn("branch", after="one")
    three = await chain.turn("three", after="two")

    assert two == ["one", "answer 1", "two"]
    assert branch == ["<the context again>"]
    assert three == ["two", "answer 2", "three"]


async def test_branches_do_not_share_the_objects_of_messages() -> None:
    shelf = Shelf()
    chain = told(*answers(3), providers=[shelf])

    await chain.turn("one")
    await chain.turn("two", after="one")
    await chain.turn("branch", after="one")

    first, second = shelf.shelves[await chain.id_of("two")], shelf.shelves[await chain.id_of("branch")]
    assert [message.text for message in second] == ["one", "answer 1", "branch", "answer 3"]
    assert not {id(message) for message in first} & {id(message) for message in second}


async def test_a_history_that_does_not_take_the_past_is_told_the_context_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf = Shelf()
    chain = told(*answers(2), providers=[shelf])
    await chain.turn("one")
    await chain.turn("two", after="one")
    shelf.keeps = 1

    session = await chain.continued("one")

    assert session is None
    assert "A history could not be copied" in caplog.messages


async def test_a_history_that_belongs_to_no_session_is_not_copied_into_itself() -> None:
    class Diary(Shelf):
        async def get_messages(self, session_id: str | None, **options: Any) -> list[Message]:
            return await super().get_messages("everybody", **options)

        async def save_messages(self, session_id: str | None, messages: Sequence[Message], **options: Any) -> None:
            await super().save_messages("everybody", messages, **options)

    chain = told(*answers(3), providers=[Diary()])
    await chain.turn("one")
    await chain.turn("two", after="one")

    heard = await chain.turn("branch", after="one")

    assert heard == ["one", "answer 1", "two", "answer 2", "branch"]


async def test_a_session_from_before_the_agent_got_its_provider_is_told_the_context_again(tmp_path: Path) -> None:
    chain = told(*answers(1), providers=[])
    await chain.turn("one")

    chain.target = AgentTarget(Agent(client=ScriptedChatClient(), context_providers=[FileHistoryProvider(tmp_path)]))
    since = await chain.continued("one")
    chain.target = AgentTarget(Agent(client=ScriptedChatClient()))
    before = await chain.continued("one")

    assert since is None
    assert before is not None


async def test_an_agent_of_another_kind_cannot_be_kept_from_saving_but_leaves_the_chain_alone() -> None:
    class Wrapped:
        """An agent of the user's own around one of the framework's."""

        id = name = "wrapped"
        description = None

        def __init__(self, agent: Agent[Any]) -> None:
            self.run = agent.run
            self.context_providers = agent.context_providers

    model = ScriptedChatClient(*answers(3))
    chain = Told(Wrapped(Agent(client=model, context_providers=[Shelf()])), model)
    await chain.turn("one")
    unkept = await chain.turn("unkept", after="one", keeps_session=False)

    heard = await chain.turn("two", after="one")

    assert (unkept, heard) == (["one", "answer 1", "unkept"], ["one", "answer 1", "two"])
    assert await chain.id_of("one") == await chain.id_of("two")


# ── what ordinary agents pay, and what comes back for them ──────────────────────────────────────────────────────────


class Notebook(ContextProvider):
    """Keeps what it heard in its part of the session's state."""

    def __init__(self) -> None:
        super().__init__("notebook")
        self.seen: list[list[str]] = []

    async def before_run(self, *, context: SessionContext, state: dict[str, Any], **_: Any) -> None:
        self.seen.append(list(state.get("heard", [])))
        state.setdefault("heard", []).extend(message.text for message in context.input_messages)


class Memory(ContextProvider):
    """Keeps what it heard in itself, under the session's id."""

    def __init__(self) -> None:
        super().__init__("memory")
        self.heard: dict[str | None, list[str]] = {}
        self.seen: list[list[str]] = []

    async def before_run(self, *, context: SessionContext, **_: Any) -> None:
        heard = self.heard.setdefault(context.session_id, [])
        self.seen.append(list(heard))
        heard.extend(message.text for message in context.input_messages)


@pytest.mark.behaviour("A2", "A5")
@pytest.mark.parametrize("names_provider", [False, True])
async def test_history_and_state_inside_the_session_come_back_exactly_and_cost_no_claim(names_provider: bool) -> None:
    notebook = Notebook()
    providers: list[ContextProvider] = [notebook, InMemoryHistoryProvider()] if names_provider else [notebook]
    chain = told(["answer 1"], ["answer 2"], ["half", ValueError("broken")], ["answer 4"], providers=providers)

    await chain.turn("one")
    await chain.turn("two", after="one")
    with pytest.raises(TargetError):
        await chain.turn("fails", after="one")
    heard = await chain.turn("branch", after="one")

    assert heard == ["one", "answer 1", "branch"]
    assert notebook.seen == [[], ["one"], ["one"], ["one"]]
    assert chain.store.claims == []
    session = await chain.store.get(SHARED, SessionKey("branch"))
    assert session is not None
    assert SESSION_STATE_KEY not in session.state


async def test_what_a_provider_keeps_in_itself_by_session_id_is_not_brought_back() -> None:
    # The documented limit: only history providers say how to read and to write what they keep.
    memory = Memory()
    chain = told(*answers(3), providers=[memory])

    await chain.turn("one")
    await chain.turn("two", after="one")
    heard = await chain.turn("branch", after="one")

    assert heard == ["one", "answer 1", "branch"]
    assert memory.seen == [[], ["one"], ["one", "two"]]


def test_only_what_is_loaded_from_elsewhere_is_an_external_history(tmp_path: Path) -> None:
    record = FileHistoryProvider(tmp_path, source_id="record", load_messages=False)
    loaded = FileHistoryProvider(tmp_path)
    agent = Agent(client=ScriptedChatClient(), context_providers=[InMemoryHistoryProvider(), record, loaded])

    found = external_histories(agent)

    assert found == [loaded]
    assert external_histories(object()) == []


async def test_targets_without_a_say_in_it_go_on_with_the_stored_session() -> None:
    store, key, session = Snapshots(), SessionKey("one"), AgentSession(service_session_id="conv_1")
    await store.put(SHARED, key, session)

    first = await continue_session(object(), store, SHARED, key)
    second = await continue_session(object(), store, SHARED, key)
    unknown = await continue_session(object(), store, SHARED, SessionKey("none"))

    assert first is not None
    assert second is not None
    assert first.session_id == second.session_id == session.session_id
    assert unknown is None
    assert store.claims == []


# ── histories at a service ──────────────────────────────────────────────────────────────────────────────────────────


def at_service(*ids: str, providers: Sequence[ContextProvider] = ()) -> Told:
    """Return an agent whose service answers the n-th call under the n-th id."""
    return told(
        *(
            [ChatResponseUpdate(contents=[Content.from_text(id_)], role="assistant", conversation_id=id_)]
            for id_ in ids
        ),
        providers=providers,
        default_options={"store": True},
    )


async def service_ids(chain: Told, *names: str) -> list[object]:
    sessions = [await chain.continued(name) for name in names]
    return [session and session.service_session_id for session in sessions]


@pytest.mark.behaviour("A2")
async def test_the_id_of_a_stored_response_is_continued_any_number_of_times_without_a_claim() -> None:
    chain = at_service("resp_1", "resp_2", "resp_3")

    await chain.turn("one")
    await chain.turn("two", after="one")
    await chain.turn("branch", after="one")

    assert await service_ids(chain, "one", "one", "two", "branch") == ["resp_1", "resp_1", "resp_2", "resp_3"]
    assert chain.store.claims == []


@pytest.mark.behaviour("A2", "A5")
@pytest.mark.parametrize("id_", ["conv_1", "thread_1", "something"])
async def test_a_conversation_at_a_service_is_continued_once_and_told_again_to_others(id_: str) -> None:
    chain = at_service(id_, id_, id_)

    await chain.turn("one")
    await chain.turn("two", after="one")
    branch = await chain.turn("branch", after="one")
    await chain.turn("three", after="two")

    assert branch == ["<the context again>"]
    assert await service_ids(chain, "three", "three", "two") == [id_, None, None]


async def test_an_id_that_was_seen_to_change_over_a_turn_can_be_branched() -> None:
    chain = at_service("first", "second", "third")

    await chain.turn("one")
    await chain.turn("two", after="one")
    branch = await chain.turn("branch", after="one")
    await chain.turn("three", after="two")

    # That it changes could not be known after the first turn.
    assert branch == ["<the context again>"]
    assert await service_ids(chain, "two", "two", "three", "three") == ["second", "second", "third", "third"]


async def test_a_conversation_that_is_replaced_by_another_is_still_a_conversation() -> None:
    chain = at_service("conv_1", "conv_2")

    await chain.turn("one")
    await chain.turn("two", after="one")

    assert await service_ids(chain, "two", "two") == ["conv_2", None]


@pytest.mark.behaviour("A7")
async def test_a_turn_that_is_not_stored_adds_nothing_to_a_conversation_at_a_service() -> None:
    chain = at_service("conv_1", "conv_1", "resp_1")
    await chain.turn("one")

    unkept = await chain.turn("unkept", after="one", keeps_session=False)

    assert unkept == ["<the context again>"]
    assert await service_ids(chain, "one") == ["conv_1"]


async def test_a_structured_id_of_a_service_is_continued_once() -> None:
    class Remote:
        """An agent whose service gives a task of its own to every turn of one conversation."""

        id = name = "remote"
        description = None
        tasks = 0

        async def run(self, messages: object = None, *, session: AgentSession, **_: Any) -> Any:
            self.tasks += 1
            service: Mapping[str, object] = {"context": "c1", "task": f"t{self.tasks}"}
            session.service_session_id = service
            return await Agent(client=ScriptedChatClient(["done"])).run("go")

    model = ScriptedChatClient(["unused"])
    chain = Told(Remote(), model)
    session = chain.target.new_session()
    for name in ("one", "two"):
        async with aclosing(chain.target.stream(TargetInput(messages=name, session=session))) as updates:
            async for _ in updates:
                pass
        await chain.store.put(SHARED, SessionKey(name), session)

    assert await service_ids(chain, "two", "two") == [{"context": "c1", "task": "t2"}, None]


async def test_a_service_and_a_provider_together_are_branched_together(tmp_path: Path) -> None:
    chain = at_service("resp_1", "resp_2", "resp_3", providers=[FileHistoryProvider(tmp_path)])
    await chain.turn("one")
    await chain.turn("two", after="one")

    branch = await chain.continued("one")

    assert branch is not None
    assert branch.service_session_id == "resp_1"
    assert branch.session_id != await chain.id_of("one")
