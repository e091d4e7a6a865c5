"""Servers that are killed (SIGKILL) at each write of a turn, and what the next server makes of what they left.

A write is a transaction that changes something. `KINDS` lists the writes of each kind of request, and a test sees to it
that the lists are right: a new write fails it until it is listed, and then servers are killed at it, too.

The events of a response in the background are written to its log in batches, so how many writes that takes varies. The
first events are stored with the response, the last write closes the log, and two in between are always there: what is no
delta waits for nothing.

By default they are killed inside and after each write on SQLite, and after each write on PostgreSQL. The long form, with
`AFHOST_TEST_KILLS=all` in the environment, kills before, inside and after each write on both; it takes twice as long.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import httpx2
import pytest
import wire
from nursery import Nursery, nursery
from states import State

JsonObject = dict[str, Any]
Moment = Literal["before", "inside", "after"]
Fate = Literal["undone", "broken", "done"]
"""What became of the request that a server died of. `broken`: others see that it had begun, and it cannot be completed."""

MOMENTS: tuple[Moment, ...] = ("before", "inside", "after")
SECONDS = 60.0

# Between two looks: who ends the responses of a dead server tells nobody.
PAUSE = 0.02

# Who does the work of a write, and what we call it.
WRITES = {
    "_claim": "claim",
    "_Write": "put session",
    "erase_session": "delete session",
    "_SqlChain.save.save": "save checkpoint",
    "_SqlChain.delete.<lambda>": "delete checkpoint",
    "SqlResponseStore._create": "create",
    "SqlResponseStore.begin.begin": "begin",
    "SqlResponseStore.save.save": "save",
    "SqlResponseStore.hand_over.<lambda>": "hand over",
    "SqlResponseStore.delete.delete": "delete",
    "forget": "forget log",
    "lock": "lock",
    "finish": "finish",
    "SqlConversationStore.append.append": "append",
    "SqlConversationStore.remove.remove": "remove",
    "_erase": "erase conversation",
}
FUNCTIONS = {name: function for function, name in WRITES.items()}

# A delta may be written by itself, or with what comes after it.
SURE_EXTENSIONS = 2


@dataclass
class Heard:
    """What a caller learned before the server died."""

    answer: JsonObject | None = None
    events: list[JsonObject] = field(default_factory=list)

    @property
    def announced(self) -> JsonObject | None:
        """The last Response object that the caller has seen."""
        seen = [event["response"] for event in self.events if "response" in event]
        return seen[-1] if seen else self.answer


class Api:
    """A caller of a server. Every answer is held against the wire schema."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(base_url=url, timeout=SECONDS, trust_env=False, verify=False)

    def ask(self, method: str, path: str, body: object = None, *, status: int = 200, **headers: str) -> Any:
        """Return the answer, which has this status."""
        answer = self._client.request(method, path, json=body, headers=_named(headers))
        assert answer.status_code == status, answer.text
        if path.startswith("/v1/"):
            wire.check_answer(answer.status_code, answer.json(), path=path)
        return answer.json()

    def hear(self, method: str, path: str, body: object = None, **headers: str) -> Heard:
        """Return what can be heard of the answer until the connection breaks."""
        heard, raw = Heard(), b""
        try:
            with self._client.stream(method, path, json=body, headers=_named(headers)) as answer:
                is_stream = answer.headers["content-type"].startswith("text/event-stream")
                for piece in answer.iter_bytes():
                    raw += piece
                if not is_stream:
                    heard.answer = json.loads(raw)
        except httpx2.TransportError:
            is_stream = raw.startswith(b"event: ")
        if is_stream:
            heard.events = wire.parse_sse(raw[: raw.rfind(b"\n\n") + 2] if b"\n\n" in raw else b"")
        return heard

    def ask_until_free(self, body: JsonObject) -> JsonObject:
        """Return the response to `body` as soon as no other one has the conversation."""
        given_up = time.monotonic() + SECONDS
        while "error" in (made := self._client.post("/v1/responses", json=body).json()) and made["error"]:
            assert made["error"]["code"] == "conversation_locked"
            assert time.monotonic() < given_up
            time.sleep(PAUSE)
        assert isinstance(made, dict)
        return made

    def ended(self, response_id: str) -> JsonObject:
        """Return the response as soon as it is terminal."""
        given_up = time.monotonic() + SECONDS
        while (response := self.ask("GET", f"/v1/responses/{response_id}"))["status"] in {"queued", "in_progress"}:
            assert time.monotonic() < given_up, f"{response_id} is still {response['status']}."
            time.sleep(PAUSE)
        assert isinstance(response, dict)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def text_of(response: JsonObject) -> str:
    """Return the text of a completed response."""
    assert response["status"] == "completed", response
    (item,) = response["output"]
    (part,) = item["content"]
    assert isinstance(part["text"], str)
    return part["text"]


