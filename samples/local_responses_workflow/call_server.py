"""One turn with the official OpenAI client, streamed; with --previous-response-id the next turn of a conversation.

uv run samples/local_responses_workflow/call_server.py '{"product": "a folding bicycle", "audience": "commuters"}'
uv run samples/local_responses_workflow/call_server.py --previous-response-id resp_… "Make it shorter."
"""

from __future__ import annotations

import argparse
import sys

from openai import OpenAI, OpenAIError, omit
from openai.types.responses import Response


def turn(client: OpenAI, brief: str, previous_id: str | None) -> Response:
    """Print the answer as it comes, and what was said on the way to it, if the server shows that, in brackets."""
    with client.responses.stream(
        model="SloganWorkflow", input=brief, previous_response_id=previous_id or omit
    ) as stream:
        is_commentary = False
        for event in stream:
            if event.type == "response.output_item.added" and event.item.type == "message":
                is_commentary = event.item.phase == "commentary"
                print("[" if is_commentary else "", end="")
            elif event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
            elif event.type == "response.output_item.done":
                print("]" if is_commentary else "")
            elif event.type in {"response.completed", "response.incomplete", "response.failed"}:
                return event.response
    raise OpenAIError("The stream has no end.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("brief", help="JSON with product, audience and tone, or plain text")
    parser.add_argument("--previous-response-id", help="the response that this turn continues")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    arguments = parser.parse_args()
    try:
        response = turn(
            OpenAI(base_url=arguments.base_url, api_key="not-needed"), arguments.brief, arguments.previous_response_id
        )
    except OpenAIError as error:
        sys.exit(f"{arguments.base_url}: {error}")
    if response.status != "completed":
        sys.exit(f"{response.id} is {response.status}: {response.error.message if response.error else ''}")
    print(f"To go on: --previous-response-id {response.id}")
