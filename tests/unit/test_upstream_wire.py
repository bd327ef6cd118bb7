"""Responses as bytes, in every cut; and request heads that cannot be broken out of."""

import httpx2
import pytest

from gateway.upstream.wire import MAX_HEAD_BYTES, Endpoint, Reading, Violation

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 7\r\n\r\n"


def read(*pieces: bytes, head_request: bool = False, eof: bool = False, max_body_bytes: int = 1 << 30) -> Reading:
    reading = Reading(head_request=head_request, max_body_bytes=max_body_bytes)
    for piece in pieces:
        reading.feed(piece)
    if eof:
        reading.eof(clean=True)
    return reading


def in_steps(reading: Reading, wire: bytes, step: int) -> None:
    for start in range(0, len(wire), step):
        reading.feed(wire[start : start + step])


def body(reading: Reading) -> bytes:
    return b"".join(reading.chunks)


# name: wire, status, body, complete without an end of file, reusable
GOOD: dict[str, tuple[bytes, int, bytes, bool, bool]] = {
    "length": (OK + b"Content-Length: 5\r\n\r\nhello", 200, b"hello", True, True),
    "length with spaces": (OK + b"content-length: \t 5 \r\n\r\nhello", 200, b"hello", True, True),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True, True),
    "no phrase": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", True, True),
    "chunked": (CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 200, b"hello", True, True),
    "chunked in capitals": (OK + b"TRANSFER-ENCODING: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, b"hi", True, True),
    "chunk extensions": (CHUNKED + b'2;a=b;c="d"\r\nhi\r\n0;x\r\n\r\n', 200, b"hi", True, True),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Two:\r\n\r\n", 200, b"hi", True, True),
    "close": (OK + b"\r\nhello", 200, b"hello", False, False),
    "1xx before": (EARLY + OK + b"Content-Length: 2\r\n\r\nhi", 200, b"hi", True, True),
    "connection: close": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", True, False),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", True, False),
    "1.0 keep-alive": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", True, True,
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True, True),
    "204 that speaks of a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", 204, b"", True, False),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True, True),
    "304 chunked": (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304, b"", True, True),
    "an upgrade that is none": (
        OK + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", True, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_every_split_of_a_response_reads_the_same(name: str) -> None:
    wire, status, content, complete, reusable = GOOD[name]
    splits = [[wire], [wire[i : i + 1] for i in range(len(wire))]]
    splits += [[wire[:i], wire[i:]] for i in range(1, len(wire))]
    splits += [[wire[:i], wire[i : i + 3], wire[i + 3 :]] for i in range(1, len(wire) - 3)]
    for pieces in splits:
        reading = read(*pieces)
        assert (reading.status, body(reading)) == (status, content), pieces
        assert (reading.complete, reading.reusable) == (complete, reusable), pieces
        assert all(header == header.lower() and not header.startswith(b"x-") for header, _ in reading.headers)
        reading.eof(clean=True)
        assert reading.complete


@pytest.mark.parametrize("name", [name for name in GOOD if GOOD[name][3]])
@pytest.mark.parametrize(
    "behind", [b"\r\n", b"\n", b"x", b"HTTP/1.1 200 OK\r\n", OK + b"Content-Length: 1\r\n\r\nX", b"0\r\n\r\n"]
)
def test_bytes_behind_the_end_make_the_connection_unfit(name: str, behind: bytes) -> None:
    """In the same feed, in the next one, and in all between: the answer stands, the connection does not."""
    wire, status, content, _, _ = GOOD[name]
    whole = wire + behind
    for cut in range(1, len(whole)):
        reading = read(whole[:cut], whole[cut:])
        assert (reading.status, body(reading), reading.complete) == (status, content, True), cut
        assert not reading.reusable, cut
    assert not read(whole).reusable


@pytest.mark.parametrize("name", GOOD)
def test_every_truncation_is_an_error(name: str) -> None:
    wire, _, _, complete, _ = GOOD[name]
    head_ends = wire.rindex(b"\r\n\r\n") + 4 if not complete else len(wire)
    for cut in range(head_ends):
        reading = read(*([wire[:cut]] if cut else []))
        with pytest.raises(Violation):
            reading.eof(clean=True)


BAD: dict[str, bytes] = {
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "two equal lengths": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\nhi",
    "negative length": OK + b"Content-Length: -2\r\n\r\nhi",
    "signed length": OK + b"Content-Length: +2\r\n\r\nhi",
    "hexadecimal length": OK + b"Content-Length: 0x2\r\n\r\nhi",
    "empty length": OK + b"Content-Length:\r\n\r\nhi",
    "length past 2**64": OK + b"Content-Length: 18446744073709551616\r\n\r\nhi",
    "length past the bound": OK + b"Content-Length: 18446744073709551615\r\n\r\nhi",
    "length, then chunked": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "chunked, then length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "almost chunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "chunked inside": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "coded and chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nhi",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 2\r\n\r\nhi",
    "folded header": OK + b"X-A: b\r\n c\r\n\r\n",
    "no colon": OK + b"nonsense\r\n\r\n",
    "empty name": OK + b": a\r\n\r\n",
    "bare LF after the status": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "bare LF after a header": OK + b"X-A: b\nContent-Length: 2\r\n\r\nhi",
    "bare CR": OK + b"X-A: b\rc\r\n\r\n",
    "NUL in a value": OK + b"X-A: b\0c\r\n\r\n",
    "NUL in a name": OK + b"X\0A: b\r\n\r\n",
    "a byte of no ASCII in a name": OK + b"X\xffA: b\r\n\r\n",
    "line end before": b"\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
    "empty lines before": b"\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 99": b"HTTP/1.1 99 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 999": b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 2000": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nhi",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    "101 without an upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\nabc",
    "1xx with a body": b"HTTP/1.1 102 Processing\r\nContent-Length: 3\r\n\r\nabc" + OK + b"\r\n",
    "negative chunk": CHUNKED + b"-2\r\nhi\r\n0\r\n\r\n",
    "chunk past 2**64": CHUNKED + b"1" + b"0" * 16 + b"\r\nhi",
    "chunk size with a space": CHUNKED + b"2 \r\nhi\r\n0\r\n\r\n",
    "chunk size missing": CHUNKED + b"\r\nhi\r\n0\r\n\r\n",
    "chunk longer than it says": CHUNKED + b"2\r\nhix\r\n0\r\n\r\n",
    "bare LF in a chunk": CHUNKED + b"2\nhi\n0\n\n",
    "length in the trailers": CHUNKED + b"2\r\nhi\r\n0\r\nContent-Length: 9\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
def test_what_can_be_read_in_two_ways_is_not_read(name: str) -> None:
    wire = BAD[name]
    for pieces in (
        [wire],
        [wire[i : i + 1] for i in range(len(wire))],
        [wire[: len(wire) // 2], wire[len(wire) // 2 :]],
    ):
        with pytest.raises(Violation) as caught:
            read(*pieces, eof=True)
        assert "hi" not in str(caught.value).split()


def test_a_length_is_known_to_be_cut_short() -> None:
    reading = read(OK + b"Content-Length: 9\r\n\r\nshort")
    assert body(reading) == b"short"
    with pytest.raises(Violation, match="in the middle"):
        reading.eof(clean=True)


def test_a_close_over_tls_without_its_notice_is_no_end() -> None:
    reading = read(OK + b"\r\nhello")
    with pytest.raises(Violation):
        reading.eof(clean=False)
    assert not reading.complete


def test_nothing_at_all() -> None:
    with pytest.raises(Violation, match="without sending"):
        read(eof=True)


def test_answers_to_head_have_no_body() -> None:
    for wire in (OK + b"Content-Length: 5\r\n\r\n", CHUNKED):
        assert read(wire, head_request=True).reusable
        assert not read(wire + b"hello", head_request=True).reusable
    assert not read(OK + b"\r\n", head_request=True).reusable


@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_heads_are_bounded(step: int) -> None:
    one = b"x-a: " + b"y" * 100 + b"\r\n"
    floods = [
        OK + one * 700 + b"\r\n",
        OK + b"x-a: " + b"y" * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 " + b"O" * MAX_HEAD_BYTES,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 4000,
    ]
    for flood in floods:
        with pytest.raises(Violation, match="too large"):
            in_steps(Reading(), flood, step)
    assert read(OK + one * 500 + b"Content-Length: 0\r\n\r\n").complete


def test_what_surrounds_chunks_is_bounded() -> None:
    for flood in (b"2;" + b"a" * (1 << 17), b"0\r\n" + b"x-a: b\r\n" * 20_000, b"0" * (1 << 17)):
        reading = read(CHUNKED + b"2\r\nhi\r\n")
        with pytest.raises(Violation):
            in_steps(reading, flood, 1000)
        assert body(reading) == b"hi"
    many = read(CHUNKED, *[b"1\r\nx\r\n" * 100] * 1000, b"0\r\n\r\n")
    assert len(body(many)) == 100_000
    assert many.reusable


@pytest.mark.parametrize(
    "wire", [OK + b"Content-Length: 11\r\n\r\n", CHUNKED + b"b\r\n01234567890\r\n", OK + b"\r\n01234567890"]
)
def test_bodies_are_bounded(wire: bytes) -> None:
    with pytest.raises(Violation, match="too large"):
        read(wire, max_body_bytes=10)


def test_huge_chunks_are_read_as_they_come() -> None:
    reading = read(CHUNKED + b"ffffffffffffffff\r\nhi")
    assert body(reading) == b"hi"
    with pytest.raises(Violation, match="in the middle"):
        reading.eof(clean=True)


# Requests.


def test_a_head_is_written() -> None:
    endpoint = Endpoint("https://api.example.com/v1/chat?a=b", headers=[(b"authorization", b"Bearer k")])
    assert endpoint.head([(b"content-type", b"application/json")], 12) == (
        b"POST /v1/chat?a=b HTTP/1.1\r\nhost: api.example.com\r\nauthorization: Bearer k\r\n"
        b"content-type: application/json\r\ncontent-length: 12\r\n\r\n"
    )
    assert endpoint.origin == ("https", "api.example.com", 443)
    assert endpoint.head([], None).endswith(b"\r\ntransfer-encoding: chunked\r\n\r\n")
    assert endpoint.head([], 0).endswith(b"\r\ncontent-length: 0\r\n\r\n")
    assert b"content-length" not in Endpoint("http://[::1]:81/", "GET").head([], 0)
    assert b"\r\nhost: [::1]:81\r\n" in Endpoint("http://[::1]:81/", "GET").head([], 0)


@pytest.mark.wire("6.1")
def test_fields_of_the_connection_are_ours() -> None:
    names = (
        b"Host",
        b"content-length",
        b"Transfer-Encoding",
        b"connection",
        b"TE",
        b"Upgrade",
        b"Keep-Alive",
        b"trailer",
    )
    head = Endpoint("http://a/").head([(name, b"evil") for name in names], 1)
    assert b"evil" not in head


@pytest.mark.parametrize(
    "header",
    [(b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x", b"a\rb"), (b"x", b"a\0b"), (b"x y", b"a"), (b"x:", b"a"), (b"", b"a"),
     (b"x\r\ny", b"a"), (b"x\n", b"a"), (b"\xff", b"a")],
)  # fmt: skip
def test_a_header_that_would_break_out_is_refused(header: tuple[bytes, bytes]) -> None:
    for beside in ([], [(b"host", b"dropped")], [(b"host", b"dropped"), (b"te", b"dropped")]):
        with pytest.raises(httpx2.LocalProtocolError):
            Endpoint("http://a/").head([*beside, header], 1)
        with pytest.raises(httpx2.LocalProtocolError):
            Endpoint("http://a/", headers=[*beside, header])


@pytest.mark.parametrize(("url", "method"), [("http://a/", "GE T"), ("http://a/", "CONNECT"), ("http://a/", "G\r\nX")])
def test_a_method_that_cannot_be_sent(url: str, method: str) -> None:
    with pytest.raises(httpx2.LocalProtocolError):
        Endpoint(url, method)


@pytest.mark.parametrize("url", ["ftp://a/", "http:///x", "/x"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises((httpx2.UnsupportedProtocol, httpx2.InvalidURL)):
        Endpoint(url)
