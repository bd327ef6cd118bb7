"""How connections to an origin are made: a fresh look at the DNS each time, happy eyeballs, TLS that is resumed."""

import asyncio
import ipaddress
import random
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import httpx2

from gateway.upstream.connection import Connection
from gateway.upstream.wire import Origin

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_STAGGER_S = 0.25  # RFC 8305's delay before the next address is tried beside the last
_SHUTDOWN_S = 1.0


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


class Maker:
    """Makes the connections of one origin, and remembers its TLS session."""

    def __init__(self, origin: Origin, settings: Settings) -> None:
        self._origin = origin
        self._settings = settings
        self._ssl = _Resuming(settings.ssl_context) if origin.scheme == "https" else None

    async def connect(self, pool: "Pool", seconds: float | None) -> Connection:
        """A new connection, of the pool. ConnectTimeout or ConnectError if there is none."""
        try:
            async with asyncio.timeout(seconds):
                connection = await self._race(pool, await self._addresses())
        except TimeoutError:
            raise httpx2.ConnectTimeout("The upstream could not be connected to in time.") from None
        except OSError as error:  # as are ssl.SSLError and socket.gaierror
            if self._ssl is not None:
                self._ssl.session = None
            raise httpx2.ConnectError(f"The upstream could not be connected to: {error}") from error
        connection.idle_limit = self._settings.keepalive_s
        spread = random.uniform(0.9, 1.0)  # noqa: S311  or all would retire at once
        connection.retires = asyncio.get_running_loop().time() + self._settings.max_age_s * spread
        return connection

    async def _addresses(self) -> list[str]:
        """Each time anew, and all of them allowed: what was checked is what is connected to."""
        host, port = self._origin.host, self._origin.port
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

    async def _race(self, pool: "Pool", addresses: Sequence[str]) -> Connection:
        """Happy eyeballs (RFC 8305), our own because uvloop has none: each address a moment after the one before."""
        if len(addresses) == 1:
            return await self._attempt(pool, addresses[0])
        attempts: list[asyncio.Task[Connection]] = []
        running: set[asyncio.Task[Connection]] = set()
        winner: asyncio.Task[Connection] | None = None
        left = list(addresses)
        try:
            while left or running:
                if left:
                    attempts.append(asyncio.create_task(self._attempt(pool, left.pop(0))))
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

    async def _attempt(self, pool: "Pool", address: str) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(pool, loop)
        tls: dict[str, Any] = {}
        if self._ssl is not None:
            tls = {"ssl": self._ssl, "server_hostname": self._origin.host, "ssl_shutdown_timeout": _SHUTDOWN_S}
        try:
            await loop.create_connection(lambda: connection, address, self._origin.port, **tls)
        except BaseException:
            connection.abort()
            raise
        pool.joined(connection)
        return connection

    def learn(self, connection: Connection) -> None:
        """Its TLS session is there to go on with."""
        session = connection.session()
        if self._ssl is not None and session is not None:
            self._ssl.session = session


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
