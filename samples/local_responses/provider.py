"""Which model the agent talks to: decided by the environment, the offline stand-in if nothing is set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from agent_framework import SupportsChatGetResponse
from offline_model import OfflineChatClient  # type: ignore[import-not-found]  # a sibling, found when this is run


def chat_client() -> tuple[SupportsChatGetResponse[Any], Mapping[str, object]]:
    """Return a chat client, and the reasoning preset in the words of that client.

    - `FOUNDRY_PROJECT_ENDPOINT` and `FOUNDRY_MODEL`: a model of a Foundry project. Needs the packages
      `agent-framework-foundry` and `azure-identity`.
    - `OPENAI_API_KEY` and `OPENAI_MODEL`: OpenAI.
    - `OPENAI_BASE_URL` too: any OpenAI-compatible server. `OPENAI_API` says which of the two APIs it has: `chat`
      (Chat Completions; the default for a base URL) or `responses`.
    """
    if os.environ.get("FOUNDRY_PROJECT_ENDPOINT"):
        # Imported here: only who uses a provider needs its packages.
        from agent_framework.foundry import FoundryChatClient  # noqa: PLC0415
        from azure.identity.aio import DefaultAzureCredential  # type: ignore[import-not-found]  # noqa: PLC0415

        print("Model: Foundry")
        return FoundryChatClient(credential=DefaultAzureCredential()), {"reasoning": {"effort": "low"}}
    if os.environ.get("OPENAI_API_KEY"):
        from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient  # noqa: PLC0415

        base_url = os.environ.get("OPENAI_BASE_URL")
        api = os.environ.get("OPENAI_API") or ("chat" if base_url else "responses")
        print(f"Model: {os.environ.get('OPENAI_MODEL')} at {base_url or 'OpenAI'}, {api} API")
        if api == "chat":
            return OpenAIChatCompletionClient(), {"reasoning_effort": "low"}
        return OpenAIChatClient(), {"reasoning": {"effort": "low", "summary": "auto"}}
    print("Model: offline stand-in with fixed rules, no language model. Set OPENAI_API_KEY for a real one.")
    offline: SupportsChatGetResponse[Any] = OfflineChatClient()
    return offline, {"reasoning": {"effort": "low", "summary": "auto"}}
