"""commands.py: how the commands on a database read and write ages; `test_db_cli.py` names databases with its flags."""

import argparse

import pytest

from agent_framework_hosting.commands import age, count, said


@pytest.mark.parametrize(
    ("text", "seconds"), [("3600", 3600), ("90s", 90), ("1.5m", 90), ("12h", 43_200), ("30d", 2_592_000)]
)
def test_an_age_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert age(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1w", "h"])
def test_anything_else_is_no_age(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no age"):
        age(text)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "many", "9" * 19])
def test_a_count_is_a_number_that_a_database_takes(text: str) -> None:
    assert count("0") == 0
    with pytest.raises(argparse.ArgumentTypeError, match="is no number of entries"):
        count(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.4, "0m 0s"),
        (61, "1m 1s"),
        (3_600 + 120, "1h 2m"),
        (86_400 * 29 + 3_600, "29d 1h"),
    ],
)
def test_an_age_is_written_in_its_two_largest_units(seconds: float | None, words: str) -> None:
    assert said(seconds) == words
