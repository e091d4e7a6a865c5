"""Every setting of the channel, seen from outside."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import live
import pytest
from agent_framework import Agent, Content, tool

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.errors import ConfigurationError
from agent_framework_hosting.testing.agents import ScriptedAgent, ScriptedChatClient
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings

TESTS = Path(__file__).parent


def host_of(agent: Any, settings: ResponsesSettings, **options: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(agent, channels=[ResponsesChannel(settings=settings, **options)])


def let_all_through(request: Any, **_: Any) -> Any:
    return request


def test_the_defaults_are_safe_for_a_host_that_anybody_can_reach() -> None:
    settings = ResponsesSettings()

    assert settings.server_calls == "hide"
    assert settings.hosted_tools == "reject"
    assert not settings.error_details
    assert not settings.done_marker
    assert settings.max_body_bytes >= 32 * 1024 * 1024
    assert settings.keep_alive == 15.0
    assert settings.max_response_age == 30 * 86_400.0


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("sometimes", "lost_runs has 'sometimes'; known are resume, retry, fail"),
        ({"one": "never"}, "lost_runs has 'never'"),
        ({"one": "retry", "three": "fail"}, "lost_runs has the model 'three'; there are one, two"),
    ],
)
def test_a_rule_for_lost_runs_that_nothing_would_follow_is_refused(rules: Any, message: str) -> None:
    targets = {"one": ScriptedAgent(["x"]), "two": ScriptedAgent(["x"])}

    with pytest.raises(ConfigurationError, match=message):
        _ = host_of(targets, ResponsesSettings(lost_runs=rules)).app


def test_settings_are_values() -> None:
    settings = ResponsesSettings()

    with pytest.raises(FrozenInstanceError):
        settings.strict_model = True  # type: ignore[misc]
    assert replace(settings, strict_model=True).strict_model
    assert settings == ResponsesSettings()


def test_every_setting_is_documented_and_used_by_a_test() -> None:
    names = [field.name for field in fields(ResponsesSettings)]
    sources = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))

    assert [name for name in names if f"        {name}: " not in (ResponsesSettings.__doc__ or "")] == []
    assert [name for name in names if f"{name}=" not in sources] == []


async def test_unknown_fields_are_ignored_unless_the_operator_is_strict() -> None:
    body = {"input": "q", "future": 1}
    async with live.serve(host_of(ScriptedAgent(["hello"]), ResponsesSettings()).app) as served:
        lenient = await served.http.post("/responses", json=body)
    async with live.serve(host_of(ScriptedAgent(["hello"]), ResponsesSettings(strict_fields=True)).app) as served:
        strict = await served.http.post("/responses", json=body)

    assert lenient.status_code == 200
    assert strict.status_code == 400
    assert (strict.json()["error"]["code"], strict.json()["error"]["param"]) == ("unknown_parameter", "future")


@pytest.mark.parametrize(("choice", "status"), [("reject", 400), ("ignore", 200), ("pass", 200)])
async def test_hosted_tools_are_refused_ignored_or_passed(choice: Any, status: int) -> None:
    model = ScriptedChatClient(["hello"])
    host = host_of(Agent(client=model), ResponsesSettings(hosted_tools=choice), run_hook=let_all_through)
    async with live.serve(host.app) as served:
        answer = await served.http.post("/responses", json={"input": "q", "tools": [{"type": "web_search"}]})

    assert answer.status_code == status
    if choice == "reject":
        assert answer.json()["error"]["param"] == "tools[0].type"
        assert model.calls == []
    else:
        assert bool(model.calls[0].options.get("tools")) is (choice == "pass")


@pytest.mark.parametrize(("choice", "key"), [("summary", "summary"), ("text", "content")])
async def test_reasoning_is_written_as_summary_or_as_text(choice: Any, key: str) -> None:
    agent = ScriptedAgent([Content.from_text_reasoning(text="Let me see."), "hello"])
    async with live.serve(host_of(agent, ResponsesSettings(reasoning=choice)).app) as served:
        answer = await served.http.post("/responses", json={"input": "q"})

    reasoning = answer.json()["output"][0]
    assert reasoning["type"] == "reasoning"
    assert [part["text"] for part in reasoning[key]] == ["Let me see."]


@pytest.mark.parametrize(("label", "shown"), [(None, "forecaster"), ("ours", "ours")])
async def test_shown_mcp_calls_carry_the_label_of_the_operator(label: str | None, shown: str) -> None:
    @tool(approval_mode="never_require")
    def weather() -> str:
        """Say the weather."""
        return "sunny"

    model = ScriptedChatClient([Content.from_function_call("call_1", "weather", arguments="{}")], ["It is sunny."])
    settings = ResponsesSettings(server_calls="mcp_call", server_label=label)
    agent = Agent(client=model, tools=[weather], name="forecaster")
    async with live.serve(host_of(agent, settings).app) as served:
        answer = await served.http.post("/responses", json={"input": "q"})

    assert answer.json()["output"][0]["server_label"] == shown


@pytest.mark.behaviour("C3")
@pytest.mark.parametrize("error_details", [False, True])
async def test_error_contents_show_their_text_only_when_the_operator_says_so(error_details: bool) -> None:
    agent = ScriptedAgent(["half", Content.from_error(message="secret inside", error_code="E1")])
    async with live.serve(host_of(agent, ResponsesSettings(error_details=error_details)).app) as served:
        answer = await served.http.post("/responses", json={"input": "q", "background": False, "stream": True})

    assert ("secret inside" in answer.text) is error_details


async def test_no_keep_alive_means_no_comments() -> None:
    async with live.serve(host_of(ScriptedAgent(["hello"]), ResponsesSettings(keep_alive=0)).app) as served:
        answer = await served.http.post("/responses", json={"input": "q", "stream": True})

    assert ":" not in {line[:1] for line in answer.text.split("\n")}


async def test_a_response_is_forgotten_after_its_age() -> None:
    settings = ResponsesSettings(max_response_age=-1)
    async with live.serve(host_of(ScriptedAgent(["hello"]), settings).app) as served:
        created = await served.http.post("/responses", json={"input": "q"})
        stored = await served.http.get(f"/responses/{created.json()['id']}")

    assert (created.status_code, stored.status_code) == (200, 404)
