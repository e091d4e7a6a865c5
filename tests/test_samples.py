"""The samples start without key and network, do what their READMEs say, and stop when they are told to."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import rest_file
from commands import until

SAMPLES = Path(__file__).parent.parent / "samples"
NAMES = sorted(path.name for path in SAMPLES.iterdir() if (path / "app.py").exists())
PROVIDER_VARIABLES = ("OPENAI_", "AZURE_", "FOUNDRY_")


class Sample:
    """A started sample server, and a way to call it with the client script that lies beside it."""

    def __init__(self, folder: Path, base_url: str, server: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.base_url = base_url
        self._server = server

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.folder / "call_server.py"), "--base-url", f"{self.base_url}/v1", *arguments]

    def call(self, *arguments: str, typed: str = "") -> str:
        result = self._run(*arguments, typed=typed)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refused(self, *arguments: str, typed: str = "") -> str:
        """What the client says when it fails: one line."""
        result = self._run(*arguments, typed=typed)
        assert result.returncode == 1, result.stdout
        assert result.stderr.strip().count("\n") == 0, result.stderr
        return result.stderr

    def kill(self) -> None:
        self._server.kill()
        self._server.wait()

    @contextmanager
    def asking(self, *arguments: str) -> Generator[subprocess.Popen[str], None, None]:
        """The client, which has asked on the terminal and waits."""
        with subprocess.Popen(
            self.command(*arguments),
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as client:
            assert client.stdout is not None
            said = ""
            while not said.endswith("[y/n] "):
                letter = client.stdout.read(1)
                assert letter, f"The client has ended: {said}"
                said += letter
            try:
                yield client
            finally:
                client.kill()

    def _run(self, *arguments: str, typed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=environment(),
            input=typed,
            capture_output=True,
            encoding="utf-8",
            timeout=200,
            check=False,
        )


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PROVIDER_VARIABLES)}
    return {**inherited, "NO_PROXY": "*", "PYTHONIOENCODING": "utf-8", **(extra or {})}


@contextmanager
def serving(command: list[str], folder: Path, **extra: str) -> Generator[Sample, None, None]:
    server = subprocess.Popen(
        command, cwd=folder, env=environment(extra), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, encoding="utf-8"
    )
    assert server.stderr is not None
    log: list[str] = []
    try:
        for line in server.stderr:
            log.append(line)
            if found := re.search(r"Uvicorn running on (http://\S+)", line):
                break
        else:
            pytest.fail(f"The sample did not start:\n{''.join(log)}")
        # It says so as soon as it has the address, and answers a little later.
        until(lambda: server.poll() is not None or listens(found[1]), "The sample does not listen.")
        yield Sample(folder, found[1], server)
        was_killed = server.poll() == -signal.SIGKILL
        server.send_signal(signal.SIGTERM)
        log.extend(server.communicate(timeout=60)[1].splitlines(keepends=True))
    finally:
        server.kill()
        server.communicate()
    assert was_killed or "Application shutdown complete" in "".join(log), "".join(log)
    assert "Traceback" not in "".join(log), "".join(log)


def listens(url: str) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0


@contextmanager
def sample(name: str, *, at: int = 0, **extra: str) -> Generator[Sample, None, None]:
    command = [sys.executable, str(SAMPLES / name / "app.py"), "--port", str(at)]
    with serving(command, SAMPLES / name, **extra) as started:
        yield started


@pytest.fixture
def port() -> Generator[int, None, None]:
    """A port on which servers can follow each other: nobody else is given it meanwhile."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def id_in(output: str) -> str:
    """The last response id that a client printed."""
    return str(re.findall(r"resp_\w+", output)[-1])


def test_the_second_turn_of_the_agent_sample_is_answered_from_the_first() -> None:
    with sample("local_responses") as started:
        output = started.call("--city", "Oslo")

    assert output.splitlines()[:2] == [
        "Turn 1: The weather in Oslo: rain, 14 °C.",
        "Turn 2: You asked about Oslo before, and the tool said rain, 14 °C: take an umbrella.",
    ]
    continued = re.search(r"continued (resp_\w+), which was (resp_\w+)", output)
    assert continued is not None
    assert continued[1] == continued[2]


def test_the_agent_sample_is_served_by_the_command_line_too() -> None:
    afhost = str(Path(sys.executable).parent / "afhost")

    with serving([afhost, "serve", "app:host", "--port", "0"], SAMPLES / "local_responses") as started:
        output = started.call()

    assert "You asked about Lisbon before" in output


