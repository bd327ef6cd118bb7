"""The line to Redis: the calls of one event-loop tick leave in one write, on one connection that this module owns.

A command at a time costs a client 45 - 88 us, a batch 21 us or less (docs/performance.md). The rules of design.md section 5:
a caller that was cancelled is skipped and disturbs nobody; an error fails everyone whose answer is unknown; nothing is
ever sent again by the driver, because only the caller knows whether that is safe (every script is idempotent by its id).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ledger.call import Call, Script
from ledger.conversation import Conversation

__all__ = ["Arg", "Caller", "Link", "Script", "StoreUnavailable"]

Arg = str | bytes | int
_NO_RETRY = Retry(NoBackoff(), 0)
_RECONNECT_S = (0.02, 0.05, 0.1, 0.25, 0.5)


class StoreUnavailable(Exception):
    """Redis did not answer. Whether the call took effect is not known."""


class Caller(Protocol):
    """What can run scripts and commands: a Link to one server, or a ClusterLink to many."""

    def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Arg], *, patient: bool = False
    ) -> asyncio.Future[Any]: ...

    def command(self, *words: Arg, key: str | None = None) -> asyncio.Future[Any]: ...

    def transaction(self, key: str, *commands: tuple[Arg, ...]) -> asyncio.Future[Any]: ...

    def together(self, key: str, *commands: tuple[Arg, ...]) -> asyncio.Future[Any]: ...

    def server_of(self, key: str) -> object: ...


class Link:
    """One pipelined connection. `deadline_s` bounds how long any call may stay unanswered, connecting included."""

    def __init__(self, url: str, *, deadline_s: float = 2.0, name: str = "weir") -> None:
        self._pool = connection_pool(url, name=name)
        self._deadline_s = deadline_s
        self._waiting: deque[Call] = deque()
        self._conversation: Conversation | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving = self._lingering = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Connect, and stay connected until the block ends."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._serve(), name="redis link")
        self._task.add_done_callback(lambda _: self._fail_all(StoreUnavailable("the link is closed")))

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._fail_all(StoreUnavailable("the link is closed"))
        await close_pool(self._pool)

    def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Arg], *, patient: bool = False
    ) -> asyncio.Future[Any]:
        """Run a script; the future has its reply, or raises ResponseError or StoreUnavailable.

        `patient`: it leaves a turn of the loop later, or with what leaves before that; all calls keep their order.
        """
        return self._add(script, (len(keys), *keys, *args), patient=patient)

    def command(self, *words: Arg, key: str | None = None) -> asyncio.Future[Any]:
        """Any other command, for readers and loaders; the gateway's path uses none when its snapshots are fresh."""
        del key  # there is one server
        return self._add(None, words)

    def transaction(self, key: str, *commands: tuple[Arg, ...]) -> asyncio.Future[Any]:
        """MULTI ... EXEC; the future has EXEC's answer. They leave together, so nothing comes in between."""
        del key
        for words in (("MULTI",), *commands):
            self._add(None, words).add_done_callback(_ignore)
        # Shielded: MULTI without its EXEC would answer QUEUED to everybody after it.
        return asyncio.shield(self._add(None, ("EXEC",)))

    def together(self, key: str, *commands: tuple[Arg, ...]) -> asyncio.Future[Any]:
        """Commands in this order on one connection, nothing between them; the future has all their answers."""
        del key
        return asyncio.gather(*(self._add(None, words) for words in commands))

    def server_of(self, key: str) -> object:
        """Names the server that has this key, as far as is known: one name for all keys."""
        del key
        return self._pool

    def _add(self, script: Script | None, args: tuple[Any, ...], *, patient: bool = False) -> asyncio.Future[Any]:
        loop = self._loop
        if loop is None or self._task is None or self._task.done():
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(StoreUnavailable("the link is closed"))
            return failed
        future: asyncio.Future[Any] = loop.create_future()
        self._put(Call(script, args, future), patient=patient)
        return future

    def _put(self, call: Call, *, patient: bool = False) -> None:
        self._waiting.append(call)
        if self._leaving or self._conversation is None or self._loop is None:
            return
        if not patient:
            self._depart()
        elif not self._lingering:
            self._lingering = True
            self._loop.call_soon(self._depart)

    def _depart(self) -> None:
        self._lingering = False
        if self._waiting and not self._leaving and self._loop is not None:
            self._leaving = True
            self._loop.call_soon(self._leave)  # when everybody of this tick is on the same boat

    async def _serve(self) -> None:
        failures = 0
        while True:
            connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                async with asyncio.timeout(self._deadline_s):
                    await connection.connect()  # type: ignore[no-untyped-call]
                failures = 0
                await self._converse(connection)
            # Whatever broke the conversation: uvloop, for one, has a RuntimeError for a write to a closed transport. A link
            # that died of it would refuse every call from then on, and keep every charge from its book.
            except Exception as error:  # noqa: BLE001
                self._fail_all(StoreUnavailable(type(error).__name__))
                await asyncio.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])
                failures += 1
            finally:
                with contextlib.suppress(OSError, RuntimeError):
                    await connection.disconnect(nowait=True)

    async def _converse(self, connection: AbstractConnection) -> None:
        """Until something fails; raises what failed, and the connection is not used again."""
        conversation = self._conversation = Conversation(connection, self._put)
        loop = asyncio.get_running_loop()
        self._leave()
        try:
            while True:
                # One timer instead of one a call: silence for longer than the deadline breaks the connection.
                await asyncio.wait((conversation.lost,), timeout=self._deadline_s / 4)
                if conversation.lost.done():
                    conversation.lost.result()
                if conversation.sent and loop.time() - conversation.heard_at > self._deadline_s:
                    raise TimeoutError
        finally:
            self._conversation = None
            self._waiting.extendleft(reversed(conversation.end()))

    def _leave(self) -> None:
        """Send what waits."""
        self._leaving = False
        conversation = self._conversation
        if conversation is None:
            return
        calls, packed = self._pack(conversation)
        if calls:
            conversation.send(calls, packed)

    def _pack(self, conversation: Conversation) -> tuple[list[Call], list[bytes]]:
        """Take what waits: the calls to send, and their bytes. Words that cannot be sent fail their caller alone."""
        calls: list[Call] = []
        packed: list[bytes] = []
        waiting = self._waiting
        while waiting:
            call = waiting.popleft()
            if call.future.done():
                continue
            try:
                words = call.words()
                try:
                    packed.append(pack_command(words))  # in C: the driver's own takes 4 us a word
                except TypeError:  # a subclass, such as BSON's Int64, or nothing that can be sent
                    packed += conversation.pack_slowly(*words)
            except (RedisError, ValueError, TypeError) as error:
                call.fail(error)
                continue
            calls.append(call)
        return calls, packed

    def _fail_all(self, error: Exception) -> None:
        while self._waiting:
            self._waiting.popleft().fail(error)


def _ignore(future: asyncio.Future[Any]) -> None:
    """EXEC's answer says what became of a transaction's parts."""
    if not future.cancelled():
        future.exception()


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
