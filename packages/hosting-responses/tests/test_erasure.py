"""What is deleted is nowhere any more: not in a row, not in a file, not while the host runs and not afterwards (D5, A7)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
import stored
from agent_framework import Agent, AgentSession, Executor, Workflow, WorkflowBuilder, WorkflowContext, handler
from states import State
from witness import Answer, LocalClient, Witness, local

from agent_framework_hosting import AgentFrameworkHost, ChannelSession
from agent_framework_hosting.cli import main
from agent_framework_hosting.errors import StoreError, StoreUnavailable
from agent_framework_hosting.isolation import SHARED, Partition
from agent_framework_hosting.retention import prune_all
from agent_framework_hosting.runs.base import RunId
from agent_framework_hosting.stores.base import Prunable, Retention, SessionKey
from agent_framework_hosting.stores.memory import MemorySessionStore
from agent_framework_hosting.testing.agents import Gate
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings
from agent_framework_hosting_responses.stores.context import response_session_key
from agent_framework_hosting_responses.stores.sql_responses import SqlResponseStore

SECRET = "the-password-is-swordfish"
SECONDS = 60.0
MODES: dict[str, dict[str, Any]] = {"one-shot": {}, "stream": {"stream": True}, "background": {"background": True}}


class Remember(Executor):
    """Answers with everything that it has been told in this conversation, in two steps with a checkpoint each."""

    def __init__(self) -> None:
        super().__init__(id="remember")
        self.heard: list[str] = []

    @handler
    async def hear(self, message: str, ctx: WorkflowContext[str, str]) -> None:
        if message == "fail":
            raise ValueError
        self.heard.append(message)
        await ctx.send_message("|".join(self.heard))

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"heard": list(self.heard)}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.heard = list(state["heard"])


class Say(Executor):
    @handler
    async def say(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        await ctx.yield_output(message)


def remembering() -> Workflow:
    first, last = Remember(), Say(id="say")
    return WorkflowBuilder(start_executor=first, output_from=[last], name="memory").add_edge(first, last).build()


class Talk:
    """Requests to a host, with the way a response is deleted and is known to be."""

    def __init__(self, client: LocalClient, host: AgentFrameworkHost, witness: Witness) -> None:
        self.ask = client
        self.host = host
        self.witness = witness

    async def create(self, text: str, **body: Any) -> str:
        """Return the id of a response that has ended."""
        answer = await self.ask("POST", "/v1/responses", {"input": text, **body})
        assert answer.status == 200, answer
        if body.get("stream"):
            return str(answer.content.partition(b'"id":"')[2].partition(b'"')[0].decode())
        response_id = str(answer.json()["id"])
        if body.get("background"):
            await self.ask("GET", f"/v1/responses/{response_id}?stream=true")
        return response_id

    async def delete(self, response_id: str) -> None:
        """Delete the response; from then on it is unknown."""
        path = f"/v1/responses/{response_id}"
        answer = await self.ask("DELETE", path)
        assert answer.status == 200, answer
        assert (await self.ask("GET", path)).status == 404
        assert (await self.ask("GET", f"{path}/input_items")).status == 404
        assert (await self.ask("DELETE", path)).status == 404
        check_unknown(await self.ask("POST", "/v1/responses", {"input": "q", "previous_response_id": response_id}))

    async def converse(self) -> str:
        """Return the id of a new conversation."""
        return str((await self.ask("POST", "/v1/conversations", {})).json()["id"])

    async def items(self, conversation: str) -> list[str]:
        """Return the ids of the conversation's items."""
        found = (await self.ask("GET", f"/v1/conversations/{conversation}/items")).json()["data"]
        return [str(item["id"]) for item in found]

    async def drop(self, conversation: str) -> None:
        """Delete the conversation."""
        assert (await self.ask("DELETE", f"/v1/conversations/{conversation}")).status == 200


def check_unknown(answer: Answer) -> None:
    assert (answer.status, answer.json()["error"]["code"]) == (400, "previous_response_not_found"), answer


@asynccontextmanager
async def talking(
    state: State, target: Any = None, *, channel: dict[str, Any] | None = None, **options: Any
) -> AsyncGenerator[Talk, None]:
    witness = Witness()
    channels = [ResponsesChannel(**(channel or {}))]
    host = AgentFrameworkHost(
        target or Agent(client=witness), channels=channels, **{"shutdown_grace": 0, **state.options, **options}
    )
    async with local(host) as client:
        yield Talk(client, host, witness)


