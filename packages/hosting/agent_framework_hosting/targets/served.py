"""Targets under the names by which callers choose them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import ConfigurationError
from .base import Target

LONGEST_NAME: Final = 256
"""The most characters of a name."""


@dataclass(frozen=True, slots=True)
class ServedTarget:
    """A target as a host serves it.

    `key` names it in what is stored, so that nothing that one target has left gets to another one. It is the name that
    the operator gave it, or empty if he gave none because there is no other: its own name may be another one tomorrow.
    """

    key: str
    target: Target

    @property
    def name(self) -> str:
        """What callers call it."""
        return self.key or self.target.name


class ServedTargets:
    """All targets of a host, in the order in which they were given; at least one."""

    def __init__(self, targets: Sequence[ServedTarget]) -> None:
        self._targets = tuple(targets)
        self._by_key = {served.key: served for served in targets}

    @classmethod
    def of(cls, hosted: object, choose: Callable[[object], Target]) -> ServedTargets:
        """Return the targets that `choose` makes of what is `hosted`: one object, or a mapping of names to objects.

        Raises:
            ConfigurationError: there is none, a name cannot be one, or an object cannot be hosted.
        """
        if not isinstance(hosted, Mapping):
            return cls([ServedTarget("", choose(hosted))])
        if not hosted:
            raise ConfigurationError("The mapping of targets is empty: pass at least one.")
        return cls([ServedTarget(_checked(name), _chosen(name, given, choose)) for name, given in hosted.items()])

    def __len__(self) -> int:
        return len(self._targets)

    def __iter__(self) -> Iterator[ServedTarget]:
        return iter(self._targets)

    @property
    def only(self) -> ServedTarget | None:
        """The target if there is one alone: whoever asks for anything means it."""
        return self._targets[0] if len(self._targets) == 1 else None

    def named(self, name: str) -> ServedTarget | None:
        """Return the target that callers call so."""
        return next((served for served in self._targets if served.name == name), None)

    def stored(self, key: str) -> ServedTarget | None:
        """Return the target to which that belongs which is stored with the `key`; `None` if it is not served any more."""
        return self._by_key.get(key)


def _checked(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"{name!r} cannot be the name of a target: names are printable text of 1 to {LONGEST_NAME} characters."
        )
    return name


def _chosen(name: str, given: object, choose: Callable[[object], Target]) -> Target:
    try:
        return choose(given)
    except ConfigurationError as error:
        raise ConfigurationError(f"The target {name!r}: {error}") from error
