"""Two chained turns with the official OpenAI client; the second one streamed.

uv run samples/local_responses/call_server.py [--base-url http://127.0.0.1:8000/v1]
"""

from __future__ import annotations

import argparse
import sys

from openai import OpenAI, OpenAIError

parser = argparse.ArgumentParser()
parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
parser.add_argument("--city", default="Lisbon")
arguments = parser.parse_args()

client = OpenAI(base_url=arguments.base_url, api_key="not-needed")

try:
    # The run hook of the server takes the temperature away: it is echoed, and never reaches the model.
    first = client.responses.create(input=f"What is the weather like in {arguments.city}?", temperature=0.2)
    print(f"Turn 1: {first.output_text}")

    # No city in this question: only who has read turn 1 can answer it.
    print("Turn 2: ", end="")
    with client.responses.stream(
        model=first.model, input="Do I need an umbrella there?", previous_response_id=first.id
    ) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
        second = stream.get_final_response()
    print()
    print(f"Turn 2 continued {second.previous_response_id}, which was {first.id}")
except OpenAIError as error:
    sys.exit(f"{arguments.base_url}: {error}")