# --- DELETE


async def a_single_turn(talk: Talk, mode: dict[str, Any]) -> None:
    await talk.delete(await talk.create(SECRET, **mode))


async def the_end_of_a_chain(talk: Talk, mode: dict[str, Any]) -> None:
    first = await talk.create("hello", **mode)
    await talk.delete(await talk.create(SECRET, previous_response_id=first, **mode))
    again = await talk.create("again", previous_response_id=first)
    assert talk.witness.seen["again"] == ["hello", "answer to hello", "again"]
    await talk.delete(again)


async def a_whole_chain_from_its_start(talk: Talk, mode: dict[str, Any]) -> None:
    first = await talk.create(SECRET, **mode)
    second = await talk.create("and?", previous_response_id=first, **mode)
    third = await talk.create("so?", previous_response_id=second, **mode)
    for response_id in (first, second, third):
        await talk.delete(response_id)


async def a_whole_chain_from_its_end(talk: Talk, mode: dict[str, Any]) -> None:
    first = await talk.create(SECRET, **mode)
    second = await talk.create("and?", previous_response_id=first, **mode)
    third = await talk.create("so?", previous_response_id=second, **mode)
    for response_id in (third, second, first):
        await talk.delete(response_id)


async def two_branches(talk: Talk, mode: dict[str, Any]) -> None:
    first = await talk.create("hello", **mode)
    one = await talk.create(SECRET, previous_response_id=first, **mode)
    other = await talk.create("nothing", previous_response_id=first, **mode)
    more = await talk.create("more", previous_response_id=one, **mode)
    await talk.delete(one)
    await talk.delete(more)
    assert (await talk.ask("GET", f"/v1/responses/{other}")).status == 200


async def a_conversation_that_goes_too(talk: Talk, mode: dict[str, Any]) -> None:
    conversation = await talk.converse()
    first = await talk.create(SECRET, conversation=conversation, **mode)
    second = await talk.create("and?", conversation=conversation, **mode)
    await talk.delete(first)
    await talk.drop(conversation)
    await talk.delete(second)


async def a_conversation_that_loses_its_items(talk: Talk, mode: dict[str, Any]) -> None:
    conversation = await talk.converse()
    response = await talk.create(SECRET, conversation=conversation, **mode)
    for item in await talk.items(conversation):
        assert (await talk.ask("DELETE", f"/v1/conversations/{conversation}/items/{item}")).status == 200
    await talk.delete(response)
    await talk.delete(await talk.create("clean", conversation=conversation))


async def a_named_request(talk: Talk, mode: dict[str, Any]) -> None:
    key = {"idempotency-key": f"order {mode}"}
    answer = await talk.ask("POST", "/v1/responses", {"input": SECRET}, headers=key)
    await talk.delete(answer.json()["id"])
    again = await talk.ask("POST", "/v1/responses", {"input": "hello", **mode}, headers=key)
    assert again.status == 200


async def many_turns_in_any_order(talk: Talk, mode: dict[str, Any]) -> None:
    """Rows of many sizes make the database move them; copies must not stay where they were."""
    if mode:
        return
    chance = random.Random(3)
    made: list[str] = []
    for turn in range(25):
        previous = {"previous_response_id": chance.choice(made)} if turn % 5 else {}
        text = f"{SECRET} {turn} " + "x" * chance.randrange(6_000)
        made.append(await talk.create(text, **previous, **mode))
    chance.shuffle(made)
    for response in made:
        await talk.delete(response)


WAYS: list[Callable[[Talk, dict[str, Any]], Awaitable[None]]] = [
    a_single_turn,
    the_end_of_a_chain,
    a_whole_chain_from_its_start,
    a_whole_chain_from_its_end,
    two_branches,
    a_conversation_that_goes_too,
    a_conversation_that_loses_its_items,
    a_named_request,
    many_turns_in_any_order,
]


@pytest.mark.behaviour("D5")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_what_an_agent_was_told_is_nowhere_once_it_is_deleted(
    state: State, way: Callable[[Talk, dict[str, Any]], Awaitable[None]]
) -> None:
    async with talking(state) as talk:
        for mode in MODES.values():
            await way(talk, mode)
            assert [place for place, content in stored.cells(state) if SECRET.encode() in content] == []
        while_running = stored.places_of(state, SECRET) if way is not many_turns_in_any_order else []
        kept = await talk.create(SECRET)
        before = stored.places_of(state, SECRET)
        await talk.delete(kept)

    assert while_running == []
    assert stored.places_of(state, SECRET) == []
    # Otherwise this would look where nothing ever was.
    assert before or not state.is_durable


