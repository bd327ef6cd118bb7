"""One connection to an upstream: an asyncio protocol that carries one exchange at a time."""

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import httpx2

from gateway.upstream.wire import Reading, Violation

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool

HIGH_WATER: Final = 256 * 1024
"""Bytes that wait for a slow reader before the upstream is not read any more."""


class Exchange(Reading):
    """A request's way to its answer: what has been read, and the one who waits for more of it.

    When its answer is complete the connection is given back at once and may serve another: from then on an exchange
    knows its own bytes only.
    """

    __slots__ = ("_sink", "_waiter", "deadline", "error", "expired", "sent")

    def __init__(self, *, head_request: bool, max_body_bytes: int) -> None:
        super().__init__(head_request=head_request, max_body_bytes=max_body_bytes)
        self.error: httpx2.TransportError | None = None
        self.sent = False
        self.expired = False
        self.deadline: float | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[], bool] | None = None

    def wake(self) -> None:
        """Something has happened. If that is more of the answer, and a sink takes it and wants more, nobody is woken."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._sink is not None and self.chunks:
            try:
                wanted = self._sink()
            except Exception as error:  # noqa: BLE001 - it is the reader's, who waits
                waiter.set_exception(error)
                return
            if wanted and not self.complete and self.error is None and not self.expired:
                return
        if not waiter.done():  # a sink may end its reader
            waiter.set_result(None)

    def fail(self, error: httpx2.TransportError) -> None:
        """The first reason counts, and none if the answer is there."""
        if self.error is None and not self.complete:
            self.error = error
        self.drop()
        self.wake()

    def expire(self) -> None:
        self.expired = True
        self.wake()

    async def wait(
        self, connection: "Connection", seconds: float | None, sink: Callable[[], bool] | None = None
    ) -> bool:
        """Until something has happened here; False if `seconds` have passed first.

        `sink` takes what comes meanwhile, in the callback of the socket, and says whether it wants more; then, and when it
        has raised, the wait is over. It sets the deadline anew.
        """
        assert self._waiter is None, "one reader at a time"
        loop = connection.loop
        self._waiter = loop.create_future()
        self._sink = sink
        self.expired = False
        if seconds is not None:
            self.deadline = loop.time() + seconds
            connection.watch(self.deadline)
        try:
            await self._waiter
        finally:
            self._waiter = self._sink = None
            self.deadline = None
        return not self.expired


class Connection(asyncio.Protocol):
    """Made and owned by a pool. Bytes that nobody asked for end it."""

    __slots__ = (
        "_alarm", "_exchange", "_paused_reading", "_poll", "_saw_eof", "_timer", "_tls", "_transport", "closed", "expires",
        "gave_session", "idle_limit", "loop", "owns_slot", "paused_writing", "pool", "resumed", "retires", "used",
    )  # fmt: skip

    def __init__(self, pool: "Pool", loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pool = pool
        self.closed = False
        self.used = False
        self.owns_slot = False
        self.resumed = False
        self.gave_session = False
        self.retires = 0.0
        self.expires = 0.0
        self.idle_limit = 0.0
        self.paused_writing = False
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._poll: select.poll | None = None
        self._tls: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._alarm = 0.0
        self._paused_reading = False
        self._saw_eof = False

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._tls = transport.get_extra_info("ssl_object")
        self.resumed = self._tls is not None and bool(self._tls.session_reused)
        sock = transport.get_extra_info("socket")
        # A model may think for ten minutes, and a NAT forgets in five.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            if not self.closed:
                self.pool.stats.unsolicited += 1
                self.abort()
            return
        had_status = exchange.status + exchange.interim
        try:
            exchange.feed(data)
        except Violation as error:
            self.pool.stats.violations += 1
            self._fail(httpx2.RemoteProtocolError(str(error)))
            return
        if exchange.complete:
            self._finish(exchange)
        elif exchange.buffered > HIGH_WATER and not self._paused_reading:
            self._paused_reading = True
            self._reading("pause_reading")
        if exchange.buffered or exchange.complete or exchange.status + exchange.interim != had_status:
            exchange.wake()

    def eof_received(self) -> None:
        """Closes, by returning nothing. Over TLS both loops call this for a bare FIN as for a close_notify."""
        self._saw_eof = True
        if self._tls is not None:
            try:
                self._saw_eof = self._tls.read(1) == b""
            except OSError:
                self._saw_eof = False
        if self._exchange is None:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self._exchange
        if exchange is not None:
            if exc is not None:
                kind = httpx2.ReadError if exchange.sent else httpx2.WriteError
                exchange.fail(kind(f"The connection broke: {type(exc).__name__}."))
            else:
                try:
                    exchange.eof(clean=self._saw_eof)
                    self._finish(exchange)
                    exchange.wake()
                except Violation as error:
                    exchange.fail(httpx2.RemoteProtocolError(str(error)))
        self._leave()
        self._transport = None

    def pause_writing(self) -> None:
        self.paused_writing = True

    def resume_writing(self) -> None:
        self.paused_writing = False
        if self._exchange is not None:
            self._exchange.wake()

    # the transport's side

    def begin(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.used = True

    def serves(self, exchange: Exchange) -> bool:
        """Whether this is still its connection; if not, hands off."""
        return self._exchange is exchange

    def write(self, data: bytes | memoryview) -> None:
        """Nothing if it is going down, of which connection_lost tells the exchange; uvloop's transport would raise."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def go_on(self, exchange: Exchange) -> None:
        """The reader has caught up."""
        if self._paused_reading and self._exchange is exchange:
            self._paused_reading = False
            self._reading("resume_reading")

    def abandon(self, exchange: Exchange) -> None:
        """Its caller wants no more of it; if it has not come to its end, the connection is of no use."""
        if self._exchange is exchange:
            self.abort()
        exchange.drop()

    def watch(self, deadline: float) -> None:
        """See that the exchange is told when its deadline is over: one timer, moved only when it would come too late."""
        if self._timer is None or deadline < self._alarm:
            if self._timer is not None:
                self._timer.cancel()
            self._alarm = deadline
            self._timer = self.loop.call_at(deadline, self._ring)

    # the pool's side

    def is_usable(self, now: float) -> bool:
        """Alive, not too old, and not a byte or an end in sight before the first byte of a request is written.

        The poll is one system call, and worth it: what the kernel holds already cannot be the answer to what comes.
        """
        transport = self._transport
        if transport is None or self.closed or transport.is_closing() or self._poll is None:
            return False
        return not self.used or (now < self.expires and now < self.retires and not self._poll.poll(0))

    def session(self) -> Any:
        """The TLS session, to go on with in another connection; it is there once something has been read."""
        session = None if self._tls is None else self._tls.session
        return session if session is not None and session.has_ticket else None

    def abort(self) -> None:
        """End it now. Whoever still waits on it learns that it broke."""
        exchange = self._exchange
        transport = self._transport
        self._leave()
        if transport is not None:
            transport.abort()
        if exchange is not None:
            exchange.fail(httpx2.ReadError("The connection was closed."))

    def _fail(self, error: httpx2.TransportError) -> None:
        if self._exchange is not None:
            self._exchange.fail(error)
        self.abort()

    def _finish(self, exchange: Exchange) -> None:
        """The answer is complete, whether or not its reader has it: the connection's next exchange may begin."""
        transport = self._transport
        self._exchange = None
        if self._tls is not None and not self.gave_session:
            self.gave_session = True
            self.pool.learn(self)
        if self._paused_reading:
            self._paused_reading = False
            self._reading("resume_reading")
        if transport is None or not exchange.sent or not exchange.reusable or transport.get_write_buffer_size():
            self.abort()
            return
        limit = self.idle_limit
        if exchange.keep_alive is not None:
            limit = min(limit, _keep_alive_seconds(exchange.keep_alive))
        self.expires = self.loop.time() + limit
        self.pool.give_back(self)

    def _leave(self) -> None:
        self._exchange = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.closed:
            self.closed = True
            self.pool.gone(self)

    def _ring(self) -> None:
        self._timer = None
        exchange = self._exchange
        deadline = None if exchange is None else exchange.deadline
        if exchange is None or deadline is None:
            return
        if deadline <= self.loop.time():
            exchange.expire()
        else:
            self.watch(deadline)

    def _reading(self, verb: str) -> None:
        if self._transport is not None and not self._transport.is_closing():
            getattr(self._transport, verb)()


def _keep_alive_seconds(value: bytes) -> float:
    """Under what `Keep-Alive: timeout=` announces; the server's clock began before ours."""
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name.lower() == b"timeout" and number.isdigit() and len(number) < 8:
            return max(float(number) - 1.0, float(number) * 0.5)
    return float("inf")