def sees(response: JsonObject) -> list[str]:
    """Return the texts that the target was told."""
    texts = json.loads(text_of(response))
    assert isinstance(texts, list)
    return texts


def message_texts(items: Sequence[JsonObject]) -> list[str]:
    """Return the texts of items, each of which is a message."""
    return [part["text"] for item in items for part in item["content"]]


class Story(Protocol):
    """Something that a caller has a server do, which dies, and what the caller finds on the next server."""

    @property
    def target(self) -> str:
        """What is served: `agent`, `filed` (an agent with its history in files) or `workflow`."""
        ...

    def begin(self, api: Api) -> None:
        """Do what goes well."""
        ...

    def act(self, api: Api, **headers: str) -> Heard:
        """Do what the server dies of."""
        ...

    def check(self, api: Api, heard: Heard, fate: Fate) -> None:
        """See that it is done or not, and that everything goes on."""
        ...


@dataclass
class Chain:
    """The second turn of a chain. It may have an idempotency key."""

    body: JsonObject = field(default_factory=dict)
    target: str = "agent"
    key: str = ""
    first: JsonObject = field(default_factory=dict, init=False)

    def begin(self, api: Api) -> None:
        self.first = api.ask("POST", "/v1/responses", {"input": "one"})

    def act(self, api: Api, **headers: str) -> Heard:
        if self.key:
            headers["idempotency_key"] = self.key
        return api.hear("POST", "/v1/responses", self._second(), **headers)

    def check(self, api: Api, heard: Heard, fate: Fate) -> None:
        second = other_response(api, self.first, heard, fate)
        assert api.ask("GET", f"/v1/responses/{self.first['id']}") == self.first
        self._goes_on(api, self.first, then=[])
        if fate == "done":
            assert second is not None
            assert sees(second) == [*self._told(self.first, "one"), "two"]
            self._goes_on(api, second, then=self._told(second, "two"))
        elif second is not None:
            self._goes_on(api, second, then=["two", *message_texts(second["output"])])
        if self.key:
            self._repeat(api, second)

    def _second(self) -> JsonObject:
        return {"input": "two", "previous_response_id": self.first["id"], **self.body}

    def _told(self, response: JsonObject, *texts: str) -> list[str]:
        """Return what the target remembers of a turn: a workflow does not hear itself."""
        return [*texts] if self.target == "workflow" else [*texts, text_of(response)]

    def _goes_on(self, api: Api, response: JsonObject, *, then: Sequence[str]) -> None:
        third = api.ask("POST", "/v1/responses", {"input": "three", "previous_response_id": response["id"]})
        assert sees(third) == [*self._told(self.first, "one"), *then, "three"]

    def _repeat(self, api: Api, second: JsonObject | None) -> None:
        """Send the request again: it has the same response, whatever became of it."""
        status = 500 if second is not None and second["status"] == "failed" else 200
        again = api.ask("POST", "/v1/responses", self._second(), status=status, idempotency_key=self.key)
        if second is None:
            assert sees(again) == [*self._told(self.first, "one"), "two"]
        elif status == 200:
            assert again == second


