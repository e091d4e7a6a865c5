"""From `module:attribute` to a host: import, call factories, add the Responses channel to what is no host yet."""

from __future__ import annotations

import difflib
import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Final, cast

from agent_framework import Workflow

from .channel import Channel
from .errors import ConfigurationError
from .hooks import resolve
from .host import AgentFrameworkHost

CHANNELS: Final = "agent_framework_hosting.channels"
"""Entry point group in which packages offer channels by name; each is called with the keyword `path`."""

DEFAULT_PATH: Final = "/responses"


def load(reference: str) -> object:
    """Return what `module:attribute` names; the attribute may be dotted.

    Raises:
        ConfigurationError: the reference has another form, or there is no such module or attribute, or importing the
            module failed; the message says which, and what its code raised.
    """
    module_name, attribute = _split(reference)
    found: object = _import(module_name)
    for name in attribute.split("."):
        if not hasattr(found, name):
            similar = difflib.get_close_matches(name, [n for n in dir(found) if not n.startswith("_")], n=1)
            hint = f" Did you mean {similar[0]!r}?" if similar else ""
            raise ConfigurationError(f"The module {module_name!r} has no attribute {attribute!r}.{hint}")
        found = getattr(found, name)
    return found


def _split(reference: str) -> tuple[str, str]:
    module_name, _, attribute = reference.partition(":")
    if module_name.startswith(".") or "/" in module_name or module_name.endswith(".py"):
        raise ConfigurationError(
            f"{reference!r} must name a module as an import does, not a file: for example app:agent."
        )
    if not (module_name and attribute):
        raise ConfigurationError(f"{reference!r} must have the form module:attribute, for example app:agent.")
    return module_name, attribute


def _import(module_name: str) -> object:
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
        is_missing = isinstance(error, ModuleNotFoundError) and error.name is not None
        if is_missing and (module_name + ".").startswith(f"{cast('ModuleNotFoundError', error).name}."):
            raise ConfigurationError(
                f"There is no module {module_name!r}: run the command in the directory that contains it, or install it."
            ) from error
        raise ConfigurationError(f"Importing {module_name!r} failed{_place(error)}: {_said(error)}") from error


async def build_host(reference: str, *, path: str | None = None) -> AgentFrameworkHost:
    """Return the host that `module:attribute` is, returns, or becomes with a Responses channel at `path`.

    The attribute may be a host, an agent, a workflow, a builder of one, a mapping of names to several of these, or a
    function without arguments, sync or async, that returns one of all that.

    Raises:
        ConfigurationError: it cannot be loaded or is none of these, or `path` is given for a host, which has its own.
    """
    found = load(reference)
    if _is_factory(found):
        made = await _call(reference, cast("Callable[[], object]", found))
        # A workflow keeps state between runs: the host calls a plain factory itself, to give each run its own.
        if not isinstance(made, Workflow) or inspect.iscoroutinefunction(found):
            found = made
    if isinstance(found, AgentFrameworkHost):
        if path is not None:
            raise ConfigurationError(f"{reference} is a host with paths of its own: leave --path out.")
        return found
    if not _is_target(found):
        raise ConfigurationError(
            f"{reference} gives a {type(found).__name__}: it must be an agent, a workflow, a builder of one, a mapping of "
            "names to several of these, a function that returns one of all that, or an AgentFrameworkHost."
        )
    return AgentFrameworkHost(cast("Any", found), channels=[_responses_channel(DEFAULT_PATH if path is None else path)])


def _is_target(found: object) -> bool:
    """Whether the host may accept it, which says for itself what is wrong."""
    has_method = any(callable(getattr(found, name, None)) for name in ("run", "stream", "build"))
    return has_method or callable(found) or isinstance(found, Mapping)


def _is_factory(found: object) -> bool:
    return (
        callable(found)
        and not inspect.isclass(found)
        and not isinstance(found, AgentFrameworkHost)
        and not callable(getattr(found, "run", None))
        and not callable(getattr(found, "stream", None))
    )


async def _call(reference: str, factory: Callable[[], object]) -> object:
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ConfigurationError(f"{reference} must be callable without arguments: {error}.") from error
    try:
        return await resolve(factory())
    except (Exception, SystemExit) as error:  # a user's factory may raise anything
        raise ConfigurationError(f"Calling {reference} failed{_place(error)}: {_said(error)}") from error


def _responses_channel(path: str) -> Channel:
    for entry_point in entry_points(group=CHANNELS, name="responses"):
        return cast("Callable[..., Channel]", entry_point.load())(path=path)
    raise ConfigurationError(
        "No package offers the Responses channel: install agent-framework-hosting-responses, or name a host that has "
        "channels."
    )


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _place(error: BaseException) -> str:
    """Return where the user's code raised, for people: ` at app.py, line 3`."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    last = frames[-1] if len(frames) > 1 else None
    return f" at {last.filename}, line {last.lineno}" if last is not None else ""
