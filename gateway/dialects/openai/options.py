"""Request fields that several of OpenAI's endpoints share: service tiers, the usage switch, and what a request refers to
without containing it (wire.md 1b, 1c, 6h and 8).
"""

from collections.abc import Iterator
from typing import Any, Final

from gateway.dialects import fields
from gateway.dialects.body import any_of

# Hosted tools may search as often as they like unless the request bounds them; more than this becomes shortfall.
SEARCHES: Final = 10
_PLAIN_TIERS: Final = ("default", "standard")
# With one credential shared by all, what one caller stored another could read; and what it brings is in no quote (6h).
_STORED: Final = ("previous_response_id", "conversation")
# The same, where it is named inside the input or a tool.
_STORED_INSIDE: Final = ("file_id", "file_ids", "vector_store_ids", "container_id", "container", "skill_id")
# Records of what was said before, and schemas that callers wrote: names in there refer to nothing.
_RECORDS: Final = ("annotations", "results", "parameters", "arguments")
# Content whose tokens have nothing to do with its bytes, or that is not in the body at all.
_OPAQUE: Final = ("image_url", "input_image", "input_audio", "input_file", "file", "file_id", "file_url")
_ANY_OPAQUE: Final = any_of(_OPAQUE)
# A name of either kind: one pass over the bytes, and in nearly all requests the only one.
_ANY: Final = any_of({*_OPAQUE, *_STORED_INSIDE})
# Tools that the caller runs. All others, and those that nobody knows yet, run with the provider.
_OWN_TOOLS: Final = frozenset(("function", "custom", "local_shell", "apply_patch", "namespace"))


def variants(parsed: dict[str, Any]) -> tuple[str, ...] | None:
    """The service tiers that may serve: any if none or `auto` is asked for (wire.md 8), else the one asked for."""
    tier = fields.word(parsed, "service_tier")
    if tier is None or tier == "auto":
        return None
    # Who asks for `fast` is answered, and billed, as `priority` (wire.md 1b).
    return () if tier in _PLAIN_TIERS else ("priority" if tier == "fast" else tier,)


def stored(parsed: dict[str, Any]) -> str | None:
    """The first field that refers to an object stored with the provider, or asks for an answer that comes later."""
    for name in _STORED:
        if parsed.get(name) is not None:
            return name
    return "background" if parsed.get("background") else None


def refers(plain: bytes) -> bool:
    """Whether a body, as `read_object` spells it, may have anything that `opaque` or `stored_inside` would find."""
    return _ANY.search(plain) is not None


def stored_inside(value: Any) -> str | None:
    """The first name inside some input that refers to an object stored with the provider."""
    for each in _objects(value):
        for name in _STORED_INSIDE:
            found = each.get(name)
            if found and isinstance(found, str | list):
                return name
    return None


def opaque(plain: bytes) -> bool:
    """Whether a body, as `read_object` spells it, has content whose length it does not show."""
    return _ANY_OPAQUE.search(plain) is not None


def hosted(parsed: dict[str, Any]) -> bool:
    """Whether any tool runs with the provider, which reads and writes more there than the request shows (wire.md 8)."""
    return any(_runs_there(tool) for tools in _tool_lists(parsed) for tool in tools)


def _tool_lists(parsed: dict[str, Any]) -> Iterator[list[Any]]:
    # Items of the input can bring tools of their own.
    items = parsed.get("input")
    for holder in (parsed, *(items if isinstance(items, list) else ())):
        tools = holder.get("tools") if isinstance(holder, dict) else None
        if isinstance(tools, list) and holder.get("type") != "mcp_list_tools":
            yield tools


def _runs_there(tool: Any) -> bool:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind == "shell":
        environment = tool.get("environment")
        return not isinstance(environment, dict) or environment.get("type") != "local"
    return kind not in _OWN_TOOLS


def with_usage(body: bytes, parsed: dict[str, Any]) -> bytes:
    """The body that asks for usage on a stream, with all other options of the stream as they were (wire.md 5)."""
    switch = {**(parsed.get("stream_options") or {}), "include_usage": True}
    return fields.put(body, parsed, "stream_options", switch)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a value, but not what is inside records; without recursion, which callers could exhaust."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += [inside for name, inside in each.items() if name not in _RECORDS]
        elif isinstance(each, list):
            waiting += each
