"""OpenAI over WebSocket: realtime sessions, and many responses on one socket (wire.md sections 1a and 1b).

A session is billed one response at a time. Each terminal event has the usage of its response; input transcriptions are
billed besides, as they finish.
"""

import re
from typing import Any, NamedTuple

import orjson
from msgspec.structs import replace

from gateway.dialects.meter import MOST, Usage, buckets, count, inner, is_billed, text
from gateway.dialects.openai.responses import Responses, ResponsesStreamTab
from gateway.dialects.shape import Asked, Call
from gateway.refusals import Refusal

_FAILED = ("cancelled", "failed")
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"


class Ended(NamedTuple):
    """Something that is billed has ended; `usage` is None if the provider did not say what it used."""

    usage: Usage | None
    model: str | None


class Realtime:
    """`/realtime?model=`: the model is in the address, and any response may bring in all that was said before."""

    name = "realtime"
    free = False
    path = "/realtime"

    def ask(self, model: str) -> Asked:
        return Asked(model=model, streamed=True, by_reference=True, capped=False)

    def ended(self, event: dict[str, Any]) -> Ended | None:
        """What an event of the provider ends, if it ends something that is billed."""
        if event.get("type") == "response.done":
            response = inner(event, "response")
            usage = response.get("usage")
            used = _spoken(usage) if isinstance(usage, dict) else None
            return Ended(_reported(used, failed=response.get("status") in _FAILED), text(response, "model"))
        if event.get("type") == _TRANSCRIBED:
            return Ended(_reported(_transcribed(inner(event, "usage")), failed=False), None)
        return None


class ResponsesSocket:
    """`/responses` over WebSocket: each `response.create` frame of the caller is a request like any other."""

    name = "responses"
    free = False
    path = "/responses"

    def __init__(self) -> None:
        self._responses = Responses()

    def ask(self, frame: bytes) -> Asked:
        """What a `response.create` frame asks for; BadBody if it cannot be served."""
        return replace(self._responses.read(Call(frame)), streamed=True)

    def write(self, frame: bytes, asked: Asked, *, model: str, cap: int | None) -> bytes:
        """The frame for the provider."""
        return self._responses.write(Call(frame), asked, model=model, cap=cap).body

    def ended(self, event: dict[str, Any]) -> Ended | None:
        tab = ResponsesStreamTab()
        tab.read(event)
        failed = event.get("type") == "response.failed"
        return Ended(_reported(tab.usage(), failed=failed), tab.model) if tab.done else None


WRITTEN = re.compile(rb'"(?:delta|transcript)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL)
_ENDS = (
    b'"response.done"',
    b'"response.completed"',
    b'"response.failed"',
    b'"response.incomplete"',
    b'_transcription.completed"',
)
_BEGINS = b'"response.created"'


def may_end(frame: bytes) -> bool:
    """Whether a frame is worth parsing: it may end something that is billed."""
    return any(mark in frame for mark in _ENDS)


def begins(frame: bytes) -> bool:
    """Whether a response, which costs, has begun."""
    return _BEGINS in frame


def answered_id(event: dict[str, Any]) -> str | None:
    """The id of the response that an event is about."""
    return text(inner(event, "response"), "id")


def error_event(refusal: Refusal) -> str:
    """A refusal in the middle of a session, as its events have it."""
    error = {
        "type": "invalid_request_error",
        "code": refusal.code.word,
        "message": refusal.message,
        "param": refusal.param,
    }
    return orjson.dumps({"type": "error", "error": error}).decode()


def _reported(usage: Usage | None, *, failed: bool) -> Usage | None:
    """A report that counts nothing, of what did not fail, is none: it would be free."""
    return usage if failed or is_billed(usage) else None


def _spoken(usage: dict[str, Any]) -> Usage:
    inputs, outputs = inner(usage, "input_token_details"), inner(usage, "output_token_details")
    cached, apart = count(inputs, "cached_tokens"), inner(inputs, "cached_tokens_details")
    return buckets(
        input_uncached=max(count(usage, "input_tokens") - cached, 0),
        cache_read=cached,
        output=count(usage, "output_tokens"),
        input_audio=max(count(inputs, "audio_tokens") - count(apart, "audio_tokens"), 0),
        input_image=max(count(inputs, "image_tokens") - count(apart, "image_tokens"), 0),
        output_audio=count(outputs, "audio_tokens"),
    )


def _transcribed(usage: dict[str, Any]) -> Usage:
    if usage.get("type") == "duration":
        seconds = usage.get("seconds")
        whole = -int(-seconds // 1) if isinstance(seconds, int | float) and 0 < seconds < MOST else 0
        return buckets(audio_seconds=whole)
    return buckets(
        input_uncached=count(usage, "input_tokens"),
        input_audio=count(inner(usage, "input_token_details"), "audio_tokens"),
        output=count(usage, "output_tokens"),
    )
