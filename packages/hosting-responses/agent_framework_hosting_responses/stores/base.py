"""What a store of responses must do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from agent_framework_hosting.runs.base import Attempt, RunKey, RunStatus

from ..protocol.json import JsonObject


class ResponseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One response: a snapshot of its state, never changed in place (`msgspec.structs.replace` makes the next one).

    `body` is the Response object as JSON (contract §2.1). `input` holds the items of its own request, `context` all items
    before them, oldest first; both as stored items (contract §1.5). `output` holds the items of `body`. `approvals` maps
    the ids of the approval requests that the context and the output hold to what the target needs for the answer;
    `call_ids` maps `call_id`s that had to be made up for the wire to the target's own.
    `has_session` says that the agent session after this response is stored under its id. `created_at` is in Unix seconds.
    """

    key: RunKey
    status: RunStatus
    created_at: int
    body: bytes
    attempt: int = 0
    is_background: bool = False
    is_streamed: bool = False
    is_stored: bool = True
    previous_response_id: str | None = None
    input: tuple[JsonObject, ...] = ()
    context: tuple[JsonObject, ...] = ()
    output: tuple[JsonObject, ...] = ()
    approvals: Mapping[str, JsonObject] = msgspec.field(default_factory=dict)
    call_ids: Mapping[str, str] = msgspec.field(default_factory=dict)
    has_session: bool = False

    @property
    def items(self) -> tuple[JsonObject, ...]:
        """Context, input and output: the context of a response that continues this one (contract §1.7)."""
        return (*self.context, *self.input, *self.output)


class ResponseStore(Protocol):
    """Responses by partition and id. Terminal responses never change, and the latest attempt alone may write.

    Raises:
        StoreUnavailable: from every method, when the store cannot be reached.
    """

    async def create(self, record: ResponseRecord) -> None:
        """Store a new response.

        Raises:
            AlreadyExists: the id is taken in this partition; the stored response stays as it is.
        """
        ...

    async def get(self, key: RunKey) -> ResponseRecord | None:
        """Return the response, `None` if it is unknown, deleted or expired."""
        ...

    async def begin(self, key: RunKey) -> Attempt | None:
        """Start the next attempt, which takes the right to write from the one before; `None` if there is nothing to do.

        There is nothing to do when the response is unknown or terminal.
        """
        ...

    async def save(self, attempt: Attempt, record: ResponseRecord) -> None:
        """Replace the response by its next state.

        Raises:
            StaleWrite: the response is terminal or gone, or a later attempt has begun.
        """
        ...

    async def delete(self, key: RunKey) -> bool:
        """Forget the response; `False` if there was none."""
        ...
