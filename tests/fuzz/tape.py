"""Choices out of bytes, so that a case is one short string: hypothesis shrinks it, a random generator makes millions.

A tape that has run out gives zeros, and zero is always the plainest choice.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

LENGTH = 64
_WIDTH = 3
# A value inside JSON or a form, near enough: mutants of those get further into a reader than mutants of bytes.
_VALUE = re.compile(rb'-?[0-9][0-9.]*|true|false|null|"[^"\\\n]{0,200}"(?!\s*:)')
_NAME = re.compile(rb'"[A-Za-z_]{1,40}"(?=\s*:)')
_WRONG = (
    b"null", b"0", b"-1", b"1.5", b"1e3", b"1e308", b"1e999", b"-0", b"true", b"false", b'""', b'"7"', b"[]", b"{}",
    b"[{}]", b"[null]", b"[[[]]]", b'{"a":1}', b'[1,"x",null,{"type":5}]', b"2147483647", b"2147483648",
    b"9007199254740991", b"9007199254740993", b"9223372036854775808", b"18446744073709551616", b"9" * 400, b"NaN",
    b"Infinity", b'"\\ud800"', b'"\\u0000"', b'"' + b"x" * 300 + b'"',
    b"[" + b'{"tokenCount":99999999},' * 40 + b"{}]",
)  # fmt: skip
_MARKS = (
    b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8",
    b"\xc2\x85", b"\\", b'"', b"{", b"}", b"[", b"]", b",", b":", b" ", b"--", b"\\u0075", b"data:", b"data: ",
    b": ping\n\n", b"event: error\n", b"data: [DONE]\n\n", b'"usage":', b'"usage":null', b'"error":', b'"choices":[]',
    b'"finishReason":"STOP"', b'"type":"message_stop"', b"--> 99:59:59,999", b'"text":"x"', b'"delta":"x"',
    b'"content":"\xc3\xa9\\n"',
)  # fmt: skip
_DEEP = ((b"[", b"]"), (b'{"a":', b"}"), (b'{"usage":', b"}"), (b'[{"text":"x","a":', b"}]"))
_DEPTHS = (1, 5, 100, 253, 254, 255, 1023, 1024, 1025, 3000)


class Tape:
    """One case's choices, in the order in which they are made."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, below: int) -> int:
        """A whole number of at least zero; zero if there is nothing to choose from."""
        taken = self._data[self._at : self._at + _WIDTH] if below > 256 else self._data[self._at : self._at + 1]
        self._at += len(taken)
        return int.from_bytes(taken, "little") % below if below > 0 else 0

    def chance(self, one_in: int) -> bool:
        return self.number(one_in) == one_in - 1

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.number(len(choices))]

    def slice_of(self, body: bytes) -> tuple[int, int]:
        """Where a piece begins and ends: mostly a short one."""
        start = self.number(len(body) + 1)
        length = self.number(len(body) - start + 1) if self.chance(4) else self.number(min(40, len(body) - start) + 1)
        return start, start + length

    def pieces(self, body: bytes) -> list[bytes]:
        """The body in one piece, in a few, or byte by byte."""
        way = self.number(8)
        if way == 7:
            return [body[n : n + 1] for n in range(len(body))]
        if way == 6:
            size = 1 + self.number(16)
            return [body[n : n + size] for n in range(0, len(body), size)]
        cuts = sorted(self.number(len(body) + 1) for _ in range(way))
        return [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]


def _flip(tape: Tape, body: bytes, _other: bytes) -> bytes:
    at = tape.number(len(body))
    return body[:at] + bytes([body[at] ^ (1 << tape.number(8))]) + body[at + 1 :]


def _cut(tape: Tape, body: bytes, _other: bytes) -> bytes:
    return body[: tape.number(len(body))]


def _drop(tape: Tape, body: bytes, _other: bytes) -> bytes:
    start, end = tape.slice_of(body)
    return body[:start] + body[end:]


def _double(tape: Tape, body: bytes, _other: bytes) -> bytes:
    start, end = tape.slice_of(body)
    return body[:end] + body[start:end] * (1 + tape.number(3)) + body[end:]


def _splice(tape: Tape, body: bytes, other: bytes) -> bytes:
    start, end = tape.slice_of(body)
    first, last = tape.slice_of(other)
    return body[:start] + other[first:last] + body[end:]


def _insert(tape: Tape, body: bytes, _other: bytes) -> bytes:
    at = tape.number(len(body) + 1)
    return body[:at] + tape.pick(_MARKS) + body[at:]


def _nest(tape: Tape, body: bytes, _other: bytes) -> bytes:
    """A value goes many levels down; sometimes nobody closes them."""
    start, end = _some(tape, _VALUE, body)
    depth = tape.pick(_DEPTHS)
    opening, closing = tape.pick(_DEEP)
    return body[:start] + opening * depth + body[start:end] + closing * (0 if tape.chance(4) else depth) + body[end:]


def _mistype(tape: Tape, body: bytes, _other: bytes) -> bytes:
    start, end = _some(tape, _VALUE, body)
    return body[:start] + tape.pick(_WRONG) + body[end:]


def _rename(tape: Tape, body: bytes, other: bytes) -> bytes:
    """A name becomes another one, of the same body or of another: often a name twice."""
    start, end = _some(tape, _NAME, body)
    source = other if tape.chance(2) else body
    first, last = _some(tape, _NAME, source)
    return body[:start] + source[first:last] + body[end:]


def _some(tape: Tape, pattern: re.Pattern[bytes], body: bytes) -> tuple[int, int]:
    """A place of this kind; an empty one at the beginning if there is none."""
    found = [each.span() for each in pattern.finditer(body)]
    return tape.pick(found) if found else (0, 0)


Mutation = Callable[[Tape, bytes, bytes], bytes]
_MUTATIONS: tuple[Mutation, ...] = (
    _mistype, _flip, _cut, _drop, _double, _splice, _insert, _nest, _rename, _mistype, _rename, _mistype, _insert, _mistype,
)  # fmt: skip


def mutated(tape: Tape, body: bytes, others: Sequence[bytes]) -> bytes:
    """The body after a few mutations, mostly one or two: more of them, and no reader gets far."""
    for _ in range(tape.pick((0, 1, 1, 1, 1, 2, 2, 5))):
        if body:
            body = tape.pick(_MUTATIONS)(tape, body, tape.pick(others))
    return body
