"""What callers of Google's SDKs do."""

from typing import Any

from tests.clients.case import PICTURE, Case, fixture, stream, whole

ASK = {"contents": "What is two plus two?"}
CAPPED = ASK | {"config": {"maxOutputTokens": 500, "temperature": 0.5}}
TOOL = {
    "functionDeclarations": [
        {"name": "weather", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}
    ]
}
CALL = ASK | {"config": {"tools": [TOOL]}}
_PICTURE = {"inlineData": {"mimeType": "image/png", "data": PICTURE}}
LOOK = {"contents": [{"role": "user", "parts": [{"text": "What is this?"}, _PICTURE]}]}
_USED = {"functionCall": {"name": "weather", "args": {"city": "Lyon"}}}
_USAGE = {"promptTokenCount": 40, "candidatesTokenCount": 9, "totalTokenCount": 49}


def _chunk(part: dict[str, Any], finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [part]}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": _USAGE, "modelVersion": "gemini-fx", "responseId": "gt"}


GENERATE, STREAM = "models.generate_content", "models.generate_content_stream"
CASES = [
    Case("generate", GENERATE, CAPPED, fixture("gemini_generate.json"), "Four.", "gemini"),
    Case("stream", STREAM, CAPPED, fixture("gemini_stream.sse"), "Fo", "gemini"),
    Case("blocked-stream", STREAM, ASK, fixture("own/gemini_blocked.sse"), "SAFETY", "gemini"),
    Case("tool", GENERATE, CALL, whole(_chunk(_USED, "STOP")), "Lyon", "gemini"),
    Case(
        "tool-stream", STREAM, CALL, stream(_chunk({"text": "Let me see."}, None), _chunk(_USED, "STOP")), "Lyon", "gemini"
    ),
    Case("image", GENERATE, LOOK, fixture("gemini_generate.json"), "Four.", "gemini"),
    Case("image-out", GENERATE, ASK, whole(_chunk(_PICTURE, "STOP")), PICTURE[:20], "gemini"),
    Case("embed", "models.embed_content", ASK, fixture("own/gemini_batch_embed.json"), "alues", "gemini"),
    Case("count", "models.count_tokens", ASK, fixture("own/gemini_count_tokens.json"), "otal", "gemini"),
]  # fmt: skip
