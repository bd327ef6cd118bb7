"""One thing that callers do: the call, what the provider answers, and what of it the caller must find."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from bench.provider import Behaviour

FIXTURES = Path(__file__).parents[1] / "fixtures"
JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream; charset=utf-8"
_TYPES = {".sse": SSE_TYPE, ".json": JSON_TYPE, ".bin": "audio/mpeg"}
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
# What a provider sends besides: for the caller, and about the operator's account or connection (docs/wire.md 6.3).
TO_CALLER = {"openai-processing-ms": "12", "openai-version": "2020-10-01", "x-envoy-upstream-service-time": "7"}
NOT_TO_CALLER = {
    "set-cookie": "__cf_bm=operator; path=/",
    "openai-organization": "org-operator",
    "anthropic-organization-id": "org-operator",
    "x-ratelimit-remaining-requests": "41",
    "anthropic-ratelimit-tokens-remaining": "41",
    "cf-ray": "8f0",
    "alt-svc": "h3",
}
HEADERS = {**TO_CALLER, **NOT_TO_CALLER}


class Case(NamedTuple):
    """`call` is the method's name in Python; `model` is added to `args`. `says`: found in what the SDK returns."""

    name: str
    call: str
    args: dict[str, Any]
    answer: Behaviour
    says: str
    dialect: str
    final: str = ""
    """For the SDK's helper for streams: what it makes of all events, such as a `message`."""


def fixture(name: str) -> Behaviour:
    """A body of tests/fixtures."""
    return answer((FIXTURES / name).read_bytes(), _TYPES[Path(name).suffix])


def whole(document: Any) -> Behaviour:
    return answer(json.dumps(document).encode(), JSON_TYPE)


def stream(*documents: Any, named: bool = False, end: bytes = b"") -> Behaviour:
    """Server-sent events; `named` after their type, as Anthropic's are."""
    frames = [
        (f"event: {each['type']}\n" if named else "") + f"data: {json.dumps(each, separators=(',', ':'))}\n\n"
        for each in documents
    ]
    return answer("".join(frames).encode() + end, SSE_TYPE)


def answer(body: bytes, content_type: str) -> Behaviour:
    return Behaviour(body=body, content_type=content_type, headers=HEADERS)
