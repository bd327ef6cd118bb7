"""What callers of Anthropic's SDKs do."""

from typing import Any

from bench.provider import Behaviour
from tests.clients.case import PICTURE, Case, fixture, stream, whole

ASK = {"max_tokens": 500, "messages": [{"role": "user", "content": "What is two plus two?"}]}
STREAM = {"stream": True}
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
_SOURCE = {"type": "base64", "media_type": "image/png", "data": PICTURE}
LOOK = {
    "max_tokens": 500,
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image", "source": _SOURCE}]}
    ],
}
_USED = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Lyon"}}
_USAGE = {
    "input_tokens": 40, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 9,
    "service_tier": "standard",
}  # fmt: skip


def _message(content: list[Any], stop: str | None) -> dict[str, Any]:
    return {
        "id": "msg_t", "type": "message", "role": "assistant", "model": "claude-fx-1", "content": content,
        "stop_reason": stop, "stop_sequence": None, "usage": _USAGE,
    }  # fmt: skip


def _called_in_pieces() -> Behaviour:
    pieces = [{"type": "input_json_delta", "partial_json": each} for each in ('{"city"', ': "Ly', 'on"}')]
    return stream(
        {"type": "message_start", "message": _message([], None)},
        {"type": "content_block_start", "index": 0, "content_block": {**_USED, "input": {}}},
        *({"type": "content_block_delta", "index": 0, "delta": each} for each in pieces),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
        named=True,
    )  # fmt: skip


CASES = [
    Case("messages", "messages.create", ASK, fixture("anthropic_messages.json"), "Four.", "anthropic"),
    Case("thinking", "messages.create", ASK, fixture("own/anthropic_thinking.json"), "thinking", "anthropic"),
    Case("stream", "messages.create", ASK | STREAM, fixture("anthropic_messages_stream.sse"), "Four.", "anthropic"),
    Case(
        "stream-helper", "messages.stream", ASK, fixture("anthropic_messages_stream.sse"), "Four.", "anthropic",
        "message",
    ),
    Case("tool", "messages.create", ASK | {"tools": [TOOL]}, whole(_message([_USED], "tool_use")), "Lyon", "anthropic"),
    Case("tool-stream", "messages.create", ASK | STREAM | {"tools": [TOOL]}, _called_in_pieces(), "weather", "anthropic"),
    Case(
        "tool-stream-helper", "messages.stream", ASK | {"tools": [TOOL]}, _called_in_pieces(), "Lyon", "anthropic",
        "message",
    ),
    Case("image", "messages.create", LOOK, fixture("anthropic_messages.json"), "Four.", "anthropic"),
    Case(
        "beta", "beta.messages.create", ASK | {"betas": ["context-1m-2025-08-07"]}, fixture("anthropic_messages.json"),
        "Four.", "anthropic",
    ),
    Case(
        "count", "messages.count_tokens", {"messages": ASK["messages"]}, fixture("own/anthropic_count_tokens.json"),
        "input_tokens", "anthropic",
    ),
]  # fmt: skip
