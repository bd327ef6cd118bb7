"""The plainest call of each SDK, whole and as a stream, for tests that are about something else."""

import json
from typing import Any

from tests.clients.sdks import Sdk

_ASK: dict[str, dict[str, Any]] = {
    "openai": {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 200},
    "anthropic": {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 200},
    "gemini": {"contents": "Hello there", "config": {"maxOutputTokens": 200}},
}
_CALL = {"openai": "chat.completions.create", "anthropic": "messages.create", "gemini": "models.generate_content"}


def job(sdk: Sdk, *, streamed: bool = False, **args: Any) -> dict[str, Any]:
    """A call with these arguments besides."""
    call, args = _CALL[sdk.family], {**_ASK[sdk.family], **args}
    if streamed and sdk.family == "gemini":
        return {"call": f"{call}_stream", "args": args}
    return {"call": call, "args": args | ({"stream": True} if streamed else {})}


def each_way(sdk: Sdk) -> list[dict[str, Any]]:
    """Whole and streamed, with each of the SDK's clients."""
    clients = (False, True) if sdk.runs_async else (False,)
    return [job(sdk, streamed=streamed) | {"asynchronous": each} for streamed in (False, True) for each in clients]


def client_error(sdk: Sdk) -> str:
    """What Google's SDKs raise for any status from 400 to 499."""
    return "ClientError" if sdk.language == "python" else "ApiError"


def gemini_error(told: dict[str, Any]) -> dict[str, Any]:
    """The error in what Google's SDKs raise: Python has it as `details`, Node as a text."""
    found = told["details"] if "details" in told else json.loads(told["message"])
    return dict(found["error"])
