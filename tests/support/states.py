"""Where a host of a test keeps its state."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class State:
    """Keyword arguments that give a host its state: `AgentFrameworkHost(agent, **state.options)`.

    They stay the same for the whole test: a second host with them, once the first has stopped, is the first restarted.
    """

    kind: Literal["memory", "sqlite", "postgres"]
    # `Any`: unpacked into arguments of several types.
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_durable(self) -> bool:
        """Whether a restarted host finds it again."""
        return self.kind != "memory"

    @property
    def directory(self) -> Path:
        """The directory of a state in SQLite, which may not exist yet."""
        found = self.options["state_dir"]
        assert isinstance(found, Path)
        return found


_here: list[State] = []


def here() -> Mapping[str, Any]:
    """The options of the state that the running test is repeated for (`on_every_store`); none for other tests."""
    return _here[-1].options if _here else {}


@contextmanager
def everything_in(state: State) -> Generator[State, None, None]:
    """Have `here` give the options of `state` inside the block."""
    _here.append(state)
    try:
        yield state
    finally:
        _here.pop()
