"""Which dialect and endpoint a request is for: by its path, and at the bare root by its headers (wire.md 0.2).

Paths are compared as they were sent: an escaped spelling of a path is another path, and there is none of that name.
"""

import re
from typing import Any, NamedTuple
from urllib.parse import unquote

from gateway.dialects.anthropic.dialect import Anthropic
from gateway.dialects.anthropic.messages import CountTokens as CountMessageTokens
from gateway.dialects.anthropic.messages import Messages
from gateway.dialects.gemini import generate
from gateway.dialects.gemini.dialect import Gemini
from gateway.dialects.openai import audio, images, responses
from gateway.dialects.openai.chat import Chat
from gateway.dialects.openai.completions import Completions
from gateway.dialects.openai.dialect import OpenAI, Xai
from gateway.dialects.openai.embeddings import Embeddings
from gateway.dialects.openai.moderations import Moderations
from gateway.dialects.openai.realtime import Realtime, ResponsesSocket
from gateway.dialects.shape import Dialect, Endpoint
from gateway.refusals import Code, Refusal

OPENAI, XAI, ANTHROPIC, GEMINI = OpenAI(), Xai(), Anthropic(), Gemini()
MODELS = "models"

_OPENAI: dict[str, Endpoint] = {
    "/chat/completions": Chat(),
    "/completions": Completions(),
    "/responses": responses.Responses(),
    "/responses/input_tokens": responses.ResponsesInputTokens(),
    "/responses/compact": responses.ResponsesCompact(),
    "/embeddings": Embeddings(),
    "/images/generations": images.ImageGenerations(),
    "/images/edits": images.ImageEdits(),
    "/images/variations": images.ImageVariations(),
    "/audio/speech": audio.Speech(),
    "/audio/transcriptions": audio.Transcriptions(),
    "/audio/translations": audio.Translations(),
    "/moderations": Moderations(),
}
_XAI = ("/chat/completions", "/completions", "/responses", "/embeddings", "/images/generations")
_ANTHROPIC: dict[str, Endpoint] = {"/v1/messages": Messages(), "/v1/messages/count_tokens": CountMessageTokens()}
_GEMINI: dict[bytes, Endpoint] = {
    b"generateContent": generate.GenerateContent(),
    b"streamGenerateContent": generate.StreamGenerateContent(),
    b"countTokens": generate.CountTokens(),
    b"embedContent": generate.EmbedContent(),
    b"batchEmbedContents": generate.BatchEmbedContents(),
}
# A model's name may hold an escaped slash, and its collection once or twice (wire.md 3a).
_GEMINI_PATH = re.compile(
    rb"(?:/gemini)?/(v1(?:alpha|beta)?[0-9]*)/(?:models/){1,2}((?:[A-Za-z0-9._@-]|%2[Ff]|/)+):([A-Za-z]+)", re.ASCII
)
_TUNED_PATH = re.compile(rb"(?:/gemini)?/(v1(?:alpha|beta)?[0-9]*)/(tunedModels/[A-Za-z0-9._-]+):([A-Za-z]+)", re.ASCII)
_MODELS_PATH = re.compile(
    rb"(/openai|/anthropic|/gemini|/xai)?/(v1|v1alpha|v1beta)/models(?:/((?:[A-Za-z0-9._@:-]|%2[Ff]|/)+))?", re.ASCII
)
# Objects stored with the provider belong to the one credential that all callers share (wire.md 6h).
_STORED_PATH = re.compile(
    rb"(?:/openai|/anthropic|/gemini|/xai)?(?:/upload)?/v1(?:alpha|beta)?/(?:messages/)?(?:files|uploads|batches|videos|"
    rb"containers|conversations|vector_stores|evals|fine_tuning|assistants|threads|skills|cachedContents|operations|"
    rb"interactions|responses)(?:/.*)?"
)


class Served(NamedTuple):
    """What a path is. `endpoint` is None for the list of models, which Weir answers itself."""

    dialect: Dialect
    endpoint: Endpoint | None
    target: tuple[str, ...] = ()


def _table() -> dict[bytes, Served]:
    table: dict[bytes, Served] = {}
    for path, endpoint in _OPENAI.items():
        table[b"/openai/v1" + path.encode()] = table[b"/v1" + path.encode()] = Served(OPENAI, endpoint)
    for path in _XAI:
        table[b"/xai/v1" + path.encode()] = Served(XAI, _OPENAI[path])
    for path, endpoint in _ANTHROPIC.items():
        table[b"/anthropic" + path.encode()] = table[path.encode()] = Served(ANTHROPIC, endpoint)
    return table


_FIXED = _table()


_SOCKETS = {
    prefix + path: (dialect, kind)
    for prefix, dialect in ((b"/openai/v1", OPENAI), (b"/v1", OPENAI), (b"/xai/v1", XAI))
    for path, kind in ((b"/realtime", Realtime()), (b"/responses", ResponsesSocket()))
}


def find_socket(scope: Any) -> tuple[Dialect, Realtime | ResponsesSocket] | None:
    """What a WebSocket is for; None if Weir serves none there."""
    return _SOCKETS.get(scope["raw_path"])


def find(scope: Any) -> Served | None:
    """What a request is for; None if Weir does not serve it in any dialect."""
    path: bytes = scope["raw_path"]
    served = _FIXED.get(path)
    if served is not None:
        return served
    if b".." in path or b"//" in path:
        return None
    found = _GEMINI_PATH.fullmatch(path) or _TUNED_PATH.fullmatch(path)
    if found is not None:
        version, model, verb = found.groups()
        endpoint = _GEMINI.get(verb)
        return Served(GEMINI, endpoint, (version.decode(), unquote(model.decode()))) if endpoint else None
    found = _MODELS_PATH.fullmatch(path)
    if found is not None:
        base, version, model = found.groups()
        dialect = _PREFIXES.get(base) or _at_the_root(scope, version)
        return Served(dialect, None, (version.decode(), unquote((model or b"").decode())))
    return None


_PREFIXES: dict[bytes | None, Dialect] = {
    b"/openai": OPENAI,
    b"/xai": XAI,
    b"/anthropic": ANTHROPIC,
    b"/gemini": GEMINI,
}


def _at_the_root(scope: Any, version: bytes = b"v1") -> Dialect:
    """Three dialects share `/v1/models`: their headers tell them apart (wire.md 0.2)."""
    names = {name for name, _ in scope["headers"]}
    if version != b"v1" or b"x-goog-api-key" in names or b"key=" in scope["query_string"]:
        return GEMINI
    return ANTHROPIC if b"anthropic-version" in names else OPENAI


def dialect_of(scope: Any) -> Dialect:
    """Whose errors a caller of an unknown path can read."""
    path: bytes = scope.get("raw_path") or b""
    first = b"/" + path[1:].split(b"/", 1)[0]
    return _PREFIXES.get(first) or _at_the_root(scope, first[1:] if first.startswith(b"/v1") else b"v1")


def unknown(scope: Any) -> Refusal:
    """404, and why where there is a reason."""
    if _STORED_PATH.fullmatch(scope.get("raw_path") or b""):
        return Refusal(
            Code.UNKNOWN_PATH,
            "Weir does not serve what is stored with the provider or billed later: one credential serves every caller, "
            "so one could read what another stored. Send the content in the request itself.",
        )
    return Refusal(
        Code.UNKNOWN_PATH,
        "This path is not served. The base URLs are /openai/v1, /anthropic, /gemini and /xai/v1; Weir's own paths are "
        "under /weir/v1.",
    )
