import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_framework_hosting import AgentFrameworkHost, ConfigurationError
from agent_framework_hosting.loading import build_host, load

MODULE = """
from agent_framework_hosting import AgentFrameworkHost, ChannelContribution
from agent_framework_hosting.testing.agents import ScriptedAgent


class OwnChannel:
    name = "own"

    def __init__(self, path):
        self.path = path

    def contribute(self, context):
        return ChannelContribution()


agent = ScriptedAgent(["hello"])
host = AgentFrameworkHost(agent, channels=[OwnChannel("/own")])


async def later():
    return host


def broken_factory():
    raise ValueError("no database")


class Building:
    def __call__(self):
        return host


building = Building()


class Builder:
    def build(self):
        from agent_framework import WorkflowBuilder

        return WorkflowBuilder(start_executor=agent, name="built").build()


builder = Builder()


async def builder_later():
    return builder


several = {"parrot": agent, "built": builder}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the path with the module `loaded` in it."""
    (tmp_path / "loaded.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("loaded", "broken"):
        sys.modules.pop(name, None)


def offer_channel(project: Path) -> None:
    """Have an installed package offer a Responses channel."""
    info = project / "fake_channel-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-channel\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[agent_framework_hosting.channels]\nresponses = loaded:OwnChannel\n")


def test_the_attribute_may_be_dotted() -> None:
    assert load("loaded:OwnChannel.contribute") is sys.modules["loaded"].OwnChannel.contribute


@pytest.mark.parametrize("attribute", ["host", "later", "building"])
async def test_a_host_is_taken_as_it_is_also_from_a_factory(attribute: str) -> None:
    host = await build_host(f"loaded:{attribute}")

    assert isinstance(host, AgentFrameworkHost)
    assert host is sys.modules["loaded"].host


@pytest.mark.parametrize(("path", "expected"), [(None, "/responses"), ("/ask", "/ask"), ("", "")])
async def test_an_agent_gets_the_channel_that_a_package_offers(project: Path, path: str | None, expected: str) -> None:
    offer_channel(project)

    host = await build_host("loaded:agent", path=path)

    [channel] = host.channels
    assert type(channel).__name__ == "OwnChannel"
    assert channel.path == expected


@pytest.mark.parametrize("attribute", ["builder", "builder_later"])
async def test_a_builder_is_hosted_as_the_workflow_it_builds(project: Path, attribute: str) -> None:
    offer_channel(project)

    host = await build_host(f"loaded:{attribute}")

    assert (host.target.kind, host.target.name) == ("workflow", "built")


async def test_a_mapping_of_names_is_hosted_as_several_targets(project: Path) -> None:
    offer_channel(project)

    host = await build_host("loaded:several")

    assert [(served.name, served.target.kind) for served in host.targets] == [
        ("parrot", "agent"),
        ("built", "workflow"),
    ]


async def test_without_a_package_that_offers_the_channel_the_message_says_what_to_install(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(project)])

    with pytest.raises(ConfigurationError, match="install agent-framework-hosting-responses"):
        await build_host("loaded:agent")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import not_installed_here\n",
            r"broken.py, line 1: ModuleNotFoundError: No module named 'not_installed_here'",
        ),
        ("\nfrom loaded import nothing\n", r"broken.py, line 2: ImportError: cannot import name 'nothing'"),
        ("1 / 0\n", r"broken.py, line 1: ZeroDivisionError: division by zero"),
        ("import sys\n\nsys.exit(3)\n", r"broken.py, line 3: SystemExit: 3"),
        ("def f(:\n", r": SyntaxError: invalid syntax \(broken.py, line 1\)"),
    ],
)
def test_an_error_inside_the_module_is_told_apart_from_a_missing_module(
    project: Path, source: str, message: str
) -> None:
    (project / "broken.py").write_text(source)

    with pytest.raises(ConfigurationError) as caught:
        load("broken:agent")

    assert re.search(f"^Importing 'broken' failed.*{message}", str(caught.value))


def test_a_module_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"There is no module 'nowhere\.at\.all'"):
        load("nowhere.at.all:agent")


async def test_an_error_inside_a_factory_says_where_and_keeps_its_cause() -> None:
    with pytest.raises(ConfigurationError, match=r"failed at .*loaded.py, line \d+: ValueError: no database") as caught:
        await build_host("loaded:broken_factory")

    assert isinstance(caught.value.__cause__, ValueError)
