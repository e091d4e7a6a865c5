"""How items that a lost attempt left open are closed: kind by kind, and cut at every place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import wire
from agent_framework import AgentResponseUpdate, Content

PNG = "data:image/png;base64,iVBORw0KGgo="
OPTIONS: dict[str, Any] = {
    "client_tools": frozenset({"client"}),
    "custom_tools": frozenset({"custom"}),
    "server_calls": "function_call",
    "include": frozenset({"reasoning.encrypted_content", "code_interpreter_call.outputs"}),
}


def update(*contents: Content, **fields: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=contents, **{"role": "assistant", **fields})


def text(value: str, **fields: Any) -> AgentResponseUpdate:
    return update(Content.from_text(value, **fields))


def raw(step: str, **item: Any) -> AgentResponseUpdate:
    return update(raw_representation={"type": f"response.output_item.{step}", "item": item})


CITATION: Any = [{"type": "citation", "url": "https://a.b", "title": "t"}]
REFUSAL: Any = {"core": {"model_output_kind": "refusal"}}
EVERYTHING = [
    text("one ", additional_properties={"phase": "commentary"}),
    text("two", annotations=CITATION),
    text("no", additional_properties=REFUSAL),
    update(Content.from_text_reasoning(text="because")),
    update(Content.from_text_reasoning(text="raw", additional_properties={"reasoning_text": True})),
    update(Content.from_text_reasoning(text="of", protected_data="sealed")),
    update(Content.from_function_call("c1", "client", arguments='{"a"')),
    update(Content.from_function_call("c1", "client", arguments=":1}")),
    update(Content.from_function_call("c2", "server", arguments="{}")),
    update(Content.from_function_result("c2", result="sunny"), role="tool"),
    raw("added", type="mcp_list_tools", id="mcpl_up", server_label="s", tools=[]),
    raw("done", type="mcp_list_tools", id="mcpl_up", server_label="s", tools=[]),
    update(Content.from_mcp_server_tool_call("m1", "tool", arguments='{"b":2}')),
    update(Content.from_mcp_server_tool_result("m1", output="fine")),
    update(Content.from_search_tool_call("w1", tool_name="web_search", arguments='{"query":"q"}')),
    update(Content.from_search_tool_result("w1", tool_name="web_search", result=None)),
    update(Content.from_search_tool_call("f1", tool_name="file_search", arguments='{"query":"q"}')),
    update(Content.from_search_tool_result("f1", tool_name="file_search", result=None)),
    update(Content.from_code_interpreter_tool_call(call_id="i1", inputs=[Content.from_text("print(")])),
    update(Content.from_code_interpreter_tool_call(call_id="i1", inputs=[Content.from_text("1)")])),
    update(Content.from_code_interpreter_tool_result(call_id="i1", outputs=[Content.from_text("1")])),
    update(Content.from_image_generation_tool_call(image_id="g1")),
    update(
        Content.from_image_generation_tool_result(
            image_id="g1",
            outputs=Content.from_uri(PNG, additional_properties={"is_partial_image": True, "partial_image_index": 0}),
        )
    ),
    update(Content.from_image_generation_tool_result(image_id="g1", outputs=Content.from_uri(PNG))),
    update(Content.from_shell_tool_call(call_id="s1", commands=["ls", ""])),
    update(
        Content.from_shell_tool_result(
            call_id="s1",
            outputs=[
                Content.from_shell_command_output(stdout="a", stderr="b", exit_code=0),
                Content.from_shell_command_output(stdout="c", exit_code=1),
            ],
        )
    ),
    update(Content("computer_tool_call", call_id="p1", actions=[{"type": "wait"}])),
    update(Content.from_function_approval_request("a1", Content.from_function_call("c3", "other", arguments="{}"))),
    update(Content.from_function_call("c4", "custom", arguments="free ")),
    update(Content.from_function_call("c4", "custom", arguments="text")),
    raw("done", type="compaction", id="cmp_up", encrypted_content="x"),
    text("last"),
]


@pytest.mark.behaviour("B1", "B5", "B8")
@pytest.mark.parametrize("ending", ["fail", "cancel", "complete"])
def test_a_run_of_everything_that_was_cut_anywhere_goes_on(ending: str, encode: Any, body: Any) -> None:
    settings = {**OPTIONS, "body": {**body(background=True), "prompt_cache_retention": None}}
    updates = [] if ending != "complete" else [text("again"), *EVERYTHING[6:8]]
    whole = encode(*EVERYTHING, **settings)

    for cut in range(len(whole.entries)):
        resumed = encode(*updates, after=whole.entries[:cut], ending=ending, **settings)

        told = whole.events[:cut]
        assert resumed.events[:cut] == told
        items = [event["item"]["id"] for event in told if event["type"] == "response.output_item.added"]
        wire.check_stream(resumed.events, earlier_items=len(items))
        if resumed.response["status"] == "completed":
            assert {item["id"] for item in resumed.output}.isdisjoint(items)
        else:
            assert [item["id"] for item in resumed.output[: len(items)]] == items
            finished = [event["item"] for event in told if event["type"] == "response.output_item.done"]
            assert all(item in resumed.output for item in finished)


def cut_after(kind: str, updates: Sequence[AgentResponseUpdate], encode: Any) -> Any:
    """Lose the run of `updates` after its last event of `kind`, and end it as failed."""
    whole = encode(*updates, **OPTIONS)
    cut = len(whole.kinds) - whole.kinds[::-1].index(kind)
    resumed = encode(after=whole.entries[:cut], ending="fail")
    resumed.events = resumed.events[cut:]
    return resumed


CASES: list[tuple[list[AgentResponseUpdate], str, list[str], dict[str, Any]]] = [
    ([text("a")], "output_item.added", [], {"status": "incomplete", "content": []}),
    (
        [text("a"), text("b", annotations=CITATION)],
        "output_text.annotation.added",
        ["output_text.done", "content_part.done"],
        {
            "status": "incomplete",
            "content": [
                {
                    "type": "output_text",
                    "text": "ab",
                    "annotations": [
                        {"type": "url_citation", "url": "https://a.b", "title": "t", "start_index": 0, "end_index": 0}
                    ],
                    "logprobs": [],
                }
            ],
        },
    ),
    (
        [text("a"), text("no", additional_properties=REFUSAL)],
        "refusal.done",
        ["content_part.done"],
        {
            "content": [
                {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "no"},
            ]
        },
    ),
    (EVERYTHING[3:4], "reasoning_summary_part.added", ["reasoning_summary_text.done", "reasoning_summary_part.done"], {
        "summary": [{"type": "summary_text", "text": ""}]
    }),
    (EVERYTHING[4:5], "reasoning_text.delta", ["reasoning_text.done", "content_part.done"], {
        "summary": [], "content": [{"type": "reasoning_text", "text": "raw"}]
    }),
    (EVERYTHING[6:7], "function_call_arguments.delta", ["function_call_arguments.done"], {
        "status": "incomplete", "arguments": '{"a"'
    }),
    (EVERYTHING[6:8], "output_item.added", ["function_call_arguments.done"], {"status": "incomplete", "arguments": ""}),
    (EVERYTHING[6:8], "function_call_arguments.done", [], {"status": "incomplete", "arguments": '{"a":1}'}),
    (EVERYTHING[28:29], "custom_tool_call_input.delta", ["custom_tool_call_input.done"], {"input": "free "}),
    (EVERYTHING[10:12], "mcp_list_tools.in_progress", [], {"tools": []}),
    (EVERYTHING[12:14], "mcp_call.in_progress", ["mcp_call_arguments.done"], {
        "status": "incomplete", "arguments": "", "output": None, "error": None
    }),
    (EVERYTHING[12:14], "mcp_call.completed", [], {"status": "incomplete", "arguments": '{"b":2}', "output": None}),
    (EVERYTHING[14:16], "web_search_call.searching", [], {
        "status": "incomplete", "action": {"type": "search", "query": ""}
    }),
    (EVERYTHING[16:18], "file_search_call.completed", [], {"status": "incomplete", "queries": [], "results": None}),
    (EVERYTHING[18:21], "code_interpreter_call_code.delta", ["code_interpreter_call_code.done"], {
        "status": "incomplete", "code": "print(1)", "outputs": []
    }),
    (EVERYTHING[21:24], "image_generation_call.partial_image", [], {"status": "failed", "result": None}),
    (EVERYTHING[24:25], "shell_call_command.added", ["shell_call_command.done"], {
        "status": "incomplete", "action": {"commands": ["ls", ""], "timeout_ms": None, "max_output_length": None}
    }),
    (EVERYTHING[24:26], "shell_call_output_content.delta", ["shell_call_output_content.done"], {
        "status": "incomplete",
        "output": [
            {"stdout": "a", "stderr": "b", "outcome": {"type": "exit", "exit_code": 0}},
            {"stdout": "c", "stderr": "", "outcome": {"type": "timeout"}},
        ],
    }),
    (EVERYTHING[26:27], "output_item.added", [], {"status": "completed", "actions": [{"type": "wait"}]}),
    (EVERYTHING[27:28], "output_item.added", [], {"name": "other", "arguments": "{}"}),
    ([raw("done", type="compaction", id="cmp_up", encrypted_content="x")], "output_item.added", [], {
        "encrypted_content": "x"
    }),
]  # fmt: skip


@pytest.mark.behaviour("B8")
@pytest.mark.parametrize(
    ("updates", "last", "closing", "item"), CASES, ids=[f"{n} {case[1]}" for n, case in enumerate(CASES)]
)
def test_an_open_item_is_closed_with_what_was_told_of_it(
    updates: list[AgentResponseUpdate], last: str, closing: list[str], item: dict[str, Any], encode: Any
) -> None:
    resumed = cut_after(last, updates, encode)

    assert resumed.kinds == [*closing, "output_item.done", "failed"]
    closed = resumed.output[-1]
    assert {name: closed.get(name) for name in item} == item
    assert ("status" in closed) == ("status" in item or closed["type"] == "message")


def test_several_open_items_are_closed_in_the_order_of_their_indexes(encode: Any) -> None:
    opened = [text("half"), EVERYTHING[6], EVERYTHING[12], EVERYTHING[14]]
    whole = encode(*opened, **OPTIONS)
    cut = len(whole.kinds) - whole.kinds[::-1].index("web_search_call.searching")

    resumed = encode(after=whole.entries[:cut], ending="cancel")

    done = [event["output_index"] for event in resumed.events if event["type"] == "response.output_item.done"]
    assert done == [0, 1, 2, 3]
    assert [item["status"] for item in resumed.output] == ["incomplete"] * 4
