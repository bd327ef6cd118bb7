"""The upstream transport of the hot path: HTTP/1.1 on asyncio protocols and httptools, offered to httpx2.

`FastTransport.send` is the quick way in, `handle_async_request` the same for users of httpx2. A request is never sent
twice: a connection is replaced only while not a byte has been written to it. Everything later is an error, for the
caller to count and to fail over from, because the provider may have billed it.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import httpx2

from gateway.upstream.connection import HIGH_WATER, Connection, Exchange
from gateway.upstream.making import Address, Resolve, Settings, Stats
from gateway.upstream.pool import Pool, Timeouts
from gateway.upstream.wire import MAX_BODY_BYTES, Endpoint, Headers, Origin

__all__ = ["Endpoint", "FastTransport", "RawResponse", "Timeouts"]

_PIECE: Final = 256 * 1024  # of a body, between two looks at whether the upstream keeps up
_ENDPOINTS_KEPT: Final = 256
_FOREVER: Final = Timeouts(None, None, None, None)
_DEFAULT: Final = Timeouts()


class RawResponse(httpx2.AsyncByteStream):
    """An answer, and its body as it comes; read it to its end or close it. Dropped before its end, it closes itself."""

    __slots__ = ("_connection", "_exchange", "_read_s", "_take", "_until", "_wanted", "headers", "status", "version")

    def __init__(self, connection: Connection, exchange: Exchange, read_s: float | None, until: float | None) -> None:
        self.status = exchange.status
        self.headers = exchange.headers
        self.version = b"HTTP/1.1" if exchange.version == "1.1" else b"HTTP/1.0"
        self._connection = connection
        self._exchange = exchange
        self._read_s = read_s
        self._until = until
        self._take: Callable[[bytes], bool] | None = None
        self._wanted = True

    @property
    def begun(self) -> bool:
        """Whether something of it is there, or its end."""
        return bool(self._exchange.chunks) or self._exchange.complete

    @property
    def complete(self) -> bool:
        """Whether it has all come and been taken."""
        return self._exchange.complete and not self._exchange.chunks

    async def next_chunk(self) -> bytes:
        """All that has come since; empty at the end. ReadTimeout, ReadError or RemoteProtocolError if that is no end."""
        exchange = self._exchange
        self._check_time()
        while not exchange.chunks:
            if exchange.complete:
                return b""
            await self._more(None)
        return self._taken()

    async def relay(self, take: Callable[[bytes], bool]) -> bool:
        """Give each piece to `take` in the callback of the socket that it came by, so that no task is woken for it, until
        `take` says no or there is no more. Whether there may be more. Errors are those of `next_chunk` and of `take`.
        """
        exchange = self._exchange
        self._take, self._wanted = take, True
        try:
            self._check_time()
            while self._wanted:
                if exchange.chunks:
                    self._wanted = take(self._taken())
                elif exchange.complete:
                    return False
                else:
                    await self._more(self._pass_on)
        finally:
            self._take = None
        return not self.complete

    def _pass_on(self) -> bool:
        assert self._take is not None
        wanted = self._wanted = self._take(self._taken())
        if self._read_s is not None:
            deadline = self._connection.loop.time() + self._read_s
            self._exchange.deadline = deadline if self._until is None else min(deadline, self._until)
        return wanted

    def _check_time(self) -> None:
        if self._until is not None and self._connection.loop.time() >= self._until and not self._exchange.complete:
            self._connection.abandon(self._exchange)
            raise httpx2.ReadTimeout("The upstream's answer took too long.")

    async def _more(self, sink: Callable[[], bool] | None) -> None:
        exchange = self._exchange
        if exchange.error is not None:
            raise exchange.error
        if not await exchange.wait(self._connection, _least(self._read_s, self._until, self._connection), sink):
            self._connection.abandon(exchange)
            raise httpx2.ReadTimeout("The upstream stopped in the middle of its answer.")

    def _taken(self) -> bytes:
        exchange = self._exchange
        chunks = exchange.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        if exchange.buffered > HIGH_WATER:
            self._connection.go_on(exchange)
        exchange.buffered = 0
        return data

    async def aclose(self) -> None:
        self.drop()

    def drop(self) -> None:
        """Close it: what has not come of it will not be waited for."""
        self._connection.abandon(self._exchange)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self.next_chunk()
        if not data:
            raise StopAsyncIteration
        return data

    def __del__(self) -> None:
        if not self._exchange.complete:
            self._connection.abandon(self._exchange)


class FastTransport(httpx2.AsyncBaseTransport):
    """One for a process and its event loop; connections are shared by origin.

    `ssl_context` must verify; its ALPN is set, and its lowest version raised to TLS 1.2. `keepalive_s` is to be below what
    the servers allow (uvicorn and Node: 5 s); a `Keep-Alive: timeout` lowers it further. `resolve` stands in for the DNS,
    and `allow_address` is asked for every address that a name has: one refused, none is connected to.
    """

    def __init__(
        self,
        ssl_context: ssl.SSLContext | None = None,
        *,
        max_connections: int = 2_000,
        keepalive_s: float = 4.0,
        max_age_s: float = 300.0,
        max_body_bytes: int = MAX_BODY_BYTES,
        resolve: Resolve | None = None,
        allow_address: Callable[[Address], bool] | None = None,
    ) -> None:
        context = _checked(ssl_context or ssl.create_default_context())
        self._settings = Settings(context, max_connections, keepalive_s, max_age_s, resolve, allow_address)
        self._max_body_bytes = max_body_bytes
        self._pools: dict[Origin, Pool] = {}
        self._endpoints: dict[tuple[str, str, bytes, int | None, bytes], Endpoint] = {}
        self._closed = False
        self.stats = Stats()

    @property
    def counts(self) -> dict[str, int]:
        """Connections and callers now, over all origins."""
        every = [pool.counts for pool in self._pools.values()]
        return {name: sum(counts[name] for counts in every) for name in ("busy", "idle", "waiting", "open")}

    async def send(
        self, endpoint: Endpoint, headers: Headers = (), body: bytes = b"", timeouts: Timeouts = _DEFAULT
    ) -> RawResponse:
        """The answer's head; its body is still to be read."""
        head = endpoint.head(headers, len(body))
        pool = self._pools.get(endpoint.origin) or self._make_pool(endpoint.origin)
        connection = pool.take() or await pool.acquire(timeouts)
        exchange = self._begin(connection, endpoint)
        try:
            if len(body) <= _PIECE:
                connection.write(head + body if body else head)
                exchange.sent = True
            else:
                await _write(connection, exchange, head, body, timeouts.write)
            return await _answer(connection, exchange, timeouts)
        except BaseException:
            connection.abandon(exchange)
            raise

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        endpoint = self._endpoint(request)
        timeouts = _timeouts(request.extensions)
        headers = request.headers.raw
        if isinstance(request.stream, httpx2.ByteStream):
            raw = await self.send(endpoint, headers, request.content, timeouts)
        else:
            raw = await self._send_stream(endpoint, headers, request, timeouts)
        return httpx2.Response(raw.status, headers=raw.headers, stream=raw, extensions={"http_version": raw.version})

    async def aclose(self) -> None:
        """Cuts what is in flight, and lets nobody in."""
        self._closed = True
        for pool in self._pools.values():
            pool.close()
        await asyncio.sleep(0)  # the loop closes what was aborted in its next step

    async def _send_stream(
        self, endpoint: Endpoint, headers: Headers, request: httpx2.Request, timeouts: Timeouts
    ) -> RawResponse:
        stream = request.stream
        if not isinstance(stream, httpx2.AsyncByteStream):
            raise httpx2.LocalProtocolError("A request's body must be bytes or an async stream.")
        announced = request.headers.get("content-length")
        length = None if announced is None else int(announced)
        head = endpoint.head(headers, length)
        pool = self._pools.get(endpoint.origin) or self._make_pool(endpoint.origin)
        connection = pool.take() or await pool.acquire(timeouts)
        exchange = self._begin(connection, endpoint)
        try:
            connection.write(head)
            await _write_stream(connection, exchange, stream, length, timeouts.write)
            return await _answer(connection, exchange, timeouts)
        except BaseException:
            connection.abandon(exchange)
            raise

    def _begin(self, connection: Connection, endpoint: Endpoint) -> Exchange:
        exchange = Exchange(head_request=endpoint.head_request, max_body_bytes=self._max_body_bytes)
        connection.begin(exchange)
        return exchange

    def _make_pool(self, origin: Origin) -> Pool:
        if self._closed:
            raise httpx2.PoolTimeout("The transport is closed.")
        pool = self._pools[origin] = Pool(origin, self._settings, self.stats)
        return pool

    def _endpoint(self, request: httpx2.Request) -> Endpoint:
        url = request.url
        key = (request.method, url.scheme, url.raw_host, url.port, url.raw_path)
        found = self._endpoints.get(key)
        if found is None:
            if len(self._endpoints) >= _ENDPOINTS_KEPT:
                self._endpoints.clear()
            found = self._endpoints[key] = Endpoint(url, request.method)
        return found


