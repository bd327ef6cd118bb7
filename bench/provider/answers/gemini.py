"""Gemini's native wire format: generateContent, streamGenerateContent, countTokens, embeddings, models."""

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

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error(status: int, message: str) -> dict[str, Any]:
    # `error` first and `code` an integer: the Python SDK overlooks any other form inside a stream.
    return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}}


def respond(call: Call, behaviour: Behaviour) -> Reply:
    if call.endpoint == "models":
        model = {"name": "models/gemini-2.5-flash", "version": "001", "displayName": "Gemini"}
        return whole(orjson.dumps({"models": [model]}), JSON_TYPE, behaviour.chunks)
    if call.endpoint == "embeddings":
        answer = {"embeddings": [{"values": [0.25, -0.5]}]}
        return whole(orjson.dumps(answer), JSON_TYPE, behaviour.chunks)._replace(billed=True)
    prompt = prompt_tokens(call.body)
    if call.endpoint == "count_tokens":
        return whole(orjson.dumps({"totalTokens": prompt}), JSON_TYPE, behaviour.chunks)
    config = call.body.get("generationConfig") or call.body.get("generation_config")
    settings = config if isinstance(config, dict) else {}
    said = words(behaviour, settings.get("maxOutputTokens") or settings.get("max_output_tokens"))
    usage = _usage(prompt, said.total) if behaviour.usage is None else behaviour.usage
    if call.streamed:
        reply = _stream(call, behaviour, said, prompt, usage)
    else:
        answer = _answer(call, said.text, _finish(said), None if behaviour.omit_usage else usage)
        reply = whole(orjson.dumps(answer), JSON_TYPE, behaviour.chunks)
    return reply._replace(
        prompt_tokens=_sum(usage, "promptTokenCount", "toolUsePromptTokenCount"),
        completion_tokens=_sum(usage, "candidatesTokenCount", "thoughtsTokenCount"),
        billed=True,
    )


GEMINI = Dialect(respond, error, "x-request-id")


def _stream(call: Call, behaviour: Behaviour, said: Words, prompt: int, usage: dict[str, Any]) -> Reply:
    """Running totals on every chunk; a scripted usage only on the last one, which has the finish reason."""
    counted = not behaviour.omit_usage and behaviour.usage is None
    chunks: list[dict[str, Any]] = []
    so_far = 0
    for piece, count in zip(said.pieces, said.counts, strict=True):
        so_far += count
        chunks.append(_answer(call, piece, None, _usage(prompt, so_far) if counted else None))
    last = _answer(call, "", _finish(said), None if behaviour.omit_usage else usage)
    broken = error(503, "The model is overloaded. Please try again later.")
    if call.sse:
        return Reply(
            content_type=SSE_TYPE,
            pieces=[_sse(chunk) for chunk in chunks],
            closing=_sse(last),
            error=_sse(broken),
            piece_tokens=said.counts,
        )
    return Reply(
        content_type=JSON_TYPE,
        opening=b"[",
        pieces=[_pretty(chunk) + b",\r\n" for chunk in chunks],
        closing=_pretty(last) + b"]",
        error=_pretty(broken) + b"]",
        piece_tokens=said.counts,
    )


def _answer(call: Call, text: str, finish: str | None, usage: dict[str, Any] | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    answer: dict[str, Any] = {"candidates": [candidate]}
    if usage is not None:
        answer["usageMetadata"] = usage
    return {**answer, "modelVersion": call.model, "responseId": f"resp{call.number}"}


def _finish(said: Words) -> str:
    return "MAX_TOKENS" if said.capped else "STOP"


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": completion,
        "totalTokenCount": prompt + completion,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    }


def _sum(usage: dict[str, Any], *names: str) -> int:
    return sum(usage.get(name) or 0 for name in names)


def _sse(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _pretty(data: dict[str, Any]) -> bytes:
    return orjson.dumps(data, option=orjson.OPT_INDENT_2)
