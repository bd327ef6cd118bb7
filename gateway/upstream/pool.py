"""The connections to one origin: bounded, handed out fairly, and made anew with a fresh look at the DNS."""

import asyncio
import ipaddress
import random
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, cast

import httpx2

from gateway.upstream.connection import Connection
from gateway.upstream.wire import Origin

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_STAGGER_S = 0.25  # RFC 8305's delay before the next address is tried beside the last
_SHUTDOWN_S = 1.0


class Timeouts(NamedTuple):
    """Seconds; None is for ever. `read` bounds the wait for a whole head, and each wait for more of the body."""

    connect: float | None = 5.0
    read: float | None = 600.0
    write: float | None = 600.0
    pool: float | None = 5.0
    total: float | None = None


class Settings(NamedTuple):
    """What all pools of a transport have in common."""

    ssl_context: ssl.SSLContext
    max_connections: int
    keepalive_s: float
    max_age_s: float
    resolve: Resolve | None
    allow_address: Callable[[Address], bool] | None


class Stats:
    """What has happened, ever."""

    __slots__ = ("opened", "resumed", "stale", "unsolicited", "violations")

    def __init__(self) -> None:
        self.opened = 0
        self.resumed = 0  # of those opened, with an earlier TLS session
        self.stale = 0  # found dead or too old before a byte of a request was written to them
        self.unsolicited = 0  # ended by bytes that nobody asked for
        self.violations = 0  # answers that were not HTTP


