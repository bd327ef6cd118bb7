"""No answer and no request takes time that grows faster than its bytes, or memory that grows with the length of a stream.

The limits are far from what the work takes, and farther from what it would take if bytes were looked at again and again.
"""

import contextlib
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from gateway import quotes
from gateway.dialects import array, meter, sse
from gateway.dialects.body import BadBody
from gateway.dialects.cutter import Cutter
from gateway.dialects.meter import Meter, Whole
from gateway.dialects.shape import Call
from gateway.dialects.sse import FrameTooLong
from tests.corpus import BOUNDARY, FORM_TYPE, endpoint_of
from tests.fuzz.answers import READS, Read

MB = 500_000
WITHIN_S = 5.0
ONE_OF_EACH = list({(read.endpoint, read.kind): read for read in READS}.values())
every_reader = pytest.mark.parametrize("read", ONE_OF_EACH, ids=lambda read: read.name)


def meter_for(read: Read) -> Meter:
    return read.endpoint.meter(read.asked, read.kind)


def fed(found: Meter, pieces: Iterator[bytes]) -> int:
    return sum(len(found.feed(piece)) for piece in pieces) + len(found.finish())


def cut(body: bytes, size: int = 4096) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


FILLERS = (b"A", b"\\\\", b"\r", b"\n ", b'"', b'{"', b'"delta" ')


@pytest.mark.wire("5.11")
@pytest.mark.parametrize("cutter", [sse.Frames, array.Array, Whole])
def test_a_picture_takes_no_more_time_in_many_pieces(cutter: Callable[[], Cutter]) -> None:
    """An event of megabytes that comes in the pieces that networks make: nothing is looked at once a piece."""
    body = b'data: {"type": "x", "b64_json": "' + b"A" * (16 * MB) + b'"}\n\n'
    found, began = cutter(), time.perf_counter()
    pieces = [piece for at in range(0, len(body), 1_000) for piece in found.feed(body[at : at + 1_000])]
    assert len(b"".join(pieces) or found.rest()) > 16 * MB
    assert time.perf_counter() - began < WITHIN_S


