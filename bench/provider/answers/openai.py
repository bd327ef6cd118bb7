"""OpenAI's wire format (and xAI's): chat completions, completions, embeddings, models."""

import base64
import struct
import time
from typing import Any

import orjson

from bench.provider.answers import responses
from bench.provider.answers.reply import (
    JSON_TYPE,
    SSE_TYPE,
    Call,
    Dialect,
    Reply,
    Words,
    prompt_tokens,
    whole,
    words,
)
from bench.provider.script import Behaviour

MODELS = ("gpt-4.1", "gpt-4.1-mini", "text-embedding-3-small")
_VECTOR = (0.25, -0.5, 1.0)
_DONE = b"data: [DONE]\n\n"
_ERRORS: dict[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def error(status: int, message: str) -> dict[str, Any]:
    kind, code = _ERRORS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def respond(call: Call, behaviour: Behaviour) -> Reply:
    if call.endpoint == "models":
        return _models(behaviour)
    if call.endpoint == "plain":  # what is scripted in whole; by itself it says nothing, for nothing
        return whole(b"{}", JSON_TYPE, behaviour.chunks)
    if call.endpoint == "embeddings":
        return _embeddings(call, behaviour)
    if call.endpoint == "responses":
        return responses.respond(call, behaviour)
    return _completion(call, behaviour)


OPENAI = Dialect(respond, error, "x-request-id")


def _completion(call: Call, behaviour: Behaviour) -> Reply:
    body = call.body
    said = words(behaviour, body.get("max_completion_tokens") or body.get("max_tokens"))
    given = body.get("n")
    choices = given if isinstance(given, int) else 1
    usage = _usage(prompt_tokens(body), said.total * choices) if behaviour.usage is None else behaviour.usage
    if call.streamed:
        return _stream(call, behaviour, said, choices, usage)
    chat = call.endpoint == "chat"
    answer = _head(call, "chat.completion" if chat else "text_completion")
    finish = "length" if said.capped else "stop"
    message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None, "annotations": []}
    content: dict[str, Any] = {"message": message} if chat else {"text": said.text}
    answer["choices"] = [
        {"index": index, **content, "logprobs": None, "finish_reason": finish} for index in range(choices)
    ]
    if not behaviour.omit_usage:
        answer["usage"] = usage
    return _billed(whole(orjson.dumps(answer), JSON_TYPE, behaviour.chunks), usage)


def _stream(call: Call, behaviour: Behaviour, said: Words, choices: int, usage: dict[str, Any]) -> Reply:
    """With `include_usage` every chunk has `usage: null` but an extra last one, which has no choices."""
    chat = call.endpoint == "chat"
    head = _head(call, "chat.completion.chunk" if chat else "text_completion")
    options = call.body.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True and not behaviour.omit_usage

    def frame(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        content = {"delta": delta} if chat else {"text": delta.get("content", "")}
        choice = {"index": index, **content, "logprobs": None, "finish_reason": finish}
        chunk = {**head, "choices": [choice]}
        return _sse({**chunk, "usage": None} if asked else chunk)

    each = range(choices)
    finish = "length" if said.capped else "stop"
    closing = [frame(index, {}, finish) for index in each]
    if asked:
        closing.append(_sse({**head, "choices": [], "usage": usage}))
    first = {"role": "assistant", "content": "", "refusal": None}
    return _billed(
        Reply(
            content_type=SSE_TYPE,
            opening=b"".join(frame(index, first) for index in each) if chat else b"",
            pieces=[frame(index, {"content": piece}) for piece in said.pieces for index in each],
            closing=b"".join([*closing, _DONE]),
            error=_sse(error(500, "The server had an error while processing your request.")),
            piece_tokens=[count for count in said.counts for _ in each],
        ),
        usage,
    )


def _embeddings(call: Call, behaviour: Behaviour) -> Reply:
    """One small vector for each input, in base64 unless floats are asked for."""
    given = call.body.get("input", "")
    several = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
    floats = call.body.get("encoding_format") != "base64"
    vector = list(_VECTOR) if floats else base64.b64encode(struct.pack("<3f", *_VECTOR)).decode()
    count = prompt_tokens(call.body)
    usage = {"prompt_tokens": count, "total_tokens": count} if behaviour.usage is None else behaviour.usage
    answer: dict[str, Any] = {
        "object": "list",
        "model": call.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index in range(len(given) if several else 1)
        ],
    }
    if not behaviour.omit_usage:
        answer["usage"] = usage
    return _billed(whole(orjson.dumps(answer), JSON_TYPE, behaviour.chunks), usage)


def _models(behaviour: Behaviour) -> Reply:
    data = [{"id": name, "object": "model", "created": 1741569952, "owned_by": "openai"} for name in MODELS]
    return whole(orjson.dumps({"object": "list", "data": data}), JSON_TYPE, behaviour.chunks)


def _head(call: Call, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{call.number}",
        "object": kind,
        "created": int(time.time()),
        "model": call.model,
        "service_tier": "default",
        "system_fingerprint": "fp_scripted",
    }


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _billed(reply: Reply, usage: dict[str, Any]) -> Reply:
    return reply._replace(
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        billed=True,
    )


def _sse(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
