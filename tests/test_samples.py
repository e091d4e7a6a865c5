"""The samples start without key and network, do what their READMEs say, and stop when they are told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parent.parent / "samples"
PROVIDER_VARIABLES = ("OPENAI_", "AZURE_", "FOUNDRY_")


class Sample:
    """A started sample server, and a way to call it with the client script that lies beside it."""

    def __init__(self, folder: Path, base_url: str) -> None:
        self.folder = folder
        self.base_url = base_url

    def call(self, *arguments: str) -> str:
        command = [sys.executable, str(self.folder / "call_server.py"), "--base-url", f"{self.base_url}/v1", *arguments]
        result = subprocess.run(
            command, env=environment(), capture_output=True, encoding="utf-8", timeout=200, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout


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
        yield Sample(folder, found[1])
        server.send_signal(signal.SIGTERM)
        log.extend(server.communicate(timeout=60)[1].splitlines(keepends=True))
    finally:
        server.kill()
        server.communicate()
    assert "Application shutdown complete" in "".join(log), "".join(log)
    assert "Traceback" not in "".join(log), "".join(log)


@contextmanager
def sample(name: str, **extra: str) -> Generator[Sample, None, None]:
    with serving([sys.executable, str(SAMPLES / name / "app.py"), "--port", "0"], SAMPLES / name, **extra) as started:
        yield started


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
    with sample("local_responses_workflow", CHECKPOINTS=str(tmp_path)) as provider:
        variables = {"OPENAI_API_KEY": "unused", "OPENAI_MODEL": "any", "OPENAI_API": "responses"}
        with sample("local_responses", OPENAI_BASE_URL=f"{provider.base_url}/v1", **variables) as started:
            output = started.call()

    assert "Turn 1: **Meet What is the weather like in Lisbon?" in output
    assert "(Product: Do I need an umbrella there?)" in output


def test_the_workflow_sample_revises_its_draft_when_it_is_given_the_previous_response(tmp_path: Path) -> None:
    with sample("local_responses_workflow", CHECKPOINTS=str(tmp_path)) as started:
        first = started.call('{"product": "a folding bicycle", "audience": "commuters"}')
        previous_id = first.split()[-1]
        revised = started.call("--previous-response-id", previous_id, "Make it shorter.")
        branched = started.call("--previous-response-id", previous_id, "Name the price.")
        unrelated = started.call("a rain coat for dogs")

    assert first.startswith("**Meet a folding bicycle: simply as good as there is. Your money back within 30 days.**\n")
    assert "_Legal: Struck: guaranteed, the best._" in first
    assert revised.startswith("**Meet a folding bicycle: simply as good as there is.**\n")
    assert "within 30 days. (Product: Name the price.)**" in branched
    assert unrelated.startswith("**Meet a rain coat for dogs: ")
    assert list(tmp_path.rglob("*.json")), "checkpoints are on"


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


@pytest.mark.parametrize("name", ["local_responses", "local_responses_workflow", "custom_store"])
def test_a_sample_has_all_its_parts(name: str) -> None:
    parts = {path.name for path in (SAMPLES / name).iterdir()}

    assert parts >= {"app.py", "call_server.py", "offline_model.py", "requests.rest", "README.md"}
