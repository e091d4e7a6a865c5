"""What an encoder knows at a moment from which its run may be resumed, and the log does not tell."""

from __future__ import annotations

import msgspec


class UndecidedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of which nobody was told yet, because a result for it may follow."""

    name: str
    source_id: str
    arguments: str


class AskedApproval(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the target needs to recognise the answer to an approval request, and the wire does not show."""

    request_id: str
    """The framework's id of the request."""

    call_id: str
    """The framework's id of the call that waits."""

    hosted: bool = False
    """Whether the agent's provider asks, not the framework."""


class Memo(msgspec.Struct, frozen=True, kw_only=True):
    """Where the encoder of a run that is resumed begins; the default is the start of a run."""

    answered: list[int] = []
    """The items that belong to the answer, by `output_index`. They are whole, also one whose end was not told."""

    calls: list[UndecidedCall] = []
    """The calls that no result has followed."""

    approvals: dict[str, AskedApproval] = {}
    """Id of an approval request on the wire → how the target knows it."""

    minted_call_ids: dict[str, str] = {}
    """`call_id` on the wire → the framework's id of the call, where they differ."""

    usage: dict[str, int] = {}
    """The tokens that were counted, under the framework's names."""

    finish_reason: str | None = None
    """Why the model stopped last."""
