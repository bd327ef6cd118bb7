"""The cutters against the plainest readers of the same formats: one character at a time, and nothing remembered."""

from gateway.dialects.array import Array
from gateway.dialects.sse import Frames, data_of
from tests.corpus import SAMPLES
from tests.fuzz.tape import Tape, mutated

BODIES = [sample.body for sample in SAMPLES]
_EVENTS = [sample.body for sample in SAMPLES if sample.streamed]
_ARRAYS = [sample.body for sample in SAMPLES if not sample.streamed]
_ENDS = (b"\r\n", b"\r", b"\n")


def check(tape: Tape) -> None:
    """One body, cut as events or as an array."""
    if tape.chance(2):
        body = mutated(tape, tape.pick(_ARRAYS), BODIES)
        _check_array(body, tape.pieces(body))
        return
    body = mutated(tape, tape.pick(_EVENTS), BODIES)
    if tape.chance(2):
        body = body.replace(b"\n", tape.pick(_ENDS))
    _check_events(body, tape.pieces(body))


def _check_events(body: bytes, pieces: list[bytes]) -> None:
    cutter = Frames()
    found = [frame for piece in pieces for frame in cutter.feed(piece)]
    assert b"".join(found) + cutter.rest() == body
    # A reader that leaves out what has no data sees the same documents, wherever the blank lines between them went.
    wanted = [data(frame) for frame in frames(body)]
    assert [d for d in map(data_of, [*found, cutter.rest()]) if d] == [d for d in wanted if d]


def _check_array(body: bytes, pieces: list[bytes]) -> None:
    cutter = Array()
    found = [each for piece in pieces for each in cutter.feed(piece)]
    assert [*found, cutter.rest()] == objects(body)


def lines(body: bytes) -> list[tuple[bytes, bytes]]:
    """The lines of a stream, each with its end, which is CRLF, CR, LF, or nothing at the end of the stream."""
    found, line, at = [], b"", 0
    while at < len(body):
        end = next((end for end in _ENDS if body.startswith(end, at)), b"")
        if end:
            found.append((line, end))
            line, at = b"", at + len(end)
        else:
            line, at = line + body[at : at + 1], at + 1
    return [*found, (line, b"")]


def frames(body: bytes) -> list[bytes]:
    """What lies between blank lines, with the blank line that ends it; the last is what has not ended."""
    found, frame = [], b""
    for line, end in lines(body):
        blank = not line and bool(end) and bool(frame)
        frame += line + end
        if blank:
            found.append(frame)
            frame = b""
    return [*found, frame]


def data(frame: bytes) -> bytes:
    """An event's data (WHATWG HTML 9.2.6)."""
    fields = [line.partition(b":") for line, _ in lines(frame)]
    return b"\n".join(value.removeprefix(b" ") for name, _, value in fields if name == b"data")


def objects(body: bytes) -> list[bytes]:
    """The outermost objects, going by braces outside strings; the last is what has not ended."""
    found, piece, depth, in_string, escaped = [], b"", 0, False, False
    for at in range(len(body)):
        mark = body[at : at + 1]
        opens = mark == b"{" and not in_string
        depth += opens
        piece += mark if depth else b""
        if in_string:
            in_string = escaped or mark != b'"'
            escaped = mark == b"\\" and not escaped
        elif mark == b'"':
            in_string = True
        elif mark == b"}" and depth:
            depth -= 1
            if not depth:
                found.append(piece)
                piece = b""
    return [*found, piece]
