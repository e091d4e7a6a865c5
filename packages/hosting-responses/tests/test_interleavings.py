"""Chains of a workflow that asks people, in any order that users can think of, against a model of what each must know.

Hypothesis chooses who continues what, in which way, who answers what, what fails, and when the host is restarted. The
workflow says everything that it has heard in every answer, so that one answer shows the state of its whole chain.
`AFHOST_TEST_STEPS=200 AFHOST_TEST_EXAMPLES=100` looks further, with other choices in every run.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import stored
import wire
from hearsay import WRONG, Listener, answer_to, conversing, kind_of, things_of
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from states import State
from worlds import MARKER, World, play, world_of

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.checkpoints import MemoryCheckpoints
from agent_framework_hosting.targets.workflow import WorkflowTarget
from agent_framework_hosting.testing.agents import Gate
from agent_framework_hosting_responses import ResponsesChannel

MOST_RUNNING = 3
"""At once: fewer than a host executes, for one more would wait until another ends."""
MOST_ATTEMPTS = 3
"""From the same place: a run that was broken off as often has failed."""


def host_of(**options: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(conversing(), channels=[ResponsesChannel()], **options)


# --- The model


@dataclass(eq=False)
class Conversation:
    """`items` are turns, and messages that somebody has added."""

    id: str
    user: str
    items: list[Turn | str] = field(default_factory=list)
    is_locked: bool = False


@dataclass(eq=False)
class Turn:
    """One response.

    `before` is its context, `base` the turn whose state it continues from. `heard` and `times` are what the workflow
    knows after it, if it completes; `pending` are what it then waits for, by the ids on the wire, and of which kind.
    `answers` are kinds by ids; `answered_by` is the turn that has answered what this one waits for, or is about to.
    """

    user: str
    lines: list[str]
    before: list[Turn | str]
    base: Turn | None
    heard: list[str] = field(default_factory=list)
    times: int = 0
    pending: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    things: list[str] = field(default_factory=list)
    conversation: Conversation | None = None
    is_stored: bool = True
    answered_by: Turn | None = None
    id: str = ""
    status: str = "in_progress"
    body: bytes = b""
    has_said: bool = False
    is_deleted: bool = False
    attempts: int = 1

    def __repr__(self) -> str:
        marks = [name for name in ("is_stored", "is_deleted") if getattr(self, name)]
        place = "" if self.conversation is None else f" in {self.conversation.id}"
        return f"<{self.id} {self.lines} {self.status} {' '.join(marks)}{place} after {self.before[-1:]}>"

    @property
    def has_state(self) -> bool:
        return self.status == "completed" and self.is_stored and not self.is_deleted

    @property
    def fails(self) -> bool:
        return not {"fail", "late"}.isdisjoint(self.things)

    @property
    def is_answered(self) -> bool:
        return self.answered_by is not None and self.answered_by.status in {"in_progress", "completed"}


def base_of(context: list[Turn | str], *, goes_back: bool = False) -> Turn | None:
    """Return the last turn that has a state; who `goes_back` wants none that has been answered elsewhere."""
    return next(
        (
            turn
            for turn in reversed(context)
            if isinstance(turn, Turn) and turn.has_state and not (goes_back and turn.pending and turn.is_answered)
        ),
        None,
    )


def lines_of(item: Turn | str) -> list[str]:
    return [item] if isinstance(item, str) else [*item.lines, *item.heard]


def spoken(context: list[Turn | str], base: Turn | None, lines: list[str]) -> list[str]:
    """Return what the workflow is told: what the user has said since anybody else said something, and since `base`."""
    told = list(lines)
    for item in reversed(context):
        if isinstance(item, str):
            told.insert(0, item)
        elif item is base or item.has_said or item.answers:
            break
        else:
            told[:0] = item.lines
    return told


def continuing(place: Turn | Conversation) -> dict[str, Any]:
    """Return what a request says of where it goes on."""
    return {"conversation": place.id} if isinstance(place, Conversation) else {"previous_response_id": place.id}


ASKING = ["bool", "verdict", "text", "bool+verdict", "text+verdict", "text+bool"]
THINGS = st.sampled_from(["tell", "tell", "tell", *ASKING, "fail", "late", "verdict+late"])
MODES = st.sampled_from(["one-shot", "stream", "background", "background stream"])
PICKS = st.just(0) | st.integers(0, 999)
WHO = st.integers(0, 1)


class Chains(RuleBasedStateMachine):
    """What users do. `pick` numbers are taken modulo what there is, the newest first."""

    world: World
    tally: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.users = self.world.new_users()[:2]
        self.serial = itertools.count(1)
        self.turns: list[Turn] = []
        self.running: list[Turn] = []
        self.conversations: list[Conversation] = []
        # Lines of what is stored without anybody knowing its id.
        self.unreachable: set[str] = set()

    # --- What there is

    def own(self, who: int) -> list[Turn]:
        """Return the turns that a user can continue, the newest first."""
        return [turn for turn in reversed(self.turns) if turn.user == self.users[who] and turn not in self.running]

    def places(self, who: int, after: str) -> Sequence[Turn | Conversation]:
        """Return where a user can go on."""
        match after:
            case "turn":
                return self.own(who)
            case "conversation":
                return self.own_conversations(who)
        return []

    def waiting(self) -> list[tuple[Turn | Conversation, Turn]]:
        """Return where a question can be answered, and the turn that waits for it, the newest first."""
        chains = [(turn, base_of([*turn.before, turn])) for who in (0, 1) for turn in self.own(who)]
        heads = [(one, base_of(one.items)) for one in self.conversations if not one.is_locked]
        places: list[tuple[Turn | Conversation, Turn | None]] = [*heads, *chains]
        return [(place, base) for place, base in places if base and base.pending and not base.is_answered]

    def stranger_to(self, user: str) -> str:
        return self.users[1 - self.users.index(user)]

    def new_line(self, user: str, things: str) -> str:
        return f"{user}~{next(self.serial)}. {things}"

    def new_turn(
        self, user: str, after: Turn | Conversation | None, lines: list[str], *, answers: bool = False
    ) -> tuple[Turn, dict[str, Any]]:
        """Return a turn without its state, and what its request says of where it goes on."""
        if after is None:
            return Turn(user, lines, [], None), {}
        if isinstance(after, Conversation):
            base = base_of(after.items, goes_back=not answers)
            return Turn(user, lines, list(after.items), base, conversation=after), continuing(after)
        context = [*after.before, after]
        return Turn(user, lines, context, base_of(context)), continuing(after)

    def new_saying(self, user: str, after: Turn | Conversation | None, things: str) -> tuple[Turn, dict[str, Any]]:
        """Return a turn in which a user says something, and its request."""
        line = self.new_line(user, things)
        turn, body = self.new_turn(user, after, [line])
        told = spoken(turn.before, turn.base, [line])
        turn.things = things.split("+")
        turn.heard = [*(turn.base.heard if turn.base else []), *told]
        turn.times = (turn.base.times if turn.base else 0) + 1
        return turn, {**body, "input": line}

    def new_answering(
        self, after: Turn | Conversation, base: Turn, ids: list[str], things: str
    ) -> tuple[Turn, dict[str, Any]]:
        """Return a turn in which a user answers questions of `base`, and its request."""
        turn, body = self.new_turn(after.user, after, [], answers=True)
        given = []
        for call_id in ids:
            line = self.new_line(after.user, things)
            output, heard = answer_to(base.pending[call_id], line)
            turn.answers[call_id] = base.pending[call_id]
            turn.lines.append(heard)
            given.append({"type": "function_call_output", "call_id": call_id, "output": output})
        turn.things = things_of(turn.lines[-1])
        turn.heard = [*base.heard, *turn.lines]
        turn.times = base.times + len(ids)
        return turn, {**body, "input": given}

    # --- A turn

    def is_refused(self, turn: Turn) -> bool:
        """Whether the turn cannot be begun."""
        if turn.conversation is not None and turn.conversation.is_locked:
            return True
        base = turn.base
        return base is not None and bool(base.pending) and (base.is_answered or not turn.answers)

    def go(self, turn: Turn, body: dict[str, Any], mode: str) -> None:
        """Have the turn run, and compare what comes of it."""
        kinds = {"stream": "stream" in mode, "background": "background" in mode, "store": turn.is_stored}
        is_refused = self.is_refused(turn)
        answer = self.world.ask(turn.user, "POST", "/v1/responses", {**body, **kinds})
        if is_refused:
            assert answer.status == 400, (turn, answer)
            self.tally["refused"] += 1
            return
        if turn.answers and turn.base is not None:
            turn.base.answered_by = turn
        if mode == "one-shot" and turn.fails:
            assert answer.status == 500, (turn, answer)
            turn.status = "failed"
            self.tally["failed"] += 1
            if turn.is_stored:
                # It keeps what it has continued.
                self.unreachable.update(line for item in (*turn.before, turn) for line in lines_of(item))
            return
        assert answer.status == 200, (turn, answer)
        if "stream" in mode:
            events = wire.parse_sse(answer.content)
            wire.check_stream(events)
            found = events[-1]["response"]
        else:
            found = answer.json()
        turn.id = found["id"]
        if "background" in mode:
            self.follow(turn)
        if turn.is_stored:
            self.turns.append(turn)
        if turn.is_stored or "background" in mode:
            found = self.read(turn)
        self.end(turn, found)

    def follow(self, turn: Turn) -> None:
        assert self.world.ask(turn.user, "GET", f"/v1/responses/{turn.id}?stream=true").status == 200

    def read(self, turn: Turn) -> dict[str, Any]:
        answer = self.world.ask(turn.user, "GET", f"/v1/responses/{turn.id}")
        assert answer.status == 200, (turn, answer)
        turn.body = answer.content
        found = answer.json()
        assert isinstance(found, dict)
        return found

    def end(self, turn: Turn, found: dict[str, Any]) -> None:
        """Compare the end of a turn with what it has to be, and take it over into the model."""
        assert found["status"] == ("failed" if turn.fails else "completed"), (turn, found)
        calls = {item["call_id"]: item for item in found["output"] if item["type"] == "function_call"}
        texts = [part["text"] for item in found["output"] if item["type"] == "message" for part in item["content"]]
        self.count(turn, found["status"])
        turn.has_said, turn.status = texts != [], found["status"]
        if turn.conversation is not None:
            turn.conversation.is_locked = False
        if turn.fails:
            assert (texts == []) == ("fail" in turn.things), (turn, found)
            return
        known = json.loads("".join(texts).splitlines()[-1])
        if len(turn.answers) > 1:
            # Answers that come together are heard in any order.
            count = len(turn.answers)
            assert sorted(known["heard"][-count:]) == sorted(turn.lines), (turn, known)
            turn.heard[-count:] = known["heard"][-count:]
        assert known == {"heard": turn.heard, "shared": turn.heard, "times": turn.times}, (turn, known)
        kinds = sorted(thing for thing in turn.things if thing in WRONG)
        assert sorted(kind_of(call) for call in calls.values()) == kinds, (turn, calls)
        kept = {} if turn.base is None else turn.base.pending
        assert kept.keys().isdisjoint(calls), (turn, calls)
        turn.pending = {call_id: kind for call_id, kind in kept.items() if call_id not in turn.answers}
        turn.pending |= {call_id: kind_of(call) for call_id, call in calls.items()}
        if turn.conversation is not None and turn.conversation in self.conversations:
            turn.conversation.items.append(turn)

    def count(self, turn: Turn, status: str) -> None:
        self.tally[status] += 1
        if turn.answers:
            self.tally[f"{status} answers"] += 1
            self.tally[f"{status} answers of {len(turn.answers)}"] += 1
        if turn.before and isinstance(turn.before[-1], Turn):
            self.tally[f"{status} after {turn.before[-1].status}"] += 1
            self.tally["after a deleted one"] += turn.before[-1].is_deleted or any(
                isinstance(one, Turn) and one.is_deleted for one in turn.before
            )
        self.tally["in conversations"] += turn.conversation is not None
        self.tally["resumed"] += turn.attempts > 1
        self.tally["longest"] = max(self.tally["longest"], len(turn.heard))

    # --- What users do

    @rule(
        who=WHO,
        pick=PICKS,
        after=st.sampled_from(["new", "turn", "turn", "turn", "conversation", "conversation"]),
        things=THINGS,
        mode=MODES,
        is_stored=st.sampled_from([True] * 4 + [False]),
    )
    def say(self, who: int, pick: int, after: str, *, things: str, mode: str, is_stored: bool) -> None:
        """Say something, in a new chain or after any turn of the user's."""
        user = self.users[who]
        found = self.places(who, after)
        place = found[pick % len(found)] if found else None
        turn, body = self.new_saying(user, place, things)
        turn.is_stored = is_stored
        self.go(turn, body, mode)

    @precondition(lambda self: self.waiting())
    @rule(
        pick=PICKS,
        which=PICKS,
        is_all=st.sampled_from([True, False, False]),
        things=st.sampled_from(["tell", "tell", *ASKING[:3], "fail", "late", "verdict+late"]),
        mode=MODES,
        is_stored=st.sampled_from([True] * 4 + [False]),
    )
    def answer(self, pick: int, which: int, *, is_all: bool, things: str, mode: str, is_stored: bool) -> None:
        """Answer a question, or all of them at once; and then once more, which counts if nothing came of the first time."""
        found = self.waiting()
        place, base = found[pick % len(found)]
        ids = sorted(base.pending)
        if is_all:
            things = "tell"
        else:
            ids = [ids[which % len(ids)]]
            if "verdict" in base.pending.values() and base.pending[ids[0]] != "verdict":
                things = things.replace("verdict", "text")  # it is being asked under this name
        turn, body = self.new_answering(place, base, ids, things)
        turn.is_stored = is_stored
        self.go(turn, body, mode)
        if turn.status == "completed":
            self.check_refused(turn.user, body)
            if turn.conversation is None and turn.is_stored:
                self.check_refused(turn.user, {**body, "previous_response_id": turn.id})
        elif turn.status == "failed":
            again, body = self.new_answering(
                turn if turn.id and turn.is_stored and which % 2 else base, base, ids, "tell"
            )
            self.go(again, body, mode)

    @precondition(lambda self: self.waiting())
    @rule(pick=PICKS, which=PICKS)
    def answer_wrongly(self, pick: int, which: int) -> None:
        """Send what is no answer to what is asked, as the user who is asked and as the other one."""
        found = self.waiting()
        place, base = found[pick % len(found)]
        after = continuing(place)
        ids = sorted(base.pending)
        call_id = ids[which % len(ids)]
        right = {
            "type": "function_call_output",
            "call_id": call_id,
            "output": answer_to(base.pending[call_id], "x tell")[0],
        }
        forged = {**right, "call_id": "call_forged"}
        others = {known for turn in self.turns for known in turn.pending} - set(ids)
        inputs: list[Any] = ["text tell", [forged], [right, forged], [right, right], [right, says("text tell")]]
        inputs += [[{**right, "call_id": known}] for known in sorted(others)[:2]]
        inputs += [[{**right, "output": output}] for output in WRONG[base.pending[call_id]]]
        inputs.append([{"type": "mcp_approval_response", "approval_request_id": call_id, "approve": True}])
        for given in inputs[which % 2 :: 2]:
            self.check_refused(place.user, {"input": given, **after})
        stranger = self.stranger_to(place.user)
        self.check_refused(stranger, {"input": [right], **after})
        self.check_refused(stranger, {"input": [right]})
        self.probe(base)

    @rule(
        who=WHO,
        pick=PICKS,
        after=st.sampled_from(["new", "turn", "turn", "conversation"]),
        things=st.sampled_from(["wait", "wait+late", "wait+bool"]),
        is_stored=st.sampled_from([True] * 3 + [False]),
    )
    def begin(self, who: int, pick: int, after: str, *, things: str, is_stored: bool) -> None:
        """Say or answer something in the background, which takes until `let_go` or `cancel`."""
        if len(self.running) == MOST_RUNNING:
            return
        user = self.users[who]
        found = self.places(who, after)
        place = found[pick % len(found)] if found else None
        turn, body = self.new_saying(user, place, things)
        if place is not None and turn.base is not None and turn.base.pending:
            ids = sorted(name for name, kind in turn.base.pending.items() if kind != "bool")
            if not ids:
                return
            turn, body = self.new_answering(place, turn.base, ids[:1], things)
        if self.is_refused(turn):
            return
        turn.is_stored = is_stored
        gate = Listener.gates[turn.heard[-1]] = Gate()
        answer = self.world.ask(user, "POST", "/v1/responses", {**body, "background": True, "store": turn.is_stored})
        assert answer.status == 200, (turn, answer)
        turn.id = answer.json()["id"]
        self.world.run(reached(gate))
        if turn.answers and turn.base is not None:
            turn.base.answered_by = turn
        if turn.conversation is not None:
            turn.conversation.is_locked = True
        if turn.is_stored:
            self.turns.append(turn)
        self.running.append(turn)
        self.check_refused(user, {"input": "x tell", "previous_response_id": turn.id})
        if turn.answers:
            self.check_refused(user, body)

    @precondition(lambda self: self.running)
    @rule(pick=PICKS, is_cancelled=st.booleans(), is_followed=st.booleans())
    def let_go(self, pick: int, *, is_cancelled: bool, is_followed: bool) -> None:
        turn = self.running.pop(pick % len(self.running))
        path = f"/v1/responses/{turn.id}"
        if is_cancelled:
            cancelled = self.world.ask(turn.user, "POST", f"{path}/cancel").json()
            assert (cancelled["status"], cancelled["output"]) == ("cancelled", [])
            self.leave(turn, "cancelled")
            if turn.answers and turn.base in self.turns:
                self.go(*self.new_answering(turn.base, turn.base, list(turn.answers), "tell"), "one-shot")
            return
        Listener.gates[turn.heard[-1]].open()
        if is_followed:
            self.follow(turn)
        found = self.read(turn)
        while found["status"] in wire.RUNNING:
            found = self.read(turn)
        self.end(turn, found)

    def leave(self, turn: Turn, status: str) -> None:
        """Take over that a running turn has come to nothing."""
        turn.status = status
        if turn.conversation is not None:
            turn.conversation.is_locked = False

    @rule(what=st.sampled_from(["delete", "read", "add", "converse", "restart"]), who=WHO, pick=PICKS)
    def do(self, what: str, who: int, pick: int) -> None:
        """Do something else than talking."""
        match what:
            case "delete" if found := self.own(who):
                self.drop(found[pick % len(found)])
            case "read" if found := self.own(who):
                self.read_again(found[pick % len(found)])
            case "add" if conversations := self.own_conversations(who):
                self.add_message(conversations[pick % len(conversations)])
            case "restart" if self.world.state.is_durable:
                self.restart()
            case _:
                made = self.world.ask(self.users[who], "POST", "/v1/conversations", {}).json()
                self.conversations.append(Conversation(made["id"], self.users[who]))

    def restart(self) -> None:
        """Restart the host: what is stored goes on where it was, in the same superstep, from its beginning."""
        if not self.running:
            self.begin(0, 0, "turn", things="wait", is_stored=True)
        resumed = [turn for turn in self.running if turn.is_stored and turn.attempts < MOST_ATTEMPTS]
        for turn in resumed:
            turn.attempts += 1
            Listener.gates[turn.heard[-1]].reached.clear()
        self.world.restart()
        for turn in resumed:
            self.world.run(reached(Listener.gates[turn.heard[-1]]))
        lost = [turn for turn in self.running if turn not in resumed]
        for turn in lost:
            self.running.remove(turn)
            self.leave(turn, "failed")
            if turn.is_stored:
                self.follow(turn)
                assert self.read(turn)["status"] == "failed"
        for turn in self.turns[-3:]:
            self.probe(turn)

    def drop(self, turn: Turn) -> None:
        answer = self.world.ask(turn.user, "DELETE", f"/v1/responses/{turn.id}")
        assert answer.json() == {"id": turn.id, "object": "response", "deleted": True}
        self.turns.remove(turn)
        turn.is_deleted = True
        self.check_refused(turn.user, {"input": "x tell", "previous_response_id": turn.id})

    def read_again(self, turn: Turn) -> None:
        """See that what is terminal stays as it is, and that nobody else can see it."""
        body = turn.body
        self.read(turn)
        assert body in {b"", turn.body}
        stranger = self.stranger_to(turn.user)
        assert self.world.ask(stranger, "GET", f"/v1/responses/{turn.id}").status == 404
        self.check_refused(stranger, {"input": "x tell", **continuing(turn)})
        self.probe(turn)

    # --- Conversations

    def own_conversations(self, who: int) -> list[Conversation]:
        return [one for one in reversed(self.conversations) if one.user == self.users[who]]

    def add_message(self, conversation: Conversation) -> None:
        if conversation.is_locked:
            return
        line = self.new_line(conversation.user, "added")
        path = f"/v1/conversations/{conversation.id}/items"
        assert self.world.ask(conversation.user, "POST", path, {"items": [says(line)]}).status == 200
        conversation.items.append(line)

    def drop_conversation(self, conversation: Conversation) -> None:
        answer = self.world.ask(conversation.user, "DELETE", f"/v1/conversations/{conversation.id}")
        assert answer.json()["deleted"] is True
        self.conversations.remove(conversation)

    # --- What must not change anything

    def check_refused(self, user: str, body: dict[str, Any]) -> None:
        answer = self.world.ask(user, "POST", "/v1/responses", body)
        assert answer.status in {400, 404}, (user, body, answer)

    def probe(self, turn: Turn) -> None:
        """See what the chain knows, and leave nothing."""
        if turn in self.turns and turn not in self.running:
            probe, body = self.new_saying(turn.user, turn, "tell")
            probe.is_stored = False
            self.go(probe, body, "one-shot")

    def teardown(self) -> None:
        """Have everybody delete what is theirs: then nothing of it is stored any more."""
        if sys.exc_info()[0] is not None:  # what went wrong is worth more
            return
        while self.running:
            self.let_go(0, is_cancelled=True, is_followed=False)
        for turn in self.turns:
            self.probe(turn)
        for turn in list(self.turns):
            self.drop(turn)
        for conversation in list(self.conversations):
            self.drop_conversation(conversation)
        lost = {line.group() for text in self.unreachable if (line := LINE.search(text.encode())) is not None}
        # Of this example: one that went wrong has left everything.
        own = tuple(f"{user}~".encode() for user in self.users)
        for place, content in stored.cells(self.world.state):
            kept = {line for line in LINE.findall(content) if line.startswith(own)} - lost
            assert not kept, (place, kept)
        Listener.gates.clear()


