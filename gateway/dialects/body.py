"""Reading JSON bodies without trusting them: what two parsers could read differently is refused, not guessed at."""

import re
from collections.abc import Iterable
from typing import Any, Final

import orjson


class BadBody(ValueError):
    """The body cannot be served; the message says why and quotes nothing of it."""


_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],]', re.DOTALL)
_SIMPLE: Final = re.compile(rb'\s*:\s*("[^"\\]*"|-?[0-9]+)(?=\s*[,}])')
_COLON: Final = re.compile(rb"\s*:\s*")
_QUOTE, _BACKSLASH = ord('"'), ord("\\")


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; BadBody for anything else: not UTF-8, NaN, a BOM, or a name twice in one object."""
    return read_object(body)[0]


def read_object(body: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON object of a body, and its bytes in the one spelling in which no escape hides a letter of a name.

    BadBody for anything else: not UTF-8, NaN, a BOM, or a name twice in one object.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadBody("The body is not valid JSON.") from None
    if not isinstance(parsed, dict):
        raise BadBody("The body must be a JSON object.")
    try:
        again = orjson.dumps(parsed)
    except orjson.JSONEncodeError:  # it reads deeper than it writes
        raise BadBody("The body is nested too deeply.") from None
    # A parser keeps one of two equal names and drops the other with its quotes, so the count of quotes tells (wire.md 6).
    # What an SDK wrote is mostly spelt as it is here, and then nothing was dropped.
    if body != again and _quotes(body) != _quotes(again):
        raise BadBody("The body has the same name twice in one JSON object.")
    return parsed, again


def any_of(names: Iterable[str]) -> re.Pattern[bytes]:
    """Finds any of these names, or a string that is one, in what `read_object` has spelt.

    A long prompt has thousands of quotes, so what follows one is told apart by its first letter.
    """
    rests: dict[str, list[str]] = {}
    for name in sorted(names):
        rests.setdefault(name[0], []).append(re.escape(name[1:]))
    each = "|".join(f"{letter}(?:{'|'.join(rest)})" for letter, rest in rests.items())
    return re.compile(f'"(?:{each})"'.encode())


def _quotes(text: bytes) -> int:
    """How many quotes delimit strings: all but those that a backslash escapes."""
    if text.find(_BACKSLASH) < 0:
        return text.count(b'"')
    text = text.replace(b"\\\\", b"")
    return text.count(b'"') - text.count(b'\\"')


def add_member(body: bytes, name: str, value: Any) -> bytes:
    """The same bytes with one member more at the end of the outermost object, which must not have it yet."""
    end = body.rindex(b"}")
    comma = b"" if body[:end].rstrip().endswith(b"{") else b","
    return b"".join((body[:end], comma, orjson.dumps(name), b":", orjson.dumps(value), body[end:]))


def replace_member(body: bytes, name: str, value: Any) -> bytes:
    """The same bytes with the value of one member of the outermost object replaced; the member must be there."""
    start, end = _value_span(body, name)
    return b"".join((body[:start], orjson.dumps(value), body[end:]))


def _value_span(body: bytes, name: str) -> tuple[int, int]:
    """Where the value of an outermost member begins and ends, in a body that `parse_object` has accepted."""
    spelt = b'"%b"' % name.encode()
    first = body.find(spelt)
    # First of all, or written once and not in another spelling (only \u00xx can spell a letter): it is the member's name.
    if first == 1 or (first > 1 and body.find(spelt, first + len(spelt)) < 0 and body.find(b"\\u00") < 0):
        simple = _SIMPLE.match(body, first + len(spelt))
        if simple is not None:
            return simple.span(1)
    return _span_among_tokens(body, name)


def _span_among_tokens(body: bytes, name: str) -> tuple[int, int]:
    depth, start = 0, -1
    for token in _TOKEN.finditer(body):
        first = body[token.start()]
        if first == _QUOTE:
            # A string before a colon is a name; only the outermost object's names are looked at.
            if depth == 1 and start < 0 and (colon := _COLON.match(body, token.end())):
                start = colon.end() if orjson.loads(token.group()) == name else -1
        elif first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
            if depth == 0 and start >= 0:
                return start, len(body[: token.start()].rstrip())
        elif depth == 1 and start >= 0:
            return start, len(body[: token.start()].rstrip())
    raise KeyError(name)
