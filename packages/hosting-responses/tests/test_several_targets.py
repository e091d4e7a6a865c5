"""Several targets over time: restarts with other targets, lost runs, erasure, approvals, tenants, replicas."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import live
import openai
import pytest
import stored
from agent_framework import (
    Agent,
    AgentExecutor,
    Content,
    Executor,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
    tool,
)
from states import State
from team import SECONDS, Listener, Team, ended, host_of, refusal, steps

from agent_framework_hosting import ISOLATION_HEADER_USER, AgentFrameworkHost
from agent_framework_hosting.retention import prune_all
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

SECRET = "the-password-is-swordfish"


@asynccontextmanager
async def serving(targets: Any, state: State, **settings: Any) -> AsyncGenerator[Any, None]:
    """Serve the targets and give the official client's `responses`."""
    async with live.serve(host_of(targets, state, **settings).app) as served:
        yield served.client.responses


# --- Restarts


async def test_each_chain_goes_on_with_its_own_target_after_a_restart(durable_state: State) -> None:
    first = {}
    async with serving(Team().targets, durable_state) as responses:
        for name in Team().targets:
            first[name] = (await responses.create(model=name, input="a")).id

    team = Team()
    backwards = dict(reversed(team.targets.items()))
    async with serving(backwards, durable_state) as responses:
        texts = {
            name: (await responses.create(input="b", previous_response_id=made)).output_text
            for name, made in first.items()
        }

    assert texts == {"writer": "a|b", "team/critic": "a|b", "steps": "a+b"}
    assert team.writer.told == team.critic.told == [1]


async def test_a_chain_whose_target_is_gone_goes_on_with_another_that_is_named(durable_state: State) -> None:
    async with serving(Team().targets, durable_state) as responses:
        first = await responses.create(model="steps", input="a")

    team = Team()
    async with serving({"writer": team.writer, "team/critic": team.critic}, durable_state) as responses:
        said = await refusal(responses.create(input="b", previous_response_id=first.id))
        second = await responses.create(model="writer", input="b", previous_response_id=first.id)
        unchanged = await responses.retrieve(first.id)

    assert said[:2] == ("model", "model_not_found")
    assert "The model 'steps' that gave the last response is not served any more" in said[2]
    assert second.output_text == "a|a|b"
    assert unchanged == first


async def test_what_one_target_has_left_goes_on_with_those_that_are_named_later(durable_state: State) -> None:
    alone = Listener("writer")
    async with serving(alone, durable_state) as responses:
        first = await responses.create(model="gpt-4", input="a")

    team = Team()
    async with serving(team.targets, durable_state) as responses:
        said = await refusal(responses.create(input="b", previous_response_id=first.id))
        # As before, but nobody knows that this was the writer: its session is nobody's.
        second = await responses.create(model="writer", input="b", previous_response_id=first.id)
    async with serving(alone, durable_state) as responses:
        third = await responses.create(model="gpt-4", input="c", previous_response_id=second.id)

    assert said[0] == "model"
    assert "is not served any more" in said[2]
    assert team.writer.told == [3]
    assert second.output_text == "a|a|b"
    # Back again: its own session, and what was said since.
    assert alone.told == [1, 3]
    assert third.output_text == "a|b|a|a|b|c"


@pytest.mark.parametrize("is_workflow_first", [True, False])
async def test_what_takes_the_place_of_another_kind_of_target_is_told_what_was_said(
    durable_state: State, *, is_workflow_first: bool
) -> None:
    agent = Listener("x")
    kinds: list[Any] = [steps, agent] if is_workflow_first else [agent, steps]
    async with serving({"x": kinds[0]}, durable_state) as responses:
        first = await responses.create(input="a")
    async with serving({"x": kinds[1]}, durable_state) as responses:
        second = await responses.create(input="b", previous_response_id=first.id)
        third = await responses.create(input="c", previous_response_id=second.id)

    # A workflow that takes text gets the newest only.
    assert [second.output_text, third.output_text] == (["a|a|b", "a|a|b|c"] if is_workflow_first else ["b", "b+c"])
    assert agent.told == ([3, 1] if is_workflow_first else [1])