@pytest.mark.wire("5.11")
@every_reader
def test_an_answer_takes_time_by_its_length(read: Read) -> None:
    for filler in FILLERS:
        body = b'data: {"type": "x", "text": "' + filler * (MB // 4 // len(filler)) + b'"}\n\n'
        began = time.perf_counter()
        assert fed(meter_for(read), cut(body)) == len(body)
        assert time.perf_counter() - began < WITHIN_S


def stream(number: int) -> bytes:
    """Something of everything that a meter remembers, never the same twice."""
    many = {
        f"name_{number}_{n}".ljust(70, "x"): number for n in range(9)
    }  # longer than the names that orjson remembers
    usage = {"usage": {**many, "input_tokens": number, "server_tool_use": many}, "usageMetadata": many}
    found = {"index": number, "groundingMetadata": {"webSearchQueries": [f"query {number}"]}}
    events = (
        {"type": "message_delta", **usage},
        {"type": "image_generation.completed", **usage, "svg_usage": many},
        {"type": "response.completed", "response": {**usage, "output": [many]}},
        {"type": "transcript.text.done", "text": "x", **usage},
        {"type": "speech.audio.done", **usage},
        {"candidates": [found], **usage},
        {"choices": [{"delta": {"content": "x"}}], **usage},
    )
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


@pytest.mark.wire("5.11")
@every_reader
def test_a_stream_without_end_is_not_remembered(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "MAX_ANSWER", 100_000)
    found = meter_for(read)
    tracemalloc.start()
    try:
        fed(found, (stream(number) for number in range(30)))
        least, _ = tracemalloc.get_traced_memory()
        fed(found, (stream(number) for number in range(30, 150)))
        most, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most - least < 40_000, "2 MB of stream went by"


@pytest.mark.wire("5.11")
def test_searches_without_end_are_not_remembered() -> None:
    read = next(read for read in READS if read.name == "gemini_searches_each")
    found = [{"index": n, "groundingMetadata": {"webSearchQueries": [f"query {n}"]}} for n in range(5_000)]
    body = json.dumps({"modelVersion": "gemini-3", "candidates": found, "usageMetadata": {"promptTokenCount": 1}})
    reader = meter_for(read)
    assert fed(reader, cut(body.encode())) == len(body)
    assert reader.usage() == {"input_uncached": 1, "web_searches": 1_000}


@pytest.mark.wire("5.11")
@pytest.mark.parametrize("cutter", [sse.Frames, array.Array, Whole])
def test_what_never_ends_is_kept_up_to_a_bound(cutter: Callable[[], Cutter], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also byte by byte: what is kept is bytes, and not a list of them."""
    monkeypatch.setattr(sse, "MAX_FRAME", 100_000)
    monkeypatch.setattr(array, "MAX_FRAME", 100_000)
    monkeypatch.setattr(meter, "MAX_ANSWER", 100_000)
    found = cutter()
    found.feed(b'[{"data: ')
    tracemalloc.start()
    try:
        for _ in range(200_000):
            try:
                found.feed(b"x")
            except FrameTooLong:
                break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.rest()) <= 100_001
    assert peak < 400_000


BODIES = {
    "escapes": b'"model":"m","input":"' + b'\\\\\\"' * MB + b'"',
    "hidden letters": b'"model":"m","input":"' + b"\\u0041" * (MB // 4) + b'"',
    "members": b'"model":"m",' + b",".join(b'"k%d":1' % n for n in range(MB // 10)),
    "spaces": b'"model"' + b" " * 4 * MB + b':"m"',
    "names": b'"a":"model","x":[' + b'"model",' * (MB // 4) + b'1],"model":"m"',
    "nothing": b'"model":"m","input":[' + b"[]," * (MB // 2) + b"0]",
    "deep and wide": b'"model":"m","input":[' + (b"[" * 200 + b"]" * 200 + b",") * (MB // 400) + b"0]",
    "almost base64": b'"model":"m","input":[{"type":"input_image"},"' + (b"A" * 1_999 + b" ") * 4_000 + b'"]',
    "not closed": b'"model":"m","input":"' + b"x\\n" * MB,
    "lists": b'"model":"m","messages":[' + b'{"content":[{"content":[]}]},' * (MB // 20) + b"{}]",
    "requests": b'"requests":[' + b'{"model":"models/gemini-own"},' * (MB // 20) + b"{}]",
}
PATHS = (
    "/v1/chat/completions", "/v1/responses", "/v1/messages", "/gemini/v1/models/gemini-own:generateContent",
    "/gemini/v1/models/gemini-own:batchEmbedContents",
)  # fmt: skip


@pytest.mark.parametrize("shape", BODIES)
def test_a_request_takes_time_by_its_length(shape: str) -> None:
    for path in PATHS:
        endpoint, target, query = endpoint_of(path)
        body = b"{" + (BODIES[shape].replace(b'"model":"m"', b'"model":null') if target else BODIES[shape]) + b"}"
        call = Call(body, query=query, target=target)
        began = time.perf_counter()
        with contextlib.suppress(BadBody):
            asked = endpoint.read(call)
            cap = 4096 if asked.capped and asked.cap is None else None
            assert len(endpoint.write(call, asked, model="another", cap=cap).body) > len(body) // 2
            assert quotes.estimate(body, asked) > 0
        assert time.perf_counter() - began < WITHIN_S


@pytest.mark.parametrize(
    "inside",
    [b"\r\n--" * MB, b"\r\n" * (2 * MB), f"\n--{BOUNDARY[:-1]}".encode() * (MB // 5), b"\r\n\r\n" * MB],
    ids=("dashes", "lines", "almost a boundary", "blank lines"),
)
def test_a_form_takes_time_by_its_length(inside: bytes) -> None:
    endpoint, _, _ = endpoint_of("/v1/audio/transcriptions")
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'.encode()
    part = head.replace(b'"model"', b'"file"; filename="a"').replace(b"\r\nm\r\n", b"\r\n" + inside + b"\r\n")
    began = time.perf_counter()
    asked = endpoint.read(Call(head + part + f"--{BOUNDARY}--\r\n".encode(), FORM_TYPE))
    assert asked.model == "m"
    assert time.perf_counter() - began < WITHIN_S