@dataclass
class InConversation:
    """The second turn in a conversation."""

    body: JsonObject = field(default_factory=dict)
    target: str = "agent"
    conversation: str = field(default="", init=False)
    first: JsonObject = field(default_factory=dict, init=False)

    def begin(self, api: Api) -> None:
        self.conversation = api.ask("POST", "/v1/conversations", {})["id"]
        self.first = api.ask("POST", "/v1/responses", {"input": "one", "conversation": self.conversation})

    def act(self, api: Api, **headers: str) -> Heard:
        turn = {"input": "two", "conversation": self.conversation, **self.body}
        return api.hear("POST", "/v1/responses", turn, **headers)

    def check(self, api: Api, heard: Heard, fate: Fate) -> None:
        is_stored = self.body.get("store", True)
        second = other_response(api, self.first, heard, fate if is_stored else "undone")
        assert api.ask("GET", f"/v1/responses/{self.first['id']}") == self.first
        told = ["one", text_of(self.first)]
        if fate == "done":
            told += ["two", json.dumps([*told, "two"])]
            assert second is None or text_of(second) == told[-1]
        assert items_of(api, self.conversation) == told

        third = api.ask_until_free({"input": "three", "conversation": self.conversation})

        assert sees(third) == [*told, "three"]
        assert items_of(api, self.conversation) == [*told, "three", text_of(third)]


@dataclass
class Deletion:
    """The second of three responses is deleted."""

    target: str = "agent"
    turns: list[JsonObject] = field(default_factory=list, init=False)

    def begin(self, api: Api) -> None:
        self.turns.append(api.ask("POST", "/v1/responses", {"input": "one"}))
        for text in ("two", "three"):
            self.turns.append(self._next(api, self.turns[-1], text))

    def act(self, api: Api, **headers: str) -> Heard:
        return api.hear("DELETE", f"/v1/responses/{self.turns[1]['id']}", **headers)

    def check(self, api: Api, heard: Heard, fate: Fate) -> None:
        path = f"/v1/responses/{self.turns[1]['id']}"
        if fate != "done":
            assert api.ask("GET", path) == self.turns[1]
            # A workflow has nothing but its checkpoint to go on from: what has begun to go can only go on going.
            if fate == "undone" or self.target != "workflow":
                assert sees(self._next(api, self.turns[1], "other")) == [*self._told(2), "other"]
            api.ask("DELETE", path)
        api.ask("GET", path, status=404)
        api.ask("DELETE", path, status=404)
        api.ask("POST", "/v1/responses", {"input": "x", "previous_response_id": self.turns[1]["id"]}, status=400)
        for turn in (self.turns[0], self.turns[2]):
            assert api.ask("GET", f"/v1/responses/{turn['id']}") == turn
        assert sees(self._next(api, self.turns[0], "branch")) == [*self._told(1), "branch"]
        assert sees(self._next(api, self.turns[2], "four")) == [*self._told(3), "four"]

    def _told(self, count: int) -> list[str]:
        """Return what the target remembers of the first turns."""
        told: list[str] = []
        for turn, text in zip(self.turns[:count], ("one", "two", "three"), strict=False):
            told += [text] if self.target == "workflow" else [text, text_of(turn)]
        return told

    @staticmethod
    def _next(api: Api, response: JsonObject, text: str) -> JsonObject:
        made = api.ask("POST", "/v1/responses", {"input": text, "previous_response_id": response["id"]})
        assert isinstance(made, dict)
        return made


