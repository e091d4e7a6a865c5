"""What a workflow gets of what a caller has sent: the first of its shapes that it takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from agent_framework import INTERNAL_SOURCE_ID, Message, Workflow, WorkflowMessage

from ..errors import ConfigurationError

logger = logging.getLogger(__name__)


def input_for(workflow: Workflow, given: object) -> object:
    """Return `given` in the first of its shapes that the start executor accepts. See `fitting`."""
    start = workflow.get_start_executor()

    def accepts(shape: object) -> bool:
        return start.can_handle(WorkflowMessage(data=shape, source_id=INTERNAL_SOURCE_ID(start.id), target_id=start.id))

    return fitting(given, accepts, taker=f"The start executor {start.id!r}", types=start.input_types)


def fitting(given: object, accepts: Callable[[object], bool], *, taker: str, types: Iterable[object]) -> object:
    """Return `given` in the first of its shapes that `accepts` is true for.

    Messages are offered as the list they are, as one message, and as text. The latter two are made of the messages
    after the last one that is not the user's. `taker` and `types` tell who accepts what.

    Raises:
        ConfigurationError: it accepts none of them.
    """
    for shape in _shapes(given):
        if accepts(shape):
            _warn_of_loss(given, shape)
            return shape
    accepted = ", ".join(getattr(kind, "__name__", str(kind)) for kind in types)
    raise ConfigurationError(
        f"{taker} accepts {accepted}, not {type(given).__name__} (nor a message or text made of it); convert the input "
        "in a run hook."
    )


def _shapes(given: object) -> list[object]:
    if not isinstance(given, (list, tuple)) or not given or not all(isinstance(item, Message) for item in given):
        return [given]
    messages: Sequence[Message] = given
    spoken = _last_spoken(messages)
    shapes: list[object] = [list(messages), spoken]
    texts = [content.text or "" for content in spoken.contents if content.type == "text"]
    if texts:
        shapes.append("\n".join(texts))
    return shapes


def _last_spoken(messages: Sequence[Message]) -> Message:
    """Return what the user said last as one message; the last message if it is nobody's of the user."""
    spoken: list[Message] = []
    for message in reversed(messages):
        if message.role != "user":
            break
        spoken.insert(0, message)
    if len(spoken) <= 1:
        return messages[-1]
    return Message(
        "user",
        [content for message in spoken for content in message.contents],
        additional_properties={
            key: value for message in spoken for key, value in message.additional_properties.items()
        },
    )


def _warn_of_loss(given: object, shape: object) -> None:
    if isinstance(shape, str) and isinstance(given, (list, tuple)):
        types = {content.type for content in _last_spoken(given).contents} - {"text"}
        if types:
            logger.warning(
                "The workflow takes text only; other contents were left out.", extra={"types": sorted(types)}
            )
