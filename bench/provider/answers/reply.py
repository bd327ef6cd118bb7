"""What the dialects have in common: how words become tokens and chunks, and what an answer is made of."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import cycle, islice, pairwise
from typing import Any, Literal, NamedTuple

from bench.provider.script import Behaviour

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream; charset=utf-8"

Endpoint = Literal[
    "chat", "completions", "responses", "embeddings", "messages", "generate", "count_tokens", "models", "plain"
]
FREE: frozenset[Endpoint] = frozenset({"count_tokens", "models"})

_WORD = re.compile(r"\S+\s*")
_PROMPT_FIELDS = (
    "system", "systemInstruction", "system_instruction", "instructions",
    "messages", "contents", "input", "prompt",
)  # fmt: skip


class Call(NamedTuple):
    """One request, as far as an answer depends on it."""

    endpoint: Endpoint
    model: str
    body: dict[str, Any]
    streamed: bool
    number: int
    sse: bool = True
    """Only Gemini can stream without server-sent events."""


class Reply(NamedTuple):
    """An answer in parts: the content chunks are `pieces`; `closing` completes it."""

    content_type: str
    pieces: Sequence[bytes]
    closing: bytes
    opening: bytes = b""
    error: bytes = b""
    """The dialect's way to break off a stream."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    piece_tokens: Sequence[int] | None = None
    """Tokens of each piece, when a broken answer is billed by what was sent; None: in full."""
    billed: bool = True


class Dialect(NamedTuple):
    respond: Callable[[Call, Behaviour], Reply]
    error: Callable[[int, str], dict[str, Any]]
    """The error body for a status and a message."""
    request_id_header: str


class Words(NamedTuple):
    """An answer's text in chunks, and the number of words in each."""

    pieces: tuple[str, ...]
    counts: tuple[int, ...]
    capped: bool

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def total(self) -> int:
        return sum(self.counts)


def prompt_tokens(body: dict[str, Any]) -> int:
    """The whitespace-separated words of all text in the prompt, in any dialect; a number is one token."""
    return sum(_count(body[field]) for field in _PROMPT_FIELDS if field in body)


def _count(value: Any) -> int:
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(map(_count, value))
    if isinstance(value, dict):
        return sum(_count(value[field]) for field in ("content", "text", "parts") if field in value)
    return 1 if isinstance(value, int) else 0


def words(behaviour: Behaviour, cap: Any) -> Words:
    """The answer's words, no more of them than the request's output cap."""
    if behaviour.ignore_cap or not isinstance(cap, int):
        cap = None
    return _words(behaviour.text, behaviour.chunks, cap)


@lru_cache(maxsize=256)
def _words(text: str, chunks: int | None, cap: int | None) -> Words:
    found = _WORD.findall(text)
    if found and chunks is not None and chunks > len(found):
        found = [f"{word} " for word in islice(cycle(text.split()), chunks)]
        found[-1] = found[-1].rstrip()
    capped = cap is not None and cap < len(found)
    if capped:
        found = found[:cap]
        if found:
            found[-1] = found[-1].rstrip()
    count = min(len(found), chunks or len(found))
    edges = [part * len(found) // count for part in range(count + 1)] if count else [0]
    spans = list(pairwise(edges))
    return Words(tuple("".join(found[a:b]) for a, b in spans), tuple(b - a for a, b in spans), capped)


def whole(body: bytes, content_type: str, chunks: int | None) -> Reply:
    """A reply that is not our stream, in equal parts, cut anywhere, even inside a character."""
    count = chunks or 1
    edges = [part * len(body) // (count + 1) for part in range(count + 2)]
    parts = [body[a:b] for a, b in pairwise(edges)]
    return Reply(content_type, parts[:-1], parts[-1], billed=False)
