"""One turn with the official OpenAI client, streamed; with --previous-response-id the next turn of a conversation.

uv run samples/local_responses_workflow/call_server.py '{"product": "a folding bicycle", "audience": "commuters"}'
uv run samples/local_responses_workflow/call_server.py --previous-response-id resp_… "Make it shorter."
"""

from __future__ import annotations

import argparse

from openai import OpenAI, omit

parser = argparse.ArgumentParser()
parser.add_argument("brief", help="JSON with product, audience and tone, or plain text")
parser.add_argument("--previous-response-id", help="the response that this turn continues")
parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
arguments = parser.parse_args()

client = OpenAI(base_url=arguments.base_url, api_key="not-needed")
with client.responses.stream(
    model="SloganWorkflow",
    input=arguments.brief,
    previous_response_id=arguments.previous_response_id or omit,
) as stream:
    for event in stream:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
    response = stream.get_final_response()
print()
print(f"To go on: --previous-response-id {response.id}")
