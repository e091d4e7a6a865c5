"""The Conversations API, served: the official client, every error, tenants, and hostile callers."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import live
import openai
import pytest
import raw
import wire
from states import State

from agent_framework_hosting import AgentFrameworkHost, IsolationKeys
from agent_framework_hosting.isolation import reset_current_isolation_keys, set_current_isolation_keys
from agent_framework_hosting.testing.agents import ScriptedAgent
from agent_framework_hosting_responses import ResponsesChannel, ResponsesSettings
from agent_framework_hosting_responses.conversations import ConversationsService
from agent_framework_hosting_responses.protocol.errors import RequestError
from agent_framework_hosting_responses.protocol.json import JsonObject
from agent_framework_hosting_responses.protocol.query import ListQuery
from agent_framework_hosting_responses.stores.base import ConversationKey, ConversationRecord
from agent_framework_hosting_responses.stores.memory_conversations import MemoryConversationStore

ADA, BOB = {"x-agent-user-isolation-key": "ada"}, {"x-agent-user-isolation-key": "bob"}


def host_of(state: State, **settings: Any) -> AgentFrameworkHost:
    channel = ResponsesChannel(settings=ResponsesSettings(**settings))
    return AgentFrameworkHost(
        ScriptedAgent(["hello"]), channels=[channel], trust_isolation_headers=True, **state.options
    )


def says(content: Any, **members: Any) -> Any:
    return {"role": "user", "content": content, **members}


def texts(items: Sequence[Any]) -> list[str]:
    return [item.content[0].text for item in items]


# --- The official client -----------------------------------------------------------------------------------------


async def test_the_client_can_make_read_change_and_delete_a_conversation(state: State) -> None:
    async with live.serve(host_of(state).app) as served:
        conversations = served.client.conversations
        made = await conversations.create(items=[says("one"), says("two")], metadata={"topic": "demo"})
        found = await conversations.retrieve(made.id)
        updated = await conversations.update(made.id, metadata={"team": "blue"})
        cleared = await conversations.update(made.id, metadata=None)
        items = [item async for item in await conversations.items.list(made.id, order="asc")]
        deleted = await conversations.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await conversations.retrieve(made.id)

    assert made.id.startswith("conv_")
    assert len(made.id) == len("conv_") + 48
    assert (made.object, made.metadata) == ("conversation", {"topic": "demo"})
    assert found == made
    assert updated.model_dump() == {**made.model_dump(), "metadata": {"team": "blue"}}
    assert cleared.metadata == {}
    assert texts(items) == ["one", "two"]
    assert (deleted.id, deleted.object, deleted.deleted) == (made.id, "conversation.deleted", True)


async def test_the_client_can_add_read_and_delete_items(state: State) -> None:
    call: Any = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
    output: Any = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
    async with live.serve(host_of(state).app) as served:
        conversation = await served.client.conversations.create()
        items = served.client.conversations.items
        added = await items.create(conversation.id, items=[says("hi", id="msg_mine"), call, output], include=[])
        first: Any = await items.retrieve("msg_mine", conversation_id=conversation.id)
        parent = await items.delete("msg_mine", conversation_id=conversation.id)
        left = [item async for item in await items.list(conversation.id, order="asc")]
        with pytest.raises(openai.NotFoundError):
            await items.retrieve("msg_mine", conversation_id=conversation.id)

    assert [item.type for item in added.data] == ["message", "function_call", "function_call_output"]
    assert (added.first_id, added.last_id, added.has_more) == ("msg_mine", added.data[-1].id, False)
    assert first == added.data[0]
    assert (first.status, first.role, texts([first])) == ("completed", "user", ["hi"])
    assert parent == conversation
    assert left == added.data[1:]


async def test_the_sync_client_can_do_all_of_it(state: State) -> None:
    def work(client: openai.OpenAI) -> None:
        conversations = client.conversations
        made = conversations.create(metadata={"a": "1"})
        assert conversations.retrieve(made.id) == made
        assert conversations.update(made.id, metadata={"a": "2"}).metadata == {"a": "2"}
        added: Any = conversations.items.create(made.id, items=[says(str(number)) for number in range(20)])
        assert texts(added.data) == [str(number) for number in range(20)]
        listed: list[Any] = list(conversations.items.list(made.id, limit=3))
        assert listed == added.data[::-1]
        one = conversations.items.retrieve(listed[0].id, conversation_id=made.id)
        assert one == listed[0]
        assert conversations.items.delete(one.id or "", conversation_id=made.id).id == made.id
        assert len(list(conversations.items.list(made.id))) == 19
        assert conversations.delete(made.id).deleted
        with pytest.raises(openai.NotFoundError):
            conversations.items.list(made.id)

    async with live.serve(host_of(state).app) as served:
        await live.in_thread(lambda: work(served.sync_client))


@pytest.mark.behaviour("D2")
async def test_the_client_pages_through_130_items_in_both_orders(state: State) -> None:
    names = [f"item {number}" for number in range(130)]
    async with live.serve(host_of(state).app) as served:
        made = await served.client.conversations.create(items=[says(name) for name in names[:20]])
        items = served.client.conversations.items
        for start in range(20, 130, 20):
            await items.create(made.id, items=[says(name) for name in names[start : start + 20]])
        forward: list[Any] = [item async for item in items.list(made.id, order="asc")]
        backward: list[Any] = [item async for item in items.list(made.id)]
        by_hundred: list[Any] = [item async for item in items.list(made.id, order="asc", limit=100)]
        first: Any = await items.list(made.id)
        rest: list[Any] = [item async for item in items.list(made.id, order="asc", after=forward[127].id)]

    assert texts(forward) == names
    assert backward == forward[::-1]
    assert by_hundred == forward
    assert first.data == backward[:20]
    assert (first.has_more, first.last_id) == (True, backward[19].id)
    assert rest == forward[128:]


async def test_each_kind_of_item_comes_back_to_the_client_as_what_it_is(state: State) -> None:
    sent: list[Any] = [
        says([{"type": "input_text", "text": "q"}, {"type": "input_image", "image_url": "https://x.y/z.png"}]),
        {"role": "assistant", "content": "a"},
        {"role": "developer", "content": "Be kind."},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "t"}]},
        {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": [{"name": "t", "input_schema": {}}]},
        {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "t", "arguments": "{}"},
        {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "t", "arguments": "{}", "output": "42"},
        {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "q", "queries": ["q"]}},
        {"type": "file_search_call", "id": "fs_1", "queries": ["q"]},
        {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1", "code": "1"},
        {"type": "custom_tool_call", "call_id": "call_1", "name": "c", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "y"},
    ]
    async with live.serve(host_of(state).app) as served:
        made = await served.client.conversations.create(items=sent)
        listed: list[Any] = [item async for item in served.client.conversations.items.list(made.id, order="asc")]
        one_by_one = [
            await served.client.conversations.items.retrieve(item.id, conversation_id=made.id) for item in listed
        ]

    assert [item.type for item in listed] == [item.get("type", "message") for item in sent]
    assert [item.role for item in listed[:3]] == ["user", "assistant", "developer"]
    assert [type(item).__name__ for item in listed[:6:3]] == ["Message", "ResponseReasoningItem"]
    assert one_by_one == listed
    assert {item.status for item in listed if item.type in {"message", "mcp_call", "web_search_call"}} == {"completed"}


async def test_hard_text_comes_back_unchanged(state: State) -> None:
    hard = "a\x00b\u2028c\r\nd\ud83d e 👩\u200d👧"
    async with live.serve(host_of(state).app) as served:
        made = await served.http.post(
            "/conversations",
            content=json.dumps({"items": [says(hard)], "metadata": {"k\x00": hard}}),
            headers={"content-type": "application/json"},
        )
        listed = await served.http.get(f"/conversations/{made.json()['id']}/items")

    assert made.json()["metadata"] == {"k\x00": hard}
    assert listed.json()["data"][0]["content"][0]["text"] == hard


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("content", [b"", b"null", b"{}", b'{"items": null, "metadata": null}'])
async def test_a_conversation_is_made_of_nothing_under_both_prefixes(prefix: str, content: bytes, state: State) -> None:
    async with live.serve(host_of(state).app) as served:
        made = await served.http.post(f"{prefix}/conversations", content=content)
        found = await served.http.get(f"{prefix}/conversations/{made.json()['id']}")
        listed = await served.http.get(f"{prefix}/conversations/{made.json()['id']}/items")

    assert made.status_code == 200
    assert list(made.json()) == ["id", "object", "created_at", "metadata"]
    assert found.content == made.content
    assert listed.json() == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_a_deleted_conversation_is_unknown_for_every_verb(state: State) -> None:
    async with live.serve(host_of(state).app) as served:
        made = (await served.http.post("/conversations", json={"items": [says("hi", id="msg_1")]})).json()["id"]
        await served.http.delete(f"/conversations/{made}")
        wrong = await wrong_answers(
            served, [Case(method, path, body, 404, f"Conversation with id '{made}' not found.") for method, path, body in verbs(made)]
        )  # fmt: skip

    assert "\n".join(wrong) == ""


async def test_a_list_is_not_shifted_by_what_is_deleted_or_added_meanwhile(state: State) -> None:
    async with live.serve(host_of(state).app) as served:
        items = served.client.conversations.items
        made = await served.client.conversations.create(items=[says(str(number)) for number in range(6)])
        first = await items.list(made.id, limit=2, order="asc")
        await items.delete(first.data[0].id or "", conversation_id=made.id)
        await items.create(made.id, items=[says("6")])
        rest: list[Any] = [item async for item in items.list(made.id, order="asc", after=first.last_id or "")]
        newest: list[Any] = [item async for item in items.list(made.id, limit=1)]

    assert texts(rest) == ["2", "3", "4", "5", "6"]
    assert texts(newest) == ["6", "5", "4", "3", "2", "1"]


# --- Errors ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A request and the error it must get; the message is compared as far as `says` goes."""

    method: str
    path: str
    body: Any
    status: int
    says: str
    param: str | None = None
    code: str | None = None