def test_the_agent_sample_uses_a_provider_that_the_environment_names(tmp_path: Path) -> None:
    # The provider is the other sample: an OpenAI-compatible server that needs no network.
    with (
        sample("local_responses_workflow", STATE=str(tmp_path)) as provider,
        sample(
            "local_responses",
            OPENAI_BASE_URL=f"{provider.base_url}/v1",
            OPENAI_API_KEY="unused",
            OPENAI_MODEL="any",
            OPENAI_API="responses",
        ) as started,
    ):
        output = started.call()

    assert "Turn 1: **Meet What is the weather like in Lisbon?" in output
    assert "(Product: Do I need an umbrella there?)" in output


def test_the_workflow_sample_goes_on_and_branches_after_a_restart(tmp_path: Path) -> None:
    with sample("local_responses_workflow", STATE=str(tmp_path)) as started:
        first = started.call('{"product": "a folding bicycle", "audience": "commuters"}')
        revised = started.call("--previous-response-id", id_in(first), "Make it shorter.")
        unrelated = started.call("a rain coat for dogs")
        refusal = started.refused('{"color": "red"}')
    with sample("local_responses_workflow", STATE=str(tmp_path)) as started:
        branched = started.call("--previous-response-id", id_in(first), "Name the price.")
        continued = started.call("--previous-response-id", id_in(revised), "It has three wheels.")

    assert first.startswith("**Meet a folding bicycle: simply as good as there is. Your money back within 30 days.**\n")
    assert "_Legal: Struck: guaranteed, the best._" in first
    assert revised.startswith("**Meet a folding bicycle: simply as good as there is.**\n")
    assert unrelated.startswith("**Meet a rain coat for dogs: ")
    assert "within 30 days. (Product: Name the price.)**" in branched
    assert continued.startswith(
        "**Meet a folding bicycle: simply as good as there is. (Product: It has three wheels.)**\n"
    )
    assert "A brief has only the members audience, product, tone, all strings." in refusal


def test_the_workflow_sample_shows_what_is_said_on_the_way_if_its_operator_wants_that(tmp_path: Path) -> None:
    with sample("local_responses_workflow", STATE=str(tmp_path), SHOW_DRAFTS="1") as started:
        output = started.call("a rain coat")

    assert output.splitlines()[:4] == [
        "[Meet a rain coat: simply the best there is. Your money back within 30 days, guaranteed.]",
        "[Meet a rain coat: simply as good as there is. Your money back within 30 days.",
        "Struck: guaranteed, the best.]",
        "**Meet a rain coat: simply as good as there is. Your money back within 30 days.**",
    ]


def test_an_approval_is_given_while_the_server_is_another_one_than_that_which_asked(tmp_path: Path, port: int) -> None:
    with sample("approval", at=port, STATE=str(tmp_path)) as started, started.asking("Pay 20 euros to Ada.") as client:
        started.kill()
        with sample("approval", at=port, STATE=str(tmp_path)):
            output, errors = client.communicate("perhaps\nY\n", timeout=200)

    assert "Paid: 20 euros to Ada.\n" in output, errors
    assert output.count("[y/n]") == 1, "asked again, as the first answer was none"
    assert (tmp_path / "payments.txt").read_text() == "Ada: 20 euros\n"


def test_an_approval_counts_once_whoever_gives_it_and_whenever(tmp_path: Path) -> None:
    with sample("approval", STATE=str(tmp_path)) as started:
        left = started.refused("Pay 5 euros to Bob and 1 euro to Eve.")
        started.kill()
        unreachable = started.refused("--previous-response-id", id_in(left), typed="y\nn\n")
    with sample("approval", STATE=str(tmp_path)) as started:
        approved = started.call("--previous-response-id", id_in(left), typed="y\nn\n")
        repeated = started.refused("--previous-response-id", id_in(left), typed="y\ny\n")
        small_talk = started.call("--previous-response-id", id_in(approved), "Thank you.")

    assert "Not answered. Later: --previous-response-id resp_" in left
    assert "Connection error." in unreachable
    assert "Paid: 5 euros to Bob, Not paid, as nobody approved it.\n" in approved
    assert "has already been answered" in repeated
    assert small_talk.startswith("Tell me whom to pay")
    assert (tmp_path / "payments.txt").read_text() == "Bob: 5 euros\n"


