"""A workflow that asks a person, and waits for as long as the person takes.

uv run samples/workflow_hitl/app.py [--port 8000]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from workflow import build_workflow  # type: ignore[import-not-found]  # a sibling, found when this is run

from agent_framework_hosting import AgentFrameworkHost
from agent_framework_hosting_responses import ResponsesChannel

STATE = Path(os.environ.get("STATE") or Path(__file__).parent / "state")

host = AgentFrameworkHost(build_workflow, channels=[ResponsesChannel()], state_dir=STATE)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    host.serve(port=parser.parse_args().port)