def verbs(conversation_id: str, item_id: str = "msg_1") -> list[tuple[str, str, Any]]:
    path = f"/conversations/{conversation_id}"
    return [
        ("GET", path, None),
        ("POST", path, {"metadata": {}}),
        ("DELETE", path, None),
        ("POST", f"{path}/items", {"items": [says("hi")]}),
        ("GET", f"{path}/items", None),
        ("GET", f"/v1{path}/items?limit=5&order=asc", None),
        ("GET", f"{path}/items/{item_id}", None),
        ("DELETE", f"{path}/items/{item_id}", None),
    ]


async def wrong_answers(served: live.LiveHost, cases: list[Case]) -> list[str]:
    wrong = []
    for case in cases:
        content = case.body if isinstance(case.body, bytes | None) else json.dumps(case.body).encode()
        answer = await served.http.request(case.method, case.path, content=content)
        error = answer.json().get("error", {})
        if (answer.status_code, error.get("param"), error.get("code")) != (
            case.status,
            case.param,
            case.code,
        ) or not str(error.get("message")).startswith(case.says):
            wrong.append(f"{case}: {answer.status_code} {error}")
    return wrong


NEW = "/conversations"
BODIES: list[tuple[Any, ...]] = [
    ({"items": [{"type": "message", "content": "hi"}]}, "Missing required parameter: 'items[0].role'.", "items[0].role", "missing_required_parameter"),
    ({"items": [says("hi")] * 21}, "Invalid 'items': array too long. Expected an array with maximum length 20, but got an array with length 21 instead.", "items", "array_above_max_length"),
    ({"items": says("hi")}, "Invalid type for 'items': expected an array, but got an object instead.", "items", "invalid_type"),
    ({"items": [says("1", id="msg_1"), says("2", id="msg_1")]}, "Invalid 'items[1].id': 'msg_1'. Item IDs must be unique within a conversation.", "items[1].id", "invalid_value"),
    ({"items": [says("1", id="../x")]}, "Invalid 'items[0].id': '../x'. Expected an ID that contains letters,", "items[0].id", "invalid_value"),
    ({"items": [{"type": "item_reference", "id": "msg_1"}]}, "Item with id 'msg_1' not found.", "items[0].id", None),
    ({"items": [{"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}]}, "Unsupported parameter: 'items[0].type' does not support 'mcp_approval_response'", "items[0].type", "unsupported_parameter"),
    ({"items": [{"type": "telepathy"}]}, "Invalid value: 'telepathy'. Supported values are: ", "items[0].type", "invalid_value"),
    (b"{not json", "Invalid body: failed to parse JSON value.", None, "invalid_json"),
    (b'{"items": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "Invalid body: JSON values are nested too deeply.", None, "invalid_json"),
    ([], "Invalid body: expected an object, but got an array instead.", None, "invalid_type"),
]  # fmt: skip
METADATA: list[tuple[Any, ...]] = [
    ({"metadata": {"k": 1}}, "Invalid type for 'metadata.k': expected a string, but got an integer instead.", "metadata.k", "invalid_type"),
    ({"metadata": {str(number): "x" for number in range(17)}}, "Invalid 'metadata': too many properties. Expected an object with at most 16", "metadata", "object_above_max_properties"),
    ({"metadata": {"k" * 65: "x"}}, "Invalid 'metadata': string too long.", "metadata", "string_above_max_length"),
    ({"metadata": {"k": "x" * 513}}, "Invalid 'metadata.k': string too long.", "metadata.k", "string_above_max_length"),
    ({"metadata": []}, "Invalid type for 'metadata': expected an object, but got an array instead.", "metadata", "invalid_type"),
]  # fmt: skip


@pytest.mark.behaviour("C5", "C6")
async def test_each_request_that_cannot_be_answered_gets_the_error_of_the_catalogue(state: State) -> None:
    missing, empty = "missing_required_parameter", "Invalid 'items': empty array."
    async with live.serve(host_of(state).app) as served:
        made = (await served.http.post(NEW, json={"items": [says("hi", id="msg_1")]})).json()["id"]
        one = f"{NEW}/{made}"
        items = f"{one}/items"
        unknown_item = "Item with id 'msg_x' not found in conversation."
        cases = [
            *(Case("POST", NEW, body, 400, *rest) for body, *rest in [*BODIES, *METADATA]),
            *(Case("POST", items, body, 400, *rest) for body, *rest in BODIES),
            *(Case("POST", one, body, 400, *rest) for body, *rest in METADATA),
            Case("POST", one, {}, 400, "Missing required parameter: 'metadata'.", "metadata", missing),
            Case("POST", one, b"", 400, "Invalid body: failed to parse", None, "invalid_json"),
            Case("POST", one, b"null", 400, "Invalid body: expected an object", None, "invalid_type"),
            Case("POST", items, {}, 400, "Missing required parameter: 'items'.", "items", missing),
            Case("POST", items, {"items": None}, 400, "Missing required parameter: 'items'.", "items", missing),
            Case("POST", items, {"items": []}, 400, empty, "items", "empty_array"),
            Case("POST", items, b"", 400, "Invalid body: failed to parse", None, "invalid_json"),
            Case("POST", items, {"items": [says("2"), says("1", id="msg_1")]}, 400, "Invalid 'items[1].id': 'msg_1'. Item IDs must be unique", "items[1].id", "invalid_value"),
            Case("GET", f"{items}?limit=1000", None, 400, "Invalid 'limit': integer above maximum value.", "limit", "integer_above_max_value"),
            Case("GET", f"{items}?limit=0", None, 400, "Invalid 'limit': integer below minimum value.", "limit", "integer_below_min_value"),
            Case("GET", f"{items}?limit=many", None, 400, "Invalid type for 'limit'", "limit", "invalid_type"),
            Case("GET", f"{items}?order=up", None, 400, "Invalid value: 'up'.", "order", "invalid_value"),
            Case("GET", f"{items}?after=msg_x", None, 404, "Item with id 'msg_x' not found."),
            Case("GET", f"{items}?before=msg_x", None, 404, "Item with id 'msg_x' not found."),
            Case("GET", f"{items}?after=msg_1&before=msg_x", None, 404, "Item with id 'msg_x' not found."),
            Case("GET", f"{items}?after=%00", None, 404, "Item with id '\x00' not found."),
            Case("GET", f"{items}?after={'a' * 300}", None, 404, f"Item with id '{'a' * 64}…' not found."),
            Case("GET", f"{items}/msg_x", None, 404, unknown_item),
            Case("DELETE", f"{items}/msg_x", None, 404, unknown_item),
            Case("GET", f"{items}/%00", None, 404, "Item with id '\x00' not found in conversation."),
            Case("DELETE", f"{items}/msg_1%0a", None, 404, "Item with id 'msg_1\n' not found in conversation."),
            *(Case(method, path, body, 404, "Conversation with id 'conv_x' not found.") for method, path, body in verbs("conv_x")),
            *(Case(method, path, body, 404, "Conversation with id '\x00' not found.") for method, path, body in verbs("%00")),
            Case("GET", NEW, None, 405, f"Not allowed to GET on {NEW}.", None, "method_not_supported"),
            Case("PUT", one, {}, 405, f"Not allowed to PUT on {one}.", None, "method_not_supported"),
            Case("POST", f"{items}/msg_1", {}, 405, f"Not allowed to POST on {items}/msg_1.", None, "method_not_supported"),
            Case("POST", f"{NEW}/", {}, 404, f"Invalid URL (POST {NEW}/)"),
            Case("GET", f"{items}/msg_1/more", None, 404, f"Invalid URL (GET {items}/msg_1/more)"),
        ]  # fmt: skip
        wrong = await wrong_answers(served, cases)
        listed = await served.http.get(items)
        found = await served.http.get(one)

    assert "\n".join(wrong) == ""
    assert [item["id"] for item in listed.json()["data"]] == ["msg_1"]
    assert found.json()["metadata"] == {}


async def test_a_body_that_is_no_json_or_too_large_is_refused(state: State) -> None:
    async with live.serve(host_of(state, max_body_bytes=1_000).app) as served:
        made = (await served.http.post(NEW)).json()["id"]
        for path in (NEW, f"{NEW}/{made}", f"{NEW}/{made}/items"):
            typed = await served.http.post(path, content=b"{}", headers={"content-type": "text/plain"})
            large = await served.http.post(path, content=b" " * 1_001)
            assert (typed.status_code, typed.json()["error"]["code"]) == (400, "unsupported_content_type")
            assert (large.status_code, large.headers["x-should-retry"]) == (413, "false")


async def test_a_strict_operator_refuses_unknown_fields(state: State) -> None:
    async with live.serve(host_of(state, strict_fields=True).app) as served:
        made = (await served.http.post(NEW, json={"items": [], "metadata": {}})).json()["id"]
        bodies: list[tuple[str, Any]] = [
            (NEW, {"model": "a"}),
            (f"{NEW}/{made}", {"metadata": {}, "model": "a"}),
            (f"{NEW}/{made}/items", {"items": [says("hi")], "model": "a"}),
        ]
        answers = [await served.http.post(path, json=body) for path, body in bodies]

    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [
        (400, "unknown_parameter")
    ] * 3


async def test_the_official_client_gets_the_exception_class_of_each_status(state: State) -> None:
    async with live.serve(host_of(state).app) as served:
        conversations = served.client.conversations
        with pytest.raises(openai.NotFoundError) as missing:
            await conversations.retrieve("conv_x")
        with pytest.raises(openai.BadRequestError) as bad:
            await conversations.create(items=[says(str(number)) for number in range(21)])

    assert (missing.value.param, missing.value.code) == (None, None)
    assert (bad.value.param, bad.value.code) == ("items", "array_above_max_length")


# --- Tenants -----------------------------------------------------------------------------------------------------


@pytest.mark.behaviour("E1")
async def test_the_conversation_of_another_user_is_unknown_for_every_verb(state: State) -> None:
    async with live.serve(host_of(state).app) as served:
        made = await served.http.post(NEW, json={"items": [says("secret", id="msg_1")]}, headers=ADA)
        conversation_id = made.json()["id"]
        for headers in (BOB, {}):
            for method, path, body in verbs(conversation_id):
                foreign = await served.http.request(method, path, json=body, headers=headers)
                unknown = await served.http.request(
                    method, path.replace(conversation_id, "conv_x"), json=body, headers=headers
                )
                assert foreign.status_code == 404
                assert foreign.text.replace(conversation_id, "conv_x") == unknown.text
        found = await served.http.get(f"{NEW}/{conversation_id}", headers=ADA)
        listed = await served.http.get(f"{NEW}/{conversation_id}/items", headers=ADA)

    assert found.content == made.content
    assert [item["id"] for item in listed.json()["data"]] == ["msg_1"]


@pytest.mark.behaviour("E1")
async def test_an_item_of_another_user_is_no_cursor_and_does_not_take_an_id(state: State) -> None:
    async with live.serve(host_of(state).app) as served:
        await served.http.post(NEW, json={"items": [says("secret", id="msg_1")]}, headers=ADA)
        made = (await served.http.post(NEW, json={}, headers=BOB)).json()["id"]
        cursor = await served.http.get(f"{NEW}/{made}/items?after=msg_1", headers=BOB)
        item = await served.http.get(f"{NEW}/{made}/items/msg_1", headers=BOB)
        own = await served.http.post(f"{NEW}/{made}/items", json={"items": [says("own", id="msg_1")]}, headers=BOB)

    assert (cursor.status_code, item.status_code, own.status_code) == (404, 404, 200)


# --- The service -------------------------------------------------------------------------------------------------


@contextmanager
def partition_of(user: str) -> Any:
    token = set_current_isolation_keys(IsolationKeys(user_key=user))
    try:
        yield
    finally:
        reset_current_isolation_keys(token)


async def test_the_service_works_in_the_current_partition_without_a_web_framework() -> None:
    store = MemoryConversationStore()
    service = ConversationsService(store, store, clock=lambda: 1_700_000_000.9)
    with partition_of("ada"):
        made = await service.create({"metadata": {"a": "1"}})
        assert await service.retrieve(str(made["id"])) == made
    with partition_of("bob"), pytest.raises(RequestError) as refused:
        await service.retrieve(str(made["id"]))

    assert made == {"id": made["id"], "object": "conversation", "created_at": 1_700_000_000, "metadata": {"a": "1"}}
    assert refused.value.status == 404


class Fussy(MemoryConversationStore):
    """A store like a database: it cannot even look for some ids."""

    async def get(self, key: ConversationKey) -> ConversationRecord | None:
        return await super().get(looked_for(key))

    async def update(self, key: ConversationKey, metadata: Any) -> ConversationRecord | None:
        return await super().update(looked_for(key), metadata)

    async def delete(self, key: ConversationKey) -> bool:
        return await super().delete(looked_for(key))

    async def append(self, key: ConversationKey, items: Sequence[JsonObject]) -> None:
        await super().append(looked_for(key, *(str(item["id"]) for item in items)), items)

    async def item(self, key: ConversationKey, item_id: str) -> JsonObject | None:
        return await super().item(looked_for(key, item_id), item_id)

    async def remove(self, key: ConversationKey, item_id: str) -> bool:
        return await super().remove(looked_for(key, item_id), item_id)

    async def page(self, key: ConversationKey, query: ListQuery) -> tuple[Sequence[JsonObject], bool] | None:
        return await super().page(looked_for(key, query.after or "", query.before or ""), query)


def looked_for(key: ConversationKey, *ids: str) -> ConversationKey:
    for name in (key.conversation_id, *ids):
        assert "\x00" not in name
        assert len(name.encode("utf-8")) <= 1_024
    return key


@pytest.mark.behaviour("C6")
@pytest.mark.parametrize("bad", ["\x00", "msg_1\x00", "\ud800", "a" * 257, "\u2028", "\x7f"])
async def test_an_id_that_no_database_can_hold_does_not_reach_the_store(bad: str) -> None:
    store = Fussy()
    service = ConversationsService(store, store)
    made = str((await service.create({"items": [says("hi", id="msg_1")]}))["id"])
    statuses = []
    for call in (
        service.retrieve(bad),
        service.update(bad, {"metadata": {}}),
        service.delete(bad),
        service.create_items(bad, {"items": [says("hi")]}),
        service.items(bad, ListQuery()),
        service.item(bad, "msg_1"),
        service.delete_item(bad, "msg_1"),
        service.items(made, ListQuery(after=bad)),
        service.items(made, ListQuery(before=bad)),
        service.item(made, bad),
        service.delete_item(made, bad),
        service.create_items(made, {"items": [says("hi", id=bad)]}),
        service.create({"items": [says("hi", id=bad)]}),
    ):
        with pytest.raises(RequestError) as refused:
            await call
        statuses.append(refused.value.status)

    assert statuses == [404] * 11 + [400] * 2


async def test_a_conversation_that_is_deleted_while_its_items_are_listed_is_unknown() -> None:
    class Vanishing(MemoryConversationStore):
        async def page(self, key: ConversationKey, query: ListQuery) -> tuple[Sequence[JsonObject], bool] | None:
            await self.delete(key)
            return await super().page(key, query)

    store = Vanishing()
    service = ConversationsService(store, store)
    made = str((await service.create({}))["id"])

    with pytest.raises(RequestError, match=f"Conversation with id '{made}' not found"):
        await service.items(made, ListQuery())


async def test_an_item_that_was_in_the_way_and_is_gone_by_now_is_still_a_duplicate() -> None:
    class Vanishing(MemoryConversationStore):
        async def append(self, key: ConversationKey, items: Sequence[JsonObject]) -> None:
            try:
                await super().append(key, items)
            finally:
                await self.remove(key, "msg_1")

    store = Vanishing()
    service = ConversationsService(store, store)
    made = str((await service.create({"items": [says("hi", id="msg_1")]}))["id"])

    with pytest.raises(RequestError) as refused:
        await service.create_items(made, {"items": [says("again", id="msg_1")]})
    assert (refused.value.status, refused.value.param) == (400, "items")


# --- Hostile callers ---------------------------------------------------------------------------------------------

GOOD: list[Any] = [
    {"items": [says("q", id="msg_1"), {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}], "metadata": {"k": "v"}},
    {"items": [{"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "1"}]}]},
    {"items": [{"type": "local_shell_call_output", "id": "lsh_1", "output": "ok"}, {"type": "reasoning", "id": "rs_1", "summary": []}], "metadata": None},
]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 2**63, 10**400, "", "q", "\x00", "\ud800", "é" * 300, "../../x", "a" * 5_000, [], {}, [[]], [{}],
    {"": ""}, {"type": None}, {"type": "message"}, {"id": "x"}, {"role": "user"}, [None], {"type": ["x"]}, "msg_1", "item_reference",
    "mcp_approval_response", "local_shell_call_output", {"k": {}}, ["items"] * 25,
]  # fmt: skip


def places(node: Any) -> Any:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield node, key
        yield from places(value)


def mutated(body: Any, chance: random.Random) -> Any:
    copy = deepcopy(body)
    for _ in range(chance.choice((1, 1, 2, 3))):
        holder, key = chance.choice(list(places(copy)))
        if chance.random() < 0.2:
            del holder[key]
        elif chance.random() < 0.2 and isinstance(holder, dict):
            holder[chance.choice(["type", "id", "role", "call_id", "", "\ud800"])] = holder.pop(key)
        else:
            holder[key] = deepcopy(chance.choice(VALUES))
        if not copy:
            break
    return copy


@pytest.mark.behaviour("C6")
async def test_no_body_breaks_the_server(state: State) -> None:
    chance = random.Random(7)
    statuses: list[int] = []
    async with live.serve(host_of(state).app) as served, raw.connect(served.base_url) as connection:
        made = (await connection.request("POST", NEW, {})).json()["id"]
        for _ in range(1_500):
            path = chance.choice([NEW, f"{NEW}/{made}", f"{NEW}/{made}/items"])
            sent = json.dumps(mutated(chance.choice(GOOD), chance)).encode()
            answer = await connection.request("POST", path, sent)
            assert answer.status in {200, 400}, (path, sent, answer)
            if answer.status == 400:
                wire.check_error(answer.json())
            statuses.append(answer.status)
        listed = await connection.request("GET", f"{NEW}/{made}/items?limit=100")

    assert listed.status == 200
    # Otherwise the mutations are too wild, or too tame, to find anything.
    assert 0.05 < statuses.count(200) / len(statuses) < 0.95


@pytest.mark.behaviour("C6")
async def test_no_address_breaks_the_server(state: State) -> None:
    chance = random.Random(8)
    async with live.serve(host_of(state).app) as served, raw.connect(served.base_url) as connection:
        made = (await connection.request("POST", NEW, {"items": [says("q", id="msg_1")]})).json()["id"]
        pieces = [
            made, "conv_x", "items", "msg_1", "..", "%2e%2e%2f", "%00", "%ff", "%e2%80%a8", "a" * 3_000, "x%20y", "%ed%a0%80",
            "%F0%9F%98%80", "%", "%zz", ";a=b", "%0d%0aset-cookie:%20a=b",
        ]  # fmt: skip
        queries = [
            "limit=-1",
            "limit=9e9",
            "after=%00",
            "before=%ff",
            "after=",
            "order=ASC",
            "include[]=x",
            "after=msg_1",
            "=",
        ]
        for _ in range(800):
            path = "/".join([chance.choice(["", "/v1"]) + NEW, *chance.choices(pieces, k=chance.randrange(4))])
            query = "&".join(chance.choices(queries, k=chance.randrange(3)))
            method = chance.choice(["GET", "GET", "POST", "PUT", "PATCH", "OPTIONS"])
            answer = await connection.request(method, f"{path}?{query}" if query else path, b"")
            assert answer.status in {200, 400, 404, 405}, (method, path, query, answer)
            assert "set-cookie" not in answer.headers
            if answer.status >= 400:
                wire.check_error(answer.json())
        good = await connection.request("GET", f"{NEW}/{made}/items/msg_1")

    assert good.json()["id"] == "msg_1"