async def test_a_link_among_the_checkpoints_leaves_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state" / "checkpoints").mkdir(parents=True)
    state = State("sqlite", {"state_dir": tmp_path / "state"})
    async with live.serve(host_of(steps, state).app) as served:
        first = await served.client.responses.create(input="ask")
        (place,) = (tmp_path / "state" / "checkpoints").iterdir()
        shutil.rmtree(place)
        place.symlink_to(tmp_path / "elsewhere")
        running = await served.client.responses.create(input="b", background=True)
        end = await ended(served, running.id)
        call: Any = first.output[0]
        answer: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "yes"}]
        said = await refusal(served.client.responses.create(input=answer, previous_response_id=first.id))

    assert end.status == "failed"
    assert said[0] == "input"
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --- Lost runs


async def test_a_lost_run_is_run_again_by_its_own_target_if_that_may_repeat(durable_state: State) -> None:
    gates = {name: Gate() for name in ("again", "never", "unsaid")}
    rules: Any = {"again": "retry", "never": "fail"}
    made: dict[str, Any] = {}
    targets: dict[str, Any] = {name: ScriptedAgent([gate]) for name, gate in gates.items()}
    host = AgentFrameworkHost(
        targets,
        channels=[ResponsesChannel(settings=ResponsesSettings(lost_runs=rules))],
        shutdown_grace=0,
        **durable_state.options,
    )
    async with live.serve(host.app) as served:
        for name, gate in gates.items():
            made[name] = await served.client.responses.create(model=name, input="q", background=True, stream=True)
            first = await anext(made[name])
            made[name] = first.response.id
            await asyncio.wait_for(gate.reached.wait(), SECONDS)

    agents = {name: ScriptedAgent([f"answer of {name}"]) for name in gates}
    async with live.serve(host_of(agents, durable_state, lost_runs=rules).app) as served:
        ends = {name: await ended(served, response_id) for name, response_id in made.items()}

    assert {name: end.status for name, end in ends.items()} == {
        "again": "completed",
        "never": "failed",
        "unsaid": "failed",
    }
    assert ends["again"].output_text == "answer of again"
    assert [len(agent.runs) for agent in agents.values()] == [1, 0, 0]


class First(Executor):
    """Passes on what it hears."""

    def __init__(self, executed: list[str]) -> None:
        super().__init__(id="first")
        self.executed = executed

    @handler
    async def hear(self, message: str, ctx: WorkflowContext[str, str]) -> None:
        self.executed.append("first")
        await ctx.send_message(message)