@dataclass
class Conversation:
    """A conversation of two turns is changed without a turn."""

    change: Literal["append", "remove", "delete"]
    target: str = "agent"
    conversation: str = field(default="", init=False)
    items: list[JsonObject] = field(default_factory=list, init=False)

    def begin(self, api: Api) -> None:
        self.conversation = api.ask("POST", "/v1/conversations", {})["id"]
        for text in ("one", "two"):
            api.ask("POST", "/v1/responses", {"input": text, "conversation": self.conversation})
        self.items = self._page(api)

    def act(self, api: Api, **headers: str) -> Heard:
        return api.hear(*self._request(), **headers)

    def check(self, api: Api, heard: Heard, fate: Fate) -> None:
        if fate == "undone":
            assert self._page(api) == self.items
            api.ask(*self._request())
        if self.change == "delete":
            api.ask("GET", self._path(), status=404)
            api.ask("GET", f"{self._path()}/items", status=404)
            api.ask(*self._request(), status=404)
            return
        told = message_texts(self.items)
        told = [*told, "new", "newer"] if self.change == "append" else told[1:]
        assert items_of(api, self.conversation) == told
        third = api.ask("POST", "/v1/responses", {"input": "three", "conversation": self.conversation})
        assert sees(third) == [*told, "three"]

    def _path(self) -> str:
        return f"/v1/conversations/{self.conversation}"

    def _page(self, api: Api) -> list[JsonObject]:
        return list(api.ask("GET", f"{self._path()}/items?order=asc")["data"])

    def _request(self) -> tuple[str, str, JsonObject | None]:
        match self.change:
            case "append":
                items = [{"type": "message", "role": "user", "content": text} for text in ("new", "newer")]
                return "POST", f"{self._path()}/items", {"items": items}
            case "remove":
                return "DELETE", f"{self._path()}/items/{self.items[0]['id']}", None
            case "delete":
                return "DELETE", self._path(), None


def other_response(api: Api, first: JsonObject, heard: Heard, fate: Fate) -> JsonObject | None:
    """Return the response that is stored beside the first, once it is terminal; it must have met this fate."""
    ended = [api.ended(found) for found in api.ask("GET", "/-/stored") if found != first["id"]]
    expected = {"done": ["completed"], "broken": ["failed"], "undone": []}
    assert [response["status"] for response in ended] == expected[fate]
    if heard.announced is not None:  # D10: what was announced can be read
        assert [response["id"] for response in ended] == [heard.announced["id"]]
    if fate == "broken":
        assert ended[0]["error"]["code"] == "server_error"
        # Of one in the foreground nothing is kept before its end; what a log has told of one in the background stands.
        assert [item["status"] for item in ended[0]["output"]] in (
            [[], ["incomplete"]] if ended[0]["background"] else [[]]
        )
    for response in ended:
        if response["background"]:
            check_log(api, response, heard)
    return ended[0] if ended else None


def check_log(api: Api, response: JsonObject, heard: Heard) -> None:
    """See that the events of an ended response can be read, with dense numbers and one end, and begin as they were told."""
    told = api.hear("GET", f"/v1/responses/{response['id']}?stream=true").events
    wire.check_stream(told)
    assert told[-1]["response"] == response
    assert told[: len(heard.events)] == heard.events
    resumed = api.hear("GET", f"/v1/responses/{response['id']}?stream=true&starting_after=1").events
    assert resumed == told[2:]


def items_of(api: Api, conversation: str) -> list[str]:
    """Return the texts of the messages in a conversation, in order."""
    return message_texts(api.ask("GET", f"/v1/conversations/{conversation}/items?order=asc&limit=100")["data"])


@dataclass(frozen=True)
class Kind:
    """A story and the writes of what its server dies of.

    Others see that it has begun after the write `shown`. If it `is_told`, so does its caller, before the end. One that
    `is_queued` then is done by the next server unless the first has begun it.
    """

    story: Callable[[], Story]
    writes: tuple[str, ...]
    shown: str = "create"
    is_told: bool = False
    is_queued: bool = False

    def fate(self, index: int, moment: Moment) -> Fate:
        """Return what must have become of it when the server was killed there."""
        committed = self.writes[: index + (moment == "after")]
        # What is stored counts, and its log is brought to the end of it.
        if self.writes in (committed, (*committed, "close log")):
            return "done"
        if self.shown not in committed:
            return "undone"
        return "done" if self.is_queued and "begin" not in committed else "broken"


_TURN = ("create", "put session", "save")
_WITH_LOG = ("create", "put session", "save", "close log")
_BACKGROUND = (
    *("create", "begin", "save"),
    *("extend log", "extend log", "put session", "save", "close log"),
)

