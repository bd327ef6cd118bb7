"""What callers of OpenAI's SDKs do; also with xAI, which is spoken to with them (docs/wire.md 4)."""

import base64
from typing import Any

from bench.provider import Behaviour
from tests.clients.case import HEADERS, PICTURE, Case, fixture, stream, whole

ASK = {"messages": [{"role": "user", "content": "What is two plus two?"}]}
USAGE = {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
LOOK = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
            ],
        }
    ]
}
_HEAD = {"id": "chatcmpl-t", "created": 1795219200, "model": "gpt-fx-1", "service_tier": "default"}
_CALLED = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Lyon"}'}}


def _called() -> Behaviour:
    message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [_CALLED]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}
    return whole({**_HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})


def _called_in_pieces() -> Behaviour:
    begun = {"index": 0, **_CALLED, "function": {"name": "weather", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"city"', ':"Ly', 'on"}')]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": [begun]}]
    deltas += [{"tool_calls": [each]} for each in rest]
    chunks: list[dict[str, Any]] = [
        {"index": 0, "delta": each, "logprobs": None, "finish_reason": None} for each in deltas
    ]
    chunks.append({"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"})
    head = {**_HEAD, "object": "chat.completion.chunk"}
    frames: list[Any] = [{**head, "choices": [chunk], "usage": None} for chunk in chunks]
    return stream(*frames, {**head, "choices": [], "usage": USAGE}, end=b"data: [DONE]\n\n")


CASES = [
    Case("chat", "chat.completions.create", ASK, fixture("openai_chat.json"), "Four.", "openai"),
    Case("chat-stream", "chat.completions.create", ASK | STREAM, fixture("openai_chat_stream.sse"), "ur.", "openai"),
    # As most callers write it; the frame with the usage that Weir asks for is not theirs to see.
    Case(
        "chat-stream-plain", "chat.completions.create", ASK | {"stream": True}, Behaviour(headers=HEADERS), "scripted",
        "openai",
    ),
    Case(
        "chat-stream-helper", "chat.completions.stream", ASK | {"stream_options": {"include_usage": True}},
        fixture("openai_chat_stream.sse"), "Four.", "openai", "completion",
    ),
    Case("tool", "chat.completions.create", ASK | {"tools": [TOOL]}, _called(), "Lyon", "openai"),
    Case(
        "tool-stream", "chat.completions.create", ASK | STREAM | {"tools": [TOOL]}, _called_in_pieces(), "weather",
        "openai",
    ),
    Case("image", "chat.completions.create", LOOK, fixture("openai_chat.json"), "Four.", "openai"),
    Case("completions", "completions.create", {"prompt": "2+2="}, fixture("own/openai_completions.json"), "usage", "openai"),
    Case("responses", "responses.create", {"input": "2+2?"}, fixture("openai_responses.json"), "Four.", "openai"),
    Case(
        "responses-stream", "responses.create", {"input": "2+2?", "stream": True},
        fixture("openai_responses_stream.sse"), "response.completed", "openai",
    ),
    Case("embeddings", "embeddings.create", {"input": "2+2?"}, fixture("openai_embeddings.json"), "-0.5", "openai"),
    Case(
        "moderations", "moderations.create", {"input": "2+2?"}, fixture("own/openai_moderations.json"), "flagged", "openai"
    ),
    Case("picture", "images.generate", {"prompt": "A cat."}, fixture("own/openai_images.json"), "b64_json", "openai"),
    Case(
        "speech", "audio.speech.create", {"input": "2+2?", "voice": "alloy"}, fixture("own/openai_speech_mp3.bin"), "",
        "openai",
    ),
    Case(
        "transcription", "audio.transcriptions.create",
        {"file": {"base64": base64.b64encode(bytes(range(256)) * 40).decode(), "name": "a.wav"}},
        fixture("own/openai_transcription_tokens.json"), "One two.", "openai",
    ),
    Case("xai", "chat.completions.create", ASK, fixture("openai_chat.json"), "Four.", "xai"),
    Case("xai-stream", "chat.completions.create", ASK | STREAM, fixture("xai_chat_stream.sse"), "usage", "xai"),
]  # fmt: skip
