"""Servers that are killed, paused and started again at random, while clients have them tell stories in the background.

By default a few seeds are played, with leases of two seconds. `AFHOST_TEST_CHAOS=<seed>` plays another one, longer and with
the leases that the product has; `AFHOST_TEST_CHAOS=long` does so with several seeds.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Literal

import aftermath
import pytest
from chaos import perform
from chaos_play import Plan
from nursery import Nursery, nursery
from replicas import replicas
from states import State
from storyteller import Journal

ASKED = os.environ.get("AFHOST_TEST_CHAOS", "")
IS_LONG = ASKED != ""
SEEDS = [1] if not IS_LONG else [1, 2, 3] if ASKED == "long" else [int(ASKED)]

# One process has only itself to wait for.
SHORT = {
    "postgres": {"stories": 100, "clients": 20, "blows": 7, "lease": 1.5, "patience": 90.0},
    "sqlite": {"stories": 50, "clients": 8, "blows": 4, "lease": 1.0, "patience": 90.0},
}
LONG = {
    "postgres": {"stories": 400, "clients": 20, "blows": 16, "lease": 10.0, "patience": 300.0},
    "sqlite": {"stories": 400, "clients": 20, "blows": 16, "lease": 2.0, "patience": 300.0},
}

pytestmark = [pytest.mark.behaviour("D6", "D11"), pytest.mark.timeout(1200 if IS_LONG else 600)]


@pytest.fixture(scope="module")
def servers() -> Generator[Nursery, None, None]:
    """Where the servers come from."""
    with nursery() as made:
        yield made


@pytest.mark.parametrize("lost_runs", ["fail", "retry"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_befalls_the_servers_every_story_ends_once_and_whole_or_as_lost(
    servers: Nursery, durable_state: State, seed: int, lost_runs: Literal["fail", "retry"], tmp_path: Path
) -> None:
    plan = Plan(seed=seed, **(LONG if IS_LONG else SHORT)[durable_state.kind])  # type: ignore[arg-type]
    journal = Journal(tmp_path / "journal")
    count = 3 if durable_state.kind == "postgres" else 1
    order = {"target": "storyteller", "journal": tmp_path / "journal", "lost_runs": lost_runs, "is_quick": not IS_LONG}

    async with replicas(servers, count, lease=plan.lease, **order, **durable_state.options) as made:
        play = await perform(plan, made)
        found = await aftermath.find(play, journal)
        await aftermath.check_conversations(play, found)

    aftermath.check(play, found, lost_runs=lost_runs)
    print(plan, play.counts, aftermath.summary(found))
