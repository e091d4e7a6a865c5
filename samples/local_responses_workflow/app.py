"""A workflow behind the Responses API: a writer, a legal reviewer, a formatter.

uv run samples/local_responses_workflow/app.py [--port 8000]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent_framework import Message
from workflow import build_workflow, to_brief  # type: ignore[import-not-found]  # a sibling, found when this is run

from agent_framework_hosting import AgentFrameworkHost, ChannelRequest
from agent_framework_hosting.targets.workflow import WorkflowTarget
from agent_framework_hosting_responses import ResponsesChannel

STATE = Path(os.environ.get("STATE") or Path(__file__).parent / "state")


def run_hook(request: ChannelRequest, **_: object) -> ChannelRequest:
    """Turn the caller's text into a brief. A workflow takes no chat options, so none are passed on."""
    messages = request.input if isinstance(request.input, Sequence) else ()
    last = messages[-1] if messages else None
    text = last.text.strip() if isinstance(last, Message) else ""
    return replace(request, input=to_brief(text), options=None)


# `AgentFrameworkHost(build_workflow, …)` is enough for a workflow whose intermediate outputs stay hidden.
target = WorkflowTarget(build_workflow, intermediate_outputs="commentary" if os.environ.get("SHOW_DRAFTS") else "hide")
host = AgentFrameworkHost(target, channels=[ResponsesChannel(run_hook=run_hook)], state_dir=STATE)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    host.serve(port=parser.parse_args().port)
