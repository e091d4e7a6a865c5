"""An agent whose sessions lie in a store of the application's own; everything else lies in a SQLite file.

uv run samples/custom_store/app.py [--port 8000]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from agent_framework import Agent
from json_session_store import JsonSessionStore  # type: ignore[import-not-found]  # a sibling, found when this is run
from offline_model import OfflineChatClient  # type: ignore[import-not-found]  # as above

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting_responses import ResponsesChannel

STATE = Path(os.environ.get("STATE") or Path(__file__).parent / "state")

agent = Agent(OfflineChatClient(), "Remember what you are told.", name="Notebook")
host = AgentFrameworkHost(
    agent,
    channels=[ResponsesChannel()],
    state_dir=STATE / "host",
    session_store=JsonSessionStore(STATE / "own sessions"),
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    host.serve(port=parser.parse_args().port)
