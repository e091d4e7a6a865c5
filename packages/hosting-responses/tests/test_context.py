"""Contexts are linked lists that share what they have in common."""

from __future__ import annotations

import tracemalloc

from agent_framework_hosting.isolation import SHARED
from agent_framework_hosting.runs.base import RunId, RunKey, RunStatus
from agent_framework_hosting_responses.protocol.json import JsonObject
from agent_framework_hosting_responses.stores.base import ResponseRecord
from agent_framework_hosting_responses.stores.context import EMPTY, Context
from agent_framework_hosting_responses.stores.memory import MemoryResponseStore


def test_items_come_oldest_first_over_all_nodes() -> None:
    first = Context([{"id": "a"}, {"id": "b"}])
    second = Context([{"id": "c"}], parent=first)

    assert [item["id"] for item in second.all_items()] == ["a", "b", "c"]
    assert [node.items for node in second.nodes()] == [second.items, first.items]
    assert (EMPTY.length, first.length, second.length) == (0, 2, 3)


def test_a_node_without_items_is_not_made() -> None:
    context = Context([{"id": "a"}])

    assert context.extended([]) is context
    assert context.extended([{"id": "b"}]).parent is context


def test_approvals_and_call_ids_of_all_nodes_are_found() -> None:
    first = Context((), approvals={"mcpr_1": {"id": "mcpr_1"}}, call_ids={"call_1": "c"})
    second = Context((), parent=first, approvals={"mcpr_2": {"id": "mcpr_2"}})

    assert set(second.all_approvals()) == {"mcpr_1", "mcpr_2"}
    assert second.all_call_ids() == {"call_1": "c"}


async def test_memory_for_a_chain_grows_with_its_turns_and_not_with_their_square() -> None:
    store = MemoryResponseStore()

    async def grow(start: int, stop: int) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(start, stop):
            previous = RunKey(SHARED, RunId(f"r{number - 1}"))
            context = await store.context(previous)
            item: JsonObject = {"id": f"item{number}", "type": "message", "text": "x" * 200}
            record = ResponseRecord(
                key=RunKey(SHARED, RunId(f"r{number}")),
                status=RunStatus.COMPLETED,
                created_at=1,
                body=b"{}",
                previous_response_id=previous.run_id,
                input=(item,),
            )
            await store.create(record, context)
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        await grow(0, 50)
        early, late = await grow(50, 150), await grow(1_900, 2_000)
    finally:
        tracemalloc.stop()

    assert late < 1.5 * early


async def test_a_context_outlives_the_responses_it_came_from() -> None:
    store = MemoryResponseStore(max_entries=1)
    for number, previous in enumerate(["none", "r0", "r1"]):
        context = await store.context(RunKey(SHARED, RunId(previous)))
        record = ResponseRecord(
            key=RunKey(SHARED, RunId(f"r{number}")),
            status=RunStatus.COMPLETED,
            created_at=1,
            body=b"{}",
            input=({"id": f"item{number}"},),
        )
        await store.create(record, context)

    assert await store.get(RunKey(SHARED, RunId("r0"))) is None
    context = await store.context(RunKey(SHARED, RunId("r2")))
    assert context is not None
    assert [item["id"] for item in context.all_items()] == ["item0", "item1", "item2"]


async def test_a_chain_of_many_turns_can_be_forgotten() -> None:
    context: Context | None = None
    for number in range(200_000):
        context = Context([{"id": str(number)}], parent=context)

    del context  # freed node by node: recursion would end the process
