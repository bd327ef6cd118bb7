"""What a request for a message allows and refers to, as far as its price depends on it (wire.md 2c, 6h and 8)."""

from collections.abc import Iterator
from typing import Any

from gateway.dialects import fields
from gateway.dialects.body import BadBody

Parsed = dict[str, Any]

# A web search tool without `max_uses` may search as often as it likes; more than this becomes shortfall.
SEARCHES = 10
_SEARCH = "web_search"
_ADVISOR = "advisor"
# Tools whose type has one of these beginnings run with the caller. All others run with the provider, where loops read
# the context again and results are added to it (wire.md 8), and so does what is not known yet.
_OWN_TOOLS = ("custom", "bash_", "text_editor_", "computer_", "browser_", "memory_")
_PLAIN = {"service_tier": ("standard_only", "standard"), "speed": ("standard",), "inference_geo": ("global",)}
_SHOWN_SOURCES = ("text", "content")
# Where there are tools, the provider puts a prompt of its own in front: some hundreds of tokens (wire.md 8).
TOOL_PROMPT = 1_000


def check(parsed: Parsed) -> None:
    """Refuse what another model would answer, at another price than that of the model that was asked for."""
    if parsed.get("fallbacks"):
        raise BadBody("The field 'fallbacks' is not served: another model has another price. Ask that model yourself.")
    if any(_kind(tool).startswith(_ADVISOR) for tool in fields.objects(parsed, "tools")):
        raise BadBody("The advisor tool is not served: another model has another price. Ask that model yourself.")


def variants(parsed: Parsed) -> tuple[str, ...] | None:
    """Which tiers, speeds and regions may serve: the ones asked for by name; any of them if nothing was said.

    `auto` may be served by a dearer tier (wire.md 8). A name that the price does not have is refused, not billed at base.
    """
    asked = {name: fields.word(parsed, name) for name in _PLAIN}
    named = [value for name, value in asked.items() if value not in (None, "auto") and value not in _PLAIN[name]]
    if named:
        return tuple(str(value) for value in named)
    return () if asked["service_tier"] in _PLAIN["service_tier"] else None


def others(parsed: Parsed) -> bool:
    """Whether the provider may choose more than was asked for by name: the tier, or the region, of which the operator's
    workspace has a default.
    """
    return fields.word(parsed, "service_tier") in (None, "auto") or fields.word(parsed, "inference_geo") is None


def searches(parsed: Parsed) -> int:
    """The most web searches that are billed one by one."""
    tools = [tool for tool in fields.objects(parsed, "tools") if _kind(tool).startswith(_SEARCH)]
    return sum(fields.whole(tool, "max_uses") or SEARCHES for tool in tools)


def by_reference(parsed: Parsed) -> bool:
    """Whether there is content whose length the body does not show, or a loop that reads it more than once."""
    return (
        any(not _runs_here(tool) for tool in fields.objects(parsed, "tools"))
        or bool(parsed.get("mcp_servers"))
        or any(parsed.get(name) is not None for name in ("container", "thread", "compaction"))
        or _compacts(parsed)
        or any(_is_opaque(block) for block in _blocks(parsed))
    )


def stored(parsed: Parsed) -> str | None:
    """The first field that refers to something stored with the provider, which every caller shares (wire.md 6h)."""
    for name in ("container", "thread"):
        if parsed.get(name) is not None:
            return name
    if (fields.record(parsed, "diagnostics") or {}).get("previous_message_id") is not None:
        return "diagnostics"
    return "file_id" if any(_is_file(block) for block in _blocks(parsed)) else None


def _kind(tool: Parsed) -> str:
    return fields.word(tool, "type") or "custom"


def _runs_here(tool: Parsed) -> bool:
    return _kind(tool).startswith(_OWN_TOOLS)


def _compacts(parsed: Parsed) -> bool:
    """Whether the provider may summarise the conversation on the way, with tokens of its own (wire.md 2b)."""
    edits = fields.objects(fields.record(parsed, "context_management") or {}, "edits")
    return any(_kind(edit).startswith("compact") for edit in edits)


def _is_opaque(block: Parsed) -> bool:
    source = block.get("source")
    return isinstance(source, dict) and source.get("type") not in _SHOWN_SOURCES


def _is_file(block: Parsed) -> bool:
    source = block.get("source")
    named = isinstance(source, dict) and (source.get("type") == "file" or source.get("file_id") is not None)
    return named or block.get("type") == "container_upload"


def _blocks(parsed: Parsed) -> Iterator[Parsed]:
    """The content blocks of a request, those inside tool results and documents too; but not the inputs of tools, where
    any name may stand. Without recursion, which a caller could exhaust.
    """
    waiting = [parsed.get("system"), parsed.get("messages")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            yield value
            source = value.get("source")
            waiting += [value.get("content"), source.get("content") if isinstance(source, dict) else None]
