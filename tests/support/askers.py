"""Targets that ask people before they do something, and write into a file what they have done.

An answer or a call that is the order's `held` stops there: it writes the file `held_in`, and never goes on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    Executor,
    FunctionInvocationLayer,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
    response_handler,
    tool,
)


class Deeds:
    """What was done, in files that outlive the process."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._witness = Path(order["witness"])
        self._held_in = Path(order["held_in"])
        self._held = order.get("held")

    async def do(self, deed: str) -> None:
        """Write down that it is done."""
        with self._witness.open("a") as witness:
            witness.write(f"{deed};")
        if deed == self._held:
            self._held_in.touch()
            await asyncio.Event().wait()


class Asker(Executor):
    """Asks `which?` whatever it is told, and does what it is answered; at `fail` it fails."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        super().__init__(id="asker")
        self._deeds = Deeds(order)

    @handler
    async def ask(self, message: str, ctx: WorkflowContext[Any, str]) -> None:
        """Ask."""
        await ctx.request_info(f"{message}: which?", str)

    @response_handler
    async def hear(self, asked: str, given: str, ctx: WorkflowContext[Any, str]) -> None:
        """Do it."""
        del asked
        await self._deeds.do(given)
        if given == "fail":
            raise ValueError(given)
        await ctx.yield_output(f"done: {given}")


class Caller(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """A model that calls the tool with what the user has said, and answers with the result."""

    def _inner_get_response(self, *, messages: Any, stream: bool, **kwargs: Any) -> Any:
        del kwargs
        results = [content.result for content in messages[-1].contents if content.type == "function_result"]
        if results:
            content = Content.from_text(f"done: {results[0]}")
        else:
            arguments = json.dumps({"deed": messages[-1].text})
            content = Content.from_function_call(f"call_{len(messages)}", "act", arguments=arguments)

        async def updates() -> Any:
            yield ChatResponseUpdate(contents=[content], role="assistant")

        async def response() -> ChatResponse[Any]:
            return ChatResponse.from_updates([update async for update in updates()])

        return self._build_response_stream(updates()) if stream else response()


def asking(order: Mapping[str, Any]) -> Workflow:
    """Return a workflow that asks."""
    return WorkflowBuilder(start_executor=Asker(order), name="asker").build()


def approving(order: Mapping[str, Any]) -> Agent[Any]:
    """Return an agent whose tool needs an approval."""
    deeds = Deeds(order)

    @tool(approval_mode="always_require")
    async def act(deed: str) -> str:
        """Do it."""
        await deeds.do(deed)
        return deed

    return Agent(client=Caller(), tools=[act], name="approving")
