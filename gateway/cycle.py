"""One request of a caller and its answer, as the listener drives it: uvicorn's own RequestResponseCycle, made lighter.

Three things differ (docs/performance.md). The head of an answer is not written by itself but with what follows it: one
system call and one packet less. A body that came whole with its head is taken without waiting. And whoever serves can be
called back when the caller leaves, so that no task has to wait for `http.disconnect` beside each request.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from gateway.flow import Flow, Signal
from ledger import log

_STATUS: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}
_OF_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"connection"))
_SIZES: Final[tuple[bytes, ...]] = tuple(b"%x\r\n" % size for size in range(1024))
"""The lines before chunks: those of a stream are short, and to write a number takes longer than to find it."""
_FAILED: Final = b"Internal Server Error"


class Cycle:
    """`scope["extensions"]["weir.cycle"]`; the attributes without an underscore are those that the listener uses."""

    __slots__ = (
        "_chunked", "_head", "_left_to_send", "_on_left", "_started", "_tasks", "_transport", "_waits_for_100", "body",
        "disconnected", "flow", "keep_alive", "message_event", "more_body", "on_response", "response_complete", "scope",
        "task",
    )  # fmt: skip

    def __init__(
        self,
        scope: Any,
        transport: asyncio.Transport,
        flow: Flow,
        *,
        keep_alive: bool,
        expects_100: bool,
        on_response: Callable[[], None],
    ) -> None:
        self.scope = scope
        self.flow = flow
        self.keep_alive = keep_alive
        self.on_response = on_response
        self.body = bytearray()
        self.more_body = True
        self.message_event = Signal()
        self.disconnected = False
        self.response_complete = False
        self.task: asyncio.Task[None] | None = None
        self._transport = transport
        self._waits_for_100 = expects_100
        self._on_left: Callable[[], None] | None = None
        self._head = b""
        self._started = False
        self._chunked = False
        self._left_to_send = 0

    # What ASGI has no words for.

    def take_body(self) -> bytes | None:
        """The body, if it came whole with the head, as short ones do (up to 64 KiB); None: `receive` it."""
        if self.more_body or self.disconnected or self.flow.read_paused:
            return None
        body = bytes(self.body)
        self.body.clear()
        return body

    def begin(self, status: int, headers: Any) -> None:
        """The head of an answer. It is kept back until its first piece: an empty one sends it alone."""
        if self._started:
            raise RuntimeError("The answer has begun already.")
        self._started = True
        self._head = self._make_head(status, headers)

    def push(self, body: bytes) -> bool:
        """A piece of an answer, without waiting; False: the caller is slow, so wait until `drained` before the next."""
        if self.disconnected:
            return True
        self._write(body, more=True)
        return not self.flow.write_paused

    def finish(self, body: bytes) -> None:
        """The last piece, without waiting."""
        if not self.disconnected:
            self._write(body, more=False)

    async def drained(self) -> None:
        """Until the caller has read, or is gone."""
        while self.flow.write_paused and not self.disconnected:
            await self.flow.drain()

    def on_left(self, call: Callable[[], None] | None) -> None:
        """Whom to tell, once, that the caller has gone; None: nobody any more."""
        self._on_left = call

    def leave(self) -> None:
        """The connection is lost."""
        self.disconnected = True
        self.message_event.set()
        if self._on_left is not None:
            self._on_left()

    @property
    def answering(self) -> bool:
        """Whether an answer has begun and not ended."""
        return self._started and not self.response_complete

    # ASGI.

    def start(self, app: Any, loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[None]]) -> None:
        """Serve it in a task, which is among `tasks` for as long as it runs."""
        self._tasks = tasks
        self.task = loop.create_task(self.run_asgi(app))
        tasks.add(self.task)

    async def run_asgi(self, app: Any) -> None:
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                self._transport.close()  # an answer that was begun and never ended: whoever serves says so in this way
        except asyncio.CancelledError:
            self._transport.close()
            raise
        except Exception as error:  # noqa: BLE001 - nobody else would see it
            log.get().error("application_failed", exc=error)
            if self._started:
                self._transport.close()
            else:
                self._say_500()
        finally:
            # Neither the protocol nor the scope knows it any more, so it is freed now. The collector freed 7,000 requests
            # at once, and everybody waited for 68 ms.
            self.on_response = _nothing
            self.scope.pop("extensions", None)
            if self.task is not None:
                self._tasks.discard(self.task)  # a callback of the task would be one more turn of the loop

    async def receive(self) -> dict[str, Any]:
        if self._waits_for_100 and not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._waits_for_100 = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body = bytes(self.body)
        self.body.clear()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Any) -> None:
        """`begin`, `push` or `finish`, when the caller has room."""
        if self.flow.write_paused:
            await self.drained()
        if message["type"] != "http.response.body":
            self.begin(message["status"], message.get("headers", ()))
        elif message.get("more_body", False):
            self.push(message.get("body", b""))
        else:
            self.finish(message.get("body", b""))

    def _make_head(self, status: int, headers: Any) -> bytes:
        self._waits_for_100 = False
        lines = [_STATUS[status] if status in _STATUS else b"HTTP/1.1 %d \r\n" % status]
        framed = closing = False
        for name, value in headers:
            if name in _OF_FRAMING:
                if name == b"content-length":
                    framed, self._left_to_send = True, int(value)
                elif name == b"transfer-encoding":
                    continue  # it is of the connection that the answer came by
                elif b"close" in value.lower():
                    self.keep_alive, closing = False, True
            lines.append(b"%b: %b\r\n" % (name, value))
        block = b"".join(lines)
        if block.count(b"\n") != len(lines) or block.count(b"\r") != len(lines) or 0 in block:
            self._started = False
            raise RuntimeError("A header's value holds a line end or a NUL.")
        if not self.keep_alive and not closing:
            block += b"connection: close\r\n"
        if not framed and self.scope["method"] != "HEAD" and status not in (204, 304):
            self._chunked = True
            block += b"transfer-encoding: chunked\r\n"
        return block + b"\r\n"

    def _write(self, body: bytes, *, more: bool) -> None:
        if not self._started or self.response_complete:
            raise RuntimeError("This is no time for a piece of an answer.")
        head, self._head = self._head, b""
        if self._chunked:
            size = len(body)
            line = _SIZES[size] if size < len(_SIZES) else b"%x\r\n" % size
            data = b"".join([head, line, body, b"\r\n"]) if size else head
            if not more:
                data += b"0\r\n\r\n"
        elif self.scope["method"] == "HEAD":
            data = head
            self._left_to_send = 0
        else:
            self._left_to_send -= len(body)
            if self._left_to_send < 0 or (self._left_to_send and not more):
                raise RuntimeError("The answer is not as long as its content-length.")
            data = head + body
        if data:
            self._transport.write(data)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive and self.more_body:
                self.flow.linger()
            elif not self.keep_alive:
                self._transport.close()
            self.on_response()

    def _say_500(self) -> None:
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        headers.append((b"content-length", b"%d" % len(_FAILED)))
        self.begin(500, headers)
        self.finish(_FAILED)


def _nothing() -> None:
    """In place of the listener's method."""
