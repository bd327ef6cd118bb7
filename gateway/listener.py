"""HTTP/1.1 with a caller: httptools' grammar, connections as uvicorn's server makes and ends them, and bounds of our own.

It is uvicorn's httptools protocol, made lighter, with what that lacks: how long a request's head may take and be.
httptools is strict about framing (wire.md section 6), but neither it nor uvicorn minds a head that never ends: a caller
who sends a byte a minute would keep a connection for ever. Bodies have a deadline of their own (intake.py).
"""

import asyncio
from collections import deque
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from gateway import upgrade
from gateway.cycle import Cycle
from gateway.flow import Flow
from ledger import log

HEAD_WITHIN_S = 15.0
MAX_HEAD: Final = 64 * 1024
MAX_HEADERS: Final = 200
HIGH_WATER: Final = 64 * 1024
"""Bytes of a body that nobody takes before its caller is not read any more."""

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_INVALID: Final = b"Invalid HTTP request received."
_TOO_LARGE: Final = b"The request's head is too large."
_TOO_SLOW: Final = b"The request's head did not arrive in time."
_NO_HANDSHAKE: Final = b"This is no handshake for a WebSocket."
_UNTIMELY: Final = b"A WebSocket is asked for by itself, when the answers before it have ended; CONNECT is not served."


@lru_cache(maxsize=1024)
def _parts(url: bytes) -> tuple[bytes, str, bytes]:
    """Of a request's target: its path as it came, the path unescaped, and the query."""
    parsed: Any = httptools.parse_url(url)  # its types say that there is always a query
    return parsed.path, unquote(parsed.path.decode("ascii")), parsed.query or b""


class _TooManyHeaders(Exception):
    """Raised into the parser, which answers 400 and closes."""


