"""The option `state_dir`, and the directories it makes."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from agent_framework_hosting import ConfigurationError
from agent_framework_hosting.directories import StateDirectories, make_directory, read_directories


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_no_option_means_no_directories() -> None:
    assert read_directories(None) == StateDirectories()


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_holds_sessions_and_checkpoints(kind: Any, tmp_path: Path) -> None:
    found = read_directories(kind(tmp_path / "state"))

    assert found == StateDirectories(
        sessions=tmp_path / "state" / "sessions", checkpoints=tmp_path / "state" / "checkpoints"
    )
    assert not (tmp_path / "state").exists()


def test_each_part_may_have_a_directory_of_its_own(tmp_path: Path) -> None:
    assert read_directories({"sessions": tmp_path / "a"}) == StateDirectories(sessions=tmp_path / "a")
    assert read_directories({"checkpoints": str(tmp_path / "b")}) == StateDirectories(checkpoints=tmp_path / "b")
    assert read_directories({}) == StateDirectories()


def test_a_relative_path_stays_where_it_was_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert read_directories("state").sessions == tmp_path / "state" / "sessions"


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert read_directories("~/state").sessions == tmp_path / "state" / "sessions"


@pytest.mark.parametrize(
    ("state_dir", "message"),
    [
        ({"session": "x"}, "has the key 'session'; known are checkpoints, sessions"),
        ({3: "x"}, "has the key '3'"),
        ({"sessions": ""}, "sessions'] must be the path of a directory"),
        ({"sessions": None}, "sessions'] must be the path of a directory"),
        ("", "state_dir must be the path of a directory"),
        (3, "state_dir is a int"),
        (b"x", "state_dir is a bytes"),
    ],
)
def test_what_is_no_directory_is_refused_with_what_to_change(state_dir: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_directories(state_dir)

    assert message in str(refused.value)


@pytest.mark.parametrize("shape", ["path", "mapping"])
def test_a_file_is_refused(shape: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(ConfigurationError, match="must be a directory, or not exist yet"):
        read_directories(file if shape == "path" else {"sessions": file})


def test_directories_are_made_for_their_owner_only(tmp_path: Path) -> None:
    before = mode_of(tmp_path)
    umask = os.umask(0)
    try:
        make_directory(tmp_path / "state" / "sessions")
    finally:
        os.umask(umask)

    assert mode_of(tmp_path / "state") == mode_of(tmp_path / "state" / "sessions") == 0o700
    assert mode_of(tmp_path) == before


def test_a_directory_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)

    make_directory(tmp_path)

    assert mode_of(tmp_path) == 0o750


@pytest.mark.parametrize("name", ["x" * 5_000, "~nobody-of-that-name/state"])
def test_a_path_that_cannot_be_one_is_refused(name: str, tmp_path: Path) -> None:
    path = name if name.startswith("~") else tmp_path / name

    with pytest.raises(ConfigurationError, match="state_dir cannot be used: "):
        read_directories(path)
