"""Whose call: with contents as they come, and with the framework's real function loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from agent_framework import (
    Agent,
    AgentResponseUpdate,
    BaseChatClient,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    FunctionTool,
    Message,
    ResponseStream,
    tool,
)

from agent_framework_hosting_responses.protocol.calls import Calls, Owner
from agent_framework_hosting_responses.protocol.memo import AskedApproval

CLIENT = frozenset({"client"})


def call(call_id: str, name: str = "client", arguments: Any = None, **fields: Any) -> AgentResponseUpdate:
    content = Content.from_function_call(call_id, name, arguments=arguments, **fields)
    return AgentResponseUpdate(contents=[content], role="assistant")


def result(call_id: str, value: Any = "ok", **fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=[Content.from_function_result(call_id, result=value, **fields)], role="tool")


def paused(update: AgentResponseUpdate) -> AgentResponseUpdate:
    update.contents[0].user_input_request = True
    return update


def shown(encoded: Any) -> list[tuple[str, str]]:
    return [(item["call_id"], item["arguments"]) for item in encoded.output if item["type"] == "function_call"]


@pytest.mark.behaviour("B3")
def test_argument_chunks_of_parallel_calls_become_one_item_each(encode: Any) -> None:
    encoded = encode(
        call("c1", arguments='{"a"'),
        call("c2", arguments='{"b"'),
        call("c1", arguments=":1}"),
        call("c2", arguments=":2}"),
        client_tools=CLIENT,
    )

    assert shown(encoded) == [("c1", '{"a":1}'), ("c2", '{"b":2}')]
    assert encoded.kinds.count("function_call_arguments.done") == 2
    assert encoded.deltas("function_call_arguments") == ['{"a"', '{"b"', ":1}", ":2}"]


@pytest.mark.behaviour("B3")
def test_chunks_that_carry_neither_id_nor_name_find_their_call_by_index(encode: Any) -> None:
    def chunk(index: int, call_id: str, name: str, arguments: str) -> AgentResponseUpdate:
        return call(call_id, name, arguments, additional_properties={"openai": {"tool_call_index": index}})

    encoded = encode(
        chunk(0, "c1", "client", ""),
        chunk(1, "c2", "client", ""),
        chunk(0, "", "", '{"a":1}'),
        chunk(1, "", "", '{"b":2}'),
        client_tools=CLIENT,
    )

    assert shown(encoded) == [("c1", '{"a":1}'), ("c2", '{"b":2}')]


@pytest.mark.behaviour("B3")
def test_a_chunk_without_any_key_goes_on_with_the_last_call(encode: Any) -> None:
    encoded = encode(call("c1", arguments="{"), call("", "", "}"), client_tools=CLIENT)

    assert shown(encoded) == [("c1", "{}")]


def test_a_nameless_chunk_of_no_call_is_nothing(encode: Any) -> None:
    assert encode(call("", "", "{}")).output == []


def test_calls_without_ids_get_one_each(encode: Any) -> None:
    encoded = encode(call("", arguments="{}"), call("", arguments="{}"), client_tools=CLIENT)

    assert [arguments for _, arguments in shown(encoded)] == ["{}", "{}"]


@pytest.mark.behaviour("B3")
def test_the_whole_arguments_at_the_end_do_not_double_the_chunks(encode: Any) -> None:
    encoded = encode(
        call("c1", arguments='{"a"'),
        call("c1", arguments=":1}"),
        call("c1", arguments='{"a":1}', merge_mode="replace"),
        client_tools=CLIENT,
    )

    assert shown(encoded) == [("c1", '{"a":1}')]


def test_a_pause_for_the_client_repeats_no_call(encode: Any) -> None:
    encoded = encode(
        call("c1", arguments='{"a":1}'),
        result("c0"),
        paused(call("c1", id="af-1")),
        client_tools=CLIENT,
    )

    assert shown(encoded) == [("c1", '{"a":1}')]


def test_a_pause_makes_an_undecided_call_the_clients(encode: Any, say: Any) -> None:
    encoded = encode(call("c1", "other", "{}"), paused(call("c1", "other")), say("text"))

    assert [item["type"] for item in encoded.output] == ["function_call", "message"]


def test_a_call_that_gets_a_result_is_the_servers_and_hidden(encode: Any, say: Any) -> None:
    encoded = encode(call("c1", "server", "{}"), result("c1", "secret result"), say("done"))

    assert [item["type"] for item in encoded.output] == ["message"]
    assert "secret result" not in str(encoded.events)


def test_a_call_that_nothing_follows_is_the_clients_after_all(encode: Any, say: Any) -> None:
    encoded = encode(say("look"), call("c1", "other", '{"a":1}'))

    assert shown(encoded) == [("c1", '{"a":1}')]
    assert encoded.kinds[-2:] == ["output_item.done", "completed"]


def test_a_call_of_a_tool_that_the_agent_runs_stays_hidden_without_a_result(encode: Any) -> None:
    encoded = encode(
        call("c1", "server", "{}"),
        call("c2", arguments="{}"),
        client_tools=CLIENT,
        server_tools=frozenset({"server"}),
    )

    assert shown(encoded) == [("c2", "{}")]


@pytest.mark.behaviour("B15")
def test_text_does_not_wait_for_an_undecided_call(encode: Any, say: Any) -> None:
    encoded = encode(call("c1", "other", "{}"), say("text"), result("c1"), say(" more"))

    assert encoded.kinds[2:6] == ["output_item.added", "content_part.added", "output_text.delta", "output_text.done"]


def test_a_call_that_tool_choice_does_not_allow_is_not_emitted(encode: Any) -> None:
    encoded = encode(
        call("c1", arguments="{}"),
        call("c2", "second", "{}"),
        client_tools=frozenset({"client", "second"}),
        allowed_tools=frozenset({"second"}),
    )

    assert shown(encoded) == [("c2", "{}")]


@pytest.mark.parametrize("fields", [{"informational_only": True}, {"hosted": True}])
def test_a_call_that_the_provider_runs_is_the_servers(fields: dict[str, bool], encode: Any) -> None:
    assert encode(call("c1", "other", "{}", **fields)).output == []


def test_two_calls_never_share_a_call_id(encode: Any) -> None:
    encoded = encode(
        call("c1", arguments={"a": 1}),
        call("c1", arguments={"a": 2}),
        client_tools=CLIENT,
    )

    assert shown(encoded) == [("c1", '{"a":1}'), ("call_1", '{"a":2}')]
    assert encoded.encoder.minted_call_ids == {"call_1": "c1"}


def test_an_echo_of_a_call_is_not_a_second_call(encode: Any) -> None:
    encoded = encode(call("c1", arguments={"a": 1}), call("c1", arguments={"a": 1}), client_tools=CLIENT)

    assert shown(encoded) == [("c1", '{"a":1}')]


def test_a_call_id_that_is_used_again_after_its_result_is_a_new_call(encode: Any) -> None:
    encoded = encode(
        call("c1", "server", "{}"),
        result("c1", "first"),
        call("c1", "server", "{}"),
        result("c1", "second"),
        server_calls="function_call",
    )

    outputs = [item["output"] for item in encoded.output if item["type"] == "function_call_output"]
    assert outputs == ["first", "second"]
    assert [call_id for call_id, _ in shown(encoded)] == ["c1", "call_1"]


def test_another_occurrence_with_the_same_call_id_is_a_new_call(encode: Any) -> None:
    encoded = encode(call("c1", arguments="{}", id="af-1"), call("c1", arguments="{}", id="af-2"), client_tools=CLIENT)

    assert [call_id for call_id, _ in shown(encoded)] == ["c1", "call_1"]


@pytest.mark.behaviour("B7")
def test_a_call_cut_off_by_the_limit_is_incomplete(encode: Any, send: Any) -> None:
    encoded = encode(call("c1", arguments='{"a'), send(finish_reason="length"), client_tools=CLIENT)

    assert encoded.output[0]["status"] == "incomplete"
    assert encoded.output[0]["arguments"] == '{"a'


@pytest.mark.behaviour("B8")
@pytest.mark.parametrize("ending", ["fail", "cancel"])
def test_a_dead_response_asks_nobody_to_run_a_tool(ending: str, encode: Any) -> None:
    assert encode(call("c1", "other", "{}"), ending=ending).output == []


def test_a_late_second_result_changes_nothing(encode: Any) -> None:
    encoded = encode(call("c1", "server", "{}"), result("c1"), result("c1"), server_calls="function_call")

    assert [item["type"] for item in encoded.output] == ["function_call", "function_call_output"]


def test_a_result_of_an_earlier_response_is_hidden(encode: Any) -> None:
    assert encode(result("c9"), server_calls="function_call").output == []


def test_contradicting_arguments_do_not_undo_what_was_sent(encode: Any) -> None:
    encoded = encode(
        call("c1", arguments='{"a":1'), call("c1", arguments='{"b":2}', merge_mode="replace"), client_tools=CLIENT
    )

    assert shown(encoded) == [("c1", '{"a":1')]


def test_contradicting_arguments_replace_what_was_not_sent(encode: Any) -> None:
    encoded = encode(call("c1", "other", '{"a":1'), call("c1", "other", '{"b":2}', merge_mode="replace"))

    assert shown(encoded) == [("c1", '{"b":2}')]


def outputs(encoded: Any) -> list[tuple[str, str]]:
    return [(item["call_id"], item["output"]) for item in encoded.output if item["type"] == "function_call_output"]


@pytest.mark.parametrize("call_id", ["", "server"])
def test_calls_that_cannot_be_told_apart_get_their_results_in_order(call_id: str, encode: Any, say: Any) -> None:
    encoded = encode(
        call(call_id, "server", {"a": 1}),
        call(call_id, "server", {"a": 2}),
        result(call_id, "first"),
        result(call_id, "second"),
        say("done"),
        server_calls="function_call",
    )

    assert [arguments for _, arguments in shown(encoded)] == ['{"a":1}', '{"a":2}']
    assert outputs(encoded) == [
        (wire_id, text) for (wire_id, _), text in zip(shown(encoded), ("first", "second"), strict=True)
    ]


def test_calls_that_cannot_be_told_apart_stay_hidden_once_they_have_their_results(encode: Any, say: Any) -> None:
    encoded = encode(call("", "server", {"a": 1}), call("", "server", {"a": 2}), result(""), result(""), say("done"))

    assert [item["type"] for item in encoded.output] == ["message"]


def test_two_undecided_calls_with_one_id_are_two_calls_of_the_client(encode: Any) -> None:
    encoded = encode(call("other", "other", {"a": 1}), call("other", "other", {"a": 2}))

    assert shown(encoded) == [("other", '{"a":1}'), ("call_1", '{"a":2}')]


def test_an_approval_request_without_a_call_id_takes_over_its_call(encode: Any, send: Any) -> None:
    asked = Content.from_function_call("", "server", arguments={"a": 1})
    encoded = encode(call("", "server", {"a": 1}), send(Content.from_function_approval_request("r1", asked)))

    assert [item["type"] for item in encoded.output] == ["mcp_approval_request"]


def test_a_call_without_a_call_id_has_the_id_under_which_the_framework_expects_its_output(encode: Any) -> None:
    encoded = encode(
        call("", arguments='{"a":', id="af-call-1"),
        call("", "", "1}", id="af-call-1"),
        paused(call("af-call-1", id="af-call-1")),
        client_tools=CLIENT,
    )

    assert shown(encoded) == [("af-call-1", '{"a":1}')]
    assert encoded.encoder.minted_call_ids == {}


def test_a_made_up_call_id_stands_for_no_other_when_the_agent_has_none(encode: Any) -> None:
    encoded = encode(call("", arguments="{}"), client_tools=CLIENT)

    assert shown(encoded) == [("call_1", "{}")]
    assert encoded.encoder.minted_call_ids == {}


def test_a_call_id_that_no_request_could_send_back_is_replaced(encode: Any) -> None:
    long = "call_1__thought__" + "x" * 4096
    encoded = encode(call(long, arguments="{}"), client_tools=CLIENT)

    assert shown(encoded) == [("call_1", "{}")]
    assert encoded.encoder.minted_call_ids == {"call_1": long}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"a": float("nan"), "b": [float("inf")]}, '{"a":null,"b":[null]}'),
        ({(1, 2): {"é": None}}, '{"(1, 2)":{"é":null}}'),
        ({"a": {1}, "b": (1,)}, '{"a":"{1}","b":[1]}'),
    ],
)
def test_arguments_that_json_cannot_express_are_json_all_the_same(arguments: Any, text: str, encode: Any) -> None:
    assert shown(encode(call("c1", arguments=arguments), client_tools=CLIENT)) == [("c1", text)]


def test_a_call_id_of_the_context_is_not_used_again(encode: Any) -> None:
    encoded = encode(
        call("call_0", arguments="{}"),
        call("call_9", arguments="{}"),
        client_tools=CLIENT,
        taken_ids=frozenset({"call_0"}),
    )

    assert [call_id for call_id, _ in shown(encoded)] == ["call_1", "call_9"]
    assert encoded.encoder.minted_call_ids == {"call_1": "call_0"}


@pytest.mark.behaviour("B3")
def test_chunks_that_repeat_the_name_of_their_call_are_one_call(encode: Any) -> None:
    chunks = ('{"a":{"b":1}', ',"c":"}', '"}')
    encoded = encode(*(call("", arguments=chunk) for chunk in chunks), client_tools=CLIENT)

    assert [arguments for _, arguments in shown(encoded)] == ['{"a":{"b":1},"c":"}"}']


def test_a_call_id_is_claimed_once() -> None:
    calls = Calls(owner_of=lambda _name: Owner.CLIENT, mint=lambda: "call_new")

    assert calls.claim_call_id("c1") == "c1"
    assert calls.claim_call_id("c1") == "call_new"


# --- the framework's own loop


class Scripted(FunctionInvocationLayer[Any], BaseChatClient[Any]):
    """A model that plays its turns; the framework's function loop around it is the real one."""

    def __init__(self, *turns: Sequence[ChatResponseUpdate]) -> None:
        super().__init__()
        self.turns = list(turns)

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Any:
        turn = self.turns.pop(0)

        async def updates() -> AsyncIterator[ChatResponseUpdate]:
            for update in turn:
                yield update

        return ResponseStream(updates(), finalizer=ChatResponse.from_updates)


