"""An agent that pays only what a person has approved.

uv run samples/approval/app.py [--port 8000]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Annotated

from agent_framework import Agent, tool
from provider import chat_client  # type: ignore[import-not-found]  # a sibling, found when this is run
from pydantic import Field

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting_responses import ResponsesChannel

STATE = Path(os.environ.get("STATE") or Path(__file__).parent / "state")


@tool(approval_mode="always_require")
def pay(
    name: Annotated[str, Field(description="Who gets the money.")],
    euros: Annotated[int, Field(description="How much, in euros.", gt=0)],
) -> str:
    """Pay somebody."""
    with (STATE / "payments.txt").open("a", encoding="utf-8") as payments:
        payments.write(f"{name}: {euros} euros\n")
    return f"{euros} euros to {name}"


agent = Agent(
    chat_client(),
    "You are a cashier. Pay what you are asked to pay with the tool, and say what was paid and what was not.",
    name="Cashier",
    tools=[pay],
)
# What was asked and is not answered yet lies in the same place as everything else: it outlives the server.
host = AgentFrameworkHost(agent, channels=[ResponsesChannel()], state_dir=STATE)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    host.serve(port=parser.parse_args().port)