KINDS = {
    "one-shot": Kind(Chain, ("put session", "create")),
    "one-shot with a key": Kind(partial(Chain, key="key_1"), _WITH_LOG),
    "one-shot with a history in files": Kind(partial(Chain, target="filed"), ("claim", "put session", "create")),
    "one-shot of a workflow": Kind(
        partial(Chain, target="workflow"),
        ("save checkpoint", "put session", "create"),
    ),
    "stream": Kind(partial(Chain, {"stream": True}), _TURN, is_told=True),
    "background": Kind(partial(Chain, {"background": True}), _BACKGROUND, is_told=True, is_queued=True),
    "stream in the background": Kind(
        partial(Chain, {"stream": True, "background": True}), _BACKGROUND, is_told=True, is_queued=True
    ),
    "one-shot in a conversation": Kind(InConversation, _TURN),
    "stream in a conversation": Kind(partial(InConversation, {"stream": True}), _TURN, is_told=True),
    "background in a conversation": Kind(
        partial(InConversation, {"background": True}), _BACKGROUND, is_told=True, is_queued=True
    ),
    "one-shot in a conversation that is not stored": Kind(
        partial(InConversation, {"store": False}), ("lock", "finish")
    ),
    "deletion": Kind(Deletion, ("delete session", "forget log", "delete"), shown="delete session"),
    "deletion of a workflow's": Kind(
        partial(Deletion, target="workflow"),
        ("delete checkpoint", "delete session", "forget log", "delete"),
        shown="delete checkpoint",
    ),
    "items appended": Kind(partial(Conversation, "append"), ("append",)),
    "item removed": Kind(partial(Conversation, "remove"), ("remove",)),
    "conversation deleted": Kind(partial(Conversation, "delete"), ("erase conversation",)),
}


@pytest.fixture(scope="module")
def servers() -> Generator[Nursery, None, None]:
    """Where servers come from."""
    with nursery() as made:
        yield made


@dataclass(frozen=True)
class Home:
    """State that outlives the servers that use it, one at a time."""

    servers: Nursery
    state: State
    histories: Path

    @contextmanager
    def serve(self, target: str, *, dies: bool = False) -> Generator[Api, None, None]:
        """Run a server until the block ends; one that `dies` must end itself in the block, and is waited for."""
        api = Api(self.servers.start(target=target, histories=self.histories, **self.options))
        try:
            yield api
            if dies:
                self.servers.await_death()
        finally:
            api.close()
            if not dies:
                self.servers.kill()

    @property
    def options(self) -> Mapping[str, object]:
        """The options of a host that keeps its state here."""
        if self.state.kind == "postgres":
            return self.state.options
        # Without a directory for checkpoints they lie in the database: they are writes, too.
        return {"state_dir": {"sessions": self.state.directory}}


@pytest.fixture
def home(servers: Nursery, durable_state: State, tmp_path: Path) -> Home:
    """State of each kind that survives a server."""
    return Home(servers, durable_state, tmp_path / "histories")


@pytest.mark.parametrize("kind", KINDS)
def test_the_writes_at_which_servers_are_killed_are_all_the_writes_of_a_request(home: Home, kind: str) -> None:
    story = KINDS[kind].story()

    with home.serve(story.target) as api:
        story.begin(api)
        heard = story.act(api)
        if heard.answer is not None and heard.answer.get("status") == "queued":
            api.hear("GET", f"/v1/responses/{heard.answer['id']}?stream=true")
        written = [WRITES.get(name, name) for name in api.ask("GET", "/-/writes")]

    expected = list(KINDS[kind].writes)
    if KINDS[kind].is_queued and home.state.kind == "postgres":
        # Whoever takes it out of the queue does not know whether it is the first.
        expected.insert(expected.index("begin") + 1, "fence log")
    assert list(_without_spare_extensions(written)) == expected


def _without_spare_extensions(writes: Sequence[str]) -> Generator[str, None, None]:
    count = 0
    for write in writes:
        count += write == "extend log"
        if write != "extend log" or count <= SURE_EXTENSIONS:
            yield write


IS_LONG = os.environ.get("AFHOST_TEST_KILLS") == "all"