def said(*contents: Content, **fields: Any) -> ChatResponseUpdate:
    return ChatResponseUpdate(contents=contents, role="assistant", **fields)


CLIENT_TOOL = FunctionTool(
    name="client", description="d", input_model={"type": "object", "properties": {"y": {"type": "integer"}}}
)


@tool
def server(x: int) -> str:
    """Run on the server."""
    return f"result {x}"


@tool(approval_mode="always_require")
def dangerous(x: int) -> str:
    """Run on the server, after approval."""
    return f"result {x}"


async def collect(client: Scripted, *tools: Any) -> list[AgentResponseUpdate]:
    agent = Agent(client, tools=list(tools))
    return [update async for update in agent.run("go", stream=True)]


@pytest.mark.behaviour("B3", "C1")
async def test_a_real_run_with_both_kinds_of_tools_shows_the_clients_call_only(encode: Any) -> None:
    first = [
        said(Content.from_text("hi ")),
        said(Content.from_function_call("c1", "server", arguments='{"x"')),
        said(Content.from_function_call("c2", "client", arguments='{"y"')),
        said(Content.from_function_call("c1", "server", arguments=":1}")),
        said(Content.from_function_call("c2", "client", arguments=":1}"), finish_reason="tool_calls"),
    ]
    updates = await collect(Scripted(first), server, CLIENT_TOOL)

    encoded = encode(*updates, client_tools=CLIENT)

    assert [item["type"] for item in encoded.output] == ["message", "function_call"]
    assert shown(encoded) == [("c2", '{"y":1}')]


