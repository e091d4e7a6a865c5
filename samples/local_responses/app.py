"""An agent with one tool behind the Responses API.

uv run samples/local_responses/app.py [--port 8000]
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import Annotated

from agent_framework import Agent
from provider import chat_client  # type: ignore[import-not-found]  # a sibling, found when this is run
from pydantic import Field

from agent_framework_hosting import AgentFrameworkHost, ChannelRequest
from agent_framework_hosting_responses import ResponsesChannel

CLIENT, REASONING_PRESET = chat_client()


def get_weather(city: Annotated[str, Field(description="Name of the city, in English.")]) -> str:
    """Say what the weather in a city is like."""
    skies = ("rain", "clear sky", "clouds", "light rain")
    return f"{skies[len(city) % 4]}, {10 + len(city)} °C"


def run_hook(request: ChannelRequest, **_: object) -> ChannelRequest:
    """Decide what of a caller's request reaches the agent.

    Without a hook nothing does. With one, everything that it leaves in `options` does: here also `instructions` and `tools`.
    """
    options = {k: v for k, v in (request.options or {}).items() if k not in {"model", "temperature", "store"}}
    return replace(request, options={**options, **REASONING_PRESET})


agent = Agent(
    CLIENT,
    "You answer questions about the weather. Ask the tool, never guess.",
    name="WeatherAgent",
    tools=[get_weather],
)
host = AgentFrameworkHost(agent, channels=[ResponsesChannel(run_hook=run_hook)])

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    host.serve(port=parser.parse_args().port)