def test_a_workflow_waits_for_its_answer_through_restarts(tmp_path: Path) -> None:
    with sample("workflow_hitl", STATE=str(tmp_path)) as started:
        first = started.call("start", "My kettle arrived broken.")
        started.kill()
        unreachable = started.refused("answer", id_in(first), "yes")
    # As another module than the one that asked: what waits must not be named after it.
    afhost = [str(Path(sys.executable).parent / "afhost"), "serve", "app:host", "--port", "0"]
    with serving(afhost, SAMPLES / "workflow_hitl", STATE=str(tmp_path)) as started:
        shown = started.call("show", id_in(first))
        second = started.call("answer", id_in(first), "no", "--comment", "You get a new one.")
        started.kill()
    with sample("workflow_hitl", STATE=str(tmp_path)) as started:
        too_late = started.refused("answer", id_in(first), "yes")
        sent = started.call("answer", id_in(second), "yes")
        repeated = started.refused("answer", id_in(second), "no")

    assert first.startswith(
        'You wrote: "My kettle arrived broken." We are sorry. Yours, the shop\nTo answer: answer resp_'
    )
    assert shown == first
    assert "Connection error." in unreachable
    assert second.startswith(
        'You wrote: "My kettle arrived broken." We are sorry. You get a new one. Yours, the shop\n'
    )
    assert sent == f"Sent: {second.splitlines()[0]}\n"
    assert "has already been answered" in too_late
    assert "has already been answered" in repeated


def test_a_workflow_asks_in_the_background_too(tmp_path: Path) -> None:
    with sample("workflow_hitl", STATE=str(tmp_path)) as started:
        accepted = started.call("start", "The tea was cold.", "--background")
        shown = started.call("show", id_in(accepted))
        while "It is being written" in shown:
            shown = started.call("show", id_in(accepted))
        dropped = started.call("answer", id_in(accepted), "no")
        nothing = started.refused("answer", id_in(shown).replace("resp_", "resp_0"), "no")

    assert shown.startswith('You wrote: "The tea was cold." We are sorry.')
    assert dropped == "Nothing was sent.\n"
    assert "not found" in nothing


@pytest.mark.parametrize("name", NAMES)
def test_the_requests_for_an_editor_are_answered_as_their_titles_say(name: str, tmp_path: Path) -> None:
    with sample(name, STATE=str(tmp_path)) as started:
        done = rest_file.send(SAMPLES / name / "requests.rest", started.base_url)

    assert len(done) >= 3
    assert [(one.title, one.answer.text) for one in done if one.answer.status_code != one.expected] == []


def test_a_store_of_ones_own_keeps_the_sessions_over_a_restart(tmp_path: Path) -> None:
    with sample("custom_store", STATE=str(tmp_path)) as started:
        first = started.call("The key is under the mat.")
    kept = set((tmp_path / "own sessions").iterdir())
    with sample("custom_store", STATE=str(tmp_path)) as started:
        second = started.call("--previous-response-id", first.split()[-1], "The dog is called Ada.")

    assert first.startswith("You told me: The key is under the mat.\n")
    assert second.startswith("You told me: The key is under the mat. / The dog is called Ada.\n")
    assert len(kept) == 1
    assert set((tmp_path / "own sessions").iterdir()) > kept


def test_the_store_of_the_sample_passes_the_public_suite() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=SAMPLES / "custom_store",
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=200,
        check=False,
    )

    assert result.returncode == 0, result.stdout
    assert int(re.findall(r"(\d+) passed", result.stdout)[-1]) > 20


def test_the_call_in_the_readme_prints_what_the_readme_says() -> None:
    readme = (SAMPLES.parent / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- run: sample server -->\n```python\n(.*?)```\n\n```text\n(.*?)```", readme, re.DOTALL)
    assert found is not None

    with sample("local_responses") as started:
        code = found[1].replace("http://127.0.0.1:8000", started.base_url)
        printed = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(),
            capture_output=True,
            encoding="utf-8",
            timeout=200,
            check=True,
        ).stdout

    assert printed == found[2]


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_has_all_its_parts(name: str) -> None:
    parts = {path.name for path in (SAMPLES / name).iterdir()}

    assert parts >= {"app.py", "call_server.py", "offline_model.py", "requests.rest", "README.md"}
