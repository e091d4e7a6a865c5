"""A turn with the official OpenAI client, which asks on the terminal before a tool runs.

uv run samples/approval/call_server.py "Pay 20 euros to Ada."
uv run samples/approval/call_server.py --previous-response-id resp_…    answer what that response asks
"""

from __future__ import annotations

import argparse
import sys

from openai import OpenAI, OpenAIError, omit
from openai.types.responses import Response
from openai.types.responses.response_input_param import McpApprovalResponse
from openai.types.responses.response_output_item import McpApprovalRequest


def asked_in(response: Response) -> list[McpApprovalRequest]:
    """Return the approvals that the response asks for."""
    return [item for item in response.output if item.type == "mcp_approval_request"]


def answer(request: McpApprovalRequest) -> McpApprovalResponse:
    """Ask on the terminal.

    Raises:
        EOFError: nobody answers.
    """
    said = ""
    while said not in {"y", "n"}:
        said = (
            input(f"The agent wants to call {request.name} with {request.arguments}. Approve? [y/n] ").strip().lower()
        )
    return {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": said == "y"}


def converse(client: OpenAI, text: str | None, previous_id: str | None) -> None:
    """Print the answer to `text`, or to the approvals that the response `previous_id` asks for."""
    if text is None and previous_id is not None:
        response = client.responses.retrieve(previous_id)
    else:
        response = client.responses.create(model="Cashier", input=text or "", previous_response_id=previous_id or omit)
    while requests := asked_in(response):
        try:
            answers = [answer(request) for request in requests]
        except (EOFError, KeyboardInterrupt):
            sys.exit(f"\nNot answered. Later: --previous-response-id {response.id}")
        response = client.responses.create(model="Cashier", input=[*answers], previous_response_id=response.id)
    print(response.output_text)
    print(f"To go on: --previous-response-id {response.id}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("text", nargs="?", help="what to ask the agent for; left out: answer what it has asked")
    parser.add_argument("--previous-response-id", help="the response that this turn continues")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    arguments = parser.parse_args()
    if arguments.text is None and arguments.previous_response_id is None:
        parser.error("say what to ask for, or name a response that waits for an approval")
    try:
        converse(
            OpenAI(base_url=arguments.base_url, api_key="not-needed"), arguments.text, arguments.previous_response_id
        )
    except OpenAIError as error:
        sys.exit(f"{arguments.base_url}: {error}")
