"""OpenAI's Responses API, as thin as its SDK allows: one message of one text part."""

import time
from typing import Any

import orjson

from bench.provider.answers.reply import JSON_TYPE, SSE_TYPE, Call, Reply, Words, prompt_tokens, whole, words
from bench.provider.script import Behaviour

_Event = tuple[str, dict[str, Any]]


def respond(call: Call, behaviour: Behaviour) -> Reply:
    said = words(behaviour, call.body.get("max_output_tokens"))
    usage = _usage(prompt_tokens(call.body), said.total) if behaviour.usage is None else behaviour.usage
    if call.streamed:
        reply = _stream(call, behaviour, said, usage)
    else:
        done = _done(call, behaviour, said, usage)
        reply = whole(orjson.dumps(done), JSON_TYPE, behaviour.chunks)
    return reply._replace(
        prompt_tokens=usage.get("input_tokens") or 0,
        completion_tokens=usage.get("output_tokens") or 0,
        billed=True,
    )


def _stream(call: Call, behaviour: Behaviour, said: Words, usage: dict[str, Any]) -> Reply:
    started = _response(call)
    place: dict[str, Any] = {"output_index": 0, "content_index": 0, "item_id": f"msg_{call.number}"}
    empty: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
    opening: list[_Event] = [
        ("response.created", {"response": started}),
        ("response.in_progress", {"response": started}),
        ("response.output_item.added", {"output_index": 0, "item": _item(call, "in_progress", [])}),
        ("response.content_part.added", {**place, "part": empty}),
    ]
    deltas: list[_Event] = [
        ("response.output_text.delta", {**place, "delta": piece, "logprobs": []}) for piece in said.pieces
    ]
    part = {**empty, "text": said.text}
    end = _done(call, behaviour, said, usage)
    closing: list[_Event] = [
        ("response.output_text.done", {**place, "text": said.text, "logprobs": []}),
        ("response.content_part.done", {**place, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": _item(call, "completed", [part])}),
        (f"response.{end['status']}", {"response": end}),
    ]
    frames = [
        _sse(kind, {"type": kind, "sequence_number": number, **data})
        for number, (kind, data) in enumerate([*opening, *deltas, *closing])
    ]
    broken = {"type": "error", "code": "server_error", "message": "The server had an error.", "param": None}
    return Reply(
        content_type=SSE_TYPE,
        opening=b"".join(frames[: len(opening)]),
        pieces=frames[len(opening) : -len(closing)],
        closing=b"".join(frames[-len(closing) :]),
        error=_sse("error", {**broken, "sequence_number": len(frames)}),
        piece_tokens=said.counts,
    )


def _response(call: Call) -> dict[str, Any]:
    return {
        "id": f"resp_{call.number}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": call.body.get("max_output_tokens"),
        "model": call.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
    }


def _done(call: Call, behaviour: Behaviour, said: Words, usage: dict[str, Any]) -> dict[str, Any]:
    part = {"type": "output_text", "text": said.text, "annotations": []}
    return {
        **_response(call),
        "status": "incomplete" if said.capped else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if said.capped else None,
        "output": [_item(call, "completed", [part])],
        "usage": None if behaviour.omit_usage else usage,
    }


def _item(call: Call, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"msg_{call.number}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }


def _sse(event: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), orjson.dumps(data))
