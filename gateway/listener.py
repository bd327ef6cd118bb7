"""uvicorn's HTTP protocol with a lighter cycle, and the bounds that it lacks: how long a request's head may take and be.

httptools is strict about framing (wire.md section 6), but neither it nor uvicorn minds a head that never ends: a caller
who sends a byte a minute would keep a connection for ever. Bodies have a deadline of their own (intake.py).
"""

import asyncio
from functools import lru_cache
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.cycle import Cycle
from gateway.flow import Flow

HEAD_WITHIN_S = 15.0
MAX_HEAD: Final = 64 * 1024
MAX_HEADERS: Final = 200
_INVALID: Final = "Invalid HTTP request received."
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_TOO_LARGE: Final = b"The request's head is too large."
_TOO_SLOW: Final = b"The request's head did not arrive in time."


@lru_cache(maxsize=1024)
def _parts(url: bytes) -> tuple[bytes, str, bytes]:
    """Of a request's target: its path as it came, the path unescaped, and the query."""
    parsed: Any = httptools.parse_url(url)  # its types say that there is always a query
    return parsed.path, unquote(parsed.path.decode("ascii")), parsed.query or b""


class _TooManyHeaders(Exception):
    """Raised into the parser, which answers 400 and closes."""


class Listener(HttpToolsProtocol):
    """One connection of a caller."""

    # Beside uvicorn's 28 attributes: with more than 30 each connection would have a dictionary of its own.
    __slots__ = ("_head_bytes", "_head_timer", "_idle_since", "_idle_timer", "_in_head", "_serving")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None  # when the last answer ended, if nothing has come since
        self._idle_timer: asyncio.TimerHandle | None = None
        self._serving: list[Cycle] = []

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = cast("Any", Flow(transport))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        super().connection_lost(exc)
        for cycle in self._serving:
            if not cycle.response_complete:
                cycle.leave()
        self._serving.clear()

    def data_received(self, data: bytes) -> None:
        """As uvicorn's; a head that came whole, which nearly all do, costs two comparisons more."""
        self._idle_since = None
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.logger.warning(_INVALID)
            self.send_400_response(_INVALID)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._unsupported_upgrade_warning()
        if not self._in_head:
            if self._head_timer is not None:
                self._forget_head()
        elif self._head_bytes > MAX_HEAD:
            self._refuse(b"431 Request Header Fields Too Large", _TOO_LARGE)
        elif self._head_timer is None:
            self._await_head()

    def on_message_begin(self) -> None:
        self._in_head = True
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self.url = self.url + url  # mypyc has no `+=` for an attribute of a class that it did not compile

    def on_header(self, name: bytes, value: bytes) -> None:
        """As uvicorn's. Trailers come this way too, after the body."""
        headers = self.headers
        if len(headers) >= MAX_HEADERS:
            raise _TooManyHeaders
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        """As uvicorn's, without what Weir does not use: root paths, and a bound on connections."""
        self._in_head = False
        self._head_bytes = 0
        parser = self.parser
        version = parser.get_http_version()
        raw_path, path, query = _parts(self.url)
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            # Trailers are appended to this list, and a short request is read to its end before the application sees it.
            "headers": self.headers.copy(),
            "state": self.app_state.copy(),
        }
        self.scope = cast("Any", scope)
        if parser.should_upgrade() and self._should_upgrade():
            return
        before: Any = self.cycle
        cycle = Cycle(
            scope,
            self.transport,
            cast("Flow", self.flow),
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            expects_100=self.expect_100_continue,
            on_response=self.on_response_complete,
        )
        scope["extensions"] = {"weir.cycle": cycle}
        self.cycle = cast("Any", cycle)
        if before is None or before.response_complete:
            self._serving = [cycle]
            self._start_asgi_task(self.cycle, self.app)
        else:  # the caller pipelines
            self._serving = [each for each in self._serving if not each.response_complete]
            self._serving.append(cycle)
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        cycle: Any = self.cycle
        if (self.parser.should_upgrade() and self._should_upgrade()) or cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        cycle: Any = self.cycle
        if (self.parser.should_upgrade() and self._should_upgrade()) or cycle.response_complete:
            return
        cycle.more_body = False
        cycle.message_event.set()

    def on_response_complete(self) -> None:
        """As uvicorn's, but that the timer of an idle connection is not set anew for each answer: it looks when it rings."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._ring)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """As uvicorn's; a shutdown waits for its tasks."""
        cycle.start(app, self.loop, self.tasks)

    def _ring(self) -> None:
        """Whether the connection has been idle for too long; if it is in use, its next answer sets the timer again."""
        self._idle_timer = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            self.timeout_keep_alive_handler()
        else:
            self._idle_timer = self.loop.call_later(left, self._ring)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self._refuse, b"408 Request Timeout", _TOO_SLOW)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: bytes, message: bytes) -> None:
        """In no dialect: without a head there is no telling whose it is."""
        self._forget_head()
        if self.transport.is_closing():
            return
        head = (
            b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head % (status, len(message)) + message)
        self.transport.close()
