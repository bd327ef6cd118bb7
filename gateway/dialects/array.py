"""A JSON array that comes in pieces: Gemini's streams for callers who did not ask for events (wire.md 3b).

Only the braces outside strings are looked at, each byte once. A piece is one object of the array; an object without an
array around it, such as an error, is one too.
"""

import re

from gateway.dialects.cutter import Cutter
from gateway.dialects.sse import MAX_FRAME, FrameTooLong

_STRUCTURE = re.compile(rb'["{}]')
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_QUOTE, _OPEN = ord('"'), ord("{")


class Array(Cutter):
    """Cuts out the objects. What is between them is dropped, so a meter that cuts with this must pass all bytes on."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        """The objects that are complete now."""
        pieces: list[bytes] = []
        start = at = 0
        while at < len(data):
            if self._in_string:
                at = self._leave_string(data, at)
                continue
            found = _STRUCTURE.search(data, at)
            if found is None:
                break
            at, mark = found.end(), data[found.start()]
            if mark == _QUOTE:
                self._in_string = True
            elif mark == _OPEN:
                start = at - 1 if self._depth == 0 else start
                self._depth += 1
            elif self._depth > 0:
                self._depth -= 1
                if self._depth == 0:
                    pieces.append(b"".join((self._rest, data[start:at])))
                    self._rest = bytearray()
        if self._depth > 0:
            self._keep(data[start:])
        return pieces

    def _leave_string(self, data: bytes, at: int) -> int:
        """Where the string that `at` is in ends, or the data does."""
        if self._escaped:
            self._escaped = False
            return at + 1
        inside = _IN_STRING.match(data, at)
        end = inside.end() if inside else at
        if end < len(data):
            # A quote ends the string; else it is a backslash whose other half has not come yet.
            self._in_string = data[end] != _QUOTE
            self._escaped = self._in_string
            end += 1
        return end

    def _keep(self, part: bytes) -> None:
        self._rest += part
        if len(self._rest) > MAX_FRAME:
            raise FrameTooLong

    def rest(self) -> bytes:
        """The bytes of an object that has not ended."""
        return bytes(self._rest)
