"""For what an answer used, a request that can have led to it: with as much text, what else it must refer to, and its cap."""

import json
from typing import Any

from msgspec.structs import replace

from gateway.dialects.shape import Asked, Call
from ledger.price_tables import INPUT_BUCKETS
from ledger.prices import BASE
from tests.corpus import FORM_TYPE, Sample, form

Usage = dict[str, Any]
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "", "format": "mp3"}}


def inputs(usage: Usage) -> int:
    return sum(usage.get(bucket, 0) for bucket in INPUT_BUCKETS)


def text_for(usage: Usage) -> str:
    """A letter for each token of text: no tokenizer makes more of it."""
    letters: int = inputs(usage) - usage.get("input_audio", 0) - usage.get("input_image", 0)
    return "x" * letters


def parts_for(usage: Usage) -> list[dict[str, Any]]:
    return [part for bucket, part in (("input_audio", SOUND), ("input_image", IMAGE)) if usage.get(bucket)]


def served_by(usage: Usage) -> dict[str, str]:
    return {kind: usage[kind] for kind, plain in BASE.items() if usage.get(kind) and usage[kind] not in plain}


def _chat(usage: Usage) -> dict[str, Any]:
    content = [{"type": "text", "text": text_for(usage)}, *parts_for(usage)]
    return {"messages": [{"role": "user", "content": content}], "max_completion_tokens": usage.get("output", 1)}


def _responses(usage: Usage) -> dict[str, Any]:
    tools = [{"type": "web_search"}] if usage.get("web_searches") else []
    return {"input": text_for(usage), "max_output_tokens": usage.get("output", 1), "tools": tools,
            "max_tool_calls": usage.get("web_searches", 1)}  # fmt: skip


def _messages(usage: Usage) -> dict[str, Any]:
    searching = {"type": "web_search_20250305", "name": "w", "max_uses": usage.get("web_searches", 1)}
    said = [{"role": "user", "content": text_for(usage)}]
    tools = [searching] if usage.get("web_searches") else []
    return {"messages": said, "max_tokens": usage.get("output", 0), "tools": tools}


def _gemini(usage: Usage) -> dict[str, Any]:
    parts = [{"text": text_for(usage)}] + ([{"inlineData": {"data": ""}}] if parts_for(usage) else [])
    hosted = usage.get("web_searches") or usage.get("input_tool")
    body: dict[str, Any] = {"contents": [{"parts": parts}], "tools": [{"googleSearch": {}}] if hosted else []}
    return {
        **body,
        "generationConfig": {"maxOutputTokens": usage.get("output", 1)},
        "serviceTier": usage.get("service_tier"),
    }


def _images(usage: Usage) -> dict[str, Any]:
    return {"prompt": text_for(usage), **({"image": {"url": "x"}} if usage.get("input_image") else {})}


BODIES = {
    "chat.completions": _chat,
    "completions": lambda usage: {"prompt": text_for(usage), "max_tokens": usage.get("output", 1)},
    "responses": _responses,
    "responses.compact": lambda usage: {"input": text_for(usage)},
    "embeddings": lambda usage: {"input": text_for(usage)},
    "moderations": lambda usage: {"input": text_for(usage)},
    "images.generations": _images,
    "audio.speech": lambda usage: {"input": text_for(usage), "stream_format": "sse"},
    "messages": _messages,
    "generate_content": _gemini,
    "stream_generate_content": _gemini,
    "embed_content": _gemini,
    "batch_embed_contents": _gemini,
}


def request_for(sample: Sample, usage: Usage, **more: Any) -> tuple[Asked, int]:
    """A request that can have led to this usage, as it is read, and its length."""
    request = sample.expect["request"]
    # So many pictures: `requests` says how many, or each has tokens of its own.
    several = {"n": max(usage.get("requests", 1), 1)} if sample.endpoint.name.startswith("images.") else {}
    if "form" in request:
        size = max(request["file"]["size"], 500 * usage.get("audio_seconds", 0))
        fields = {**request["form"], **{name: str(value) for name, value in several.items()}}
        call = replace(sample.call, body=form(fields, (request["file"]["name"], size)), content_type=FORM_TYPE)
    else:
        body = BODIES[sample.endpoint.name](usage) | several | more
        if not sample.call.target:
            body["model"] = "m"
        call = Call(json.dumps(body, separators=(",", ":")).encode(), target=sample.call.target)
    return sample.endpoint.read(call), len(call.body)
