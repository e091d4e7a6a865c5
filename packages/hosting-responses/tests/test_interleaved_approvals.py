"""Approvals of an agent's tool, given, refused, repeated and forged in any order: the tool runs for each given one, once.

Hypothesis chooses. `AFHOST_TEST_STEPS=200 AFHOST_TEST_EXAMPLES=100` looks further, with other choices in every run.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
            # Some models use the ids of calls again.
            contents = [
                Content.from_function_call(f"call_{index}", "send_mail", arguments=json.dumps({"to": to}))
                for index, to in enumerate(recipients)
            ]

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
class Call:
    """One call that waits for an approval, however often that is asked: whether it was answered, anywhere."""

    to: str
    is_settled: bool = False


@dataclass(eq=False)
class Request:
    """One approval request."""

    id: str
    call: Call


@dataclass(eq=False)
class Point:
    """Where the agent has asked something new, or has got an answer: whether an answer was given there."""

    is_answered: bool = False


@dataclass(frozen=True)
class Batch:
    """Calls of one answer of the model: the agent executes them together, when the last is decided.

    `requests` are the newest for those that are not `decided`.
    """

    requests: tuple[Request, ...] = ()
    decided: Mapping[str, bool] = field(default_factory=dict)
    point: Point = field(default_factory=Point)

    @property
    def is_open(self) -> bool:
        return not self.point.is_answered and not any(request.call.is_settled for request in self.requests)


@dataclass(eq=False)
class Turn:
    """One response. `requests` are those that were made until then, its own included.

    `batch` is the one that the agent has asked for last.
    """

    user: str
    told: list[str]
    requests: list[Request] = field(default_factory=list)
    batch: Batch = field(default_factory=Batch)
    id: str = ""
    is_stored: bool = True

    def takes(self, request: Request) -> bool:
        return request in self.batch.requests and self.batch.is_open


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

    def open(self) -> list[Turn]:
        """Return the turns at which something can be answered."""
        return [turn for turn in reversed(self.turns) if turn.batch.requests and turn.batch.is_open]

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

    def note(self, turn: Turn, output: list[dict[str, Any]], expected: Sequence[Call]) -> tuple[Request, ...]:
        """Return what is asked: once for each of the expected calls."""
        asked = [item for item in output if item["type"] == "mcp_approval_request"]
        assert [json.loads(item["arguments"])["to"] for item in asked] == [call.to for call in expected], (turn, output)
        made = tuple(Request(item["id"], call) for item, call in zip(asked, expected, strict=True))
        assert {request.id for request in made}.isdisjoint(request.id for request in turn.requests)
        turn.requests += made
        return made

    def check(self) -> None:
        assert self.sent == self.expected

    @rule(
        who=st.integers(0, 1),
        pick=PICKS,
        is_new=st.sampled_from([True, False, False, False]),
        words=st.sampled_from(
            ["mail 1", "mail 2", "mail 3", "mail 1 fail", "mail 2 fail", "mail 2 fail", "hello", "hello fail"]
        ),
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
            turn.requests, turn.batch = list(place.requests), place.batch
            body["previous_response_id"] = place.id
        if turn.batch.decided:
            # The framework asks for the rest before it has the model answer anything.
            waiting = [request.call for request in turn.batch.requests]
            turn.batch = replace(turn.batch, requests=self.note(turn, self.go(turn, body, mode, fails=False), waiting))
            return
        output = self.go(turn, body, mode, fails=words == "hello fail")
        count = int(words.split()[1]) if words.startswith("mail") else 0
        made = self.note(turn, output, [Call(f"{text.split(maxsplit=1)[0]}{index}") for index in range(count)])
        if made:
            turn.batch = Batch(made)
        if words == "hello":
            assert said(output) == turn.told
        self.check()

    @precondition(lambda self: self.open())
    @rule(
        pick=PICKS,
        decisions=st.lists(st.sampled_from([True, True, False, None]), min_size=3, max_size=3),
        mode=MODES,
        is_stored=st.sampled_from([True] * 3 + [False]),
    )
    def answer(self, pick: int, *, decisions: list[bool | None], mode: str, is_stored: bool) -> None:
        """Approve or refuse some of what is asked, or all, and then try to do so again."""
        found = self.open()
        place = found[pick % len(found)]
        batch = place.batch
        given = {one: yes for one, yes in zip(batch.requests, decisions, strict=False) if yes is not None}
        given = given or {batch.requests[0]: True}
        turn = Turn(place.user, list(place.told), list(place.requests), batch, is_stored=is_stored)
        answers = [approval(request.id, approve=yes) for request, yes in given.items()]
        body = {"input": answers, "previous_response_id": place.id}
        self.check_refused(self.stranger_to(place.user), body)
        self.check_refused(place.user, {**body, "input": [*answers, answers[0]]})
        for old in [request for request in place.requests if not place.takes(request)][-2:]:
            self.check_refused(place.user, {**body, "input": [*answers, approval(old.id)]})
            self.tally["outdated"] += 1
        batch.point.is_answered = True
        for request, yes in given.items():
            request.call.is_settled = True
            self.tally["given" if yes else "refused"] += 1
        decided = {**batch.decided, **{request.call.to: yes for request, yes in given.items()}}
        waiting = [request.call for request in batch.requests if request not in given]
        run = [] if waiting else [to for to, yes in decided.items() if yes]
        self.expected.update(run)
        last = place.told[-1]
        fails = not waiting and last.endswith("fail") and (run != [] or last.endswith("hello fail"))
        output = self.go(turn, body, mode, fails=fails)
        self.check()
        if fails:
            turn.batch = replace(batch, point=Point())
        else:
            made = self.note(turn, output, waiting)
            turn.batch = Batch(made, decided) if waiting else Batch()
            self.tally["half"] += bool(waiting)
        for request in turn.requests:
            self.try_again(place, request)
            if turn.id and turn.is_stored and not turn.takes(request):
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
            case "again" if late := [(turn, one) for turn in found for one in turn.requests if not turn.takes(one)]:
                self.try_again(*late[pick % len(late)])
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
        if place.requests:
            output = {"type": "function_call_output", "call_id": "call_0", "output": "sent"}
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
    assert all(
        tally[name] for name in ("completed", "failed", "given", "refused", "half", "outdated", "again", "deleted")
    ), tally
