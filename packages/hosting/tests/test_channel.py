from agent_framework_hosting import (
    AgentFrameworkHost,
    ChannelCommand,
    ChannelCommandContext,
    ChannelContext,
    ChannelContribution,
)
from agent_framework_hosting.testing.agents import ScriptedAgent


class EchoChannel:
    name = "echo"
    path = "/echo"

    def __init__(self) -> None:
        self.contexts: list[ChannelContext] = []

    def contribute(self, context: ChannelContext) -> ChannelContribution:
        self.contexts.append(context)

        async def echo(command: ChannelCommandContext) -> str:
            name = ", ".join(served.name for served in command.context.targets)
            return f"{name}: {command.arguments}"

        return ChannelContribution(commands=[ChannelCommand("echo", "Say it again.", echo)])


def test_a_contribution_adds_nothing_by_default() -> None:
    contribution = ChannelContribution()

    assert not contribution.routes
    assert not contribution.root_routes
    assert not contribution.commands
    assert not contribution.on_startup
    assert not contribution.on_shutdown
    assert not contribution.exception_handlers


def test_contributions_do_not_share_their_handlers() -> None:
    assert ChannelContribution().exception_handlers is not ChannelContribution().exception_handlers


async def test_a_command_runs_with_the_context_of_its_channel() -> None:
    channel = EchoChannel()
    host = AgentFrameworkHost(ScriptedAgent(name="parrot"), channels=[channel])

    [(owner, command)] = host.app.commands
    answer = await command.handle(ChannelCommandContext(channel.contexts[0], "hello"))

    assert owner == "echo"
    assert answer == "parrot: hello"


def test_a_channel_contributes_once_however_often_the_app_is_asked_for() -> None:
    channel = EchoChannel()
    host = AgentFrameworkHost(ScriptedAgent(), channels=[channel])

    assert host.app is host.app
    assert len(channel.contexts) == 1
