"""Server-sent events, as far as a meter needs them: whole frames out of any split of the bytes (WHATWG HTML 9.2.6).

Lines end in LF, CR or CRLF and in nothing else; a blank line ends a frame. `str.splitlines` would split inside JSON.
"""

import re
from typing import Final

from gateway.dialects.cutter import Cutter

_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n|\r\n\r(?!\n)|\n\r(?!\n)")
_LONGEST_END: Final = 4
_CR: Final = 13
_LINE: Final = re.compile(rb"\r\n|\n|\r")
MAX_FRAME = 64 * 1024 * 1024


class FrameTooLong(Exception):
    """One event is longer than any that a provider sends."""


class Frames(Cutter):
    """Cuts a byte stream into frames, each with the blank line that ends it; the rest waits for more."""

    def __init__(self) -> None:
        self._rest: bytearray | bytes = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now; joined with what came before and `rest()` they are the bytes fed."""
        text: bytes | bytearray = data
        begun = 0
        if not self._rest:
            # Nearly always: one frame, whole, with line feeds only, and often of one line: a byte is found sooner than two.
            if data.endswith(b"\n\n") and _CR not in data:
                end = len(data) - 2
                if data.find(b"\n") == end or data.find(b"\n\n") == end:
                    return [data]
        else:
            # Of what waits, only the last bytes are looked at again: those that a blank line may have begun with.
            begun = max(len(self._rest) - _LONGEST_END + 1, 0)
            self._rest += data
            text = self._rest
        frames, start, size = [], 0, len(text)
        for found in _END.finditer(text, begun):
            end = found.end()
            # A CR at the very end may be half of a CRLF: wait for the byte that tells.
            if end == size and text.endswith(b"\r"):
                break
            frames.append(bytes(text[start:end]))
            start = end
        if text is data or start:
            self._rest = bytearray(text[start:]) if start < size else b""
        if size - start > MAX_FRAME:
            raise FrameTooLong
        return frames

    def rest(self) -> bytes:
        """The bytes of a frame that has not ended."""
        return bytes(self._rest)


def data_of(frame: bytes) -> bytes:
    """The frame's data: its `data:` lines without the field name, joined by LF."""
    lines = []
    for line in _LINE.split(frame):
        if line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value.startswith(b" ") else value)
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines)
