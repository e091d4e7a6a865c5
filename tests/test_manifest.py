"""Every promised behaviour has a test, and every test names behaviours that exist."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

MANIFEST = tomllib.loads((Path(__file__).parent / "behaviours.toml").read_text(encoding="utf-8"))


def test_every_promised_behaviour_has_a_test(
    pytestconfig: pytest.Config, tests_of_behaviour: dict[str, list[str]]
) -> None:
    if pytestconfig.args_source is pytest.Config.ArgsSource.ARGS:
        pytest.skip("needs the whole suite: some files were chosen")
    promised = {behaviour for behaviour, entry in MANIFEST.items() if not entry.get("planned")}

    missing = promised - set(tests_of_behaviour)

    assert not missing, f"no test proves {sorted(missing)}"
