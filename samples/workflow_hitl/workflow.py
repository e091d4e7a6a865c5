"""A letter that nobody gets before a person has read it.

In a module of its own: checkpoints name types by their module, and `app.py` has two names, one when it is run (`__main__`)
and one when `afhost serve app:host` imports it.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent_framework import (
    Agent,
    AgentExecutor,
    AgentExecutorRequest,
    AgentExecutorResponse,
    Executor,
    Message,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
    register_checkpoint_type,
    response_handler,
)
from provider import chat_client  # type: ignore[import-not-found]  # a sibling, found when this is run


@dataclass(frozen=True)
class Draft:
    """What the person is asked to release."""

    letter: str


@dataclass(frozen=True)
class Verdict:
    """What the person answers, as JSON. Without a comment, what is not released is dropped."""

    released: bool
    comment: str | None = None


# The question waits in a checkpoint on disk, which is restored only if its types are registered.
register_checkpoint_type(Draft)
register_checkpoint_type(Verdict)


class Desk(Executor):
    """Asks a person about every draft, and does what the person says."""

    @handler
    async def ask(self, written: AgentExecutorResponse, ctx: WorkflowContext) -> None:
        await ctx.request_info(Draft(written.agent_response.text), Verdict)

    @response_handler
    async def decide(self, draft: Draft, verdict: Verdict, ctx: WorkflowContext[AgentExecutorRequest, str]) -> None:
        if verdict.released:
            await ctx.yield_output(f"Sent: {draft.letter}")
        elif verdict.comment:
            await ctx.send_message(AgentExecutorRequest(messages=[Message("user", [verdict.comment])]))
        else:
            await ctx.yield_output("Nothing was sent.")


clerk = Agent(
    chat_client(),
    "Write a short, friendly letter that answers the customer's complaint. What follows are wishes of the person who "
    "reads your letter first: write it anew as wished.",
    name="Clerk",
)


def build_workflow() -> Workflow:
    """Build the workflow; the host calls this once per run, so that runs share nothing."""
    writing = AgentExecutor(clerk)
    desk = Desk("Desk")
    return (
        WorkflowBuilder(name="Letters", start_executor=writing, output_from=[desk])
        .add_edge(writing, desk)
        .add_edge(desk, writing)
        .build()
    )
