"""Requests that say much: what is read of a body is in them somewhere, for mutations to damage."""

import json
from typing import Any, NamedTuple

from gateway.dialects.body import BadBody
from gateway.dialects.multipart import is_form
from gateway.dialects.shape import Asked, Call, Endpoint
from tests.corpus import SAMPLES, endpoint_of

_GEMINI = "/gemini/v1beta/models/gemini-own:"
_IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
_PARTS = [{"text": 'Hi \u00e9 "{}'}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}}]
_CONTENTS = [{"role": "user", "parts": _PARTS}]
_DRAWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
_RICH: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", {
        "model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, _IMAGE]}], "n": 2,
        "stream": True, "stream_options": {"include_usage": False, "include_obfuscation": False}, "max_tokens": None,
        "service_tier": "auto", "web_search_options": {}, "temperature": 1.10, "prompt_cache_key": "k",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"file_id": {}}}}}],
    }),
    ("/v1/chat/completions", {
        "stream_options": None, "stream": True, "model": "m", "max_completion_tokens": 7, "max_tokens": 9,
        "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}],
    }),
    ("/v1/completions", {"model": "m", "prompt": ["a", [1, 2]], "best_of": 3, "n": 2, "max_tokens": 5, "stream": True}),
    ("/v1/responses", {
        "model": "m", "stream": False, "max_output_tokens": None, "max_tool_calls": 3, "service_tier": "fast",
        "tools": [{"type": "web_search"}, {"type": "shell", "environment": {"type": "local"}}, {"type": "code_interpreter",
                  "container": {"type": "auto", "file_ids": []}}],
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}, {"type": "reasoning", "id": "rs_1"},
                  {"type": "item_reference", "id": "msg_1"}, {"type": "image_generation_call", "id": "ig", "result": "A"}],
    }),
    ("/v1/responses", {"type": "response.create", "model": "m", "input": "x", "previous_response_id": None, "store": 1}),
    ("/v1/responses/compact", {"model": "m", "input": [{"role": "user", "content": "Hi"}]}),
    ("/v1/responses/input_tokens", {"model": "m", "input": "Hi", "tools": [{"type": "function", "name": "f"}]}),
    ("/v1/embeddings", {"model": "m", "input": ["a", [1, 2]], "encoding_format": "base64"}),
    ("/v1/moderations", {"model": "m", "input": [_DRAWN]}),
    ("/v1/images/generations", {"model": "m", "prompt": "x", "n": 3, "stream": True, "partial_images": 2, "image": None}),
    ("/v1/images/edits", {"model": "m", "prompt": "x", "images": [{"file_id": "file-1"}], "mask": {"image_url": "x"}}),
    ("/v1/audio/speech", {"model": "m", "input": "Hello", "stream_format": "sse", "response_format": "wav"}),
    ("/v1/messages", {
        "model": "m", "max_tokens": None, "stream": True, "service_tier": "auto", "speed": "fast", "inference_geo": "us",
        "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "https://e.com"}},
                      {"type": "tool_result", "content": [{"type": "image", "source": {"type": "base64", "data": "AA"}}]}]}],
        "tools": [{"type": "web_search_20250305", "name": "w", "max_uses": 2}, {"name": "f", "input_schema": {}}],
        "context_management": {"edits": [{"type": "compact_20260112"}]}, "container": None, "diagnostics": {},
    }),
    ("/v1/messages/count_tokens", {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}),
    (_GEMINI + "generateContent", {
        "contents": _CONTENTS, "generationConfig": {"maxOutputTokens": None, "candidateCount": 2, "topP": 0.10},
        "tools": [{"googleSearch": {}}, {"functionDeclarations": []}], "serviceTier": "FLEX", "cachedContent": None,
    }),
    (_GEMINI + "streamGenerateContent?alt=sse", {
        "generation_config": {"candidate_count": 1}, "contents": _CONTENTS, "service_tier": "SERVICE_TIER_PRIORITY",
    }),
    (_GEMINI + "generateContent", {"contents": _CONTENTS, "generationConfig": {}, "model": "models/gemini-own"}),
    (_GEMINI + "embedContent", {"model": "models/gemini-own", "content": {"parts": [{"text": "x"}]}}),
    (_GEMINI + "batchEmbedContents", {
        "requests": [{"model": "models/gemini-own", "content": {}}, {"model": None}, {"model": "gemini-own"}],
    }),
    (_GEMINI + "countTokens", {"generateContentRequest": {"model": "models/gemini-own", "contents": _CONTENTS}}),
)  # fmt: skip
_WAYS: tuple[dict[str, Any], ...] = ({}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False})


def asked_by(endpoint: Endpoint, call: Call) -> Asked | None:
    """What a request asks for; None if it is refused, and then the caller is told why."""
    try:
        return endpoint.read(call)
    except BadBody as bad:
        why = str(bad)
    assert why
    return None


class Request(NamedTuple):
    """A request with a JSON body, and who reads it."""

    endpoint: Endpoint
    call: Call


def _rich() -> list[Request]:
    found = []
    for number, (path, body) in enumerate(_RICH):
        endpoint, target, query = endpoint_of(path)
        ways = (_WAYS[number % len(_WAYS)], _WAYS[(number + 1) % len(_WAYS)])
        calls = [Call(json.dumps(body, **way).encode(), query=query, target=target) for way in ways]
        found += [Request(endpoint, call) for call in calls]
    return found


_ANSWERED = [Request(s.endpoint, s.call) for s in SAMPLES if not is_form(s.call.content_type)]
REQUESTS = [*_rich() * 3, *{request.call: request for request in _ANSWERED}.values()]
"""The rich ones more often than those that fixtures answer."""
