"""One host for stateful tests: users talk to it without a socket, and it is restarted while they do."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Generator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final, TypeVar

import wire
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from states import State
from witness import Answer, LocalClient, local

from agent_framework_hosting import ISOLATION_HEADER_USER, AgentFrameworkHost

ResultT = TypeVar("ResultT")

NAMES: Final = ("ada", "bob", "nobody")
MARKER: Final = re.compile(rb"(ada|bob|nobody)-[0-9]+~")
"""What every text of a user's begins with: `ada-3~`, where 3 is the number of the example."""

_IS_FIXED: Final = "AFHOST_TEST_EXAMPLES" not in os.environ
_SECONDS: Final = 60.0


class World:
    """One host for all examples, each of which has users of its own; it may be restarted.

    `make` makes the host from its options.
    """

    def __init__(self, state: State, runner: asyncio.Runner, make: Callable[..., AgentFrameworkHost]) -> None:
        self.state = state
        self.examples = 0
        self._runner = runner
        self._make = make
        self._stack = AsyncExitStack()
        self._client: LocalClient | None = None
        self.host: AgentFrameworkHost

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run `work` to its end."""
        return self._runner.run(asyncio.wait_for(work, _SECONDS))

    async def start(self) -> None:
        """Start a host."""
        self.host = self._make(trust_isolation_headers=True, shutdown_grace=0, **self.state.options)
        self._client = await self._stack.enter_async_context(local(self.host))

    async def stop(self) -> None:
        """Stop the host."""
        await self._stack.aclose()

    def restart(self) -> None:
        """Stop the host, and start one that has the same state, if it is durable."""
        self.run(self.stop())
        self.run(self.start())

    def new_users(self) -> list[str]:
        """Return the names of the users of another example."""
        self.examples += 1
        return [f"{name}-{self.examples}" for name in NAMES]

    def ask(self, user: str, method: str, path: str, body: object = None, *, key: str | None = None) -> Answer:
        """Send a request of a user's, and hold the answer against what it must never contain."""
        assert self._client is not None
        headers = {} if user.startswith("nobody") else {ISOLATION_HEADER_USER: user}
        if key is not None:
            headers["idempotency-key"] = key
        answer = self.run(self._client(method, path, body, headers=headers))
        strangers = {found.group() for found in MARKER.finditer(answer.content)} - {f"{user}~".encode()}
        assert not strangers, (user, method, path, body, answer)
        if answer.headers.get("content-type") == "application/json":
            wire.check_answer(answer.status, answer.json(), path=path.partition("?")[0])
        return answer


@contextmanager
def world_of(state: State, make: Callable[..., AgentFrameworkHost]) -> Generator[World, None, None]:
    """Start the host of a world, and stop it at the end."""
    with asyncio.Runner() as runner:
        world = World(state, runner, make)
        world.run(world.start())
        try:
            yield world
        finally:
            world.run(world.stop())


def play(machine: type[RuleBasedStateMachine], world: World, *, steps: int, examples: int) -> None:
    """Run the examples of a machine, which finds the world as `world`.

    `AFHOST_TEST_EXAMPLES` and `AFHOST_TEST_STEPS` look further, with other choices in every run, or with those of
    `--hypothesis-seed`. Without them the choices are the same in every run. A failing play is shown as it was found.
    """
    examples = int(os.environ.get("AFHOST_TEST_EXAMPLES", str(examples)))
    chosen = settings(
        max_examples=examples,
        stateful_step_count=int(os.environ.get("AFHOST_TEST_STEPS", str(steps))),
        deadline=None,
        derandomize=_IS_FIXED,
        database=None,
        print_blob=True,
        report_multiple_bugs=False,
        # Nothing is made shorter: every try would be a play of its own, and of a long one there are thousands.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(type(f"{machine.__name__}OfOneHost", (machine,), {"world": world}), settings=chosen)

    assert world.examples >= examples
