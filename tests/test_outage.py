"""A database that goes away and comes back, in the middle of every kind of run: a real process, a real server."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import wire
from commands import PATIENCE, Commands, Held, accept, asked, ended, replayed, streamed, texts, whole
from postgres import PostgresServer
from states import State

pytestmark = pytest.mark.timeout(300)


def test_a_run_survives_an_outage_unless_it_ends_in_it_and_nothing_new_is_begun(
    commands: Commands, postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    held = Held(commands, tmp_path, State("postgres", {"database_url": postgres_url}))
    with held.start("serve") as server, server.client as client, ThreadPoolExecutor(8) as callers:
        streams: dict[str, Future[list[dict[str, Any]]]] = {
            name: callers.submit(streamed, server, name) for name in ("stream-before", "stream-within")
        }
        one_shots: dict[str, Future[httpx2.Response]] = {
            name: callers.submit(asked, server, name) for name in ("one-shot-before", "one-shot-within")
        }
        accepted = {name: accept(client, name)["id"] for name in ("before", "within")}
        held.until_begun(*streams, *one_shots, *accepted)

        with postgres.outage(postgres_url):
            refusals = [asked(server, "late", **options) for options in ({"background": True}, {"stream": True})]
            refusals.append(client.get(f"/v1/responses/{accepted['before']}"))
            probes = [client.get(path).status_code for path in ("/readiness", "/liveness")]
            held.release("stream-within", "one-shot-within", "within")
            cut = streams["stream-within"].result(PATIENCE)
            failed = one_shots["one-shot-within"].result(PATIENCE)
        held.release("stream-before", "one-shot-before", "before")
        told = streams["stream-before"].result(PATIENCE)
        answer = one_shots["one-shot-before"].result(PATIENCE)
        responses = {name: ended(client, response_id) for name, response_id in accepted.items()}
        logs = {name: replayed(client, response_id) for name, response_id in accepted.items()}
        lost = ended(client, cut[0]["response"]["id"])

    for refusal in refusals:
        assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "1")
        wire.check_error(refusal.json())
    assert held.beginners("late") == []
    assert probes == [200, 200]
    # What began before and ends after it is whole.
    wire.check_stream(told)
    assert [texts(response) for response in (told[-1]["response"], answer.json(), responses["before"])] == [
        [whole(name)] for name in ("stream-before", "one-shot-before", "before")
    ]
    # An end that cannot be stored is not told.
    assert cut[-1]["type"] not in {"response.completed", "response.failed"}
    assert (failed.status_code, failed.headers["x-should-retry"]) == (500, "false")
    assert [lost["status"], responses["within"]["status"]] == ["failed", "failed"]
    for name, log in logs.items():
        wire.check_stream(log)
        assert log[-1]["response"] == responses[name]
    assert len(held.beginners("within")) == 1
