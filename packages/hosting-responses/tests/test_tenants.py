"""Tenants: whose ids are whose, who may say who is calling, and what the agent gets to know of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import live
import pytest
import states
import wire
from agent_framework import Agent, AgentResponseUpdate, Content

from agent_framework_hosting import (
    ISOLATION_HEADER_CHAT,
    ISOLATION_HEADER_USER,
    AgentFrameworkHost,
    ChannelSession,
    IsolationKeys,
    get_current_isolation_keys,
)
from agent_framework_hosting.testing.agents import Gate, ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel

SECONDS = 60.0

pytestmark = pytest.mark.usefixtures("on_every_store")


def host_of(agent: Any, *, trusts: bool | None = True, **options: Any) -> AgentFrameworkHost:
    channel = ResponsesChannel(**options)
    return AgentFrameworkHost(agent, channels=[channel], trust_isolation_headers=trusts, **states.here())


def headers_of(user: str, chat: str | None = None) -> dict[str, str]:
    return {ISOLATION_HEADER_USER: user} | ({} if chat is None else {ISOLATION_HEADER_CHAT: chat})


ADA, BOB = headers_of("ada"), headers_of("bob")


class Probe(ScriptedAgent):
    """Answers with the isolation keys it sees, before and after it has waited."""

    def __init__(self, gate: Gate | None = None) -> None:
        super().__init__(())
        self.gate = gate

    def run(self, messages: Any = None, **kwargs: Any) -> Any:
        return self._answer()

    async def _answer(self) -> AsyncGenerator[AgentResponseUpdate, None]:
        before = get_current_isolation_keys()
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        yield AgentResponseUpdate(contents=[Content.from_text(f"{said(before)} ")], role="assistant")
        await asyncio.sleep(0)
        yield AgentResponseUpdate(contents=[Content.from_text(said(get_current_isolation_keys()))], role="assistant")


def said(keys: IsolationKeys | None) -> str:
    return "none" if keys is None else f"{keys.user_key}/{keys.chat_key}"


def text_of(response: dict[str, Any]) -> str:
    return str(response["output"][0]["content"][0]["text"])


REQUESTS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "get": ("GET", "/responses/{id}", None),
    "get under v1": ("GET", "/v1/responses/{id}", None),
    "get stream": ("GET", "/responses/{id}?stream=true", None),
    "get stream from 2": ("GET", "/responses/{id}?stream=true&starting_after=2", None),
    "delete": ("DELETE", "/responses/{id}", None),
    "cancel": ("POST", "/responses/{id}/cancel", None),
    "input items": ("GET", "/responses/{id}/input_items", None),
    "continue": ("POST", "/responses", {"input": "q", "previous_response_id": "{id}"}),
    "continue streamed": ("POST", "/responses", {"input": "q", "previous_response_id": "{id}", "stream": True}),
    "continue in the background": (
        "POST",
        "/responses",
        {"input": "q", "previous_response_id": "{id}", "background": True},
    ),
    "refer to an input item": ("POST", "/responses", {"input": [{"type": "item_reference", "id": "{input}"}]}),
    "refer to an output item": ("POST", "/responses", {"input": [{"type": "item_reference", "id": "{output}"}]}),
    "refer without a type": ("POST", "/responses", {"input": [{"id": "{output}"}]}),
}


def filled(request: tuple[str, str, dict[str, Any] | None], ids: dict[str, str]) -> tuple[str, str, Any]:
    def fill(value: Any) -> Any:
        if isinstance(value, str):
            for name, new in ids.items():
                value = value.replace(f"{{{name}}}", new)
            return value
        if isinstance(value, list):
            return [fill(item) for item in value]
        return {name: fill(item) for name, item in value.items()} if isinstance(value, dict) else value

    return request[0], fill(request[1]), fill(request[2])


@pytest.mark.behaviour("E1", "E2")
@pytest.mark.parametrize("stage", ["completed", "running"])
@pytest.mark.parametrize("stranger", [BOB, {}, headers_of("ada", "other chat"), headers_of("Ada")], ids=str)
async def test_the_ids_of_others_are_unknown_ids(stranger: dict[str, str], stage: str) -> None:
    gate = Gate()
    agent = ScriptedAgent(["hello"] if stage == "completed" else [gate, "hello"])
    async with live.serve(host_of(agent).app) as served:
        created = await served.http.post("/responses", json={"input": "secret", "background": True}, headers=ADA)
        response_id = created.json()["id"]
        if stage == "completed":
            await served.http.get(f"/responses/{response_id}?stream=true", headers=ADA)
        else:
            await asyncio.wait_for(gate.reached.wait(), SECONDS)
        before = await served.http.get(f"/responses/{response_id}", headers=ADA)
        items = await served.http.get(f"/responses/{response_id}/input_items", headers=ADA)
        output = before.json()["output"]
        real = {
            "id": response_id,
            "input": items.json()["data"][0]["id"],
            "output": output[0]["id"] if output else "msg_none",
        }
        unknown = {name: value[:-4] + "XXXX" for name, value in real.items()}
        for name, request in REQUESTS.items():
            answers = []
            for ids in (real, unknown):
                method, path, body = filled(request, ids)
                answer = await served.http.request(method, path, json=body, headers=stranger)
                text = answer.text
                for known, value in ids.items():
                    text = text.replace(value, known)
                answers.append((answer.status_code, dict(answer.headers) | {"x-request-id": "", "date": ""}, text))
            assert answers[0] == answers[1], name
            assert answers[0][0] in {400, 404}, name
        after = await served.http.get(f"/responses/{response_id}", headers=ADA)
        gate.open()

    assert after.content == before.content
    assert len(agent.runs) == 1


@pytest.mark.behaviour("E1")
async def test_the_owner_can_do_all_of_it() -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"])).app) as served:
        created = await served.http.post("/responses", json={"input": "q"}, headers=ADA)
        item = created.json()["output"][0]["id"]
        continued = await served.http.post(
            "/responses",
            json={"input": [{"type": "item_reference", "id": item}], "previous_response_id": created.json()["id"]},
            headers=ADA,
        )
        deleted = await served.http.delete(f"/responses/{created.json()['id']}", headers=ADA)

    assert [created.status_code, continued.status_code, deleted.status_code] == [200, 200, 200]


@pytest.mark.behaviour("E3")
async def test_identity_headers_mean_nothing_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOUNDRY_HOSTING_ENVIRONMENT", raising=False)
    async with live.serve(host_of(Probe(), trusts=None).app) as served:
        created = await served.http.post("/responses", json={"input": "q"}, headers=ADA)
        seen_by_bob = await served.http.get(f"/responses/{created.json()['id']}", headers=BOB)
        seen_by_all = await served.http.get(f"/responses/{created.json()['id']}")

    assert text_of(created.json()) == "None/None None/None"
    assert seen_by_bob.content == seen_by_all.content == created.content


@pytest.mark.behaviour("E3")
@pytest.mark.parametrize(("value", "is_trusted"), [("prod", True), ("", False)])
async def test_the_hosting_environment_says_that_the_headers_can_be_trusted(
    monkeypatch: pytest.MonkeyPatch, value: str, is_trusted: bool
) -> None:
    monkeypatch.setenv("FOUNDRY_HOSTING_ENVIRONMENT", value)
    async with live.serve(host_of(Probe(), trusts=None).app) as served:
        created = await served.http.post("/responses", json={"input": "q"}, headers=ADA)
        seen_by_bob = await served.http.get(f"/responses/{created.json()['id']}", headers=BOB)

    assert text_of(created.json()) == ("ada/None ada/None" if is_trusted else "None/None None/None")
    assert seen_by_bob.status_code == (404 if is_trusted else 200)


@pytest.mark.behaviour("E3")
async def test_an_explicit_no_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOUNDRY_HOSTING_ENVIRONMENT", "prod")
    async with live.serve(host_of(Probe(), trusts=False).app) as served:
        created = await served.http.post("/responses", json={"input": "q"}, headers=ADA)

    assert text_of(created.json()) == "None/None None/None"


@pytest.mark.behaviour("E5")
async def test_keys_of_concurrent_requests_never_mix() -> None:
    gate = Gate()

    async def ask(served: live.LiveHost, number: int) -> tuple[str, str]:
        user, chat = f"user{number % 10}", f"chat{number}"
        headers = headers_of(user, chat)
        mode = number % 3
        body = {"input": "q", "stream": mode == 1, "background": mode == 2}
        answer = await served.http.post("/responses", json=body, headers=headers)
        if mode == 0:
            return text_of(answer.json()), f"{user}/{chat}"
        if mode == 1:
            return text_of(wire.parse_sse(answer.content)[-1]["response"]), f"{user}/{chat}"
        replay = await served.http.get(f"/responses/{answer.json()['id']}?stream=true", headers=headers)
        return text_of(wire.parse_sse(replay.content)[-1]["response"]), f"{user}/{chat}"

    async with live.serve(host_of(Probe(gate)).app) as served:
        asked = [asyncio.create_task(ask(served, number)) for number in range(50)]
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        gate.open()
        answers = await asyncio.wait_for(asyncio.gather(*asked), SECONDS)

    assert [seen for seen, _ in answers] == [f"{expected} {expected}" for _, expected in answers]
    assert len({expected for _, expected in answers}) == 50


@pytest.mark.behaviour("E5")
async def test_a_background_run_carries_its_creators_keys_whoever_is_served_meanwhile() -> None:
    gate = Gate()
    async with live.serve(host_of(Probe(gate)).app) as served:
        created = await served.http.post("/responses", json={"input": "q", "background": True}, headers=ADA)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        await served.http.get("/responses/resp_x", headers=BOB)
        gate.open()
        replay = await served.http.get(f"/responses/{created.json()['id']}?stream=true", headers=ADA)

    assert text_of(wire.parse_sse(replay.content)[-1]["response"]) == "ada/None ada/None"


@pytest.mark.behaviour("E1", "E5")
async def test_one_name_of_a_session_means_another_session_for_each_user() -> None:
    def hook(request: Any, **_: Any) -> Any:
        return replace(request, session=ChannelSession("same name"))

    model = ScriptedChatClient(["a1"], ["b1"], ["a2"], ["b2"], ["a3"])
    host = host_of(Agent(client=model), run_hook=hook)
    async with live.serve(host.app) as served:
        for question, headers in (("ada 1", ADA), ("bob 1", BOB), ("ada 2", ADA)):
            await served.http.post("/responses", json={"input": question}, headers=headers)
        was_shared = await host.reset_session("same name")
        was_adas = await host.reset_session("same name", isolation_keys=IsolationKeys(user_key="ada"))
        for question, headers in (("bob 2", BOB), ("ada 3", ADA)):
            await served.http.post("/responses", json={"input": question}, headers=headers)

    assert (was_shared, was_adas) == (False, True)
    assert [[message.text for message in call.messages] for call in model.calls] == [
        ["ada 1"],
        ["bob 1"],
        ["ada 1", "a1", "ada 2"],
        ["bob 1", "b1", "bob 2"],
        ["ada 3"],
    ]


@pytest.mark.parametrize("value", ["a" * 513, "caf\xe9"], ids=["too long", "not UTF-8"])
async def test_a_bad_identity_header_is_refused_in_the_form_of_the_api(value: str) -> None:
    agent = ScriptedAgent(["hello"])
    async with live.serve(host_of(agent).app) as served:
        answer = await served.http.post(
            "/responses", json={"input": "q"}, headers={ISOLATION_HEADER_USER.encode(): value.encode("latin-1")}
        )

    assert answer.status_code == 400
    wire.check_error(answer.json())
    assert agent.runs == []
