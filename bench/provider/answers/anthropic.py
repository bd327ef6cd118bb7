"""Anthropic's wire format: messages, count_tokens, models."""

from typing import Any

import orjson

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

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error(status: int, message: str) -> dict[str, Any]:
    kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}


def respond(call: Call, behaviour: Behaviour) -> Reply:
    if call.endpoint == "models":
        model = {
            "type": "model",
            "id": "claude-sonnet-4-5",
            "display_name": "Claude",
            "created_at": "2025-09-29T00:00:00Z",
        }
        page = {"data": [model], "has_more": False, "first_id": model["id"], "last_id": model["id"]}
        return whole(orjson.dumps(page), JSON_TYPE, behaviour.chunks)
    prompt = prompt_tokens(call.body)
    if call.endpoint == "count_tokens":
        return whole(orjson.dumps({"input_tokens": prompt}), JSON_TYPE, behaviour.chunks)
    said = words(behaviour, call.body.get("max_tokens"))
    usage = _usage(prompt, said.total) if behaviour.usage is None else behaviour.usage
    if call.streamed:
        reply = _stream(call, behaviour, said, usage)
    else:
        content = [{"type": "text", "text": said.text, "citations": None}]
        stop = "max_tokens" if said.capped else "end_turn"
        message = _message(call, content, stop, None if behaviour.omit_usage else usage)
        reply = whole(orjson.dumps(message), JSON_TYPE, behaviour.chunks)
    cached = (usage.get("cache_creation_input_tokens") or 0) + (usage.get("cache_read_input_tokens") or 0)
    return reply._replace(
        prompt_tokens=(usage.get("input_tokens") or 0) + cached,
        completion_tokens=usage.get("output_tokens") or 0,
        billed=True,
    )


ANTHROPIC = Dialect(respond, error, "request-id")


def _stream(call: Call, behaviour: Behaviour, said: Words, usage: dict[str, Any]) -> Reply:
    """Usage comes twice: at the start, with no output yet, and cumulative at the end, to replace it."""
    begun = None if behaviour.omit_usage else {**usage, "output_tokens": 1}
    block = {"type": "text", "text": "", "citations": None}
    stop = "max_tokens" if said.capped else "end_turn"
    final = {} if behaviour.omit_usage else {"usage": _cumulative(usage)}
    delta = {"delta": {"stop_reason": stop, "stop_sequence": None}, **final}
    return Reply(
        content_type=SSE_TYPE,
        opening=_sse("message_start", {"message": _message(call, [], None, begun)})
        + _sse("ping", {})
        + _sse("content_block_start", {"index": 0, "content_block": block}),
        pieces=[
            _sse("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": piece}})
            for piece in said.pieces
        ],
        closing=_sse("content_block_stop", {"index": 0}) + _sse("message_delta", delta) + _sse("message_stop", {}),
        error=_sse("error", error(529, "Overloaded")),
        piece_tokens=said.counts,
    )


def _message(
    call: Call, content: list[dict[str, Any]], stop: str | None, usage: dict[str, Any] | None
) -> dict[str, Any]:
    message = {
        "id": f"msg_{call.number}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
    }
    return message if usage is None else {**message, "usage": usage}


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": completion,
        "service_tier": "standard",
    }


def _cumulative(usage: dict[str, Any]) -> dict[str, Any]:
    only_at_start = ("cache_creation", "service_tier", "speed", "inference_geo")
    return {name: value for name, value in usage.items() if name not in only_at_start}


def _sse(event: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), orjson.dumps({"type": event, **data}))
