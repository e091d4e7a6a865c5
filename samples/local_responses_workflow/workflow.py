"""The workflow: a writer, a legal reviewer, a formatter.

In a module of its own: checkpoints name types by their module, and `app.py` has two names, one when it is run (`__main__`)
and one when `afhost serve app:host` imports it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

from agent_framework import (
    Agent,
    AgentExecutor,
    AgentExecutorRequest,
    Executor,
    Message,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
    register_checkpoint_type,
)
from offline_model import lay_out, review, write  # type: ignore[import-not-found]  # a sibling, found when this is run
from provider import chat_client  # type: ignore[import-not-found]  # another

from agent_framework_hosting_responses.protocol.errors import RequestError


@dataclass(frozen=True)
class Brief:
    """What is to be written. A caller sends it as JSON; plain text becomes `product` alone."""

    product: str
    audience: str | None = None
    tone: str | None = None


# Values of one's own type in a checkpoint on disk are restored only if the type is registered.
register_checkpoint_type(Brief)


class BriefIntake(Executor):
    """Puts the brief to the writer in words."""

    @handler
    async def take(self, brief: Brief, ctx: WorkflowContext[AgentExecutorRequest]) -> None:
        lines = [
            f"{field.name.capitalize()}: {value}" for field in fields(Brief) if (value := getattr(brief, field.name))
        ]
        await ctx.send_message(AgentExecutorRequest(messages=[Message("user", ["\n".join(lines)])]))


def to_brief(text: str) -> Brief:
    """Read a brief.

    Raises:
        RequestError: the text is a JSON object, but no brief; the caller gets a 400.
    """
    if not text.startswith("{"):
        return Brief(product=text)
    try:
        members = json.loads(text)
    except ValueError:
        raise RequestError("The brief is not valid JSON.", param="input") from None
    names = {field.name for field in fields(Brief)}
    if not members.keys() <= names or not all(isinstance(value, str) for value in members.values()):
        raise RequestError(f"A brief has only the members {', '.join(sorted(names))}, all strings.", param="input")
    if "product" not in members:
        raise RequestError("A brief needs the member product.", param="input")
    return Brief(**members)


writer = Agent(
    chat_client(write), "Write a slogan for the product in the brief, or revise your last one.", name="Writer"
)
reviewer = Agent(
    chat_client(review),
    "You are a legal reviewer. Return the text without promises that cannot be kept, and a last line that says what you "
    "struck out.",
    name="LegalReviewer",
)
formatter = Agent(
    chat_client(lay_out),
    "Set the text as Markdown: the slogan in bold, the reviewer's last line below it in italics.",
    name="Formatter",
)


def build_workflow() -> Workflow:
    """Build the workflow; the host calls this once per run, so that runs share nothing."""
    intake = BriefIntake("Intake")
    writing = AgentExecutor(writer)
    reviewing = AgentExecutor(reviewer, context_mode="last_agent")
    formatting = AgentExecutor(formatter, context_mode="last_agent")
    return (
        WorkflowBuilder(
            name="SloganWorkflow",
            start_executor=intake,
            output_from=[formatting],
            intermediate_output_from=[writing, reviewing],
        )
        .add_chain([intake, writing, reviewing, formatting])
        .build()
    )