@pytest.mark.behaviour("D5")
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("lies_in_files", [True, False])
async def test_what_a_workflow_was_told_is_nowhere_once_it_is_deleted(
    state: State, mode: dict[str, Any], *, lies_in_files: bool
) -> None:
    options = (
        {} if lies_in_files or state.kind != "sqlite" else {"state_dir": {"sessions": state.directory / "sessions"}}
    )
    async with talking(state, remembering, **options) as talk:
        first = await talk.create("hello", **mode)
        second = await talk.create(SECRET, previous_response_id=first, **mode)
        before = stored.places_of(state, SECRET)
        third = await talk.create("more", previous_response_id=second, **mode)
        await talk.delete(second)
        await talk.delete(third)
        while_running = stored.places_of(state, SECRET)
        again = await talk.ask("POST", "/v1/responses", {"input": "again", "previous_response_id": first})

    assert while_running == []
    assert stored.places_of(state, SECRET) == []
    assert b"hello|again" in again.content
    if state.is_durable:
        assert any("checkpoints" in place for place in before), before


@pytest.mark.behaviour("D5")
async def test_what_a_run_that_was_cancelled_or_interrupted_was_told_is_nowhere_once_it_is_deleted(
    state: State,
) -> None:
    ended: list[str] = []
    for is_cancelled in (True, False):
        async with talking(state) as talk:
            gate = talk.witness.gates[SECRET] = Gate()
            answer = await talk.ask("POST", "/v1/responses", {"input": SECRET, "background": True})
            ended.append(answer.json()["id"])
            await asyncio.wait_for(gate.reached.wait(), SECONDS)
            if is_cancelled:
                await talk.ask("POST", f"/v1/responses/{ended[0]}/cancel")
    async with talking(state) as talk:
        for response in ended if state.is_durable else ():
            await talk.delete(response)
        while_running = stored.places_of(state, SECRET)

    assert while_running == stored.places_of(state, SECRET) == []


@pytest.mark.behaviour("D5")
async def test_a_response_that_others_continue_stays_for_them_alone_and_goes_with_the_last(state: State) -> None:
    async with talking(state) as talk:
        first = await talk.create(SECRET)
        second = await talk.create("and?", previous_response_id=first)
        branch = await talk.create("or?", previous_response_id=first)
        await talk.delete(first)
        left = stored.places_of(state, SECRET)
        third = await talk.create("so?", previous_response_id=second)
        shown = await talk.ask("GET", f"/v1/responses/{third}/input_items")
        for response in (second, third, branch):
            between = stored.places_of(state, SECRET)
            await talk.delete(response)
        while_running = stored.places_of(state, SECRET)

    assert talk.witness.seen["so?"] == [SECRET, f"answer to {SECRET}", "and?", "answer to and?", "so?"]
    assert SECRET.encode() in shown.content
    assert while_running == stored.places_of(state, SECRET) == []
    if state.is_durable:
        # The items of the tombstone and the session's history; nothing of the body that could be asked for.
        assert {place for place in left if place.startswith("afhost_")} == {
            "afhost_responses.input",
            "afhost_responses.output",
            "afhost_sessions.lists",
        }
        assert between


@pytest.mark.behaviour("D5")
async def test_a_session_that_an_operator_named_is_erased_by_its_reset(state: State) -> None:
    def hook(request: Any, **_: Any) -> Any:
        return replace(request, session=ChannelSession("desk 7"))

    async with talking(state, channel={"run_hook": hook}) as talk:
        await talk.delete(await talk.create(SECRET))
        left = stored.places_of(state, SECRET)
        was_there = await talk.host.reset_session("desk 7")
        while_running = stored.places_of(state, SECRET)

    assert was_there
    assert while_running == stored.places_of(state, SECRET) == []
    assert bool(left) == state.is_durable


# --- store: false