class Pool:
    """`take` is the quick way and `acquire` the sure one; a connection comes back by itself when its answer is complete.

    A slot is the right to one connection. It belongs to a connection, to a caller that is making one, or, with or without
    a connection, to the first in the queue; who has it gives it on.
    """

    def __init__(self, origin: Origin, settings: Settings, stats: Stats) -> None:
        self.origin = origin
        self.stats = stats
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._ssl = _Resuming(settings.ssl_context) if origin.scheme == "https" else None
        self._slots = 0
        self._open: set[Connection] = set()
        self._idle: OrderedDict[Connection, None] = OrderedDict()  # the longest idle first
        self._waiting: OrderedDict[asyncio.Future[Connection | None], None] = OrderedDict()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def counts(self) -> dict[str, int]:
        """Now."""
        idle = len(self._idle)
        return {"busy": self._slots - idle, "idle": idle, "waiting": len(self._waiting), "open": len(self._open)}

    def take(self) -> Connection | None:
        """An idle connection that is fit for use; the one used last, so that what is too many can expire."""
        if not self._idle:
            return None
        now = self._loop.time()
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.is_usable(now):
                return connection
            self.stats.stale += 1
            connection.abort()
        return None

    async def acquire(self, timeouts: Timeouts) -> Connection:
        """A connection, in the order of asking. PoolTimeout, ConnectTimeout or ConnectError if there is none."""
        if self._closed:
            raise httpx2.PoolTimeout("The transport is closed.")
        if self._slots < self._settings.max_connections:
            self._slots += 1
        else:
            connection = await self._queue(timeouts.pool)
            if connection is not None:
                if connection.is_usable(self._loop.time()):
                    connection.owns_slot = True
                    return connection
                self.stats.stale += 1
                connection.abort()
        try:
            connection = await self._connect(timeouts.connect)
        except BaseException:
            self._free_slot()
            raise
        connection.owns_slot = True
        return connection

    def give_back(self, connection: Connection) -> None:
        """It has done its exchange and can do another."""
        if self._closed or self._loop.time() >= connection.retires:
            connection.abort()
            return
        waiter = self._next_waiter()
        if waiter is not None:
            connection.owns_slot = False
            waiter.set_result(connection)
            return
        self._idle[connection] = None
        if self._sweeper is None:
            self._sweeper = self._loop.call_at(connection.expires, self._sweep)

    def learn(self, connection: Connection) -> None:
        """Its TLS session is there to go on with."""
        session = connection.session()
        if self._ssl is not None and session is not None:
            self._ssl.session = session

    def gone(self, connection: Connection) -> None:
        """It is closed."""
        self._idle.pop(connection, None)
        self._open.discard(connection)
        if connection.owns_slot:
            connection.owns_slot = False
            self._free_slot()

    def close(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(httpx2.PoolTimeout("The transport is closed."))
        for connection in list(self._open):
            connection.abort()

    async def _queue(self, seconds: float | None) -> Connection | None:
        """A slot, and perhaps the connection that had it."""
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiting[waiter] = None
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except BaseException as error:
            self._waiting.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._refuse(waiter.result())
            if isinstance(error, TimeoutError):
                raise httpx2.PoolTimeout("No connection became free in time.") from None
            raise

    def _refuse(self, granted: Connection | None) -> None:
        """It was given to a caller who has left meanwhile."""
        if granted is None or granted.closed:
            self._free_slot()
        else:
            granted.owns_slot = True
            self.give_back(granted)

    def _free_slot(self) -> None:
        waiter = self._next_waiter()
        if waiter is None:
            self._slots -= 1
        else:
            waiter.set_result(None)

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                return waiter
        return None

    def _sweep(self) -> None:
        """Close what has been idle for too long; one timer for all, while there is any."""
        self._sweeper = None
        now = self._loop.time()
        for connection in [idle for idle in self._idle if idle.expires <= now]:
            connection.abort()
        if self._idle:
            soonest = min(connection.expires for connection in self._idle)
            self._sweeper = self._loop.call_at(soonest, self._sweep)

    async def _connect(self, seconds: float | None) -> Connection:
        try:
            async with asyncio.timeout(seconds):
                connection = await self._race(await self._addresses())
        except TimeoutError:
            raise httpx2.ConnectTimeout("The upstream could not be connected to in time.") from None
        except OSError as error:  # as are ssl.SSLError and socket.gaierror
            if self._ssl is not None:
                self._ssl.session = None
            raise httpx2.ConnectError(f"The upstream could not be connected to: {error}") from error
        if self._closed or connection.closed:
            connection.abort()
            raise httpx2.ConnectError("The connection was closed as soon as it was made.")
        connection.idle_limit = self._settings.keepalive_s
        spread = random.uniform(0.9, 1.0)  # noqa: S311  or all would retire at once
        connection.retires = self._loop.time() + self._settings.max_age_s * spread
        self.stats.opened += 1
        self.stats.resumed += connection.resumed
        return connection

    async def _addresses(self) -> list[str]:
        """Each time anew, and all of them allowed: what was checked is what is connected to."""
        host, port = self.origin.host, self.origin.port
        try:
            found: Sequence[str] = [str(ipaddress.ip_address(host))]
        except ValueError:
            found = await (self._settings.resolve or _resolve)(host, port)
        allow = self._settings.allow_address
        if allow is not None and not all(allow(_plain(address)) for address in found):
            raise httpx2.ConnectError("The upstream's address is not allowed.")
        if not found:
            raise httpx2.ConnectError("The upstream's name has no address.")
        return _interleaved(found)

    async def _race(self, addresses: Sequence[str]) -> Connection:
        """Happy eyeballs (RFC 8305), our own because uvloop has none: each address a moment after the one before."""
        if len(addresses) == 1:
            return await self._attempt(addresses[0])
        attempts: list[asyncio.Task[Connection]] = []
        running: set[asyncio.Task[Connection]] = set()
        winner: asyncio.Task[Connection] | None = None
        left = list(addresses)
        try:
            while left or running:
                if left:
                    attempts.append(self._loop.create_task(self._attempt(left.pop(0))))
                    running.add(attempts[-1])
                stagger = _STAGGER_S if left else None
                done, running = await asyncio.wait(running, timeout=stagger, return_when=asyncio.FIRST_COMPLETED)
                winner = next((task for task in done if task.exception() is None), None)
                if winner is not None:
                    return winner.result()
            raise cast("BaseException", attempts[0].exception())
        finally:
            for task in attempts:
                if task is not winner:
                    task.add_done_callback(_abort_loser)
                    task.cancel()

    async def _attempt(self, address: str) -> Connection:
        connection = Connection(self, self._loop)
        tls: dict[str, Any] = {}
        if self._ssl is not None:
            tls = {"ssl": self._ssl, "server_hostname": self.origin.host, "ssl_shutdown_timeout": _SHUTDOWN_S}
        try:
            await self._loop.create_connection(lambda: connection, address, self.origin.port, **tls)
        except BaseException:
            connection.abort()
            raise
        self._open.add(connection)
        return connection


class _Resuming:
    """An SSL context that goes on with an earlier session of the same origin.

    No event loop's API takes a session. But asyncio and uvloop ask nothing of a context except `wrap_bio`, and that takes
    one; so does a resumed handshake spare the server's certificate, its check, and over TLS 1.2 a round trip.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.session: ssl.SSLSession | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> ssl.SSLObject:
        return self._context.wrap_bio(incoming, outgoing, server_side, server_hostname, self.session)


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _plain(address: str) -> Address:
    """As a rule should see it: an IPv4 address in IPv6's clothes is an IPv4 address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _interleaved(addresses: Sequence[str]) -> list[str]:
    """The families in turn, beginning with the resolver's first."""
    first = ":" in addresses[0]
    preferred = [address for address in addresses if (":" in address) == first]
    others = [address for address in addresses if (":" in address) != first]
    return [address for pair in zip_longest(preferred, others) for address in pair if address is not None]


def _abort_loser(task: asyncio.Task[Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abort()
