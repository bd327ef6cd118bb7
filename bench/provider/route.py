"""Which dialect a request speaks, what it asks for, with which credential. Any base path may be in front."""

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

import orjson

from bench.provider.answers.anthropic import ANTHROPIC
from bench.provider.answers.gemini import GEMINI
from bench.provider.answers.openai import OPENAI
from bench.provider.answers.reply import Call, Dialect, Endpoint

_GEMINI = re.compile(
    r"/models/(.+):(generateContent|streamGenerateContent|countTokens|embedContent|batchEmbedContents)$"
)
_GEMINI_VERBS: dict[str, Endpoint] = {
    "countTokens": "count_tokens",
    "embedContent": "embeddings",
    "batchEmbedContents": "embeddings",
}
_MODELS = re.compile(r"/models(/[^:]+)?$")
_POSTS: tuple[tuple[str, Dialect, Endpoint], ...] = (
    ("/chat/completions", OPENAI, "chat"),
    ("/completions", OPENAI, "completions"),
    ("/responses", OPENAI, "responses"),
    ("/embeddings", OPENAI, "embeddings"),
    *(
        (path, OPENAI, "plain")
        for path in (
            "/responses/input_tokens",
            "/responses/compact",
            "/images/generations",
            "/images/edits",
            "/images/variations",
            "/audio/speech",
            "/audio/transcriptions",
            "/audio/translations",
            "/moderations",
        )
    ),
    ("/messages", ANTHROPIC, "messages"),
    ("/messages/count_tokens", ANTHROPIC, "count_tokens"),
)


class Request(NamedTuple):
    """As it came: header names in lower case, the target undecoded."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    keep_alive: bool


class Route(NamedTuple):
    dialect: Dialect
    call: Call | None
    """None: no such path."""
    credential: str


def route(request: Request, number: int) -> Route:
    path, _, query = request.target.partition("?")
    headers = dict(reversed(request.headers))
    credential = _credential(headers)
    if request.method == "GET" and _MODELS.search(path):
        dialect = _models_dialect(headers)
        return Route(dialect, Call("models", "", {}, streamed=False, number=number), credential)
    if request.method == "POST":
        found = _GEMINI.search(path)
        if found is not None:
            return Route(GEMINI, _gemini(found, query, request.body, number), credential)
        for suffix, dialect, endpoint in _POSTS:
            if path.endswith(suffix):
                body = _json(request.body)
                streamed = body.get("stream") is True and endpoint not in {"embeddings", "count_tokens"}
                call = Call(endpoint, str(body.get("model", "")), body, streamed, number)
                return Route(dialect, call, credential)
    return Route(_models_dialect(headers), None, credential)


def _gemini(found: re.Match[str], query: str, body: bytes, number: int) -> Call:
    model, verb = unquote(found[1]).removeprefix("models/"), found[2]
    streamed = verb == "streamGenerateContent"
    sse = parse_qs(query).get("alt") == ["sse"]
    endpoint: Endpoint = _GEMINI_VERBS.get(verb, "generate")
    return Call(endpoint, model, _json(body), streamed, number, sse)


def _models_dialect(headers: dict[str, str]) -> Dialect:
    """/v1/models is shared by all three; a header tells them apart."""
    if "x-goog-api-key" in headers:
        return GEMINI
    return ANTHROPIC if "anthropic-version" in headers else OPENAI


def _credential(headers: dict[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or ""


def _json(body: bytes) -> dict[str, Any]:
    """The provider answers anything: what is not a JSON object counts as an empty one."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
