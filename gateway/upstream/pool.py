"""The connections to one origin: bounded, handed out fairly, and made anew with a fresh look at the DNS."""

import asyncio
import ipaddress
import random
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, zip_longest
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
    """`take` is the quick way and `acquire` the sure one; a connection comes back by itself when its answer is complete."""

    def __init__(self, origin: Origin, settings: Settings, stats: Stats) -> None:
        self.origin = origin
        self.stats = stats
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._ssl = _Resuming(settings.ssl_context) if origin.scheme == "https" else None
        self._idle: OrderedDict[Connection, None] = OrderedDict()  # the longest idle first
        self._open: set[Connection] = set()
        self._connecting = 0
        self._waiting: OrderedDict[asyncio.Future[Connection | None], None] = OrderedDict()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def counts(self) -> dict[str, int]:
        """Now."""
        return {
            "in_use": len(self._open) - len(self._idle),
            "idle": len(self._idle),
            "connecting": self._connecting,
            "waiting": len(self._waiting),
        }

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
        if self._waiting or not self._has_room():
            connection = await self._queue(timeouts.pool)
            if connection is not None:
                if connection.is_usable(self._loop.time()):
                    return connection
                # Its room is ours: nobody else may be let in by its end.
                self.stats.stale += 1
                self._connecting += 1
                connection.abort()
                self._connecting -= 1
        self._connecting += 1
        try:
            connection = await self._connect(timeouts.connect)
        finally:
            self._connecting -= 1
            self._let_in()
        return connection

    def give_back(self, connection: Connection) -> None:
        """It has done its exchange and can do another."""
        if self._closed or self._loop.time() >= connection.retires:
            connection.abort()
            return
        if self._ssl is not None and not connection.offered_session:
            connection.offered_session = True
            self._ssl.session = connection.session() or self._ssl.session
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(connection)
            return
        self._idle[connection] = None
        if self._sweeper is None:
            self._sweeper = self._loop.call_at(connection.expires, self._sweep)

    def gone(self, connection: Connection) -> None:
        """It is closed."""
        self._idle.pop(connection, None)
        self._open.discard(connection)
        self._let_in()

    def close(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(httpx2.PoolTimeout("The transport is closed."))
        for connection in list(self._open):
            connection.abort()

    # Room, and the queue for it. A future gets a connection, or None: room for a new one, counted as connecting.

    def _has_room(self) -> bool:
        return len(self._open) + self._connecting < self._settings.max_connections

    async def _queue(self, seconds: float | None) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiting[waiter] = None
        self._let_in()
        try:
            async with asyncio.timeout(seconds):
                connection = await waiter
        except BaseException as error:
            self._waiting.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._undo(waiter.result())
            if isinstance(error, TimeoutError):
                raise httpx2.PoolTimeout("No connection became free in time.") from None
            raise
        if connection is None:
            self._connecting -= 1  # the room kept for us, which acquire takes in the same step
        return connection

    def _undo(self, granted: Connection | None) -> None:
        if granted is None:
            self._connecting -= 1
            self._let_in()
        elif not granted.closed:
            self.give_back(granted)

    def _let_in(self) -> None:
        while self._waiting and self._has_room():
            waiter = self._next_waiter()
            if waiter is not None:
                self._connecting += 1
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
        for connection in [c for c in self._idle if c.expires <= now]:
            connection.abort()
        if self._idle:
            self._sweeper = self._loop.call_at(min(c.expires for c in self._idle) + 0.05, self._sweep)

    # Connecting.

    async def _connect(self, seconds: float | None) -> Connection:
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._addresses()
                connection = await self._race(addresses)
        except TimeoutError:
            raise httpx2.ConnectTimeout("The upstream could not be connected to in time.") from None
        except OSError as error:  # which ssl.SSLError and socket.gaierror are
            raise httpx2.ConnectError(f"The upstream could not be connected to: {error}") from error
        if self._closed or connection.closed:
            connection.abort()
            raise httpx2.ConnectError("The connection was closed as soon as it was made.")
        return connection

    async def _addresses(self) -> list[str]:
        """Each time anew, and every one of them allowed: the one that was checked is the one that is connected to."""
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
        """Happy eyeballs (RFC 8305), our own because uvloop has none: each address a moment after the last."""
        if len(addresses) == 1:
            return await self._attempt(addresses[0])
        attempts: list[asyncio.Task[Connection]] = []
        winner: asyncio.Task[Connection] | None = None
        try:
            left = list(addresses)
            running: set[asyncio.Task[Connection]] = set()
            while left or running:
                if left:
                    attempt = self._loop.create_task(self._attempt(left.pop(0)))
                    attempts.append(attempt)
                    running.add(attempt)
                wait_s = _STAGGER_S if left else None
                done, running = await asyncio.wait(running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                winner = next((task for task in done if task.exception() is None), None)
                if winner is not None:
                    return winner.result()
            raise _told_best(attempts)
        finally:
            await self._clear(attempts, winner)

    async def _clear(self, attempts: list[asyncio.Task[Connection]], winner: asyncio.Task[Connection] | None) -> None:
        for task in attempts:
            if task is winner:
                continue
            task.add_done_callback(_abort_loser)
            task.cancel()

    async def _attempt(self, address: str) -> Connection:
        connection: Connection | None = None

        def make() -> Connection:
            nonlocal connection
            connection = Connection(self, self._loop)
            return connection

        tls: dict[str, Any] = {}
        if self._ssl is not None:
            tls = {"ssl": self._ssl, "server_hostname": self.origin.host, "ssl_shutdown_timeout": _SHUTDOWN_S}
        try:
            await self._loop.create_connection(make, address, self.origin.port, **tls)
        except BaseException:
            if connection is not None:
                connection.abort()
            raise
        made = cast("Connection", connection)
        self._open.add(made)
        made.idle_limit = self._settings.keepalive_s
        made.retires = self._loop.time() + self._settings.max_age_s * random.uniform(0.9, 1.0)  # noqa: S311
        self.stats.opened += 1
        if made.resumed:
            self.stats.resumed += 1
        return made