async def _answer(connection: Connection, exchange: Exchange, timeouts: Timeouts) -> RawResponse:
    until = None if timeouts.total is None else connection.loop.time() + timeouts.total
    while not exchange.status:
        if exchange.error is not None:
            raise exchange.error
        if not await exchange.wait(connection, _least(timeouts.read, until, connection)):
            raise httpx2.ReadTimeout("The upstream did not answer in time.")
    return RawResponse(connection, exchange, timeouts.read, until)


async def _write(connection: Connection, exchange: Exchange, head: bytes, body: bytes, write_s: float | None) -> None:
    """As fast as the upstream reads; no further than its refusal."""
    connection.write(head)
    view = memoryview(body)
    for start in range(0, len(body), _PIECE):
        connection.write(view[start : start + _PIECE])
        if not await _drained(connection, exchange, write_s):
            return
    exchange.sent = True


async def _write_stream(
    connection: Connection,
    exchange: Exchange,
    stream: httpx2.AsyncByteStream,
    length: int | None,
    write_s: float | None,
) -> None:
    written = 0
    pieces = aiter(stream)
    while (piece := await anext(pieces, None)) is not None:
        if not piece:
            continue  # as a chunk it would end the body
        written += len(piece)
        if length is not None and written > length:
            break
        connection.write(piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
        if not await _drained(connection, exchange, write_s):
            return
    if length is None:
        connection.write(b"0\r\n\r\n")
    elif written != length:
        raise httpx2.LocalProtocolError("The request's body is not as long as its content-length.")
    exchange.sent = True


async def _drained(connection: Connection, exchange: Exchange, write_s: float | None) -> bool:
    """Whether there is use in writing on: not if the upstream has refused already, or is gone."""
    while True:
        if exchange.error is not None and not exchange.status:
            raise exchange.error
        if exchange.error is not None or exchange.complete or exchange.status >= 300:
            return False
        if not connection.paused_writing:
            return True
        if not await exchange.wait(connection, write_s):
            raise httpx2.WriteTimeout("The upstream does not read the request.")


def _least(seconds: float | None, until: float | None, connection: Connection) -> float | None:
    if until is None:
        return seconds
    left = max(until - connection.loop.time(), 0.0)
    return left if seconds is None else min(left, seconds)


def _timeouts(extensions: Mapping[str, Any]) -> Timeouts:
    given = extensions.get("timeout")
    if not given:
        return _FOREVER
    get = given.get
    return Timeouts(get("connect"), get("read"), get("write"), get("pool"), get("total"))


def _checked(context: ssl.SSLContext) -> ssl.SSLContext:
    if context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname:
        raise ValueError("The upstream's certificate must be verified.")
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    context.set_alpn_protocols(["http/1.1"])
    return context