@pytest.mark.behaviour("A7")
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("target", [None, remembering], ids=["agent", "workflow"])
async def test_an_unstored_response_is_nowhere_at_any_time(state: State, mode: dict[str, Any], target: Any) -> None:
    async with talking(state, target) as talk:
        first = await talk.create("hello")
        during: list[str] = []
        if target is None:
            gate = talk.witness.gates[SECRET] = Gate()
            asking = asyncio.create_task(talk.create(SECRET, previous_response_id=first, store=False, **mode))
            await asyncio.wait_for(gate.reached.wait(), SECONDS)
            during = stored.places_of(state, SECRET)
            gate.open()
            response = await asyncio.wait_for(asking, SECONDS)
        else:
            response = await talk.create(SECRET, previous_response_id=first, store=False, **mode)
        after = stored.places_of(state, SECRET)
        read = await talk.ask("GET", f"/v1/responses/{response}")
        check_unknown(await talk.ask("POST", "/v1/responses", {"input": "q", "previous_response_id": response}))

    # A background response can be polled for a while, from memory.
    assert read.status == (200 if "background" in mode else 404)
    assert during == after == stored.places_of(state, SECRET) == []
    async with talking(state, target) as talk:
        assert (await talk.ask("GET", f"/v1/responses/{response}")).status == 404


@pytest.mark.behaviour("A7")
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
async def test_an_unstored_response_in_a_conversation_is_in_its_items_and_nowhere_else(
    state: State, mode: dict[str, Any]
) -> None:
    async with talking(state) as talk:
        conversation = await talk.converse()
        await talk.create("hello", conversation=conversation)
        await talk.create(SECRET, conversation=conversation, store=False, **mode)
        left = {place for place, content in stored.cells(state) if SECRET.encode() in content}
        items = (await talk.items(conversation))[:2]
        for item in items:
            await talk.ask("DELETE", f"/v1/conversations/{conversation}/items/{item}")
        while_running = stored.places_of(state, SECRET)
        await talk.create("and?", conversation=conversation)

    assert left == ({"afhost_conversation_items.item"} if state.is_durable else set())
    assert talk.witness.seen["and?"] == ["hello", "answer to hello", "and?"]
    assert while_running == stored.places_of(state, SECRET) == []


# --- Retention


def stores_of(host: AgentFrameworkHost) -> list[Prunable]:
    return list(host._state.pruner._stores)


@pytest.mark.behaviour("D5", "D8")
@pytest.mark.parametrize("limits", [{"max_responses": 0}, {"max_response_age": 0.0}], ids=["count", "age"])
async def test_what_the_retention_forgets_is_erased_as_what_is_deleted(durable_state: State, limits: Any) -> None:
    settings = ResponsesSettings(**limits, max_conversations=0)
    async with talking(durable_state, channel={"settings": settings}) as talk:
        conversation = await talk.converse()
        made = [await talk.create(SECRET, **mode) for mode in MODES.values()]
        made.append(await talk.create("and?", previous_response_id=made[0]))
        made.append(await talk.create(f"{SECRET} again", conversation=conversation))
        before = stored.places_of(durable_state, SECRET)
        for store in stores_of(talk.host):
            await prune_all(store)
        while_running = stored.places_of(durable_state, SECRET)
        for response in made:
            assert (await talk.ask("GET", f"/v1/responses/{response}")).status == 404
            check_unknown(await talk.ask("POST", "/v1/responses", {"input": "q", "previous_response_id": response}))
        assert (await talk.ask("GET", f"/v1/conversations/{conversation}")).status == 404

    assert before
    assert while_running == stored.places_of(durable_state, SECRET) == []


@pytest.mark.behaviour("D5", "D8")
@pytest.mark.parametrize("lies_in_files", [True, False])
async def test_what_the_retention_forgets_of_a_workflow_is_erased(durable_state: State, *, lies_in_files: bool) -> None:
    in_database = (
        {"state_dir": {"sessions": durable_state.directory / "sessions"}}
        if (durable_state.kind == "sqlite" and not lies_in_files)
        else {}
    )
    settings = ResponsesSettings(max_responses=0)
    async with talking(
        durable_state, remembering, channel={"settings": settings}, retention=Retention(max_entries=0), **in_database
    ) as talk:
        response = await talk.create(SECRET)
        before = stored.places_of(durable_state, SECRET)
        # Each has to clear up after itself: in which order they come, and what the others have to do, is not known.
        for store in reversed(stores_of(talk.host)):
            await prune_all(store)
        while_running = stored.places_of(durable_state, SECRET)
        check_unknown(await talk.ask("POST", "/v1/responses", {"input": "q", "previous_response_id": response}))

    assert any("checkpoints" in place for place in before), before
    assert while_running == stored.places_of(durable_state, SECRET) == []


