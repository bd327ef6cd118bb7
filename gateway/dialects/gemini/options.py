"""What a request for content allows and refers to, as far as its price depends on it (wire.md 3b, 3c, 6h and 8)."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import unquote

from gateway.dialects import fields
from gateway.dialects.body import BadBody, any_of

Parsed = dict[str, Any]

# A model may search as often as it likes; more than this becomes shortfall.
SEARCHES = 10
_UPPER = re.compile(r"[A-Z]")
_OLD = re.compile(r"gemini-[12](?![0-9])", re.ASCII)
_PLAIN_TIERS = ("", "unspecified", "standard")
# Tools that the caller runs. All others, and those that nobody knows yet, run with the provider, where loops read the
# context again and results are added to it (wire.md 8).
_OWN_TOOLS = ("functiondeclarations", "computeruse")
_STORES = ("filesearch", "retrieval")
_UNPRICED = ("googlemaps",)
_FILE_URI = ("fileUri", "file_uri")
_ANY_FILE_URI = any_of(_FILE_URI)
# Content whose tokens have nothing to do with its bytes, or that is not in the body at all.
_ANY_OPAQUE = any_of(("inlineData", "inline_data", *_FILE_URI, "continuationToken", "continuation_token"))


def spelt(parsed: Parsed, name: str) -> str:
    """How a body spells a field: in proto JSON both ways are right, and both at once could be read in two (wire.md 3c)."""
    snake = _snake(name)
    if name in parsed and snake in parsed:
        raise BadBody(f"The field '{name}' is there in two spellings.")
    return snake if snake in parsed else name


@cache
def _snake(name: str) -> str:
    return _UPPER.sub(lambda letter: "_" + letter[0].lower(), name)


def config(parsed: Parsed) -> Parsed:
    return fields.record(parsed, spelt(parsed, "generationConfig")) or {}


def variants(parsed: Parsed) -> tuple[str, ...]:
    """The service tier that may serve. Nothing said is the standard one: there is no `auto` in this dialect."""
    tier = (fields.word(parsed, spelt(parsed, "serviceTier")) or "").lower().removeprefix("service_tier_")
    return () if tier in _PLAIN_TIERS else (tier,)


def billed_once(model: str) -> bool:
    """Whether searches are billed by the prompt that led to any; since Gemini 3 each query is (wire.md 3b)."""
    return _OLD.search(model) is not None


def searches(parsed: Parsed, model: str) -> int:
    """The most web searches that are billed one by one."""
    searching = any("search" in tool and tool not in _STORES for tool in _tools(parsed))
    return (1 if billed_once(model) else SEARCHES) if searching else 0


def by_reference(plain: bytes, parsed: Parsed) -> bool:
    """Whether there is content whose length the body does not show, or a loop that reads it more than once.

    `plain`: the body as `read_object` spells it.
    """
    return (
        _ANY_OPAQUE.search(plain) is not None
        or _cached(parsed) is not None
        or any(tool not in _OWN_TOOLS for tool in _tools(parsed))
    )


def stored(plain: bytes, parsed: Parsed) -> str | None:
    """The first field that refers to something stored with the provider, which every caller shares (wire.md 6h).

    `plain`: the body as `read_object` spells it.
    """
    if _cached(parsed) is not None:
        return "cachedContent"
    if any(tool in _STORES for tool in _tools(parsed)):
        return "fileSearch"
    if _ANY_FILE_URI.search(plain) is not None:
        uris = (each.get(spelt(each, "fileUri")) for each in _objects(parsed))
        return "fileData" if any(_is_uploaded(uri) for uri in uris) else None
    return None


def _cached(parsed: Parsed) -> Any:
    return parsed.get(spelt(parsed, "cachedContent"))


def _tools(parsed: Parsed) -> Iterator[str]:
    """The kinds of tools that a request brings, in either spelling."""
    for tool in fields.objects(parsed, "tools"):
        for name, value in tool.items():
            if value is not None:
                yield _priced(name.replace("_", "").lower())


def _priced(tool: str) -> str:
    if tool in _UNPRICED:
        raise BadBody("The tool 'googleMaps' is not served: it is billed by the prompt, and has no price here.")
    return tool


def _is_uploaded(uri: Any) -> bool:
    """Whether a URI is of the provider's store of files, and not of the web."""
    path = unquote(uri) if isinstance(uri, str) else ""
    return "/files/" in path or path.startswith("files/")


def _objects(value: Any) -> Iterator[Parsed]:
    """Every object inside a value; without recursion, which a caller could exhaust."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
