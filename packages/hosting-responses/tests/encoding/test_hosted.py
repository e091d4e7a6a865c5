"""The common life of hosted items."""

from __future__ import annotations

from typing import Any

from agent_framework_hosting_responses.protocol.events import EventWriter
from agent_framework_hosting_responses.protocol.items.hosted import HostedItem, HostedItems
from agent_framework_hosting_responses.protocol.items.output import Output


class Progressing(HostedItem):
    opening = ("in_progress",)


def items() -> tuple[HostedItems, Output]:
    numbers = iter(range(1, 99))
    output = Output(EventWriter(), lambda prefix: f"{prefix}_{next(numbers)}")
    return HostedItems(output, include=frozenset()), output


def item(status: str = "in_progress", **fields: Any) -> dict[str, Any]:
    return {"type": "program", "status": status, **fields}


def test_an_item_opens_once_and_ends_once() -> None:
    hosted, output = items()

    opened = hosted.open("c1", item(), Progressing)
    assert hosted.open("c1", item(), Progressing) is opened
    hosted.end("c1", item("completed"), Progressing)
    hosted.end("c1", item("completed"), Progressing)

    kinds = [event.kind.removeprefix("response.") for event in output.writer.take()]
    assert kinds == ["output_item.added", "program.in_progress", "output_item.done"]
    assert output.items == [{"type": "program", "status": "completed", "id": "prog_1"}]


def test_an_item_that_is_over_ends_at_once() -> None:
    hosted, output = items()

    hosted.open("c1", item("failed"), HostedItem)

    assert hosted.get("program", "c1") is None
    assert [entry["status"] for entry in output.items] == ["failed"]


def test_the_providers_finished_item_does_not_open_again() -> None:
    hosted, output = items()
    hosted.end("c1", item("completed", id="x"), HostedItem)

    assert hosted.open("c1", item(id="x"), HostedItem) is None
    assert len(output) == 1


def test_a_reused_call_id_of_an_item_without_an_id_opens_another() -> None:
    hosted, output = items()
    hosted.end("c1", item("completed"), HostedItem)

    assert hosted.open("c1", item(), HostedItem) is not None
    assert len(output) == 2


def test_items_without_call_ids_do_not_hide_each_other() -> None:
    hosted, output = items()

    for _ in range(2):
        hosted.open(None, item(), HostedItem)
        hosted.end(None, item("completed"), HostedItem)

    assert len(output.items) == 2


def test_what_is_open_at_the_end_is_cut_off() -> None:
    hosted, output = items()
    hosted.open("c1", item(), HostedItem)
    hosted.open("c2", {"type": "compaction"}, HostedItem)

    hosted.close()

    assert [entry.get("status") for entry in output.items] == ["incomplete", None]
