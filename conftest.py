"""Ties tests to the behaviours they prove: `@pytest.mark.behaviour("A1")`; `tests/test_manifest.py` checks both directions."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
MANIFEST: dict[str, dict[str, object]] = tomllib.loads((ROOT / "tests" / "behaviours.toml").read_text(encoding="utf-8"))
TESTS_OF_BEHAVIOUR = pytest.StashKey[dict[str, list[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "behaviour(*ids): the behaviours of tests/behaviours.toml that the test proves")
    config.stash[TESTS_OF_BEHAVIOUR] = {}


def pytest_itemcollected(item: pytest.Item) -> None:
    proven = item.config.stash[TESTS_OF_BEHAVIOUR]
    for marker in item.iter_markers("behaviour"):
        for behaviour in marker.args:
            if behaviour not in MANIFEST:
                raise pytest.UsageError(f"{item.nodeid} names an unknown behaviour {behaviour!r}.")
            proven.setdefault(behaviour, []).append(item.nodeid)


@pytest.fixture(scope="session")
def tests_of_behaviour(pytestconfig: pytest.Config) -> dict[str, list[str]]:
    """Behaviour id → the tests collected for it."""
    return pytestconfig.stash[TESTS_OF_BEHAVIOUR]
