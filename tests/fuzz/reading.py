"""Another reader of JSON, the standard library's, to say what a body is and where in it a value is."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

HIDDEN = "\x00"
Path = tuple[str | None, ...]
"""Names from the outermost object inwards; None is every element of a list."""
_SPACE = " \t\r\n"


def read(body: bytes) -> dict[str, Any]:
    """The object of a body; a name twice in one object fails, and so does a number that is none. Numbers stay text."""
    found = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_never, parse_int=str, parse_float=str)
    assert isinstance(found, dict)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), "a name twice was read"
    return found


def _never(word: str) -> None:
    raise AssertionError(word)


def without(body: bytes, paths: Sequence[Path]) -> str:
    """The body with the values at these paths replaced by a mark that no JSON has."""
    text = body.decode()
    places = sorted({place for path in paths for place in _places(text, _next(text, 0), path)}, reverse=True)
    for start, end in places:
        text = text[:start] + HIDDEN + text[end:]
    return text


_decoder = json.JSONDecoder(parse_int=str, parse_float=str)


def _places(text: str, at: int, path: Path) -> Iterator[tuple[int, int]]:
    if not path:
        yield at, _decoder.raw_decode(text, at)[1]
    elif text[at] == ("[" if path[0] is None else "{"):
        for name, start in _children(text, at):
            if name == path[0]:
                yield from _places(text, start, path[1:])


def _children(text: str, at: int) -> Iterator[tuple[str | None, int]]:
    """The name of each child of an object, None in a list, and where its value begins."""
    is_object, at = text[at] == "{", _next(text, at + 1)
    while text[at] not in "]}":
        name = None
        if is_object:
            name, at = _decoder.raw_decode(text, at)
            at = _next(text, _next(text, at) + 1)
        yield name, at
        at = _next(text, _decoder.raw_decode(text, at)[1])
        at = _next(text, at + 1) if text[at] == "," else at


def _next(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
