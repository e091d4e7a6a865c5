"""Which model the agent talks to: decided by the environment, the offline stand-in if nothing is set."""

from __future__ import annotations

import os
from typing import Any

from agent_framework import SupportsChatGetResponse
from offline_model import OfflineChatClient  # type: ignore[import-not-found]  # a sibling, found when this is run


def chat_client() -> SupportsChatGetResponse[Any]:
    """Return a chat client.

    `OPENAI_API_KEY` and `OPENAI_MODEL`: OpenAI. `OPENAI_BASE_URL` too: any server that has OpenAI's Chat Completions.
    `FOUNDRY_PROJECT_ENDPOINT` and `FOUNDRY_MODEL`: a model of a Foundry project; needs the packages
    `agent-framework-foundry` and `azure-identity`.
    """
    client: SupportsChatGetResponse[Any]
    # Providers are imported where they are used: only who uses one needs its packages.
    if os.environ.get("FOUNDRY_PROJECT_ENDPOINT"):
        from agent_framework.foundry import FoundryChatClient  # noqa: PLC0415
        from azure.identity.aio import DefaultAzureCredential  # type: ignore[import-not-found]  # noqa: PLC0415

        print("Model: Foundry")
        client = FoundryChatClient(credential=DefaultAzureCredential())
    elif os.environ.get("OPENAI_API_KEY"):
        from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient  # noqa: PLC0415

        base_url = os.environ.get("OPENAI_BASE_URL")
        print(f"Model: {os.environ.get('OPENAI_MODEL')} at {base_url or 'OpenAI'}")
        client = OpenAIChatCompletionClient() if base_url else OpenAIChatClient()
    else:
        print("Model: offline stand-in with fixed rules, no language model. Set OPENAI_API_KEY for a real one.")
        client = OfflineChatClient()
    return client
