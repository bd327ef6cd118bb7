"""HTTP/1.1 as bytes: a request's head, and a response as it is read. No sockets, no clocks.

httptools checks the grammar of heads and chunks; where a message ends is decided here, because its callbacks do not say.
They fire for a 1xx as for an answer, say nothing of a body that is cut short, and go on into a second response. What is
left over behind a message makes the connection unfit for another: a desync would give one account's answer to the next.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import httptools
import httpx2

Headers = Sequence[tuple[bytes, bytes]]

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a response's head, with all 1xx before it; and of what stands between two pieces of a chunked body."""
MAX_BODY_BYTES: Final = 1024 * 1024 * 1024

_END_OF_HEAD: Final = b"\r\n\r\n"
_HEAD: Final = 0
_LENGTH: Final = 1
_CHUNKED: Final = 2
_CLOSE: Final = 3
_END: Final = 4
_WITHOUT_BODY: Final = (204, 304)
_OF_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"keep-alive"))


class Violation(Exception):
    """What came is not HTTP/1.1, or not within bounds; the text holds nothing of what came."""


class Reading:
    """One response: `feed` it what arrives, and look at `status`, `chunks`, `complete`, `reusable`.

    `status` is 0 until the final head is there. `reusable` means something once `complete` is true. A Violation leaves
    what was read before it in `chunks`.
    """

    __slots__ = (
        "_bare", "_begun", "_body_bytes", "_ended", "_excess", "_head_bytes", "_head_request", "_is_1_1", "_keep_alive",
        "_left", "_length", "_max_body", "_mode", "_parser", "_received", "_tail", "_te", "_te_count", "buffered",
        "chunks", "complete", "headers", "interim", "keep_alive", "status", "version",
    )  # fmt: skip

    def __init__(self, *, head_request: bool = False, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []  # names in lower case, no trailers
        self.chunks: list[bytes] = []
        self.buffered = 0  # bytes that `chunks` gained; whoever takes them sets it back
        self.complete = False
        self.interim = 0
        self.keep_alive: bytes | None = None  # the field's value, which may bound how long the server keeps it
        self._head_request = head_request
        self._max_body = max_body_bytes
        self._mode = _HEAD
        self._tail = b""
        self._head_bytes = 0
        self._left = 0
        self._body_bytes = 0
        self._bare = 0
        self._ended = False
        self._excess = False
        self._parser: Any = None
        self._keep_alive = False
        self._new_head()

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request: the server keeps it, and sent no byte too many."""
        return self.complete and self._keep_alive and not self._excess

    def feed(self, data: bytes) -> None:
        """Raises Violation; then there is no more to be had."""
        mode = self._mode
        if mode == _CHUNKED:
            self._feed_chunked(data)
        elif mode == _HEAD:
            self._feed_head(data)
        elif mode == _LENGTH:
            self._feed_length(data)
        elif mode == _CLOSE:
            self.on_body(data)
        else:
            self._excess = True

    def eof(self, *, clean: bool) -> None:
        """The server has closed. Raises Violation if that is no end; `clean` is false for TLS without close_notify."""
        if self._mode == _CLOSE and clean:
            self._finish()
        elif self._mode == _HEAD and not self._head_bytes:
            raise Violation("Server disconnected without sending a response.")
        elif self._mode != _END:
            raise Violation("Server disconnected in the middle of its response.")

    def drop(self) -> None:
        """Forget the parser, whose callbacks are a reference cycle."""
        self._parser = None

    # The head, and the 1xx before it.

    def _new_head(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._received = 0
        self._keep_alive = False
        self._is_1_1: bool | None = None  # not a byte of it has come
        self.version = ""
        self._length: bytes | None = None
        self._te: bytes | None = None
        self._te_count = 0
        self._begun = False

    def _feed_head(self, data: bytes) -> None:
        if not self._head_bytes and data[0] in b"\r\n":
            raise Violation("The response begins with a line end.")  # the parser would skip it
        while True:
            if self._is_1_1 is None:
                self._is_1_1 = data.startswith(b"HTTP/1.1 ")  # the parser would make a new text of it
            end = self._end_of_head(data)
            head = data if end in (-1, len(data)) else data[:end]
            self._head_bytes += len(head)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise Violation("The response's head is too large.")
            self._parse(head)
            if (end == -1) == self._begun:  # the parser sees another end, or another beginning, than we do
                raise Violation("The response's head is malformed.")
            if end == -1:
                self._tail = (self._tail + head)[-3:]
                return
            self._tail = b""
            rest = data[end:]
            if self._received >= 200:
                self._begin_body()
                if rest:
                    self.feed(rest)
                return
            if not 100 <= self._received < 200:
                raise Violation("The response has no valid status.")
            if self._received == 101:
                raise Violation("The server switched protocols, which nobody asked for.")
            self.interim += 1
            self.headers.clear()
            self._new_head()
            if not rest:
                return
            data = rest

    def _end_of_head(self, data: bytes) -> int:
        """Where the body begins in `data`; -1 if it does not."""
        tail = self._tail
        if tail:
            found = (tail + data).find(_END_OF_HEAD)
            return -1 if found < 0 else found + 4 - len(tail)
        found = data.find(_END_OF_HEAD)
        return -1 if found < 0 else found + 4

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a bug of ours
        except httptools.HttpParserUpgrade:
            pass  # a 101, seen by its status
        except httptools.HttpParserError as error:
            if self._received != 101:
                raise Violation(f"The response is malformed: {error}.") from None

    def _begin_body(self) -> None:
        status, te = self._received, self._te
        if status > 599:
            raise Violation("The response has no valid status.")
        if self.version not in ("1.1", "1.0"):
            raise Violation("The response is of another version of HTTP.")
        length = None if self._length is None else int(self._length)  # digits: the parser has seen to that
        if te is not None and (
            length is not None or self._te_count > 1 or self.version == "1.0" or te.strip().lower() != b"chunked"
        ):
            raise Violation("The response's transfer-encoding is not one that can be read.")
        if length is not None and length > self._max_body:
            raise Violation("The response's body is too large.")
        self.status = status
        if self._head_request or status in _WITHOUT_BODY:
            if status == 204 and (te is not None or length):
                self._keep_alive = False  # what it says of a body cannot be trusted to be nothing
            self._finish()
        elif te is not None:
            self._mode = _CHUNKED
        elif length is None:
            self._keep_alive = False
            self._mode = _CLOSE
            self._parser = None
        elif length:
            self._left = length
            self._mode = _LENGTH
            self._parser = None
        else:
            self._finish()

    # The body.

    def _feed_length(self, data: bytes) -> None:
        left = self._left - len(data)
        if left < 0:
            self._excess = True
            data = data[:left]
        self._left = left
        self.buffered += len(data)
        self.chunks.append(data)
        if left <= 0:
            self._finish()

    def _feed_chunked(self, data: bytes) -> None:
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, Violation):
                raise error.__context__ from None
            raise
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._ended:
                raise Violation(f"The response's body is malformed: {error}.") from None
            self._excess = True
        tail = data[-6:] if len(data) >= 6 else (self._tail + data)[-6:]
        if self._ended:
            # Line ends behind the last one are skipped by the parser without a word.
            if tail[-4:] != _END_OF_HEAD or tail[:2] == b"\r\n":
                self._excess = True
            self._finish()
        elif self._bare > MAX_HEAD_BYTES:
            raise Violation("The response's chunks have too much around them.")
        else:
            self._tail = tail

    def _finish(self) -> None:
        self._mode = _END
        self._parser = None
        self.complete = True

    # httptools' side.

    def on_message_begin(self) -> None:
        if self._ended:
            self._excess = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._begun:
            return  # a trailer, or a second response
        name = name.lower()
        if name in _OF_FRAMING:
            if name == b"content-length":
                self._length = value
            elif name == b"transfer-encoding":
                self._te = value
                self._te_count += 1
            else:
                self.keep_alive = value
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if not self._begun:
            self._begun = True
            self._received = self._parser.get_status_code()
            self._keep_alive = self._parser.should_keep_alive()
            self.version = "1.1" if self._is_1_1 else self._parser.get_http_version()

    def on_body(self, data: bytes) -> None:
        if self._ended:
            return
        self._bare = 0
        size = len(data)
        self._body_bytes += size
        if self._body_bytes > self._max_body:
            raise Violation("The response's body is too large.")
        self.buffered += size
        self.chunks.append(data)

    def on_message_complete(self) -> None:
        if self._mode == _CHUNKED:
            self._ended = True


# Requests.


class Origin(NamedTuple):
    """Who shares connections."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx2.URL) -> "Origin":
        scheme = url.scheme
        if scheme not in ("http", "https"):
            raise httpx2.UnsupportedProtocol("Request URL needs to be http:// or https://.")
        host = url.raw_host.decode("ascii")
        if not host:
            raise httpx2.UnsupportedProtocol("Request URL needs a host.")
        return cls(scheme, host, url.port or (443 if scheme == "https" else 80))


_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_OURS: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"te",
     b"trailer", b"upgrade"),
)  # fmt: skip
_NAMES_KEPT: Final = 1024
_names: Final[dict[bytes, bytes]] = {}