class Listener(asyncio.Protocol):
    """One connection of a caller. What uvicorn's server calls has its names: the parameters, and `shutdown`."""

    __slots__ = (
        "_app", "_app_state", "_client", "_config", "_cycle", "_expects_100", "_flow", "_head_bytes", "_head_timer",
        "_headers", "_idle_since", "_idle_timer", "_in_head", "_kept_s", "_loop", "_parser", "_pipeline", "_scheme",
        "_server", "_server_state", "_serving", "_transport", "_url",
    )  # fmt: skip

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        self._config = config
        self._app = config.loaded_app
        self._app_state = app_state
        self._server_state = server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._kept_s: float = config.timeout_keep_alive
        self._parser: Any = self._new_parser()
        self._transport: Any = None
        self._flow: Flow | None = None
        self._server: Any = None
        self._client: Any = None
        self._scheme = "http"
        self._pipeline: deque[Cycle] = deque()
        self._serving: list[Cycle] = []
        self._cycle: Cycle | None = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._expects_100 = False
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None  # when the last answer ended, if nothing has come since
        self._idle_timer: asyncio.TimerHandle | None = None

    # asyncio's side.

    def connection_made(self, transport: Any) -> None:
        self._server_state.connections.add(self)
        self._transport = transport
        self._flow = Flow(transport)
        self._server = get_local_addr(transport)
        self._client = get_remote_addr(transport)
        self._scheme = "https" if is_ssl(transport) else "http"
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(self)
        self._forget_head()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        for cycle in self._serving:
            if not cycle.response_complete:
                cycle.leave()
        self._serving.clear()
        if self._flow is not None:
            self._flow.lost()
        if exc is None:
            self._transport.close()
        self._parser = None  # whose callbacks are a reference cycle

    def data_received(self, data: bytes) -> None:
        """A head that came whole, which nearly all do, costs two comparisons more."""
        flow = self._flow
        if flow is None or flow.lingering:
            return
        self._idle_since = None
        if self._in_head:
            self._head_bytes += len(data)
        more = data
        while more:
            try:
                self._parser.feed_data(more)
                break
            except httptools.HttpParserError:
                log.get().warning("invalid_request")
                self._refuse(b"400 Bad Request", _INVALID)
                break
            except httptools.HttpParserUpgrade as asked:
                more = self._upgrade(more[asked.args[0] :])
        if not self._in_head or flow.lingering:
            if self._head_timer is not None:
                self._forget_head()
        elif self._head_bytes > MAX_HEAD:
            self._refuse(b"431 Request Header Fields Too Large", _TOO_LARGE)
        elif self._head_timer is None:
            self._await_head()

    def eof_received(self) -> None:
        """Closes, by returning nothing."""

    def pause_writing(self) -> None:
        if self._flow is not None:
            self._flow.pause_writing()

    def resume_writing(self) -> None:
        if self._flow is not None:
            self._flow.resume_writing()

    # uvicorn's side.

    def shutdown(self) -> None:
        """The server ends: at once, or with the answer that is being given."""
        if self._cycle is None or self._cycle.response_complete:
            self._transport.close()
        else:
            self._cycle.keep_alive = False

    # httptools' side.

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._expects_100 = False
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers come this way too, after the body."""
        headers = self._headers
        if len(headers) >= MAX_HEADERS:
            raise _TooManyHeaders
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects_100 = True
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        parser, flow = self._parser, self._flow
        assert flow is not None
        if parser.should_upgrade():
            return
        version = parser.get_http_version()
        raw_path, path, query = _parts(self._url)
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": self._scheme,
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            # Trailers are appended to this list, and a short request is read to its end before the application sees it.
            "headers": self._headers.copy(),
            "state": self._app_state.copy(),
        }
        before = self._cycle
        cycle = self._cycle = Cycle(
            scope,
            self._transport,
            flow,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            expects_100=self._expects_100,
            on_response=self._answered,
        )
        scope["extensions"] = {"weir.cycle": cycle}
        if before is None or before.response_complete:
            self._serving = [cycle]
            cycle.start(self._app, self._loop, self._server_state.tasks)
        else:  # the caller pipelines
            self._serving = [each for each in self._serving if not each.response_complete]
            self._serving.append(cycle)
            flow.pause_reading()
            self._pipeline.append(cycle)

    def on_body(self, body: bytes) -> None:
        cycle, flow = self._cycle, self._flow
        if cycle is None or flow is None or cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER:
            flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        cycle = self._cycle
        if cycle is None or cycle.response_complete:
            return
        cycle.more_body = False
        cycle.message_event.set()

    # Our side.

    def _new_parser(self) -> Any:
        parser: Any = httptools.HttpRequestParser(self)
        # So that what comes behind `Connection: close` does not cost the request before it its answer.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _upgrade(self, rest: bytes) -> bytes:
        """A head has come that asks for another protocol, and `rest` behind it; the parser takes the head for all of it.

        Returns what is to be read now. A WebSocket is handed over. Any other protocol is ignored (RFC 9110 7.8), and the
        request is one like any other: a parser that is not told of the wish reads it again, or its body would be lost, or be
        taken for the next request.
        """
        method, version = self._parser.get_method(), self._parser.get_http_version()
        if method != b"CONNECT" and not self._wants_websocket():
            self._parser = self._new_parser()
            return upgrade.head(method, self._url, version, self._headers, but=b"upgrade") + rest
        if method == b"CONNECT" or (self._cycle is not None and not self._cycle.response_complete):
            self._refuse(b"400 Bad Request", _UNTIMELY)
        else:
            self._hand_over(upgrade.head(method, self._url, version, self._headers) + rest)
        return b""

    def _wants_websocket(self) -> bool:
        return self._config.ws_protocol_class is not None and upgrade.asked_for(self._headers) == b"websocket"

    def _hand_over(self, data: bytes) -> None:
        if upgrade.hand_over(self._config, self._server_state, self._app_state, self._transport, data):
            self._forget_head()
            self._server_state.connections.discard(self)
        else:
            self._refuse(b"400 Bad Request", _NO_HANDSHAKE)

    def _answered(self) -> None:
        """The timer of an idle connection is not set anew for each answer: it looks when it rings."""
        self._server_state.total_requests += 1
        flow = self._flow
        if flow is None or flow.lingering or self._transport.is_closing():
            return
        flow.resume_reading()
        if self._pipeline:
            self._pipeline.popleft().start(self._app, self._loop, self._server_state.tasks)
            return
        self._idle_since = self._loop.time()
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._kept_s, self._ring)

    def _ring(self) -> None:
        """Whether the connection has been idle for too long; if it is in use, its next answer sets the timer again."""
        self._idle_timer = None
        if self._idle_since is None:
            return
        left = self._idle_since + self._kept_s - self._loop.time()
        if left > 0:
            self._idle_timer = self._loop.call_later(left, self._ring)
        elif not self._transport.is_closing():
            self._transport.close()

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(HEAD_WITHIN_S, self._refuse, b"408 Request Timeout", _TOO_SLOW)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: bytes, message: bytes) -> None:
        """In no dialect: without a head there is no telling whose it is."""
        self._forget_head()
        flow = self._flow
        if flow is None or flow.lingering or self._transport.is_closing():
            return
        if not any(each.answering for each in self._serving):  # else it would be read as a part of that answer
            head = b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
            self._transport.write(head % (status, len(message)) + b"connection: close\r\n\r\n" + message)
        if self._cycle is None or self._cycle.response_complete:
            flow.linger()
        elif flow.write_paused:  # nobody reads, and a close would wait until somebody did
            self._transport.abort()
        else:  # its answer has no place behind this one: whoever serves is told
            self._transport.close()
