"""Anthropic messages: what a request asks for and what an answer used (wire.md sections 2b and 2c)."""

import re
from typing import Any, ClassVar

from gateway.dialects import body as json_body
from gateway.dialects import fields
from gateway.dialects.anthropic import options
from gateway.dialects.anthropic.usage import Counts, disjoint, merged
from gateway.dialects.meter import CountTab, Events, Meter, Tab, Usage, Whole, inner, text
from gateway.dialects.shape import Asked, Call, Outgoing

CAP_FIELD = "max_tokens"
_BEGINS = b'"content_block_start"'


class Messages:
    """POST /v1/messages."""

    name = "messages"
    free = False

    def read(self, call: Call) -> Asked:
        parsed = json_body.parse_object(call.body)
        options.check(parsed)
        return Asked(
            model=fields.model(parsed),
            streamed=fields.flag(parsed, "stream"),
            # Zero is a request too: it fills the prompt cache and writes nothing.
            cap=fields.whole(parsed, CAP_FIELD, least=0),
            by_reference=options.by_reference(parsed),
            searches=options.searches(parsed),
            variants=options.variants(parsed),
            others=options.others(parsed),
            stored=options.stored(parsed),
            needs_cap=True,
            extra_input=options.TOOL_PROMPT if parsed.get("tools") else 0,
            parsed=parsed,
        )

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        body = fields.put_model(call.body, asked.model, model)
        if cap is not None:
            body = fields.put(body, asked.parsed, CAP_FIELD, cap)
        return Outgoing("/v1/messages" + _beta(call), body)

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        del asked
        return Meter(MessagesTab(), Events() if content_type.startswith(b"text/event-stream") else Whole())


class CountTokens:
    """POST /v1/messages/count_tokens, which costs nothing."""

    name = "count_tokens"
    free = True

    def read(self, call: Call) -> Asked:
        parsed = json_body.parse_object(call.body)
        return Asked(
            model=fields.model(parsed), writes=False, stored=options.stored(parsed), capped=False, parsed=parsed
        )

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        del cap  # there is nothing to cap
        body = fields.put_model(call.body, asked.model, model)
        return Outgoing("/v1/messages/count_tokens" + _beta(call), body)

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        del asked, content_type
        return Meter(CountTab(), Whole())


def _beta(call: Call) -> str:
    """The one thing that SDKs put in the query (wire.md 2a)."""
    return "?beta=true" if b"beta=true" in call.query.split(b"&") else ""


class MessagesTab(Tab):
    """Usage of a message: one object in the answer; in a stream the whole of it at first, then what has changed."""

    marks: ClassVar[tuple[bytes, ...]] = (b'"usage"', b'"message_stop"', b'"error"')
    # Text, thinking, the input of tools, and what a compaction wrote; signatures are no output.
    written: ClassVar[re.Pattern[bytes]] = re.compile(
        rb'(?:"(?:text|thinking|partial_json)"|"compaction_delta"\s*,\s*"content")\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)',
        re.DOTALL,
    )

    def __init__(self) -> None:
        super().__init__()
        self._usage: Counts = {}
        self._failed = False

    def pass_over(self, piece: bytes) -> None:
        # A block begins empty, unless it is the result of a tool, which no model wrote. Line by line, for where a whole
        # stream is one piece: from a server that does not say that it sends events.
        if piece.find(_BEGINS) >= 0:
            piece = b"\n".join(line for line in piece.splitlines() if _BEGINS not in line)
        super().pass_over(piece)

    def read(self, document: dict[str, Any]) -> bool:
        kind = document.get("type")
        if kind in ("message", "message_start", "message_delta"):
            message = inner(document, "message") if kind == "message_start" else document
            self.model = text(message, "model") or self.model
            self._usage = merged(self._usage, inner(message, "usage"))
        elif kind == "error":
            self._failed = True
        self.done = (self.done or kind == "message_stop") and not self._failed
        return False

    def usage(self) -> Usage | None:
        return disjoint(self._usage) if self._usage else None
