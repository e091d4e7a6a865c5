"""Start the workflow, look at what it asks, answer: each in a process of its own, with the official OpenAI client.

uv run samples/workflow_hitl/call_server.py start "My kettle arrived broken." [--background]
uv run samples/workflow_hitl/call_server.py show resp_…
uv run samples/workflow_hitl/call_server.py answer resp_… yes
uv run samples/workflow_hitl/call_server.py answer resp_… no [--comment "We will send you a new one."]
"""

from __future__ import annotations

import argparse
import json
import sys

from openai import OpenAI, OpenAIError
from openai.types.responses import Response, ResponseFunctionToolCall


def question_in(response: Response) -> ResponseFunctionToolCall | None:
    """Return what the response asks: a function call, whose output is the answer."""
    return next((item for item in response.output if item.type == "function_call"), None)


def start(client: OpenAI, complaint: str, *, background: bool) -> Response:
    return client.responses.create(model="Letters", input=complaint, background=background)


def answer(client: OpenAI, response_id: str, *, released: bool, comment: str | None) -> Response:
    question = question_in(client.responses.retrieve(response_id))
    if question is None:
        sys.exit(f"{response_id} asks nothing.")
    verdict = json.dumps({"released": released, "comment": comment})
    return client.responses.create(
        model="Letters",
        input=[{"type": "function_call_output", "call_id": question.call_id, "output": verdict}],
        previous_response_id=response_id,
    )


def tell(response: Response) -> None:
    """Print where the letter stands."""
    question = question_in(response)
    if question is not None:
        print(json.loads(question.arguments)["request"]["letter"])
        print(f"To answer: answer {response.id} yes")
    elif response.status in {"queued", "in_progress"}:
        print(f"It is being written. To look: show {response.id}")
    else:
        print(response.output_text or f"{response.id} is {response.status}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help="have a letter written")
    starting.add_argument("complaint", help="what the customer wrote")
    starting.add_argument("--background", action="store_true", help="do not wait for the draft")
    showing = commands.add_parser("show", help="print where a letter stands")
    showing.add_argument("response_id")
    answering = commands.add_parser("answer", help="say what is to become of a draft")
    answering.add_argument("response_id")
    answering.add_argument("released", choices=["yes", "no"], help="whether it is sent")
    answering.add_argument("--comment", help="with no: what is to change; without it the draft is dropped")
    arguments = parser.parse_args()

    client = OpenAI(base_url=arguments.base_url, api_key="not-needed")
    try:
        match arguments.command:
            case "start":
                tell(start(client, arguments.complaint, background=arguments.background))
            case "show":
                tell(client.responses.retrieve(arguments.response_id))
            case "answer":
                is_released = arguments.released == "yes"
                tell(answer(client, arguments.response_id, released=is_released, comment=arguments.comment))
    except OpenAIError as error:
        sys.exit(f"{arguments.base_url}: {error}")
