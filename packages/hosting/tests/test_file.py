"""The SQLite file of a host and its lock."""

import errno
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent_framework_hosting import ConfigurationError
from agent_framework_hosting.sql.file import DatabaseFile


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_file_and_its_directory_are_their_owners_only(tmp_path: Path) -> None:
    file = DatabaseFile(tmp_path / "state" / "sessions")

    file.acquire()
    file.release()

    assert file.path == tmp_path / "state" / "sessions" / "host.db"
    assert mode_of(file.path) == 0o600
    assert mode_of(file.path.parent) == 0o700


def test_a_file_that_is_in_use_is_refused_with_what_to_do(tmp_path: Path) -> None:
    first, second = DatabaseFile(tmp_path), DatabaseFile(tmp_path)
    first.acquire()

    with pytest.raises(ConfigurationError, match="in use by another process") as refused:
        second.acquire()
    second.release()  # not his to give back
    with pytest.raises(ConfigurationError):
        second.acquire()
    first.release()
    second.acquire()
    second.release()

    assert str(tmp_path / "host.db") in str(refused.value)
    assert "PostgreSQL" in str(refused.value)


def test_a_process_that_was_killed_lets_go_of_the_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from agent_framework_hosting.sql.file import DatabaseFile; "
        "file = DatabaseFile(Path(sys.argv[1])); file.acquire(); print('mine', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        file = DatabaseFile(tmp_path)
        with pytest.raises(ConfigurationError):
            file.acquire()
        other.kill()

    file.acquire()
    file.release()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").touch()

    with pytest.raises(ConfigurationError, match=r"sessions/host.db cannot be used: File exists\."):
        DatabaseFile(tmp_path / "state" / "sessions").acquire()


def test_what_is_given_back_twice_is_free_once(tmp_path: Path) -> None:
    file, other = DatabaseFile(tmp_path), DatabaseFile(tmp_path)
    file.acquire()
    file.release()
    file.release()

    other.acquire()
    with pytest.raises(ConfigurationError):
        file.acquire()
    other.release()


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)

    with pytest.raises(ConfigurationError, match=r"host\.db is on a file system that cannot lock files"):
        DatabaseFile(tmp_path).acquire()
