"""One turn with the official OpenAI client; with --previous-response-id the next turn of a conversation.

uv run samples/custom_store/call_server.py "The key is under the mat."
uv run samples/custom_store/call_server.py --previous-response-id resp_… "The dog is called Ada."
"""

from __future__ import annotations

import argparse
import sys

from openai import OpenAI, OpenAIError, omit

parser = argparse.ArgumentParser()
parser.add_argument("note", help="what the agent is to remember")
parser.add_argument("--previous-response-id", help="the response that this turn continues")
parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
arguments = parser.parse_args()

client = OpenAI(base_url=arguments.base_url, api_key="not-needed")
try:
    response = client.responses.create(
        model="Notebook", input=arguments.note, previous_response_id=arguments.previous_response_id or omit
    )
except OpenAIError as error:
    sys.exit(f"{arguments.base_url}: {error}")
print(response.output_text)
print(f"To go on: --previous-response-id {response.id}")
