"""Anthropic's `usage` as disjoint buckets (wire.md section 2b)."""

from typing import Any

from gateway.dialects.meter import Usage, buckets, count, inner, text

Counts = dict[str, Any]

_KNOWN = frozenset(
    ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation",
     "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "output_tokens_details", "thinking_tokens",
     "server_tool_use", "web_search_requests", "web_fetch_requests", "iterations", "service_tier", "speed",
     "inference_geo"),
)  # fmt: skip
_LEFT_OUT = ("compaction", "advisor_message")
_TURNS = ("message", "fallback_message")


def merged(kept: Counts, found: Counts) -> Counts:
    """What is known after another report: field by field, what is there and not null replaces; counts are cumulative."""
    result = dict(kept)
    for name, value in _present(found).items():
        result[name] = {**inner(kept, name), **_present(value)} if isinstance(value, dict) else value
    return result


def _present(fields: Counts) -> Counts:
    """Of all reports together no more is kept than what has a meaning, however many there are."""
    return {name: value for name, value in fields.items() if value is not None and name in _KNOWN}


def disjoint(usage: Counts) -> Usage:
    """The buckets of all that was used; `input_tokens` has neither what the cache gave nor what it took."""
    parts = [usage, *_left_out(usage)]
    written: dict[str, int] = {}
    for part in parts:
        for bucket, tokens in _cache_writes(part).items():
            written[bucket] = written.get(bucket, 0) + tokens
    tools = inner(usage, "server_tool_use")
    return buckets(
        input_uncached=_sum(parts, "input_tokens"),
        cache_read=_sum(parts, "cache_read_input_tokens"),
        **written,
        output=_sum(parts, "output_tokens"),
        output_reasoning=count(inner(usage, "output_tokens_details"), "thinking_tokens"),
        web_searches=count(tools, "web_search_requests"),
        web_fetches=count(tools, "web_fetch_requests"),
        service_tier=text(usage, "service_tier"),
        speed=text(usage, "speed"),
        inference_geo=text(usage, "inference_geo"),
    )


def _sum(parts: list[Counts], name: str) -> int:
    return sum(count(part, name) for part in parts)


def _cache_writes(part: Counts) -> dict[str, int]:
    """Tokens written to the cache. Only the first report of a stream splits them: what came later is billed at 1h."""
    total, split = count(part, "cache_creation_input_tokens"), inner(part, "cache_creation")
    if not split:
        return {"cache_write": total}
    short, long = count(split, "ephemeral_5m_input_tokens"), count(split, "ephemeral_1h_input_tokens")
    return {"cache_write_5m": short, "cache_write_1h": long + max(total - short - long, 0)}


def _left_out(usage: Counts) -> list[Counts]:
    """The iterations whose tokens the totals do not have.

    For compactions that is documented. For advisors and fallbacks nothing is, so they count as left out, unless the
    turns add up to the totals with the fallback among them.
    """
    found = usage.get("iterations")
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    turns = [entry for entry in entries if entry.get("type") in _TURNS]
    inside = all(_sum(turns, name) == count(usage, name) for name in ("input_tokens", "output_tokens"))
    left_out = _LEFT_OUT if inside else (*_LEFT_OUT, "fallback_message")
    return [entry for entry in entries if entry.get("type") in left_out]
