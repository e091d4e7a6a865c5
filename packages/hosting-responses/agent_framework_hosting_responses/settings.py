"""What the operator of a Responses channel decides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from agent_framework_hosting.errors import ConfigurationError

ResponseIdFactory = Callable[[], str] | Callable[[str | None], str]
"""Makes response ids; may take the previous response id. Ids match `[A-Za-z0-9_-]{1,256}` and never repeat."""


LostRuns = Literal["resume", "retry", "fail"]
"""What becomes of a background run whose process died or was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesSettings:
    """The operator's choices for one channel; the defaults are safe for a host that anybody can reach.

    Attributes:
        server_calls: How calls that the server ran itself are shown: not at all, as `function_call` and
            `function_call_output` items, or as `mcp_call` items (contract §3.6, last entry).
        server_label: The `server_label` of `mcp_call` and `mcp_approval_request` items; the target's name by default.
        reasoning: Whether reasoning is written as summary or as raw text.
        hosted_tools: What to do with hosted tool types in a request: refuse, ignore, or pass to the agent's client.
        strict_fields: Refuse unknown request fields instead of ignoring them.
        strict_model: Refuse a `model` that is not the target's name; otherwise any name selects the only target there is.
            Of several targets, each is selected by its name alone.
        error_details: Show the text of failed tool results and error contents. Never on a host that others can reach.
        keep_alive: Seconds of silence after which a stream sends a comment; 0 disables.
        done_marker: Append `data: [DONE]` after the terminal event (contract §3.1).
        max_body_bytes: Largest request body; larger ones get 413 before they are read.
        run_timeout: Seconds a run may take; `None` for no limit.
        cancel_grace: Seconds a cancelled agent gets to stop before its right to write is taken away.
        lost_runs: What becomes of a background run whose process died or was stopped. `resume`: a workflow goes on from
            its last checkpoint, if its checkpoints outlive the process, and everything else fails. `retry`: so, but what
            has no checkpoint is run again, for targets that may do the same thing twice. `fail`: it fails. Nothing is
            tried more than three times from the same place. A mapping of models to such words says so for each; those
            that are not in it get `resume`.
        max_responses: How many stored responses are kept; `None` for 10,000 in memory and no limit in a database.
        max_response_age: Seconds a stored response is kept after its end; `None` for no limit.
        max_conversations: How many conversations are kept; `None` as for responses.
        max_conversation_age: Seconds a conversation is kept after its last change; `None` for no limit.
    """

    server_calls: Literal["hide", "function_call", "mcp_call"] = "hide"
    server_label: str | None = None
    reasoning: Literal["summary", "text"] = "summary"
    hosted_tools: Literal["reject", "ignore", "pass"] = "reject"
    strict_fields: bool = False
    strict_model: bool = False
    error_details: bool = False
    keep_alive: float = 15.0
    done_marker: bool = False
    max_body_bytes: int = 32 * 1024 * 1024
    run_timeout: float | None = None
    cancel_grace: float = 5.0
    lost_runs: LostRuns | Mapping[str, LostRuns] = "resume"
    max_responses: int | None = None
    max_response_age: float | None = 30 * 86_400.0
    max_conversations: int | None = None
    max_conversation_age: float | None = None

    def check(self, models: Collection[str]) -> None:
        """Check that `lost_runs` says something, and of `models` only.

        Raises:
            ConfigurationError: it does not; a rule that nothing follows would not be missed until a process dies.
        """
        by_model = {} if isinstance(self.lost_runs, str) else self.lost_runs
        if unknown := sorted(by_model.keys() - set(models)):
            raise ConfigurationError(f"lost_runs has the model {unknown[0]!r}; there are {', '.join(sorted(models))}.")
        rules = [self.lost_runs] if isinstance(self.lost_runs, str) else list(self.lost_runs.values())
        if wrong := [rule for rule in rules if rule not in get_args(LostRuns)]:
            raise ConfigurationError(f"lost_runs has {wrong[0]!r}; known are {', '.join(get_args(LostRuns))}.")

    def rule_for_lost(self, model: str) -> LostRuns:
        """Return what becomes of a lost run of the model."""
        return self.lost_runs if isinstance(self.lost_runs, str) else self.lost_runs.get(model, "resume")