LINE = re.compile(rb"\w+-[0-9]+~[0-9]+\.")
"""What no two lines have in common."""


def says(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


HAPPENS = [
    "refused",
    "failed",
    "completed answers of 1",
    "completed after completed",
    "completed after failed",
    "completed after cancelled",
]
"""What no play is without."""


async def reached(gate: Gate) -> None:
    await gate.reached.wait()


@pytest.mark.behaviour("F1", "F3", "F4", "F6", "F8", "A2", "E1")
@pytest.mark.timeout(3600)
def test_whatever_is_said_answered_and_broken_off_every_chain_knows_what_was_said_in_it(state: State) -> None:
    tally: Counter[str] = Counter()
    with world_of(state, host_of) as world:
        play(type("Chains", (Chains,), {"tally": tally}), world, steps=50, examples=20 if state.kind == "memory" else 8)
        assert isinstance(world.host.target, WorkflowTarget)
        checkpoints = world.host.target.checkpoints
        assert not isinstance(checkpoints, MemoryCheckpoints) or len(checkpoints) == 0
    print(dict(tally))
    assert all(tally[name] for name in HAPPENS), tally
    kept = [path for path, content in stored.files(state) if MARKER.search(content)]
    assert [path for path in kept if path.startswith("checkpoints")] == []