class Second(Executor):
    """Answers when the gate is open."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(id="second")
        self.gate = gate

    @handler
    async def answer(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        await self.gate.wait()
        await ctx.yield_output(f"answer to {message}")


async def test_a_lost_run_of_one_workflow_among_others_goes_on_from_its_own_checkpoint(durable_state: State) -> None:
    gates, executed = {name: Gate() for name in ("one", "two")}, dict[str, list[str]]()

    def builder(name: str) -> Any:
        def build() -> Workflow:
            first, second = First(executed.setdefault(name, [])), Second(gates[name])
            return WorkflowBuilder(start_executor=first, output_from=[second]).add_edge(first, second).build()

        return build

    def host() -> AgentFrameworkHost:
        targets = {name: builder(name) for name in gates}
        return AgentFrameworkHost(targets, channels=[ResponsesChannel()], shutdown_grace=0, **durable_state.options)

    async with live.serve(host().app) as served:
        made = [
            await served.client.responses.create(model=name, input=name, background=True) for name in ("two", "one")
        ]
        for gate in gates.values():
            await asyncio.wait_for(gate.reached.wait(), SECONDS)
    for gate in gates.values():
        gate.open()
    async with live.serve(host().app) as served:
        ends = [await ended(served, response.id) for response in made]

    assert [end.output_text for end in ends] == ["answer to two", "answer to one"]
    # Not again: each goes on from where it was.
    assert executed == {"one": ["first"], "two": ["first"]}


async def test_a_lost_run_of_a_target_that_is_gone_fails_and_says_why(durable_state: State) -> None:
    gate = Gate()
    targets = {"gone": ScriptedAgent([gate]), "stays": ScriptedAgent(["x"])}
    host = AgentFrameworkHost(
        targets,
        channels=[ResponsesChannel(settings=ResponsesSettings(lost_runs="retry"))],
        shutdown_grace=0,
        **durable_state.options,
    )
    async with live.serve(host.app) as served:
        stream = await served.client.responses.create(model="gone", input="q", background=True, stream=True)
        response_id = (await anext(stream)).response.id  # type: ignore[union-attr]
        await asyncio.wait_for(gate.reached.wait(), SECONDS)

    stays = ScriptedAgent(["x"])
    async with live.serve(host_of({"stays": stays}, durable_state, lost_runs="retry").app) as served:
        response = await ended(served, response_id)
        deleted = await served.http.delete(f"/responses/{response_id}")

    assert response.status == "failed"
    assert response.error.message == "The model of the response is not served any more."
    assert deleted.status_code == 200
    assert stays.runs == []


# --- What is deleted


@pytest.mark.behaviour("D5")
@pytest.mark.parametrize("served_then", ["all", "another workflow", "agents", "an agent of its name"])
@pytest.mark.parametrize("how", ["deleted", "forgotten"])
@pytest.mark.parametrize("lies_in_files", [True, False])
async def test_what_is_erased_of_one_target_is_nowhere_whatever_else_is_served(
    durable_state: State, tmp_path: Path, how: str, served_then: str, *, lies_in_files: bool
) -> None:
    # Where they can be found without the workflow they are of.
    options = dict(durable_state.options)
    if lies_in_files and durable_state.kind == "postgres":
        options["state_dir"] = {"checkpoints": tmp_path}
    elif not lies_in_files and durable_state.kind == "sqlite":
        options = {"state_dir": {"sessions": durable_state.directory / "sessions"}}
    team = Team()

    def host_with(targets: Any, most: int | None) -> AgentFrameworkHost:
        settings = ResponsesSettings(max_responses=most)
        return AgentFrameworkHost(targets, channels=[ResponsesChannel(settings=settings)], **options)

    async with live.serve(host_with(team.targets, None).app) as served:
        made = [await served.client.responses.create(model=name, input=SECRET) for name in team.targets]
    before = [*stored.places_of(durable_state, SECRET), *map(str, tmp_path.rglob("*.json"))]
    agents = {"writer": team.writer}
    targets = {
        "all": team.targets,
        "another workflow": {**agents, "other": steps},
        "agents": agents,
        "an agent of its name": {**agents, "steps": Listener("steps")},
    }
    host = host_with(targets[served_then], 0 if how == "forgotten" else None)
    async with live.serve(host.app) as served:
        if how == "deleted":
            for response in made:
                await served.client.responses.delete(response.id)
        else:
            for store in host._state.pruner._stores:
                await prune_all(store)

    assert any("checkpoints" in place or place.endswith(".json") for place in before), before
    assert stored.places_of(durable_state, SECRET) == []
    assert [*tmp_path.rglob("*.json")] == []


# --- Whose answer counts


class Mailers:
    """Makes agents who ask before they send a mail, and say `done` then; `ran` is whose tool has run."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def new(self, name: str) -> Agent[Any]:
        """Return an agent for one question and its answer."""

        @tool(approval_mode="always_require")
        def send_mail() -> str:
            """Send a mail."""
            self.ran.append(name)
            return "sent"

        call = Content.from_function_call("call_1", "send_mail", arguments="{}")
        return Agent(client=ScriptedChatClient([call], ["done"]), tools=[send_mail], name="m")


def approval(asked: Any) -> Any:
    return [{"type": "mcp_approval_response", "approval_request_id": asked.output[0].id, "approve": True}]


async def test_what_one_agent_has_asked_to_be_approved_runs_nothing_of_another(state: State) -> None:
    mailers = Mailers()
    async with serving({"one": mailers.new("one"), "two": mailers.new("two")}, state) as responses:
        asked = await responses.create(model="one", input="q")
        answer = approval(asked)
        wrong = await refusal(responses.create(model="two", input=answer, previous_response_id=asked.id))
        right = await responses.create(input=answer, previous_response_id=asked.id)

    assert wrong[0] == "model"
    assert "'one'" in wrong[2]
    assert right.output_text == "done"
    assert mailers.ran == ["one"]


