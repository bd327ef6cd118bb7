"""Changing a value deep in a JSON body and no other byte of it."""

import re
from collections.abc import Iterator

import orjson

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],:]', re.DOTALL)
_SPACE = b" \t\r\n"
_STEPS = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}

Path = tuple[str | None, ...]
"""Names, from the outermost object inwards; None is every element of a list."""
Span = tuple[int, int]


def spans(body: bytes, path: Path) -> list[Span]:
    """Where the values at a path begin and end, in a body that `parse_object` has accepted."""
    found = [(0, len(body))]
    for name in path:
        found = [span for start, end in found for each, span in _children(body, start, end) if each == name]
    return found


def object_in(body: bytes, name: str) -> Span:
    """Where an outermost member's value begins and ends, for a member that is there and is an object."""
    quoted = b'"' + name.encode() + b'"'
    at = body.find(quoted)
    if at < 0 or body.find(quoted, at + 1) >= 0 or b"\\u00" in body:
        [span] = spans(body, (name,))
        return span
    # Once in the bytes, and no letter is escaped: it can only be the member, and a long conversation need not be read.
    start = body.index(b"{", at)
    depth = 0
    for token in _TOKEN.finditer(body, start):
        depth += _STEPS.get(token.group(), 0)
        if depth == 0:
            return start, token.end()
    raise KeyError(name)


def replaced(body: bytes, places: list[Span], value: bytes) -> bytes:
    """The same bytes with the values at some places, in their order, replaced by another."""
    parts, at = [], 0
    for start, end in places:
        parts += [body[at:start], value]
        at = end
    return b"".join((*parts, body[at:]))


def _children(body: bytes, start: int, end: int) -> Iterator[tuple[str | None, Span]]:
    """The name of each child of an object (None in a list) and where its value is; nothing of what is no container."""
    depth, begin = 0, start
    word: bytes | None = None
    name: str | None = None
    for token in _TOKEN.finditer(body, start, end):
        mark = body[token.start() : token.start() + 1]
        if depth == 1 and mark in b",]}":
            span = _trimmed(body, begin, token.start())
            if span[0] < span[1]:
                yield name, span
            name, begin = None, token.end()
        elif depth == 1 and mark == b":" and word is not None:
            name, begin = str(orjson.loads(word)), token.end()
        if mark == b'"':
            word = token.group()
        elif mark in b"{[":
            depth += 1
            begin = token.end() if depth == 1 else begin
        elif mark in b"}]":
            depth -= 1


def _trimmed(body: bytes, start: int, end: int) -> Span:
    while start < end and body[start] in _SPACE:
        start += 1
    while start < end and body[end - 1] in _SPACE:
        end -= 1
    return start, end