def fields(headers: Headers) -> bytes:
    """Header lines, without those that belong to the connection; LocalProtocolError if they would break out of a line."""
    lines = [prefix + value + b"\r\n" for name, value in headers if (prefix := _names.get(name) or _name(name))]
    block = b"".join(lines)
    count = len(lines)
    if block.count(b"\n") != count or block.count(b"\r") != count or 0 in block:
        raise httpx2.LocalProtocolError("A header's value holds a line end or a NUL.")
    return block


def _name(name: bytes) -> bytes:
    """`name: `, or nothing if the field is ours to write."""
    if _TOKEN.fullmatch(name) is None:
        raise httpx2.LocalProtocolError("A header's name is not a token.")
    if name.lower() in _OURS:
        return b""
    prefix = name + b": "
    if len(_names) < _NAMES_KEPT and len(name) <= 64:
        _names[name] = prefix
    return prefix


class Endpoint:
    """Method, URL and the headers that are the same each time, checked once and kept as bytes."""

    __slots__ = ("head_request", "origin", "prefix", "takes_body")

    def __init__(self, url: httpx2.URL | str, method: str = "POST", headers: Headers = ()) -> None:
        url = httpx2.URL(url)
        self.origin = Origin.of(url)
        verb, target = method.encode("ascii"), url.raw_path
        if _TOKEN.fullmatch(verb) is None or _TARGET.fullmatch(target) is None or verb == b"CONNECT":
            raise httpx2.LocalProtocolError("The method or the URL cannot be sent.")
        self.head_request = verb == b"HEAD"
        self.takes_body = verb in (b"POST", b"PUT", b"PATCH")
        self.prefix = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b" % (verb, target, url.netloc, fields(headers))

    def head(self, headers: Headers, length: int | None) -> bytes:
        """The whole head; a `length` of None is a chunked body."""
        if length is None:
            return b"%b%btransfer-encoding: chunked\r\n\r\n" % (self.prefix, fields(headers))
        if length or self.takes_body:
            return b"%b%bcontent-length: %d\r\n\r\n" % (self.prefix, fields(headers), length)
        return b"%b%b\r\n" % (self.prefix, fields(headers))
