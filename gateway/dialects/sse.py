"""Server-sent events, as far as a meter needs them: whole frames out of any split of the bytes (WHATWG HTML 9.2.6).

Lines end in LF, CR or CRLF and in nothing else; a blank line ends a frame. `str.splitlines` would split inside JSON.
"""

import re

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n|\r\n\r(?!\n)|\n\r(?!\n)")
_LINE = re.compile(rb"\r\n|\n|\r")
MAX_FRAME = 64 * 1024 * 1024


class FrameTooLong(Exception):
    """One event is longer than any that a provider sends."""


class Frames:
    """Cuts a byte stream into frames, each with the blank line that ends it; the rest waits for more."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now; joined with what came before and `rest()` they are the bytes fed."""
        data = self._rest + data if self._rest else data
        frames, start = [], 0
        for end in _END.finditer(data):
            # A CR at the very end may be half of a CRLF: wait for the byte that tells.
            if end.end() == len(data) and data.endswith(b"\r"):
                break
            frames.append(data[start : end.end()])
            start = end.end()
        self._rest = data[start:]
        if len(self._rest) > MAX_FRAME:
            raise FrameTooLong
        return frames

    def rest(self) -> bytes:
        """The bytes of a frame that has not ended."""
        return self._rest


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
