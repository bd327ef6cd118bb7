"""Reading JSON bodies without trusting them: what two parsers could read differently is refused, not guessed at."""

import re
from typing import Any

import orjson


class BadBody(ValueError):
    """The body cannot be served; the message says why and quotes nothing of it."""


_VALUE_START = re.compile(rb"\s*:\s*")


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; BadBody for anything else: not UTF-8, NaN, a BOM, or a name twice in one object."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadBody("The body is not valid JSON.") from None
    if not isinstance(parsed, dict):
        raise BadBody("The body must be a JSON object.")
    # A parser keeps one of two equal names and drops the other with its quotes, so the count of quotes tells (wire.md 6).
    if _quotes(body) != _quotes(orjson.dumps(parsed)):
        raise BadBody("The body has the same name twice in one JSON object.")
    return parsed


def _quotes(text: bytes) -> int:
    """How many quotes delimit strings: all but those that a backslash escapes."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return text.count(b'"')


def add_member(body: bytes, name: str, value: Any) -> bytes:
    """The same bytes with one member more at the end of the outermost object, which must not have it yet."""
    end = body.rindex(b"}")
    comma = b"" if body[:end].rstrip().endswith(b"{") else b","
    return b"".join((body[:end], comma, orjson.dumps(name), b":", orjson.dumps(value), body[end:]))


def replace_member(body: bytes, parsed: dict[str, Any], name: str, value: Any) -> bytes:
    """The same bytes with the value of an outermost member replaced; written anew only if its place is not certain."""
    token = orjson.dumps(name)
    at = body.find(token)
    if at >= 0 and body.find(token, at + 1) < 0:
        start = _VALUE_START.match(body, at + len(token))
        old = _same_value_at(body, start.end(), parsed[name]) if start else None
        if start and old is not None:
            return b"".join((body[: start.end()], orjson.dumps(value), body[old:]))
    return orjson.dumps({**parsed, name: value})


def _same_value_at(body: bytes, start: int, value: Any) -> int | None:
    """Where the JSON value that begins at `start` ends, if it is `value`; None if that cannot be told cheaply."""
    if isinstance(value, str):
        written = orjson.dumps(value)
        return start + len(written) if body.startswith(written, start) else None
    if isinstance(value, dict):
        end = start
        while (end := body.find(b"}", end) + 1) > 0:
            try:
                found = orjson.loads(body[start:end])
            except orjson.JSONDecodeError:
                continue
            return end if found == value else None
    return None
