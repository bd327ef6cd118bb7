"""The connections to one origin: bounded, and handed out fairly."""

import asyncio
from collections import OrderedDict
from typing import NamedTuple

import httpx2

from gateway.upstream.connection import Connection
from gateway.upstream.making import Maker, Settings, Stats
from gateway.upstream.wire import Origin


class Timeouts(NamedTuple):
    """Seconds; None is for ever. `read` bounds the wait for a whole head, and each wait for more of the body."""

    connect: float | None = 5.0
    read: float | None = 600.0
    write: float | None = 600.0
    pool: float | None = 5.0
    total: float | None = None


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
        self._maker = Maker(origin, settings)
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
        self._maker.learn(connection)

    def joined(self, connection: Connection) -> None:
        """It is open."""
        self._open.add(connection)

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
        timer = None if seconds is None else self._loop.call_later(seconds, _give_up, waiter)
        try:
            return await waiter
        except BaseException:
            self._waiting.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._refuse(waiter.result())
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def _connect(self, seconds: float | None) -> Connection:
        connection = await self._maker.connect(self, seconds)
        if self._closed or connection.closed:
            connection.abort()
            raise httpx2.ConnectError("The connection was closed as soon as it was made.")
        self.stats.opened += 1
        self.stats.resumed += connection.resumed
        return connection

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


def _give_up(waiter: asyncio.Future[Connection | None]) -> None:
    if not waiter.done():
        waiter.set_exception(httpx2.PoolTimeout("No connection became free in time."))
