"""Runs seen from outside: background, streams that are resumed, cancellation, time limits, clients that leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import live
import openai
import pytest
import raw
import states
import wire
from agent_framework import Agent, AgentResponseUpdate, Content

from agent_framework_hosting import AgentFrameworkHost, ChannelSession
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

SECONDS = 60.0

pytestmark = pytest.mark.usefixtures("on_every_store")


def host_of(agent: Any, **settings: Any) -> AgentFrameworkHost:
    channel = ResponsesChannel(settings=ResponsesSettings(**settings))
    return AgentFrameworkHost(agent, channels=[channel], **states.here())


async def reached(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), SECONDS)


async def status_of(served: live.LiveHost, response_id: str, *, leaves: set[str]) -> str:
    """Poll until the status is none of `leaves`."""
    async with asyncio.timeout(SECONDS):
        while (status := (await served.client.responses.retrieve(response_id)).status) in leaves:
            pass
    return str(status)


def numbers(events: list[Any]) -> list[int]:
    return [event.sequence_number for event in events]


class Stubborn(ScriptedAgent):
    """Ignores the first cancellation and goes on as if nothing had happened, once `free` is set."""

    def __init__(self) -> None:
        super().__init__(())
        self.started = asyncio.Event()
        self.ignored = asyncio.Event()
        self.free = asyncio.Event()
        self.ended = asyncio.Event()

    def run(self, messages: Any = None, **kwargs: Any) -> Any:
        return self._talk()

    async def _talk(self) -> AsyncGenerator[AgentResponseUpdate, None]:
        try:
            yield AgentResponseUpdate(contents=[Content.from_text("before ")], role="assistant")
            self.started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.ignored.set()
            await self.free.wait()
            yield AgentResponseUpdate(contents=[Content.from_text("after")], role="assistant")
        finally:
            self.ended.set()


# --- Background: D3 ----------------------------------------------------------------------------------------------


@pytest.mark.behaviour("D3")
async def test_a_background_response_is_polled_until_it_is_completed() -> None:
    gate = Gate()
    async with live.serve(host_of(ScriptedAgent(["Hel", gate, "lo"])).app) as served:
        created = await served.client.responses.create(model="a", input="q", background=True)
        await reached(gate.reached)
        running = await served.client.responses.retrieve(created.id)
        gate.open()
        status = await status_of(served, created.id, leaves={"queued", "in_progress"})
        done = await served.client.responses.retrieve(created.id)

    assert (created.status, created.output, created.usage, created.service_tier) == ("queued", [], None, "auto")
    assert running.status == "in_progress"
    assert status == "completed"
    assert done.output_text == "Hello"


@pytest.mark.behaviour("D3")
async def test_a_dropped_background_stream_is_resumed_where_it_broke() -> None:
    gate = Gate()
    async with live.serve(host_of(ScriptedAgent(["a", "b", gate, "c", "d"])).app) as served:
        stream = await served.client.responses.create(model="a", input="q", background=True, stream=True)
        seen: list[Any] = []
        async for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta" and event.delta == "b":
                break
        await stream.close()
        await reached(gate.reached)
        response_id = seen[0].response.id
        resumed_stream = await served.client.responses.retrieve(
            response_id, stream=True, starting_after=seen[-1].sequence_number
        )
        gate.open()
        resumed = [event async for event in resumed_stream]
        answer = await served.http.get(f"/responses/{response_id}?stream=true")
        stored = await served.client.responses.retrieve(response_id)

    assert numbers(seen + resumed) == list(range(len(seen) + len(resumed)))
    assert resumed[-1].type == "response.completed"
    assert resumed[-1].response.output_text == stored.output_text == "abcd"
    events = wire.parse_sse(answer.content)
    wire.check_stream(events)
    assert [event["sequence_number"] for event in events] == numbers(seen + resumed)


@pytest.mark.behaviour("D3")
async def test_the_stream_helper_of_the_client_replays_a_stored_background_response() -> None:
    async with live.serve(host_of(ScriptedAgent(["Hel", "lo"])).app) as served:
        responses = served.client.responses
        created = await responses.create(model="a", input="q", background=True)
        await status_of(served, created.id, leaves={"queued", "in_progress"})
        async with responses.stream(response_id=created.id) as stream:
            replayed = await stream.get_final_response()
        async with responses.stream(response_id=created.id, starting_after=2) as stream:
            tail = [event async for event in stream]
        stored = await responses.retrieve(created.id)

    assert replayed.output_text == stored.output_text == "Hello"
    assert tail[0].sequence_number == 3


@pytest.mark.behaviour("D3")
async def test_several_readers_follow_one_run_each_from_its_own_place() -> None:
    gate, places = Gate(), (None, 0, 2, 5)

    async def read(served: live.LiveHost, response_id: str, after: int | None) -> list[int]:
        options: Any = {} if after is None else {"starting_after": after}
        stream: Any = await served.client.responses.retrieve(response_id, stream=True, **options)
        return [event.sequence_number async for event in stream]

    async with live.serve(host_of(ScriptedAgent(["a", gate, "b", "c"])).app) as served:
        created = await served.client.responses.create(model="a", input="q", background=True)
        await reached(gate.reached)
        readers = [asyncio.create_task(read(served, created.id, after)) for after in places for _ in range(3)]
        gate.open()
        seen = await asyncio.wait_for(asyncio.gather(*readers), SECONDS)
        whole = await read(served, created.id, None)

    assert whole == list(range(len(whole)))
    for after, sequence in zip([after for after in places for _ in range(3)], seen, strict=True):
        assert sequence == whole[0 if after is None else after + 1 :]


@pytest.mark.behaviour("D3")
@pytest.mark.parametrize("beyond", [0, 1, 10**15])
async def test_past_the_end_of_a_finished_stream_there_is_an_empty_one(beyond: int) -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        created = await served.client.responses.create(model="a", input="q", background=True)
        await status_of(served, created.id, leaves={"queued", "in_progress"})
        whole = wire.parse_sse((await served.http.get(f"/responses/{created.id}?stream=true")).content)
        last = whole[-1]["sequence_number"]
        answer = await served.http.get(f"/responses/{created.id}?stream=true&starting_after={last + beyond}")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.content == b""


async def test_past_the_end_of_a_running_stream_a_reader_waits_for_what_comes() -> None:
    gate = Gate()
    async with live.serve(host_of(ScriptedAgent(["a", gate, "b"])).app) as served:
        created = await served.client.responses.create(model="a", input="q", background=True)
        await reached(gate.reached)
        stream: Any = await served.client.responses.retrieve(created.id, stream=True, starting_after=6)
        gate.open()
        events = [event async for event in stream]

    assert numbers(events)[0] == 7
    assert events[-1].type == "response.completed"


@pytest.mark.behaviour("D3")
async def test_a_background_run_goes_on_when_its_creator_leaves_right_after_the_first_event() -> None:
    gate = Gate()
    agent = ScriptedAgent([gate, "still here"])
    async with live.serve(host_of(agent).app) as served:
        async with raw.connect(served.base_url) as connection:
            await connection.send("POST", "/responses", {"input": "q", "background": True, "stream": True})
            await connection.head()
            response_id = wire.parse_sse(await connection.chunk())[0]["response"]["id"]
            connection.abort()
        await reached(gate.reached)
        gate.open()
        status = await status_of(served, response_id, leaves={"queued", "in_progress"})

    assert status == "completed"
    assert agent.runs[0].is_finished


@pytest.mark.behaviour("D3")
async def test_an_unstored_background_response_can_be_polled_and_streamed_but_not_continued() -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        created = await served.client.responses.create(model="a", input="q", background=True, store=False)
        status = await status_of(served, created.id, leaves={"queued", "in_progress"})
        replay = await served.http.get(f"/responses/{created.id}?stream=true")
        with pytest.raises(openai.BadRequestError) as caught:
            await served.client.responses.create(model="a", input="q", previous_response_id=created.id)

    assert status == "completed"
    wire.check_stream(wire.parse_sse(replay.content))
    assert caught.value.code == "previous_response_not_found"


@pytest.mark.behaviour("D1", "D3")
async def test_a_background_stream_and_its_replays_are_byte_for_byte_the_same() -> None:
    async with live.serve(host_of(ScriptedAgent(["Hel", "lo"])).app) as served:
        first = await served.http.post("/responses", json={"input": "q", "background": True, "stream": True})
        response_id = wire.parse_sse(first.content)[0]["response"]["id"]
        replay = await served.http.get(f"/v1/responses/{response_id}?stream=true")
        tail = await served.http.get(f"/responses/{response_id}?stream=1&starting_after=3")

    assert replay.content == first.content
    assert first.content.endswith(tail.content)
    assert wire.parse_sse(tail.content)[0]["sequence_number"] == 4


@pytest.mark.behaviour("D1")
async def test_what_get_returns_is_byte_for_byte_what_was_answered() -> None:
    async with live.serve(host_of(ScriptedAgent(["Hel", "lo ", "\u2028 \U0001f600"])).app) as served:
        one_shot = await served.http.post("/responses", json={"input": "q", "metadata": {"k": "v"}})
        stored_one_shot = await served.http.get(f"/responses/{one_shot.json()['id']}")
        for background in (False, True):
            streamed = await served.http.post(
                "/responses", json={"input": "q", "stream": True, "background": background, "temperature": 0.5}
            )
            response_id = wire.parse_sse(streamed.content)[0]["response"]["id"]
            stored = await served.http.get(f"/responses/{response_id}")
            assert stored.content in streamed.content.splitlines()[-2]

    assert stored_one_shot.content == one_shot.content


# --- Cancellation: D4 --------------------------------------------------------------------------------------------


@pytest.mark.behaviour("D4")
async def test_cancel_stops_the_agent_and_can_be_repeated() -> None:
    gate = Gate()
    agent = ScriptedAgent(["half", gate, "never"])
    async with live.serve(host_of(agent).app) as served:
        created = await served.client.responses.create(model="a", input="q", background=True)
        await reached(gate.reached)
        first = await served.http.post(f"/responses/{created.id}/cancel")
        second = await served.http.post(f"/responses/{created.id}/cancel")
        stored = await served.http.get(f"/responses/{created.id}")

    assert agent.runs[0].is_cancelled
    assert first.content == second.content == stored.content
    body = first.json()
    assert (body["status"], body["error"], body["usage"], body["completed_at"]) == ("cancelled", None, None, None)
    assert [item["status"] for item in body["output"]] in ([], ["incomplete"])


@pytest.mark.behaviour("D4")
async def test_a_response_that_is_still_queued_can_be_cancelled() -> None:
    agent = ScriptedAgent([Gate()])
    async with live.serve(host_of(agent).app) as served, raw.connect(served.base_url) as connection:
        created = (await connection.request("POST", "/responses", {"input": "q", "background": True})).json()
        cancelled = await connection.request("POST", f"/responses/{created['id']}/cancel", b"")
        replay = await connection.request("GET", f"/responses/{created['id']}?stream=true")

    assert created["status"] == "queued"
    assert cancelled.json()["status"] == "cancelled"
    events = wire.parse_sse(replay.body)
    wire.check_stream(events)
    assert events[-1]["response"] == cancelled.json()
    assert all(run.is_cancelled for run in agent.runs)


@pytest.mark.behaviour("D4")
async def test_readers_of_a_cancelled_run_see_it_fail_as_cancelled() -> None:
    gate = Gate()
    async with live.serve(host_of(ScriptedAgent(["half", gate])).app) as served:
        stream = await served.client.responses.create(model="a", input="q", background=True, stream=True)
        events: list[Any] = [await anext(stream)]
        await reached(gate.reached)
        reader = asyncio.create_task(served.http.get(f"/responses/{events[0].response.id}?stream=true"))
        cancelled = await served.client.responses.cancel(events[0].response.id)
        events += [event async for event in stream]
        attached = wire.parse_sse((await asyncio.wait_for(reader, SECONDS)).content)

    assert events[-1].type == "response.failed"
    assert events[-1].response.status == cancelled.status == "cancelled"
    wire.check_stream(attached)
    assert attached[-1]["response"] == cancelled.to_dict()


@pytest.mark.behaviour("D4")
@pytest.mark.parametrize("is_running", [True, False])
async def test_a_foreground_response_cannot_be_cancelled(is_running: bool) -> None:
    gate = Gate()
    async with live.serve(host_of(ScriptedAgent([gate, "hello"])).app) as served:
        stream = await served.client.responses.create(model="a", input="q", stream=True)
        opening: Any = await anext(stream)
        if not is_running:
            gate.open()
            async for _ in stream:
                pass
        answer = await served.http.post(f"/responses/{opening.response.id}/cancel")
        gate.open()
        async for _ in stream:
            pass
        stored = await served.client.responses.retrieve(opening.response.id)

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "Cannot cancel a synchronous response."
    assert stored.status == "completed"


@pytest.mark.behaviour("D4")
@pytest.mark.parametrize(("steps", "status"), [(["hello"], "completed"), ([ValueError("boom")], "failed")])
async def test_a_terminal_response_is_returned_unchanged_by_cancel(steps: list[Any], status: str) -> None:
    async with live.serve(host_of(ScriptedAgent(steps)).app) as served:
        created = await served.client.responses.create(model="a", input="q", background=True)
        await status_of(served, created.id, leaves={"queued", "in_progress"})
        before = await served.http.get(f"/responses/{created.id}")
        cancelled = await served.http.post(f"/responses/{created.id}/cancel")
        after = await served.http.get(f"/responses/{created.id}")

    assert cancelled.status_code == 200
    assert before.content == cancelled.content == after.content
    assert before.json()["status"] == status


@pytest.mark.behaviour("D4")
async def test_an_agent_that_ignores_its_cancellation_loses_the_right_to_write() -> None:
    agent = Stubborn()
    async with live.serve(host_of(agent, cancel_grace=0.05).app) as served:
        created = await served.client.responses.create(model="a", input="q", background=True)
        await reached(agent.started)
        reader = asyncio.create_task(served.http.get(f"/responses/{created.id}?stream=true"))
        cancelled = await served.http.post(f"/responses/{created.id}/cancel")
        attached = await asyncio.wait_for(reader, SECONDS)
        agent.free.set()
        await reached(agent.ended)
        again = await served.http.post(f"/responses/{created.id}/cancel")
        stored = await served.http.get(f"/responses/{created.id}")
        replay = await served.http.get(f"/responses/{created.id}?stream=true")

    assert agent.ignored.is_set()
    assert cancelled.json()["status"] == "cancelled"
    assert cancelled.content == again.content == stored.content
    assert replay.content == attached.content
    assert "after" not in stored.text + replay.text
    wire.check_stream(wire.parse_sse(replay.content))


@pytest.mark.behaviour("D4")
@pytest.mark.parametrize("ending", ["says nothing more", "raises", "updates"])
async def test_a_cancelled_run_that_ends_in_its_own_way_later_is_no_error_of_the_server(
    ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Stubborn()

    async def talk() -> AsyncGenerator[AgentResponseUpdate, None]:
        async for update in Stubborn._talk(agent):
            if update.text == "after" and ending == "raises":
                raise ValueError("too late")
            if update.text != "after" or ending == "updates":
                yield update

    agent._talk = talk  # type: ignore[method-assign]
    async with live.serve(host_of(agent, cancel_grace=0.05).app) as served:
        created = await served.client.responses.create(model="a", input="q", background=True)
        await reached(agent.started)
        cancelled = await served.client.responses.cancel(created.id)
        agent.free.set()
        await reached(agent.ended)

    assert cancelled.status == "cancelled"
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.behaviour("D4")
@pytest.mark.parametrize("ending", ["finishes", "raises"])
async def test_cancel_wins_over_an_agent_that_answers_its_cancellation_with_something_else(ending: str) -> None:
    class Evasive(ScriptedAgent):
        def run(self, messages: Any = None, **kwargs: Any) -> Any:
            return self._talk(super().run(messages, **kwargs))

        async def _talk(self, updates: Any) -> AsyncGenerator[AgentResponseUpdate, None]:
            try:
                async for update in updates:
                    yield update
            except asyncio.CancelledError:
                if ending == "raises":
                    raise ValueError("something else") from None
                yield AgentResponseUpdate(contents=[Content.from_text("bye")], role="assistant")

    gate = Gate()
    async with live.serve(host_of(Evasive(["half", gate])).app) as served:
        created = await served.client.responses.create(model="a", input="q", background=True)
        await reached(gate.reached)
        cancelled = await served.client.responses.cancel(created.id)
        stored = await served.client.responses.retrieve(created.id)

    assert cancelled == stored
    assert (stored.status, stored.error) == ("cancelled", None)


# --- Clients that leave: G1 --------------------------------------------------------------------------------------


@pytest.mark.behaviour("G1")
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_foreground_run_is_cancelled_and_stored_as_such_when_its_client_leaves(is_streamed: bool) -> None:
    gate = Gate()
    agent = ScriptedAgent(["half", gate])
    channel = ResponsesChannel(response_id_factory=lambda: "resp_mine")
    async with live.serve(AgentFrameworkHost(agent, channels=[channel], **states.here()).app) as served:
        async with raw.connect(served.base_url) as connection:
            await connection.send("POST", "/responses", {"input": "q", "stream": is_streamed})
            await reached(gate.reached)
            connection.abort()
        await asyncio.wait_for(agent.runs[0].ended.wait(), 1)
        status = await status_of(served, "resp_mine", leaves={"in_progress"})
        stored = await served.http.get("/responses/resp_mine")

    assert agent.runs[0].is_cancelled
    assert status == "cancelled"
    assert stored.json()["error"] is None


@pytest.mark.behaviour("G1")
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_an_agent_that_never_waits_is_cancelled_too(is_streamed: bool) -> None:
    class Babbler(ScriptedAgent):
        started = asyncio.Event()
        ended = asyncio.Event()

        def run(self, messages: Any = None, **kwargs: Any) -> Any:
            return self._babble()

        async def _babble(self) -> AsyncGenerator[AgentResponseUpdate, None]:
            self.started.set()
            try:
                # Bounded, so that a failure is a failed test and no endless one.
                for _ in range(200_000):
                    yield AgentResponseUpdate(contents=[Content.from_text("bla")], role="assistant")
                raise AssertionError("nobody stopped it")
            except (asyncio.CancelledError, GeneratorExit):
                self.ended.set()
                raise

    agent = Babbler()
    async with live.serve(host_of(agent).app) as served:
        async with raw.connect(served.base_url) as connection:
            await connection.send("POST", "/responses", {"input": "q", "stream": is_streamed})
            await reached(agent.started)
            connection.abort()
        await reached(agent.ended)


async def test_a_client_that_leaves_an_unstored_one_shot_leaves_nothing_behind() -> None:
    gate = Gate()
    agent = ScriptedAgent([gate])
    channel = ResponsesChannel(response_id_factory=lambda: "resp_mine")
    host = AgentFrameworkHost(agent, channels=[channel], **states.here())
    async with live.serve(host.app) as served:
        async with raw.connect(served.base_url) as connection:
            await connection.send("POST", "/responses", {"input": "q", "store": False})
            await reached(gate.reached)
            connection.abort()
        await reached(agent.runs[0].ended)
        answer = await served.http.get("/responses/resp_mine")

    assert answer.status_code == 404


# --- Limits: G4 --------------------------------------------------------------------------------------------------


@pytest.mark.behaviour("G4")
@pytest.mark.parametrize("mode", ["one-shot", "stream", "background"])
async def test_a_run_over_its_time_limit_fails(mode: str) -> None:
    agent = ScriptedAgent(["half", Gate()])
    channel = ResponsesChannel(
        response_id_factory=lambda: "resp_mine", settings=ResponsesSettings(run_timeout=0.1, cancel_grace=0.1)
    )
    async with live.serve(AgentFrameworkHost(agent, channels=[channel], **states.here()).app) as served:
        answer = await served.http.post(
            "/responses", json={"input": "q", "stream": mode == "stream", "background": mode == "background"}
        )
        status = await status_of(served, "resp_mine", leaves={"queued", "in_progress"})
        stored = (await served.http.get("/responses/resp_mine")).json()

    assert agent.runs[0].is_cancelled
    assert status == "failed"
    assert stored["error"] == {"code": "server_error", "message": "The run exceeded its time limit."}
    if mode == "one-shot":
        assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
        assert answer.json()["error"]["type"] == "server_error"
    if mode == "stream":
        events = wire.parse_sse(answer.content)
        wire.check_stream(events)
        assert events[-1]["response"] == stored


@pytest.mark.behaviour("G4")
async def test_a_run_that_ignores_its_time_limit_reaches_a_terminal_state_all_the_same() -> None:
    agent = Stubborn()
    async with live.serve(host_of(agent, run_timeout=0.05, cancel_grace=0.05).app) as served:
        answer = await served.http.post("/responses", json={"input": "q", "stream": True}, timeout=SECONDS)
        agent.free.set()
        await reached(agent.ended)

    events = wire.parse_sse(answer.content)
    wire.check_stream(events)
    assert events[-1]["type"] == "response.failed"
    assert "after" not in answer.text


# --- Failures: B8, C3 --------------------------------------------------------------------------------------------


@pytest.mark.behaviour("B8")
async def test_a_failure_mid_stream_closes_what_is_open_and_ends_with_one_failed_event() -> None:
    agent = ScriptedAgent(["half an ", "answer", ValueError("secret inside")])
    async with live.serve(host_of(agent).app) as served:
        for background in (False, True):
            answer = await served.http.post("/responses", json={"input": "q", "stream": True, "background": background})
            events = wire.parse_sse(answer.content)
            stored = await served.http.get(f"/responses/{events[0]['response']['id']}")

            wire.check_stream(events)
            assert [event["type"] for event in events][-4:] == [
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.failed",
            ]
            assert events[-2]["item"]["status"] == "incomplete"
            assert events[-1]["response"] == stored.json()
            assert "secret" not in answer.text + stored.text


async def test_a_failure_before_the_first_update_is_a_failed_stream_without_items() -> None:
    async with live.serve(host_of(ScriptedAgent([ValueError("secret inside")])).app) as served:
        answer = await served.http.post("/responses", json={"input": "q", "stream": True})

    events = wire.parse_sse(answer.content)
    wire.check_stream(events)
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.failed"]
    assert "secret" not in answer.text


# --- Named sessions ----------------------------------------------------------------------------------------------


def named(name: str, **changes: Any) -> Any:
    """A run hook that runs every request in one named session."""

    def hook(request: Any, **_: Any) -> Any:
        return replace(request, session=ChannelSession(name), options=None, **changes)

    return hook


def texts(model: ScriptedChatClient) -> list[list[str]]:
    return [[message.text for message in call.messages] for call in model.calls]


async def test_a_named_session_goes_through_unrelated_requests_until_it_is_reset() -> None:
    model = ScriptedChatClient(["one"], ["two"], ["three"])
    channel = ResponsesChannel(run_hook=named("ada"))
    host = AgentFrameworkHost(Agent(client=model), channels=[channel], **states.here())
    async with live.serve(host.app) as served:
        await served.client.responses.create(model="a", input="q1")
        async with served.client.responses.stream(model="a", input="q2") as stream:
            await stream.get_final_response()
        was_there = await host.reset_session("ada")
        is_there = await host.reset_session("ada")
        await served.client.responses.create(model="a", input="q3")

    assert texts(model) == [["q1"], ["q1", "one", "q2"], ["q3"]]
    assert (was_there, is_there) == (True, False)


async def test_a_failed_or_abandoned_run_leaves_its_named_session_as_it_was() -> None:
    gate = Gate()
    model = ScriptedChatClient(["one"], ["half", ValueError("boom")], ["half", gate], ["two"])
    host = AgentFrameworkHost(Agent(client=model), channels=[ResponsesChannel(run_hook=named("ada"))], **states.here())
    async with live.serve(host.app) as served:
        await served.client.responses.create(model="a", input="q1")
        with pytest.raises(openai.InternalServerError):
            await served.client.responses.create(model="a", input="fails")
        async with raw.connect(served.base_url) as connection:
            await connection.send("POST", "/responses", {"input": "abandoned"})
            await reached(gate.reached)
            connection.abort()
        await served.client.responses.create(model="a", input="q2")

    assert texts(model)[3] == ["q1", "one", "q2"]


async def test_runs_of_one_named_session_wait_for_each_other_and_lose_nothing() -> None:
    gate = Gate()
    model = ScriptedChatClient(["a1", gate], *([f"a{number}"] for number in range(2, 6)))
    host = AgentFrameworkHost(Agent(client=model), channels=[ResponsesChannel(run_hook=named("ada"))], **states.here())
    async with live.serve(host.app) as served:
        create = served.client.responses.create
        first = asyncio.create_task(create(model="a", input="q"))
        await reached(gate.reached)
        others = [asyncio.create_task(create(model="a", input="q", background=number == 0)) for number in range(4)]
        background = await asyncio.wait_for(others[0], SECONDS)
        calls_while_waiting = len(model.calls)
        gate.open()
        await asyncio.wait_for(asyncio.gather(first, *others), SECONDS)
        await status_of(served, background.id, leaves={"queued", "in_progress"})

    assert calls_while_waiting == 1
    assert [len(messages) for messages in texts(model)] == [1, 3, 5, 7, 9]
    assert [text for text in texts(model)[4] if text != "q"] == ["a1", "a2", "a3", "a4"]


async def test_a_run_that_waits_for_its_session_can_be_cancelled() -> None:
    gate = Gate()
    model = ScriptedChatClient(["one", gate], ["two"])
    host = AgentFrameworkHost(Agent(client=model), channels=[ResponsesChannel(run_hook=named("ada"))], **states.here())
    async with live.serve(host.app) as served:
        create = served.client.responses.create
        first = asyncio.create_task(create(model="a", input="q1"))
        await reached(gate.reached)
        waiting = await create(model="a", input="waits", background=True)
        cancelled = await served.client.responses.cancel(waiting.id)
        gate.open()
        await first
        await create(model="a", input="q2")

    assert cancelled.status == "cancelled"
    assert texts(model) == [["q1"], ["q1", "one", "q2"]]


async def test_without_sessions_a_chain_is_continued_by_its_messages() -> None:
    def hook(request: Any, **_: Any) -> Any:
        return replace(request, session_mode="disabled")

    agent = ScriptedAgent(["one"], ["two"], ["three"])
    async with live.serve(
        AgentFrameworkHost(agent, channels=[ResponsesChannel(run_hook=hook)], **states.here()).app
    ) as served:
        first = await served.client.responses.create(model="a", input="q1")
        await served.client.responses.create(model="a", input="q2", previous_response_id=first.id)
        await served.client.responses.create(model="a", input="unrelated")

    assert [run.session for run in agent.runs] == [None, None, None]
    sent: list[Any] = [run.messages for run in agent.runs]
    assert [[message.text for message in messages] for messages in sent] == [["q1"], ["q1", "one", "q2"], ["unrelated"]]


async def test_a_run_that_needs_a_session_and_has_none_fails() -> None:
    def hook(request: Any, **_: Any) -> Any:
        return replace(request, session_mode="required")

    agent = ScriptedAgent(["one"])
    async with live.serve(
        AgentFrameworkHost(agent, channels=[ResponsesChannel(run_hook=hook)], **states.here()).app
    ) as served:
        answer = await served.http.post("/responses", json={"input": "q"})

    assert answer.status_code == 500
    assert agent.runs == []


@pytest.mark.behaviour("D10")
@pytest.mark.parametrize("background", [False, True])
async def test_whoever_has_seen_an_event_can_get_the_state_that_it_announces(*, background: bool) -> None:
    agent = ScriptedAgent(["Hel", "lo"])
    async with live.serve(host_of(agent).app) as served:
        seen: list[tuple[str, str, str]] = []
        stream: Any = await served.client.responses.create(model="a", input="q", stream=True, background=background)
        async for event in stream:
            if hasattr(event, "response"):
                stored: Any = await served.client.responses.retrieve(event.response.id)
                seen.append((event.type, event.response.status, stored.status))
        final = await served.client.responses.retrieve(event.response.id)

    order = ["queued", "in_progress", "completed"]
    assert seen[-1][0] == "response.completed"
    assert event.response == final
    # What is stored may be further than what was told, never behind it.
    assert all(order.index(stored) >= order.index(told) for _, told, stored in seen)