@pytest.mark.behaviour("D5", "D8")
@pytest.mark.parametrize("lies_in_files", [True, False])
async def test_a_checkpoint_goes_with_the_response_that_the_retention_forgets(
    durable_state: State, *, lies_in_files: bool
) -> None:
    options = {} if lies_in_files else in_one_database(durable_state)
    settings = ResponsesSettings(max_responses=2)
    async with talking(durable_state, remembering, channel={"settings": settings}, **options) as talk:
        await talk.create(SECRET)
        before = stored.places_of(durable_state, SECRET)
        first = await talk.create("hello")
        second = await talk.create("more", previous_response_id=first)
        for store in stores_of(talk.host):
            await prune_all(store)
        while_running = stored.places_of(durable_state, SECRET)
        again = await talk.ask("POST", "/v1/responses", {"input": "again", "previous_response_id": second})

    assert any("checkpoints" in place for place in before), before
    assert while_running == stored.places_of(durable_state, SECRET) == []
    assert b"hello|more|again" in again.content


@pytest.mark.behaviour("D5", "D8")
async def test_a_checkpoint_in_the_database_goes_with_the_response_that_the_command_erases(
    durable_state: State,
) -> None:
    async with talking(durable_state, remembering, **in_one_database(durable_state)) as talk:
        await talk.create(SECRET)
        # These have neither sessions nor checkpoints: of both there is not too much.
        for _ in range(2):
            await talk.ask("POST", "/v1/responses", {"input": "fail"})
    before = stored.places_of(durable_state, SECRET)
    place = (
        ["--state-dir", str(durable_state.directory)]
        if durable_state.kind == "sqlite"
        else ["--database-url", str(durable_state.options["database_url"])]
    )

    code = await asyncio.to_thread(main, ["db", "prune", *place, "--max-entries", "2"])

    assert code == 0
    assert any("checkpoints" in place for place in before), before
    assert stored.places_of(durable_state, SECRET) == []


async def test_a_session_in_a_store_of_its_own_goes_with_the_response_that_the_retention_forgets(
    durable_state: State,
) -> None:
    sessions = MemorySessionStore()
    settings = ResponsesSettings(max_responses=1)
    async with talking(durable_state, channel={"settings": settings}, session_store=sessions) as talk:
        await talk.host._state.pruner.stop()
        made = [RunId(await talk.create(text)) for text in ("hello", "and?")]
        before = await sessions.get(SHARED, response_session_key(made[0]))
        for store in stores_of(talk.host):
            await prune_all(store)

    assert before is not None
    assert await sessions.get(SHARED, response_session_key(made[0])) is None
    assert await sessions.get(SHARED, response_session_key(made[1])) is not None


@pytest.mark.parametrize("trouble", [StoreError("unknown type"), StoreUnavailable("not now")])
async def test_a_session_that_cannot_be_read_keeps_nothing_from_being_pruned_unless_it_is_for_now(
    durable_state: State, trouble: StoreError
) -> None:
    class Unreadable(MemorySessionStore):
        is_broken = False

        async def get(self, partition: Partition, key: SessionKey) -> AgentSession | None:
            if self.is_broken:
                raise trouble
            return await super().get(partition, key)

    sessions = Unreadable()
    settings = ResponsesSettings(max_responses=0)
    async with talking(durable_state, remembering, channel={"settings": settings}, session_store=sessions) as talk:
        await talk.host._state.pruner.stop()
        response = RunId(await talk.create("hello"))
        responses = next(store for store in stores_of(talk.host) if isinstance(store, SqlResponseStore))
        sessions.is_broken = True
        with suppress(StoreUnavailable):
            await responses.prune(limit=10)
        found = await talk.ask("GET", f"/v1/responses/{response}")
        sessions.is_broken = False
        erased = await responses.prune(limit=10)

    is_for_now = isinstance(trouble, StoreUnavailable)
    assert (found.status, erased) == ((200, 1) if is_for_now else (404, 0))
    assert await sessions.get(SHARED, response_session_key(response)) is None


def in_one_database(state: State) -> dict[str, Any]:
    """Options with which the checkpoints lie in the database, too."""
    return {"state_dir": {"sessions": state.directory / "sessions"}} if state.kind == "sqlite" else {}