async def test_a_workflow_waits_for_its_approval_whoever_answers_in_between(state: State) -> None:
    mailers, writer = Mailers(), Listener("writer")
    mailer = mailers.new("workflow")

    def asking() -> Workflow:
        return WorkflowBuilder(start_executor=AgentExecutor(mailer)).build()

    async with serving({"asking": asking, "writer": writer}, state) as responses:
        asked = await responses.create(model="asking", input="q")
        between = await responses.create(model="writer", input="meanwhile", previous_response_id=asked.id)
        said = await refusal(responses.create(model="asking", input="hello", previous_response_id=between.id))
        done = await responses.create(model="asking", input=approval(asked), previous_response_id=between.id)

    assert between.output_text == "q|meanwhile"
    assert asked.output[0].id in said[2]
    assert done.output_text == "done"
    assert mailers.ran == ["workflow"]


async def test_in_a_conversation_a_workflow_waits_and_goes_on_as_it_does_in_a_chain(state: State) -> None:
    mailers, writer = Mailers(), Listener("writer")
    mailer = mailers.new("workflow")

    def asking() -> Workflow:
        return WorkflowBuilder(start_executor=AgentExecutor(mailer)).build()

    async with live.serve(host_of({"asking": asking, "writer": writer, "steps": steps}, state).app) as served:
        create: Any = served.client.responses.create
        conversation = (await served.client.conversations.create()).id
        asked = await create(model="asking", input="q", conversation=conversation)
        await create(model="writer", input="meanwhile", conversation=conversation)
        said = await refusal(create(model="asking", input="hello", conversation=conversation))
        done = await create(model="asking", input=approval(asked), conversation=conversation)

        other = (await served.client.conversations.create()).id
        texts = [
            (await create(model=name, input=text, conversation=other)).output_text
            for name, text in (("steps", "a"), ("steps", "b"), ("writer", "c"), ("steps", "d"))
        ]

    assert asked.output[0].id in said[2]
    assert done.output_text == "done"
    assert mailers.ran == ["workflow"]
    assert texts == ["a", "a+b", "a|a|b|a+b|c", "a+b+d"]


@pytest.mark.behaviour("E1")
async def test_every_user_has_chains_of_his_own_with_every_target(state: State) -> None:
    team = Team()
    host = AgentFrameworkHost(
        team.targets, channels=[ResponsesChannel()], trust_isolation_headers=True, **state.options
    )
    async with live.serve(host.app) as served:
        ada: Any
        bob: Any
        ada, bob = (
            served.client.with_options(default_headers={ISOLATION_HEADER_USER: name}).responses
            for name in ("ada", "bob")
        )
        made = [await ada.create(model=name, input="a") for name in team.targets]
        for response in made:
            for more in ({}, {"model": "writer"}):
                said = await refusal(bob.create(input="b", previous_response_id=response.id, **more))
                assert said[1] == "previous_response_not_found"
            with pytest.raises(openai.NotFoundError):
                await bob.retrieve(response.id)

    assert team.writer.told == team.critic.told == [1]


# --- Replicas


@pytest.mark.behaviour("D1")
async def test_a_background_run_is_executed_elsewhere_by_the_target_that_was_chosen(postgres_url: str) -> None:
    team, elsewhere = Team(), Team()
    channels = [ResponsesChannel(), ResponsesChannel()]
    takes = AgentFrameworkHost(team.targets, channels=channels[:1], database_url=postgres_url, run_concurrency=0)
    works = AgentFrameworkHost(elsewhere.targets, channels=channels[1:], database_url=postgres_url)
    async with live.serve(takes.app) as one, live.serve(works.app) as other:
        last: dict[str, Any] = {}
        for name in team.targets:
            for text in ("a", "b"):
                more = {"previous_response_id": last[name].id} if name in last else {"model": name}
                made: Any = await one.client.responses.create(input=text, background=True, **more)
                last[name] = await ended(one, made.id)
        shown = await other.client.responses.create(input="c", previous_response_id=last["steps"].id)

    assert {name: end.output_text for name, end in last.items()} == {
        "writer": "a|b",
        "team/critic": "a|b",
        "steps": "a+b",
    }
    assert shown.output_text == "a+b+c"
    assert (team.writer.told, elsewhere.writer.told, elsewhere.critic.told) == ([], [1, 1], [1, 1])
