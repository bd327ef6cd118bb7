"""Connections to Redis by redis-py: how they are made, how a link stays connected, and plain clients.

redis-py connects, speaks TLS, authenticates and finds its way through Sentinel; it never repeats a command by itself.
"""

import asyncio
import contextlib
from typing import Any, Protocol
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from ledger.conversation import Conversation

_NO_RETRY = Retry(NoBackoff(), 0)
_RECONNECT_S = (0.02, 0.05, 0.1, 0.25, 0.5)


class Line(Protocol):
    """Who uses one connection after the other."""

    def enter(self, connection: AbstractConnection) -> Conversation: ...

    def left(self, conversation: Conversation) -> None: ...

    def failed(self, why: str) -> None: ...


async def stay_connected(pool: ConnectionPool, line: Line, *, deadline_s: float) -> None:
    """For ever. `deadline_s` bounds connecting, and how long a connection may be silent while something is asked."""
    failures = 0
    while True:
        connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(deadline_s):
                await connection.connect()  # type: ignore[no-untyped-call]
            failures = 0
            await _converse(connection, line, deadline_s)
        # Whatever broke the conversation: uvloop, for one, has a RuntimeError for a write to a closed transport. A link
        # that died of it would refuse every call from then on, and keep every charge from its book.
        except Exception as error:  # noqa: BLE001
            line.failed(type(error).__name__)
            await asyncio.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])
            failures += 1
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                await connection.disconnect(nowait=True)


async def _converse(connection: AbstractConnection, line: Line, deadline_s: float) -> None:
    """Until something fails; raises what failed, and the connection is not used again."""
    conversation = line.enter(connection)
    loop = asyncio.get_running_loop()
    try:
        while True:
            # One timer instead of one a call: silence for longer than the deadline breaks the connection.
            await asyncio.wait((conversation.lost,), timeout=deadline_s / 4)
            if conversation.lost.done():
                conversation.lost.result()
            if conversation.sent and loop.time() - conversation.heard_at > deadline_s:
                raise TimeoutError
    finally:
        line.left(conversation)


def connection_pool(url: str, *, name: str) -> ConnectionPool:
    """A pool for a `redis://`, `rediss://` or `redis+sentinel://host[:port][,host...]/service` URL; no driver retries."""
    options: dict[str, Any] = {
        "retry": _NO_RETRY,
        "socket_timeout": None,
        "socket_connect_timeout": 2,
        "client_name": name,
        "max_connections": 64,
    }
    if not url.startswith("redis+sentinel://"):
        return BlockingConnectionPool.from_url(url, **options)
    parts = urlsplit(url)
    hosts = [tuple(host.rpartition(":")[::2]) for host in parts.netloc.rpartition("@")[2].split(",")]
    sentinels = [(host or port, int(port) if host else 26379) for host, port in hosts]
    password = parts.password
    sentinel = Sentinel(sentinels, sentinel_kwargs={"socket_timeout": 1})  # type: ignore[no-untyped-call]
    service = parts.path.strip("/") or "mymaster"
    pool: ConnectionPool = sentinel.master_for(service, password=password, **options).connection_pool
    return pool


async def close_pool(pool: ConnectionPool) -> None:
    """Close a pool, and the connections to sentinels that the driver leaves open beside it."""
    await pool.aclose()
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def client(url: str, *, name: str = "weir", timeout_s: float = 5.0) -> Redis:
    """A plain client with the driver's usual answers, for loops that read streams."""
    pool = connection_pool(url, name=name)
    pool.connection_kwargs["socket_timeout"] = timeout_s
    return Redis.from_pool(pool)
