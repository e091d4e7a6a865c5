"""Two users and a third without a name do whatever they like to one host, and none ever meets what is another's.

Hypothesis chooses the operations, whose ids they are given, and when the host is restarted; the model below says what each
answer has to be. `AFHOST_TEST_STEPS=200 AFHOST_TEST_EXAMPLES=100` looks further, with other choices in every run; without
them the choices are the same in every run, and a failing one is shown as it was found: with them it is made shorter.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import stored
import wire
from agent_framework import Agent
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from states import State
from witness import Witness
from worlds import MARKER, World, play, world_of

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting.testing.agents import Gate
from agent_framework_hosting_responses import ResponsesChannel

KEYS = ("key 1", "key 2")
MOST_RUNNING = 5
"""At once: fewer than a host executes, for one more would wait until another ends."""


@dataclass(eq=False)
class Item:
    id: str
    text: str


@dataclass(eq=False)
class Conversation:
    id: str
    user: str
    items: list[Item]
    metadata: dict[str, str]
    is_locked: bool = False


@dataclass(eq=False)
class Response:
    """`seen`: what the model was sent for it. `before`: the items of its conversation when it began."""

    id: str
    user: str
    is_background: bool
    input: list[str]
    seen: list[str]
    body: bytes = b""
    output: list[str] = field(default_factory=list)
    previous: Response | None = None
    conversation: Conversation | None = None
    before: list[Item] = field(default_factory=list)
    key: str | None = None

    def context(self) -> list[str]:
        """The texts of the items that it was given besides its input."""
        if self.conversation is not None:
            return [item.text for item in self.before if item in self.conversation.items]
        if self.previous is not None:
            return [*self.previous.context(), *self.previous.input, *self.previous.output]
        return []


class Users(RuleBasedStateMachine):
    """The operations. `pick` numbers are taken modulo what there is."""

    world: World
    witness: Witness

    def __init__(self) -> None:
        super().__init__()
        self.users = self.world.new_users()
        self.serial = 0
        self.responses: list[Response] = []
        self.running: list[Response] = []
        self.conversations: list[Conversation] = []
        self.dead: list[str] = ["resp_" + "0" * 32, "conv_" + "0" * 32]
        self.dead_items: list[str] = ["msg_" + "0" * 32]

    # --- Own things

    def own_responses(self, user: str) -> list[Response]:
        return [response for response in self.responses if response.user == user and response not in self.running]

    def own_conversations(self, user: str) -> list[Conversation]:
        return [conversation for conversation in self.conversations if conversation.user == user]

    def new_text(self, user: str) -> str:
        self.serial += 1
        return f"{user}~{self.serial}."

    def texts(self, user: str, path: str, *, limit: int = 100) -> list[tuple[str, str]]:
        """Return id and text of all items of a list, oldest first, read page by page."""
        found: list[tuple[str, str]] = []
        after = ""
        while True:
            answer = self.world.ask(user, "GET", f"{path}?order=asc&limit={limit}{after}")
            assert answer.status == 200, answer
            page = answer.json()
            found += [(item["id"], item["content"][0]["text"]) for item in page["data"]]
            if not page["has_more"]:
                return found
            after = f"&after={page['last_id']}"

    def new_turn(self, user: str, after: str, pick: int, count: int) -> tuple[Response, dict[str, Any]]:
        """Return a response as it will be, without an id, and the request for it."""
        texts = [self.new_text(user) for _ in range(count)]
        body: dict[str, Any] = {"input": texts[0] if count == 1 else [says(text) for text in texts]}
        turn = Response("", user, is_background=False, input=texts, seen=texts)
        if after == "previous" and (own := self.own_responses(user)):
            turn.previous = own[pick % len(own)]
            turn.seen = [*turn.previous.seen, *turn.previous.output, *texts]
            body["previous_response_id"] = turn.previous.id
        elif after == "conversation" and (conversations := self.own_conversations(user)):
            turn.conversation = conversations[pick % len(conversations)]
            turn.before = list(turn.conversation.items)
            turn.seen = [*(item.text for item in turn.before), *texts]
            body["conversation"] = turn.conversation.id if pick % 2 else {"id": turn.conversation.id}
        return turn, body

    def finish(self, turn: Response, output: list[str]) -> None:
        """Take the end of a turn over into the model, and compare."""
        turn.output = output
        read = self.world.ask(turn.user, "GET", f"/v1/responses/{turn.id}")
        turn.body = read.content
        assert read.status == 200, read
        shown = [item["content"][0]["text"] for item in read.json()["output"]]
        assert shown == turn.output
        if turn.conversation is not None:
            turn.conversation.is_locked = False
            if output and turn.conversation in self.conversations:
                self.check_items(turn.conversation, [*turn.input, *turn.output])

    def check_items(self, conversation: Conversation, new: list[str] | None = None, *, limit: int = 100) -> None:
        """Compare the items, of which those with the texts `new` have just come."""
        found = self.texts(conversation.user, f"/v1/conversations/{conversation.id}/items", limit=limit)
        assert [text for _, text in found] == [*(item.text for item in conversation.items), *(new or ())]
        assert [name for name, _ in found][: len(conversation.items)] == [item.id for item in conversation.items]
        conversation.items += [Item(*pair) for pair in found[len(conversation.items) :]]

    # --- Turns

    @rule(
        who=st.integers(0, 2),
        after=st.sampled_from(["new", "previous", "previous", "conversation", "conversation"]),
        pick=st.integers(0, 999),
        mode=st.sampled_from(["one-shot", "stream", "background"]),
        count=st.integers(1, 2),
        key=st.sampled_from([None, None, *KEYS]),
    )
    def turn(self, *, who: int, after: str, pick: int, mode: str, count: int, key: str | None) -> None:
        user = self.users[who]
        turn, body = self.new_turn(user, after, pick, count)
        if mode == "stream":
            key = None
        body |= {} if mode == "one-shot" else {mode: True}
        turn.is_background = mode == "background"
        asked = len(self.witness.asked)
        answer = self.world.ask(user, "POST", "/v1/responses", body, key=key)
        used = [response for response in self.responses if key and (response.user, response.key) == (user, key)]
        if used or (turn.conversation is not None and turn.conversation.is_locked):
            assert (answer.status, len(self.witness.asked)) == (400, asked), answer
            code = answer.json()["error"]["code"]
            assert code == ("idempotency_key_reused" if used else "conversation_locked")
            return
        assert answer.status == 200, answer
        turn.key = key
        if mode == "stream":
            events = wire.parse_sse(answer.content)
            wire.check_stream(events)
            turn.id = events[-1]["response"]["id"]
        else:
            turn.id = answer.json()["id"]
        if mode == "background":
            self.world.ask(user, "GET", f"/v1/responses/{turn.id}?stream=true")
        self.responses.append(turn)
        assert self.witness.seen[turn.input[-1]] == turn.seen
        self.finish(turn, [f"answer to {turn.input[-1]}"])
        if mode == "one-shot":
            assert turn.body == answer.content
        if key is not None:
            assert self.world.ask(user, "POST", "/v1/responses", body, key=key).json()["id"] == turn.id

    @rule(who=st.integers(0, 2), after=st.sampled_from(["new", "previous", "conversation"]), pick=st.integers(0, 999))
    def begin(self, who: int, after: str, pick: int) -> None:
        """A background response that runs until `let_go`, `cancel` or `restart`."""
        turn, body = self.new_turn(self.users[who], after, pick, 1)
        if len(self.running) == MOST_RUNNING or (turn.conversation is not None and turn.conversation.is_locked):
            return
        gate = self.witness.gates[turn.input[0]] = Gate()
        answer = self.world.ask(turn.user, "POST", "/v1/responses", {**body, "background": True})
        turn.id, turn.is_background = answer.json()["id"], True
        self.world.run(_reached(gate))
        assert self.witness.seen[turn.input[0]] == turn.seen
        if turn.conversation is not None:
            turn.conversation.is_locked = True
        self.responses.append(turn)
        self.running.append(turn)

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 999), is_cancelled=st.booleans())
    def end(self, pick: int, *, is_cancelled: bool) -> None:
        turn = self.running.pop(pick % len(self.running))
        path = f"/v1/responses/{turn.id}"
        running = self.world.ask(turn.user, "GET", path)
        assert running.json()["status"] == "in_progress"
        assert self.world.ask(turn.user, "DELETE", path).status == 400
        assert self.world.ask(turn.user, "GET", path).content == running.content
        if is_cancelled:
            assert self.world.ask(turn.user, "POST", f"{path}/cancel").json()["status"] == "cancelled"
        else:
            self.witness.gates[turn.input[0]].open()
            self.world.ask(turn.user, "GET", f"{path}?stream=true")
        self.finish(turn, [] if is_cancelled else [f"answer to {turn.input[0]}"])

    @precondition(lambda self: self.world.state.is_durable)
    @rule(chance=st.integers(0, 3))
    def restart(self, chance: int) -> None:
        if chance:  # it takes as long as ten other steps
            return
        self.world.restart()
        interrupted, self.running = self.running, []
        for turn in interrupted:
            self.finish(turn, [])
            assert b'"status":"failed"' in turn.body

    # --- Conversations

    @rule(who=st.integers(0, 2), count=st.integers(0, 3))
    def make_conversation(self, who: int, count: int) -> None:
        user = self.users[who]
        texts = [self.new_text(user) for _ in range(count)]
        metadata = {"topic": self.new_text(user)}
        body = {"items": [says(text) for text in texts], "metadata": metadata}
        made = self.world.ask(user, "POST", "/v1/conversations", body).json()
        conversation = Conversation(made["id"], user, [], metadata)
        self.conversations.append(conversation)
        self.check_items(conversation, texts)

    @rule(who=st.integers(0, 2), pick=st.integers(0, 999), limit=st.integers(1, 100))
    def use_conversation(self, who: int, pick: int, limit: int) -> None:
        user = self.users[who]
        if not (own := self.own_conversations(user)):
            return
        conversation = own[pick % len(own)]
        path = f"/v1/conversations/{conversation.id}"
        assert self.world.ask(user, "GET", path).json()["metadata"] == conversation.metadata
        conversation.metadata = {"topic": self.new_text(user)}
        updated = self.world.ask(user, "POST", path, {"metadata": conversation.metadata})
        assert updated.json()["metadata"] == conversation.metadata
        self.check_items(conversation, limit=max(limit, len(conversation.items) // 5))

    @rule(who=st.integers(0, 2), pick=st.integers(0, 999), count=st.integers(1, 3), takes_id=st.booleans())
    def add_items(self, who: int, pick: int, count: int, *, takes_id: bool) -> None:
        """Items, the first perhaps with the id of somebody else's, which nobody may notice."""
        user = self.users[who]
        if not (own := self.own_conversations(user)):
            return
        conversation = own[pick % len(own)]
        texts = [self.new_text(user) for _ in range(count)]
        items = [says(text) for text in texts]
        foreign = [item.id for other in self.conversations if other.user != user for item in other.items]
        used = {item.id for item in conversation.items}
        if takes_id and foreign and (name := foreign[pick % len(foreign)]) not in used:
            items[0]["id"] = name
        answer = self.world.ask(user, "POST", f"/v1/conversations/{conversation.id}/items", {"items": items})
        assert answer.status == 200, answer
        self.check_items(conversation, texts)

    @rule(who=st.integers(0, 2), pick=st.integers(0, 999), which=st.integers(0, 999))
    def delete_item(self, who: int, pick: int, which: int) -> None:
        user = self.users[who]
        if not (own := [conversation for conversation in self.own_conversations(user) if conversation.items]):
            return
        conversation = own[pick % len(own)]
        item = conversation.items[which % len(conversation.items)]
        path = f"/v1/conversations/{conversation.id}/items/{item.id}"
        assert self.world.ask(user, "GET", path).json()["content"][0]["text"] == item.text
        assert self.world.ask(user, "DELETE", path).json()["id"] == conversation.id
        conversation.items.remove(item)
        self.dead_items.append(item.id)
        assert self.world.ask(user, "GET", path).status == 404
        self.check_items(conversation)

    @rule(who=st.integers(0, 2), pick=st.integers(0, 999))
    def delete_conversation(self, who: int, pick: int) -> None:
        user = self.users[who]
        if not (own := self.own_conversations(user)):
            return
        self.drop_conversation(own[pick % len(own)])

    def drop_conversation(self, conversation: Conversation) -> None:
        answer = self.world.ask(conversation.user, "DELETE", f"/v1/conversations/{conversation.id}")
        assert answer.json()["deleted"] is True
        self.conversations.remove(conversation)
        conversation.items.clear()
        self.dead.append(conversation.id)

    # --- Responses

    @rule(who=st.integers(0, 2), pick=st.integers(0, 999), limit=st.integers(1, 100))
    def read_response(self, who: int, pick: int, limit: int) -> None:
        user = self.users[who]
        if not (own := self.own_responses(user)):
            return
        response = own[pick % len(own)]
        path = f"/v1/responses/{response.id}"
        assert self.world.ask(user, "GET", path).content == response.body
        cancelled = self.world.ask(user, "POST", f"{path}/cancel")
        assert (cancelled.status, cancelled.content == response.body) == (
            (200, True) if response.is_background else (400, False)
        )
        expected = [*response.context(), *response.input]
        found = self.texts(user, f"{path}/input_items", limit=max(limit, len(expected) // 5))
        assert [text for _, text in found] == expected

    @rule(who=st.integers(0, 2), pick=st.integers(0, 999))
    def delete_response(self, who: int, pick: int) -> None:
        if own := self.own_responses(self.users[who]):
            self.drop_response(own[pick % len(own)])

    def drop_response(self, response: Response) -> None:
        answer = self.world.ask(response.user, "DELETE", f"/v1/responses/{response.id}")
        assert answer.json() == {"id": response.id, "object": "response", "deleted": True}
        self.responses.remove(response)
        self.dead.append(response.id)

    # --- What is not one's own

    @rule(who=st.integers(0, 2), pick=st.integers(0, 9999), which=st.integers(0, 999), first=st.integers(0, 2))
    def trespass(self, who: int, pick: int, which: int, first: int) -> None:
        """Use an id that is somebody else's, or was deleted: the answer is that to an id which never was."""
        user = self.users[who]
        things: list[Response | Conversation] = [*self.responses, *self.conversations, *self.running * 5]
        ids = [*(thing.id for thing in things if thing.user != user), *self.dead[:2], *self.dead[-4:]]
        own = self.own_conversations(user)
        used = {item.id for conversation in own for item in conversation.items}
        items = [item.id for other in self.conversations if other.user != user for item in other.items]
        items = [name for name in (*items, *self.dead_items) if name not in used]
        names = {
            "id": ids[pick % len(ids)],
            "item": items[which % len(items)],
            "own": own[which % len(own)].id if own else "",
        }
        asked = len(self.witness.asked)
        for request in OPERATIONS[first::3]:
            if own or "{own}" not in str(request):
                self.try_both(user, request, names)
        assert len(self.witness.asked) == asked
        self.check_untouched(names["id"])

    def try_both(self, user: str, request: tuple[str, str, Any], names: dict[str, str]) -> None:
        answers = []
        for chosen in (names, {**names, "id": invented(names["id"]), "item": invented(names["item"])}):
            method, path, body = filled(list(request), chosen)
            answer = self.world.ask(user, method, path, body)
            content = answer.content
            for name in ("id", "item"):
                content = content.replace(chosen[name].encode(), name.encode())
            answers.append((answer.status, answer.headers, content))
        assert answers[0] == answers[1]
        assert answers[0][0] in {400, 404}

    def check_untouched(self, name: str) -> None:
        for response in self.responses:
            if response.id == name and response not in self.running:
                assert self.world.ask(response.user, "GET", f"/v1/responses/{name}").content == response.body
        for conversation in self.conversations:
            if conversation.id == name:
                self.check_items(conversation)

    def teardown(self) -> None:
        """Have everybody delete what is theirs: then nothing of it is stored any more."""
        if sys.exc_info()[0] is not None:  # what went wrong is worth more
            return
        while self.running:
            self.end(0, is_cancelled=True)
        for response in list(self.responses):
            self.drop_response(response)
        for conversation in list(self.conversations):
            self.drop_conversation(conversation)
        kept = [place for place, content in stored.cells(self.world.state) if MARKER.search(content)]
        assert not kept, kept


OPERATIONS: list[tuple[str, str, Any]] = [
    ("GET", "/v1/responses/{id}", None),
    ("GET", "/v1/responses/{id}?stream=true", None),
    ("DELETE", "/v1/responses/{id}", None),
    ("POST", "/v1/responses/{id}/cancel", None),
    ("GET", "/v1/responses/{id}/input_items", None),
    ("GET", "/v1/responses/{id}/input_items?after={item}", None),
    ("POST", "/v1/responses", {"input": "q", "previous_response_id": "{id}"}),
    ("POST", "/v1/responses", {"input": "q", "previous_response_id": "{id}", "stream": True}),
    ("POST", "/v1/responses", {"input": "q", "previous_response_id": "{id}", "background": True}),
    ("POST", "/v1/responses", {"input": "q", "previous_response_id": "{id}", "store": False}),
    ("POST", "/v1/responses", {"input": "q", "conversation": "{id}"}),
    ("POST", "/v1/responses", {"input": "q", "conversation": {"id": "{id}"}, "stream": True}),
    ("POST", "/v1/responses", {"input": [{"type": "item_reference", "id": "{item}"}]}),
    ("POST", "/v1/responses", {"input": [{"type": "item_reference", "id": "{item}"}], "conversation": "{own}"}),
    ("GET", "/v1/conversations/{id}", None),
    ("POST", "/v1/conversations/{id}", {"metadata": {"mine": "now"}}),
    ("DELETE", "/v1/conversations/{id}", None),
    ("GET", "/v1/conversations/{id}/items", None),
    ("POST", "/v1/conversations/{id}/items", {"items": [{"role": "user", "content": "hello"}]}),
    ("GET", "/v1/conversations/{id}/items/{item}", None),
    ("DELETE", "/v1/conversations/{id}/items/{item}", None),
    ("GET", "/v1/conversations/{own}/items/{item}", None),
    ("DELETE", "/v1/conversations/{own}/items/{item}", None),
    ("GET", "/v1/conversations/{own}/items?after={item}", None),
]


def says(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def invented(name: str) -> str:
    """Return an id of the same form that never was."""
    kind, _, rest = name.partition("_")
    return f"{kind}_{rest[::-1].translate(str.maketrans('abcdef0123456789', 'fedcba9876543210'))}"


def filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, chosen in names.items():
            value = value.replace(f"{{{name}}}", chosen)
        return value
    if isinstance(value, list):
        return [filled(item, names) for item in value]
    return {name: filled(item, names) for name, item in value.items()} if isinstance(value, dict) else value


async def _reached(gate: Gate) -> None:
    await gate.reached.wait()


def witnessed(witness: Witness, **options: Any) -> AgentFrameworkHost:
    return AgentFrameworkHost(Agent(client=witness), channels=[ResponsesChannel()], **options)


@pytest.mark.behaviour("E1", "E2", "E5", "D5", "A2", "A9")
@pytest.mark.timeout(3600)
def test_whatever_users_do_over_http_nobody_meets_what_is_not_theirs(state: State) -> None:
    witness = Witness()
    with world_of(state, partial(witnessed, witness)) as world:
        play(type("Users", (Users,), {"witness": witness}), world, steps=50, examples=8)

    assert [path for path, content in stored.files(state) if MARKER.search(content)] == []
