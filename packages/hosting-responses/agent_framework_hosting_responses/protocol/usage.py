"""Token usage: what the agent reported, summed over its model calls.

Source: contract §2.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from .json import JsonObject

_Counts: TypeAlias = dict[str, int]

_INPUT: Final = "input_token_count"
_OUTPUT: Final = "output_token_count"
_TOTAL: Final = "total_token_count"
_CACHE_READ: Final = "cache_read_input_token_count"
_CACHE_WRITE: Final = "cache_creation_input_token_count"
_REASONING: Final = "reasoning_output_token_count"
_KEYS: Final = (_INPUT, _OUTPUT, _TOTAL, _CACHE_READ, _CACHE_WRITE, _REASONING)


class _Source(msgspec.Struct):
    """What one agent of the run reported: runs that are over, and the one that goes on."""

    past: _Counts = {}
    current: _Counts = {}
    response_id: str | None = None
    has_tool_result: bool = False


class UsageMeter:
    """Sums usage reports; provider-specific counters are ignored.

    A report adds to the earlier ones. One with `merge_mode="replace"` is the authoritative total of its
    agent's run so far (the framework's function loop sends cumulative ones), so it replaces what the same
    run reported; it is taken for a new run, and added, when it has another response id without a tool
    result in between, or when it counts less than what it would replace.
    """

    __slots__ = ("_sources",)

    def __init__(self, earlier: Mapping[str, int] | None = None) -> None:
        """Begin with the `counts` of an earlier attempt at the run."""
        # No agent has such a name: what it reports now replaces nothing of the earlier attempt.
        self._sources: dict[str | None, _Source] = {"": _Source(past=dict(earlier))} if earlier else {}

    def add(
        self,
        details: Mapping[str, object] | None,
        *,
        replaces: bool = False,
        source: str | None = None,
        response_id: str | None = None,
    ) -> None:
        """Count one report of `source`, the agent it came from."""
        counts = _counts(details)
        if not counts:
            return
        state = self._sources.setdefault(source, _Source())
        if not replaces:
            state.current = _sum(state.current, counts)
        else:
            if not _continues(state, counts, response_id):
                state.past = _sum(state.past, state.current)
            state.current = counts
        state.response_id = response_id or state.response_id
        state.has_tool_result = False

    def note_tool_result(self, source: str | None) -> None:
        """Remember that `source` goes on to another model call within the same run."""
        if source in self._sources:
            self._sources[source].has_tool_result = True

    @property
    def counts(self) -> _Counts:
        """All that was counted, under the framework's names."""
        total: _Counts = {}
        for state in self._sources.values():
            total = _sum(_sum(total, state.past), state.current)
        return total

    @property
    def body(self) -> JsonObject | None:
        """The `usage` of the response; None when nothing was reported."""
        if not self._sources:
            return None
        total = self.counts
        return {
            "input_tokens": total.get(_INPUT, 0),
            "input_tokens_details": {
                "cached_tokens": total.get(_CACHE_READ, 0),
                "cache_write_tokens": total.get(_CACHE_WRITE, 0),
            },
            "output_tokens": total.get(_OUTPUT, 0),
            "output_tokens_details": {"reasoning_tokens": total.get(_REASONING, 0)},
            "total_tokens": total.get(_TOTAL, 0),
        }


def _counts(details: Mapping[str, object] | None) -> _Counts:
    counts: _Counts = {}
    for key in _KEYS:
        value = (details or {}).get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            counts[key] = value
    if counts and _TOTAL not in counts:
        counts[_TOTAL] = counts.get(_INPUT, 0) + counts.get(_OUTPUT, 0)
    return counts


def _sum(left: _Counts, right: _Counts) -> _Counts:
    return {key: left.get(key, 0) + right.get(key, 0) for key in left.keys() | right.keys()}


def _continues(state: _Source, counts: _Counts, response_id: str | None) -> bool:
    if response_id is not None and response_id == state.response_id:
        return True
    is_other_response = response_id is not None and state.response_id is not None
    if is_other_response and not state.has_tool_result:
        return False
    return all(counts.get(key, 0) >= value for key, value in state.current.items())
