"""Approvals of an agent's tool, given, refused, repeated and forged in any order: the tool runs for each given one, once.

Hypothesis chooses. `AFHOST_TEST_STEPS=200 AFHOST_TEST_EXAMPLES=100` looks further, with other choices in every run.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import wire
from agent_framework import (
    Agent,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    Message,
    tool,
)
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from states import State
from worlds import World, play, world_of

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting_responses import ResponsesChannel


class Secretary(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """A model that says what users have told it; `… mail 2` has it send two mails first, `… fail` has it fail.

    It fails, too, when a mail has gone to somebody whose name ends so.
    """

    def _inner_get_response(self, *, messages: Sequence[Message], stream: bool, **kwargs: Any) -> Any:
        del kwargs
        results = [str(content.result) for content in messages[-1].contents if content.type == "function_result"]
        told = [message.text for message in messages if message.role == "user" and message.text]
        name, _, rest = told[-1].partition(" ")
        if "fail" in rest.split() and (not rest.startswith("mail") or any("sent" in result for result in results)):
            raise RuntimeError("secret reason")
        contents = [Content.from_text(json.dumps(told))]
        if rest.startswith("mail") and not results:
            recipients = [f"{name}{index}" for index in range(int(rest.split()[1]))]
            calls = ((to, json.dumps({"to": to})) for to in recipients)
            contents = [Content.from_function_call(f"call_{to}", "send_mail", arguments=given) for to, given in calls]

        async def updates() -> AsyncGenerator[ChatResponseUpdate, None]:
            yield ChatResponseUpdate(contents=contents, role="assistant")

        async def response() -> ChatResponse[Any]:
            return ChatResponse.from_updates([update async for update in updates()])

        return self._build_response_stream(updates()) if stream else response()


def host_of(sent: Counter[str], **options: Any) -> AgentFrameworkHost:
    @tool(approval_mode="always_require")
    async def send_mail(to: str) -> str:
        """Send a mail."""
        sent[to] += 1
        return f"sent to {to}"

    return AgentFrameworkHost(
        Agent(client=Secretary(), tools=[send_mail], name="mailer"), channels=[ResponsesChannel()], **options
    )


@dataclass(eq=False)
class Request:
    """One approval request: whether it was answered, anywhere."""

    id: str
    to: str
    is_settled: bool = False


@dataclass(eq=False)
class Turn:
    """One response. `requests` are those that were made until then, its own included.

    `batch` has the calls that wait, by recipient, and what was decided about them: the framework executes them together,
    when the last is decided, and forgets them when there are others.
    """

    user: str
    told: list[str]
    requests: list[Request] = field(default_factory=list)
    batch: dict[str, bool | None] = field(default_factory=dict)
    id: str = ""
    is_stored: bool = True

    @property
    def undecided(self) -> list[str]:
        return [to for to, decision in self.batch.items() if decision is None]

    @property
    def is_half_decided(self) -> bool:
        return 0 < len(self.undecided) < len(self.batch)


MODES = st.sampled_from(["one-shot", "stream", "background", "background stream"])
PICKS = st.just(0) | st.integers(0, 999)


class Approvals(RuleBasedStateMachine):
    """What users do. `pick` numbers are taken modulo what there is, the newest first."""

    world: World
    sent: Counter[str]
    tally: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.users = self.world.new_users()[:2]
        self.serial = itertools.count(1)
        self.turns: list[Turn] = []
        self.expected: Counter[str] = Counter()
        self.sent.clear()

    def own(self, who: int) -> list[Turn]:
        return [turn for turn in reversed(self.turns) if turn.user == self.users[who]]

    def open(self) -> list[tuple[Turn, Request]]:
        """Return the requests that can be answered, and where."""
        return [
            (turn, asked)
            for turn in reversed(self.turns)
            for asked in reversed(turn.requests)
            if not asked.is_settled and asked.to in turn.batch and turn.batch[asked.to] is None
        ]

    def go(self, turn: Turn, body: dict[str, Any], mode: str, *, fails: bool) -> list[dict[str, Any]]:
        """Have the turn run, and return the items of its output."""
        kinds = {"stream": "stream" in mode, "background": "background" in mode, "store": turn.is_stored}
        answer = self.world.ask(turn.user, "POST", "/v1/responses", {**body, **kinds})
        self.tally["failed" if fails else "completed"] += 1
        if fails and mode == "one-shot":
            assert answer.status == 500, (body, answer)
            return []
        assert answer.status == 200, (body, answer)
        found = wire.parse_sse(answer.content)[-1]["response"] if "stream" in mode else answer.json()
        turn.id = found["id"]
        if "background" in mode:
            path = f"/v1/responses/{turn.id}"
            assert self.world.ask(turn.user, "GET", f"{path}?stream=true").status == 200
            found = self.world.ask(turn.user, "GET", path).json()
        assert found["status"] == ("failed" if fails else "completed"), (body, found)
        if turn.is_stored:
            self.turns.append(turn)
        return list(found["output"])

    def note(self, turn: Turn, output: list[dict[str, Any]], expected: list[str]) -> None:
        """Take over what is asked: once for each of the expected recipients."""
        made = [
            Request(item["id"], json.loads(item["arguments"])["to"])
            for item in output
            if item["type"] == "mcp_approval_request"
        ]
        assert [request.to for request in made] == expected, (turn, output)
        assert {request.id for request in made}.isdisjoint(request.id for request in turn.requests)
        turn.requests += made

    def check(self) -> None:
        assert self.sent == self.expected

    @rule(
        who=st.integers(0, 1),
        pick=PICKS,
        is_new=st.sampled_from([True, False, False, False]),
        words=st.sampled_from(["mail 1", "mail 1", "mail 2", "mail 1 fail", "hello", "hello fail"]),
        mode=MODES,
        is_stored=st.sampled_from([True] * 4 + [False]),
    )
    def say(self, who: int, pick: int, *, is_new: bool, words: str, mode: str, is_stored: bool) -> None:
        """Say something: what was approved before is not approved once more."""
        found = [] if is_new else self.own(who)
        text = f"{self.users[who]}~{next(self.serial)}. {words}"
        body: dict[str, Any] = {"input": text}
        turn = Turn(self.users[who], [text], is_stored=is_stored)
        if found:
            place = found[pick % len(found)]
            turn.told = [*place.told, text]
            turn.requests, turn.batch = list(place.requests), dict(place.batch)
            body["previous_response_id"] = place.id
        if turn.is_half_decided:
            # The framework asks for the rest before it has the model answer anything.
            self.note(turn, self.go(turn, body, mode, fails=False), turn.undecided)
            return
        output = self.go(turn, body, mode, fails=words == "hello fail")
        count = int(words.split()[1]) if words.startswith("mail") else 0
        if count:
            turn.batch = {f"{text.split(maxsplit=1)[0]}{index}": None for index in range(count)}
        self.note(turn, output, turn.undecided if count else [])
        if words == "hello":
            assert said(output) == turn.told
        self.check()

    @precondition(lambda self: self.open())
    @rule(
        pick=PICKS,
        is_given=st.sampled_from([True, True, False]),
        mode=MODES,
        is_stored=st.sampled_from([True] * 3 + [False]),
    )
    def answer(self, pick: int, *, is_given: bool, mode: str, is_stored: bool) -> None:
        """Approve or refuse, and then try to do so again."""
        found = self.open()
        place, request = found[pick % len(found)]
        turn = Turn(place.user, list(place.told), list(place.requests), dict(place.batch), is_stored=is_stored)
        body = {"input": [approval(request.id, approve=is_given)], "previous_response_id": place.id}
        self.check_refused(self.stranger_to(place.user), body)
        self.check_refused(place.user, {**body, "input": [*body["input"], approval(request.id)]})
        request.is_settled = True
        self.tally["given" if is_given else "refused"] += 1
        decided = {**turn.batch, request.to: is_given}
        waiting = [to for to, decision in decided.items() if decision is None]
        run = [] if waiting else [to for to, decision in decided.items() if decision]
        self.expected.update(run)
        fails = run != [] and place.told[-1].endswith("fail")
        output = self.go(turn, body, mode, fails=fails)
        self.check()
        if not fails:
            turn.batch = decided if waiting else {}
            self.note(turn, output, waiting)
        self.try_again(place, request)
        if turn.id and turn.is_stored:
            self.try_again(turn, request)

    def try_again(self, place: Turn, request: Request) -> None:
        for is_given in (True, False):
            given = [approval(request.id, approve=is_given)]
            for kinds in ({}, {"store": False}, {"background": True}):
                self.check_refused(place.user, {"input": given, "previous_response_id": place.id, **kinds})

    @rule(what=st.sampled_from(["delete", "restart", "again", "wrongly"]), who=st.integers(0, 1), pick=PICKS)
    def disturb(self, what: str, who: int, pick: int) -> None:
        """Restart the host, delete a response, or answer what nobody waits for."""
        found = self.own(who)
        match what:
            case "delete" if found:
                self.delete(found[pick % len(found)])
            case "again" if settled := [(turn, one) for turn in found for one in turn.requests if one.is_settled]:
                self.try_again(*settled[pick % len(settled)])
                self.tally["again"] += 1
            case "wrongly" if found:
                self.answer_wrongly(found[pick % len(found)])
            case _ if self.world.state.is_durable:
                self.world.restart()

    def delete(self, turn: Turn) -> None:
        """Delete a response: what comes after it can be continued, and what it has asked be answered."""
        assert self.world.ask(turn.user, "DELETE", f"/v1/responses/{turn.id}").json()["deleted"] is True
        self.turns.remove(turn)
        self.check_refused(turn.user, {"input": "x hello", "previous_response_id": turn.id})
        self.tally["deleted"] += 1

    def answer_wrongly(self, place: Turn) -> None:
        known = {request.id for request in place.requests}
        others = [asked.id for turn in reversed(self.turns) for asked in turn.requests if asked.id not in known][:3]
        for name in ("mcpr_forged", *others):
            self.check_refused(place.user, {"input": [approval(name)], "previous_response_id": place.id})
            self.check_refused(place.user, {"input": [approval(name)]})
        for request in place.requests[-1:]:
            output = {"type": "function_call_output", "call_id": f"call_{request.to}", "output": "sent"}
            self.check_refused(place.user, {"input": [output], "previous_response_id": place.id})

    def stranger_to(self, user: str) -> str:
        return self.users[1 - self.users.index(user)]

    def check_refused(self, user: str, body: dict[str, Any]) -> None:
        answer = self.world.ask(user, "POST", "/v1/responses", body)
        assert answer.status in {400, 404}, (user, body, answer)
        self.check()


def approval(name: str, *, approve: bool = True) -> dict[str, Any]:
    return {"type": "mcp_approval_response", "approval_request_id": name, "approve": approve}


def said(output: list[dict[str, Any]]) -> list[str]:
    texts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
    return list(json.loads("".join(texts)))


@pytest.mark.behaviour("F5", "E1")
@pytest.mark.timeout(3600)
def test_however_often_an_approval_is_sent_its_tool_runs_once_and_no_other_does(state: State) -> None:
    sent: Counter[str] = Counter()
    tally: Counter[str] = Counter()
    with world_of(state, partial(host_of, sent)) as world:
        machine = type("Approvals", (Approvals,), {"sent": sent, "tally": tally})
        play(machine, world, steps=40, examples=25 if state.kind == "memory" else 6)

    print(dict(tally))
    assert all(tally[name] for name in ("completed", "failed", "given", "refused", "again", "deleted")), tally
