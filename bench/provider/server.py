"""HTTP/1.1 on asyncio and httptools: bytes to requests, one at a time and in order on each connection."""

import asyncio
import socket
import struct
from collections import deque
from typing import cast

import httptools

from bench.provider import control
from bench.provider.exchange import Exchange
from bench.provider.house import House
from bench.provider.record import Outcome
from bench.provider.route import Request

MAX_BODY_BYTES = 64 * 1024 * 1024
_LINGER_ZERO = struct.pack("ii", 1, 0)  # close means RST


class Connection(asyncio.Protocol):
    """An `Exchange` at a time; requests that are sent ahead wait in a queue."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._control: asyncio.Task[None] | None = None
        self._ahead: deque[Request] = deque()
        self._drained: asyncio.Future[None] | None = None
        self._start_message()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._house.connections.add(self)
        self._house.record.stats.open_connections += 1
        self._house.record.changed()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a bug of ours: loud, never a 400
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self._transport = None
        self._ahead.clear()
        self._house.connections.discard(self)
        self._house.record.stats.open_connections -= 1
        self._abandon("client_left")
        self.resume_writing()
        self._house.record.changed()

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # httptools' side

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if ("expect", "100-continue") in self._headers:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_BODY_BYTES:
            self._close()
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        keep_alive = self._parser.should_keep_alive()
        request = Request(method, self._target.decode(), self._headers, b"".join(self._body), keep_alive)
        self._start_message()
        self._ahead.append(request)
        self._next()

    def _start_message(self) -> None:
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._size = 0

    # the exchange's side

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def drained(self) -> None:
        if self._drained is not None:
            await self._drained

    async def cut(self, *, reset: bool) -> None:
        """FIN or RST, behind what was written; of which RST takes back what the kernel has not delivered."""
        self._exchange = None
        transport = self._transport
        if transport is None:
            return
        if not reset:
            transport.close()
            return
        transport.set_write_buffer_limits(high=1, low=0)  # so that drained means sent; TLS never resumes from 0
        await self.drained()
        if self._transport is None:
            return
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()

    def done(self, *, keep_alive: bool) -> None:
        self._exchange = None
        self._control = None
        if not keep_alive:
            self._close()
        elif self._ahead:
            asyncio.get_running_loop().call_soon(self._next)

    def drop(self, *, idle: bool) -> None:
        """Our own end of it; an idle connection, or one with a control request, only if `idle`."""
        if self._exchange is not None or idle:
            self._abandon("cut")
            if self._transport is not None:
                self._transport.abort()

    def _next(self) -> None:
        if self._exchange is not None or self._control is not None or not self._ahead:
            return
        request = self._ahead.popleft()
        if request.target.startswith(control.PREFIX):
            self._control = asyncio.create_task(self._answer_control(request))
            return
        self._exchange = Exchange(self._house, self, request)
        self._exchange.begin()

    async def _answer_control(self, request: Request) -> None:
        self.write(await control.answer(self._house, request))
        self.done(keep_alive=request.keep_alive)

    def _abandon(self, outcome: Outcome) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon(outcome)
        if self._control is not None:
            self._control.cancel()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
