"""OpenAI chat completions: what a request asks for and what an answer used (wire.md sections 1b, 1c and 4).

The one dialect in which usage must be asked for on a stream: Weir asks where the caller did not, and swallows the extra
frame.
"""

import re
from typing import Any, ClassVar, Final

from gateway.dialects import body as json_body
from gateway.dialects import fields
from gateway.dialects.meter import (
    MOST,
    MOST_TICKS,
    Events,
    Meter,
    Tab,
    Usage,
    Whole,
    buckets,
    count,
    counts,
    inner,
    text,
)
from gateway.dialects.openai import options
from gateway.dialects.shape import Asked, Call, Outgoing

CAP_FIELD, OLD_CAP_FIELD = "max_completion_tokens", "max_tokens"
# Text that a model wrote: answers, refusals, tool arguments, and the reasoning that compatible servers show.
WRITTEN: Final = re.compile(
    rb'"(?:content|refusal|arguments|reasoning|reasoning_content)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL
)


_USAGE: Final = b'"usage"'
_NO_USAGE: Final = b'"usage":null'
_DONE: Final = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\][ \t]*(?:[\r\n]|$)")


class Chat:
    """POST /chat/completions."""

    name = "chat.completions"
    free = False

    def read(self, call: Call) -> Asked:
        parsed, plain = json_body.read_object(call.body)
        usage_switch = fields.record(parsed, "stream_options")
        streamed = fields.flag(parsed, "stream")
        # max_completion_tokens wins over its deprecated name, for the provider as for the quote (wire.md 1c).
        cap, old_cap = fields.whole(parsed, CAP_FIELD), fields.whole(parsed, OLD_CAP_FIELD)
        searched = parsed.get("web_search_options") is not None
        refers = options.refers(plain)
        return Asked(
            model=fields.model(parsed),
            streamed=streamed,
            cap=old_cap if cap is None else cap,
            choices=fields.whole(parsed, "n") or 1,
            by_reference=searched or (refers and options.opaque(plain)),
            searches=options.SEARCHES if searched else 0,
            variants=options.variants(parsed),
            sticky=fields.word(parsed, "prompt_cache_key"),
            stored=options.stored(parsed) or (options.stored_inside(parsed.get("messages")) if refers else None),
            hide_usage=streamed and not (usage_switch and usage_switch.get("include_usage")),
            parsed=parsed,
        )

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        body = fields.put_model(call.body, asked.model, model)
        if asked.hide_usage:
            body = options.with_usage(body, asked.parsed)
        if cap is not None:
            # In the caller's own field if there is one: some servers know only the old name, and both at once is an error.
            old = asked.parsed.get(CAP_FIELD) is None and asked.parsed.get(OLD_CAP_FIELD) is not None
            body = fields.put(body, asked.parsed, OLD_CAP_FIELD if old else CAP_FIELD, cap)
        return Outgoing("/chat/completions", body)

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        if content_type.startswith(b"text/event-stream"):
            return Meter(ChatTab(), Events(), hide=asked.hide_usage)
        return Meter(ChatTab(), Whole())


class ChatTab(Tab):
    """Usage of chat completions and of completions: one object in the answer, or in the last frames of a stream."""

    written: ClassVar[re.Pattern[bytes]] = WRITTEN

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Any] | None = None
        self._tier: str | None = None
        self._made: Usage | None = None

    def concerns(self, piece: bytes) -> bool:
        first = piece.find(_USAGE)
        if first < 0:
            return False
        return not piece.startswith(_NO_USAGE, first) or piece.find(_USAGE, first + len(_NO_USAGE)) >= 0

    def pass_over(self, piece: bytes) -> None:
        Tab.pass_over(self, piece)
        # A line of its own: inside a document it is what somebody wrote.
        if piece.find(b"[DONE]") >= 0 and _DONE.search(piece):
            self.done = True

    def read(self, document: dict[str, Any]) -> bool:
        self._made = None
        found = document.get("usage")
        if isinstance(found, dict):
            self._usage = found  # the last one present replaces: adding up is the classic over-count (wire.md 1b.2)
        self.model = text(document, "model") or self.model
        self._tier = text(document, "service_tier") or self._tier
        extra = isinstance(found, dict) and document.get("choices") == []
        # Usage comes last: with it a stream is whole, also from servers that never say [DONE].
        if isinstance(found, dict) and (extra or _finished(document.get("choices"))):
            self.done = True
        return extra

    def usage(self) -> Usage | None:
        if self._made is None and self._usage is not None:
            self._made = _usage(self._usage, self._tier)
        return None if self._made is None else self._made.copy()


def _usage(found: dict[str, Any], tier: str | None) -> Usage:
    prompt, completion = count(found, "prompt_tokens"), count(found, "completion_tokens")
    inputs, outputs = counts(found, "prompt_tokens_details"), counts(found, "completion_tokens_details")
    cached, written = inputs.get("cached_tokens", 0), inputs.get("cache_write_tokens", 0)
    reasoning = outputs.get("reasoning_tokens", 0)
    # xAI counts reasoning beside the completion; the total tells (wire.md 4).
    if reasoning and count(found, "total_tokens") == prompt + completion + reasoning:
        completion += reasoning
    usage: Usage = {}
    if prompt > cached + written:
        usage["input_uncached"] = prompt - cached - written
    if completion:
        usage["output"] = min(completion, MOST)
    if tier:
        usage["service_tier"] = tier
    if inputs or outputs:
        usage |= buckets(
            cache_read=cached,
            cache_write=written,
            output_reasoning=reasoning,
            input_audio=inputs.get("audio_tokens"),
            output_audio=outputs.get("audio_tokens"),
            input_image=inputs.get("image_tokens"),
        )
    if "cost_in_usd_ticks" in found or "server_side_tool_usage_details" in found:
        usage |= buckets(
            web_searches=count(inner(found, "server_side_tool_usage_details"), "web_search_calls"),
            cost_usd_ticks=count(found, "cost_in_usd_ticks", most=MOST_TICKS),
        )
    return usage


def _finished(choices: Any) -> bool:
    """Whether every choice in a chunk says why it ended."""
    return isinstance(choices, list) and all(isinstance(each, dict) and each.get("finish_reason") for each in choices)