@pytest.mark.behaviour("B2", "C1")
async def test_a_real_run_over_two_model_calls_is_two_messages_and_one_sum(encode: Any) -> None:
    usage = {"input_token_count": 10, "output_token_count": 1}
    first = [
        said(Content.from_text("let me look")),
        said(Content.from_function_call("c1", "server", arguments='{"x":1}')),
        said(Content.from_usage(usage)),  # type: ignore[arg-type]
    ]
    second = [said(Content.from_text("done")), said(Content.from_usage(usage))]  # type: ignore[arg-type]
    updates = await collect(Scripted(first, second), server)

    encoded = encode(*updates)

    assert [item["content"][0]["text"] for item in encoded.output] == ["let me look", "done"]
    assert encoded.response["usage"]["input_tokens"] == 20
    assert encoded.response["usage"]["total_tokens"] == 22


@pytest.mark.behaviour("B4")
async def test_a_real_run_that_needs_approval_asks_for_it_once(encode: Any) -> None:
    first = [said(Content.from_function_call("c1", "dangerous", arguments='{"x":1}'))]
    updates = await collect(Scripted(first), dangerous)

    encoded = encode(*updates, server_label="my-agent")

    (request,) = encoded.output
    assert request == {
        "id": "mcpr_1",
        "type": "mcp_approval_request",
        "server_label": "my-agent",
        "name": "dangerous",
        "arguments": '{"x":1}',
    }
    asked = [content for update in updates for content in update.contents if content.type.startswith("function_app")]
    assert encoded.encoder.approvals == {"mcpr_1": AskedApproval(request_id=str(asked[0].id), call_id="c1")}


def test_a_reserved_call_id_is_not_used() -> None:
    calls = Calls(owner_of=lambda _: Owner.CLIENT, mint=lambda: "call_new")

    calls.reserve(["c1"])

    assert calls.claim_call_id("c1") == "call_new"
    assert calls.minted == {"call_new": "c1"}