# On disk a moment `before` a write is the one `after` the last, and PostgreSQL undoes an open transaction by itself.
USUAL = {("sqlite", "inside"), ("sqlite", "after"), ("postgres", "after")}

CASES: list[tuple[str, str, int, Moment]] = [
    (state, name, index, moment)
    for state in ("sqlite", "postgres")
    for name, kind in KINDS.items()
    for index in range(len(kind.writes))
    for moment in MOMENTS
    if IS_LONG or (state, moment) in USUAL
]


@pytest.mark.behaviour("A1", "A5", "D10")
@pytest.mark.parametrize(
    ("durable_state", "kind", "index", "moment"),
    [pytest.param(*case, marks=[pytest.mark.behaviour("D6")] if KINDS[case[1]].is_queued else []) for case in CASES],
    indirect=["durable_state"],
    ids=[f"{state}-{kind}-{moment}-{index}. {KINDS[kind].writes[index]}" for state, kind, index, moment in CASES],
)
def test_a_server_killed_at_a_write_leaves_nothing_half_written(
    home: Home, kind: str, index: int, moment: Moment
) -> None:
    killed = KINDS[kind]
    story = killed.story()
    write = killed.writes[index]
    number = killed.writes[: index + 1].count(write)

    with home.serve(story.target, dies=True) as api:
        story.begin(api)
        heard = story.act(api, x_kill=f"{moment} {number} {FUNCTIONS.get(write, write)}")

    if killed.is_told and index > killed.writes.index("begin" if killed.is_queued else "create"):
        assert heard.announced is not None
    with home.serve(story.target) as api:
        story.check(api, heard, killed.fate(index, moment))


# Where the first server dies, and the writes of the second, which takes the response over.
LEFT: dict[str, tuple[str, Fate, tuple[str, ...]]] = {
    "broken": ("after 1 put session", "broken", ("hand over", "begin", "fence log", "save", "close log")),
    "not begun": ("after 1 create", "done", ("hand over", "begin", "fence log", *_BACKGROUND[2:])),
    "not told": ("after 2 save", "done", ("fence log", "close log")),
}
TAKEN_OVER: list[tuple[str, str, int, Moment]] = [
    (state, left, index, moment)
    for state in ("sqlite", "postgres")
    for left, (_, _, writes) in LEFT.items()
    for index in range(len(writes))
    for moment in MOMENTS
    if IS_LONG or ((state, moment) == ("sqlite", "after") and (left, index) != ("not begun", 0))
]


@pytest.mark.behaviour("A5", "D6")
@pytest.mark.parametrize(
    ("durable_state", "left", "index", "moment"),
    TAKEN_OVER,
    indirect=["durable_state"],
    ids=[f"{state}-{left}-{moment}-{index}. {LEFT[left][2][index]}" for state, left, index, moment in TAKEN_OVER],
)
def test_a_server_killed_while_it_takes_over_what_another_has_left_leaves_that_to_the_next(
    home: Home, left: str, index: int, moment: Moment
) -> None:
    story = InConversation({"background": True})
    first, fate, writes = LEFT[left]
    first_moment, first_number, first_write = first.split(" ", 2)
    write = writes[index]
    number = writes[: index + 1].count(write)
    with home.serve(story.target, dies=True) as api:
        story.begin(api)
        heard = story.act(api, x_kill=f"{first_moment} {first_number} {FUNCTIONS.get(first_write, first_write)}")

    kill = f"{moment} {number} {FUNCTIONS.get(write, write)}"
    home.servers.start_and_die(target=story.target, kill=kill, **home.options)

    if left == "not begun" and _is_between(writes, index, moment):
        fate = "broken"  # begun by the second, which died of it
    with home.serve(story.target) as api:
        story.check(api, heard, fate)


def _is_between(writes: Sequence[str], index: int, moment: Moment) -> bool:
    """Whether the run has begun at this moment, and its end is not stored."""
    committed = writes[: index + (moment == "after")]
    return "begin" in committed and committed.count("save") < writes.count("save")
